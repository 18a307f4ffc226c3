"""Normalising flows: distributions pushed through invertible layers, as posteriors and as a prior.

With u from a base distribution and z = f_T(... f_1(u)), log p(z) = log p(u) - sum_t log |det df_t|.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as TorchNormal

from vaezoo.conditional import Conditional, Shape
from vaezoo.families import Normal
from vaezoo.nets import MLP
from vaezoo.nets.mlp import activation_function, check_widths, glorot
from vaezoo.posteriors import Posterior
from vaezoo.priors import Prior


class Layer(Protocol):
    """An invertible map f of the last dimension; parameters that depend on x broadcast against the others."""

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(z), shape (..., D), and log |det df/dz|, shape (...)."""

    def pull(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """z = f^-1(y), and the same log |det df/dz| at that z."""


class FlowDistribution(Distribution):
    """The distribution of f_T(... f_1(u)), u ~ base. It has no mean and no divergence in closed form.

    The log density of the last sample is kept, so that ``log_prob`` of that very tensor costs
    nothing; of any other point it takes the layers' inverses.

    Args:
        base: distribution of u, event shape (D,).
        layers: f_1, ..., f_T.
    """

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012 - as torch declares it

    def __init__(self, base: Distribution, layers: Sequence[Layer]):
        self.base, self.layers = base, tuple(layers)
        self.last: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def push(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z of u, and log |det dz/du|."""
        total = u.new_zeros(())
        for layer in self.layers:
            u, log_det = layer.push(u)
            total = total + log_det
        return u, total

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = self.base.rsample(torch.Size(sample_shape))
        z, log_det = self.push(u)
        self.last = z, self.base.log_prob(u) - log_det
        return z

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.push(self.base.sample(torch.Size(sample_shape)))[0]  # a density kept would lack its gradient

    def log_prob(self, value: Tensor) -> Tensor:
        if self.last is not None and value is self.last[0]:
            return self.last[1]
        total = value.new_zeros(())
        for layer in reversed(self.layers):
            value, log_det = layer.pull(value)
            total = total + log_det
        return self.base.log_prob(value) - total


def flow(base: Distribution, layers: Sequence[Layer]) -> Distribution:
    """The base pushed through the layers: the base itself, with all its closed forms, where there are none."""
    return FlowDistribution(base, layers) if layers else base


def check_flow(shape: Shape, num_flows: int) -> int:
    """The D of a latent of shape (D,), or a ValueError for another shape or a negative number of layers."""
    if len(shape) != 1:
        raise ValueError(f"a flow needs a flat latent of shape (D,), got {tuple(shape)}")
    if num_flows < 0:
        raise ValueError(f"num_flows must be >= 0, got {num_flows}")
    return shape[0]


class FlowPosterior(Posterior):
    """N(mu(x), diag sigma(x)^2) pushed through T layers; T = 0 is the diagonal normal.

    Args:
        shape: of the latent, (D,).
        num_flows: T, number of layers; >= 0.
    """

    def __init__(self, shape: Shape, num_flows: int):
        super().__init__()
        self.dim, self.num_flows = check_flow(shape, num_flows), num_flows
        self.base = Normal()

    def layers(self, *params: Tensor) -> list[Layer]:
        """f_1, ..., f_T from the planes beyond mu and log sigma, each (*batch, D)."""
        raise NotImplementedError

    def forward(self, *params: Tensor) -> Distribution:
        loc, log_scale, *rest = params
        return flow(Independent(self.base(loc, log_scale), 1, validate_args=False), self.layers(*rest))

    def code(self, *params: Tensor) -> Tensor:
        """Where the layers take mu: what they make of the mean has no closed form."""
        q = self(*params)
        return q.push(q.base.mean)[0] if isinstance(q, FlowDistribution) else q.mean


class PlanarLayer:
    """f(z) = z + u' tanh(w'z + b): bends space along one direction (Rezende & Mohamed 2015, eq. 10).

    log |det df/dz| = log(1 + (1 - tanh^2(w'z + b)) w.u'), and f is invertible iff w.u' > -1, so that
    the free u is moved along w (their appendix A.1): u' = u + (m(w.u) - w.u) w / |w|^2.
    Their m(x) = -1 + log(1 + e^x) leaves no finite u' at w = 0 and does not make u = 0 the identity;
    this one is as steep, with m(0) = 0, which heals both. It stays above -1 + ``least_slope``.

    Args:
        w: direction that is looked along, (*batch, D).
        u: direction of the move, (*batch, D).
        b: offset, (*batch,).
    """

    least_slope = 1e-3  # along w; near 0, densities have no bound and the inverse no digits

    def __init__(self, w: Tensor, u: Tensor, b: Tensor):
        self.w, self.b = w, b
        along = (w * u).sum(-1)
        shift = math.log(math.expm1(1 - self.least_slope))
        self.slope = self.least_slope + F.softplus(along + shift)  # 1 + w.u', df/dz along w at the bend
        w_per_square = w / (w.square().sum(-1, keepdim=True) + 1e-12)
        self.u = u + (self.slope - 1 - along).unsqueeze(-1) * w_per_square

    def derivative(self, t: Tensor) -> Tensor:
        """1 + (1 - t^2) w.u' for t = tanh(w'z + b), without cancellation."""
        return t.square() + (1 - t.square()) * self.slope

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh((self.w * z).sum(-1) + self.b)
        return z + self.u * t.unsqueeze(-1), self.derivative(t).log()

    def pull(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # a = w'z solves a + w.u' tanh(a + b) = w'y, which rises in a: bisect, then two steps of
        # Newton's, which bring the last digits and the derivative of a with respect to everything.
        target = (self.w * y).sum(-1)
        with torch.no_grad():
            reach = (self.slope - 1).abs()
            low, high = target - reach, target + reach
            for _ in range(30):
                middle = (low + high) / 2
                below = middle + (self.slope - 1) * torch.tanh(middle + self.b) < target
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            a = (low + high) / 2
        for _ in range(2):
            t = torch.tanh(a + self.b)
            a = a - (a + (self.slope - 1) * t - target) / self.derivative(t)
        t = torch.tanh(a + self.b)
        return y - self.u * t.unsqueeze(-1), self.derivative(t).log()


class PlanarPosterior(FlowPosterior):
    """Planar flows whose every parameter comes from the encoder.

    Args:
        shape: of the latent, (D,).
        num_flows: T, number of layers; >= 0.
    """

    def __init__(self, shape: Shape, num_flows: int = 10):
        super().__init__(shape, num_flows)
        self.n_params = 2 + 2 * num_flows + math.ceil(num_flows / self.dim)  # mu, sigma, w and u, b packed

    def layers(self, *params: Tensor) -> list[Layer]:
        T = self.num_flows
        if T == 0:
            return []
        offsets = torch.cat(params[2 * T :], dim=-1).unbind(-1)  # a plane holds D of the scalars
        return [PlanarLayer(w, u, b) for w, u, b in zip(params[:T], params[T : 2 * T], offsets[:T], strict=True)]


class MADE(nn.Module):
    """A masked network (Germain et al. 2015, https://arxiv.org/abs/1502.03509): two outputs for each
    dimension, which depend on the dimensions before it and on a context h.

    A hidden unit of degree k = 0 ... D - 1 sees h and the first k dimensions; the outputs of dimension
    d = 1 ... D see the units of degree < d.

    Args:
        dim: D.
        context_dim: size of h.
        hidden: width of each hidden layer; none makes it linear.
        activation: name of a function in ``torch.nn.functional``.
        backwards: whether the last dimension comes first.
    """

    def __init__(self, dim: int, context_dim: int, hidden: Sequence[int], activation: str, backwards: bool):
        super().__init__()
        self.order = list(reversed(range(dim))) if backwards else list(range(dim))
        places = torch.tensor(self.order) + 1  # each dimension's place in the order: reversal is its own inverse
        degrees = [places, *(torch.arange(width) * dim // width for width in hidden), places.repeat(2)]
        self.layers = nn.ModuleList(nn.Linear(len(a), len(b)) for a, b in pairwise(degrees))
        for i, (a, b) in enumerate(pairwise(degrees)):
            sees = b[:, None] > a if i == len(hidden) else b[:, None] >= a
            self.register_buffer(f"mask{i}", sees.float(), persistent=False)
        self.context = nn.Linear(context_dim, len(degrees[1]), bias=False)
        self.activation = activation_function(activation)
        glorot(self)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """Both outputs, each (..., D), for z (..., D) and h (*batch, context_dim)."""
        added = self.context(h)
        for i, layer in enumerate(self.layers):
            weight = layer.get_parameter("weight") * self.get_buffer(f"mask{i}")
            z = F.linear(z, weight, layer.get_parameter("bias")) + added
            if i < len(self.layers) - 1:
                z, added = self.activation(z), 0.0
        return z.to(torch.promote_types(z.dtype, torch.float32)).chunk(2, dim=-1)


class IAFLayer:
    """y = sigma z + (1 - sigma) m, with m and sigma = sigmoid(s) from what comes before each dimension
    (Kingma et al. 2016, eq. 13-14). log |det dy/dz| = sum_d log sigma_d.

    The network's second output is s - 2: at the start a layer keeps nearly all of z, as the paper
    advises. The inverse is sequential: D passes of the network.

    Args:
        made: the network of m and s.
        h: its context, (*batch, context_dim).
    """

    def __init__(self, made: MADE, h: Tensor):
        self.made, self.h = made, h

    def m_and_s(self, z: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.made(z, self.h)
        return m, s + 2

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.m_and_s(z)
        return torch.sigmoid(s) * z + torch.sigmoid(-s) * m, F.logsigmoid(s).sum(-1)

    def pull(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.zeros_like(y)
        columns = torch.arange(y.shape[-1], device=y.device)
        for d in self.made.order:
            m, s = self.m_and_s(z)
            # 1 / sigma = exp(softplus(-s)). Far from all samples z may grow from each dimension to the next
            # until it overflows: the bounds leave a density of next to nothing, and no NaN.
            found = (y - torch.sigmoid(-s) * m) * F.softplus(-s).clamp(max=30).exp()
            z = torch.where(columns == d, found.clamp(-1e12, 1e12), z)
        return z, F.logsigmoid(self.m_and_s(z)[1]).sum(-1)


class IAFPosterior(FlowPosterior):
    """Inverse autoregressive flows: networks of their own, which the encoder gives a context.

    The order of the dimensions is reversed from each layer to the next.

    Args:
        shape: of the latent, (D,).
        num_flows: T, number of layers; >= 0.
        hidden: width of each hidden layer of each network.
        activation: name of a function in ``torch.nn.functional``.
        context_planes: size of the encoder's context h, in multiples of D; >= 1.
    """

    def __init__(
        self,
        shape: Shape,
        num_flows: int = 4,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        context_planes: int = 1,
    ):
        super().__init__(shape, num_flows)
        if context_planes < 1:
            raise ValueError(f"context_planes must be >= 1, got {context_planes}")
        check_widths("the flow's hidden", hidden)
        self.n_params = 2 + (context_planes if num_flows else 0)
        sizes = self.dim, context_planes * self.dim
        mades = (MADE(*sizes, hidden, activation, backwards=t % 2 == 1) for t in range(num_flows))
        self.mades: Iterable[MADE] = nn.ModuleList(mades)  # type: ignore[assignment]  # which forgets of what

    def layers(self, *params: Tensor) -> list[Layer]:
        return [IAFLayer(made, torch.cat(params, dim=-1)) for made in self.mades]


class AffineCoupling(nn.Module):
    """One part of z stays as it is; the other is scaled and shifted by networks of the first
    (Dinh et al. 2017, eq. 4-5): y_b = z_b exp(s(z_a)) + t(z_a), log |det dy/dz| = sum s(z_a).

    Args:
        dim: D; >= 2.
        hidden: width of each hidden layer of the network of s and t.
        activation: name of a function in ``torch.nn.functional``.
        first_stays: whether z_a is the first half, else the second.
    """

    most = 2.0  # |s| is below it: a layer scales by e^2 at most

    def __init__(self, dim: int, hidden: Sequence[int], activation: str, first_stays: bool):
        super().__init__()
        self.sizes = [dim // 2, dim - dim // 2]
        self.stays = 0 if first_stays else 1
        self.net = MLP([self.sizes[self.stays]], [2 * self.sizes[1 - self.stays]], hidden, activation)
        # Near the identity at first: couplings at full strength scramble what the encoder has to start from.
        nn.init.xavier_uniform_(self.net.layers[-1].get_parameter("weight"), gain=0.01)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_a, z_b, and s and t of z_a."""
        halves = z.split(self.sizes, dim=-1)
        stays, moves = halves[self.stays], halves[1 - self.stays]
        out = self.net(stays.reshape(-1, stays.shape[-1])).reshape(*stays.shape[:-1], -1)
        s, t = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=-1)
        return stays, moves, self.most * torch.tanh(s / self.most), t

    def join(self, stays: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([stays, moved] if self.stays == 0 else [moved, stays], dim=-1)

    def push(self, z: Tensor) -> tuple[Tensor, Tensor]:
        stays, moves, s, t = self.split(z)
        return self.join(stays, moves * s.exp() + t), s.sum(-1)

    def pull(self, y: Tensor) -> tuple[Tensor, Tensor]:
        stays, moved, s, t = self.split(y)
        return self.join(stays, (moved - t) * torch.exp(-s)), s.sum(-1)


class FlowPrior(Prior):
    """p(z): a standard normal pushed through T affine couplings, which keep each half in turn.

    Density and samples both cost one pass (Dinh et al. 2017, https://arxiv.org/abs/1605.08803).

    Args:
        shape: of the latent, (D,) with D >= 2.
        posterior: not used.
        num_flows: T, number of couplings; >= 0. T >= 2 moves every dimension.
        hidden: width of each hidden layer of each coupling's network.
        activation: name of a function in ``torch.nn.functional``.
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        shape: Shape,
        posterior: Conditional | None = None,
        num_flows: int = 8,
        hidden: Sequence[int] = (128,),
        activation: str = "relu",
    ):
        super().__init__(shape)
        dim = check_flow(shape, num_flows)
        if dim < 2:
            raise ValueError(f"a coupling splits the latent in two: latent_dim must be >= 2, got {dim}")
        check_widths("the flow's hidden", hidden)
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)
        couplings = (AffineCoupling(dim, hidden, activation, first_stays=t % 2 == 0) for t in range(num_flows))
        self.couplings: Iterable[AffineCoupling] = nn.ModuleList(couplings)  # type: ignore[assignment]

    def forward(self, context: Tensor | None = None) -> Distribution:
        base = Independent(TorchNormal(self.loc, self.scale, validate_args=False), 1, validate_args=False)
        return flow(base, list(self.couplings))
