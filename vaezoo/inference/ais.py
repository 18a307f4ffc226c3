"""log p(x) by annealed importance sampling: close to it where importance sampling is not, and from both sides."""

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
INITIAL_STEP_SIZE = 0.1  # of HMC, before the pilots have a say; latents are of the size of their prior's, about 1
TARGET_ACCEPTANCE = 0.65  # that the step is adapted to, as in Wu et al. 2017
ADAPTATION_RATE = 0.1  # of log step, for each move: at most +3.5 % and -6.5 %; Wu et al. take 2 %
SCHEDULE_STEEPNESS = 4.0  # of the schedule: theirs


class PathPoint(NamedTuple):
    """A place on the path, with f = start(z)^(1 - beta) p(x, z)^beta there.

    Args:
        z: (K, B, D).
        log_f: (K, B).
        log_ratio: log p(x, z) - log start(z), (K, B).
        slope: d log f / dz, (K, B, D).
    """

    z: Tensor
    log_f: Tensor
    log_ratio: Tensor
    slope: Tensor


def schedule(num_steps: int) -> Tensor:
    """beta_t = [s(c (2 t / T - 1)) - s(-c)] / [s(c) - s(-c)], t = 0 ... T, s the logistic function, c = 4:
    from 0 to 1, slow at both ends; float64 (T + 1,).
    """
    curve = torch.sigmoid(SCHEDULE_STEEPNESS * torch.linspace(-1, 1, num_steps + 1, dtype=torch.float64, device="cpu"))
    return (curve - curve[0]) / (curve[-1] - curve[0])


def leapfrog(
    at: Callable[[Tensor], PathPoint], point: PathPoint, v: Tensor, step: Tensor, num: int
) -> tuple[PathPoint, Tensor]:
    """``num`` steps of Hamilton's equations for log f(z) - |v|^2 / 2: the map keeps volume, and it is its own
    inverse once v is turned round. The energy's error is O(step^2).

    Args:
        at: from z to what is there.
        point: where to start.
        v: velocity, (K, B, D).
        step: broadcasts against v.
        num: number of steps.
    """
    v = v + step / 2 * point.slope
    for _ in range(num):
        point = at(point.z + step * v)
        v = v + step * point.slope
    return point, v - step / 2 * point.slope  # the last step turns by half


def hmc_transition(
    at: Callable[[Tensor], PathPoint], z: Tensor, noise: Tensor, step: Tensor, num_leapfrog: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One transition of Hamiltonian Monte Carlo (Neal 2011, https://arxiv.org/abs/1206.1901): it leaves f invariant.

    Args:
        at: from z to what is there.
        z: (K, B, D).
        noise: standard normal, (K, B, D + 1): the velocity, and what the acceptance is decided by.
        step: of each example, (B,).
        num_leapfrog: steps of one move.

    Returns:
        The next z, log p(x, z) - log start(z) there, (K, B), and the probability that the move was taken with, (K, B).
    """
    v, log_u = noise[..., :-1], torch.special.log_ndtr(noise[..., -1])
    before = at(z)
    after, v_after = leapfrog(at, before, v, step.unsqueeze(-1), num_leapfrog)
    log_accept = (after.log_f - before.log_f) - (v_after.square() - v.square()).sum(-1) / 2
    log_accept = log_accept.nan_to_num(nan=-torch.inf).clamp(max=0)  # a flight to infinity is not accepted
    taken = log_u < log_accept
    z = torch.where(taken.unsqueeze(-1), after.z, before.z)
    return z, torch.where(taken, after.log_ratio, before.log_ratio), log_accept.exp()


def check_model(model: "LatentVariableModel") -> VAE:
    """The model, if z is one vector of R^D that a density is known of."""
    if not isinstance(model, VAE) or model.latent_kind != "vector":
        raise ValueError(
            f"annealing needs a latent that is one vector of R^D, which {type(model).__name__}'s is not: "
            f"use importance sampling (vaezoo.inference.importance_sampling.estimate)"
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
    """A stochastic lower bound of log p(x) by annealed importance sampling (Neal 2001,
    https://arxiv.org/abs/physics/9803008), for decoders as in Wu et al. 2017, https://arxiv.org/abs/1611.04273;
    or, from an exact sample of the posterior, an upper bound.

    A chain goes from z_0 ~ start(z) along f_t(z) = start(z)^(1 - beta_t) p(x, z)^beta_t, from beta_0 = 0 to
    beta_T = 1 (``schedule``); z_t comes from z_{t-1} by Hamiltonian Monte Carlo, which leaves f_t invariant:

        log w = sum_{t=1}^T (beta_t - beta_{t-1}) log [p(x, z_{t-1}) / start(z_{t-1})],  E w = p(x)

    and log_px = log 1/K sum_k w_k, which is below log p(x) in expectation and rises to it with T and K. With T = 1
    it is importance sampling with ``start`` for its proposal.

    With ``z`` the chains begin there and go back from beta = 1 to 0. If z ~ p(z | x), as where x was drawn from
    p(x | z) itself (``simulate``), E 1/w = 1/p(x), and log_px = -log 1/K sum_k 1/w_k is above log p(x) in
    expectation: with the other direction it holds the true value between the two (bidirectional Monte Carlo,
    Grosse et al. 2015, https://arxiv.org/abs/1511.02543). For any other z it means nothing.

    The step is adapted to an acceptance of 0.65. Wu et al. let each chain adapt to its own past, by which its
    moves come to depend on where it is and no longer leave f_t invariant. Here 4 more chains for each example, the
    pilots, run beside the K, and the step follows the acceptance of the pilots alone, which know nothing of the
    others: for each of these it is a given number, and E w = p(x) holds for every T. In reverse the pilots start
    from q(z | x), not from z.

    Weights are summed in float64, all else is in the model's dtype. An example's draws are named by (seed, its
    number) alone, so that others beside it change its result by rounding only (which, in float32, may now and then
    accept another move). All B (num_chains + 4) chains are in memory together: pass a large set in parts. It costs
    about num_steps (num_leapfrog + 1) gradients of log p(x | z) for each chain.

    Args:
        model: one whose latent is one vector of R^D: any ``VAE`` of the zoo but the hyperspherical.
        x: (B, *data_shape), of the kind the likelihood scores.
        context: what else is conditioned on, (B, ...).
        num_chains: K.
        num_steps: T.
        num_leapfrog: leapfrog steps of each move.
        start: where the path begins: "prior", or "posterior", the encoder's q(z | x).
        z: exact samples of p(z | x), (B, D), for the upper bound.
        seed: names the draws, the model's own seed where None.
        first: number of x[0] among all examples, for who passes them in parts.
        progress: wraps the loop over steps to show how far it is, as ``tqdm.tqdm`` does.

    Returns:
        ``Evidence``, with the error and the effective number over the K chains. In reverse they have their start
        in common, so that the error lacks what another z would have given.

    Raises:
        ValueError: a number is out of range, the latent is not one vector of R^D, or the likelihood cannot score x.
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
        raise ValueError(f"z must be one latent for each example, {(len(x), *vae.latent_shape)}, got {tuple(z.shape)}")
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
        for i, number in enumerate(example_ids):
            seeding.reseed(x.device, seed, "anneal", number)
            example = x[i : i + 1], None if context is None else context[i : i + 1]
            begin.append(source(*example).sample(torch.Size([num])).reshape(num, -1))
        chains = torch.stack(begin, 1)
        if z is not None:
            chains[:num_chains] = z

        @torch.enable_grad()
        def at(z: Tensor, beta: float) -> PathPoint:
            z = z.detach().requires_grad_()
            log_start = start_density.log_prob(z)
            log_ratio = vae.decode(z, context).log_prob(x) + prior.log_prob(z) - log_start
            log_f = log_start + beta * log_ratio
            (slope,) = torch.autograd.grad(log_f.sum(), z)
            return PathPoint(z.detach(), log_f.detach(), log_ratio.detach(), slope)

        weights = betas.diff().tolist()
        log_w = weights[0] * at(chains, 0.0).log_ratio.to(dtype)
        generators = [seeding.generator(seed, "anneal moves", number, device=x.device) for number in example_ids]
        draw = partial(torch.randn, num, chains.shape[-1] + 1, dtype=chains.dtype, device=x.device)
        step = chains.new_full((len(x),), INITIAL_STEP_SIZE)
        for t in progress(range(1, num_steps)):
            noise = torch.stack([draw(generator=generator) for generator in generators], 1)
            chains, log_ratio, accepted = hmc_transition(
                partial(at, beta=float(betas[t])), chains, noise, step, num_leapfrog
            )
            log_w += weights[t] * log_ratio.to(dtype)
            step = step * (ADAPTATION_RATE * (accepted[num_chains:].mean(0) - TARGET_ACCEPTANCE)).exp()
    log_px, single, mc_error, ess = torch.stack([summarize_weights(log_w[:num_chains, i]) for i in range(len(x))], 1)
    return LogMarginalEstimate(sign * log_px, sign * single, mc_error, ess)


def simulate(
    model: "LatentVariableModel", num: int, context: Tensor | None = None, seed: int | None = None
) -> tuple[Tensor, Tensor]:
    """``num`` examples of the model itself: x (N, *data_shape) and the z (N, D) each came from, z ~ p(z), x ~ p(x | z).

    Each z is an exact sample of p(z | x), which ``anneal`` needs for its upper bound.

    Args:
        model: as for ``anneal``.
        num: N.
        context: what else is conditioned on, (N, ...).
        seed: names the draws, the model's own seed where None.
    """
    vae = check_model(model)
    with evaluating(vae), seeding.isolated(vae.device, vae.seed if seed is None else seed, "simulate"):
        z = vae.prior(context).sample(torch.Size([num]))
        return vae.decode(z, context).sample(), z
