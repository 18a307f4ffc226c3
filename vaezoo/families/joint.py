"""A family of several named parts of a flat vector, each with its own family."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from vaezoo.distributions import JointDistribution
from vaezoo.families.base import Family, require_tensor
from vaezoo.families.wrapped import leave_out_missing
from vaezoo.layout import Layout
from vaezoo.missing import to_whole
from vaezoo.types import Shape


class Joint(Family):
    """Several named parts of a flat x (D,), each with its own family: a table of several kinds of columns.

        log p(x | z) = sum_j log p_j(x_j | z)

    Missing entries, NaN, are left out: the parts' families are ``Masked``. Raw output: the raw outputs of all parts,
    flat, one part after another. The point estimate has the mean of each part, or its most probable category.

    Reference: Nazabal et al. 2020, Handling incomplete heterogeneous data using VAEs, https://arxiv.org/abs/1807.03653.

    >>> from vaezoo.families import FixedScaleNormal, Poisson
    >>> family = Joint({"real": [2], "count": [1]}, {"real": FixedScaleNormal(1.0), "count": Poisson()})
    >>> family(torch.zeros(4, 3)).log_prob(torch.tensor([0.0, float("nan"), 0.0]))
    tensor([-1.9189, -1.9189, -1.9189, -1.9189])

    Args:
        layout: the shape of each part by name, in the order of the vector.
        families: the family of each part, by name.

    Raises:
        ValueError: the names of the families are not those of the layout.
    """

    supported_data = frozenset({"mixed"})
    supports_missing = True

    def __init__(self, layout: Mapping[str, Shape], families: Mapping[str, Family]):
        super().__init__()
        self.layout = Layout(layout)
        if families.keys() != self.layout.shapes.keys():
            raise ValueError(f"the layout has the parts {list(self.layout.shapes)}, but families are {list(families)}")
        masked = {name: leave_out_missing(family) for name, family in families.items()}
        self.families: Mapping[str, Family] = nn.ModuleDict(masked)  # type: ignore[assignment]
        self.integers = frozenset(name for name, family in masked.items() if family.takes_integers)
        self.raw_layout = Layout({name: masked[name].raw_shape(shape) for name, shape in self.layout.shapes.items()})

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        if tuple(shape) != (self.layout.size,):
            raise ValueError(
                f"the layout {self.layout.shapes} has {self.layout.size} numbers, but x has the shape {tuple(shape)}: "
                f"use one layout for the data and the likelihood"
            )
        return (self.raw_layout.size,)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        return (raw,)

    def part_params(self, raw: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Return the raw parameters of each part."""
        parts = self.raw_layout.split(raw)
        return {name: self.families[name].split(parts[name], shape) for name, shape in self.layout.shapes.items()}

    def split_data(self, x: Tensor) -> dict[str, Tensor]:
        """Return the parts of x as their families take them: counts and categories are integers."""
        parts = self.layout.split(x)
        return {name: to_whole(part) if name in self.integers else part for name, part in parts.items()}

    def forward(self, *params: Tensor) -> JointDistribution:
        parts = {}
        for name, part in self.part_params(*params).items():
            distribution = self.families[name](*part)
            elementwise = len(self.layout.shapes[name]) - len(distribution.event_shape)
            parts[name] = Independent(distribution, elementwise, validate_args=False)
        return JointDistribution(self.layout, parts, self.integers)

    def point_estimate(self, *params: Tensor) -> Tensor:
        parts = self.part_params(*params)
        return self.layout.join({name: self.families[name].point_estimate(*part) for name, part in parts.items()})

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        means = self.layout.split(mean)
        parts = [torch.cat(family.params_for_mean(means[name])).flatten() for name, family in self.families.items()]
        return (torch.cat(parts),)

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        means, data = self.layout.split(mean), self.split_data(x)
        groups = self.families.items()
        return (torch.cat([torch.cat(f.params_for_data(means[name], data[name])).flatten() for name, f in groups]),)

    def check(self, x: Tensor) -> None:
        require_tensor(x)
        values = self.layout.split(x)
        for name, part in self.split_data(x).items():
            if name in self.integers and not ((part == values[name]) | values[name].isnan()).all():
                raise ValueError(
                    f"the part {name} takes whole numbers, got others in [{values[name].min()}, {values[name].max()}]: "
                    f"round them, or choose a family of real numbers for this part"
                )
            self.families[name].check(part)
