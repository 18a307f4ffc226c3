"""The VAE of sentences: word dropout, tied vectors, warm-up, perplexity; the contract of every model; all tasks."""

import json
import math
from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import config, train
from test_token_sequence import END, FLOAT, sequences, vectors

from vaezoo.data import TextData
from vaezoo.errors import ConfigError
from vaezoo.families import Bernoulli, TokenSequence
from vaezoo.inference.interpolation import mix_codes
from vaezoo.instantiate import build
from vaezoo.models import TextCVAE, TextVAE
from vaezoo.models.base import CAPABILITIES
from vaezoo.nets import SequenceEncoder, TokenInput
from vaezoo.objectives import ELBO
from vaezoo.runs.load import load
from vaezoo.runs.setup import fill_token_sizes, match_data

SENTENCES = [
    f"{a} {b} {c}{d} ."
    for a in ("the", "a")
    for b in ("cat", "dog", "old cow")
    for c in ("sat", "ran home", "slept")
    for d in ("", " and ate", " again", " again and again", " today")
]
SMALL = ["model.latent_dim=3", "model.encoder.hidden=8", "model.decoder.hidden=[8]", "model.likelihood.hidden=8",
         "model.likelihood.embedding=8", "model.warmup_steps=3"]  # fmt: skip


def family(**options):
    torch.manual_seed(0)
    made = TokenSequence(4, 4, hidden=6, num_layers=2, end_token=END, **{"embedding": 6, **options}).double()
    with torch.no_grad():
        made.out.weight.mul_(4)  # far from uniform
    return made


def seen_tokens(made, x):
    """The tokens that the network sees in one pass, and the log p of the pass."""
    seen, logits_after = [], made.logits_after
    made.logits_after = lambda h, before: (seen.append(before), logits_after(h, before))[1]
    log_p = made(vectors(*x.shape[:-1])).log_prob(x)
    made.logits_after = logits_after
    return seen[0], log_p


# Word dropout.


@pytest.mark.parametrize("tied", [False, True])
def test_in_evaluation_nothing_is_dropped(tied):
    """The probabilities of all sequences sum to 1, and are those of a family without dropout, to the bit."""
    x, h = sequences(4), vectors(2).unsqueeze(1)
    plain, made = family(tied=tied), family(tied=tied, word_dropout=0.5, dropout=0.4)
    made.load_state_dict(plain.state_dict())
    log_p = made.eval()(h).log_prob(x)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2, dtype=FLOAT), rtol=0, atol=1e-12)
    assert torch.equal(log_p, plain(h).log_prob(x))
    assert torch.equal(made(h).log_prob(x), log_p)
    assert not torch.equal(made.train()(h).log_prob(x), log_p)


def test_dropped_tokens_are_unknown_and_still_scored():
    """Word dropout of 1, by hand: the network sees the start and <unk> only; what is scored are the true tokens."""
    made = family(word_dropout=1.0)
    x, h = torch.tensor([[3, 2, END, -1], [2, 2, 3, 3]]), vectors(2)
    log_p = made.logits_after(h, torch.tensor([4, 0, 0, 0]).expand(2, 4)).log_softmax(-1)
    expected = [log_p[0, 0, 3] + log_p[0, 1, 2] + log_p[0, 2, END], log_p[1, range(4), [2, 2, 3, 3]].sum()]
    torch.testing.assert_close(made(h).log_prob(x), torch.stack(expected), rtol=0, atol=1e-12)
    assert torch.equal(made(h).mean, made.eval()(h).mean)  # sentences are made without it


def test_each_token_is_dropped_with_its_probability():
    """Independently in each place, but never the start; the noise follows torch's seed."""
    made = family(word_dropout=0.3)
    x = torch.full((4000, 4), 2)
    torch.manual_seed(1)
    seen, log_p = seen_tokens(made, x)
    assert (seen[:, 0] == 4).all()
    dropped = (seen[:, 1:] == 0).double()
    assert ((dropped == 1) | (seen[:, 1:] == 2)).all()
    sigma = math.sqrt(0.3 * 0.7 / 4000)
    assert (dropped.mean(0) - 0.3).abs().max() < 5 * sigma
    assert abs(float((dropped[:, 0] * dropped[:, 1]).mean()) - 0.09) < 5 * math.sqrt(0.09 * 0.91 / 4000)
    torch.manual_seed(1)
    assert torch.equal(seen_tokens(made, x)[1], log_p)
    assert not torch.equal(seen_tokens(made, x)[1], log_p)


# The decoder.


def test_tied_vectors_are_the_rows_of_the_softmax():
    made = family(tied=True)
    assert made.embedding.weight.shape == (1, 6)
    expected = torch.stack([6**0.5 * made.out.weight[2], made.embedding.weight[0], 6**0.5 * made.out.weight[0]])
    torch.testing.assert_close(made.embed(torch.tensor([2, 4, 0])), expected)


@pytest.mark.parametrize("tied", [False, True])
def test_the_jacobian_is_strictly_causal(tied):
    """Logits at t have no derivative by the vector of the token at t or later, and one by each of the two before."""
    made, h = family(tied=tied, activation="tanh").eval(), vectors(1)[0]
    before = torch.tensor([4, 0, 2, 3, 0, 2, 3, 2])  # the start, then tokens 0 ... 6
    given = made.embed(before).detach()
    made.embed = lambda tokens: made.given

    def logits(vectors):
        made.given = vectors
        return made.logits_after(h, before)

    jacobian = torch.autograd.functional.jacobian(logits, given).abs().sum((1, 3))  # (t, place of the input)
    assert (jacobian.triu(1) == 0).all()
    assert (jacobian.diagonal() > 0).all()
    assert (jacobian.diagonal(-1) > 0).all()


def test_the_end_is_scored_and_padding_is_not():
    made, h = family().eval(), vectors(1)[0]
    whole, cut = torch.tensor([3, END, -1, -1]), torch.tensor([3, -1, -1, -1])
    log_p_end = made.next_logits(h, whole).log_softmax(-1)[1, END]
    torch.testing.assert_close(made(h).log_prob(whole) - made(h).log_prob(cut), log_p_end, rtol=0, atol=1e-12)
    assert log_p_end < -0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"word_dropout": 1.1}, r"word_dropout must be a probability in \[0, 1\], got 1.1"),
        ({"dropout": 1.0}, r"dropout must be a probability in \[0, 1\), got 1.0"),
        ({"unknown_token": 4}, "unknown_token must be one of the tokens 0 ... 3, got 4"),
        ({"tied": True, "embedding": 5}, "tied needs vectors of one size, got embedding=5 and hidden=6"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        family(**options)


def test_encoder_of_sequences():
    """By hand; the place of a pattern does not matter; other shapes are refused."""
    torch.manual_seed(0)
    net = SequenceEncoder((3, 7), (2, 2), hidden=5).double()
    x = torch.zeros(1, 3, 7, dtype=FLOAT)
    x[..., 2:4] = vectors(1, 3)[..., :2]
    h = torch.nn.functional.conv1d(torch.nn.functional.pad(x, (1, 1)), net.convs[0].weight, net.convs[0].bias).relu()
    expected = net.out(torch.cat([h.mean(-1), h.max(-1)[0]], 1)).reshape(1, 2, 2)
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net(x.roll(2, -1)), expected)
    with pytest.raises(ValueError, match=r"takes sequences of vectors, .* got the shape \(1, 8, 8\)"):
        SequenceEncoder((1, 8, 8), (2,))
    with pytest.raises(ValueError, match="kernel odd, got 5, 1 and 2"):
        SequenceEncoder((3, 7), (2,), hidden=5, kernel=2)


# The model.


def tiny(**options):
    """A small model in float64 and five sentences."""
    x = sequences(4)[torch.tensor([0, 5, 30, 60, 100])]
    sizes = {"num_tokens": 4, "length": 4, "end_token": END}
    node = config("model", "model=text_vae", *SMALL, "data.shape=[4]")
    node["encoder"] = {"_target_": "vaezoo.nets.TokenInput", "_partial_": True, "num_tokens": 4, "net": node["encoder"]}
    node["likelihood"] |= sizes
    torch.manual_seed(0)
    return build(node | options, "model"), x


def test_the_weight_of_the_kl_term_rises():
    """loss = beta(step) KL - log p(x | z), by hand; the ELBO does not change, and a test has the whole weight."""
    objective = ELBO(2.0, warmup_steps=4)
    model, x = tiny()
    trace = model.eval()(x)
    kl, log_px = trace.kl.sum(1).mean(), trace.log_px.mean()
    elbo = trace.elbo.clone()
    for step, beta in ((0, 0.0), (1, 0.5), (3, 1.5), (4, 2.0), (9, 2.0)):
        objective.apply_schedules(step)
        torch.testing.assert_close(objective(trace)["loss"], beta * kl - log_px)
    objective.apply_schedules(1)
    objective.restore_weights()
    torch.testing.assert_close(objective(trace)["loss"], 2 * kl - log_px)
    assert torch.equal(trace.elbo, elbo)
    assert ELBO(2.0).schedules == {}
    assert model.objective.schedules["beta"](1) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="warmup_steps must be >= 0, got -1"):
        ELBO(warmup_steps=-1)


def test_contract():
    """A gradient in each parameter; K samples; no weight in the ELBO; the capabilities that it claims; a bound."""
    model, x = tiny()
    for samples in (1, 5):
        trace = model(x, num_samples=samples)
        assert trace.log_px.shape == trace.log_w.shape == (samples, 5)
        model.objective.apply_schedules(2)
        model.zero_grad()
        model.objective(trace)["loss"].backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1)
    assert model.limits.keys() == {"impute"}
    assert "compile" in CAPABILITIES
    model.double().eval()
    log_w = model(x, num_samples=50).log_w
    assert (log_w.mean(0) <= log_w.logsumexp(0) - math.log(50) + 1e-12).all()
    assert model.encode(x).shape == (5, 3)
    assert model.latent_kind == "vector"
    drawn = model.sample(7).sample()
    model.likelihood.check(drawn)
    assert drawn.shape == model.decode(model.encode(x[:1]).expand(7, 3)).mode.shape == (7, 4)
    with pytest.raises(ValueError, match=r"expected a batch of shape \(\*batch, 4,?\), got \(2, 5\)"):
        model.encode(torch.zeros(2, 5, dtype=torch.long))
    with pytest.raises(ValueError, match="a text_vae needs a likelihood of sentences, got Bernoulli"):
        TextVAE((4,), likelihood=Bernoulli(), latent_dim=2, warmup_steps=1)


def test_classes_of_sentences():
    """The ELBO of all strings given a class and z is that of a distribution; the encoder does not see the class."""
    torch.manual_seed(0)
    encoder = partial(TokenInput, net=partial(SequenceEncoder, hidden=6), num_tokens=4, embedding=3)
    options = {"encoder": encoder, "latent_dim": 3, "warmup_steps": 2, "num_classes": 2}
    model = TextCVAE((4,), likelihood=family(word_dropout=0.5), **options).double().eval()
    x, y = sequences(4), torch.tensor([0, 1])
    decoded = [model.decode(torch.zeros(len(x), 3, dtype=FLOAT), y[i].expand(len(x))).log_prob(x) for i in (0, 1)]
    for log_p in decoded:
        torch.testing.assert_close(log_p.exp().sum(), torch.ones((), dtype=FLOAT), rtol=0, atol=1e-12)
    assert (decoded[0] - decoded[1]).abs().max() > 1e-3
    assert torch.equal(*(model.encode(x[:5], y[i].expand(5)) for i in (0, 1)))
    assert model.conditional
    assert "beta" in model.objective.schedules
    assert model.sample(6, context=y.repeat(3)).sample().shape == (6, 4)
    with pytest.raises(ValueError, match="a text_cvae needs a likelihood of sentences, got Bernoulli"):
        TextCVAE((4,), likelihood=Bernoulli(), **options)


def test_compiled_equals_eager():
    """In one graph, with word dropout and dropout: loss and gradients of the eager pass with the same noise."""
    torch._dynamo.reset()
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        model, x = tiny()
        torch.manual_seed(1)
        loss = compiler(lambda x, model=model: model.objective(model(x, num_samples=2))["loss"])(x)
        results.append([loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)


def test_perplexity_is_that_of_all_tokens_together():
    """exp(-sum of ELBOs / sum of tokens) over batches of unequal lengths, by hand; z changes the KL only."""
    model, _ = tiny()
    model.double().eval()
    with torch.no_grad():
        for context in model.likelihood.contexts:
            context.weight.zero_()
    batches = [sequences(4)[[0, 1, 50]], sequences(4)[[70, 100, 20]]]
    for x in batches:
        model.eval_step("val", (x, torch.full((3,), -1)))
    values = model.stage_values("val")
    x = torch.cat(batches)
    with torch.no_grad():
        trace = model(x)
        per_token = model.likelihood.next_logits(torch.zeros(6, 8, dtype=FLOAT), x).log_softmax(-1)
    total, tokens = trace.elbo.sum().item(), int((x >= 0).sum())
    assert tokens / 6 == values["tokens"] != 4
    assert values["nats_per_token"] == pytest.approx(-total / tokens, rel=1e-9)
    assert values["perplexity_bound"] == pytest.approx(math.exp(-total / tokens), rel=1e-9)
    by_hand = sum(float(per_token[i, t, x[i, t]]) for i in range(6) for t in range(4) if x[i, t] >= 0)
    assert -total / tokens == pytest.approx((float(trace.kl.sum()) - by_hand) / tokens, rel=1e-9)


def text_data(**options):
    data = TextData(val_size=0.2, test_size=0.2, batch_size=16, **options)
    data.content = SENTENCES
    return data


def fit(epochs, checkpoint=None, seed=0):
    """Train a small model; return the model and the trainer."""
    data = text_data()
    data.setup()
    sizes = {"num_tokens": len(data.vocabulary), "length": data.shape[0], "end_token": END}
    node = config("model", "model=text_vae", *SMALL, f"data.shape={list(data.shape)}")
    node["encoder"] = data.input_config() | {"_partial_": True, "net": node["encoder"]}
    node["likelihood"] |= sizes
    torch.manual_seed(0)
    model = build(node, "model", seed=seed, optimizer=lambda p: torch.optim.Adam(p, 1e-2))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=epochs, enable_model_summary=False, **quiet)
    trainer.fit(model, data, ckpt_path=checkpoint)
    return model, trainer


def test_a_resumed_training_has_the_same_word_dropout(tmp_path):
    """Two epochs at once, and one epoch, a checkpoint and another one: the same weights to the bit."""
    whole, _ = fit(2)
    _, trainer = fit(1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    torch.manual_seed(123)
    resumed, _ = fit(2, tmp_path / "a.ckpt")
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    other, _ = fit(2, seed=1)
    assert not torch.equal(whole.likelihood.out.weight, other.likelihood.out.weight)


def test_the_data_decide_the_sizes():
    """The vocabulary, the length and the end token; what is given stays; other data are refused in a sentence."""
    given = config("model", "model=text_vae", *SMALL, "data=topics")
    run = {"seed": 0, "allow_packages": [], "data": config("data", "data=topics"), "model": given}
    filled, data = match_data(run, content=text_data())
    likelihood = filled["model"]["likelihood"]
    assert likelihood["num_tokens"] == len(data.vocabulary)
    assert (likelihood["length"], likelihood["end_token"]) == (*data.shape, END)
    assert likelihood["word_dropout"] == 0.3
    assert filled["model"]["encoder"]["net"]["_target_"] == "vaezoo.nets.SequenceEncoder"
    data.setup()
    assert build(filled["model"], "model")(data.train.x[:2]).elbo.shape == (2,)
    run["model"] = given | {"likelihood": given["likelihood"] | {"length": 99}}
    assert match_data(run, content=text_data())[0]["model"]["likelihood"]["length"] == 99
    run |= {"data": config("data", "data=digits")}
    counts = build(config("data", "data=topics", "data.features=counts"), "data")
    with pytest.raises(ConfigError, match=r"but data\.features=counts makes counts of words: leave it out"):
        fill_token_sizes({"num_tokens": None}, counts)
    with pytest.raises(ConfigError, match="writes sentences of tokens, but Digits has images: use data=topics"):
        match_data(run)


# The tasks, on one trained run.


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    (folder / "a.txt").write_text("".join(f"{line}\n" for line in SENTENCES))
    words = ["model=text_vae", *SMALL, "data=text", "data.path=a.txt", "data.batch_size=16", "trainer.max_epochs=8"]
    return train(folder, *words, "optimizer.lr=0.02", "data.test_size=0.2")


def test_load_and_evaluate(cli, run):
    """A loaded model has the test numbers of its run; the perplexity is a bound, and says so."""
    saved = json.loads((run / "summary.json").read_text())["test"]
    code, out, error, folder = cli("task=evaluate", f"run={run}", "task.num_samples=5", "task.metrics=[likelihood]")
    assert code == 0, error
    found = json.loads((folder / "summary.json").read_text())
    for name in ("elbo", "kl", "nats_per_token", "perplexity_bound"):
        assert found["test"][name] == pytest.approx(saved[name], rel=1e-9)
    assert saved["perplexity_bound"] == pytest.approx(math.exp(-saved["elbo"] / saved["tokens"]), rel=1e-9)
    assert "upper bound of the perplexity" in " ".join(out.split())
    assert found["units"]["perplexity_bound"]["label"] == "perplexity, at most"
    model = load(run)
    assert not model.training
    code, _out, error, _ = cli("task=impute", f"run={run}")
    assert code == 1
    assert "cannot fill in missing entries: what follows the end of a sequence is padding" in error


def test_samples_are_draws(cli, run):
    """Sentences drawn from the model, one per line; ``draw=false``: the most probable words after a z."""
    model, texts = load(run), {}
    for draw in ("null", "true", "false"):
        code, _out, error, folder = cli("task=sample", f"run={run}", "num=30", f"draw={draw}")
        assert code == 0, error
        texts[draw] = (folder / "samples.txt").read_text().splitlines()
        drawn = torch.from_numpy(np.load(folder / "samples.npz")["sentences"])
        model.likelihood.check(drawn)
    assert texts["null"] == texts["true"] != texts["false"]
    assert len(texts["null"]) == 30


def test_interpolations(cli, run):
    """The pair at both ends, and between them the most probable words at points of the line between its codes."""
    code, _out, error, folder = cli("task=interpolate", f"run={run}", "num=2", "steps=3")
    assert code == 0, error
    model, arrays = load(run), np.load(folder / "interpolations.npz")
    x = torch.from_numpy(arrays["x"])
    codes = model.encode(x[:, [0, -1]].flatten(0, 1)).reshape(2, 2, 3)
    z = torch.stack([codes[:, 0], codes.mean(1), codes[:, 1]], 1)
    torch.testing.assert_close(torch.from_numpy(arrays["z"]), z)
    assert torch.equal(x[:, 1:-1], model.decode(z).mode)
    lines = [(folder / f"interpolation_{i}.txt").read_text().splitlines() for i in (1, 2)]
    assert {line for pair in lines for line in (pair[0], pair[-1])} <= {line.replace(" .", ".") for line in SENTENCES}
    assert [len(pair) for pair in lines] == [5, 5]
    assert (folder / "interpolations.png").exists()
    for words, message in (("steps=1", "steps=1 should be an integer >= 2"), ("num=0", "num=0 should be an integer")):
        code, _out, error, _ = cli("task=interpolate", f"run={run}", words)
        assert code != 0
        assert message in error


def test_codes_on_a_sphere_stay_there():
    a, b = torch.eye(3)[:1], torch.eye(3)[1:2]
    path = mix_codes(a, b, 3, on_sphere=True)
    torch.testing.assert_close(path, torch.stack([a, (a + b) / 2**0.5, b], 1))
    assert torch.equal(mix_codes(a, b, 3)[0, 1], torch.tensor([0.5, 0.5, 0.0]))


@pytest.mark.parametrize("task", ["reconstruct", "encode", "score", "export"])
def test_other_tasks(task, cli, run):
    words = {"reconstruct": ["num=5"], "score": ["num_samples=3"]}.get(task, [])
    code, _out, error, folder = cli(f"task={task}", f"run={run}", *words)
    assert code == 0, error
    if task == "export":
        files = json.loads((folder / "export.json").read_text())["files"]
        assert all(file["works"] for file in files.values()), files
