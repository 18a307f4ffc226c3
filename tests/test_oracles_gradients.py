"""The gradient of every model's loss: finite differences of its value at the same draws, one parameter at a time.

Where the gradient is on purpose not that of the value (a critic, PIWAE, a straight-through code) or where the draws do
not move smoothly with the parameters (the sphere), the docstring's own quantity takes the value's place.
"""

import math

import pytest
import torch
from test_contract import LIKELIHOODS, MODELS, make
from test_oracles_samplers import sphere_rule
from torch.distributions import Normal as TorchNormal

from vaezoo.models import CIWAE, IWAE, MIWAE, PIWAE, VAE
from vaezoo.objectives import ImportanceWeighted
from vaezoo.trace import Latent, Trace

FLOAT = torch.float64
SHAPE = (1, 3, 2)
BATCH = 4
STEP = 1e-5
# Small parts, and weights at which no term falls out.
SMALL = {
    "annealed_vae": ["model.capacity=3", "model.gamma=2"],
    "beta_tc_vae": ["model.alpha=1.3", "model.beta=3", "model.gamma=0.7"],
    "beta_vae": ["model.beta=3"],
    "ciwae": ["model.beta=0.3", "model.num_samples=3"],
    "conv_vae": ["model.num_samples=3"],
    "factor_vae": ["model.gamma=3", "model.critic_hidden=[4]"],
    "flow_prior_vae": [
        "model.num_flows=3",
        "model.flow_hidden=[4]",
        "model.flow_activation=tanh",
        "model.num_samples=3",
    ],
    "full_cov_vae": ["model.num_samples=3"],
    "hi_vae": ["model.num_components=3", "model.num_samples=3"],
    "iaf_vae": ["model.num_flows=2", "model.flow_hidden=[4]", "model.num_samples=3"],
    "info_vae": ["model.alpha=0.3", "model.lambda_mmd=5", "model.num_samples=2"],
    "iwae": ["model.num_samples=3"],
    "ladder_vae": ["model.num_layers=3", "model.hidden=4", "model.num_samples=3"],
    "miwae": ["model.num_samples=3", "model.num_groups=2"],
    "missing_iwae": ["model.num_samples=3"],
    "mlp_vae": ["model.num_samples=3"],
    "mog_vae": ["model.num_components=3", "model.num_samples=3"],
    "piwae": ["model.num_samples=3", "model.num_groups=2"],
    "planar_vae": ["model.num_flows=3", "model.num_samples=3"],
    "sigma_vae": ["model.num_samples=3"],
    "swae": ["model.num_projections=3", "model.num_samples=2"],
    "vamp_vae": ["model.num_components=3", "model.num_samples=3"],
    "vq_vae": ["model.num_codes=5", "model.num_latents=2"],
    "wae": ["model.lambda_mmd=5", "model.num_samples=2"],
}
IAF = ["model/posterior=iaf", "model.posterior.num_flows=2", "model.posterior.hidden=[4]"]
PLANAR = ["model/posterior=planar", "model.posterior.num_flows=2"]
FLOW = ["model/prior=flow", "model.prior.num_flows=2", "model.prior.hidden=[4]", "model.prior.activation=tanh"]
MIXTURE = ["model/prior=mixture_of_normals", "model.prior.num_components=3"]
VAMP = ["model/prior=vamp", "model.prior.num_components=3"]
MORE = {
    "iaf, flow": ("mlp_vae", [*IAF, *FLOW]),
    "iaf, mixture": ("mlp_vae", [*IAF, *MIXTURE]),
    "planar, vamp": ("mlp_vae", [*PLANAR, *VAMP]),
    "planar, mixture": ("mlp_vae", [*PLANAR, *MIXTURE]),
    "iwae, iaf, flow": ("iwae", [*IAF, *FLOW]),
    "iwae, mixture": ("iwae", MIXTURE),
    "ciwae, vamp": ("ciwae", VAMP),
    "wae, flow": ("wae", FLOW),
    "info_vae, imq": ("info_vae", ["model.kernel=imq"]),
    "beta_tc_vae, mws": ("beta_tc_vae", ["model.estimator=mws"]),
    "beta_tc_vae, mixture": ("beta_tc_vae", MIXTURE),
    "dip_vae, I": ("dip_vae", ["model.variant=I"]),
    "free bits per dim": ("mlp_vae", ["model.free_bits=0.4"]),
    "free bits per layer": ("ladder_vae", ["model.free_bits=0.4", "model.free_bits_per=layer"]),
    "beta_vae, mixture": ("beta_vae", MIXTURE),
    **{
        f"likelihood {name}": ("mlp_vae", [f"model/likelihood={name}"]) for name in LIKELIHOODS if name != "categorical"
    },
}
BY_HAND = {"piwae", "s_vae", "vq_vae"}  # and the factor_vae's critic


def tiny(name, *more):
    """Return a float64 model in training mode with weights far from their start, data that it supports, and labels."""
    words = [*SMALL.get(name, []), *more]
    model = make(name, *words, net="conv" if name == "conv_vae" else "mlp", shape=SHAPE).double().train()
    model.objective.set_num_train(50)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, dtype=FLOAT, generator=generator))
    x = torch.randint(0, 256, (BATCH, *SHAPE), generator=generator).double() / 255
    if model.likelihood.supported_data == {"binary"}:
        x = x.round()
    return model, x, torch.arange(BATCH) % 3


def loss_at(model, x, y, key="loss"):
    torch.manual_seed(5)
    return model.objective(model(x, y))[key]


def slope(value, p, direction):
    """Return the derivative along a direction of one parameter, by central differences."""
    with torch.no_grad():
        p.add_(STEP * direction)
        above = value()
        p.sub_(2 * STEP * direction)
        below = value()
        p.add_(STEP * direction)
    return float(above - below) / (2 * STEP)


def compare(model, loss, values):
    """Compare d loss / d p of each parameter, along a random direction, with differences of ``values(name)``."""
    params = dict(model.named_parameters())
    grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
    generator = torch.Generator().manual_seed(9)
    sizes = {}
    for (name, p), grad in zip(params.items(), grads, strict=True):
        direction = torch.randn(p.shape, dtype=FLOAT, generator=generator)
        found = 0.0 if grad is None else float((grad * direction).sum())
        assert found == pytest.approx(slope(values(name), p, direction), rel=1e-4, abs=1e-6), name
        block = name.split(".")[0]
        sizes[block] = max(sizes.get(block, 0.0), 0.0 if grad is None else float(grad.abs().max()))
    assert min(sizes.values()) > 1e-4, sizes  # each part learns


CASES = {**{name: (name, []) for name in MODELS if name not in BY_HAND}, **MORE}


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_is_that_of_the_loss(case):
    """This holds for each parameter of encoder, decoder and prior; the critic has the gradient of its own loss."""
    name, more = CASES[case]
    model, x, y = tiny(name, *more)
    critic = "objective.critic"
    compare(
        model,
        loss_at(model, x, y),
        lambda p: lambda: loss_at(model, x, y, "critic_loss" if p.startswith(critic) else "loss"),
    )


def test_piwae_follows_two_bounds():
    """The decoder has the gradient of the IWAE, the encoder that of the MIWAE, by differences at the same draws."""
    model, x, y = tiny("piwae")
    groups = ImportanceWeighted(num_groups=2)
    together = ImportanceWeighted()

    def value(objective):
        torch.manual_seed(5)
        return objective(model(x, y))["loss"]

    compare(model, loss_at(model, x, y), lambda p: lambda: value(groups if p.startswith("encoder") else together))


def test_the_sphere_by_quadrature():
    """For each parameter, the mean gradient over draws is that of the integral over the sphere."""
    model, x, _y = tiny("s_vae")
    nodes, weights = sphere_rule(30)
    q, p = model.encoder(x), model.prior()
    log_px = model.decoder(nodes[:, None].expand(-1, BATCH, -1)).log_prob(x)  # (P, B)
    log_q = q.log_prob(nodes[:, None])
    mass = log_q.exp() * weights[:, None]
    kl = (mass * (log_q - p.log_prob(nodes[:, None]))).sum(0)
    exact_loss = (kl - (mass * log_px).sum(0)).mean()
    params = list(model.parameters())

    def flat(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, params)])

    exact = flat(exact_loss)
    torch.manual_seed(0)
    draws = torch.stack([flat(model.objective(model(x, num_samples=400))["loss"]) for _ in range(25)])
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - exact).abs() < 5 * error + 1e-6).all()
    assert float((error / (exact.abs() + 1e-3)).median()) < 0.05


def test_vector_quantisation_by_the_chain_rule():
    """The encoder's output has the gradient of -log p(x | e) with respect to e plus 2 c (z_e - e), and no other."""
    model, x, _ = tiny("vq_vae", "model.commitment=0.75")
    model.eval()  # the codebook stays
    found = dict(
        zip(
            dict(model.named_parameters()),
            torch.autograd.grad(loss_at(model, x, None), list(model.parameters())),
            strict=True,
        )
    )
    outputs = model.encoder(x)  # (B, n, D)
    distances = (outputs.unsqueeze(2) - model.quantizer.codebook).square().sum(-1)
    codes = model.quantizer.codebook[distances.argmin(-1)].clone().requires_grad_()
    distortion = -model.decoder(codes).log_prob(x).mean()
    (by_code,) = torch.autograd.grad(distortion, codes, retain_graph=True)
    at_output = by_code + 2 * 0.75 * (outputs - codes).detach() / BATCH
    expected = {
        **dict(zip(
            [f"encoder.{name}" for name, _ in model.encoder.named_parameters()],
            torch.autograd.grad((outputs * at_output).sum(), list(model.encoder.parameters())),
            strict=True,
        )),
        **dict(zip(
            [f"decoder.{name}" for name, _ in model.decoder.named_parameters()],
            torch.autograd.grad(distortion, list(model.decoder.parameters())),
            strict=True,
        )),
    }  # fmt: skip
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("gradient", ["stl", "dreg"])
@pytest.mark.parametrize(("cls", "groups"), [(IWAE, 1), (MIWAE, 2), (CIWAE, 1), (PIWAE, 2)])
def test_the_models_pass_their_estimator_on(cls, groups, gradient):
    """At the same draws, the decoder's gradient is that of ``reparam`` up to rounding; the encoder's differs."""
    found = {}
    for which in ("reparam", gradient):
        model, x, y = tiny(cls.__name__.lower(), f"model.gradient={which}")
        loss = loss_at(model, x, y)
        grads = dict(
            zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True)
        )
        found[which] = loss.detach(), grads
    torch.testing.assert_close(found[gradient][0], found["reparam"][0], rtol=1e-12, atol=0)
    for name, grad in found["reparam"][1].items():
        same = torch.allclose(found[gradient][1][name], grad, rtol=1e-9, atol=1e-12)
        assert same == name.startswith("decoder"), name


def test_the_elbos_gradient_in_closed_form():
    """With a linear decoder and unit noise, E_q of the loss is a polynomial of mean and scale, and so is its gradient.

    loss = sum_i (x_i - w_i mu - b_i)^2 / 2 + w_i^2 s^2 / 2 + (mu^2 + s^2 - 1) / 2 - ln s + const: the slopes
    at draws +-1 standard deviation, whose mean is exact for polynomials of degree 2.
    """
    torch.manual_seed(0)
    w, b = torch.randn(2, 5, dtype=FLOAT)
    x = torch.randn(1, 5, dtype=FLOAT)
    mu = torch.tensor([[0.7]], dtype=FLOAT, requires_grad=True)
    log_s = torch.tensor([[-0.4]], dtype=FLOAT, requires_grad=True)
    s = log_s.exp()
    q = torch.distributions.Independent(TorchNormal(mu, s), 1)
    p = torch.distributions.Independent(TorchNormal(torch.zeros(1, dtype=FLOAT), torch.ones(1, dtype=FLOAT)), 1)
    z = torch.stack([mu + s, mu - s])
    px = torch.distributions.Independent(TorchNormal(z * w + b, torch.ones(5, dtype=FLOAT)), 1)
    loss = VAE((5,), latent_dim=20).objective(Trace(x, px, (Latent(q, p, z),)))["loss"]
    found = torch.autograd.grad(loss, [mu, log_s])
    m, sd = float(mu.detach()), float(s.detach())
    by_mu = float((-(x - w * m - b) * w).sum()) + m
    by_log_s = float(w.square().sum()) * sd**2 + sd**2 - 1
    assert [float(g) for g in found] == pytest.approx([by_mu, by_log_s], rel=1e-12)
