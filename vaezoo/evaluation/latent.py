"""The group ``latent``: the latent space over the test set."""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vaezoo import seeding
from vaezoo.distributions import get_parameters, is_diagonal_normal, with_parameters
from vaezoo.errors import DoesNotApply, count_noun
from vaezoo.evaluation.base import CPU, EvaluationResult, EvaluationSettings, context_noun
from vaezoo.runs.trained import TrainedRun


def latent(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Count active units, split the KL over the test set and say whether the posterior has collapsed."""
    from vaezoo.metrics import latent as metrics

    if run.model.conditional:
        what = context_noun(run.data)
        raise DoesNotApply(f"the posterior depends on the {what}, too, so its information is not about x alone")
    q, p, kl_dim = posteriors(run)
    with seeding.isolated(CPU, run.model.seed, "latent"):
        z = q.sample()  # all in one draw, so that the batch size changes nothing
    with torch.no_grad():
        log_prior = p.log_prob(z.to(run.model.device, torch.float32)).cpu()
    parameters = get_parameters(q)
    if is_diagonal_normal(q):
        metric: Any = metrics.LatentMetrics()
        metric.update(**parameters, z=z, log_prior=log_prior, kl_dim=kl_dim)
        values = metric.compute()
        if len(z) < metrics.MIN_EXAMPLES:
            size, least = count_noun(len(z), "image"), metrics.MIN_EXAMPLES
            note = f"no verdict on posterior collapse: the test set has {size}, fewer than {least}"
            return EvaluationResult(values, metrics.QUANTITIES, note)
        verdict = metrics.verdict(values)
        return EvaluationResult(values, metrics.QUANTITIES, verdict.text, verdict)
    metric = metrics.JointLatentMetrics(partial(with_parameters, q), tuple(parameters))
    metric.update(**parameters, z=z, log_prior=log_prior)
    return EvaluationResult(metric.compute(), metrics.QUANTITIES)


def posteriors(run: TrainedRun) -> tuple[Distribution, Distribution, Tensor]:
    """Compute the posterior of the test set.

    Returns:
        q(z | x) of all N test images as one distribution with batch shape (N,), on the CPU; p(z); the KL of each
        dimension in nats (N, D), or (N, 0) if there is none.

    Raises:
        DoesNotApply: the model has several stochastic layers, a prior that depends on x, or a posterior whose density
            at the codes of other images is not known.
    """
    if run.model.latent_kind == "layers":
        raise DoesNotApply(f"{type(run.model).__name__} has several stochastic layers: these metrics need a single one")
    parts: dict[str, list[Tensor]] = {}
    kls = []
    with torch.no_grad(), seeding.isolated(run.model.device, run.model.seed, "posterior"):
        for x, y in run.batches("test", what="latent space"):
            layer = run.model(x, y, num_samples=1).latent
            if layer.p.batch_shape:
                name = type(run.model).__name__
                raise DoesNotApply(f"the prior of {name} depends on x: these metrics need one prior for all x")
            q, kl = layer.q, layer.kl_per_dim
            try:
                parameters = get_parameters(q)
            except NotImplementedError as error:
                raise DoesNotApply(f"q(z | x) at the codes of other images is not known: {error}") from error
            for name, value in parameters.items():
                parts.setdefault(name, []).append(value.cpu())
            kls.append((x.new_zeros(len(x), 0) if kl is None else kl.flatten(1)).cpu())
    stacked = with_parameters(q, **{name: torch.cat(part) for name, part in parts.items()})
    return stacked, layer.p, torch.cat(kls)
