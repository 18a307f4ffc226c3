"""Conditional distributions: a network followed by a family."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaezoo.families import Family, require_tensor
from vaezoo.types import NetFactory, Shape


class Network(nn.Module):
    """A network over any number of leading dimensions, whose input's shape is checked.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        net: makes the network: ``net(in_shape, out_shape)``; its ``forward(inputs, context)`` maps
            (N, *in_shape) to (N, *out_shape).
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory):
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.net = net(self.in_shape, out_shape)

    def raw_outputs(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """(*batch, *in_shape) -> (*batch, *out_shape), in float32 at least.

        Args:
            inputs: (*batch, *in_shape), any number of leading dimensions.
            context: whatever else is conditioned on, (B, *shape) for the last batch dimension;
                networks that are not conditional ignore it.
        """
        require_tensor(inputs)
        if context is not None:
            require_tensor(context)
        batch = inputs.shape[: inputs.dim() - len(self.in_shape)]
        if len(batch) == 0 or inputs.shape[len(batch) :] != self.in_shape:
            raise ValueError(f"expected a batch of shape (*batch, {str(self.in_shape)[1:]}, got {tuple(inputs.shape)}")
        if context is not None and len(batch) > 1:
            context = context.expand(*batch, *context.shape[1:]).flatten(0, len(batch) - 1)
        inputs = inputs.reshape(prod(batch), *self.in_shape).to(next(self.parameters(), inputs).dtype)
        outputs = self.net(inputs, context)
        # Densities and their sums need float32 at least, whatever autocast does.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return outputs.reshape(*batch, *outputs.shape[1:])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Any:
        """The planes, or what a subclass makes of them."""
        return self.raw_outputs(inputs, context)


class Conditional(Network):
    """p(y | c) = family(net(c) + offset): the encoder q(z | x) and the decoder p(x | z) alike.

    The offset is 0 until ``init_mean`` is called.

    Args:
        in_shape: shape of one c.
        out_shape: shape of one y.
        net: makes the network, from c to the family's outputs.
        family: turns the network's planes into a distribution of y.
    """

    offset: Tensor

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory, family: Family):
        self.out_shape = tuple(out_shape)
        first, *rest = self.out_shape
        raw_shape = (family.num_outputs * first, *rest)
        super().__init__(in_shape, raw_shape, net)
        self.family = family
        self.register_buffer("offset", torch.zeros(raw_shape))

    def init_mean(self, mean: Tensor) -> None:
        """Start from a distribution with this mean where the network says nothing (net(c) = 0).

        Burda et al. 2016 set the last layer's bias to the logit of the mean image; an offset does so
        for any network. Without it a short training on MNIST ends many nats lower.

        Args:
            mean: the mean of y, shape ``out_shape``.
        """
        first, *rest = self.family.params_for_mean(mean.to(self.offset))
        self.offset.copy_(torch.cat([first, *rest]))

    def params(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """The family's raw parameters, each (*batch, *out_shape)."""
        outputs = self.raw_outputs(inputs, context) + self.offset
        return outputs.chunk(self.family.num_outputs, dim=-len(self.out_shape))

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Distribution:
        """p(y | inputs), with batch shape (*batch,); arguments as in ``raw_outputs``."""
        distribution = self.family(*self.params(inputs, context))
        elementwise = len(self.out_shape) - len(distribution.event_shape)
        return Independent(distribution, elementwise, validate_args=False) if elementwise else distribution

    def point_estimate(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """One point that stands for p(y | inputs), (*batch, *out_shape): the mean where the family has one."""
        return self.family.point_estimate(*self.params(inputs, context))
