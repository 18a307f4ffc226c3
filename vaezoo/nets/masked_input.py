"""A network for data with missing entries."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from vaezoo.missing import is_observed, to_float
from vaezoo.types import NetFactory, Shape


class MaskedInput(nn.Module):
    """A network for data with missing entries: it is given the data with 0 in place of them, and the mask.

    The mask is 1 if the entry is observed, otherwise 0. It is concatenated to the data along the first dimension: twice
    as many numbers of a vector, or twice as many channels of an image.

    Reference: Mattei & Frellsen 2019, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets,
    https://arxiv.org/abs/1812.02633, fill missing entries with 0. The mask as an additional input distinguishes a
    missing entry from an observed 0.

    >>> from vaezoo.nets import MLP
    >>> MaskedInput((3,), (2,), MLP)(torch.tensor([[1.0, float("nan"), 0.0]])).shape
    torch.Size([1, 2])

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        net: makes the network.
        log_columns: the numbers x of a vector that enter as (ln(1 + x) - loc) / scale, such as counts.
        loc: loc of each of them.
        scale: scale of each of them.

    Attributes:
        takes_missing: True: the inputs may have missing entries.
    """

    takes_missing = True
    log_columns: Tensor
    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        net: NetFactory,
        log_columns: Sequence[int] = (),
        loc: Sequence[float] = (),
        scale: Sequence[float] = (),
    ):
        super().__init__()
        first, *rest = in_shape
        self.num_log = len(log_columns)
        self.register_buffer("log_columns", torch.tensor(log_columns, dtype=torch.long), persistent=False)
        self.register_buffer("loc", torch.tensor(loc), persistent=False)
        self.register_buffer("scale", torch.tensor(scale), persistent=False)
        self.net = net((2 * first, *rest), out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (N, *in_shape) -> (N, *out_shape). NaN marks a missing float, -1 a missing integer."""
        floats = to_float(inputs, next(self.parameters(), torch.zeros(())).dtype)
        observed = is_observed(floats)
        if self.num_log:
            # The pseudo-inputs of a VampPrior may be below 0, but ln(1 + x) is finite above -1 only.
            logs = (floats.index_select(1, self.log_columns).clamp(min=-0.5).log1p() - self.loc) / self.scale
            floats = floats.index_copy(1, self.log_columns, logs.to(floats.dtype))
        return self.net(torch.cat([floats.where(observed, 0), observed.to(floats.dtype)], 1), context)


def accept_missing(net: NetFactory) -> NetFactory:
    """Return what makes a network for data with missing entries: ``MaskedInput`` around others than such networks.

    Args:
        net: makes the network: a class, or a ``functools.partial`` of one.
    """
    return net if getattr(getattr(net, "func", net), "takes_missing", False) else partial(MaskedInput, net=net)
