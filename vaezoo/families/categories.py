"""Families of categories 0 ... V - 1, as integers: nominal and ordinal, and for the columns of a table."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import accumulate, chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.distributions import ColumnsDistribution, IndexCategoricalDistribution
from vaezoo.distributions.numerics import inverse_soft_floor
from vaezoo.families.base import Family
from vaezoo.missing import is_observed
from vaezoo.types import Shape


class CategoryFamily(Family):
    """The base class of families of categories 0 ... V - 1, elementwise.

    Training starts from the frequencies of the categories in the data, with one additional example that is spread over
    all categories. If there are no data, all categories have the same probability.

    Args:
        num_categories: V; >= 2.
    """

    def __init__(self, num_categories: int):
        super().__init__()
        if num_categories < 2:
            raise ValueError(f"the number of categories must be >= 2, got {num_categories}")
        self.num_categories = num_categories

    @abstractmethod
    def params_for_probs(self, probs: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters of a distribution with these probabilities, (*shape, V)."""

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters of the uniform distribution: the mean of categories says nothing."""
        return self.params_for_probs(mean.new_full((*mean.shape, self.num_categories), 1 / self.num_categories))

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return the raw parameters with the frequencies of the observed categories in x."""
        V = self.num_categories
        observed, dims = is_observed(x).flatten(1), x[0].numel()
        places = x.flatten(1).long() + V * torch.arange(dims, device=x.device)
        counts = torch.bincount(places[observed], minlength=dims * V).to(mean).reshape(*x.shape[1:], V)
        return self.params_for_probs((counts + 1 / V) / (counts.sum(-1, keepdim=True) + 1))

    def check(self, x: Tensor) -> None:
        super().check(x)
        if not (x < self.num_categories).all():
            raise ValueError(
                f"{type(self).__name__} takes the categories 0 ... {self.num_categories - 1}, got {x.max()}: "
                f"use {x.max() + 1} categories, or correct the data"
            )


class IndexCategorical(CategoryFamily):
    """A softmax over V categories, for each dimension: tokens, or categories without an order.

    Raw outputs: V logits, (*shape, V). The point estimate is the most probable category.

    Args:
        num_categories: V; >= 2.
    """

    supported_data = frozenset({"token", "categorical"})

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        return (*shape, self.num_categories)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return (raw,)

    def forward(self, *params: Tensor) -> IndexCategoricalDistribution:
        (logits,) = params
        return IndexCategoricalDistribution(logits)

    def params_for_probs(self, probs: Tensor) -> tuple[Tensor, ...]:
        return (probs.log(),)


class Ordinal(CategoryFamily):
    """The cumulative logit model of V ordered levels, for each dimension.

        P(x <= k) = sigmoid(t_k),  t_0 < t_1 < ... < t_{V-2}

    Raw outputs: t_0 and V - 2 numbers r, (*shape, V - 1), with t_k = t_{k-1} + softplus(r_k) + 1e-6. With two levels it
    is the Bernoulli distribution with logit -t_0.

    References: McCullagh 1980, Regression models for ordinal data, https://doi.org/10.1111/j.2517-6161.1980.tb01109.x;
    Nazabal et al. 2020, Handling incomplete heterogeneous data using VAEs, https://arxiv.org/abs/1807.03653. Differs
    from both: there, thresholds and a location have different inputs; here, the network emits the thresholds.

    Args:
        num_categories: V, the number of levels; >= 2.
    """

    supported_data = frozenset({"categorical"})
    min_gap = 1e-6  # of two thresholds: a level between equal ones would have probability 0

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        return (*shape, self.num_categories - 1)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return (raw,)

    def forward(self, *params: Tensor) -> IndexCategoricalDistribution:
        (raw,) = params
        first, gaps = raw[..., :1], F.softplus(raw[..., 1:]) + self.min_gap
        thresholds = torch.cat([first, first + gaps.cumsum(-1)], -1)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)) keeps all digits.
        below, above = F.logsigmoid(thresholds), F.logsigmoid(-thresholds)
        inner = below[..., 1:] + above[..., :-1] + torch.log(-torch.expm1(-gaps))
        return IndexCategoricalDistribution(torch.cat([below[..., :1], inner, above[..., -1:]], -1))

    def params_for_probs(self, probs: Tensor) -> tuple[Tensor, ...]:
        below = probs.cumsum(-1)[..., :-1]
        above = probs.flip(-1).cumsum(-1).flip(-1)[..., 1:]  # 1 - below would lose digits
        thresholds = below.log() - above.log()
        gaps = (thresholds.diff(dim=-1) - self.min_gap).clamp(min=self.min_gap)
        return (torch.cat([thresholds[..., :1], inverse_soft_floor(gaps, 0.0)], -1),)


class ColumnFamily(Family):
    """The base class of families of k columns with C_1, ..., C_k categories: x is (k,).

    Columns with the same number of categories are computed together. Raw output: the raw outputs of all columns, one
    column after another.

    Args:
        sizes: C_1, ..., C_k, each >= 2.
        family: makes the family of one column from its number of categories.
    """

    supported_data = frozenset({"categorical"})
    order: Tensor

    def __init__(self, sizes: Sequence[int], family: type[CategoryFamily]):
        super().__init__()
        if not isinstance(sizes, Sequence) or not sizes or not all(type(size) is int and size >= 2 for size in sizes):
            raise ValueError(f"sizes must be a list of the numbers of categories of the columns, all >= 2, got {sizes}")
        self.sizes = list(sizes)
        groups = sorted(set(sizes))
        self.families: Sequence[CategoryFamily] = nn.ModuleList(family(size) for size in groups)  # type: ignore[assignment]
        # Plain numbers: a check of a checkpoint builds the model on torch's meta device, where tensors have no values.
        lengths = {size: family(size).raw_shape((1,))[-1] for size in groups}
        *starts, self.length = accumulate((lengths[size] for size in sizes), initial=0)
        columns = [[column for column, size in enumerate(sizes) if size == group] for group in groups]
        for i, (size, group) in enumerate(zip(groups, columns, strict=True)):
            self.register_buffer(f"columns{i}", torch.tensor(group), persistent=False)
            places = [[starts[column] + j for j in range(lengths[size])] for column in group]
            self.register_buffer(f"places{i}", torch.tensor(places), persistent=False)
        self.register_buffer("order", torch.tensor([*chain(*columns)]).argsort(), persistent=False)

    @property
    def columns(self) -> list[Tensor]:
        """The columns of each group, (k_i,)."""
        return [self.get_buffer(f"columns{i}") for i in range(len(self.families))]

    @property
    def places(self) -> list[Tensor]:
        """The places of each group's raw outputs, (k_i, n_i)."""
        return [self.get_buffer(f"places{i}") for i in range(len(self.families))]

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        if tuple(shape) != (len(self.sizes),):
            raise ValueError(
                f"{type(self).__name__} has {len(self.sizes)} sizes, but x has the shape {tuple(shape)}: "
                f"give one size for each column"
            )
        return (self.length,)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return (raw,)

    def forward(self, *params: Tensor) -> ColumnsDistribution:
        (raw,) = params
        groups = zip(self.families, self.places, strict=True)
        parts = [
            family(raw.index_select(-1, places.flatten()).unflatten(-1, places.shape)) for family, places in groups
        ]
        return ColumnsDistribution(parts, self.columns, self.order)

    def join(self, params: list[Tensor]) -> tuple[Tensor, ...]:
        """Return the raw output with these raw parameters of the groups, each (k_i, n_i)."""
        raw = params[0].new_empty(self.length)
        for places, values in zip(self.places, params, strict=True):
            raw[places] = values
        return (raw,)

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        groups = zip(self.families, self.columns, strict=True)
        return self.join([family.params_for_mean(mean[columns])[0] for family, columns in groups])

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        groups = zip(self.families, self.columns, strict=True)
        return self.join([family.params_for_data(mean[columns], x[:, columns])[0] for family, columns in groups])

    def check(self, x: Tensor) -> None:
        super().check(x)
        largest = x.flatten(0, -2).amax(0)
        over = (largest >= torch.tensor(self.sizes, device=x.device)).nonzero()[:, 0].tolist()
        if over:
            raise ValueError(
                f"{type(self).__name__}: column {over[0]} has the categories 0 ... {self.sizes[over[0]] - 1}, got "
                f"{largest[over[0]]}: use a larger size, or correct the data"
            )


class Categories(ColumnFamily):
    """A softmax for each of k columns with C_1, ..., C_k categories (``IndexCategorical``).

    Raw output: sum_j C_j logits, one column after another.

    >>> family = Categories([3, 5, 2])
    >>> family.raw_shape((3,))
    (10,)
    >>> family(torch.zeros(4, 10)).log_prob(torch.tensor([2, 4, 0])).shape
    torch.Size([4, 3])

    Args:
        sizes: C_1, ..., C_k, the number of categories of each column; >= 2.
    """

    def __init__(self, sizes: Sequence[int]):
        super().__init__(sizes, IndexCategorical)


class OrdinalColumns(ColumnFamily):
    """The cumulative logit model for each of k columns with C_1, ..., C_k ordered levels (``Ordinal``).

    Raw output: sum_j (C_j - 1) numbers, one column after another.

    Args:
        sizes: C_1, ..., C_k, the number of levels of each column; >= 2.
    """

    def __init__(self, sizes: Sequence[int]):
        super().__init__(sizes, Ordinal)
