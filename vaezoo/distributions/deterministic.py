"""A code without a density."""

import torch
from torch import Tensor
from torch.distributions import Distribution


class Deterministic(Distribution):
    """A point: its samples are all equal, and it has no density.

    A posterior of this kind is the code of an autoencoder. ``log_prob`` raises an error, because any number that it
    returned would make an ELBO that is no bound.

    >>> code = Deterministic(torch.zeros(5, 3), event_dims=1)
    >>> code.rsample((2,)).shape
    torch.Size([2, 5, 3])

    Args:
        value: the point, (*batch, *event).
        event_dims: number of dimensions of the event.
    """

    has_rsample = True
    arg_constraints = {}  # noqa: RUF012  # torch reads it from the class

    def __init__(self, value: Tensor, event_dims: int):
        self.value = value
        place = value.dim() - event_dims
        super().__init__(value.shape[:place], value.shape[place:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.value

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return self.value.expand(*sample_shape, *self.value.shape)

    def log_prob(self, value: Tensor) -> Tensor:
        raise ValueError("a deterministic code has no density")
