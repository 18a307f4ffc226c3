"""A distribution of several named parts of a flat vector, which are independent."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.layout import Layout
from vaezoo.missing import to_whole


class JointDistribution(Distribution):
    """The distribution of a flat x (D,) whose named parts are independent: log p(x) = sum of the parts' log p.

    Args:
        layout: names and shapes of the parts.
        parts: the distribution of each part, with batch shape (*batch,) and the event shape of the part.
        integers: names of the parts whose distributions take integers.
    """

    def __init__(self, layout: Layout, parts: Mapping[str, Distribution], integers: frozenset[str]):
        self.layout, self.parts, self.integers = layout, dict(parts), integers
        shapes = [part.batch_shape for part in self.parts.values()]
        if any(shape != shapes[0] for shape in shapes):  # not by a set: sizes in an exported graph have no hash
            raise ValueError(f"the parts have different batch shapes, {', '.join(map(str, map(tuple, shapes)))}")
        super().__init__(shapes[0], torch.Size([layout.size]), validate_args=False)

    def expand(self, batch_shape, _instance=None):
        parts = {name: part.expand(batch_shape) for name, part in self.parts.items()}
        return JointDistribution(self.layout, parts, self.integers)

    def log_prob_parts(self, value: Tensor) -> dict[str, Tensor]:
        """Return log p of each part, (*batch,), by name."""
        values = self.layout.split(value)
        return {
            name: part.log_prob(to_whole(values[name]) if name in self.integers else values[name])
            for name, part in self.parts.items()
        }

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.stack(list(self.log_prob_parts(value).values())).sum(0)

    def join(self, values: Callable[[Distribution], Tensor]) -> Tensor:
        """Return a flat x with these values of all parts."""
        return self.layout.join({name: values(part) for name, part in self.parts.items()})

    @property
    def mean(self) -> Tensor:
        """The parts' means; for categories, the most probable one."""
        return self.join(lambda part: part.mean)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.join(lambda part: part.sample(torch.Size(sample_shape)))
