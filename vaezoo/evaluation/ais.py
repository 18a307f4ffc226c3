"""log p(x) by annealed importance sampling."""

from collections.abc import Iterator
from functools import partial

from tqdm import tqdm

from vaezoo import seeding
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import Found, Settings, average, numbered
from vaezoo.inference.importance_sampling import LogMarginalEstimate, estimate_log_marginal
from vaezoo.metrics.quantities import QUANTITIES
from vaezoo.runs.trained import TrainedRun


def annealed(run: TrainedRun, settings: Settings) -> Found:
    """log p(x) of a few images by annealed importance sampling, what it gains over importance sampling, and on images
    of the model's own how far its bounds from both sides are apart.
    """
    if not settings.annealed:
        raise DoesNotApply("ask for it with task.annealed=12 images")
    from vaezoo.inference.ais import annealed_importance_sampling, simulate

    def steps(count: range) -> Iterator[int]:
        return iter(tqdm(count, "annealing", disable=None, leave=False))

    parts = []
    for first, x, y in numbered(run.batches("test", settings.annealed)):
        own, z = simulate(run.model, len(x), y, seed=seeding.derive(run.model.seed, "own", first))
        at = partial(
            annealed_importance_sampling, run.model, context=y, start="posterior", start_index=first, progress=steps
        )
        sampled = estimate_log_marginal(run.model, x, y, max(1, settings.num_samples), start_index=first)
        parts.append((at(x), sampled, at(own), at(own, z=z)))
    found, sampled, below, above = map(LogMarginalEstimate.concat, zip(*parts, strict=True))
    values = average("log_p_annealed", found.log_px) | average("annealed_gap", above.log_px - below.log_px)
    if settings.num_samples:
        values |= average("annealed_gain", found.log_px - sampled.log_px)
    num = len(found.log_px)
    return Found(values, QUANTITIES, f"annealed importance sampling: {num} images, 16 chains, 1,000 steps")
