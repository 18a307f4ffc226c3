"""Networks of a flat vector of several parts: one network for each part."""

from collections.abc import Mapping, Set

import torch
from torch import Tensor, nn

from vaezoo.layout import Layout
from vaezoo.missing import is_observed, to_whole
from vaezoo.types import NetFactory, Shape


class PartEncoders(nn.Module):
    """One network for each part of a flat vector x (D,): the n outputs of each part, one part after another.

    If all entries of a part are missing, NaN, its last outputs are ``missing``: those of one raw parameter, such as a
    log scale. Otherwise they are what the network makes of the part alone, so that no part sees another one.

    >>> from vaezoo.nets import MLP
    >>> net = PartEncoders((6,), (8,), {"a": (4,), "b": (2,)}, {"a": MLP, "b": MLP})
    >>> net(torch.tensor([[0.0, 1, 2, 3, float("nan"), float("nan")]]))[0, -2:].tolist()
    [inf, inf]

    Args:
        in_shape: shape of one x, (D,).
        out_shape: shape of one output, (2 M n,) for M parts with two parameters of n numbers each.
        layout: the shape of each part by name.
        nets: makes the network of each part, by name.
        integers: names of the parts whose networks take integers.
        missing: the second parameter of a part that is missing.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        layout: Mapping[str, Shape],
        nets: Mapping[str, NetFactory],
        integers: Set[str] = frozenset(),
        missing: float = torch.inf,
    ):
        super().__init__()
        self.layout, self.integers, self.missing = Layout(layout), integers, missing
        shape = (out_shape[0] // len(nets),)
        self.nets = nn.ModuleDict({name: nets[name](part, shape) for name, part in self.layout.shapes.items()})

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the networks: (N, D) -> (N, 2 M n)."""
        outputs = []
        for name, part in self.layout.split(inputs).items():
            is_there = is_observed(part).flatten(1).any(1)
            part = part.where(is_there.reshape(-1, *[1] * (part.dim() - 1)), 0)
            first, second = self.nets[name](to_whole(part) if name in self.integers else part, context).chunk(2, 1)
            outputs += [first, second.where(is_there.unsqueeze(1), self.missing)]
        return torch.cat(outputs, 1)


class PartDecoders(nn.Module):
    """One network for each part of a flat output, all of the same input z.

    >>> from vaezoo.nets import MLP
    >>> PartDecoders((3,), (6,), {"a": (1, 2, 2), "b": (2,)}, {"a": MLP, "b": MLP})(torch.zeros(5, 3)).shape
    torch.Size([5, 6])

    Args:
        in_shape: shape of one z.
        out_shape: shape of one output, (D,).
        layout: the shape of each part of the output by name.
        nets: makes the network of each part, by name.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, layout: Mapping[str, Shape], nets: Mapping[str, NetFactory]):
        super().__init__()
        self.layout = Layout(layout)
        self.nets = nn.ModuleDict({name: nets[name](in_shape, shape) for name, shape in self.layout.shapes.items()})

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the networks: (N, *in_shape) -> (N, D)."""
        return torch.cat([net(inputs, context).flatten(1) for net in self.nets.values()], 1)
