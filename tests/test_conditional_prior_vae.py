"""From an image to an image: exact answers of a linear model, pairs of a condition and an image, and the contract."""

import json
from functools import partial
from math import prod

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from conftest import config
from ppca import generator, inverse_soft_floor, linear
from test_contract import bits
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vaezoo.data import ArrayData, Digits, Split
from vaezoo.data.conditions import edges, join, luminance, make_pairs, reduce
from vaezoo.errors import ConfigError
from vaezoo.export import export_model
from vaezoo.families import FixedScaleNormal
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.instantiate import build
from vaezoo.models import VAE, ConditionalPriorVAE
from vaezoo.pictures import cycle_classes
from vaezoo.priors import StandardNormal

FLOAT = torch.float64
SCALE = 0.6
FLOOR = -7.0  # of the log scale of a diagonal normal


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=FLOAT, generator=generator(seed))


def linear_model(**options):
    """x (3,) = A z + B c + mean + SCALE eps; p(z | c) = N(G c, s^2) with one z; q is the exact posterior."""
    torch.manual_seed(0)
    parts = {"encoder": linear, "decoder": linear, "likelihood": FixedScaleNormal(SCALE)}
    model = ConditionalPriorVAE((3,), latent_dim=1, context_shape=(2,), num_features=2, **parts, **options).double()
    a, b, mean, g, log_s = randn(3, 1, seed=1), randn(3, 2, seed=2), randn(3, seed=3), randn(1, 2, seed=4), -0.3
    precision = (a.T @ a / SCALE**2 + np.exp(-2 * log_s)).squeeze()
    (decoder,), (encoder,) = model.decoder.net.net.layers, model.encoder.net.net.layers
    with torch.no_grad():
        (features,) = model.decoder.net.context_net.layers
        features.weight.copy_(torch.eye(2))
        features.bias.zero_()
        decoder.weight.copy_(torch.cat([a, b], 1))
        decoder.bias.copy_(mean)
        encoder.weight.zero_()
        encoder.weight[0, :3] = a[:, 0] / SCALE**2 / precision
        encoder.weight[0, 3:] = ((-a.T @ b / SCALE**2 + g * np.exp(-2 * log_s)) / precision)[0]
        encoder.bias.copy_(
            torch.stack([-(a[:, 0] @ mean) / SCALE**2 / precision, inverse_soft_floor(-precision.log() / 2, FLOOR)])
        )
        if not isinstance(model.prior, StandardNormal):
            (prior,) = model.prior.normal.net.layers
            prior.weight.zero_()[0] = g
            prior.bias.copy_(torch.tensor([0.0, inverse_soft_floor(torch.tensor(log_s, dtype=FLOAT), FLOOR)]))

    def evidence(x, c):
        covariance = np.exp(2 * log_s) * a @ a.T + SCALE**2 * torch.eye(3, dtype=FLOAT)
        return MultivariateNormal(c @ (a @ g).T + c @ b.T + mean, covariance).log_prob(x)

    return model.eval(), evidence


def test_the_bound_of_a_linear_model_is_exact():
    """With the exact posterior, p(x, z | c) / q(z | x, c) is p(x | c) at every z: the gap is 0."""
    model, evidence = linear_model()
    x, c = randn(5, 3, seed=5), randn(5, 2, seed=6)
    exact = evidence(x, c)
    torch.testing.assert_close(model(x, c, num_samples=4).log_w, exact.expand(4, 5), rtol=0, atol=1e-11)
    found = estimate_log_marginal(model, x, c, num_samples=3)
    torch.testing.assert_close(found.log_p, exact, rtol=0, atol=1e-11)
    torch.testing.assert_close(found.elbo, exact, rtol=0, atol=1e-11)
    trace = model(x, c, num_samples=20_000)  # the KL in closed form, log p(x | z, c) from samples
    error = trace.log_px.std(0) / 20_000**0.5
    assert ((trace.elbo - exact).abs() < 5 * error).all()


def test_a_wrong_prior_costs_its_divergence():
    """KL(q(z | x, c), p(z | c)), example by example; the condition of another example has another one."""
    model, _ = linear_model()
    x, c = randn(5, 3, seed=5), randn(5, 2, seed=6)
    for condition in (c, c.flip(0)):
        q, p = model.encoder(x, condition).base_dist, model.prior.normal(condition).base_dist
        torch.testing.assert_close(model(x, condition).kl[:, 0], kl_divergence(q, p)[:, 0])
    assert (model(x, c).kl - model(x, c.flip(0)).kl).abs().max() > 0.01


def test_a_constant_condition_is_a_vae():
    """With one c for all examples and p(z) = N(0, I), the ELBO and the loss are those of a VAE with folded weights."""
    torch.manual_seed(0)
    model = ConditionalPriorVAE(
        (1, 2, 4), latent_dim=2, context_shape=(1, 2, 4), num_features=3, encoder=linear, decoder=linear,
        prior=StandardNormal,
    ).double()  # fmt: skip
    x, c = bits(6, 1, 2, 4).double(), torch.rand(1, 1, 2, 4, generator=generator(1)).double()
    vae = VAE((1, 2, 4), latent_dim=2, encoder=linear, decoder=linear).double()
    (encoder,), (decoder,) = model.encoder.net.net.layers, model.decoder.net.net.layers
    (plain_encoder,), (plain_decoder,) = vae.encoder.net.layers, vae.decoder.net.layers
    features = model.decoder.net.context_net(c)[0]
    with torch.no_grad():
        plain_encoder.weight.copy_(encoder.weight[:, :8])
        plain_encoder.bias.copy_(encoder.bias + encoder.weight[:, 8:] @ c.flatten())
        plain_decoder.weight.copy_(decoder.weight[:, :2])
        plain_decoder.bias.copy_(decoder.bias + decoder.weight[:, 2:] @ features)
    found = []
    for each, context in ((model, c.expand(6, -1, -1, -1)), (vae, None)):
        torch.manual_seed(1)
        trace = each(x, context, num_samples=3)
        found.append(torch.stack([*trace.elbo, each.objective(trace)["loss"]]))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


def test_a_fixed_prior_does_not_depend_on_the_condition():
    """As in a cvae: KL(q(z | x, c), N(0, I)), while decoder and encoder are given c."""
    model, _ = linear_model(prior=StandardNormal)
    x, c = randn(5, 3, seed=5), randn(5, 2, seed=6)
    trace = model(x, c)
    torch.testing.assert_close(trace.kl[:, 0], kl_divergence(model.encoder(x, c).base_dist, Normal(0.0, 1.0))[:, 0])
    assert not torch.equal(trace.log_px, model.decoder(trace.latent.z, c.flip(0)).log_prob(x))
    assert model.conditional


def test_samples_follow_their_conditions():
    """x ~ p(x | c) has the exact mean of each condition, and conditions stay with their examples among K samples."""
    model, _ = linear_model()
    c = randn(2, 2, seed=6)
    torch.manual_seed(0)
    x = model.sample(40_000, context=c.repeat_interleave(20_000, 0)).sample().unflatten(0, (2, -1))
    (decoder,), (prior,) = model.decoder.net.net.layers, model.prior.normal.net.layers
    z = c @ prior.weight[:1].T
    expected = torch.cat([z, c], 1) @ decoder.weight.T + decoder.bias
    assert ((x.mean(1) - expected).abs() < 5 * x.std(1) / 20_000**0.5).all()
    with pytest.raises(ValueError, match="3 samples need as many labels, got 2"):
        model.sample(3, context=c)


# The pairs.


def images(num=5, channels=1, height=7, width=6):
    return (255 * torch.rand(num, channels, height, width, generator=generator(3))).to(torch.uint8)


def test_no_pixel_is_in_the_condition_and_in_x():
    """The upper half and the lower one together are the image; another lower half leaves the condition as it is."""
    whole = images()
    x, c = make_pairs(Split(whole, torch.zeros(5)), "upper", "image")
    assert (x.shape, c.shape) == ((5, 1, 4, 6), (5, 1, 3, 6))
    assert torch.equal(torch.cat([(c * 255).round().to(torch.uint8), x], 2), whole)
    other = whole.clone()
    other[:, :, 3:] = 255 - other[:, :, 3:]
    again = make_pairs(Split(other, torch.zeros(5)), "upper", "image")
    assert torch.equal(again.y, c)
    assert not (again.x == x).any()


def test_other_conditions():
    color = images(channels=3, height=8, width=9)
    x, c = make_pairs(Split(color, torch.zeros(5)), "grey", "image")
    assert torch.equal(x, color)
    by_hand = (0.299 * color[:, 0].float() + 0.587 * color[:, 1].float() + 0.114 * color[:, 2].float()) / 255
    torch.testing.assert_close(c[:, 0], by_hand)
    x, c = make_pairs(Split(color, torch.zeros(5)), "small", "image")
    assert c.shape == (5, 3, 2, 3)
    torch.testing.assert_close(c[2, 1, 0, 1], color[2, 1, :4, 4:8].float().mean() / 255)
    torch.testing.assert_close(c[2, 1, 0, 2], color[2, 1, :4, 8:].float().mean() / 255)
    c = make_pairs(Split(color, torch.zeros(5)), "edges", "image").y
    assert c.shape == (5, 1, 8, 9)
    grey = luminance(color.float() / 255)[0, 0].numpy()
    window = grey[2:5, 3:6]
    dx = window[:, 2] @ [1, 2, 1] - window[:, 0] @ [1, 2, 1]
    dy = window[2] @ [1, 2, 1] - window[0] @ [1, 2, 1]
    assert c[0, 0, 3, 4].item() == pytest.approx(min(1, np.hypot(dx, dy) / 4), rel=1e-5)
    assert (edges(torch.full((1, 1, 4, 4), 0.7)) < 1e-6).all()
    assert join(torch.zeros(5, 3, 8, 9), reduce(color.float() / 255), "small").shape == (5, 3, 8, 18)
    assert join(torch.zeros(5, 1, 4, 6), torch.ones(5, 1, 3, 6), "upper").shape == (5, 1, 7, 6)


def test_batches_are_pairs():
    data = Digits(binarize="threshold", val_size=180, condition="upper")
    assert data.shape == data.context_shape == (1, 4, 8)
    data.setup()
    plain = Digits(binarize="threshold", val_size=180)
    plain.setup()
    x, c = next(iter(data.test_dataloader()))
    whole = next(iter(plain.test_dataloader())).x
    assert torch.equal(x, whole[:, :, 4:])
    assert torch.equal((c > 0.5).float(), whole[:, :, :4])
    assert data.mean.shape == (1, 4, 8)
    assert data.describe()["condition"] == "upper"
    assert data.label_columns(c) == {}
    shown = cycle_classes(data.test.y, 20)
    assert shown.shape == (20, 1, 4, 8)
    assert torch.equal(shown[:8], data.test.y[:1].expand(8, -1, -1, -1))
    assert not torch.equal(shown[8], shown[7])


def test_what_conditions_refuse(tmp_path):
    with pytest.raises(ConfigError, match=r"data.condition=left is not possible: use null, upper, edges, grey, small"):
        Digits(condition="left")
    with pytest.raises(ConfigError, match=r"data.condition=grey needs images of 3 channels, but they are \(1, 8, 8\)"):
        Digits(condition="grey", binarize="threshold").setup()
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32))
    with pytest.raises(ConfigError, match=r"=upper is for images of bytes, but the examples are torch.float32"):
        ArrayData(path=str(tmp_path / "rows.npy"), layout="ND", condition="upper").setup()
    model = ConditionalPriorVAE((1, 8, 8), latent_dim=2, context_shape=(1, 8, 8), num_features=3)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    message = r"each of 2 examples needs a condition of shape \(1, 8, 8\), got class labels: .* data.condition=upper"
    with pytest.raises(ValueError, match=message):
        pl.Trainer(max_epochs=1, enable_model_summary=False, **quiet).fit(model, Digits(binarize="threshold"))
    with pytest.raises(ValueError, match=r"condition of shape \(1, 8, 8\), got None: pass context=conditions"):
        model.encode(bits(2, 1, 8, 8))
    with pytest.raises(ValueError, match=r"got a tensor of shape \(2, 8, 8\)"):
        model.decode(torch.zeros(2, 2), torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match=r"got \[\]: use data.condition=upper"):
        ConditionalPriorVAE((1, 8, 8), latent_dim=2, context_shape=(), num_features=3)


# The contract of tests/test_contract.py, for pairs.


def make(net="mlp", shape=(1, 4, 7), context_shape=(1, 4, 7)):
    torch.manual_seed(0)
    small = [f"model.{part}.{key}" for part in ("encoder", "decoder") for key in
             (["hidden=[16]"] if net == "mlp" else ["hidden=16", "channels=[4,8]"])]  # fmt: skip
    words = [f"model/encoder={net}", f"model/decoder={net}", f"data.shape={list(shape)}", "model.latent_dim=3"]
    words += [f"model.context_shape={list(context_shape)}", "model.num_features=5", *small]
    node = config("model", "model=conditional_prior_vae", *words)
    return build(node, "model"), node


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize(
    ("shape", "context_shape"), [((1, 4, 7), (1, 3, 7)), ((3, 8, 9), (1, 8, 9)), ((3, 9, 8), (3, 3, 2))], ids=str
)
def test_any_image_shape(net, shape, context_shape):
    model, _ = make(net, shape, context_shape)
    x, c = bits(6, *shape), torch.rand(6, *context_shape)
    for samples in (1, 5):
        trace = model(x, c, num_samples=samples)
        assert trace.log_px.shape == trace.log_w.shape == (samples, 6)
        loss = model.objective(trace)["loss"]
        model.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1)
    z = model.encode(x, c)
    assert z.shape == (6, 3)
    assert model.sample(6, c).mean.shape == model.decode(z, c).mean.shape == (6, *shape)


def test_compiled_equals_eager():
    results = []
    torch._dynamo.reset()
    c = torch.rand(6, 1, 4, 7, generator=generator(2))
    for compiler in (lambda f: f, partial(torch.compile, backend="aot_eager", fullgraph=True)):
        model, _ = make()
        function = compiler(lambda x, c, model=model: model.objective(model(x, c, num_samples=2))["loss"])
        torch.manual_seed(1)
        value = function(bits(6, 1, 4, 7), c)
        results.append([value.detach(), *torch.autograd.grad(value, list(model.parameters()))])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)


def test_exported_files_give_the_numbers_of_the_model(tmp_path):
    model, _ = make()
    description = {"noun": "image", "kind": "binary", "shape": [1, 4, 7]}
    reports = export_model(model.eval(), description, tmp_path, bits(10, 1, 4, 7), torch.rand(10, 1, 4, 7))
    assert {report.path.name: report.reason or report.differences for report in reports if not report.works} == {}
    assert "condition c" in (tmp_path / "export.json").read_text() + (tmp_path / "model.json").read_text()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short training on the digits."""
    from conftest import train

    words = ["model=conditional_prior_vae", "data.condition=upper", "trainer.max_epochs=2", "threads=1"]
    return train(tmp_path_factory.mktemp("run"), *words, "model.encoder.hidden=[32]", "model.decoder.hidden=[32]")


def test_a_run_and_its_tasks(run, cli, monkeypatch):
    """Training, evaluation, samples in rows of one condition, reconstructions and codes of the command line."""
    summary = json.loads((run / "summary.json").read_text())
    assert summary["scored"] == "bits given y"
    assert summary["config"]["model"]["context_shape"] == [1, 4, 8]
    assert summary["config"]["model"]["data_shape"] == summary["config"]["data"]["shape"] == [1, 4, 8]
    code, _, err, folder = cli("task=sample", f"run={run}", "num=16")
    assert code == 0, err
    arrays = np.load(folder / "samples.npz")
    assert arrays["images"].shape == arrays["conditions"].shape == (16, 1, 4, 8)
    assert (arrays["conditions"][:8] == arrays["conditions"][0]).all()
    assert (folder / "samples.png").exists()
    for task in ("reconstruct", "encode", "score task.num_samples=5"):
        code, _, err, folder = cli(f"task={task.split()[0]}", f"run={run}", *task.split()[1:])
        assert code == 0, err
    words = ["task.metrics=[likelihood,latent,probes,reconstruction,samples,samplers]", "task.num_samples=5"]
    code, _, err, folder = cli("task=evaluate", f"run={run}", "task.num_images=10", *words)
    assert code == 0, err
    found = json.loads((folder / "summary.json").read_text())
    assert found["test"]["elbo"] == pytest.approx(summary["test"]["elbo"], abs=1e-9)
    assert found["test"]["log_p_samples"] == 5
    assert set(found["left_out"]) == {"latent", "probes", "samples", "samplers"}
    assert found["left_out"]["probes"] == "the images have conditions in the place of labels"
    assert found["left_out"]["latent"].startswith("the posterior depends on the conditions, too")


def test_a_condition_is_part_of_the_data(cli):
    """An image model on labels says which option makes conditions; the shape of x follows the condition."""
    code, _, err, _ = cli("model=conditional_prior_vae", "trainer.max_epochs=1", "logger=none", "threads=1")
    assert code != 0
    assert "needs a condition of shape (1, 8, 8), got class labels: pass context=conditions" in err
    short = ["trainer.max_epochs=1", "logger=none", "threads=1"]
    code, _, err, folder = cli("model=mlp_vae", "data.condition=upper", *short)
    assert code == 0, err
    assert prod(json.loads((folder / "summary.json").read_text())["config"]["model"]["data_shape"]) == 32
