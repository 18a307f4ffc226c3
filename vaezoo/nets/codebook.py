"""The codebook of vector quantization.

van den Oord et al. 2017, https://arxiv.org/abs/1711.00937. Shapes: C codes of D numbers, n positions.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.distributions import NearestCode


def without_autocast(method: Callable) -> Callable:
    """A method that autocast leaves alone: in bf16 the nearest code would not be."""

    @wraps(method)
    def wrapped(self: nn.Module, vectors: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(vectors.device.type, enabled=False):
            return method(self, vectors, *args, **kwargs)

    return wrapped


class Quantizer(nn.Module):
    """A codebook that follows the vectors it stands for.

    In training every code moves to the running mean of the vectors nearest to it,

        N_c <- decay N_c + (1 - decay) n_c,   m_c <- decay m_c + (1 - decay) sum of them,   e_c = m_c / N_c

    (paper, appendix A.1; n_c and the sum are divided by the number of vectors, so that batches of any
    size count alike), and a code whose N_c falls below ``restart_below`` of an even share begins
    anew at a vector of the batch. With decay = 0 one update is one step of Lloyd's k-means, and
    ``init_from_data`` is ten of them. N_c cannot come near 0, so the paper's smoothing of it is not needed.

    Args:
        num_codes: C.
        dim: D.
        decay: of the running means, in [0, 1).
        restart_below: share of the even use below which a code is restarted, in [0, 1).
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, restart_below: float = 0.01):
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"a codebook needs num_codes and latent_dim >= 1, got {num_codes} and {dim}")
        if not (0 <= decay < 1 and 0 <= restart_below < 1):
            raise ValueError(f"decay and restart_below must lie in [0, 1), got {decay} and {restart_below}")
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("codebook", torch.randn(num_codes, dim) / math.sqrt(dim))
        self.register_buffer("counts", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("sums", self.codebook / num_codes)

    @without_autocast
    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the code nearest to each vector: (*batch, D) -> (*batch,)."""
        squared = self.codebook.square().sum(1) - 2 * vectors.detach() @ self.codebook.T  # less |v|^2, the same for all
        return squared.argmin(-1)

    @torch.no_grad()
    @without_autocast
    def update(self, vectors: Tensor, codes: Tensor, decay: float) -> None:
        """Move the codebook by vectors (N, D) and their codes (N,), over all processes."""
        chosen = torch.nn.functional.one_hot(codes, len(self.codebook)).to(vectors)  # (N, C)
        counts, sums = chosen.mean(0), chosen.T @ vectors / len(vectors)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for value in (counts, sums):
                torch.distributed.all_reduce(value)
                value /= torch.distributed.get_world_size()
        self.counts.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        uniform_share = 1 / len(self.codebook)
        # With several processes the first one's draws win: its buffers are sent to the others.
        replacements = vectors[torch.randint(len(vectors), (len(self.codebook),), device=vectors.device)]
        dead = self.counts <= self.restart_below * uniform_share
        self.counts.masked_fill_(dead, uniform_share)
        self.sums.copy_(torch.where(dead[:, None], uniform_share * replacements, self.sums))
        self.codebook.copy_(self.sums / self.counts[:, None])

    @torch.no_grad()
    def init_from_data(self, vectors: Tensor, steps: int = 10) -> None:
        """k-means on vectors (N, D), begun at some of them."""
        order = torch.randperm(len(vectors), device=vectors.device)
        self.codebook.copy_(vectors[order[torch.arange(len(self.codebook)) % len(vectors)]])
        for _ in range(steps):
            self.update(vectors, self.nearest(vectors), decay=0.0)

    def forward(self, inputs: Tensor) -> NearestCode:
        """Quantise (B, n, D); in training the codebook follows."""
        inputs = inputs.to(self.codebook.dtype)
        codes = self.nearest(inputs)
        embeddings = self.codebook[codes]
        if self.training:
            self.update(inputs.detach().flatten(0, 1), codes.flatten(), self.decay)
        return NearestCode(inputs, codes, inputs + (embeddings - inputs).detach())
