"""Distributions of categories 0 ... V - 1, as integers."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Distribution


class IndexCategoricalDistribution(TorchCategorical):
    """torch's ``Categorical``, represented by its most probable category: ``mean`` is the ``mode``.

    Numbers of categories have no mean. Pictures, tables and reconstructions show ``mean``, a possible value here.

    Args:
        logits: unnormalized log probabilities, (*batch, V).
    """

    def __init__(self, logits: Tensor):
        super().__init__(logits=logits, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return IndexCategoricalDistribution(self.logits.expand(*batch_shape, self.logits.shape[-1]))

    @property
    def mean(self) -> Tensor:
        return self.mode

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError("numbers of categories have no variance")


class ColumnsDistribution(Distribution):
    """An elementwise distribution over columns that are of several kinds: one distribution for each group of columns.

    Args:
        parts: distributions, each (*batch, k_i) for a group of k_i columns.
        columns: for each part, the indices of its columns in x, (k_i,).
        order: for each column, its place in the concatenated groups, (k,).
    """

    def __init__(self, parts: Sequence[Distribution], columns: Sequence[Tensor], order: Tensor):
        self.parts, self.columns, self.order = parts, columns, order
        super().__init__(torch.Size([*parts[0].batch_shape[:-1], len(order)]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        parts = [part.expand((*batch_shape[:-1], part.batch_shape[-1])) for part in self.parts]
        return ColumnsDistribution(parts, self.columns, self.order)

    def in_order(self, values: Sequence[Tensor]) -> Tensor:
        """Concatenate values of the groups, each (*batch, k_i), in the order of the columns, (*batch, k)."""
        return torch.cat(list(values), -1).index_select(-1, self.order)

    def log_prob(self, value: Tensor) -> Tensor:
        groups = zip(self.parts, self.columns, strict=True)
        return self.in_order([part.log_prob(value.index_select(-1, columns)) for part, columns in groups])

    @property
    def mean(self) -> Tensor:
        return self.in_order([part.mean for part in self.parts])

    @property
    def mode(self) -> Tensor:
        return self.in_order([part.mode for part in self.parts])

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.in_order([part.sample(torch.Size(sample_shape)) for part in self.parts])
