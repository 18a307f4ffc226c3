"""Posteriors that are made of several normal experts: their product, and mixtures of products."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from vaezoo.distributions.parameters import get_parameters


class ExpertProduct(Independent):
    """The normal q(z | x) that is a product of experts, with the posteriors of each part of x by itself.

    Attributes:
        singles: q(z | x_m), the posterior given part m alone, batch shape (*batch, M).
        observed: whether part m is observed, (*batch, M).
    """

    singles: Independent
    observed: Tensor

    @classmethod
    def make(cls, loc: Tensor, scale: Tensor, singles: Independent, observed: Tensor) -> "ExpertProduct":
        """Return the product N(loc, diag scale^2), (*batch, D), with the posteriors of the parts."""
        q = cls(Normal(loc, scale, validate_args=False), 1, validate_args=False)
        q.singles, q.observed = singles, observed
        return q


class ExpertMixture(Distribution):
    """A mixture of C diagonal normals with equal weights, some of which may be absent.

        q(z) = 1 / C' sum_c N(z; loc_c, diag scale_c^2),  with c over the C' components that are present

    ``rsample`` is stratified: the K samples take the components in turn, from a random first one. So each sample by
    itself has the density q, and if C' divides K, each component has K / C' samples. For any K, a mean over the samples
    is an unbiased estimate of an expectation under q, with less variance than that of independent samples.

    >>> q = ExpertMixture(torch.tensor([[[-9.0], [9.0]]]), torch.ones(1, 2, 1), torch.tensor([[True, True]]))
    >>> z = q.rsample(torch.Size([4]))
    >>> int((z > 0).sum()), float(q.mean)
    (2, 0.0)

    Args:
        loc: means of the components, (*batch, C, D).
        scale: standard deviations of the components, (*batch, C, D).
        present: whether a component is present, (*batch, C); at least one is.
    """

    has_rsample = True

    def __init__(self, loc: Tensor, scale: Tensor, present: Tensor):
        self.loc, self.scale, self.present = loc, scale, present
        super().__init__(loc.shape[:-2], loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        dims = len(self.batch_shape)
        tensors = (self.loc, self.scale, self.present)
        return ExpertMixture(*(tensor.expand(*batch_shape, *tensor.shape[dims:]) for tensor in tensors))

    @property
    def num_present(self) -> Tensor:
        """C', (*batch,)."""
        return self.present.sum(-1)

    @property
    def mean(self) -> Tensor:
        return (self.loc * self.present.unsqueeze(-1)).sum(-2) / self.num_present.unsqueeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        parts = Normal(self.loc, self.scale, validate_args=False).log_prob(value.unsqueeze(-2)).sum(-1)
        log_p = parts.masked_fill(~self.present, -torch.inf).logsumexp(-1)
        return log_p - self.num_present.to(log_p.dtype).log()

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape, num = torch.Size(sample_shape), torch.Size(sample_shape).numel()
        count = self.num_present
        first = (torch.rand(count.shape, device=count.device) * count).long().clamp(max=count - 1)
        turn = torch.arange(num, device=count.device).reshape(-1, *[1] * count.dim())
        order = self.present.logical_not().long().sort(dim=-1, stable=True).indices  # those that are present come first
        place = ((first + turn) % count).unsqueeze(-1)  # (K, *batch, 1)
        chosen = order.expand(num, *order.shape).gather(-1, place).unsqueeze(-1)
        index = chosen.expand(*chosen.shape[:-1], self.loc.shape[-1])
        loc, scale = (t.expand(num, *t.shape).gather(-2, index).squeeze(-2) for t in (self.loc, self.scale))
        return (loc + scale * torch.randn_like(loc)).reshape(*shape, *loc.shape[1:])


@get_parameters.register
def _(q: ExpertMixture) -> dict[str, Tensor]:
    return {"loc": q.loc, "scale": q.scale, "present": q.present}
