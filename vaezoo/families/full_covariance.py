"""The normal posterior with a full covariance matrix."""

import math

import torch
from torch import Tensor

from vaezoo.distributions import TriangularNormal
from vaezoo.distributions.numerics import soft_floor
from vaezoo.families.posterior import Posterior
from vaezoo.types import Shape


class FullCovarianceNormal(Posterior):
    """N(mu, L L') with L lower triangular and a positive diagonal: a normal with any covariance matrix.

    L = diag(s) (I + N / sqrt(D)), where N is strictly lower triangular. Relative to the scales s, and divided by
    sqrt(D), the N of an untrained network adds little noise to z. Raw outputs: mu, ln s with a soft floor as in
    ``Normal``, and D // 2 more, whose first D (D - 1) / 2 numbers are the rows of N; the other numbers are not used.

    Reference: Kingma & Welling 2019, An Introduction to Variational Autoencoders, https://arxiv.org/abs/1906.02691,
    section 2.5.1.

    Args:
        shape: shape of the latent, (D,).
        min_log_scale: floor of ln s.
    """

    def __init__(self, shape: Shape, min_log_scale: float = -7.0):
        super().__init__()
        if len(shape) != 1:
            raise ValueError(f"a full covariance needs a latent of shape (D,), got {tuple(shape)}: use another one")
        self.min_log_scale = min_log_scale
        self.num_outputs = 2 + shape[0] // 2  # ceil((D - 1) / 2) is D // 2

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a normal with a full covariance does not factorize over dimensions"}

    def forward(self, *params: Tensor) -> TriangularNormal:
        loc, log_scale, *below = params
        dim = loc.shape[-1]
        scale = soft_floor(log_scale, self.min_log_scale).exp()
        tril = torch.diag_embed(scale)
        if below:
            rows, columns = torch.tril_indices(dim, dim, -1, device=loc.device)
            relative = torch.cat(below, -1)[..., : len(rows)] / math.sqrt(dim)
            tril[..., rows, columns] = scale[..., rows] * relative
        return TriangularNormal(loc, scale_tril=tril, validate_args=False)
