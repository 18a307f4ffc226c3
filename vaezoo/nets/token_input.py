"""A network for sequences of tokens."""

import torch
from torch import Tensor, nn

from vaezoo.missing import is_observed
from vaezoo.types import NetFactory, Shape


class TokenInput(nn.Module):
    """A network for tokens 0 ... V - 1: it is given a learned vector for each of them.

    Padding, -1, has a vector of its own. The vectors are channels: tokens (T,) become (embedding, T).

    >>> from vaezoo.nets import MLP
    >>> TokenInput((6,), (2,), MLP, num_tokens=10)(torch.tensor([[3, 5, 1, 9, -1, -1]])).shape
    torch.Size([1, 2])

    Args:
        in_shape: shape of one input, (T,).
        out_shape: shape of one output.
        net: makes the network.
        num_tokens: V, the size of the vocabulary; >= 1.
        embedding: size of the vector of each token; >= 1.
    """

    takes_integers = True
    takes_missing = True  # padding

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory, num_tokens: int, embedding: int = 64):
        super().__init__()
        if num_tokens < 1 or embedding < 1:
            raise ValueError(f"num_tokens and embedding must be >= 1, got {num_tokens} and {embedding}")
        self.embedding = nn.Embedding(num_tokens + 1, embedding)  # the last one is for padding
        self.net = net((embedding, *in_shape), out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: integers (N, *in_shape) -> (N, *out_shape).

        Raises:
            ValueError: the inputs are not integers.
        """
        if inputs.is_floating_point():
            raise ValueError(
                f"TokenInput takes tokens as integers, got {inputs.dtype}: pass x as int64, and wrap other networks in "
                f"TokenInput, not TokenInput in them"
            )
        tokens = torch.where(is_observed(inputs), inputs, self.embedding.num_embeddings - 1)
        return self.net(self.embedding(tokens).movedim(-1, 1), context)
