"""The contract of every config in conf/model; a new config is tested without a change of this file."""

import inspect
import math
from functools import partial
from itertools import product
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from conftest import RandomImages, config
from model_data import WORDS

from vaezoo.config_folder import config_folder
from vaezoo.instantiate import build
from vaezoo.models.base import CAPABILITIES
from vaezoo.runs.load import load

ALL_MODELS = sorted(path.stem for path in Path(config_folder(), "model").glob("*.yaml"))
MODELS = [name for name in ALL_MODELS if name not in WORDS]  # those of images
NETS = ["mlp", "conv"]
MORE_NETS = ["burgess", "resnet"]  # with mlp_vae alone: the suite must stay quick
# Those of other data than images: tests/test_counts_and_categories.py and tests/test_token_sequence.py.
OTHER_DATA = {
    "auto", "categories", "index_categorical", "log_normal", "negative_binomial", "ordinal", "ordinal_columns",
    "poisson", "token_sequence",
}  # fmt: skip
LIKELIHOODS = sorted({path.stem for path in Path(config_folder(), "model", "likelihood").glob("*.yaml")} - OTHER_DATA)
# As many parts of a kind as show how they are chained, each a small one: the suite must stay quick.
SMALLER = {
    "factor_vae": ["model.critic_hidden=[16,16]"],
    "flow_prior_vae": ["model.num_flows=2", "model.flow_hidden=[16]"],
    "iaf_vae": ["model.num_flows=2", "model.flow_hidden=[16]"],
    "mog_vae": ["model.num_components=10"],
    "planar_vae": ["model.num_flows=2"],
    "vamp_vae": ["model.num_components=20"],
}
SHAPES = [(1, 28, 20), (3, 64, 64), (2, 33, 17), (4, 8, 8), (1, 1, 5)]


def overrides(name, net="conv", *more):
    small = [f"model.{part}.hidden={'[16]' if net == 'mlp' else 16}" for part in ("encoder", "decoder")]
    if net != "mlp":
        small += [f"model.{part}.channels=[4,8]" for part in ("encoder", "decoder")]
    nets = [f"model/encoder={net}", f"model/decoder={net}"]
    return [f"model={name}", "data.shape=[1,9,7]", *nets, "model.latent_dim=3", *small, *SMALLER.get(name, []), *more]


def make(name, *more, net="conv", shape=(1, 9, 7), **kwargs):
    torch.manual_seed(0)
    return build(config("model", *overrides(name, net, *more), shape=shape), "model", **kwargs)


def require(model, capability):
    """Skip the test if the model lacks this capability, with the model's reason."""
    if capability in model.limits:
        pytest.skip(model.limits[capability])


def labels(num):
    return torch.arange(num) % 10


def bits(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).round()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "net"), [*product(MODELS, NETS), *product(["mlp_vae"], MORE_NETS)])
def test_any_image_shape(name, net, shape):
    """One pass with one and with five samples: shapes, a finite loss, and a gradient in each parameter."""
    model = make(name, net=net, shape=shape)
    x = bits(6, *shape)
    groups = model.objective.num_groups
    for samples in (groups, 5 * groups):
        trace = model(x, labels(6), num_samples=samples)
        assert trace.log_px.shape == trace.log_w.shape == (samples, 6)
        assert trace.elbo.shape == (6,)
        loss = model.objective(trace)["loss"]
        assert loss.shape == ()
        model.zero_grad()
        loss.backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
        assert not without
        assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.dim() > 1 and p.shape[0] > 1)
    z = model.encode(x, labels(6))
    assert z.shape == (6, *model.latent_shape)
    assert model.sample(4, labels(4)).mean.shape == model.decode(z, labels(6)).mean[:4].shape == (4, *shape)


PARTS = [
    f"model/{group}={path.stem}"
    for group in ("posterior", "prior")
    for path in sorted(Path(config_folder(), "model", group).glob("*.yaml"))
]


@pytest.mark.parametrize(("name", "part"), [*product(MODELS, [None]), *product(["mlp_vae"], PARTS)])
def test_limits_are_true(name, part):
    """A model says which capabilities it lacks and what its latent is; both agree with one pass."""
    model = make(name, *[part] * (part is not None), net="mlp").eval()
    assert model.limits.keys() <= CAPABILITIES.keys()
    trace = model(bits(6, 1, 9, 7), labels(6))
    assert ("kl_per_dim" in model.limits) == any(latent.kl_per_dim is None for latent in trace.latents)
    z = model.encode(bits(6, 1, 9, 7), labels(6))
    assert model.latent_kind in ("vector", "sphere", "codes", "layers")
    assert (model.latent_kind == "layers") == (len(trace.latents) > 1)
    assert (model.latent_kind == "codes") == (z.dim() == 3)
    unit = torch.allclose(z.square().sum(-1), torch.ones(z.shape[:-1]))
    assert (model.latent_kind == "sphere") == unit


CASES = [(name, None) for name in MODELS] + [("mlp_vae", likelihood) for likelihood in LIKELIHOODS]


@pytest.mark.parametrize(("name", "likelihood"), CASES)
def test_trains(name, likelihood):
    """The loss falls, the metrics are logged, and samples are in the likelihood's support."""
    more = [f"model/likelihood={likelihood}"] if likelihood else []
    model = make(name, *more, net="mlp", optimizer=lambda p: torch.optim.Adam(p, 1e-2))
    binary = model.likelihood.supported_data == {"binary"}
    data = RandomImages((1, 9, 7), binarize="dynamic" if binary else "none")
    assert data.data_kind in model.likelihood.supported_data
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    losses = []

    class Record(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            losses.append(pl_module.stage_values("train")["loss"])

    settings |= {"check_val_every_n_epoch": 15, "num_sanity_val_steps": 0}  # one validation, at the end
    trainer = pl.Trainer(max_epochs=15, callbacks=[Record()], accelerator="cpu", enable_model_summary=False, **settings)
    trainer.fit(model, data)
    assert losses[-1] < losses[0] - 0.5
    metrics = trainer.callback_metrics
    assert math.isfinite(float(metrics["val/elbo"]))
    assert ("kl_per_dim" in model.limits) != any(name.startswith("val/kl_dim/") for name in metrics)
    assert ("active_units" in model.limits) != ("val/active_units" in metrics)
    drawn = model.eval().sample(50, labels(50)).sample()
    if binary:
        assert ((drawn == 0) | (drawn == 1)).all()
    elif "real" not in model.likelihood.supported_data:
        assert ((drawn >= 0) & (drawn <= 1)).all()


@pytest.mark.parametrize("name", MODELS)
def test_bounds(name):
    """The ELBO is at most the importance-weighted bound on the same samples (Jensen), and encode is deterministic."""
    model = make(name).double().eval()
    require(model, "elbo")
    x = bits(8, 1, 9, 7).double()
    log_w = model(x, labels(8), num_samples=50).log_w
    assert (log_w.mean(0) <= log_w.logsumexp(0) - math.log(50) + 1e-12).all()
    assert torch.equal(model.encode(x, labels(8)), model.encode(x, labels(8)))
    estimate = model.log_marginal(x, labels(8), num_samples=40, chunk_size=7)
    assert estimate.shape == (8,)
    assert (estimate > model(x, labels(8), num_samples=200).elbo - 0.5).all()


# Models whose code, all of it, is that of another one if the networks are the same; only numbers differ. What the
# compiler makes of it is tested with the other one, so here the graph is only recorded. A new model is not one of them.
SAME_CODE = {"beta_vae": "mlp_vae", "conv_vae": "mlp_vae"}


def code_of(model):
    """The classes of a model's parts, and all functions of its class and of its objective's but how they are made."""
    classes = {type(part) for part in model.modules()} - {type(model)}
    functions = inspect.getmembers(type(model), inspect.isfunction)
    return classes, {name: function for name, function in functions if name != "__init__"}


@pytest.mark.parametrize(("name", "other"), SAME_CODE.items())
def test_same_code(name, other):
    """What is not compiled in full has no code of its own."""
    assert code_of(make(name, net="mlp")) == code_of(make(other, net="mlp"))
    assert code_of(make("dip_vae", net="mlp")) != code_of(make(other, net="mlp"))


def check_compiled(make_model, x, y=None, backend=None):
    """Compare the compiled pass from x to the loss, as one graph, with the eager one: the loss and all gradients."""
    torch._dynamo.reset()
    require(make_model(), "compile")
    results = []
    for compiler in (lambda f: f, partial(torch.compile, backend=backend or "aot_eager", fullgraph=True)):
        model = make_model()  # a new one: a pass in training mode may change its buffers
        samples = 2 * model.objective.num_groups

        def loss(x, y, model=model, samples=samples):
            return model.objective(model(x, y, num_samples=samples))["loss"]

        function = compiler(loss)
        torch.manual_seed(1)
        value = function(x, y)
        value.backward()
        results.append([value.detach(), *(p.grad for p in model.parameters())])
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(eager, compiled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_compiled_equals_eager(name):
    """The compiled pass from x to the loss is one graph, with the loss and gradients of the eager pass."""
    check_compiled(partial(make, name, net="mlp"), bits(6, 1, 9, 7), labels(6), SAME_CODE.get(name) and "eager")


@pytest.mark.parametrize("name", MODELS)
def test_autocast(name):
    """In bf16 the terms are float32 and close to those of full precision, for the same noise."""
    values = []
    for enabled in (False, True):
        model = make(name)
        samples = 2 * model.objective.num_groups
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            trace = model(bits(6, 1, 9, 7), labels(6), num_samples=samples)
            loss = model.objective(trace)["loss"]
        loss.backward()
        assert loss.dtype == trace.log_px.dtype == trace.kl.dtype == torch.float32
        values.append(torch.stack([loss.detach(), trace.elbo.mean().detach()]))
    torch.testing.assert_close(*values, rtol=0.02, atol=0.3)


@pytest.mark.parametrize("name", MODELS)
def test_no_weight_is_in_the_elbo(name):
    """The weights of the objective do not change the ELBO."""
    model = make(name).eval()
    x = bits(5, 1, 9, 7)

    def elbo():
        torch.manual_seed(1)
        return model(x, labels(5)).elbo

    before = elbo()
    for weight in model.objective.weights().values():
        weight.fill_(7.0)
    assert torch.equal(before, elbo())


@pytest.mark.parametrize("name", MODELS)
def test_save_and_load(name, tmp_path):
    """A checkpoint restores its model in eval mode with the same numbers, without Hydra and without pickled code."""
    node = config("model", *overrides(name))
    model = make(name).eval()
    model.config = {"model": node, "seed": 3}
    model.decoder.init_mean(torch.full((1, 9, 7), 0.3))
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_model_summary=False, enable_progress_bar=False)
    trainer.strategy.connect(model)
    path = tmp_path / "checkpoints" / "best.ckpt"
    trainer.save_checkpoint(path)
    torch.load(path, weights_only=True)
    again = load(tmp_path)
    assert not again.training
    assert again.seed == 3
    x = bits(4, 1, 9, 7)
    z = model.encode(x, labels(4))
    assert torch.equal(z, again.encode(x, labels(4)))
    assert torch.equal(model.decode(z, labels(4)).mean, again.decode(z, labels(4)).mean)


@pytest.mark.parametrize("name", MODELS)
def test_other_shapes_are_refused(name):
    """A wrong shape is refused; another dtype is cast."""
    model = make(name, net="mlp").eval()
    for shape in [(2, 1, 7, 9), (2, 63), (1, 9, 7)]:
        with pytest.raises(ValueError, match=r"expected a batch of shape \(\*batch, 1, 9, 7\), got"):
            model.encode(torch.zeros(shape), labels(2))
    x = bits(3, 1, 9, 7)
    assert torch.equal(model.encode(x.double(), labels(3)), model.encode(x, labels(3)))


def test_unsupported_values_are_refused():
    """There is no bound for data that the likelihood does not support."""
    model = make("mlp_vae", net="mlp")
    with pytest.raises(ValueError, match="Bernoulli takes only the values 0 and 1"):
        model.log_marginal(torch.full((2, 1, 9, 7), 0.5), num_samples=2)
    grey = make("mlp_vae", "model/likelihood=continuous_bernoulli", net="mlp")
    with pytest.raises(ValueError, match=r"takes values in \[0, 1\]"):
        grey.log_marginal(torch.full((2, 1, 9, 7), 255.0), num_samples=2)


def test_beta_1_is_conv_vae():
    """beta = 1 trains the same weights as conv_vae, bit for bit."""
    settings = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    weights = []
    for name, more in (("conv_vae", []), ("beta_vae", ["model.beta=1"])):
        model = make(name, *more)
        trainer = pl.Trainer(max_epochs=2, accelerator="cpu", enable_model_summary=False, **settings)
        trainer.fit(model, RandomImages((1, 9, 7)))
        weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*weights)
    assert make("beta_vae").objective.configured_weights["beta"] == 4  # and the paper's class is not that by default


@pytest.mark.parametrize("net", NETS + MORE_NETS)
def test_float64_and_batch_repeat(net):
    """Repeating the batch does not change the mean ELBO or the loss."""
    model = make("beta_vae", net=net).double()
    x = bits(4, 1, 9, 7).double()
    torch.manual_seed(0)
    trace = model(x)
    latent = trace.latent
    z = latent.z
    twice = type(trace)(
        torch.cat([x, x]),
        model.decode(torch.cat([z, z], 1)),
        (type(latent)(model.encoder(torch.cat([x, x])), latent.p, torch.cat([z, z], 1)),),
    )
    assert torch.allclose(model.objective(trace)["loss"], model.objective(twice)["loss"], rtol=1e-12)
    assert torch.allclose(trace.elbo.mean(), twice.elbo.mean(), rtol=1e-12)
