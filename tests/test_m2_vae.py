"""Few labels: the bound of the semi-supervised VAE on a closed mixture, its loss, its accuracy, and the labels kept."""

import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages
from ppca import inverse_soft_floor, linear
from torch import nn
from torch.distributions import Normal

from vaezoo.data import DataModule, Digits, Split, Sprites
from vaezoo.data.splits import keep_labels
from vaezoo.families import FixedScaleNormal
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.models import CVAE, M2VAE, VAE
from vaezoo.nets import LabelConditioned
from vaezoo.trace import Latent, Trace

FLOAT = torch.float64
CENTERS = torch.tensor([-2.0, 0.5, 2.0], dtype=FLOAT)
SCALE = 0.7  # of p(x | y, z)
X = torch.tensor([[0.3], [-2.5], [1.4], [6.0]], dtype=FLOAT)
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Computed(nn.Module):
    """A network that is a given function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs, context=None):
        return self.function(inputs, context)


def mixture(slope=0.0, logits=None):
    """x | y, z ~ N(center_y + slope z, SCALE^2), y uniform: with the exact q(z | x, y), and the exact q(y | x)."""
    model = M2VAE((1,), latent_dim=1, num_classes=3, alpha=0.5, likelihood=FixedScaleNormal(SCALE)).double().eval()
    variance = slope**2 + SCALE**2
    log_scale = inverse_soft_floor(torch.tensor(SCALE / variance**0.5, dtype=FLOAT).log(), -7.0)

    def encode(x, y):
        return torch.cat([slope * (x - CENTERS[y, None]) / variance, log_scale.expand(len(x), 1)], 1)

    model.classifier.net = Computed(lambda x, _: class_log_probs(x, slope) if logits is None else logits[: len(x)])
    model.encoder.net = Computed(encode)
    model.decoder.net = Computed(lambda code, _: slope * code[:, :1] + code[:, 1:] @ CENTERS[:, None])
    return model


def class_log_probs(x, slope=0.0):
    """log p(x | y) for each class, (B, 3)."""
    return Normal(CENTERS, (slope**2 + SCALE**2) ** 0.5).log_prob(x)


def evidence(x, slope=0.0):
    """log p(x) = log 1/3 sum_y p(x | y)."""
    return class_log_probs(x, slope).logsumexp(1) - math.log(3)


def test_the_enumerated_bound_is_exact():
    """With the exact posterior, the ELBO of a mixture of three normals is log p(x); ln C is in it."""
    trace = mixture()(X, num_samples=6)
    torch.testing.assert_close(trace.elbo, evidence(X), rtol=0, atol=1e-12)
    torch.testing.assert_close(trace.weights.sum(0), torch.ones(4, dtype=FLOAT))
    entropy = -(class_log_probs(X).softmax(1) * class_log_probs(X).log_softmax(1)).sum(1)
    torch.testing.assert_close(trace.kl[:, 0], math.log(3) - entropy)  # KL(q(y | x), p(y))
    torch.testing.assert_close(trace.kl[:, 1], torch.zeros(4, dtype=FLOAT), rtol=0, atol=1e-12)


def test_the_gap_is_that_of_the_classifier():
    """For any q(y | x), log p(x) - ELBO = KL(q(y | x), p(y | x)); no q(y | x) is above the evidence."""
    logits = 3 * torch.randn(4, 3, dtype=FLOAT, generator=torch.Generator().manual_seed(0))
    log_q, log_p = logits.log_softmax(1), class_log_probs(X).log_softmax(1)
    gap = (log_q.exp() * (log_q - log_p)).sum(1)
    torch.testing.assert_close(mixture(logits=logits)(X).elbo, evidence(X) - gap, rtol=0, atol=1e-12)


@pytest.mark.parametrize("slope", [0.0, 1.3])
def test_the_importance_weighted_bound_is_exact(slope):
    """With the exact q(z | x, y), each draw of all classes gives log p(x), whatever q(y | x) is, but for its ELBO."""
    logits = torch.tensor([[0.3, -1.0, 2.0]], dtype=FLOAT).expand(4, 3)
    model = mixture(slope, logits)
    log_w = model(X, num_samples=6).log_w
    torch.testing.assert_close(log_w.logsumexp(0) - math.log(6), evidence(X, slope), rtol=0, atol=1e-12)
    log_q, log_p = logits.log_softmax(1), class_log_probs(X, slope).log_softmax(1)
    gap = (log_q.exp() * (log_q - log_p)).sum(1)
    for num_samples, chunk_size in ((6, None), (7, 2), (1, None), (30, 7)):
        found = estimate_log_marginal(model, X, num_samples=num_samples, chunk_size=chunk_size)
        torch.testing.assert_close(found.log_p, evidence(X, slope), rtol=0, atol=1e-12)
        torch.testing.assert_close(found.elbo, evidence(X, slope) - gap, rtol=0, atol=1e-12)
    assert float(found.mc_error.max()) < 1e-12
    torch.testing.assert_close(found.ess, torch.full((4,), 10.0, dtype=FLOAT))  # draws of three samples


def test_probabilities_as_labels_are_no_bound():
    """A decoder that is given q(y | x) in place of a sum over y gets above the evidence; the sum never does."""
    x = torch.tensor([[-0.75]], dtype=FLOAT)  # between two centres
    soft = torch.tensor([[0.5, 0.5, 1e-9]], dtype=FLOAT).log()
    model = mixture(logits=soft)
    code = torch.cat([torch.zeros(1, 1, dtype=FLOAT), soft.softmax(1)], 1)
    kl = math.log(3) - math.log(2)
    wrong = model.decode(code).log_prob(x) - kl
    assert float(wrong) > float(evidence(x)) + 1
    assert float(model(x).elbo) <= float(evidence(x)) + 1e-12


def random_model(num_classes=3, **options):
    torch.manual_seed(0)
    return M2VAE((1, 3, 2), latent_dim=2, num_classes=num_classes, alpha=0.75, **options).double()


def bits(num):
    return torch.rand(num, 1, 3, 2, generator=torch.Generator().manual_seed(1)).round().double()


def bound_with_label(model, x, y, trace):
    """L(x, y) of a pass, from the parts of the model, one example and sample at a time."""
    _, code = trace.latents
    values = torch.zeros(len(x), dtype=FLOAT)
    rows = [k for k in range(len(trace.log_px)) if k % model.num_classes == y]
    for i in range(len(x)):
        q = model.encoder(x[i : i + 1], torch.tensor([y])).base_dist
        kl = torch.distributions.kl_divergence(q, Normal(0.0, 1.0)).sum()
        one = torch.eye(model.num_classes, dtype=FLOAT)[y]
        px = [model.decoder(torch.cat([code.z[k, i], one])[None]).log_prob(x[i])[0] for k in rows]
        values[i] = sum(px) / len(px) - kl - math.log(model.num_classes)
    return values


def test_the_loss_by_hand():
    """-L(x, y) with a label, -U(x) without one, and alpha times the mean of -ln q(y | x) over those with a label."""
    model, x = random_model(), bits(5)
    y = torch.tensor([2, -1, 0, -1, -1])
    torch.manual_seed(1)
    trace = model(x, y, num_samples=6)
    bounds = torch.stack([bound_with_label(model, x, c, trace) for c in range(3)], 1)  # (B, C)
    log_q = model.classifier(x).log_softmax(1)
    unlabelled = (log_q.exp() * (bounds - log_q)).sum(1)
    torch.testing.assert_close(trace.elbo, unlabelled, rtol=1e-12, atol=0)
    found = model.objective(trace)
    cross_entropy = -(log_q[0, 2] + log_q[2, 0]) / 2
    bound = (bounds[0, 2] + unlabelled[1] + bounds[2, 0] + unlabelled[3] + unlabelled[4]) / 5
    torch.testing.assert_close(found["cross_entropy"], cross_entropy, rtol=1e-12, atol=0)
    torch.testing.assert_close(found["loss"], 0.75 * cross_entropy - bound, rtol=1e-12, atol=0)


def test_alpha_is_for_the_mean_over_labelled_examples():
    """Other examples without a label do not change the cross-entropy; without any label it is 0."""
    model, x = random_model(), bits(9)
    y = torch.tensor([2, 0, 1, -1, -1, -1, -1, -1, -1])
    few, many = (model.objective(model(x[:n], y[:n]))["cross_entropy"] for n in (3, 9))
    torch.testing.assert_close(few, many, rtol=1e-12, atol=0)
    trace = model(x[3:], y[3:])
    torch.testing.assert_close(model.objective(trace)["loss"], -trace.elbo.mean(), rtol=1e-12, atol=0)
    assert model.objective(trace)["cross_entropy"].item() == 0
    torch.testing.assert_close(
        model.objective(Trace(trace.x, trace.px, trace.latents, None, trace.weights))["loss"], -trace.elbo.mean()
    )


def test_all_labels_are_a_cvae():
    """With a label for each example, the loss is that of a cvae with these weights, + ln C + alpha cross-entropy."""
    model, x, y = random_model(), bits(6), torch.tensor([2, 0, 1, 1, 0, 2])
    cvae = CVAE((1, 3, 2), latent_dim=2, num_classes=3).double()
    cvae.encoder.load_state_dict(model.encoder.state_dict())
    cvae.decoder.net.net.load_state_dict(model.decoder.net.state_dict())
    with torch.no_grad():
        cvae.decoder.net.embedding.weight.copy_(torch.eye(3))
    trace = model(x, y)
    z = trace.latents[1].z[y, torch.arange(6)].unsqueeze(0)  # the sample of each example's own class
    same = Trace(x, cvae.decoder(z, y), (Latent(cvae.encoder(x, y), cvae.prior(), z),), y)
    cross_entropy = nn.functional.cross_entropy(model.classifier(x), y)
    expected = cvae.objective(same)["loss"] + math.log(3) + 0.75 * cross_entropy
    torch.testing.assert_close(model.objective(trace)["loss"], expected, rtol=1e-12, atol=0)


def test_one_class_is_a_vae():
    """With C = 1, the ELBO and the loss are those of a VAE with the same networks and noise, to rounding."""
    model, x = random_model(num_classes=1), bits(6)
    vae = VAE((1, 3, 2), latent_dim=2).double()
    vae.encoder.net = Computed(lambda x, _: model.encoder.net(x, torch.zeros(len(x), dtype=torch.long)))
    vae.decoder.net = Computed(lambda z, _: model.decoder.net(torch.cat([z, torch.ones_like(z[:, :1])], 1)))
    values = []
    for each in (model, vae):
        torch.manual_seed(3)
        trace = each(x, torch.zeros(6, dtype=torch.long), num_samples=4)
        values.append(torch.stack([*trace.elbo, each.objective(trace)["loss"]]))
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)


def test_labels_do_not_change_the_bound():
    """The ELBO, the code and log p(x) of an example are the same with its label, with another one and without one."""
    model, x = random_model().eval(), bits(4)
    found = []
    for y in (torch.tensor([0, 1, 2, 0]), torch.full((4,), -1), None):
        torch.manual_seed(0)
        trace = model(x, y)
        found.append(torch.cat([trace.elbo, model.encode(x, y).flatten(), model.log_marginal(x, y, num_samples=9)]))
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert not model.conditional


def test_codes_and_samples_have_a_class():
    """A code is z and its class, the one with the largest q(y | x); a sample has the class that is asked for."""
    model, x = random_model().eval(), bits(8)
    probs = model.classify(x)
    torch.testing.assert_close(probs.sum(1), torch.ones(8, dtype=FLOAT))
    code = model.encode(x)
    assert torch.equal(code[:, 2:].argmax(1), probs.argmax(1))
    torch.testing.assert_close(code[:, :2], model.encoder(x, probs.argmax(1)).mean)
    seen = []
    model.decoder.net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.sample(3, context=torch.tensor([2, 0, 1]))
    assert torch.equal(seen[-1][:, 2:], torch.eye(3, dtype=FLOAT)[[2, 0, 1]])
    for context in (None, torch.full((600,), -1)):  # any class, each as often as another
        model.sample(600, context=context)
        counts = seen[-1][:, 2:].sum(0)
        assert ((counts - 200).abs() < 5 * (600 * 2 / 9) ** 0.5).all()


class Clusters(DataModule):
    """Points around three centres on a line, whose validation and test examples have all or some labels."""

    noun, data_kind = "point", "real"

    def read(self):
        g = torch.Generator().manual_seed(0)
        y = torch.randint(3, (900,), generator=g)
        x = CENTERS[y, None].float() * 2 + 0.3 * torch.randn(900, 1, generator=g)
        test_labels = torch.where(torch.arange(200) < 150, y[700:], -1)
        return Split(x[:600], y[:600]), Split(x[600:700], y[600:700]), Split(x[700:], test_labels)


@pytest.fixture(scope="module")
def trained():
    """A model of the clusters that learned from six labels, its data and its trainer."""
    torch.manual_seed(0)
    data = Clusters(num_labels=6, batch_size=60)
    model = M2VAE((1,), 1, 3, 10.0, likelihood=FixedScaleNormal(0.3), optimizer=partial(torch.optim.Adam, lr=1e-2))
    trainer = pl.Trainer(max_epochs=12, accelerator="cpu", **QUIET)
    trainer.fit(model, data)
    return model.eval(), data, trainer


def test_accuracy_and_its_error(trained):
    """Both are those of the examples with a label; the others count in the ELBO alone."""
    model, data, trainer = trained
    trainer.test(model, data, verbose=False)
    found = model.results["test"]
    x, y = data.test
    right = (model.classify(x).argmax(1) == y)[:150].double()
    assert found["accuracy"] == pytest.approx(float(right.mean()), rel=1e-12)
    assert found["accuracy_error"] == pytest.approx(float(right.std()) / 150**0.5, rel=1e-9, abs=1e-12)
    assert found["accuracy"] > 0.95  # three clear clusters, and two labels in each
    assert "labelled" not in found
    assert {"elbo", "elbo_error", "kl", "log_px", "loss", "cross_entropy", "active_units"} <= found.keys()
    assert model.results["train"].keys() >= {"elbo", "cross_entropy"}


def test_the_error_of_a_middling_accuracy(trained):
    """With a classifier that always says class 0, the accuracy is the share of that class, with its binomial error."""
    model, data, trainer = trained
    net = model.classifier.net
    model.classifier.net = Computed(lambda x, _: torch.tensor([[1.0, 0.0, 0.0]]).expand(len(x), 3))
    trainer.test(model, data, verbose=False)
    model.classifier.net = net
    share = float((data.test.y[:150] == 0).double().mean())
    assert model.results["test"]["accuracy"] == pytest.approx(share)
    assert model.results["test"]["accuracy_error"] == pytest.approx((share * (1 - share) / 149) ** 0.5)


def test_active_units_are_those_of_the_mixture_of_classes(trained):
    """The posterior mean of z is its mean over the classes, weighted by q(y | x)."""
    model, data, _ = trained
    x = data.test.x[:5]
    statistics = model.latent_statistics(model(x, num_samples=6))
    means = torch.stack([model.encoder(x, torch.full((5,), c)).mean for c in range(3)], 1)  # (B, C, D)
    torch.testing.assert_close(statistics["mean0"].float(), (model.classify(x).unsqueeze(-1) * means).sum(1))


def test_a_training_needs_labels_of_its_classes():
    data = Clusters(batch_size=60)
    data.setup()
    data.train = Split(data.train.x, torch.full((600,), -1))
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", **QUIET)
    with pytest.raises(ValueError, match="a m2_vae learns its 3 classes from labels, but no training example has one"):
        trainer.fit(M2VAE((1,), 1, 3, 1.0, likelihood=FixedScaleNormal(0.3)), data)
    with pytest.raises(ValueError, match=r"num_classes=2, but .* from 0 to 2: use model.num_classes=3"):
        trainer.fit(M2VAE((1,), 1, 2, 1.0, likelihood=FixedScaleNormal(0.3)), Clusters())
    with pytest.raises(ValueError, match="num_classes must be >= 1, got 0"):
        M2VAE((1,), 1, 0, 1.0)


# The labels that are kept.


def test_kept_labels_are_balanced_and_their_own():
    y = torch.randint(5, (400,), generator=torch.Generator().manual_seed(0))
    y[:50] = -1
    few = keep_labels(y, 22, seed=3)
    kept = few >= 0
    assert torch.equal(few[kept], y[kept])
    assert sorted(few[kept].bincount(minlength=5).tolist()) == [4, 4, 4, 5, 5]
    assert torch.equal(few, keep_labels(y, 22, seed=3))
    assert not torch.equal(few, keep_labels(y, 22, seed=4))
    assert (keep_labels(y, 23, seed=3) >= 0)[kept].all()  # more labels: the same ones and another
    assert torch.equal(keep_labels(y, 1000, seed=3), y)
    rare = torch.tensor([0] * 10 + [1])
    assert keep_labels(rare, 4, seed=0)[keep_labels(rare, 4, seed=0) >= 0].tolist() == [0, 0, 0, 1]


def test_an_epoch_repeats_the_labelled_examples():
    """Validation and test keep their labels; an epoch has each example, and those with a label several times."""
    whole, data = (Digits(binarize="threshold", val_size=180, num_labels=num) for num in (None, 50))
    whole.setup()
    data.setup()
    assert torch.equal(whole.train.x, data.train.x)
    for name in ("val", "test"):
        assert torch.equal(getattr(whole, name).y, getattr(data, name).y)
    labelled = data.train.y >= 0
    assert data.train.y[labelled].bincount().tolist() == [5] * 10
    assert torch.equal(data.train.y[labelled], whole.train.y[labelled])
    num = len(labelled)
    order = data.train_dataloader().batches.order(0)
    counts = order.bincount(minlength=num)
    assert (counts[~labelled] == 1).all()
    assert counts[labelled].unique().tolist() == [3]
    assert len(order) == data.examples_per_epoch == num + 100
    share = float((data.train.y[order] >= 0).double().mean())
    assert 0.1 <= share < 0.12
    assert data.num_train == num
    batches = list(data.train_dataloader())
    assert sum(len(batch.x) for batch in batches) == len(order)
    assert len(batches) == len(data.train_dataloader())
    assert whole.epoch_index is None


def test_what_num_labels_refuses():
    with pytest.raises(ValueError, match=r"data\.num_labels must be >= 1, got 0: leave it out to keep all labels"):
        Digits(num_labels=0)
    data = Sprites(size=32, num_labels=10, test_size=100, val_size=100)
    with pytest.raises(ValueError, match=r"the images of Sprites have labels of shape \(\d,\): leave it out"):
        data.setup()
    images = RandomImages((1, 4, 4), num_labels=3)
    images.splits_as_read = [Split(s.x, torch.full_like(s.y, -1)) for s in images.read()]
    with pytest.raises(ValueError, match="keeps some class labels, but the images of RandomImages have no labels"):
        images.setup()


def test_too_many_and_too_few_labels(capsys):
    """More labels than there are is an error; fewer than classes are possible, and said."""
    with pytest.raises(ValueError, match=r"data\.num_labels=200 is more than the 100 labels of the training images"):
        RandomImages((1, 4, 4), num_labels=200).setup()
    RandomImages((1, 4, 4), num_labels=10).setup()
    assert capsys.readouterr().out == ""
    data = RandomImages((1, 4, 4), num_labels=3)
    data.setup()
    assert int((data.train.y >= 0).sum()) == 3
    assert "data.num_labels=3 is less than the number of classes, 10: some have no label" in capsys.readouterr().out


def test_a_resumed_training_sees_the_same_batches(tmp_path):
    """Stopped after an epoch and continued, a training with few labels has the weights of an uninterrupted one."""

    def fit(max_epochs, path=None):
        torch.manual_seed(0)
        model = M2VAE((1, 4, 4), latent_dim=2, num_classes=10, alpha=0.1, encoder=linear, decoder=linear)
        trainer = pl.Trainer(max_epochs=max_epochs, accelerator="cpu", **QUIET)
        trainer.fit(model, RandomImages((1, 4, 4), num_labels=20), ckpt_path=path)
        return model, trainer

    whole, _ = fit(2)
    _, trainer = fit(1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again, _ = fit(2, tmp_path / "a.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))


def test_the_label_reaches_the_encoder():
    """q(z | x, y) is that of a network with the label as an input, for each class and example."""
    model, x = random_model(), bits(4)
    assert isinstance(model.encoder.net, LabelConditioned)
    q = model.posterior(x)
    for c in range(3):
        torch.testing.assert_close(q.mean[c], model.encoder(x, torch.full((4,), c)).mean)
        torch.testing.assert_close(q.stddev[c], model.encoder(x, torch.full((4,), c)).stddev)
