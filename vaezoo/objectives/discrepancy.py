"""Losses with a distance between samples of the aggregate posterior q(z) and samples of the prior p(z).

Shapes: K posterior samples, B batch, D latent dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vaezoo.objectives.base import Objective
from vaezoo.trace import Latent, Trace

Kernel = Callable[[Tensor, Tensor], Tensor]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Return |x_i - y_j|^2, (n, m), for x (n, D) and y (m, D)."""
    return (x.unsqueeze(1) - y).square().sum(2)  # a matrix product would cancel digits, and autocast would round it


def rbf(x: Tensor, y: Tensor) -> Tensor:
    """Return the Gaussian kernel exp(-|x - y|^2 / (2 D)), (n, m), for x (n, D) and y (m, D)."""
    return torch.exp(-squared_distances(x, y) / (2 * x.shape[1]))


def imq(x: Tensor, y: Tensor) -> Tensor:
    """Return the inverse multiquadratic kernel, (n, m), for x (n, D) and y (m, D), the mean over seven scales s.

        k(x, y) = mean_s C_s / (C_s + |x - y|^2),  C_s = 2 D s,  s in {0.1, 0.2, 0.5, 1, 2, 5, 10}

    2 D is the expected squared distance between two samples of N(0, I).
    """
    distances = squared_distances(x, y)
    kernels = [c / (c + distances) for c in (2 * x.shape[1] * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))]
    return torch.stack(kernels).mean(0)


KERNELS: dict[str, Kernel] = {"imq": imq, "rbf": rbf}


def sample_prior(latent: Latent) -> Tensor:
    """Return as many samples of p(z) as there are of q, (K, B, *event), reparameterized if p can do that."""
    p = latent.p
    shape = latent.z.shape[: latent.z.dim() - len(p.batch_shape) - len(p.event_shape)]
    return p.rsample(shape) if p.has_rsample else p.sample(shape)


def mmd(z: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Return the unbiased estimate (U-statistic) of MMD^2, the squared maximum mean discrepancy.

        mean k(z_i, z_j) + mean k(y_i, y_j) - 2 mean k(z_i, y_j)

    The first two means are over pairs of different examples, the third is over all pairs. If the two distributions
    are equal, the expectation is 0, so the estimate can be negative.

    Gretton et al. 2012, A Kernel Two-Sample Test, https://jmlr.org/papers/v13/gretton12a.html.

    Args:
        z: samples of one distribution, (K, B, *event). The K samples of one example depend on each other, so pairs of
            them are left out.
        y: samples of the other distribution, (K, B, *event).
        kernel: k, a function of (n, D) and (m, D) that returns (n, m).
    """
    samples, batch = z.shape[:2]
    if batch == 1:
        return 0 * z.sum()  # there is no pair of different examples
    z, y = z.flatten(0, 1).flatten(1), y.flatten(0, 1).flatten(1)
    example = torch.arange(batch, device=z.device).repeat(samples)
    others = (example.unsqueeze(1) != example).to(z.dtype)
    pairs = samples**2 * batch * (batch - 1)
    within = ((kernel(z, z) + kernel(y, y)) * others).sum() / pairs
    return within - 2 * kernel(z, y).mean()


def sliced_wasserstein(z: Tensor, y: Tensor, num_projections: int) -> Tensor:
    """Return the squared sliced 2-Wasserstein distance between two sets of samples.

        1/L sum_l 1/n sum_i (sort(<theta_l, z>)_i - sort(<theta_l, y>)_i)^2

    theta_1, ..., theta_L are random directions on the unit sphere. Sorting solves optimal transport in one dimension.
    For equal distributions the distance is above 0 and falls with n.

    Args:
        z: samples of one distribution, (K, B, *event), used as one set of n = K B.
        y: samples of the other distribution, (K, B, *event).
        num_projections: L; >= 1.
    """
    z, y = z.flatten(0, 1).flatten(1), y.flatten(0, 1).flatten(1)
    theta = normalize(torch.randn(z.shape[1], num_projections, dtype=z.dtype, device=z.device), dim=0)

    def sorted_projections(x: Tensor) -> Tensor:  # (n, L); autocast would round a matrix product
        return (x.unsqueeze(2) * theta).sum(1).sort(0).values

    return (sorted_projections(z) - sorted_projections(y)).square().mean()


def get_kernel(kernel: str) -> Kernel:
    """Return the kernel with this name.

    Raises:
        ValueError: there is no kernel with this name.
    """
    if kernel not in KERNELS:
        raise ValueError(f"kernel={kernel} is not one of {', '.join(KERNELS)}")
    return KERNELS[kernel]


class MMD(Objective):
    """The negative log-likelihood plus the MMD between q(z) and the prior.

        loss = -E_q[log p(x | z)] + lambda_mmd MMD^2(q(z), p(z))

    Tolstikhin et al. 2018, Wasserstein Auto-Encoders, https://arxiv.org/abs/1711.01558.

    Args:
        lambda_mmd: weight of MMD^2, in nats; >= 0.
        kernel: "imq" or "rbf".
    """

    has_kl_term = False
    is_batch_coupled = True

    def __init__(self, lambda_mmd: float, kernel: str):
        super().__init__()
        self.kernel = get_kernel(kernel)
        self.set_weight("lambda_mmd", lambda_mmd)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        discrepancy = mmd(trace.latent.z, sample_prior(trace.latent), self.kernel)
        return {"loss": self.get_buffer("lambda_mmd") * discrepancy - trace.mean_log_px, "mmd": discrepancy}


class InfoMMD(Objective):
    """The loss of the InfoVAE, with the MMD as the divergence between q(z) and the prior.

        loss = -E_q[log p(x | z)] + (1 - alpha) KL(q(z | x), p(z)) + (alpha + lambda_mmd - 1) MMD^2(q(z), p(z))

    Zhao et al. 2017, InfoVAE: Balancing Learning and Inference in Variational Autoencoders,
    https://arxiv.org/abs/1706.02262.

    Args:
        alpha: weight of the mutual information I(x; z) that the loss adds to the ELBO; in [0, 1].
        lambda_mmd: lambda, the weight of the divergence between q(z) and p(z); >= 1 - alpha.
        kernel: "imq" or "rbf".
    """

    is_batch_coupled = True

    def __init__(self, alpha: float, lambda_mmd: float, kernel: str):
        super().__init__()
        self.kernel = get_kernel(kernel)
        self.set_weight("alpha", alpha)
        self.set_weight("lambda_mmd", lambda_mmd)
        if alpha > 1 or alpha + lambda_mmd < 1:
            raise ValueError(f"needs alpha in [0, 1] and lambda_mmd >= 1 - alpha, got {alpha} and {lambda_mmd}")

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        discrepancy = mmd(trace.latent.z, sample_prior(trace.latent), self.kernel)
        alpha, lambda_mmd = self.get_buffer("alpha"), self.get_buffer("lambda_mmd")
        loss = (1 - alpha) * self.kl_term(trace) - trace.mean_log_px + (alpha + lambda_mmd - 1) * discrepancy
        return {"loss": loss, "mmd": discrepancy}


class SlicedWasserstein(Objective):
    """The negative log-likelihood plus the sliced Wasserstein distance between q(z) and the prior.

        loss = -E_q[log p(x | z)] + lambda_sw SW_2^2(q(z), p(z))

    Kolouri et al. 2018, Sliced-Wasserstein Autoencoder: An Embarrassingly Simple Generative Model,
    https://arxiv.org/abs/1804.01947.

    Args:
        lambda_sw: weight of the squared distance, in nats; >= 0.
        num_projections: number of random directions in each step; >= 1.
    """

    has_kl_term = False
    is_batch_coupled = True

    def __init__(self, lambda_sw: float, num_projections: int):
        super().__init__()
        if num_projections < 1:
            raise ValueError(f"num_projections must be >= 1, got {num_projections}")
        self.num_projections = num_projections
        self.set_weight("lambda_sw", lambda_sw)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        distance = sliced_wasserstein(trace.latent.z, sample_prior(trace.latent), self.num_projections)
        return {"loss": self.get_buffer("lambda_sw") * distance - trace.mean_log_px, "sw": distance}
