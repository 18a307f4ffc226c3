"""Families of 8-bit data, k / 255 for k = 0 ... 255: masses, so bits per dimension follow."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution, MixtureSameFamily

from vaezoo.families.base import Family, bisect, soft_floor


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
        return DiscretizedLogisticDistribution(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))

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


class MixtureOfDiscretizedLogistics(Family):
    """sum_i pi_i DiscretizedLogistic(loc_i, scale_i), for each pixel and channel by itself.

    The likelihood of PixelCNN++ (Salimans et al. 2017, https://arxiv.org/abs/1701.05517, eq. 2), except
    that theirs also lets the means of green and blue depend on the channels before: colours are not
    coupled here. With one component it is ``DiscretizedLogistic``.

    Args:
        num_components: >= 1.
        min_log_scale: floor of each log scale, in units of the data range.
    """

    scores = frozenset({"byte"})

    def __init__(self, num_components: int = 10, min_log_scale: float = -7.0):
        super().__init__()
        if num_components < 1:
            raise ValueError(f"num_components must be >= 1, got {num_components}")
        self.num_components, self.min_log_scale = num_components, min_log_scale
        self.n_params = 3 * num_components  # all weights' logits, then all locations, then all log scales

    def forward(self, *params: Tensor) -> MixtureSameFamily:
        n = self.num_components
        logits, loc, log_scale = (torch.stack(params[i : i + n], -1) for i in (0, n, 2 * n))
        component = DiscretizedLogisticDistribution(loc, soft_floor(log_scale, self.min_log_scale))
        weights = TorchCategorical(logits=logits, validate_args=False)
        return MixtureSameFamily(weights, component, validate_args=False)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        same = [torch.zeros_like(mean)] * self.num_components
        loc, log_scale = mean, torch.full_like(mean, -2.0)  # as the single logistic; the network parts them
        return (*same, *[loc] * self.num_components, *[log_scale] * self.num_components)


class CategoricalDistribution(Distribution):
    """A free mass on each of the levels k / (n - 1), k = 0 ... n - 1.

    Args:
        logits: (*batch, n).
    """

    def __init__(self, logits: Tensor):
        self.levels = TorchCategorical(logits=logits, validate_args=False)
        self.top = logits.shape[-1] - 1
        super().__init__(logits.shape[:-1], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        logits = self.levels.logits
        return CategoricalDistribution(logits.expand(*batch_shape, logits.shape[-1]))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.levels.log_prob((value * self.top).round())

    @property
    def mean(self) -> Tensor:
        probs = self.levels.probs
        levels = torch.linspace(0, 1, self.top + 1, dtype=probs.dtype, device=probs.device)
        return (probs * levels).sum(-1)  # no matrix product: autocast would round it to bf16

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.levels.sample(torch.Size(sample_shape)).to(self.levels.logits.dtype) / self.top


class Categorical(Family):
    """A softmax over the 256 levels of 8-bit data, for each pixel and channel by itself.

    The most general elementwise mass (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759,
    section 3.4), which knows nothing of the order of the levels; the network emits 256 planes.
    """

    n_params = 256
    scores = frozenset({"byte"})

    def forward(self, *params: Tensor) -> CategoricalDistribution:
        return CategoricalDistribution(torch.stack(params, -1))

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        # Logits linear in the level: of all masses with this mean that of the most entropy. At the
        # limits the mean is 0.02 and 0.98, so that no level is all but excluded at the start.
        levels = torch.linspace(0, 1, self.n_params, dtype=mean.dtype, device=mean.device)
        slope = bisect(lambda slope: CategoricalDistribution(slope[..., None] * levels).mean, mean, limit=50.0)
        return (slope[..., None] * levels).unbind(-1)
