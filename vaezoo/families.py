"""Families: raw network outputs -> a distribution.

A family says how many planes of numbers the network must emit (``n_params``) and which data it can
score (``scores``); posterior and likelihood are the same concept used twice. Those here are
elementwise; posteriors whose dimensions depend on each other are in ``vaezoo.posteriors`` and
``vaezoo.flows``. Data are one of

* ``binary``: 0 or 1;
* ``byte``: k / 255 for k = 0 ... 255, as an 8-bit image;
* ``unit``: any number in [0, 1];
* ``real``: any number.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution
from torch.distributions import Normal as TorchNormal


class Family(nn.Module):
    """n raw tensors of one shape -> a distribution over that shape, elementwise or joint.

    Attributes:
        n_params: planes the network must emit.
        scores: the kinds of data that ``log_prob`` is a proper density or mass for.
    """

    n_params: int = 1
    scores: frozenset[str] = frozenset({"byte", "unit", "real"})

    @abstractmethod
    def forward(self, *params: Tensor) -> Distribution:
        """The distribution whose parameters are ``params``, each (*batch, *event).

        Its batch shape is theirs where it is elementwise, else (*batch,).
        """

    @abstractmethod
    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        """Raw parameters of a distribution with this mean, or one near it: where training starts.

        Likelihoods alone need it.
        """

    def code(self, *params: Tensor) -> Tensor:
        """One point that stands for the distribution, (*batch, *event): its mean where it has one."""
        return self(*params).mean

    def check(self, x: Tensor) -> None:
        """Raise a ValueError for data that this family cannot score; too slow for a training step."""
        if self.scores == {"binary"} and not ((x == 0) | (x == 1)).all():
            raise ValueError(f"{type(self).__name__} scores 0 and 1 alone, got values in [{x.min()}, {x.max()}]")
        if "real" not in self.scores and not ((x >= 0) & (x <= 1)).all():
            raise ValueError(f"{type(self).__name__} scores values in [0, 1], got [{x.min()}, {x.max()}]")


def soft_floor(x: Tensor, floor: float) -> Tensor:
    """A smooth max(x, floor): the identity well above it, and never without a gradient."""
    return floor + F.softplus(x - floor)


class Normal(Family):
    """N(loc, scale^2), both from the network: the diagonal Gaussian posterior, or a decoder with a
    scale per pixel.

    The second plane is log scale, with a soft floor: on data with constant pixels the likelihood
    has no upper bound, and what is reported depends on the floor.

    Args:
        min_log_scale: floor of log scale.
    """

    n_params = 2

    def __init__(self, min_log_scale: float = -7.0):
        super().__init__()
        self.min_log_scale = min_log_scale

    def forward(self, *params: Tensor) -> TorchNormal:
        loc, log_scale = params
        scale = soft_floor(log_scale, self.min_log_scale).exp()
        return TorchNormal(loc, scale, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return mean, torch.full_like(mean, -1.0)  # a scale of 0.37: data lie in [0, 1]


class FixedScaleNormal(Family):
    """N(loc, scale^2) with one fixed scale: squared error, in nats, with its constant.

    Args:
        scale: standard deviation, in the units of the data; > 0.
    """

    def __init__(self, scale: float = 0.1):
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"the normal likelihood's scale must be > 0 and finite, got {scale}")
        self.scale = scale

    def forward(self, *params: Tensor) -> TorchNormal:
        (loc,) = params
        return TorchNormal(loc, torch.full_like(loc, self.scale), validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (mean,)


class SharedScaleNormal(Family):
    """N(loc, scale^2) with one scale for all dimensions, learned by gradient.

    Args:
        initial_scale: standard deviation at the start; > 0.
        min_log_scale: floor of log scale.
    """

    def __init__(self, initial_scale: float = 1.0, min_log_scale: float = -7.0):
        super().__init__()
        if not math.exp(min_log_scale) < initial_scale < math.inf:
            raise ValueError(
                f"the normal likelihood's initial scale must be above its floor exp({min_log_scale}) and finite, "
                f"got {initial_scale}"
            )
        self.min_log_scale = min_log_scale
        above = math.log(initial_scale) - min_log_scale
        self.log_scale = nn.Parameter(torch.tensor(min_log_scale + math.log(math.expm1(above))))  # soft_floor's inverse

    def forward(self, *params: Tensor) -> TorchNormal:
        (loc,) = params
        scale = soft_floor(self.log_scale, self.min_log_scale).exp()
        return TorchNormal(loc, scale.expand_as(loc), validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (mean,)


class Bernoulli(Family):
    """Bernoulli(sigmoid(logit)): for binary data alone. On grey data its cross-entropy is no
    likelihood (choose ``ContinuousBernoulli`` or ``DiscretizedLogistic``, or binarise).
    """

    scores = frozenset({"binary"})

    def forward(self, *params: Tensor) -> TorchBernoulli:
        (logits,) = params
        return TorchBernoulli(logits=logits, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return (torch.logit(mean, eps=1e-3),)  # the clip of Burda et al. 2016


class ContinuousBernoulliDistribution(Distribution):
    """Density C(p) p^x (1 - p)^(1 - x) on [0, 1], in the logit l of p.

    In l the normaliser C = 2 atanh(1 - 2p) / (1 - 2p) is l / tanh(l / 2), exact for every l; torch's
    own class works in p, which saturates at 1 - 1e-7 (0.9 nats short per pixel at l = 40). Around
    l = 0 closed forms are 0 / 0: they are evaluated away from it, and a series is taken there.
    """

    has_rsample = True
    small = 0.02

    def __init__(self, logits: Tensor):
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return ContinuousBernoulliDistribution(self.logits.expand(batch_shape))

    def size(self, least: float) -> Tensor:
        """|l|, with 1 in place of what is below ``least``."""
        size = self.logits.abs()
        return torch.where(size < least, torch.ones_like(size), size)

    def log_prob(self, value: Tensor) -> Tensor:
        s, square = self.size(self.small), self.logits.square()
        series = math.log(2) + square / 12 - 7 * square.square() / 1440
        log_norm = torch.where(self.logits.abs() < self.small, series, torch.log(s / torch.tanh(s / 2)))
        return value * self.logits - F.softplus(self.logits) + log_norm

    @property
    def mean(self) -> Tensor:
        """1 / (1 - exp(-l)) - 1 / l, and 1 minus that of -l."""
        s, logits = self.size(self.small), self.logits
        series = 0.5 + logits / 12 - logits.pow(3) / 720
        upper = -1 / torch.expm1(-s) - 1 / s
        return torch.where(logits.abs() < self.small, series, torch.where(logits > 0, upper, 1 - upper))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantiles of the truncated exponential, -log(1 - u (1 - exp(-s))) / s, mirrored for l > 0."""
        s, positive = self.size(1e-6), self.logits > 0
        u = torch.where(positive, 1 - value, value)
        x = (-torch.log1p(u * torch.expm1(-s)) / s).clamp(0, 1)  # rounding may leave [0, 1]
        x = torch.where(self.logits.abs() < 1e-6, u, x)
        return torch.where(positive, 1 - x, x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))


class ContinuousBernoulli(Family):
    """Continuous Bernoulli on [0, 1] (Loaiza-Ganem & Cunningham 2019, https://arxiv.org/abs/1907.06845):
    p(x) = C(p) p^x (1 - p)^(1 - x), the normalised form of cross-entropy on grey pixels.
    """

    scores = frozenset({"byte", "unit"})

    def forward(self, *params: Tensor) -> ContinuousBernoulliDistribution:
        (logits,) = params
        return ContinuousBernoulliDistribution(logits)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        # The mean has no inverse in closed form, but it rises with the logit: bisect. The bounds are
        # the logits whose means are 0.02 and 0.98.
        low, high = torch.full_like(mean, -50.0), torch.full_like(mean, 50.0)
        for _ in range(40):
            middle = (low + high) / 2
            below = self(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return ((low + high) / 2,)


class DiscretizedLogisticDistribution(Distribution):
    """A logistic distribution rounded to the grid k / 255, k = 0 ... 255; the ends take the tails.

    With edges a < b of the bin in units of the scale, the mass is
    sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): the product form keeps its
    digits where the difference has none left (Kingma et al. 2016, https://arxiv.org/abs/1606.04934).
    """

    bins = 256

    def __init__(self, loc: Tensor, log_scale: Tensor):
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return DiscretizedLogisticDistribution(
            self.loc.expand(batch_shape), self.log_scale.expand(batch_shape)
        )

    def log_prob(self, value: Tensor) -> Tensor:
        step = 1 / (self.bins - 1)
        inverse_scale = torch.exp(-self.log_scale)
        centre = value - self.loc
        lowest, highest = value < step / 2, value > 1 - step / 2  # their outer edges lie at infinity
        a = torch.where(lowest, -torch.inf, (centre - step / 2) * inverse_scale)
        b = torch.where(highest, torch.inf, (centre + step / 2) * inverse_scale)
        width = torch.where(lowest | highest, torch.inf, step * inverse_scale)
        return F.logsigmoid(b) + F.logsigmoid(-a) + torch.log(-torch.expm1(-width))

    @property
    def mean(self) -> Tensor:
        """The mean of the rounded variable: sum over k of P(X > k / 255) / 255."""
        step = 1 / (self.bins - 1)
        total = torch.zeros_like(self.loc)
        for k in range(self.bins - 1):
            total = total + torch.sigmoid((self.loc - (k + 0.5) * step) * torch.exp(-self.log_scale))
        return total * step

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device)
        x = self.loc + self.log_scale.exp() * torch.logit(u, eps=torch.finfo(u.dtype).eps)
        top = self.bins - 1
        return (x * top).round().clamp(0, top) / top


class DiscretizedLogistic(Family):
    """Discretised logistic over the 256 levels of 8-bit data: a mass, so bits per dimension follow.

    Args:
        min_log_scale: floor of log scale, in units of the data range.
    """

    n_params = 2
    scores = frozenset({"byte"})

    def __init__(self, min_log_scale: float = -7.0):
        super().__init__()
        self.min_log_scale = min_log_scale

    def forward(self, *params: Tensor) -> DiscretizedLogisticDistribution:
        loc, log_scale = params
        return DiscretizedLogisticDistribution(loc, soft_floor(log_scale, self.min_log_scale))

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        return mean, torch.full_like(mean, -2.0)  # a scale of 0.14, not of the whole range
