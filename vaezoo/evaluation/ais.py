"""The group ``annealed``: log p(x) by annealed importance sampling."""

from collections.abc import Iterator
from functools import partial

from tqdm import tqdm

from vaezoo import seeding
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings, mean_with_error, with_start_index
from vaezoo.families import SelfMasking
from vaezoo.inference.importance_sampling import LogMarginalEstimate, estimate_log_marginal
from vaezoo.metrics.quantities import QUANTITIES
from vaezoo.runs.trained import TrainedRun


def annealed(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Estimate log p(x) of a few images by annealed importance sampling (AIS).

    Measured are also the gain over importance sampling and, on images that the model generated, the gap between AIS's
    lower and upper bound.
    """
    if not settings.annealed:
        raise DoesNotApply("ask for it with task.annealed=12 images")
    if any(isinstance(part, SelfMasking) for part in run.model.modules()):
        raise DoesNotApply("log p(x | z) is random, because the likelihood draws the missing entries")
    from vaezoo.inference.ais import annealed_importance_sampling, simulate

    def progress(steps: range) -> Iterator[int]:
        return iter(tqdm(steps, "annealing", disable=None, leave=False))

    parts = []
    for start_index, x, y in with_start_index(run.batches("test", settings.annealed)):
        generated, z = simulate(run.model, len(x), y, seed=seeding.derive(run.model.seed, "own", start_index))
        ais = partial(
            annealed_importance_sampling,
            run.model,
            context=y,
            start="posterior",
            start_index=start_index,
            progress=progress,
        )
        sampled = estimate_log_marginal(run.model, x, y, max(1, settings.num_samples), start_index=start_index)
        parts.append((ais(x), sampled, ais(generated), ais(generated, z=z)))
    test, sampled, lower, upper = map(LogMarginalEstimate.concat, zip(*parts, strict=True))
    values = mean_with_error("log_p_annealed", test.log_p)
    values |= mean_with_error("annealed_gap", upper.log_p - lower.log_p)
    if settings.num_samples:
        values |= mean_with_error("annealed_gain", test.log_p - sampled.log_p)
    num = len(test.log_p)
    return EvaluationResult(values, QUANTITIES, f"annealed importance sampling: {num} images, 16 chains, 1,000 steps")
