"""Ex-post density estimation: samplers of z that are fitted to the codes of training images.

The aggregate posterior of a trained VAE may differ from its prior p(z). Samples of the prior from regions without
codes decode to poor images. Each function here fits a density to codes (N, D), flattened posterior means or samples of
training images, and returns a ``Sampler`` of z, to be decoded by the caller:

* ``gmm_sampler``: a mixture of normals (Ghosh et al. 2020, From Variational to Deterministic Autoencoders,
  https://arxiv.org/abs/1903.12436);
* ``flow_sampler``: a normalizing flow;
* ``two_stage_sampler``: a second VAE (Dai & Wipf 2019, Diagnosing and Enhancing VAE Models,
  https://arxiv.org/abs/1903.05789).
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal
from torch.optim import Adam
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.families import SharedScaleNormal
from vaezoo.models import VAE
from vaezoo.nets import MLP
from vaezoo.priors import FlowPrior
from vaezoo.training.eval_mode import evaluating

CPU = torch.device("cpu")
MAX_ROUNDS = 60  # of 50 batches each


@dataclass(frozen=True)
class Sampler:
    """Sample z.

    Args:
        draw: returns ``num`` samples (num, D), drawn from the default random generator of ``device``.
        device: device that the samples are drawn on.
    """

    draw: Callable[[int], Tensor]
    device: torch.device = CPU

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0) -> Tensor:
        """Return ``num`` samples, float32 (num, D): a function of ``num`` and ``seed`` only."""
        with seeding.isolated(self.device, seed, "sampler"):
            return self.draw(num).float()

    @classmethod
    def from_distribution(cls, distribution: Distribution, device: torch.device = CPU) -> "Sampler":
        """Make a sampler of a distribution p(z), for example of ``model.prior()``.

        Args:
            distribution: p(z); its samples are flattened to vectors.
            device: device of its parameters.

        >>> from torch.distributions import Normal
        >>> Sampler.from_distribution(Normal(torch.zeros(2), torch.ones(2))).sample(5).shape
        torch.Size([5, 2])
        """
        return cls(lambda num: distribution.sample(torch.Size([num])).flatten(1), device)


def check_codes(codes: Tensor) -> Tensor:
    """Return the codes in float64 on the CPU.

    Raises:
        ValueError: there are fewer than 2 codes (N, D), or they are not finite.
    """
    if codes.dim() != 2 or len(codes) < 2:
        raise ValueError(f"a sampler needs at least 2 codes (N, D), got the shape {tuple(codes.shape)}")
    if not codes.isfinite().all():
        raise ValueError("a sampler needs finite codes, got NaN or infinity")
    return codes.detach().to(CPU, torch.float64)


def fit_gaussian_mixture(codes: Tensor, seed: int = 0, num_components: int = 10) -> MixtureSameFamily:
    """Fit a mixture of normals with full covariances to codes, by expectation maximization (at most 200 iterations).

    Args:
        codes: codes (N, D), N >= num_components.
        seed: seed of the initialization by k-means.
        num_components: number of normals, >= 1. A single one has the mean and the covariance (with 1/N, plus 1e-6 I) of
            the codes.

    Returns:
        p(z), float64.
    """
    from sklearn.mixture import GaussianMixture  # imported here, since it takes a second

    codes = check_codes(codes)
    if not 1 <= num_components <= len(codes):
        raise ValueError(f"num_components must be from 1 to {len(codes)}, the number of codes, got {num_components}")
    state = seeding.derive(seed, "mixture") % 2**32
    fitted = GaussianMixture(num_components, max_iter=200, random_state=state).fit(codes.numpy())
    weights, means, covariances = map(torch.from_numpy, (fitted.weights_, fitted.means_, fitted.covariances_))
    components = MultivariateNormal(means, scale_tril=torch.linalg.cholesky(covariances))
    return MixtureSameFamily(Categorical(weights), components)


def gmm_sampler(codes: Tensor, seed: int = 0, num_components: int = 10) -> Sampler:
    """Fit a mixture of normals to codes: ex-post density estimation of Ghosh et al. 2020.

    Ghosh et al. fit 10 components to posterior means.

    Args:
        codes: codes (N, D), N >= num_components.
        seed: seed of the initialization by k-means.
        num_components: number of normals, each with a full covariance.

    >>> codes = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
    >>> gmm_sampler(codes, num_components=2).sample(5).shape
    torch.Size([5, 2])
    """
    return Sampler.from_distribution(fit_gaussian_mixture(codes, seed, num_components))


def whiten(codes: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Whiten codes: rotate them to their principal axes, with mean 0 and covariance I.

    A density that is then fitted from a standard normal has the mean and the covariance of the codes from the start.
    Axes along which the codes vary less than 1e-6 of the largest standard deviation are removed: r <= D are left. The
    map back gives constant values along the removed axes.

    Args:
        codes: codes (N, D).

    Returns:
        The whitened codes, float32 (N, r), and the map from (num, r) back to (num, D).
    """
    codes = check_codes(codes)
    mean = codes.mean(0)
    _, spread, axes = torch.linalg.svd(codes - mean, full_matrices=False)
    kept = spread > 1e-6 * spread[0]
    if not kept.any():
        raise ValueError("a sampler needs codes that differ, got equal ones")
    back = spread[kept, None] / (len(codes) - 1) ** 0.5 * axes[kept]  # (r, D)
    forth = (axes[kept] * ((len(codes) - 1) ** 0.5 / spread[kept, None])).T
    return ((codes - mean) @ forth).float(), lambda white: white.double() @ back + mean


@torch.enable_grad()
def fit_density(module: nn.Module, loss: Callable[[Tensor], Tensor], codes: Tensor, name: str) -> float:
    """Fit a density by Adam with early stopping, since a flexible density overfits a few thousand codes.

    A tenth of the codes is held out. Their loss is computed at the start and after every 50 batches of 256 codes. The
    training ends after 10 losses in a row that are not the lowest, or after 60 in all; the weights are those of the
    lowest loss. (10,000 codes of 50 dimensions are few: trained longer, a flow soon gives held-out codes a lower
    density than a normal does.)

    Args:
        module: the density.
        loss: returns the mean loss of codes (B, D).
        codes: codes (N, D).
        name: text of the progress bar.

    Returns:
        The lowest loss of the held-out codes.
    """
    order = torch.randperm(len(codes))
    held_out, known = codes[order[: len(codes) // 10 + 1]], codes[order[len(codes) // 10 + 1 :]]
    optimizer = Adam(module.parameters(), lr=1e-3)
    least, best, since = torch.inf, {}, 0
    for _ in tqdm(range(MAX_ROUNDS), name, leave=False, disable=None, delay=3):
        with evaluating(module), seeding.isolated(CPU, 0, "held-out codes"):  # the same noise each time
            value = float(loss(held_out))
        since = 0 if value < least else since + 1
        if since == 0:
            least, best = value, deepcopy(module.state_dict())
        if since == 10:
            break
        for _ in range(50):
            batch = known[torch.randint(len(known), (256,))]
            optimizer.zero_grad()
            loss(batch).backward()
            optimizer.step()
    module.load_state_dict(best)
    return least


def flow_sampler(codes: Tensor, seed: int = 0, num_flows: int = 6, hidden: Sequence[int] = (64,)) -> Sampler:
    """Fit a normalizing flow of affine couplings (``vaezoo.priors.FlowPrior``) to codes, by maximum likelihood.

    Args:
        codes: samples of q(z | x), (N, D), that vary along at least 2 directions.
        seed: seed of the weights and the batches.
        num_flows: number of couplings.
        hidden: width of each hidden layer of a coupling.
    """
    white, back = whiten(codes)
    with seeding.isolated(CPU, seed, "flow"):
        p = FlowPrior(white.shape[1:], num_flows=num_flows, hidden=hidden)
        fit_density(p, lambda z: -p().log_prob(z).mean(), white, "flow of the codes")
    return Sampler(lambda num: back(p().sample(torch.Size([num]))))


def two_stage_sampler(codes: Tensor, seed: int = 0, hidden: Sequence[int] = (128, 128)) -> Sampler:
    """Fit a second VAE to the codes of the first one: Dai & Wipf 2019.

        u ~ N(0, I),    z ~ N(mu(u), sigma^2 I)

    u and the whitened codes have the same dimension. As in the paper, the codes are samples of q(z | x), sigma is
    learned, and its noise is part of a sample. Differs from the paper: the codes are whitened, sigma has two initial
    values, the networks are small (the paper's have three layers of 1,024), and held-out codes choose the initial value
    and end the training (the paper trains for 800 epochs).

    Args:
        codes: samples of q(z | x), (N, D).
        seed: seed of the weights, the batches and the noise of the training.
        hidden: width of each hidden layer of both networks.
    """
    white, back = whiten(codes)
    dim = white.shape[1]
    net = partial(MLP, hidden=hidden, activation="relu")

    def trained(scale: float) -> tuple[float, VAE]:
        likelihood = SharedScaleNormal(initial_scale=scale)
        with seeding.isolated(CPU, seed, "two-stage"):
            model = VAE((dim,), latent_dim=dim, encoder=net, decoder=net, likelihood=likelihood)
            return fit_density(model, lambda z: model.objective(model(z))["loss"], white, "second VAE"), model

    # sigma near 1, the standard deviation of whitened codes, leads to a solution that ignores u: a normal without the
    # modes of the codes. A much smaller initial sigma finds the modes if there are few dimensions; if there are many,
    # the aggregate q(u) may stay far from N(0, I). So both are tried.
    _, model = min((trained(scale) for scale in (0.2, 1.0)), key=lambda pair: pair[0])

    def draw(num: int) -> Tensor:
        with evaluating(model):
            return back(model.sample(num).sample())

    return Sampler(draw)
