"""MADE: a masked network for autoregressive flows."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vaezoo.nets.mlp import activation_function, init_glorot


class MADE(nn.Module):
    """MADE: a masked network with two outputs for each dimension, functions of the dimensions before it.

    The outputs are also functions of a context h. A hidden unit of degree k = 0 ... D - 1 is connected to h and to the
    first k dimensions; the outputs of dimension d = 1 ... D are connected to the units of degree < d.

    Reference: Germain et al. 2015, MADE: Masked Autoencoder for Distribution Estimation,
    https://arxiv.org/abs/1502.03509.

    Args:
        dim: D, the number of dimensions.
        context_dim: size of h.
        hidden: width of each hidden layer. An empty list makes the network linear.
        activation: name of a function in ``torch.nn.functional``.
        reverse: whether the order of the dimensions is from last to first.
    """

    def __init__(self, dim: int, context_dim: int, hidden: Sequence[int], activation: str, reverse: bool):
        super().__init__()
        self.order = list(reversed(range(dim))) if reverse else list(range(dim))
        places = torch.tensor(self.order) + 1  # the place of each dimension; a reversed order is its own inverse
        degrees = [places, *(torch.arange(width) * dim // width for width in hidden), places.repeat(2)]
        self.layers = nn.ModuleList(nn.Linear(len(a), len(b)) for a, b in pairwise(degrees))
        for i, (a, b) in enumerate(pairwise(degrees)):
            sees = b[:, None] > a if i == len(hidden) else b[:, None] >= a
            self.register_buffer(f"mask{i}", sees.float(), persistent=False)
        self.context = nn.Linear(context_dim, len(degrees[1]), bias=False)
        self.activation = activation_function(activation)
        init_glorot(self)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        """Return both outputs, each (..., D), for z (..., D) and h (*batch, context_dim)."""
        added = self.context(h)
        for i, layer in enumerate(self.layers):
            weight = layer.get_parameter("weight") * self.get_buffer(f"mask{i}")
            z = F.linear(z, weight, layer.get_parameter("bias")) + added
            if i < len(self.layers) - 1:
                z, added = self.activation(z), 0.0
        return z.to(torch.promote_types(z.dtype, torch.float32)).chunk(2, dim=-1)
