"""A network with an image, or any other tensor, as an additional input."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.types import NetFactory, Shape


def require_context(context: Tensor | None, num: int, shape: Shape) -> Tensor:
    """Return the conditions c, (N, *shape).

    Raises:
        ValueError: there are none, or they have another shape.
    """
    if not isinstance(context, Tensor) or context.shape != (num, *shape):
        got = f"a tensor of shape {tuple(context.shape)}" if isinstance(context, Tensor) else context
        got = "class labels" if isinstance(context, Tensor) and context.dim() == 1 else got
        raise ValueError(
            f"each of {num} examples needs a condition of shape {tuple(shape)}, got {got}: pass context=conditions, a "
            f"tensor, or use data.condition=upper, edges, grey or small, which makes them from images"
        )
    return context


class ContextConditioned(nn.Module):
    """A network with a condition c as an additional input.

    If inputs and c are images, c is scaled to the size of the inputs and becomes further channels of them. Otherwise, c
    becomes further numbers of a vector: those of ``context_net`` if there is one, else its own.

    Args:
        in_shape: shape of one input, without c.
        out_shape: shape of one output.
        net: makes the network.
        context_shape: shape of one c.
        context_net: makes the network from c to the numbers that are joined to a vector; None: c itself.
        num_features: number of outputs of ``context_net``; >= 1.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        net: NetFactory,
        context_shape: Shape,
        context_net: NetFactory | None = None,
        num_features: int = 1,
    ):
        super().__init__()
        self.context_shape, self.size = tuple(context_shape), tuple(in_shape[1:])
        self.are_images = len(in_shape) == len(context_shape) == 3
        if not self.are_images and len(in_shape) > 1:
            raise ValueError(
                f"inputs of shape {tuple(in_shape)} cannot be joined with a condition of shape {self.context_shape}: "
                f"both must be images (C, H, W), or the input a vector"
            )
        self.context_net = context_net(context_shape, (num_features,)) if context_net and not self.are_images else None
        own = context_shape[0] if self.are_images else prod(context_shape)
        more = own if self.context_net is None else num_features
        self.net = net((in_shape[0] + more, *in_shape[1:]), out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: inputs (N, *in_shape) and conditions (N, *context_shape) -> (N, *out_shape)."""
        c = require_context(context, inputs.shape[0], self.context_shape).to(inputs.dtype)
        if self.are_images:
            c = c if c.shape[2:] == self.size else F.interpolate(c, self.size)
        else:
            c = (self.context_net(c) if self.context_net else c).flatten(1)
        return self.net(torch.cat([inputs, c.to(inputs.dtype)], 1))  # without c: a network below may read labels
