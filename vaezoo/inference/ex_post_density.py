"""Where z comes from when a trained model is sampled: its prior, or a density fitted to the codes of training images.

A VAE's aggregate posterior need not be its prior, and decoded draws from where no code lies look like no image (the
prior's holes). Each fit takes codes (N, D), flattened posterior means or draws of training images, and gives a
``Sampler``; what it draws is for the caller to decode.
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
MAX_ROUNDS = 60  # of training, at most


@dataclass(frozen=True)
class Sampler:
    """Draws of z.

    Args:
        draw: gives ``num`` draws (num, D) from the default random stream of ``device``.
        device: where they are drawn.
    """

    draw: Callable[[int], Tensor]
    device: torch.device = CPU

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0) -> Tensor:
        """``num`` draws, (num, D), float32: a function of num and seed."""
        with seeding.isolated(self.device, seed, "sampler"):
            return self.draw(num).float()

    @classmethod
    def from_distribution(cls, distribution: Distribution, device: torch.device = CPU) -> "Sampler":
        """Sample from a distribution, such as the model's own p(z), ``model.prior()``.

        Args:
            distribution: p(z).
            device: device of its parameters.
        """
        return cls(lambda num: distribution.sample(torch.Size([num])).flatten(1), device)


def check_codes(codes: Tensor) -> Tensor:
    """The codes (N, D) in float64, or a ValueError where nothing can be fitted to them."""
    if codes.dim() != 2 or len(codes) < 2:
        raise ValueError(f"a sampler is fitted to at least 2 codes (N, D), got shape {tuple(codes.shape)}")
    if not codes.isfinite().all():
        raise ValueError("a sampler cannot be fitted to codes that are not finite")
    return codes.detach().to(CPU, torch.float64)


def fit_gaussian_mixture(codes: Tensor, seed: int = 0, num_components: int = 10) -> MixtureSameFamily:
    """A mixture of normals with full covariances, fitted by expectation maximisation: p(z), in float64.

    Args:
        codes: (N, D); N >= num_components.
        seed: names the start, from k-means.
        num_components: >= 1; with 1 it has the codes' mean and covariance (with 1/N, plus 1e-6 I).
    """
    from sklearn.mixture import GaussianMixture  # a second of import that who only trains need not pay

    codes = check_codes(codes)
    if not 1 <= num_components <= len(codes):
        raise ValueError(f"num_components must be from 1 to the number of codes, {len(codes)}, got {num_components}")
    state = seeding.derive(seed, "mixture") % 2**32
    fitted = GaussianMixture(num_components, max_iter=200, random_state=state).fit(codes.numpy())
    weights, means, covariances = map(torch.from_numpy, (fitted.weights_, fitted.means_, fitted.covariances_))
    components = MultivariateNormal(means, scale_tril=torch.linalg.cholesky(covariances))
    return MixtureSameFamily(Categorical(weights), components)


def gmm_sampler(codes: Tensor, seed: int = 0, num_components: int = 10) -> Sampler:
    """Ex-post density estimation by a mixture of normals: Ghosh et al. 2020, https://arxiv.org/abs/1903.12436.

    10 components with full covariances on the codes, there the posterior's means; at most 200 iterations.

    Args:
        codes, seed, num_components: as ``mixture``.
    """
    return Sampler.from_distribution(fit_gaussian_mixture(codes, seed, num_components))


def whiten(codes: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Codes (N, D) with mean 0 and covariance I along their principal axes, and the map back.

    Axes along which the codes do not vary (less than 1e-6 of the most) are left out: r <= D are left, and what the
    map gives back is constant along the others. So a fit starts from the normal with the codes' mean and covariance,
    and learns what differs from it.

    Returns:
        (N, r) in float32, and the map from (num, r) to (num, D).
    """
    codes = check_codes(codes)
    mean = codes.mean(0)
    _, spread, axes = torch.linalg.svd(codes - mean, full_matrices=False)
    kept = spread > 1e-6 * spread[0]
    if not kept.any():
        raise ValueError("a sampler cannot be fitted to codes that are all equal")
    back = spread[kept, None] / (len(codes) - 1) ** 0.5 * axes[kept]  # (r, D)
    forth = (axes[kept] * ((len(codes) - 1) ** 0.5 / spread[kept, None])).T
    return ((codes - mean) @ forth).float(), lambda white: white.double() @ back + mean


@torch.enable_grad()
def fit_density(module: nn.Module, loss: Callable[[Tensor], Tensor], codes: Tensor, name: str) -> float:
    """Fit a density by Adam, and stop before it learns the codes by heart.

    A tenth of the codes is held out. Their loss is taken at the start and every 50 batches of 256; the weights stay
    those of its least value, and the training ends when 10 in a row have not been less, or after 60.
    (10,000 codes of 50 dimensions are few: trained on, a flow soon gives unseen codes less than a normal does.)

    Returns:
        the least loss of the held-out codes.
    """
    order = torch.randperm(len(codes))
    held_out, known = codes[order[: len(codes) // 10 + 1]], codes[order[len(codes) // 10 + 1 :]]
    optimizer = Adam(module.parameters(), lr=1e-3)
    least, best, since = torch.inf, {}, 0
    for _ in tqdm(range(MAX_ROUNDS), name, leave=False, disable=None, delay=3):
        with evaluating(module), seeding.isolated(CPU, 0, "held-out codes"):  # the same noise every time
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
    """A normal pushed through affine couplings (``vaezoo.priors.FlowPrior``), at maximum likelihood of posterior draws.

    Args:
        codes: (N, D), draws of q(z | x), that vary along at least 2 directions.
        seed: names the weights and the batches.
        num_flows, hidden: as ``FlowPrior``.
    """
    white, back = whiten(codes)
    with seeding.isolated(CPU, seed, "flow"):
        p = FlowPrior(white.shape[1:], num_flows=num_flows, hidden=hidden)
        fit_density(p, lambda z: -p().log_prob(z).mean(), white, "flow of the codes")
    return Sampler(lambda num: back(p().sample(torch.Size([num]))))


def two_stage_sampler(codes: Tensor, seed: int = 0, hidden: Sequence[int] = (128, 128)) -> Sampler:
    """A second VAE, of the first one's codes: Dai & Wipf 2019, https://arxiv.org/abs/1903.05789.

    u ~ N(0, I), z ~ N(mu(u), sigma^2 I), with as many u as z. As there, the codes are draws of q(z | x), sigma is
    learned, and a sample has its noise. Unlike there, the codes are whitened, sigma has two starts, the networks are
    small (theirs have three layers of 1,024), and held-out codes choose the start and end the training (theirs takes
    800 epochs).

    Args:
        codes: (N, D), draws of q(z | x).
        seed: names the weights, the batches and the noise of training.
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

    # A sigma near 1, the spread of whitened codes, is a solution that ignores u: the codes' normal, which finds no
    # modes. From well below it the modes of few dimensions are found; in many, q(u) may be left far from N(0, I).
    _, model = min((trained(scale) for scale in (0.2, 1.0)), key=lambda pair: pair[0])

    def draw(num: int) -> Tensor:
        with evaluating(model):
            return back(model.sample(num).sample())

    return Sampler(draw)
