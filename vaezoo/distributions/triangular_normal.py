"""A multivariate normal with a triangular factor of its covariance, and its KL to a diagonal normal."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, register_kl
from torch.distributions import Normal as TorchNormal

from vaezoo.distributions.parameters import get_parameters


class TriangularNormal(MultivariateNormal):
    """N(mu, L L'): torch's ``MultivariateNormal`` with accurate samples under autocast.

    z = mu + L eps is computed without a matrix product, which autocast would round to bf16.

    Args:
        loc: mu, (*batch, D).
        scale_tril: L, lower triangular with a positive diagonal, (*batch, D, D).
    """

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        eps = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + (self.scale_tril * eps.unsqueeze(-2)).sum(-1)


@get_parameters.register
def _(q: TriangularNormal) -> dict[str, Tensor]:
    return {"loc": q.loc, "scale_tril": q.scale_tril}


@register_kl(MultivariateNormal, Independent)
def kl_full_diagonal(q: MultivariateNormal, p: Independent) -> Tensor:
    """Return KL(N(mu, L L'), N(m, diag s^2)), in nats, (*batch,).

    It is sum_d [ln(s_d / L_dd) + (sum_j L_dj^2 + (mu_d - m_d)^2) / (2 s_d^2) - 1/2].

    Raises:
        NotImplementedError: p is not a diagonal normal of vectors. ``Latent.kl`` is then an estimate.
    """
    normal = p.base_dist
    if not isinstance(normal, TorchNormal) or p.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(f"no closed form of KL(MultivariateNormal, {p})")
    tril, variance = q.scale_tril, normal.scale.square()
    second_moment = tril.square().sum(-1) + (q.loc - normal.loc).square()
    log_ratio = normal.scale.log() - tril.diagonal(dim1=-2, dim2=-1).log()
    return (log_ratio + second_moment / (2 * variance) - 0.5).sum(-1)
