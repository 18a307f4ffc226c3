"""Estimates of log p(x) by annealed importance sampling (AIS): bounds from below and from above.

AIS (Neal 2001, Annealed Importance Sampling, https://arxiv.org/abs/physics/9803008; for decoders Wu et al. 2017, On
the Quantitative Analysis of Decoder-Based Generative Models, https://arxiv.org/abs/1611.04273) is closer to log p(x)
than importance sampling if q(z | x) is far from p(z | x). Chains follow the path

    f_t(z) = start(z)^(1 - beta_t) p(x, z)^beta_t,    beta_0 = 0, ..., beta_T = 1,

and each step from z_{t-1} to z_t is a transition of Hamiltonian Monte Carlo (Neal 2011, MCMC using Hamiltonian
dynamics, https://arxiv.org/abs/1206.1901) that leaves f_t invariant. With

    log w = sum_{t=1}^T (beta_t - beta_{t-1}) log [p(x, z_{t-1}) / start(z_{t-1})],

E w = p(x), so log 1/K sum_k w_k over K chains is a lower bound of log p(x) in expectation. Chains from an exact
sample of p(z | x), run from beta = 1 to 0, give an upper bound (bidirectional Monte Carlo, Grosse et al. 2015,
Sandwiching the marginal likelihood using bidirectional Monte Carlo, https://arxiv.org/abs/1511.02543).
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import seeding
from vaezoo.inference.importance_sampling import LogMarginalEstimate, summarize_weights
from vaezoo.models import VAE
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.means import accumulation_dtype

if TYPE_CHECKING:
    from vaezoo.models import LatentVariableModel

NUM_PILOTS = 4
INITIAL_STEP_SIZE = 0.1  # a tenth of the scale of z, which is about 1 under the prior
TARGET_ACCEPTANCE = 0.65  # as in Wu et al. 2017
ADAPTATION_RATE = 0.1  # a step size changes by +3.5 % to -6.5 % per transition; Wu et al. take 2 %
SCHEDULE_STEEPNESS = 4.0  # c of the schedule, as in Wu et al. 2017


class PathPoint(NamedTuple):
    """A point z on the path, and f(z) = start(z)^(1 - beta) p(x, z)^beta there, for K chains and B examples.

    Args:
        z: the point, (K, B, D).
        log_f: log f(z), (K, B).
        log_ratio: log p(x, z) - log start(z), (K, B).
        slope: gradient of log f(z), (K, B, D).
    """

    z: Tensor
    log_f: Tensor
    log_ratio: Tensor
    slope: Tensor


def schedule(num_steps: int) -> Tensor:
    """Return beta_0 ... beta_T, float64 (T + 1,), slow at both ends as in Wu et al. 2017:

        beta_t = [s(c (2 t / T - 1)) - s(-c)] / [s(c) - s(-c)],    s the logistic function, c = 4

    Args:
        num_steps: T.

    >>> schedule(4)
    tensor([0.0000, 0.1050, 0.5000, 0.8950, 1.0000], dtype=torch.float64)
    """
    curve = torch.sigmoid(SCHEDULE_STEEPNESS * torch.linspace(-1, 1, num_steps + 1, dtype=torch.float64, device="cpu"))
    return (curve - curve[0]) / (curve[-1] - curve[0])


def leapfrog(
    path_point: Callable[[Tensor], PathPoint], point: PathPoint, v: Tensor, step: Tensor, num: int
) -> tuple[PathPoint, Tensor]:
    """Integrate Hamilton's equations for the energy |v|^2 / 2 - log f(z) by leapfrog steps.

    The map preserves volume, and it is its own inverse if v is negated. The error of the energy is O(step^2).

    Args:
        path_point: returns the ``PathPoint`` of z.
        point: start.
        v: velocity at the start, (K, B, D).
        step: step size, which broadcasts against v.
        num: number of steps.

    Returns:
        The point and the velocity at the end.
    """
    v = v + step / 2 * point.slope
    for _ in range(num):
        point = path_point(point.z + step * v)
        v = v + step * point.slope
    return point, v - step / 2 * point.slope  # the last step adds only half of the slope


def hmc_transition(
    path_point: Callable[[Tensor], PathPoint], z: Tensor, noise: Tensor, step: Tensor, num_leapfrog: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Make one transition of Hamiltonian Monte Carlo, which leaves f invariant.

    Args:
        path_point: returns the ``PathPoint`` of z.
        z: positions of the chains, (K, B, D).
        noise: standard normal, (K, B, D + 1): the velocity, and one number that decides the acceptance.
        step: step size of each example, (B,).
        num_leapfrog: leapfrog steps per transition.

    Returns:
        The next z (K, B, D); log p(x, z) - log start(z) there, (K, B); and the acceptance probability, (K, B).
    """
    v, log_u = noise[..., :-1], torch.special.log_ndtr(noise[..., -1])
    before = path_point(z)
    after, v_after = leapfrog(path_point, before, v, step.unsqueeze(-1), num_leapfrog)
    log_accept = (after.log_f - before.log_f) - (v_after.square() - v.square()).sum(-1) / 2
    log_accept = log_accept.nan_to_num(nan=-torch.inf).clamp(max=0)  # reject a divergent trajectory
    accepted = log_u < log_accept
    z = torch.where(accepted.unsqueeze(-1), after.z, before.z)
    return z, torch.where(accepted, after.log_ratio, before.log_ratio), log_accept.exp()


def check_model(model: "LatentVariableModel") -> VAE:
    """Return the model if its latent is one vector of R^D.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(model, VAE) or model.latent_kind != "vector":
        raise ValueError(
            f"annealed importance sampling needs a latent that is one vector of R^D, and {type(model).__name__} has "
            f"another: use vaezoo.inference.importance_sampling.estimate_log_marginal"
        )
    return model


def annealed_importance_sampling(
    model: "LatentVariableModel",
    x: Tensor,
    context: Tensor | None = None,
    num_chains: int = 16,
    num_steps: int = 1000,
    num_leapfrog: int = 10,
    start: str = "prior",
    z: Tensor | None = None,
    seed: int | None = None,
    start_index: int = 0,
    progress: Callable[[range], Iterable[int]] = iter,
) -> LogMarginalEstimate:
    """Estimate log p(x) by annealed importance sampling: a lower bound, or an upper bound if ``z`` is given.

    With num_steps=1 it is importance sampling with ``start`` as the proposal. The lower bound rises to log p(x) with
    num_steps and num_chains.

    With ``z`` the chains start there and go from beta = 1 to 0. If z ~ p(z | x), as ``simulate`` returns it,
    E 1/w = 1/p(x), and log_p = -log 1/K sum_k 1/w_k is above log p(x) in expectation: log p(x) is between this value
    and the lower bound. For any other z the result has no meaning.

    The step size is adapted to an acceptance rate of 0.65. In Wu et al. 2017 each chain adapts to its own past, so its
    transitions depend on its position and do not leave f_t invariant. Here, 4 additional chains per example, the
    pilots, run beside the K chains, and the step size follows the acceptance of the pilots only. For the K chains it is
    then a given number, and E w = p(x) holds for every T. With ``z`` the pilots start from q(z | x).

    Weights are summed in float64, everything else has the dtype of the model. The random numbers of an example depend
    on (seed, its index) only; other examples in the batch change its result by rounding only, which in float32 may now
    and then change the acceptance of a transition. All B (num_chains + 4) chains are in memory together, so a large
    data set should be passed in several calls. The cost is about num_steps (num_leapfrog + 1) gradients of log p(x | z)
    per chain.

    Args:
        model: a ``VAE`` whose latent is one vector of R^D: all of the package but the hyperspherical VAE.
        x: examples (B, *data_shape), of a kind of data that the likelihood supports.
        context: labels or whatever else the model is conditioned on, (B, ...).
        num_chains: number of chains K.
        num_steps: number of steps T.
        num_leapfrog: leapfrog steps per transition.
        start: start of the path: "prior", or "posterior" for the encoder's q(z | x).
        z: exact samples of p(z | x), (B, D), for the upper bound.
        seed: seed of the random numbers. None: the seed of the model.
        start_index: index of x[0] in the whole data set, if the examples are passed in several calls.
        progress: wraps the loop over steps, to show the progress; for example ``tqdm.tqdm``.

    Returns:
        The estimate with its Monte Carlo error and effective sample size over the K chains. If ``z`` is given, all
        chains share their start, and the error does not include the variation between different z.

    Raises:
        ValueError: a number is out of range, the latent is not one vector of R^D, or the likelihood does not support x.

    >>> from vaezoo.models import VAE
    >>> model = VAE((1, 2, 2), latent_dim=2)
    >>> x, z = simulate(model, 3)
    >>> lower = annealed_importance_sampling(model, x, num_steps=20, num_leapfrog=3)
    >>> upper = annealed_importance_sampling(model, x, num_steps=20, num_leapfrog=3, z=z)
    >>> lower.log_p.shape, upper.log_p.shape
    (torch.Size([3]), torch.Size([3]))
    """
    vae = check_model(model)
    starts: dict[str, Callable[[Tensor, Tensor | None], Distribution]] = {
        "prior": lambda x, context: vae.prior(context),
        "posterior": vae.encoder,
    }
    for name, value in {"num_chains": num_chains, "num_steps": num_steps, "num_leapfrog": num_leapfrog}.items():
        if value < 1:
            raise ValueError(f"{name} must be >= 1, got {value}")
    if start not in starts:
        raise ValueError(f"start={start} is not one of {', '.join(starts)}")
    if z is not None and z.shape != (len(x), *vae.latent_shape):
        raise ValueError(
            f"z must have the shape {(len(x), *vae.latent_shape)}, one latent per example, got {tuple(z.shape)}"
        )
    vae.likelihood.check(x)
    betas, sign, source = schedule(num_steps), 1, starts[start]
    if z is not None:
        betas, sign, source = betas.flip(0), -1, starts["posterior"]
    seed = vae.seed if seed is None else seed
    example_ids = range(start_index, start_index + len(x))
    num, dtype = num_chains + NUM_PILOTS, accumulation_dtype(x)

    with evaluating(vae), seeding.isolated(x.device, seed, "anneal"):
        start_density, prior = starts[start](x, context), vae.prior(context)
        begin = []
        for i, example_id in enumerate(example_ids):
            seeding.reseed(x.device, seed, "anneal", example_id)
            example = x[i : i + 1], None if context is None else context[i : i + 1]
            begin.append(source(*example).sample(torch.Size([num])).reshape(num, -1))
        chains = torch.stack(begin, 1)
        if z is not None:
            chains[:num_chains] = z

        @torch.enable_grad()
        def path_point(z: Tensor, beta: float) -> PathPoint:
            z = z.detach().requires_grad_()
            log_start = start_density.log_prob(z)
            log_ratio = vae.decode(z, context).log_prob(x) + prior.log_prob(z) - log_start
            log_f = log_start + beta * log_ratio
            (slope,) = torch.autograd.grad(log_f.sum(), z)
            return PathPoint(z.detach(), log_f.detach(), log_ratio.detach(), slope)

        weights = betas.diff().tolist()
        log_w = weights[0] * path_point(chains, 0.0).log_ratio.to(dtype)
        generators = [
            seeding.generator(seed, "anneal moves", example_id, device=x.device) for example_id in example_ids
        ]
        draw = partial(torch.randn, num, chains.shape[-1] + 1, dtype=chains.dtype, device=x.device)
        step = chains.new_full((len(x),), INITIAL_STEP_SIZE)
        for t in progress(range(1, num_steps)):
            noise = torch.stack([draw(generator=generator) for generator in generators], 1)
            chains, log_ratio, accepted = hmc_transition(
                partial(path_point, beta=float(betas[t])), chains, noise, step, num_leapfrog
            )
            log_w += weights[t] * log_ratio.to(dtype)
            step = step * (ADAPTATION_RATE * (accepted[num_chains:].mean(0) - TARGET_ACCEPTANCE)).exp()
    log_p, single_chain, mc_error, ess = torch.stack(
        [summarize_weights(log_w[:num_chains, i]) for i in range(len(x))], 1
    )
    return LogMarginalEstimate(sign * log_p, sign * single_chain, mc_error, ess)


def simulate(
    model: "LatentVariableModel", num: int, context: Tensor | None = None, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """Draw examples from the model itself: z ~ p(z), x ~ p(x | z).

    Each z is an exact sample of p(z | x), which the upper bound of ``annealed_importance_sampling`` needs.

    Args:
        model: as in ``annealed_importance_sampling``.
        num: number of examples N.
        context: labels or whatever else the model is conditioned on, (N, ...).
        seed: seed of the random numbers. None: the seed of the model.

    Returns:
        x (N, *data_shape) and z (N, D).
    """
    vae = check_model(model)
    with evaluating(vae), seeding.isolated(vae.device, vae.seed if seed is None else seed, "simulate"):
        z = vae.prior.sample(num, context)
        return vae.decode(z, context).sample(), z
