"""Normalizing flows: distributions transformed by invertible layers.

With u from a base distribution and z = f_T(... f_1(u)), log p(z) = log p(u) - sum_t log |det df_t|.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.types import Shape

if TYPE_CHECKING:
    from vaezoo.nets import MADE


class FlowLayer(Protocol):
    """An invertible map f of the last dimension; parameters that depend on x broadcast against the others."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """f(z), shape (..., D), and log |det df/dz|, shape (...)."""

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
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

    def __init__(self, base: Distribution, layers: Sequence[FlowLayer]):
        self.base, self.layers = base, tuple(layers)
        self.last_sample: tuple[Tensor, Tensor] | None = None
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """z of u, and log |det dz/du|."""
        total = u.new_zeros(())
        for layer in self.layers:
            u, log_det = layer.forward(u)
            total = total + log_det
        return u, total

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = self.base.rsample(torch.Size(sample_shape))
        z, log_det = self.forward(u)
        self.last_sample = z, self.base.log_prob(u) - log_det
        return z

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.forward(self.base.sample(torch.Size(sample_shape)))[0]  # a density kept would lack its gradient

    def log_prob(self, value: Tensor) -> Tensor:
        if self.last_sample is not None and value is self.last_sample[0]:
            return self.last_sample[1]
        total = value.new_zeros(())
        for layer in reversed(self.layers):
            value, log_det = layer.inverse(value)
            total = total + log_det
        return self.base.log_prob(value) - total


def make_flow(base: Distribution, layers: Sequence[FlowLayer]) -> Distribution:
    """The base pushed through the layers: the base itself, with all its closed forms, where there are none."""
    return FlowDistribution(base, layers) if layers else base


def check_flow_shape(shape: Shape, num_flows: int) -> int:
    """The D of a latent of shape (D,), or a ValueError for another shape or a negative number of layers."""
    if len(shape) != 1:
        raise ValueError(f"a flow needs a flat latent of shape (D,), got {tuple(shape)}")
    if num_flows < 0:
        raise ValueError(f"num_flows must be >= 0, got {num_flows}")
    return shape[0]


class PlanarLayer:
    """f(z) = z + u' tanh(w'z + b): bends space along one direction (Rezende & Mohamed 2015, eq. 10).

    log |det df/dz| = log(1 + (1 - tanh^2(w'z + b)) w.u'), and f is invertible iff w.u' > -1, so that
    the free u is moved along w (their appendix A.1): u' = u + (m(w.u) - w.u) w / |w|^2.
    Their m(x) = -1 + log(1 + e^x) leaves no finite u' at w = 0 and does not make u = 0 the identity;
    this one is as steep, with m(0) = 0, which heals both. It stays above -1 + ``min_slope``.

    Args:
        w: direction that is looked along, (*batch, D).
        u: direction of the move, (*batch, D).
        b: offset, (*batch,).
    """

    min_slope = 1e-3  # along w; near 0, densities have no bound and the inverse no digits

    def __init__(self, w: Tensor, u: Tensor, b: Tensor):
        self.w, self.b = w, b
        along = (w * u).sum(-1)
        shift = math.log(math.expm1(1 - self.min_slope))
        self.slope = self.min_slope + F.softplus(along + shift)  # 1 + w.u', df/dz along w at the bend
        w_per_square = w / (w.square().sum(-1, keepdim=True) + 1e-12)
        self.u = u + (self.slope - 1 - along).unsqueeze(-1) * w_per_square

    def derivative(self, t: Tensor) -> Tensor:
        """1 + (1 - t^2) w.u' for t = tanh(w'z + b), without cancellation."""
        return t.square() + (1 - t.square()) * self.slope

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh((self.w * z).sum(-1) + self.b)
        return z + self.u * t.unsqueeze(-1), self.derivative(t).log()

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
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


class IAFLayer:
    """y = sigma z + (1 - sigma) m, with m and sigma = sigmoid(s) from what comes before each dimension
    (Kingma et al. 2016, eq. 13-14). log |det dy/dz| = sum_d log sigma_d.

    The network's second output is s - 2: at the start a layer keeps nearly all of z, as the paper
    advises. The inverse is sequential: D passes of the network.

    Args:
        made: the network of m and s.
        h: its context, (*batch, context_dim).
    """

    def __init__(self, made: "MADE", h: Tensor):
        self.made, self.h = made, h

    def m_and_s(self, z: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.made(z, self.h)
        return m, s + 2

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        m, s = self.m_and_s(z)
        return torch.sigmoid(s) * z + torch.sigmoid(-s) * m, F.logsigmoid(s).sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.zeros_like(y)
        columns = torch.arange(y.shape[-1], device=y.device)
        for d in self.made.order:
            m, s = self.m_and_s(z)
            # 1 / sigma = exp(softplus(-s)). Far from all samples z may grow from each dimension to the next
            # until it overflows: the bounds leave a density of next to nothing, and no NaN.
            found = (y - torch.sigmoid(-s) * m) * F.softplus(-s).clamp(max=30).exp()
            z = torch.where(columns == d, found.clamp(-1e12, 1e12), z)
        return z, F.logsigmoid(self.m_and_s(z)[1]).sum(-1)
