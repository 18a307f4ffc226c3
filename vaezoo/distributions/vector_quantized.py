"""Vector quantisation: a codebook, and the distributions that make of it a latent variable.

van den Oord et al. 2017, https://arxiv.org/abs/1711.00937. Shapes: C codes of D numbers, n positions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl


class NearestCode(Distribution):
    """q(z | x): all mass on the code that is nearest to the encoder's output, at each position.

    Args:
        inputs: the encoder's outputs, (B, n, D).
        codes: index of the nearest code, (B, n).
        embeddings: that code, (B, n, D), with the gradient passed straight through to ``inputs``.
    """

    def __init__(self, inputs: Tensor, codes: Tensor, embeddings: Tensor):
        self.inputs, self.codes, self.embeddings = inputs, codes, embeddings
        super().__init__(codes.shape[:-1], embeddings.shape[-2:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.embeddings

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.embeddings.expand(self._extended_shape(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """0: the only value there is has mass 1."""
        return value.new_zeros(value.shape[:-2])


class UniformCodes(Distribution):
    """p(z): each of the C codes equally likely at each of n positions.

    Args:
        codebook: (C, D).
        num: n.
    """

    def __init__(self, codebook: Tensor, num: int):
        self.codebook, self.num = codebook, num
        super().__init__(torch.Size(), torch.Size((num, codebook.shape[1])), validate_args=False)

    @property
    def nats(self) -> float:
        """n ln C, minus the log mass of every value."""
        return self.num * math.log(len(self.codebook))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        codes = torch.randint(len(self.codebook), (*sample_shape, self.num), device=self.codebook.device)
        return self.codebook[codes]

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_full(value.shape[:-2], -self.nats)


@register_kl(NearestCode, UniformCodes)
def kl_nearest_uniform(q: NearestCode, p: UniformCodes) -> Tensor:
    """ln C nats for each position: (B,)."""
    return q.embeddings.new_full(q.batch_shape, p.nats)
