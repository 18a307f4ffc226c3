"""The task ``score``: how well a trained model explains each example, and which examples are anomalous."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from vaezoo.errors import ConfigError, count_noun
from vaezoo.evaluation.base import with_start_index
from vaezoo.evaluation.progress import example_progress
from vaezoo.inference.importance_sampling import LogMarginalEstimate, estimate_log_marginal
from vaezoo.inference.per_example import bound_values
from vaezoo.metrics.conformal import TooFewExamples, p_values, threshold
from vaezoo.pictures import Display, Picture, stack
from vaezoo.runs.rows import check_format, join_columns, write_rows
from vaezoo.runs.trained import TrainedRun, open_run
from vaezoo.tasks.apply import check_num, describe_run, describe_set, finish, first_column, save_picture

NUM_SHOWN = 10  # examples that are printed
NUM_DRAWN = 16  # examples of each kind on the picture


def score(
    config: dict[str, Any],
    split: str | None = None,
    num: int | None = None,
    num_samples: int = 100,
    num_reference: int | None = 1000,
    alpha: float = 0.05,
    format: str = "csv",
) -> None:
    """Write a table ``scores`` with a row for each example, the most anomalous one first, and ``scores.png``.

    Its columns are the example's key and label; ``elbo``, ``distortion`` and ``rate``; ``log_p``, an
    importance-weighted bound of log p(x), and its Monte Carlo error; ``anomaly``, which is -log_p, or the distortion of
    a model without a bound; ``p_value``, the share of held-out normal examples that are at least as anomalous
    (``metrics.conformal``); and ``is_anomaly``, whether it is at most ``alpha``. All but the last two are in nats.

    The held-out examples are the test set of the run's own data; its validation set if the test set itself is scored.

    Args:
        config: the resolved config.
        split: the set, as in ``open_run``.
        num: number of examples, evenly spaced over the set, at least 1; None: all.
        num_samples: K, importance samples of each example; 0: the ELBO takes the place of log p(x).
        num_reference: number of held-out examples, evenly spaced; None: all; 0: no p-values.
        alpha: share of normal examples that may be flagged, in (0, 1).
        format: format of the table (``runs.rows``).
    """
    check_format(format)
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha={alpha} should be a share of normal examples, in (0, 1), such as 0.05")
    for name, value in {"num_samples": num_samples, "num_reference": num_reference}.items():
        if value is not None and (type(value) is not int or value < 0):
            raise ConfigError(f"{name}={value} should be an integer >= 0")
    check_num(num)
    run = open_run(config, ("split", "num", "num_samples", "num_reference", "alpha", "format"), split)
    found = example_scores(run, run.chosen, num_samples, num)
    anomaly, notes, nouns = found["anomaly"], [], f"{run.data.noun}s"
    held_out = "val" if run.chosen == "test" else "test"
    if num_reference != 0:
        reference = example_scores(open_own_data(run), held_out, num_samples, num_reference)["anomaly"]
        found["p_value"] = p_values(anomaly, reference)
        try:
            limit = threshold(reference, alpha)
        except TooFewExamples as reason:
            notes.append(f"no is_anomaly: {reason}")
        else:
            found["is_anomaly"] = found["p_value"] <= alpha
            notes.append(
                f"{int(found['is_anomaly'].sum()):,} of {len(anomaly):,} {nouns} score above {limit:.4g} nats, as "
                f"{100 * alpha:g} % of normal ones would: the threshold is from {len(reference):,} {nouns} of the "
                f"{'validation' if held_out == 'val' else 'test'} set"
            )
    order = anomaly.argsort(descending=True, stable=True)
    labels: dict[str, Any] = run.data.label_columns(run.split(run.chosen, num).y)
    columns = join_columns(run.keys(num), labels | found)
    columns = {head: values[order.numpy()] for head, values in columns.items()}
    files = [write_rows(Path(config["run_dir"], "scores"), columns, format)]
    files += save_picture(config, "scores", draw_extremes(run, order, num))
    finish(run, config, "scores", files, notes=notes, alpha=alpha, num_samples=num_samples)
    print("\n".join([*notes, *describe_rows(columns)]))


def open_own_data(run: TrainedRun) -> TrainedRun:
    """Return the run with the data of its training, which has the held-out examples.

    Raises:
        ConfigError: they cannot be read.
    """
    try:
        return run.with_own_data()
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"the held-out examples of {run.path} cannot be read ({error}): num_reference=0 leaves out the p-values"
        ) from error


def example_scores(run: TrainedRun, name: str, num_samples: int, num: int | None = None) -> dict[str, Tensor]:
    """Return the columns of a set's scores, (N,) each, in the order of the examples.

    Args:
        run: the trained run.
        name: "train", "val", "test" or "all".
        num_samples: K; 0: without ``log_p``.
        num: number of examples, evenly spaced; None: all.
    """
    found = bound_values(run.model, run.batches(name, num, f"ELBO, {name}"))
    if "elbo" not in found:
        return found | {"anomaly": found["distortion"]}
    if num_samples == 0:
        return found | {"anomaly": -found["elbo"]}
    total = len(run.places(name, num))
    work = f"log p(x) of {count_noun(total, run.data.noun)} by {count_noun(num_samples, 'importance sample')}"
    settings = "num and num_samples" if name == run.chosen else "num_reference and num_samples"
    with example_progress(total, f"log p(x), {name}", work, settings, run.model.device) as progress:
        estimate = LogMarginalEstimate.concat(
            estimate_log_marginal(run.model, x, y, num_samples, start_index=start_index, progress=progress)
            for start_index, x, y in with_start_index(run.batches(name, num))
        )
    log_p = {"log_p": estimate.log_p.cpu()} | ({"log_p_error": estimate.mc_error.cpu()} if num_samples > 1 else {})
    return found | log_p | {"anomaly": -estimate.log_p.cpu()}


def draw_extremes(run: TrainedRun, order: Tensor, num: int | None) -> Picture | None:
    """Draw the most anomalous examples over the most ordinary ones; None if the examples cannot be drawn.

    Args:
        run: the trained run.
        order: places of the examples from the most anomalous one to the most ordinary one.
        num: number of examples that were scored, evenly spaced; None: all.
    """
    size = min(NUM_DRAWN, len(order) // 2)
    split, display = run.split(run.chosen, num), Display(run.data)
    if size == 0:
        return None
    names = first_column(run.keys(num))
    parts = []
    for which, words in ((order[:size], "most anomalous"), (order.flip(0)[:size], "most ordinary")):
        x = next(iter(run.data.batches(split.select(which), size, train=run.chosen == "train"))).x
        if not display.can_draw(x):
            return None
        labels = [names[i] for i in which.tolist()]
        title = f"the {size} {words}, in the order of the table of scores"
        parts.append(display.grid(x, title, labels, None, f"{describe_run(run)}, {describe_set(run)}"))
    return stack(parts)


def describe_rows(columns: dict[str, np.ndarray]) -> list[str]:
    """Return the most anomalous rows for people, a line each."""
    heads = [head for head in columns if head not in ("elbo", "distortion", "rate", "log_p", "log_p_error")]
    lines = ["most anomalous:"]
    for row in range(min(NUM_SHOWN, len(columns["anomaly"]))):
        values = [(head, columns[head][row]) for head in heads]
        cells = [(head, value) for head, value in values if (head, value) not in (("label", -1), ("class", ""))]
        texts = [f"{head} {value:.4g}" if isinstance(value, float) else f"{head} {value}" for head, value in cells]
        lines.append("  " + ", ".join(text if len(text) <= 60 else f"{text[:57]}..." for text in texts))
    return lines
