"""The variational recurrent neural network and the deep Kalman filter, against exact answers."""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.distributions import Independent, MultivariateNormal, Normal

from vaezoo.distributions.numerics import inverse_soft_floor
from vaezoo.families import FixedScaleNormal
from vaezoo.families import Normal as NormalFamily
from vaezoo.models import VAE, VRNN
from vaezoo.nets import MLP, MaskedInput

LINEAR = partial(MLP, hidden=[])
A, SHIFT, Q = 0.8, 0.3, 0.7  # z_1 = b + e, z_t = a z_{t-1} + b + e, with Var e = Q
C, OFFSET, R = torch.tensor([1.0, -0.5, 0.4]), torch.tensor([0.2, 0.0, -1.0]), 0.5  # x_t = c z_t + d + noise


class KnownPosterior(nn.Module):
    """p(z_t | z_{t-1}, x_t, ..., x_T) of the linear chain from h = z_{t-1} and the message of these frames.

    ``shift`` and ``stretch`` make it another one.
    """

    shift, stretch = 0.0, 1.0

    def forward(self, inputs):
        h, precision, weighted = inputs.split(1, -1)
        total = 1 / Q + precision
        mean = ((A * h + SHIFT) / Q + weighted) / total
        return Independent(Normal(mean + self.shift, self.stretch * total.rsqrt()), 1)


class ExactChain(VRNN):
    """The linear Gaussian chain as a deep Kalman filter with its exact posterior.

    p(x_t, ..., x_T | z_t) is proportional to exp(-precision z^2 / 2 + weighted z), by the backward recursion. phi(x_t)
    has the two numbers of p(x_t | z_t).
    """

    def summarize(self, features, present):
        precision = weighted = torch.zeros_like(features[:, 0, :1])
        messages = []
        for t in reversed(range(self.length)):
            shrink = A / (1 + Q * precision)
            following = A * shrink * precision, shrink * (weighted - SHIFT * precision)
            here = present[:, t, None]
            precision = torch.where(here, features[:, t, :1] + following[0], precision)
            weighted = torch.where(here, features[:, t, 1:] + following[1], weighted)
            messages.append(torch.cat([precision, weighted], -1))
        return torch.stack(messages[::-1], 1)


def set_linear(conditional, weight, bias):
    """Set the only layer of a linear network."""
    (layer,) = conditional.net.layers
    with torch.no_grad():
        layer.weight.copy_(torch.as_tensor(weight, dtype=torch.float64).reshape(layer.weight.shape))
        layer.bias.copy_(torch.as_tensor(bias, dtype=torch.float64).reshape(layer.bias.shape))


def raw_scale(scale):
    """The raw output of the family Normal for this scale."""
    return float(inverse_soft_floor(torch.tensor(scale, dtype=torch.float64).log(), -7.0))


def chain(length=6, kind=ExactChain, smoothing=True):
    """The linear Gaussian chain in float64."""
    options = {"encoder": LINEAR, "decoder": LINEAR, "likelihood": FixedScaleNormal(R), "smoothing": smoothing}
    model = kind((length, 3), latent_dim=1, hidden=2, autoregressive=False, **options).double()
    model.transition = type(model.transition)((1,), (1,), LINEAR, NormalFamily()).double()
    set_linear(model.transition, [A, 0.0], [SHIFT, raw_scale(math.sqrt(Q))])
    set_linear(model.decoder, C, OFFSET)
    c = C.double() / R**2
    set_linear(model.encoder, torch.stack([0 * c, c]), [float(c @ C.double()), -float(c @ OFFSET.double())])
    model.posterior = KnownPosterior()
    return model.eval()


def chain_density(length):
    """p(x_1, ..., x_T) as one multivariate normal of the 3 T numbers."""
    mean, cov = torch.zeros(length, dtype=torch.float64), torch.zeros(length, length, dtype=torch.float64)
    for t in range(length):
        mean[t] = SHIFT + (A * mean[t - 1] if t else 0)
        cov[t, :t] = cov[:t, t] = A * cov[t - 1, :t] if t else 0
        cov[t, t] = Q + (A**2 * cov[t - 1, t - 1] if t else 0)
    c, offset = C.double(), OFFSET.double()
    noise = R**2 * torch.eye(3 * length, dtype=torch.float64)
    return MultivariateNormal((mean[:, None] * c + offset).flatten(), torch.kron(cov, torch.outer(c, c)) + noise)


def kalman_filter(x):
    """log p(x_1, ..., x_T) of one sequence (T, 3) by the Kalman filter, sum_t log p(x_t | x_<t)."""
    mean, var, total = 0.0, 0.0, 0.0
    c, offset, noise = C.double(), OFFSET.double(), R**2 * torch.eye(3, dtype=torch.float64)
    for x_t in x:
        mean, var = A * mean + SHIFT, A**2 * var + Q
        predicted = MultivariateNormal(mean * c + offset, var * torch.outer(c, c) + noise)
        total = total + predicted.log_prob(x_t)
        gain = var * torch.linalg.solve(predicted.covariance_matrix, c)
        mean, var = mean + gain @ (x_t - predicted.mean), var * (1 - gain @ c)
    return total


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_kalman_filter():
    """With the exact posterior, each importance weight is the Kalman filter's log p(x), and the ELBO equals it."""
    torch.manual_seed(0)
    x = random(4, 6, 3)
    model, exact = chain(), torch.stack([kalman_filter(row) for row in x])
    torch.testing.assert_close(exact, chain_density(6).log_prob(x.flatten(1)), rtol=1e-12, atol=0)
    torch.testing.assert_close(model(x, num_samples=5).log_w, exact.expand(5, -1), rtol=1e-10, atol=0)
    with torch.no_grad():
        trace = model(x, num_samples=4000)
    error = (trace.log_px - trace.latent.kl_per_dim.sum()).std(0) / math.sqrt(4000)
    assert ((trace.elbo - exact).abs() < 6 * error).all()


def test_lengths_of_the_chain():
    """log p of a sequence that ends with NaN is that of the Kalman filter of its own frames."""
    torch.manual_seed(0)
    x = random(3, 6, 3)
    x[0, 1:], x[1, 4:] = torch.nan, torch.nan
    log_w = chain()(x, num_samples=3).log_w
    for row, value in zip(x, log_w.T, strict=True):
        frames = row[~row.isnan().any(-1)]
        torch.testing.assert_close(value, kalman_filter(frames).expand(3), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("kind", "smoothing"), [(ExactChain, True), (VRNN, False)])
def test_importance_sampling_reaches_the_chain(kind, smoothing):
    """With another posterior, the mean of the importance weights is p(x), and the ELBO is below log p(x)."""
    torch.manual_seed(1)
    model, x = chain(3, kind, smoothing), random(3, 3, 3)
    model.posterior.shift, model.posterior.stretch = 0.1, 1.2
    exact = chain_density(3).log_prob(x.flatten(1))
    with torch.no_grad():
        trace = model(x, num_samples=40_000)
    ratio = (trace.log_w - exact).exp()
    assert ((ratio.mean(0) - 1).abs() < 6 * ratio.std(0) / 200).all()
    assert (trace.elbo < exact - 0.02).all()
    # The KL in closed form has the mean of its estimate from samples.
    estimate = trace.latent.log_q - trace.latent.log_p
    assert ((trace.kl[:, 0] - estimate.mean(0)).abs() < 6 * estimate.std(0) / 200).all()


def test_draws_of_the_chain():
    """The covariance of drawn sequences is that of the chain, also between frames."""
    torch.manual_seed(0)
    exact = chain_density(4)
    x = chain(4).sample(40_000).sample().flatten(1)
    torch.testing.assert_close(x.mean(0), exact.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(x.T.cov(), exact.covariance_matrix, rtol=0, atol=0.06)


def small(shape=(2, 1), **options):
    """A small model in float64 whose parts depend on all of their inputs."""
    torch.manual_seed(3)
    net = partial(MLP, hidden=[6])
    options = {"autoregressive": True, "smoothing": True, "encoder": net, "decoder": net, **options}
    model = VRNN(shape, latent_dim=1, hidden=4, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@torch.no_grad()
@pytest.mark.parametrize("autoregressive", [True, False])
def test_quadrature(autoregressive):
    """log p(x_1, x_2) by a grid over z_1 and z_2: from the definition, step by step, and from the pass. q sums to 1."""
    model, x = small(autoregressive=autoregressive), random(3, 2, 1)
    num, step = 301, 0.08
    grid = step * torch.arange(-(num // 2), num // 2 + 1, dtype=torch.float64)[:, None]
    z_1, z_2 = grid.repeat_interleave(num, 0), grid.repeat(num, 1)
    zero = torch.zeros(1, model.state_size, dtype=torch.float64)
    for row in x:
        log_p1 = model.transition(zero).log_prob(grid) + model.frame(grid, zero.expand(num, -1)).log_prob(row[0])
        h = grid  # the state after each z_1
        if autoregressive:
            h = model.cell(torch.cat([grid, model.encoder(row[:1]).expand(num, -1)], -1), zero.expand(num, -1))
        h = h.repeat_interleave(num, 0)
        log_p2 = model.transition(h).log_prob(z_2) + model.frame(z_2, h).log_prob(row[1])
        exact = (log_p1.repeat_interleave(num) + log_p2).logsumexp(0) + 2 * math.log(step)
        values = iter([z_1[:, None], z_2[:, None]])
        path = model.infer(row[None], num**2, lambda q, values=values: next(values))
        log_px = model.frames(path.z, path.h).log_prob(row[None])
        joint = (path.p.log_prob(path.z) + log_px).logsumexp(0) + 2 * math.log(step)
        torch.testing.assert_close(joint, exact[None], rtol=1e-12, atol=0)
        assert abs(float(path.q.log_prob(path.z).exp().sum()) * step**2 - 1) < 0.01


def test_one_frame_is_a_vae():
    """T = 1 is the VAE with the same networks, if p(z_1) is the standard normal."""
    torch.manual_seed(0)
    model = VRNN((1, 3), latent_dim=2, hidden=5, autoregressive=False, smoothing=False).double().eval()
    set_zero = [model.transition.net.layers[-1].weight, model.transition.net.layers[-1].bias]
    with torch.no_grad():
        for parameter in set_zero:
            parameter.zero_()
        model.transition.offset.copy_(torch.tensor([0.0, 0.0, raw_scale(1.0), raw_scale(1.0)]))

    class Encoder(nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.first, self.second = model.encoder, model.posterior

        def forward(self, inputs, context=None):
            b = self.first(inputs[:, 0])
            return self.second.raw_outputs(torch.cat([b.new_zeros(len(b), 2), b], -1))

    class Decoder(nn.Module):
        def __init__(self, in_shape, out_shape):
            super().__init__()
            self.net = model.decoder

        def forward(self, inputs, context=None):
            loc, log_scale = self.net.raw_outputs(inputs).chunk(2, -1)
            return torch.stack([loc, log_scale], 1)

    vae = VAE((1, 3), latent_dim=2, encoder=Encoder, decoder=Decoder, likelihood=NormalFamily()).double().eval()
    x = random(5, 1, 3)
    traces = []
    for each in (model, vae):
        torch.manual_seed(5)
        traces.append(each(x, num_samples=3))
    for name in ("log_px", "kl", "elbo", "log_w"):
        torch.testing.assert_close(*(getattr(trace, name) for trace in traces), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.encode(x).flatten(1), vae.encode(x), rtol=1e-12, atol=0)


@pytest.mark.parametrize("autoregressive", [True, False])
def test_frames_after_the_end(autoregressive):
    """They change nothing: log p is of the own frames, KL and log w are 0 there, and no value or gradient passes."""
    model = small((5, 2), autoregressive=autoregressive)
    shorter = small((3, 2), autoregressive=autoregressive)
    shorter.load_state_dict(model.state_dict())
    x = random(4, 5, 2)
    x[:, 3:] = torch.nan
    results = []
    for each, rows in ((model, x), (shorter, x[:, :3])):
        torch.manual_seed(2)
        results.append(each(rows, num_samples=2))
    assert (results[0].latent.kl_per_dim[:, 3:] == 0).all()
    assert (results[0].latent.kl_per_dim[:, :3] > 0).all()
    for name in ("log_px", "kl", "elbo", "log_w"):
        torch.testing.assert_close(*(getattr(trace, name) for trace in results), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(model.encode(x)[:, :3], shorter.encode(x[:, :3]), rtol=1e-13, atol=1e-13)
    results[0].elbo.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_order_and_neighbors():
    """A sequence has the same code in any order of the batch, and bit for bit beside sequences of any length."""
    model, x = small((5, 2)), random(6, 5, 2)
    x[1, 2:], x[4, 1:] = torch.nan, torch.nan
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    codes = model.encode(x)
    torch.testing.assert_close(model.encode(x[order]), codes[order], rtol=1e-13, atol=1e-14)
    others = x.clone()
    others[0], others[2, 1:] = random(5, 2, seed=9), torch.nan
    rest = torch.tensor([1, 3, 4, 5])
    assert torch.equal(model.encode(others)[rest], codes[rest])


def test_nothing_sees_the_future():
    """p(z_t | ...) and p(x_t | ...) depend on x_s for s < t; q also on the frames that follow, unless it filters."""
    for smoothing in (True, False):
        model = small((4, 2), smoothing=smoothing)
        x = random(1, 4, 2).requires_grad_()
        path = model.infer(x, 1, lambda q: torch.full_like(q.loc, 0.4))  # z fixed
        frame = model.frame(path.z, path.h).base_dist.base.loc
        for name, value in {"p": path.p.base_dist.loc, "x": frame, "q": path.q.base_dist.loc}.items():
            for t in range(4):
                slope = torch.autograd.grad(value[0, 0, t].sum(), x, retain_graph=True, allow_unused=True)[0]
                sees = slope[0].abs().sum(-1) > 0 if slope is not None else torch.zeros(4, dtype=torch.bool)
                latest = {"p": t, "x": t, "q": 4 if smoothing else t + 1}[name]  # sees x_1, ..., x_latest
                assert sees.tolist() == [s < latest for s in range(4)], (name, t)


def test_decoding_is_the_pass():
    """decode(z).log_prob(x) is log p(x | z) of the pass with the same z, and draws follow the frames drawn before."""
    model, x = small((4, 2)), random(3, 4, 2)
    x[0, 2:] = torch.nan
    trace = model(x, num_samples=2)
    torch.testing.assert_close(model.decode(trace.latent.z).log_prob(x), trace.log_px.detach(), rtol=1e-12, atol=0)
    z = trace.latent.z[0, :1].detach()
    mean = model.decode(z).mean
    h, expected = torch.zeros(1, 4, dtype=torch.float64), []
    for t in range(4):
        expected.append(model.frame(z[:, t], h).mean)
        h = model.cell(torch.cat([z[:, t], model.encoder(expected[-1])], -1), h)
    torch.testing.assert_close(mean, torch.stack(expected, 1), rtol=1e-12, atol=0)
    assert model.decode(z).sample((5,)).shape == (5, 1, 4, 2)
    with pytest.raises(NotImplementedError, match="log_marginal"):
        model.sample(2).log_prob(x[:2])


@torch.no_grad()
def test_draws_of_an_autoregressive_model():
    """E[x_1 x_2] of draws is that of a grid over z_1, x_1 and z_2: each latent depends on the frames drawn before."""
    model = small(likelihood=FixedScaleNormal(0.5))
    torch.manual_seed(0)
    x = model.sample(100_000).sample()[..., 0]
    points = torch.linspace(-5, 5, 41, dtype=torch.float64)
    zero = torch.zeros(1, 4, dtype=torch.float64)
    first, total = model.transition(zero).base_dist, 0.0
    weights = torch.exp(-points.square() / 2) / torch.exp(-points.square() / 2).sum()
    for u, weight_z in zip(points, weights, strict=True):
        if weight_z < 1e-9:
            continue
        z_1 = first.loc + u * first.scale
        frame = model.frame(z_1, zero)
        x_1 = frame.mean + 0.5 * points[:, None]
        h = model.cell(torch.cat([z_1.expand(41, -1), model.encoder(x_1)], -1), zero.expand(41, -1))
        p = model.transition(h).base_dist
        z_2 = p.loc[:, None] + points[None, :, None] * p.scale[:, None]
        x_2 = model.frame(z_2, h[:, None].expand(41, 41, -1)).mean[..., 0] @ weights
        total += float(weight_z * (weights * x_1[:, 0] * x_2).sum())
    error = float((x[:, 0] * x[:, 1]).std()) / math.sqrt(100_000)
    assert abs(float((x[:, 0] * x[:, 1]).mean()) - total) < 5 * error
    independent = float(x[:, 0].mean() * x[:, 1].mean())
    assert abs(total - independent) > 5 * error  # the frames do depend on each other


def test_missing_entries():
    """Entries missing within a sequence are left out of log p, and the network knows which they are."""
    model = small((4, 3), encoder=partial(MaskedInput, net=MLP)).float()
    x = random(5, 4, 3).float()
    x[:, 1, 2], x[0, 2] = torch.nan, torch.nan
    trace = model(x)
    assert trace.elbo.isfinite().all()
    assert (trace.latent.kl_per_dim > 0).all()
    trace.elbo.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_start_at_the_mean_of_the_frames():
    """Training starts at the mean of all frames that there are, the same for each frame."""
    model = small((3, 2)).float()
    x = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [math.nan] * 2], [[8.0, 2.0], [math.nan] * 2, [math.nan] * 2]])
    model.decoder.init_from_data(x.nanmean(0), x)
    torch.testing.assert_close(model.decoder.offset[:2], torch.tensor([4.0, 4.0]))


def test_errors():
    for shape in ((1, 28, 28), (5,)):
        with pytest.raises(
            ValueError, match=r"VRNN takes sequences of vectors, of shape \(T, D\), .* use data=sequences"
        ):
            small(shape)
    with pytest.raises(ValueError, match="hidden must be an integer >= 1, got 0"):
        VRNN((3, 2), latent_dim=2, hidden=0, autoregressive=True, smoothing=True)
    with pytest.raises(ValueError, match=r"expected a batch of shape \(\*batch, 3, 2\), got \(2, 4, 2\)"):
        small((3, 2))(torch.zeros(2, 4, 2))
