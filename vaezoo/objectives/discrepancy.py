"""Objectives that compare samples of the aggregate posterior q(z) with samples of the prior.

Shapes: K samples, B batch, D latent dimensions.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from vaezoo.objectives.base import Objective
from vaezoo.trace import Latent, Trace

Kernel = Callable[[Tensor, Tensor], Tensor]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 of x (n, D) and y (m, D), (n, m)."""
    return (x.unsqueeze(1) - y).square().sum(2)  # no matrix product: it cancels, and autocast would round it


def rbf(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = exp(-|x - y|^2 / (2 D))."""
    return torch.exp(-squared_distances(x, y) / (2 * x.shape[1]))


def imq(x: Tensor, y: Tensor) -> Tensor:
    """k(x, y) = mean_s C_s / (C_s + |x - y|^2), C_s = 2 D s, s in {.1, .2, .5, 1, 2, 5, 10}.

    2 D is the expected squared distance of two draws of N(0, I).
    """
    distances = squared_distances(x, y)
    kernels = [c / (c + distances) for c in (2 * x.shape[1] * s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))]
    return torch.stack(kernels).mean(0)


KERNELS: dict[str, Kernel] = {"imq": imq, "rbf": rbf}


def sample_prior(latent: Latent) -> Tensor:
    """As many samples of p(z) as there are of q, (K, B, *event): with a gradient where p has one."""
    p = latent.p
    shape = latent.z.shape[: latent.z.dim() - len(p.batch_shape) - len(p.event_shape)]
    return p.rsample(shape) if p.has_rsample else p.sample(shape)


def mmd(z: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """The unbiased estimate (U-statistic) of MMD^2, the squared maximum mean discrepancy
    (Gretton et al. 2012, https://jmlr.org/papers/v13/gretton12a.html):

        mean k(z_i, z_j) + mean k(y_i, y_j) - 2 mean k(z_i, y_j)

    The first two means are over pairs of different examples, the last is over all pairs. Its mean is
    0 where the distributions are equal, and so it may be negative.

    Args:
        z: (K, B, *event); the K samples of an example hang together, so pairs of them are left out.
        y: the other distribution's samples, of the same shape.
        kernel: k, from (n, D) and (m, D) to (n, m).
    """
    samples, batch = z.shape[:2]
    if batch == 1:
        return 0 * z.sum()  # there is no pair to estimate from
    z, y = z.flatten(0, 1).flatten(1), y.flatten(0, 1).flatten(1)
    example = torch.arange(batch, device=z.device).repeat(samples)
    others = (example.unsqueeze(1) != example).to(z.dtype)
    pairs = samples**2 * batch * (batch - 1)
    within = ((kernel(z, z) + kernel(y, y)) * others).sum() / pairs
    return within - 2 * kernel(z, y).mean()


def sliced_wasserstein(z: Tensor, y: Tensor, num_projections: int) -> Tensor:
    """The squared sliced 2-Wasserstein distance of two samples:

        1/L sum_l 1/n sum_i (sort(<theta_l, z>)_i - sort(<theta_l, y>)_i)^2

    with L random directions theta_l on the unit sphere: sorting solves optimal transport in one
    dimension. Samples of equal distributions are at a distance above 0, which falls with n.

    Args:
        z: (K, B, *event), taken as one sample of n = K B.
        y: the other distribution's samples, of the same shape.
        num_projections: L.
    """
    z, y = z.flatten(0, 1).flatten(1), y.flatten(0, 1).flatten(1)
    theta = normalize(torch.randn(z.shape[1], num_projections, dtype=z.dtype, device=z.device), dim=0)

    def sorted_projections(x: Tensor) -> Tensor:  # (n, L); no matrix product: autocast would round it
        return (x.unsqueeze(2) * theta).sum(1).sort(0).values

    return (sorted_projections(z) - sorted_projections(y)).square().mean()


def get_kernel(kernel: str) -> Kernel:
    """The kernel of this name, or a ValueError."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel={kernel} is not one of {', '.join(KERNELS)}")
    return KERNELS[kernel]


class MMD(Objective):
    """loss = -E_q[log p(x | z)] + lambda_mmd MMD^2(q(z), p(z))
    (Tolstikhin et al. 2018, https://arxiv.org/abs/1711.01558).

    Args:
        lambda_mmd: weight of the discrepancy, nats; >= 0.
        kernel: imq or rbf.
    """

    has_kl_term = False
    is_batch_coupled = True

    def __init__(self, lambda_mmd: float = 100.0, kernel: str = "imq"):
        super().__init__()
        self.kernel = get_kernel(kernel)
        self.set_weight("lambda_mmd", lambda_mmd)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        discrepancy = mmd(trace.latent.z, sample_prior(trace.latent), self.kernel)
        return {"loss": self.get_buffer("lambda_mmd") * discrepancy - trace.log_px.mean(), "mmd": discrepancy}


class InfoMMD(Objective):
    """loss = -E_q[log p(x | z)] + (1 - alpha) KL(q, p) + (alpha + lambda_mmd - 1) MMD^2(q(z), p(z))
    (Zhao et al. 2017, https://arxiv.org/abs/1706.02262, with the MMD for its divergence
    of q(z) from p(z)).

    Args:
        alpha: how much of the mutual information I(x; z) is given free of charge, in [0, 1].
        lambda_mmd: lambda, which weighs the aggregate's distance from the prior; >= 1 - alpha.
        kernel: imq or rbf.
    """

    is_batch_coupled = True

    def __init__(self, alpha: float = 0.5, lambda_mmd: float = 100.0, kernel: str = "rbf"):
        super().__init__()
        self.kernel = get_kernel(kernel)
        self.set_weight("alpha", alpha)
        self.set_weight("lambda_mmd", lambda_mmd)
        if alpha > 1 or alpha + lambda_mmd < 1:
            raise ValueError(f"needs alpha in [0, 1] and lambda_mmd >= 1 - alpha, got {alpha} and {lambda_mmd}")

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        discrepancy = mmd(trace.latent.z, sample_prior(trace.latent), self.kernel)
        alpha, lambda_mmd = self.get_buffer("alpha"), self.get_buffer("lambda_mmd")
        loss = (1 - alpha) * self.kl_term(trace) - trace.log_px.mean() + (alpha + lambda_mmd - 1) * discrepancy
        return {"loss": loss, "mmd": discrepancy}


class SlicedWasserstein(Objective):
    """loss = -E_q[log p(x | z)] + lambda_sw SW_2^2(q(z), p(z))
    (Kolouri et al. 2018, https://arxiv.org/abs/1804.01947).

    Args:
        lambda_sw: weight of the distance, nats; >= 0.
        num_projections: random directions of each step; >= 1.
    """

    has_kl_term = False
    is_batch_coupled = True

    def __init__(self, lambda_sw: float = 10.0, num_projections: int = 50):
        super().__init__()
        if num_projections < 1:
            raise ValueError(f"num_projections must be >= 1, got {num_projections}")
        self.num_projections = num_projections
        self.set_weight("lambda_sw", lambda_sw)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        distance = sliced_wasserstein(trace.latent.z, sample_prior(trace.latent), self.num_projections)
        return {"loss": self.get_buffer("lambda_sw") * distance - trace.log_px.mean(), "sw": distance}
