"""The task ``evaluate``: test a trained run again and compute all metrics that its model and data allow."""

import math
import time
from typing import Any

import torch
from tqdm import tqdm

from vaezoo.errors import ConfigError
from vaezoo.evaluation.base import EvaluationSettings
from vaezoo.evaluation.groups import GROUPS, select_groups
from vaezoo.loggers import log_evaluation
from vaezoo.metrics.quantities import QUANTITIES, given_context, use_noun, with_noun
from vaezoo.report.tables import print_results
from vaezoo.runs.folder import folder_of
from vaezoo.runs.overrides import has_key
from vaezoo.runs.setup import test
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import TrainedRun, command_overrides, open_run


def evaluate(
    config: dict[str, Any],
    num_samples: int,
    num_images: int | None,
    metrics: str | list,
    annealed: int,
    outliers: str | None,
    inception: str | None,
    log_to_run: bool = True,
) -> None:
    """Test the best checkpoint of ``run``, on the data and with the settings of its own config.

    Overrides of data and trainer on the command line take precedence over the run's config: a choice
    (``data=fashion_mnist``, ``trainer=cpu``) replaces it, a key (``data.root=...``) is set in it. A group of metrics
    that the model or the data do not allow is left out, with the reason. The same command gives the same numbers.

    Args:
        config: the resolved config.
        num_samples: K, importance samples per test image for log p(x); 0 leaves it out.
        num_images: test images for costly metrics (log p(x), anomaly scores), evenly spaced; all if None.
        metrics: names of groups (``vaezoo.evaluation.groups``), or "all".
        annealed: test images for annealed importance sampling, which takes minutes; 0 leaves it out.
        outliers: a config of conf/data with images that the model was not trained on.
        inception: a file with Inception's weights. If given, samples are judged by its features.
        log_to_run: whether the numbers are added to the W&B run and the TensorBoard log of the evaluated run;
            ``logger=none`` leaves it out, too.

    Raises:
        ConfigError: an argument is out of range, or there is no such run.
    """
    settings = EvaluationSettings(num_samples, num_images, annealed, outliers, inception, config["compile"]).check()
    names = select_groups(metrics)
    start = time.perf_counter()
    run = open_run(config)
    values = dict(test(run.trainer, run.model, run.data))
    if torch.distributed.is_initialized():  # one process does the rest: no metric may wait for the others
        torch.distributed.destroy_process_group()
    if not run.trainer.is_global_zero:
        return
    run.model.to(run.trainer.strategy.root_device)  # Lightning leaves it on the CPU
    quantities, left_out = dict(QUANTITIES), {}
    notes: list[str] = []
    verdict: dict[str, Any] = {}
    for name in (bar := tqdm(names, leave=False, disable=None)):
        bar.set_description(name)
        try:
            result = GROUPS[name](run, settings)
        except ConfigError:
            raise
        except ValueError as reason:  # DoesNotApply, or inputs that the metric cannot handle, such as NaN
            left_out[name] = use_noun(str(reason), run.data.noun)
            continue
        broken = [key for key, value in result.values.items() if not math.isfinite(value)]
        values |= {key: value for key, value in result.values.items() if key not in broken}
        notes += [f"{', '.join(broken)} left out: not a finite number"] if broken else []
        new = {key: result.quantities[key] for key in result.quantities if key in result.values.keys() - quantities}
        quantities |= {key: quantity._replace(group=name) for key, quantity in new.items()}
        notes += [result.note] if result.note not in ("", *notes) else []
        if result.verdict is not None:
            verdict = {"verdict": result.verdict._asdict()}
    if run.model.conditional:
        quantities = given_context(quantities)
    seconds = round(time.perf_counter() - start, 2)
    origin = {"checkpoint": str(run.path), "data": type(run.data).__name__, "scored": run.log_likelihood_kind}
    origin["test_set"] = run.data.test_set
    noun = run.data.noun
    notes = [use_noun(note, noun) for note in notes]
    found = {"left_out": left_out, "notes": notes, **verdict, "wall_seconds": seconds}
    write_summary(run.config, quantities, noun, task="evaluate", **origin, test=values, **found)
    if log_to_run and config["logger"]:
        notes += add_to_loggers(run, values)
    notes += [f"left out: {name} ({reason})" for name, reason in left_out.items()]
    title = run.title(f"test set, log p of {run.log_likelihood_kind}")
    print_results(title, values, with_noun(quantities, noun), [*notes, f"run folder: {config['run_dir']}"])


def add_to_loggers(run: TrainedRun, values: dict[str, float]) -> list[str]:
    """Add the numbers to the logs of the run that was evaluated, and return a note that says so.

    They are ``test/*`` there, as at the end of the training, but ``test_DATA/*`` if the command chooses other data.

    Args:
        run: the run.
        values: the numbers.
    """
    folder = folder_of(run.path)
    if not folder.has_training:  # the checkpoint is not in the folder of its run
        return []
    same = ("data.root", "data.path", "data.num_workers")
    other = [text for text in command_overrides() if has_key(text, ("data",)) and not has_key(text, same)]
    stage = f"test_{type(run.data).__name__}" if other else "test"
    named = {f"{stage}/{name}": value for name, value in values.items()}
    # From a checkpoint, which may be a stranger's: nothing but names.
    saved = (run.config.get("logger") or {}).get("wandb") or {}
    options = {key: saved[key] for key in ("project", "entity", "name") if isinstance(saved.get(key), str)}
    loggers = log_evaluation(folder.path, options, named, step=folder.read_summary().get("steps", 0))
    return [f"added to the run in {' and '.join(loggers)} (task.log_to_run=false leaves it out)"] if loggers else []
