"""Distributions of a vector of counts given their sum, the total."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.distributions.counts import NegativeBinomialDistribution, ZeroInflatedDistribution
from vaezoo.distributions.numerics import accumulation_dtype


class CountsGivenTotal(Distribution):
    """The base class: p(x | l) of a vector of counts x (D,) with expected counts l * shares, l = sum_d x_d.

    ``log_prob(x)`` takes l from x. ``mean`` and ``sample`` have no x: a sample has one of the ``totals`` as its l, each
    with the same probability, and ``mean`` is the mean over them. ``with_total`` sets l.

    Args:
        log_shares: logarithms of shares that sum to 1, (*batch, D).
        totals: totals to choose from, (Q,), or (*batch, Q) for each element of the batch others.
    """

    def __init__(self, log_shares: Tensor, totals: Tensor):
        self.log_shares, self.totals = log_shares, totals
        super().__init__(log_shares.shape[:-1], log_shares.shape[-1:], validate_args=False)

    @abstractmethod
    def make(self, log_shares: Tensor, totals: Tensor) -> Self:
        """Return a distribution with other shares and totals."""

    @abstractmethod
    def log_prob_of(self, x: Tensor, total: Tensor) -> Tensor:
        """Return log p(x | l), (*batch,), of x (*batch, D) and l (*batch, 1), both in the type of sums; l >= 1."""

    @abstractmethod
    def sample_given(self, total: Tensor) -> Tensor:
        """Return draws (*shape, D), int64, for totals (*shape, 1); shape is that of the batch after other axes."""

    def expand(self, batch_shape, _instance=None):
        return self.make(self.log_shares.expand(*batch_shape, -1), self.totals)

    def with_total(self, total: Tensor) -> Self:
        """Return p(x | l) for this l, (*batch,) or a shape that broadcasts against it."""
        return self.make(self.log_shares, total[..., None])

    def log_prob(self, value: Tensor) -> Tensor:
        x = value.to(accumulation_dtype(self.log_shares))
        total = x.sum(-1, keepdim=True)
        # Of an x without any count, nothing is left to score.
        log_p = torch.where(total[..., 0] > 0, self.log_prob_of(x, total.clamp(min=1)), 0)
        return log_p.to(self.log_shares.dtype)

    @property
    def mean_total(self) -> Tensor:
        """The mean of the totals, (1,) or (*batch, 1)."""
        # A node of the name "mean" would clash with the output of this name in an exported graph.
        return self.totals.to(self.log_shares.dtype).sum(-1, keepdim=True) / self.totals.shape[-1]

    @property
    def mean(self) -> Tensor:
        return self.mean_total * self.log_shares.exp()

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))[:-1]
        index = torch.randint(self.totals.shape[-1], (*shape, 1), device=self.totals.device)
        return self.sample_given(self.totals.expand(*shape, -1).gather(-1, index))


class MultinomialGivenTotal(CountsGivenTotal):
    """The multinomial distribution, with its coefficient.

    log p(x | l) = ln l! - sum_d ln x_d! + sum_d x_d ln share_d
    """

    def make(self, log_shares: Tensor, totals: Tensor) -> Self:
        return type(self)(log_shares, totals)

    def log_prob_of(self, x: Tensor, total: Tensor) -> Tensor:
        log_ways = torch.lgamma(total[..., 0] + 1) - torch.lgamma(x + 1).sum(-1)
        return log_ways + (x * self.log_shares.to(x.dtype)).sum(-1)

    def sample_given(self, total: Tensor) -> Tensor:
        shares = self.log_shares.exp().expand(*total.shape[:-1], -1)
        rows, totals = shares.reshape(-1, shares.shape[-1]), total.reshape(-1, 1).long()
        most = int(totals.max()) if len(totals) else 0
        if most == 0:
            return shares.new_zeros(shares.shape, dtype=torch.long)
        drawn = torch.multinomial(rows, most, replacement=True)
        counted = (torch.arange(most, device=rows.device) < totals).long()
        return torch.zeros_like(rows, dtype=torch.long).scatter_add(1, drawn, counted).reshape(shares.shape)


class NegativeBinomialGivenTotal(CountsGivenTotal):
    """Negative binomials with the means l * share_d, independent given l, optionally with additional zeros.

    The sum of a sample is l in expectation only. So the probabilities of all x with the sum l add up to less than 1,
    and log p(x | l) is below that of a model of x given its sum, such as the multinomial.

    Args:
        log_shares: logarithms of shares that sum to 1, (*batch, D).
        totals: totals to choose from, (Q,) or (*batch, Q).
        log_dispersion: ln theta of each dimension, a shape that broadcasts against ``log_shares``.
        zero_logits: logits of the probability that a count is 0 for another reason, as ``log_shares``; None: there is
            no such reason.
    """

    def __init__(self, log_shares: Tensor, totals: Tensor, log_dispersion: Tensor, zero_logits: Tensor | None = None):
        self.log_dispersion, self.zero_logits = log_dispersion, zero_logits
        super().__init__(log_shares, totals)

    def make(self, log_shares: Tensor, totals: Tensor) -> Self:
        return type(self)(log_shares, totals, self.log_dispersion, self.zero_logits)

    def counts(self, total: Tensor) -> Distribution:
        """Return the distribution of each count given l, (*shape, D), for totals (*shape, 1)."""
        base = NegativeBinomialDistribution(total.log() + self.log_shares, self.log_dispersion)
        return base if self.zero_logits is None else ZeroInflatedDistribution(base, self.zero_logits)

    def log_prob_of(self, x: Tensor, total: Tensor) -> Tensor:
        return self.counts(total).log_prob(x).sum(-1)

    def sample_given(self, total: Tensor) -> Tensor:
        return self.counts(total.to(self.log_shares.dtype)).sample()

    @property
    def mean(self) -> Tensor:
        return self.counts(self.mean_total).mean
