"""The autoregressive family of tokens: sums over all sequences, the chain rule, padding, samples, a trained toy."""

import math
from functools import partial
from itertools import product

import pytest
import torch
from ppca import generator

from vaezoo.conditional import Conditional
from vaezoo.families import Bernoulli, IndexCategorical, Joint, TokenSequence
from vaezoo.models import VAE
from vaezoo.nets import MLP, LabelConditioned, TokenInput

FLOAT = torch.float64
END = 1


def family(length=4, end_token=END, **options):
    torch.manual_seed(0)
    made = TokenSequence(4, length, hidden=6, embedding=5, num_layers=2, end_token=end_token, **options).double()
    with torch.no_grad():
        made.out.weight.mul_(4)  # far from uniform
    return made


def vectors(*batch, seed=1):
    return 2 * torch.randn(*batch, 6, dtype=FLOAT, generator=generator(seed))


def sequences(length):
    """Every sequence: those that end, padded, and those of full length that do not."""
    words = [0, 2, 3]
    ending = [[*w, END] + [-1] * (length - n - 1) for n in range(length) for w in product(words, repeat=n)]
    return torch.tensor(ending + [list(w) for w in product(words, repeat=length)])


def test_probabilities_of_all_sequences_sum_to_one():
    """Strings of up to 3 of 3 tokens with their end token, and the strings of 4 tokens without one; for each h."""
    x, h = sequences(4), vectors(2)
    assert len(x) == 1 + 3 + 9 + 27 + 81
    made = family()
    made.check(x)
    mass = made(h.unsqueeze(1)).log_prob(x).exp()  # (2, number)
    torch.testing.assert_close(mass.sum(1), torch.ones(2, dtype=FLOAT), rtol=0, atol=1e-12)
    assert mass.max() > 0.1
    endless = family(length=3, end_token=None)
    x = torch.tensor(list(product(range(4), repeat=3)))
    assert endless(h[0]).log_prob(x).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_each_token_depends_on_those_before_it_and_on_h():
    """The logits at t change with h and earlier tokens of the receptive field, never with x_t or later ones."""
    made, h = family(length=12), vectors(1)[0]
    assert made.receptive_field == 7
    x = torch.zeros(12, dtype=torch.long)
    before = made.next_logits(h, x)
    for t in range(12):
        changed = x.clone()
        changed[t] = 2
        difference = (made.next_logits(h, changed) - before).abs().amax(-1)
        assert (difference[: t + 1] == 0).all()
        assert (difference[t + 1 : t + 8] > 0).all()
        assert (difference[t + 8 :] == 0).all()
    assert ((made.next_logits(vectors(1, seed=2)[0], x) - before).abs().amax(-1) > 0).all()


def test_padding_changes_nothing():
    """log p of a sentence does not depend on how much padding follows; it is the sum of its tokens' log p."""
    x, h = torch.tensor([3, 0, END]), vectors(5)
    short, long = family(length=3), family(length=9)
    long.load_state_dict(short.state_dict())
    padded = torch.cat([x, torch.full((6,), -1)])
    torch.testing.assert_close(short(h).log_prob(x), long(h).log_prob(padded), rtol=0, atol=1e-13)
    log_p = long.next_logits(h, padded).log_softmax(-1)
    by_hand = sum(log_p[:, t, token] for t, token in enumerate(x))
    torch.testing.assert_close(long(h).log_prob(padded), by_hand, rtol=0, atol=1e-13)
    nothing = long(h).log_prob(torch.full((9,), -1))
    assert torch.equal(nothing, torch.zeros(5, dtype=FLOAT))


def test_samples_have_the_probabilities_of_the_density():
    """The frequencies of all sequences (Pearson's chi-square); after the end there is padding only."""
    made, h = family(length=3), vectors(1)[0]
    x = sequences(3)
    mass = made(h).log_prob(x).exp()
    torch.manual_seed(0)
    num = 20_000
    drawn = made(h).sample(torch.Size([num]))
    assert drawn.dtype == torch.int64
    made.check(drawn)
    counts = (drawn[:, None] == x).all(-1).sum(0).double()
    assert counts.sum() == num
    often = num * mass >= 5
    square = ((counts - num * mass).square() / (num * mass))[often].sum()
    assert square < int(often.sum()) + 6 * math.sqrt(2 * int(often.sum()))
    assert made(vectors(2, 3)).sample(torch.Size([5])).shape == (5, 2, 3, 3)


def test_expanded_distribution_is_the_same_one():
    made, h = family(), vectors(3)
    px, more = made(h), made(h).expand(torch.Size([2, 3]))
    x = sequences(4)[:3]
    torch.testing.assert_close(more.log_prob(x), px.log_prob(x).expand(2, 3))
    assert torch.equal(more.mean, px.mean.expand(2, 3, 4))
    assert torch.equal(px.mode, px.mean)
    assert torch.equal(made.point_estimate(h), px.mean)


def test_greedy_decoding_of_a_trained_toy():
    """After training on one sentence for each code, greedy decoding gives the sentences, and so do most samples."""
    sentences = torch.tensor([[2, 0, 3, END, -1], [3, 3, END, -1, -1], [0, 2, 0, 2, 3]])
    torch.manual_seed(0)
    made = TokenSequence(4, 5, hidden=16, embedding=8, num_layers=2, end_token=END)
    decoder = Conditional((3,), (5,), partial(MLP, hidden=[]), made)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.02)
    codes = torch.eye(3)
    for _ in range(150):
        loss = -decoder(codes).log_prob(sentences).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05
    assert torch.equal(decoder.point_estimate(codes), sentences)
    drawn = decoder(codes).sample(torch.Size([200]))
    assert ((drawn == sentences).all(-1).float().mean(0) > 0.8).all()


def test_training_starts_at_the_frequencies_of_the_tokens():
    """The mean of log p per token is then minus the entropy of the frequencies, up to the half token that is added.

    Exactly so if the network adds nothing to its bias; its initial weights change it by less than 0.3 nats, where a
    uniform start would be 2.4 nats lower.
    """
    V, T = 200, 30
    torch.manual_seed(0)
    frequencies = 1 / torch.arange(1, V + 1).double() ** 1.5
    x = torch.multinomial(frequencies, 1000 * T, replacement=True, generator=generator(3)).reshape(1000, T)
    x[:, -5:] = -1
    counts = torch.bincount(x[x >= 0], minlength=V).double()
    minus_entropy = float((torch.special.xlogy(counts, counts) / counts.sum()).sum() - counts.sum().log())
    assert minus_entropy + math.log(V) > 2.4
    decoder = Conditional((2,), (T,), partial(MLP, hidden=[]), TokenSequence(V, T))
    decoder.init_from_data(x.double().mean(0), x)
    z = torch.zeros(1000, 2)
    tokens = int(counts.sum())
    with torch.no_grad():
        assert float(decoder(z).log_prob(x).sum()) / tokens == pytest.approx(minus_entropy, abs=0.3)
        decoder.family.out.weight.zero_()
        assert float(decoder(z).log_prob(x).sum()) / tokens == pytest.approx(minus_entropy, abs=1e-3)


def test_model_of_sentences():
    """One graph, K samples, its own start; the bound of a sequence alone and as a part of a mixed x."""
    x = sequences(4)[torch.tensor([0, 5, 30, 60, 100])]

    encoder = partial(TokenInput, net=partial(MLP, hidden=[5]), num_tokens=4, embedding=3)
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        torch.manual_seed(0)
        made = TokenSequence(4, 4, hidden=6, embedding=5, end_token=END)
        model = VAE((4,), latent_dim=2, encoder=encoder, decoder=partial(MLP, hidden=[]), likelihood=made)
        model.decoder.init_from_data(x.float().mean(0), x)
        torch.manual_seed(0)
        loss = compiler(lambda x, model=model: model.objective(model(x, num_samples=3))["loss"])(x)
        results.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)
    assert model.log_marginal(x, num_samples=7).shape == (5,)
    assert model.sample(6).sample().shape == (6, 4)
    joint = Joint({"class": [1], "text": [4]}, {"class": IndexCategorical(3), "text": family()})
    flat = joint.layout.join({"class": torch.zeros(5, 1, dtype=torch.long), "text": x}).double()
    raw = torch.cat([torch.zeros(5, 3, dtype=FLOAT), vectors(5)], 1)
    expected = family()(vectors(5)).log_prob(x) - math.log(3)
    torch.testing.assert_close(joint(raw).log_prob(flat), expected, rtol=0, atol=1e-12)
    joint.check(flat)
    joint.check(joint(raw).sample())


def test_network_sees_the_vector_of_each_token():
    """By hand: the rows of the table, as channels; padding is the last row. Labels are added inside."""
    net = TokenInput((3,), (2,), partial(MLP, hidden=[]), num_tokens=4, embedding=5)
    x = torch.tensor([[2, 0, -1], [3, 3, 1]])
    vectors = net.embedding.weight[torch.tensor([[2, 0, 4], [3, 3, 1]])].transpose(1, 2)
    assert torch.equal(Conditional((3,), (2,), lambda *_: net, Bernoulli()).raw_outputs(x), net.net(vectors))
    inner = partial(LabelConditioned, net=partial(MLP, hidden=[]), num_classes=2)
    assert TokenInput((3,), (2,), inner, num_tokens=4)(x, torch.tensor([0, 1])).shape == (2, 2)
    with pytest.raises(ValueError, match=r"TokenInput takes tokens as integers, got torch.float32"):
        net(x.float())
    with pytest.raises(ValueError, match="num_tokens and embedding must be >= 1, got 0 and 64"):
        TokenInput((3,), (2,), MLP, num_tokens=0)


def test_wrong_sequences_are_refused():
    made = family()
    with pytest.raises(ValueError, match=r"takes the tokens 0 ... 3, got 4: use num_tokens=5"):
        made.check(torch.tensor([[4, 1, -1, -1]]))
    with pytest.raises(ValueError, match=r"a token follows the end token 1: fill the rest of x with -1"):
        made.check(torch.tensor([[0, 1, 2, -1]]))
    with pytest.raises(ValueError, match=r"a token follows the padding, -1"):
        made.check(torch.tensor([[0, -1, 2, 3]]))
    with pytest.raises(ValueError, match=r"takes whole numbers as integers, got torch.float32"):
        made.check(torch.tensor([[0.0, 1.0]]))
    with pytest.raises(ValueError, match=r"TokenSequence has length=4, but x has the shape \(5,\)"):
        Conditional((2,), (5,), MLP, made)
    with pytest.raises(ValueError, match=r"end_token must be one of the tokens 0 ... 3, got 4"):
        TokenSequence(4, 4, end_token=4)
    with pytest.raises(ValueError, match="kernel must be >= 2, got 1"):
        TokenSequence(4, 4, kernel=1)


def test_the_next_token_of_a_long_sequence():
    """The logits of one token after another are those of the pass over all tokens."""
    family = TokenSequence(7, 60, hidden=6, embedding=4, num_layers=2).double()
    assert family.receptive_field == 7
    h, x = torch.randn(3, 6, dtype=torch.float64), torch.randint(7, (3, 60))
    logits = family.next_logits(h, x)
    step = family.stepper(h)
    for t in range(60):
        torch.testing.assert_close(step(x[:, t - 1] if t else None), logits[:, t], rtol=1e-10, atol=1e-10)
    broken = x.clone()
    broken[:, 30 - 7] = (x[:, 30 - 7] + 1) % 7  # the oldest token that position 30 sees
    changed = (family.next_logits(h, broken) != logits).any(-1).any(0)
    assert changed.nonzero()[:, 0].tolist() == list(range(24, 31))
