"""An autoregressive distribution of sequences of frames, which holds the functions that predict the next frame."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution


class FrameSequenceDistribution(Distribution):
    """The distribution of sequences x of T frames in which each frame depends on those before it.

        p(x | z) = prod_t p(x_t | z_1, ..., z_t, x_1, ..., x_{t-1})

    ``log_prob`` computes all factors from the given frames (teacher forcing). A sample is drawn frame by frame.
    ``mean`` is the sequence in which each frame is the mean of its factor, given those before it: the mean of p(x | z)
    itself has no formula.

    Args:
        predict: a function of x (*batch, T, D) that returns the joint distribution of all frames, each given the frames
            of x before it; batch shape (*batch,), event shape (T, D).
        generate: a function of a choice of one frame from its distribution and of the batch shape of the sequences; it
            returns sequences (*batch, T, D).
        batch_shape: the batch shape.
        event_shape: (T, D).
    """

    def __init__(
        self,
        predict: Callable[[Tensor], Distribution],
        generate: Callable[[Callable[[Distribution], Tensor], Sequence[int]], Tensor],
        batch_shape: Sequence[int],
        event_shape: Sequence[int],
    ):
        self.predict, self.generate = predict, generate
        super().__init__(torch.Size(batch_shape), torch.Size(event_shape), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.predict(value).log_prob(value)

    @property
    def mean(self) -> Tensor:
        """The sequence of the frames' means, each given the means before it."""
        return self.generate(lambda frame: frame.mean, self.batch_shape)

    @property
    def mode(self) -> Tensor:
        """The sequence of the frames' modes, each given the modes before it."""
        return self.generate(lambda frame: frame.mode, self.batch_shape)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.generate(lambda frame: frame.sample(), (*sample_shape, *self.batch_shape))
