"""The group ``likelihood``: log p(x) by importance sampling."""

import sys
import time
from collections.abc import Iterator

import torch
from tqdm import tqdm

from vaezoo.errors import DoesNotApply, count_noun, format_duration
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings, mean_with_error, with_start_index
from vaezoo.inference.importance_sampling import LogMarginalEstimate, estimate_log_marginal
from vaezoo.metrics.quantities import QUANTITIES
from vaezoo.runs.trained import TrainedRun

LONG = 30  # seconds: a longer estimate is announced


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
    parts: list[LogMarginalEstimate] = []
    total, start, done = len(run.split("test", settings.num_images).x), 0.0, 0
    with tqdm(total=total, desc="log p(x)", disable=None) as bar:

        def progress(images: range) -> Iterator[int]:
            nonlocal start, done
            for image in images:
                yield image
                bar.update()
                done += 1
                if done == 1:  # it may have waited for the compiler, so the second one is timed
                    start = measure_time(run.model.device)
                elif done == 2:
                    announce(total, (measure_time(run.model.device) - start) * total, run.data.noun, settings)

        for start_index, x, y in with_start_index(run.batches("test", settings.num_images)):
            found = estimate_log_marginal(
                run.model,
                x,
                y,
                settings.num_samples,
                start_index=start_index,
                compile=settings.compiled,
                progress=progress,
            )
            parts.append(found)
    return LogMarginalEstimate.concat(parts)


def measure_time(device: torch.device) -> float:
    """Return the time in seconds, after all that a device has been asked for is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def announce(total: int, seconds: float, noun: str, settings: EvaluationSettings) -> None:
    """Print how long an estimate takes, if that is more than ``LONG`` seconds."""
    if seconds > LONG:
        tqdm.write(
            f"log p(x) of {count_noun(total, noun)} by {count_noun(settings.num_samples, 'importance sample')} takes "
            f"about {format_duration(seconds)} (task.num_samples and task.num_images set how many)",
            file=sys.stderr,
        )
