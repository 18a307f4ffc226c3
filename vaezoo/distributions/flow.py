"""Normalizing flows: a base distribution transformed by invertible layers.

With u from the base distribution and z = f_T(... f_1(u)), log p(z) = log p(u) - sum_t log |det df_t|.
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
    """An invertible map f of the last dimension. Parameters that depend on x broadcast against the batch of z."""

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f(z), (..., D), and log |det df/dz|, (...)."""

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return z = f^-1(y), (..., D), and log |det df/dz| at this z, (...)."""


class FlowDistribution(Distribution):
    """The distribution of z = f_T(... f_1(u)) for u ~ base. Its mean and its KL have no closed form.

    The log density of the last sample is stored, so ``log_prob`` of this tensor costs nothing. For another tensor,
    ``log_prob`` applies the inverse layers.

    >>> from torch.distributions import Independent, Normal
    >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
    >>> shift = PlanarLayer(w=torch.tensor([1.0, 0.0]), u=torch.tensor([0.0, 1.0]), b=torch.tensor(0.0))
    >>> q = FlowDistribution(base, [shift])
    >>> z = q.rsample((5,))
    >>> torch.allclose(q.log_prob(z), q.log_prob(z.clone()), atol=1e-5)
    True

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
        """Return z for u, (..., D), and log |det dz/du|, (...)."""
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
        # The density is not stored: it would have no gradient.
        return self.forward(self.base.sample(torch.Size(sample_shape)))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        if self.last_sample is not None and value is self.last_sample[0]:
            return self.last_sample[1]
        total = value.new_zeros(())
        for layer in reversed(self.layers):
            value, log_det = layer.inverse(value)
            total = total + log_det
        return self.base.log_prob(value) - total


def make_flow(base: Distribution, layers: Sequence[FlowLayer]) -> Distribution:
    """Return the base transformed by the layers, or if there are no layers, the base with its closed forms."""
    return FlowDistribution(base, layers) if layers else base


def check_flow_shape(shape: Shape, num_flows: int) -> int:
    """Return the D of a latent of shape (D,).

    Raises:
        ValueError: the latent has another shape, or the number of layers is negative.
    """
    if len(shape) != 1:
        raise ValueError(f"a flow needs a latent of shape (D,), got {tuple(shape)}: use another posterior or prior")
    if num_flows < 0:
        raise ValueError(f"num_flows must be >= 0, got {num_flows}")
    return shape[0]


class PlanarLayer:
    """The planar layer f(z) = z + u' tanh(w'z + b).

    log |det df/dz| = log(1 + (1 - tanh^2(w'z + b)) w.u'), and f is invertible if and only if w.u' > -1. Therefore a
    free vector u is corrected along w: u' = u + (m(w.u) - w.u) w / |w|^2 with m(x) > -1.

    Reference: Rezende & Mohamed 2015, Variational Inference with Normalizing Flows, https://arxiv.org/abs/1505.05770,
    eq. 10 and appendix A.1. Differs from the paper: their m(x) = -1 + log(1 + e^x) has m(0) != 0, so u' is infinite at
    w = 0 and u = 0 is not the identity. Here m has the same form, but m(0) = 0 and m > -1 + ``min_slope``.

    Args:
        w: direction that decides how far z moves, (*batch, D).
        u: direction in which z moves, (*batch, D).
        b: offset, (*batch,).
    """

    min_slope = 1e-3  # of f along w: near 0, the density has no bound and the inverse loses its digits

    def __init__(self, w: Tensor, u: Tensor, b: Tensor):
        self.w, self.b = w, b
        along = (w * u).sum(-1)
        shift = math.log(math.expm1(1 - self.min_slope))
        self.slope = self.min_slope + F.softplus(along + shift)  # 1 + w.u': df/dz along w, where w'z + b = 0
        w_per_square = w / (w.square().sum(-1, keepdim=True) + 1e-12)
        self.u = u + (self.slope - 1 - along).unsqueeze(-1) * w_per_square

    def derivative(self, t: Tensor) -> Tensor:
        """Return 1 + (1 - t^2) w.u' for t = tanh(w'z + b), in a form in which no digits cancel."""
        return t.square() + (1 - t.square()) * self.slope

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.tanh((self.w * z).sum(-1) + self.b)
        return z + self.u * t.unsqueeze(-1), self.derivative(t).log()

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        # a = w'z solves a + w.u' tanh(a + b) = w'y, whose left side increases with a. Bisection finds a; two steps of
        # Newton's method add the last digits, and the derivatives of a with respect to y, w, u and b.
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
    """The inverse autoregressive layer y = sigma z + (1 - sigma) m with sigma = sigmoid(s).

    m and s of a dimension are functions of the dimensions before it. log |det dy/dz| = sum_d log sigma_d. The second
    output of the network is s - 2: at the start of training a layer keeps most of z, as the paper advises. The inverse
    needs D passes of the network.

    Reference: Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow,
    https://arxiv.org/abs/1606.04934, eq. 13 and 14.

    Args:
        made: the network that computes m and s - 2.
        h: the context of the network, (*batch, context_dim).
    """

    def __init__(self, made: "MADE", h: Tensor):
        self.made, self.h = made, h

    def m_and_s(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return m and s, each (..., D)."""
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
            # 1 / sigma = exp(softplus(-s)). Far from all samples, z may grow from dimension to dimension until it
            # overflows. The bounds prevent NaN; the density there is nearly 0.
            found = (y - torch.sigmoid(-s) * m) * F.softplus(-s).clamp(max=30).exp()
            z = torch.where(columns == d, found.clamp(-1e12, 1e12), z)
        return z, F.logsigmoid(self.m_and_s(z)[1]).sum(-1)
