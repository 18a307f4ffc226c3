"""Conditional distributions: a network followed by a family."""

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaezoo.families import Family

Shape = Sequence[int]
NetFactory = Callable[[Shape, Shape], nn.Module]


class Conditional(nn.Module):
    """p(y | c) = family(net(c)): the encoder q(z | x) and the decoder p(x | z) alike.

    Args:
        in_shape: shape of one c.
        out_shape: shape of one y.
        net: makes the network: ``net(in_shape, planes_shape)``; its ``forward(inputs, context)``
            maps (N, *in_shape) to (N, *planes_shape).
        family: turns the network's planes into a distribution of y.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory, family: Family):
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.family = family
        first, *rest = self.out_shape
        self.net = net(self.in_shape, (family.n_params * first, *rest))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Distribution:
        """p(y | inputs), with batch shape (*batch,).

        Args:
            inputs: (*batch, *in_shape), any number of leading dimensions.
            context: whatever else is conditioned on, (B, *shape) for the last batch dimension;
                networks that are not conditional ignore it.
        """
        batch = inputs.shape[: inputs.dim() - len(self.in_shape)]
        if context is not None and len(batch) > 1:
            context = context.expand(*batch, *context.shape[1:]).flatten(0, len(batch) - 1)
        planes = self.net(inputs.reshape(prod(batch), *self.in_shape), context)
        # Densities and their sums need float32 at least, whatever autocast does.
        planes = planes.to(torch.promote_types(planes.dtype, torch.float32))
        params = planes.reshape(*batch, *planes.shape[1:]).chunk(
            self.family.n_params, dim=-len(self.out_shape)
        )
        return Independent(self.family(*params), len(self.out_shape), validate_args=False)
