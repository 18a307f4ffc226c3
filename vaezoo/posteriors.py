"""Posteriors q(z | x): families over a whole latent, made from its shape."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, register_kl
from torch.distributions import Normal as TorchNormal

from vaezoo.conditional import Shape
from vaezoo.families import Family, Normal, soft_floor

PosteriorFactory = Callable[[Shape], Family]


def diagonal_normal(shape: Shape) -> Normal:
    """N(mu(x), diag sigma(x)^2), for a latent of any shape."""
    return Normal()


class Posterior(Family):
    """A family over a whole latent, whose dimensions may depend on each other.

    ``forward`` takes ``n_params`` planes, each (*batch, *latent_shape); what needs fewer numbers than
    a multiple of the latent's takes them from the planes laid end to end.
    """

    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("training starts from the mean of the data: likelihoods alone know one")


class TriangularNormal(MultivariateNormal):
    """torch's, but z = mu + L eps keeps its digits under autocast, which rounds matrix products to bf16."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril * eps.unsqueeze(-2)).sum(-1)


class FullCovarianceNormal(Posterior):
    """N(mu, L L'), L lower triangular with a positive diagonal: any covariance there is.

    Kingma & Welling 2019, https://arxiv.org/abs/1906.02691, section 2.5.1. L = diag(s) (I + N / sqrt(D))
    for D dimensions: relative to the scales s, and divided by sqrt(D), a fresh network's N adds little
    noise to z. The planes are mu, ln s with a soft floor as in ``Normal``, and ceil((D - 1) / 2) more,
    whose first D (D - 1) / 2 numbers are N's rows below the diagonal; the rest are not used.

    Args:
        shape: (D,).
        min_log_scale: floor of ln s.
    """

    def __init__(self, shape: Shape, min_log_scale: float = -7.0):
        super().__init__()
        if len(shape) != 1:
            raise ValueError(f"a full covariance is over one vector z, got the latent's shape {tuple(shape)}")
        self.min_log_scale = min_log_scale
        self.n_params = 2 + shape[0] // 2  # ceil((D - 1) / 2) is D // 2

    def forward(self, *params: Tensor) -> "TriangularNormal":
        loc, log_scale, *below = params
        dim = loc.shape[-1]
        scale = soft_floor(log_scale, self.min_log_scale).exp()
        tril = torch.diag_embed(scale)
        if below:
            rows, columns = torch.tril_indices(dim, dim, -1, device=loc.device)
            relative = torch.cat(below, -1)[..., : len(rows)] / math.sqrt(dim)
            tril[..., rows, columns] = scale[..., rows] * relative
        return TriangularNormal(loc, scale_tril=tril, validate_args=False)


@register_kl(MultivariateNormal, Independent)
def kl_full_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """KL(N(mu, L L'), N(m, diag s^2)) = sum_d [ln(s_d / L_dd) + (sum_j L_dj^2 + (mu_d - m_d)^2) / (2 s_d^2) - 1/2].

    Raises:
        NotImplementedError: p is not a diagonal normal over vectors; ``Latent.kl`` then estimates.
    """
    normal = p.base_dist
    if not isinstance(normal, TorchNormal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(f"no closed form of KL(MultivariateNormal, {p})")
    tril, variance = q.scale_tril, normal.scale.square()
    second_moment = tril.square().sum(-1) + (q.loc - normal.loc).square()
    log_ratio = normal.scale.log() - tril.diagonal(dim1=-2, dim2=-1).log()
    return (log_ratio + second_moment / (2 * variance) - 0.5).sum(-1)
