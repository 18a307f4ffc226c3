"""A network with a class label as an additional input."""

from math import prod

import torch
from torch import Tensor, nn

from vaezoo.types import NetFactory, Shape


def check_class_labels(labels: Tensor, num_classes: int, owner: str, key: str) -> None:
    """Raise a ValueError if labels are not one of the classes 0 ... num_classes - 1 for each example.

    Args:
        labels: the labels, (B,).
        num_classes: number of classes.
        owner: what needs the labels, for the message.
        key: name of the option ``num_classes``, for the message.
    """
    if labels.dim() != 1:
        raise ValueError(
            f"{owner} needs one class label for each example, but a label of the data has the shape "
            f"{tuple(labels.shape[1:])}"
        )
    if labels.is_floating_point():
        raise ValueError(f"class labels must be integers, got {labels.dtype}: convert them with labels.long()")
    low, high = int(labels.min()), int(labels.max())
    if high < 0:
        raise ValueError(
            f"{owner} needs one class label for each example, but the data have no labels: they come from the "
            f"sub-folders of a folder, the .txt files of a folder of texts, data.labels_key of an array or data.label "
            f"of a table"
        )
    if low < 0:
        raise ValueError(f"the labels run from {low} to {high}: number the classes from 0")
    if high >= num_classes:
        raise ValueError(f"num_classes={num_classes}, but the labels run from {low} to {high}: use {key}={high + 1}")


class LabelConditioned(nn.Module):
    """A network with a class label as an additional input.

    Each class has a learned embedding, with at least as many numbers as there are classes. It is concatenated to the
    input along the first dimension: more numbers of a vector, or more channels of an image.

    Args:
        in_shape: shape of one input, without the label.
        out_shape: shape of one output.
        net: makes the network.
        num_classes: number of classes; >= 1. Labels are 0 ... num_classes - 1.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory, num_classes: int):
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        first, *rest = in_shape
        channels = -(-num_classes // prod(rest))
        self.embedding_shape = (channels, *rest)
        self.embedding = nn.Embedding(num_classes, prod(self.embedding_shape))
        self.net = net((first + channels, *rest), out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: inputs (N, *in_shape) and labels (N,) -> (N, *out_shape).

        Raises:
            ValueError: there is not one label for each input, or labels are not integers.
        """
        if not isinstance(context, Tensor) or context.shape != inputs.shape[:1]:
            got = f"labels of shape {tuple(context.shape)}" if isinstance(context, Tensor) else context
            raise ValueError(
                f"a model conditioned on classes needs one label for each of {len(inputs)} inputs, got {got}: "
                f"pass context=labels, a tensor"
            )
        if context.is_floating_point():
            raise ValueError(f"class labels must be integers, got {context.dtype}: convert them with labels.long()")
        embedded = self.embedding(context.long()).to(inputs.dtype).unflatten(1, self.embedding_shape)
        return self.net(torch.cat([inputs, embedded], 1), context)
