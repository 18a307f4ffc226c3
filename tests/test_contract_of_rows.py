"""The contract of test_contract.py for the models that take no images, on rows of their own kind."""

import math
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from conftest import config
from test_contract import check_compiled

from vaezoo.data import DataModule, Split
from vaezoo.export import preprocessing
from vaezoo.export.functions import Decoder, Encoder
from vaezoo.families import NegativeBinomial, Poisson, SharedScaleNormal
from vaezoo.instantiate import build
from vaezoo.models import VAE
from vaezoo.runs.load import load
from vaezoo.runs.setup import log_likelihood_kind, wrap_parts

FLOAT = torch.float64


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Rows(DataModule):
    """Counts of 6 genes in cells of two types; or real numbers of two types, of which large ones are missing."""

    noun = "row"

    def __init__(self, data_kind):
        super().__init__(val_size=20, batch_size=32)
        self.data_kind = data_kind

    def read(self):
        rate = torch.tensor([[9.0, 1, 4, 0.2, 3, 3], [1.0, 9, 0.2, 4, 3, 3]])
        labels = torch.arange(150) % 2
        x = torch.poisson(rate[labels] * (0.5 + torch.rand(150, 1, generator=generator())), generator=generator())
        if self.data_kind == "count":
            return Split(x[:110].long(), labels[:110]), Split(x[110:].long(), labels[110:])
        x = x / 3 - 1 + 0.3 * torch.randn(x.shape, generator=generator())
        x = x.where((x < 0.5) | (torch.rand(x.shape, generator=generator(1)) < 0.3), math.nan)
        return Split(x[:110], labels[:110]), Split(x[110:], labels[110:])


# The kind of data, and further overrides.
MODELS = {
    "count_vae": ("count", []),
    "count_vae with zeros": ("count", ["model.zero_inflated=true"]),
    "mult_vae": ("count", []),
    "not_miwae": ("real", ["model.num_samples=3"]),
    "prod_lda": ("count", ["model.num_topics=3", "model.alpha=0.1"]),
}


def make(name, shape=(6,), **settings):
    kind, more = MODELS[name]
    small = ["model.encoder.hidden=[12]"]
    if name != "prod_lda":
        small += ["model.decoder.hidden=[12]", "model.latent_dim=3"]
    node = config("model", f"model={name.split()[0]}", f"data.shape={list(shape)}", *small, *more)
    if node.get("likelihood"):
        node["likelihood"] = {"_target_": "vaezoo.families.SharedScaleNormal"}
    torch.manual_seed(0)
    data = Rows(kind)
    data.inspect()
    wrap_parts(node, data, ())
    return build(node, "model", **settings)


def rows(name, num=8):
    data = Rows(MODELS[name][0])
    data.setup()
    return data.test.x[:num]


@pytest.fixture(scope="module", params=MODELS)
def trained(request):
    """A trained model, its data, its trainer, and the losses of the epochs."""
    data, losses = Rows(MODELS[request.param][0]), []

    class Record(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            losses.append(pl_module.stage_values("train")["loss"])

    model = make(request.param, optimizer=lambda p: torch.optim.Adam(p, 1e-2))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=15, callbacks=[Record()], enable_model_summary=False, **quiet)
    trainer.fit(model, data)
    return model.eval(), data, trainer, losses


@pytest.mark.parametrize("name", MODELS)
def test_one_pass(name):
    """Shapes, a finite loss, a gradient in each parameter; other shapes are refused."""
    model, x = make(name), rows(name)
    for num in (1, 5):
        trace = model(x, num_samples=num)
        assert trace.log_px.shape == (num, 8)
        assert trace.elbo.shape == (8,)
        model.zero_grad()
        model.objective(trace)["loss"].backward()
        assert all(p.grad.isfinite().all() and p.grad.abs().sum() > 0 for p in model.parameters())
    with pytest.raises(ValueError, match=r"expected a batch of shape \(\*batch, 6,\), got"):
        model.eval().encode(x[:, :5])


def test_training(trained):
    """The loss falls, the metrics are logged, samples are of the data's kind, and bounds are in their order."""
    model, data, trainer, losses = trained
    assert losses[-1] < losses[0] - 0.3
    assert math.isfinite(float(trainer.callback_metrics["val/elbo"]))
    assert ("kl_per_dim" in model.limits) != any(name.startswith("val/kl_dim/") for name in trainer.callback_metrics)
    drawn = model.sample(50).sample()
    assert drawn.shape == (50, 6)
    assert drawn.dtype == data.test.x.dtype
    assert data.data_kind != "count" or (drawn >= 0).all()
    x = data.test.x
    log_w = model(x, num_samples=50).log_w
    assert (log_w.mean(0) <= log_w.logsumexp(0) - math.log(50) + 1e-5).all()
    assert (model.log_marginal(x, num_samples=40) > model(x, num_samples=200).elbo - 0.5).all()


def test_limits_are_true(trained):
    model, data, *_ = trained
    trace = model(data.test.x)
    assert ("kl_per_dim" in model.limits) == any(latent.kl_per_dim is None for latent in trace.latents)
    assert model.latent_kind == "vector"


def test_totals_of_the_data(trained):
    """Samples have totals of training examples; a reconstruction has the total of its own example."""
    model, data, *_ = trained
    if not hasattr(model.likelihood, "totals"):
        pytest.skip("its likelihood takes no total from x")
    sums = data.train.x.sum(1).float()
    assert model.likelihood.totals[0] == sums.min()
    assert model.likelihood.totals[-1] == sums.max()
    assert model.likelihood.totals.mean() == pytest.approx(float(sums.mean()), rel=0.02)
    found = model.reconstruct(data.test.x).sum(1)
    if model.likelihood.num_outputs == 1:
        torch.testing.assert_close(found, data.test.x.sum(1).float(), rtol=1e-5, atol=0)
    else:
        assert (found < data.test.x.sum(1)).all()  # some are zeros for another reason


def test_numbers_are_compared_with_equals_only(trained):
    """What log p is of is a part of its kind."""
    model, data, *_ = trained
    if data.data_kind == "count":
        assert log_likelihood_kind(model, data) == "counts given their sum"
        for likelihood in (Poisson(), NegativeBinomial()):
            assert log_likelihood_kind(VAE((6,), latent_dim=2, likelihood=likelihood), data) == "counts"
    else:
        assert log_likelihood_kind(model, data) == "density and which entries are missing"
        assert log_likelihood_kind(VAE((6,), latent_dim=2, likelihood=SharedScaleNormal()), data) == "density"


@pytest.mark.parametrize("name", MODELS)
def test_other_data_are_refused(name):
    """ln(1 + x) are no counts, whole numbers no real ones, and an image is no vector."""
    trainer = pl.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", enable_progress_bar=False)
    other = {"count": "real", "real": "count"}[MODELS[name][0]]
    with pytest.raises(ValueError, match=f"scores .* data, but Rows makes {other} data"):
        trainer.fit(make(name), Rows(other))
    if MODELS[name][0] == "count":
        with pytest.raises(ValueError, match=r"takes vectors of counts \(D,\), but x has the shape \(1, 6, 6\)"):
            make(name, (1, 6, 6))


def test_saved_and_loaded(trained, tmp_path):
    model, data, trainer, _ = trained
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = load(tmp_path / "last.ckpt")
    z = model.encode(data.test.x)
    assert torch.equal(again.encode(data.test.x), z)
    assert torch.equal(again.decode(z).mean, model.decode(z).mean)
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize("name", sorted({name.split()[0] for name in MODELS} - {"mult_vae"}))  # its parts: prod_lda's
def test_compiled_equals_eager(name):
    check_compiled(partial(make, name), rows(name))


@pytest.mark.parametrize("name", MODELS)
def test_autocast(name):
    values = []
    for enabled in (False, True):
        model = make(name)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            trace = model(rows(name), num_samples=2)
            loss = model.objective(trace)["loss"]
        assert loss.dtype == trace.log_px.dtype == torch.float32
        values.append(torch.stack([loss.detach(), trace.elbo.mean().detach()]))
    torch.testing.assert_close(*values, rtol=0.02, atol=0.3)


@pytest.mark.parametrize("name", MODELS)
def test_no_weight_is_in_the_elbo(name):
    model = make(name).eval()
    found = []
    for value in (None, 7.0):
        for weight in model.objective.weights().values() if value else ():
            weight.fill_(value)
        torch.manual_seed(1)
        found.append(model(rows(name)).elbo)
    assert torch.equal(*found)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_finite_differences(name):
    """Along a random direction of each parameter, at the same draws."""
    model, x = make(name).double(), rows(name)
    x = x.double() if x.is_floating_point() else x

    def loss():
        torch.manual_seed(5)
        return model.objective(model(x, num_samples=3))["loss"]

    names, params = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss(), params)
    for key, p, slope in zip(names, params, slopes, strict=True):
        direction, values = torch.randn(p.shape, dtype=FLOAT, generator=generator(9)), []
        with torch.no_grad():
            for step in (1e-5, -2e-5, 1e-5):
                p.add_(step * direction)
                values.append(float(loss()))
        found = (values[0] - values[1]) / 2e-5
        assert float((slope * direction).sum()) == pytest.approx(found, rel=1e-4, abs=1e-6), key


def test_exported_outputs(trained):
    """Code and mean are those of encode and decode, and each output has a meaning."""
    model, data, *_ = trained
    prepare = preprocessing.Preprocessing(data.describe())
    for function in (Encoder(model, prepare).eval(), Decoder(model, prepare).eval()):
        with torch.no_grad():
            inputs = function.example_inputs(data.test.x[:4], data.test.y[:4])
            outputs, reference = function(**inputs), function.reference(data.test.x[:4], data.test.y[:4])
        for key, value in reference.items():
            torch.testing.assert_close(outputs[key], value, rtol=1e-6, atol=1e-6)
        described = function.describe(inputs, outputs)
        assert all(tensor["meaning"] != "a parameter of the distribution" for tensor in described["outputs"])
