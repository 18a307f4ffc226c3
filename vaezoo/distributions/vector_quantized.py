"""Vector quantization as a latent variable: the posterior and the prior over the codes of a codebook.

Reference: van den Oord et al. 2017, Neural Discrete Representation Learning, https://arxiv.org/abs/1711.00937.
Shapes: C codes of D numbers each, n positions.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, register_kl


class NearestCode(Distribution):
    """The posterior q(z | x): at each position, probability 1 for the code nearest to the encoder's output.

    Args:
        inputs: the encoder's outputs, (B, n, D).
        codes: indices of the nearest codes, (B, n).
        embeddings: the nearest codes, (B, n, D). Their gradient is passed straight through to ``inputs``.
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
        """Return 0: the only possible value has probability 1."""
        return value.new_zeros(value.shape[:-2])


class UniformCodes(Distribution):
    """The prior p(z): at each position, all codes have the same probability.

    Args:
        codebook: the codes, (C, D).
        num: n, the number of positions.
    """

    def __init__(self, codebook: Tensor, num: int):
        self.codebook, self.num = codebook, num
        super().__init__(torch.Size(), torch.Size((num, codebook.shape[1])), validate_args=False)

    @property
    def nats(self) -> float:
        """n ln C: minus the log probability of every value."""
        return self.num * math.log(len(self.codebook))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        codes = torch.randint(len(self.codebook), (*sample_shape, self.num), device=self.codebook.device)
        return self.codebook[codes]

    def log_prob(self, value: Tensor) -> Tensor:
        return value.new_full(value.shape[:-2], -self.nats)


@register_kl(NearestCode, UniformCodes)
def kl_nearest_uniform(q: NearestCode, p: UniformCodes) -> Tensor:
    """Return the KL, (B,): ln C nats for each position."""
    return q.embeddings.new_full(q.batch_shape, p.nats)
