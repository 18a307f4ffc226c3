"""Multi-layer perceptrons."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.types import Shape


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """Return the elementwise function of ``torch.nn.functional`` with this name.

    Raises:
        ValueError: torch has no elementwise function with this name.
    """
    function = None if name.startswith("_") else getattr(F, name, None)
    if callable(function) and not isinstance(function, type):
        with suppress(Exception):  # other functions raise whatever they like
            output = function(torch.zeros(1))
            if isinstance(output, Tensor) and output.shape == (1,):
                return function
    raise ValueError(f"activation={name} is not a function of torch.nn.functional: try relu, tanh, gelu or silu")


def check_widths(name: str, widths: Sequence[int]) -> Sequence[int]:
    """Return the widths of layers.

    Args:
        name: name of the option, for the message.
        widths: the widths.

    Raises:
        ValueError: the widths are not a list of integers >= 1.
    """
    if not isinstance(widths, Sequence) or not all(type(width) is int and width >= 1 for width in widths):
        raise ValueError(f"{name} must be a list of integers >= 1, got {widths}")
    return widths


def init_glorot(module: nn.Module) -> None:
    """Initialize every layer of a network: uniform weights as in Glorot & Bengio 2010, and biases 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def apply_layers(layers: nn.ModuleList, activation: Callable[[Tensor], Tensor], h: Tensor) -> Tensor:
    """Apply fully connected layers to h (N, D), with an activation after all but the last one."""
    for layer in layers[:-1]:
        h = activation(layer(h))
    return layers[-1](h)


class MLP(nn.Module):
    """A multi-layer perceptron: fully connected layers, from any shape to any shape.

    >>> MLP((1, 28, 28), (20,), hidden=[200, 200])(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 20])

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        hidden: width of each hidden layer.
        activation: name of a function in ``torch.nn.functional``.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, hidden: Sequence[int] = (200, 200), activation: str = "tanh"):
        super().__init__()
        self.out_shape = tuple(out_shape)
        widths = [prod(in_shape), *check_widths("hidden", hidden), prod(out_shape)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, *out_shape)."""
        return apply_layers(self.layers, self.activation, inputs.flatten(1)).unflatten(1, self.out_shape)
