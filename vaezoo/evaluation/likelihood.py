"""The group ``likelihood``: log p(x) by importance sampling."""

from vaezoo.errors import DoesNotApply, count_noun
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings, mean_with_error, with_start_index
from vaezoo.evaluation.progress import example_progress
from vaezoo.inference.importance_sampling import LogMarginalEstimate, estimate_log_marginal
from vaezoo.metrics.quantities import QUANTITIES
from vaezoo.runs.trained import TrainedRun


def likelihood(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Estimate log p(x) by importance sampling, with its standard error."""
    if not settings.num_samples:
        raise DoesNotApply("task.num_samples=0")
    found = log_p(run, settings)
    num = len(found.log_p)
    values = mean_with_error("log_p", found.log_p)
    values |= {"log_p_samples": float(settings.num_samples), "log_p_examples": float(num)}
    draws, warning = "", ""
    if settings.num_samples > 1:
        if found.draw_error:  # 0 if all draws are equal, as in a VQ-VAE: then they say nothing about the gap
            values |= mean_with_error("inference_gap", found.log_p - found.elbo)
        ess = f"{found.ess.median():,.0f} in the median image, {found.ess.min():,.0f} in the worst"
        if found.converged:
            values["log_p_draw_error"] = found.draw_error
            draws = f" ({found.draw_error:.3f} of it from the finite number of draws; effective number of draws: {ess})"
        else:
            warning = (
                f": the bound has not converged and may be far below log p(x), because the effective number of draws "
                f"is {ess}"
            )
    error = f" ± {found.error:.2f} nats, the standard error over {num:,} images{draws}" if num > 1 else ""
    return EvaluationResult(
        values,
        QUANTITIES,
        f"log p(x) by {count_noun(settings.num_samples, 'importance sample')}: "
        f"{found.mean:.2f}{error or ' nats, of one image'}{warning}",
    )


def log_p(run: TrainedRun, settings: EvaluationSettings) -> LogMarginalEstimate:
    """Estimate the importance-weighted bound of log p(x) for each test image, with a progress bar."""
    total = len(run.split("test", settings.num_images).x)
    samples = count_noun(settings.num_samples, "importance sample")
    work = f"log p(x) of {count_noun(total, run.data.noun)} by {samples}"
    settings_of_time = "task.num_samples and task.num_images"
    with example_progress(total, "log p(x)", work, settings_of_time, run.model.device, leave=True) as progress:
        return LogMarginalEstimate.concat(
            estimate_log_marginal(
                run.model,
                x,
                y,
                settings.num_samples,
                start_index=start_index,
                compile=settings.compiled,
                progress=progress,
            )
            for start_index, x, y in with_start_index(run.batches("test", settings.num_images))
        )
