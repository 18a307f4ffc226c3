"""A network that also sees a label."""

from math import prod

import torch
from torch import Tensor, nn

from vaezoo.types import NetFactory, Shape


class LabelConditioned(nn.Module):
    """Any network, given a class label as further planes of its input.

    Each class has a learned embedding of at least as many numbers as there are classes, joined to the
    first dimension of the input: further numbers of a vector, a further channel of an image.

    Args:
        in_shape: shape of one input, without the label.
        out_shape: shape of one output.
        net: makes the network.
        num_classes: C; labels are 0 ... C - 1.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory, num_classes: int):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        first, *rest = in_shape
        planes = -(-num_classes // prod(rest))
        self.code_shape = (planes, *rest)
        self.embedding = nn.Embedding(num_classes, prod(self.code_shape))
        self.net = net((first + planes, *rest), out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """(N, *in_shape) and labels (N,) -> (N, *out_shape)."""
        if not isinstance(context, Tensor) or context.shape != inputs.shape[:1]:
            got = f"labels of shape {tuple(context.shape)}" if isinstance(context, Tensor) else context
            raise ValueError(
                f"a model conditioned on classes needs one label for each of {len(inputs)} inputs, got {got}: "
                f"give context=labels, a tensor"
            )
        if context.is_floating_point():
            raise ValueError(f"class labels must be whole numbers, got {context.dtype}: convert them by labels.long()")
        code = self.embedding(context.long()).to(inputs.dtype).unflatten(1, self.code_shape)
        return self.net(torch.cat([inputs, code], 1), context)
