"""Distributions on the unit sphere of R^D: the uniform and the von Mises-Fisher distribution.

Everything that depends on the concentration kappa is computed in float64, because densities are small differences of
numbers as large as kappa.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, register_kl

from vaezoo.distributions.bessel import log_area, log_bessel_and_ratio
from vaezoo.distributions.parameters import get_parameters

# Gauss-Legendre quadrature on [0, 1]. Not computed with torch: an eigenvalue problem at import would start OpenMP's
# threads, and jobs that are forked afterwards (``vaezoo.runs.warm``) would wait for them for ever.
nodes, weights = np.polynomial.legendre.leggauss(64)
NODES, WEIGHTS = ((nodes + 1) / 2).tolist(), (weights / 2).tolist()


class HypersphericalUniformDistribution(Distribution):
    """The uniform distribution on the unit sphere of R^D.

    Args:
        mean: zeros, (D,). Samples have its dtype and device.
    """

    has_rsample = True

    def __init__(self, mean: Tensor):
        self.zeros = mean
        super().__init__(torch.Size(), mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.zeros

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.full_like(value[..., 0], -log_area(len(self.zeros)))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return F.normalize(torch.randn(shape, dtype=self.zeros.dtype, device=self.zeros.device), dim=-1)


class VonMisesFisherDistribution(Distribution):
    """The von Mises-Fisher distribution q(z) = exp(kappa mu'z) / (0F1(D/2; kappa^2 / 4) area) on the unit sphere.

    Samples are z = cos(a) mu + sin(a) t, with t uniform among the directions orthogonal to mu. The angle a comes from
    rejection sampling (Ulrich 1984, corrected by Wood 1994): it is the first accepted one of 32 proposals. Each
    proposal is accepted with a probability above 0.65, for every D and kappa. With a probability below 1e-14 none is
    accepted, and the first proposal is used.

    The gradient with respect to kappa is that of the angle at a fixed quantile, da / dkappa = -(dF / dkappa) / f
    (Figurnov et al. 2018, Implicit Reparameterization Gradients, https://arxiv.org/abs/1805.08498), with the integral
    dF / dkappa by quadrature. It is unbiased. The gradient through the accepted proposal, as in the code of Davidson
    et al. 2018, lacks a term. The gradient with respect to mu rotates z together with mu along a great
    circle, which is the rotation that moves z least.

    Args:
        loc: mu, unit vectors, (*batch, D) with D >= 2.
        concentration: kappa > 0, (*batch,).
    """

    has_rsample = True
    num_proposals = 32

    def __init__(self, loc: Tensor, concentration: Tensor):
        self.loc, self.concentration = loc, concentration
        self.dim = loc.shape[-1]
        self.kappa = concentration.double()
        super().__init__(concentration.shape, loc.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return VonMisesFisherDistribution(
            self.loc.expand(*batch_shape, self.dim), self.concentration.expand(batch_shape)
        )

    def log_norm_and_ratio(self) -> tuple[Tensor, Tensor]:
        """Return ln 0F1(D/2; kappa^2 / 4) and its derivative A(kappa) = E[mu'z], both (*batch,) in float64."""
        return log_bessel_and_ratio(self.dim / 2 - 1, self.kappa)

    @property
    def mean(self) -> Tensor:
        """A(kappa) mu, a point inside the sphere."""
        _, ratio = self.log_norm_and_ratio()
        return ratio.to(self.loc.dtype)[..., None] * self.loc

    def log_prob(self, value: Tensor) -> Tensor:
        log_norm, _ = self.log_norm_and_ratio()
        cosine = (self.loc.double() * value.double()).sum(-1)
        return (self.kappa * cosine - log_norm - log_area(self.dim)).to(value.dtype)

    def propose(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return proposed angles and whether each is accepted, both (*shape, num_proposals)."""
        kappa, m = self.kappa.detach()[..., None], self.dim - 1
        b = m / (2 * kappa + torch.sqrt(4 * kappa.square() + m**2))
        x0 = (1 - b) / (1 + b)
        uniforms = torch.rand(3, *shape, self.num_proposals, dtype=torch.float64, device=kappa.device)
        # One coordinate of a uniform point on the sphere, from two uniforms (Ulrich 1984).
        power = 2 / (m - 1) if m > 1 else math.inf
        coordinate = torch.sqrt(1 - uniforms[0].pow(power)) * torch.cos(2 * math.pi * uniforms[1])
        e = (1 + coordinate) / 2  # Beta(m / 2, m / 2)
        gap = 2 * b * e / (1 - (1 - b) * e)  # 1 - w
        w = 1 - gap
        log_accept = kappa * (w - x0) + m * torch.log((1 - x0 * w) / (1 - x0.square()))
        return torch.atan2(torch.sqrt(gap * (2 - gap)), w), log_accept >= uniforms[2].log()

    def angle_slope(self, angle: Tensor) -> Tensor:
        """Return da / dkappa at fixed F(a; kappa).

        The density of a is proportional to exp(kappa cos a) sin(a)^(D - 2). So the slope is the integral of
        (cos b - A) exp(kappa (cos b - cos a)) (sin b / sin a)^(D - 2) over b, from a to 0 or from a to pi. Both give
        the same, because the whole integral is 0; the nearer end loses fewer digits.
        """
        _, mean = self.log_norm_and_ratio()
        a = angle.clamp(1e-12, math.pi - 1e-6)[..., None]  # at both ends the slope is 0, but computed as 0 / 0
        reach = torch.where(a < math.pi / 2, -a, math.pi - a)
        nodes, weights = a.new_tensor(NODES), a.new_tensor(WEIGHTS)
        b = a + reach * nodes
        cosines = 2 * torch.sin((a + b) / 2) * torch.sin((a - b) / 2)  # cos b - cos a
        density = torch.exp(self.kappa[..., None] * cosines) * (torch.sin(b) / torch.sin(a)).pow(self.dim - 2)
        return reach[..., 0] * ((b.cos() - mean[..., None]) * density * weights).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        with torch.no_grad():
            angles, accepted = self.propose(shape)
            first = accepted.to(torch.uint8).argmax(-1, keepdim=True)
            angle = angles.gather(-1, first)[..., 0]
            mu = self.loc.double()
            noise = torch.randn(*shape, self.dim, dtype=torch.float64, device=mu.device)
            tangent = F.normalize(noise - (noise * mu).sum(-1, keepdim=True) * mu, dim=-1)
        if self.kappa.requires_grad:
            with torch.no_grad():
                slope = self.angle_slope(angle)
            angle = angle + (self.kappa - self.kappa.detach()) * slope  # the value of the angle does not change
        mu = self.loc.double()
        turned = tangent - (tangent * mu).sum(-1, keepdim=True) * mu  # equal to the tangent, but it moves with mu
        z = angle.cos()[..., None] * mu + angle.sin()[..., None] * turned
        return z.to(self.loc.dtype)


@get_parameters.register
def _(q: VonMisesFisherDistribution) -> dict[str, Tensor]:
    return {"loc": q.loc, "concentration": q.concentration}


@register_kl(VonMisesFisherDistribution, HypersphericalUniformDistribution)
def kl_von_mises_fisher_uniform(q: VonMisesFisherDistribution, p: HypersphericalUniformDistribution) -> Tensor:
    """Return the KL, kappa A(kappa) - ln 0F1(D/2; kappa^2 / 4), in nats, (*batch,). It is 0 at kappa = 0."""
    log_norm, ratio = q.log_norm_and_ratio()
    return (q.kappa * ratio - log_norm).to(q.concentration.dtype)
