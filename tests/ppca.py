"""Linear-Gaussian models with exact answers: data of a chosen spectrum, and VAEs whose weights are set by hand.

With a linear decoder x = W z + mu + sigma eps the evidence is Gaussian, the posterior is
N(M^-1 W'(x - mu), sigma^2 M^-1) with M = W'W + sigma^2 I, and log p(x | z) is quadratic in z, so
that expectations under a Gaussian q are finite sums (Tipping & Bishop 1999; Lucas et al. 2019).
"""

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from vaezoo.families import FixedScaleNormal
from vaezoo.models import VAE
from vaezoo.nets import MLP
from vaezoo.trace import Latent, Trace

linear = partial(MLP, hidden=[])


def generator(seed: int) -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(seed)


def rotation(size: int, seed: int) -> Tensor:
    """A random orthogonal matrix, float64."""
    return torch.linalg.qr(torch.randn(size, size, dtype=torch.float64, generator=generator(seed))).Q


def inverse_soft_floor(y: Tensor, floor: float) -> Tensor:
    """The raw number that ``soft_floor`` sends to y > floor."""
    return y + torch.log(-torch.expm1(floor - y))


def data_with_spectrum(eigenvalues: Tensor, num: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Data (num, D), its mean and its principal axes (columns); the sample covariance (1 / num) is exact."""
    dim = len(eigenvalues)
    noise = torch.randn(num, dim, dtype=torch.float64, generator=generator(seed))
    scores = torch.linalg.qr(noise - noise.mean(0)).Q * math.sqrt(num)
    axes = rotation(dim, seed + 1)
    mean = torch.linspace(-1, 1, dim, dtype=torch.float64)
    return scores * eigenvalues.sqrt() @ axes.T + mean, mean, axes


@dataclass
class PPCA:
    """x = weight z + mean + sqrt(variance) eps."""

    weight: Tensor
    mean: Tensor
    variance: float

    @classmethod
    def fit(cls, eigenvalues: Tensor, mean: Tensor, axes: Tensor, latent_dim: int, turn: Tensor) -> "PPCA":
        """The maximum-likelihood solution W = U (Lambda - sigma^2 I)^1/2 R."""
        variance = float(eigenvalues[latent_dim:].mean())
        return cls(axes[:, :latent_dim] * (eigenvalues[:latent_dim] - variance).sqrt() @ turn, mean, variance)

    @property
    def m(self) -> Tensor:
        """M = W'W + sigma^2 I."""
        return self.weight.T @ self.weight + self.variance * torch.eye(self.weight.shape[1], dtype=torch.float64)

    @property
    def evidence(self) -> MultivariateNormal:
        """p(x) = N(mean, WW' + sigma^2 I)."""
        noise = self.variance * torch.eye(len(self.mean), dtype=torch.float64)
        return MultivariateNormal(self.mean, self.weight @ self.weight.T + noise)

    def posterior(self, x: Tensor) -> MultivariateNormal:
        """p(z | x)."""
        inverse = torch.linalg.inv(self.m)
        return MultivariateNormal((x.flatten(1) - self.mean) @ self.weight @ inverse, self.variance * inverse)

    def vae(self, data_shape: tuple[int, ...]) -> VAE:
        """The VAE with this decoder and the best diagonal posterior: mean M^-1 W'(x - mu), variance sigma^2 / M_dd."""
        latent_dim = self.weight.shape[1]
        sigma = math.sqrt(self.variance)
        parts = {"encoder": linear, "decoder": linear, "likelihood": FixedScaleNormal(sigma)}
        model = VAE(data_shape, latent_dim=latent_dim, **parts).double()
        gain = torch.linalg.inv(self.m) @ self.weight.T
        log_scale = (self.variance / self.m.diagonal()).log() / 2
        with torch.no_grad():
            (decoder,), (encoder,) = model.decoder.net.layers, model.encoder.net.layers
            decoder.weight.copy_(self.weight)
            decoder.bias.copy_(self.mean)
            encoder.weight.zero_()[:latent_dim] = gain
            encoder.bias[:latent_dim] = -gain @ self.mean
            encoder.bias[latent_dim:] = inverse_soft_floor(log_scale, model.encoder.family.min_log_scale)
        return model


def trace_at(model: VAE, x: Tensor, eps: Tensor) -> Trace:
    """The model's pass with the noise given: z = E_q[z] + eps * stddev, eps (K, B, D)."""
    q = model.encoder(x)
    z = q.mean + eps * q.stddev
    return Trace(x, model.decoder(z), (Latent(q, model.prior(), z),))


def exact_trace(model: VAE, x: Tensor) -> Trace:
    """The pass at the 2 D points +-sqrt(D) e_d, whose mean is exact for every function quadratic in z."""
    dim = model.latent_shape[0]
    points = math.sqrt(dim) * torch.eye(dim, dtype=x.dtype)
    return trace_at(model, x, torch.cat([points, -points])[:, None])  # (K, 1, D)
