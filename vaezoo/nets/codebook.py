"""The codebook of vector quantization. Shapes: C codes of D numbers each, n positions."""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.distributions import NearestCode


def without_autocast(method: Callable) -> Callable:
    """Decorate a method so that autocast does not apply: in bf16, another code than the nearest could be found."""

    @wraps(method)
    def wrapped(self: nn.Module, vectors: Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(vectors.device.type, enabled=False):
            return method(self, vectors, *args, **kwargs)

    return wrapped


class Quantizer(nn.Module):
    """A codebook whose codes are running means of the vectors nearest to them.

    After each training batch, with n_c the share of its vectors that are nearest to code c, and s_c their sum divided
    by the number of all vectors,

        N_c <- decay N_c + (1 - decay) n_c,   m_c <- decay m_c + (1 - decay) s_c,   e_c = m_c / N_c

    A dead code, whose N_c is at most ``restart_below`` / C, is replaced by a vector of the batch. With decay = 0, an
    update is a step of Lloyd's k-means, and ``init_from_data`` is ten such steps.

    Reference: van den Oord et al. 2017, Neural Discrete Representation Learning, https://arxiv.org/abs/1711.00937,
    appendix A.1. Differs from the paper: n_c and s_c are divided by the number of vectors, so that batches of every
    size have the same weight; N_c is not smoothed, because dead codes are replaced before N_c comes near 0.

    >>> quantizer = Quantizer(num_codes=8, dim=2).eval()
    >>> q = quantizer(torch.randn(5, 3, 2))  # B = 5, n = 3
    >>> q.codes.shape, q.embeddings.shape
    (torch.Size([5, 3]), torch.Size([5, 3, 2]))

    Args:
        num_codes: C, the number of codes; >= 1.
        dim: D, the dimension of a code; >= 1.
        decay: decay of the running means; in [0, 1).
        restart_below: share of the uniform use 1 / C below which a code is dead; in [0, 1).
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, num_codes: int, dim: int, decay: float = 0.99, restart_below: float = 0.01):
        super().__init__()
        if num_codes < 1 or dim < 1:
            raise ValueError(f"num_codes and latent_dim must be >= 1, got {num_codes} and {dim}")
        if not (0 <= decay < 1 and 0 <= restart_below < 1):
            raise ValueError(f"decay and restart_below must be in [0, 1), got {decay} and {restart_below}")
        self.decay, self.restart_below = decay, restart_below
        self.register_buffer("codebook", torch.randn(num_codes, dim) / math.sqrt(dim))
        self.register_buffer("counts", torch.full((num_codes,), 1 / num_codes))
        self.register_buffer("sums", self.codebook / num_codes)

    @without_autocast
    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the index of the code nearest to each vector: (*batch, D) -> (*batch,)."""
        # The squared distances, without |v|^2, which is the same for all codes.
        squared = self.codebook.square().sum(1) - 2 * vectors.detach() @ self.codebook.T
        return squared.argmin(-1)

    @torch.no_grad()
    @without_autocast
    def update(self, vectors: Tensor, codes: Tensor, decay: float) -> None:
        """Update the running means, over all processes.

        Args:
            vectors: (N, D).
            codes: index of the code nearest to each vector, (N,).
            decay: decay of the running means; in [0, 1).
        """
        chosen = torch.nn.functional.one_hot(codes, len(self.codebook)).to(vectors)  # (N, C)
        counts, sums = chosen.mean(0), chosen.T @ vectors / len(vectors)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            for value in (counts, sums):
                torch.distributed.all_reduce(value)
                value /= torch.distributed.get_world_size()
        self.counts.lerp_(counts, 1 - decay)
        self.sums.lerp_(sums, 1 - decay)
        uniform_share = 1 / len(self.codebook)
        # With several processes, the draws of rank 0 count: DDP sends its buffers to the others.
        replacements = vectors[torch.randint(len(vectors), (len(self.codebook),), device=vectors.device)]
        dead = self.counts <= self.restart_below * uniform_share
        self.counts.masked_fill_(dead, uniform_share)
        self.sums.copy_(torch.where(dead[:, None], uniform_share * replacements, self.sums))
        self.codebook.copy_(self.sums / self.counts[:, None])

    @torch.no_grad()
    def init_from_data(self, vectors: Tensor, steps: int = 10) -> None:
        """Initialize the codes by k-means on vectors (N, D), from randomly chosen ones."""
        order = torch.randperm(len(vectors), device=vectors.device)
        self.codebook.copy_(vectors[order[torch.arange(len(self.codebook)) % len(vectors)]])
        for _ in range(steps):
            self.update(vectors, self.nearest(vectors), decay=0.0)

    def forward(self, inputs: Tensor) -> NearestCode:
        """Quantize vectors (B, n, D); in training mode, update the codebook."""
        inputs = inputs.to(self.codebook.dtype)
        codes = self.nearest(inputs)
        embeddings = self.codebook[codes]
        if self.training:
            self.update(inputs.detach().flatten(0, 1), codes.flatten(), self.decay)
        return NearestCode(inputs, codes, inputs + (embeddings - inputs).detach())
