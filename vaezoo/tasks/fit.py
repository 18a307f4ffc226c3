"""Train a model, test its best checkpoint and write a summary."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from vaezoo.callbacks.checkpoints import Best
from vaezoo.callbacks.monitor import Monitor
from vaezoo.callbacks.progress import describe_training
from vaezoo.data import DataModule
from vaezoo.errors import ConfigError, count_noun
from vaezoo.loggers import CSV, TensorBoard
from vaezoo.metrics.latent import collapse_note
from vaezoo.metrics.quantities import QUANTITIES, given_context, with_noun
from vaezoo.models import LatentVariableModel
from vaezoo.report.tables import print_results
from vaezoo.run_page import write_run_page
from vaezoo.runs.checkpoint import CONFIG_KEY, CheckpointIO, newest_checkpoint, print_once, read_checkpoint
from vaezoo.runs.checkpoint_file import remove_leftovers
from vaezoo.runs.checks import CheckTestShare
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.header import Header
from vaezoo.runs.load import load_weights
from vaezoo.runs.overrides import CHANGEABLE_KEYS, has_key
from vaezoo.runs.setup import (
    build_callbacks,
    build_run,
    build_trainer,
    configure_machine,
    log_likelihood_kind,
    open_loggers,
    silence_lightning,
    test,
)
from vaezoo.runs.summary import git_commit, write_summary
from vaezoo.training.machine import bf16_note

# The parts of a config that must not change when a run is resumed.
FIXED = ("seed", "model", "data", "optimizer", "scheduler")
ABSENT = "no value"  # stands for a key that only one of two configs has


def fit(config: dict[str, Any], content: Any = None) -> tuple[LatentVariableModel, DataModule]:
    """Train a model, then test the checkpoint with the best validation (the last weights if there is none).

    Args:
        config: the resolved config. ``auto`` values are replaced in place.
        content: data in memory, as in ``vaezoo.runs.setup.match_data``.

    Returns:
        The model with the tested weights, and the data module.
    """
    start = time.perf_counter()
    silence_lightning()
    final_config, model, data = build_run(config, content=content)
    config |= final_config  # in place, so that a failure is recorded with it too
    configure_machine(model, data, config["threads"])
    with open_loggers(config) as loggers:
        callbacks = [*build_callbacks(config), CheckTestShare(), Header(config)]
        trainer = build_trainer(config, loggers, callbacks, plugins=[CheckpointIO()])
        if note := bf16_note(trainer.precision, trainer.strategy.root_device):
            print_once(note)
        checkpoint = prepare_resume(config, loggers) if config["resume"] else None
        facts = {"dataset": type(data).__name__, "parameters": num_parameters(model), "git_commit": git_commit()}
        for logger in loggers:
            logger.log_hyperparams(config | facts)
        trainer.fit(model, data, ckpt_path=checkpoint)
        test_and_summarize(config, trainer, model, data, start)
    return model, data


def prepare_resume(config: dict[str, Any], loggers: list) -> Path | None:
    """Return the checkpoint from which a run is resumed, after rewinding the loggers; None if there is no checkpoint.

    Args:
        config: the final config of the run.
        loggers: logs on disk lose the rows that are later than the checkpoint.

    Raises:
        ConfigError: the checkpoint was trained for more epochs than this run asks for, or with another model, data,
            optimizer, scheduler or seed.
        ValueError: there are checkpoints, but none is intact.
    """
    folder = RunFolder(config["run_dir"]).checkpoints
    remove_leftovers(folder)
    newest = newest_checkpoint(folder)
    if newest is not None:
        check_epochs(config["trainer"]["max_epochs"], *newest)
    step = newest[1]["global_step"] if newest else 0
    for logger in loggers:
        if isinstance(logger, CSV | TensorBoard):
            logger.rewind(step)
    if newest is None:
        return None
    path, checkpoint = newest
    for key, before, now in config_differences(checkpoint[CONFIG_KEY], config):
        is_default = ABSENT in (before, now) and not key.endswith("_target_")  # of another version
        if key.split(".")[0] in FIXED and not is_default:
            raise ConfigError(f"{path} was trained with {key}={before}, not with {key}={now}: start a new run")
        print_once(f"resuming with {key}={now}, before it was {before}")
    print_once(f"resuming from {path}, step {step}")
    return path


def check_epochs(max_epochs: int | None, path: Path, checkpoint: dict[str, Any]) -> None:
    """Raise an error if a checkpoint was trained for more epochs than a run asks for.

    Raises:
        ConfigError: it was.
    """
    epochs = checkpoint.get("epoch", 0)
    if max_epochs is not None and 0 <= max_epochs < epochs:
        raise ConfigError(
            f"trainer.max_epochs={max_epochs} is less than the {count_noun(epochs, 'epoch')} of {path}: use a larger "
            f"number"
        )


def config_differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys, with both values, in which two configs differ although a resumed run should not change them.

    Args:
        before: a value in the checkpoint's config.
        now: the value in the present config.
        key: the key of both; empty for whole configs.
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            if key or name in (*FIXED, "trainer", "threads", "compile"):
                values = before.get(name, ABSENT), now.get(name, ABSENT)
                yield from config_differences(*values, f"{key}.{name}" if key else name)
    elif before != now and not has_key(key, CHANGEABLE_KEYS):
        yield key, before, now


def test_and_summarize(
    config: dict[str, Any], trainer: pl.Trainer, model: LatentVariableModel, data: DataModule, start: float
) -> None:
    """Test the best weights, write the summary and print the results.

    Args:
        config: the final config of the run.
        trainer: the trainer, after the training.
        model: the model, with the last weights.
        data: the data module.
        start: when the run started, by ``time.perf_counter``.

    Raises:
        ValueError: the test ELBO (of a model without one: log p(x | z)) is not finite.
    """
    callbacks: list = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it at run time
    best = next((c for c in callbacks if isinstance(c, Best) and c.score is not None), None)
    monitor = next((c for c in callbacks if isinstance(c, Monitor)), None)
    progress: dict[str, Any] = {"epochs": model.epochs, "steps": trainer.global_step}
    validation = model.results.get("val", {})
    if best:
        trainer.strategy.barrier("best checkpoint written")
        load_weights(model, read_checkpoint(best.path), best.path)
    values = test(trainer, model, data)
    if not trainer.is_global_zero:
        return
    if not math.isfinite(values[model.monitored]):
        raise divergence_error(model.monitored, values[model.monitored])
    quantities = given_context(QUANTITIES) if model.conditional else QUANTITIES
    summary = write_summary(
        config,
        quantities=quantities,
        noun=data.noun,
        task="fit",
        data=type(data).__name__,
        scored=log_likelihood_kind(model, data),
        test_set=data.test_set,
        test=values,
        last_val=validation,
        objective=best.score if best else validation.get(model.monitored),
        **progress,
        wall_seconds=round(time.perf_counter() - start, 2),
        train_examples_per_second=round(monitor.examples / monitor.seconds, 1) if monitor and monitor.seconds else None,
        parameters=num_parameters(model),
    )
    speed = summary["train_examples_per_second"]
    title = f"{config['name']} on {type(data).__name__}, seed {config['seed']}: test set, log p of {summary['scored']}"
    notes = [
        f"{describe_training(progress['steps'], progress['epochs'])} in {summary['wall_seconds']:.0f} s"
        + (f", {speed:,.0f} {data.noun}s/s in training" if speed else ""),  # a resumed complete run trains no more
        *(f"pictures: {folder}" for folder in find_pictures(config)),
        f"run folder: {config['run_dir']}",
        f"page: {write_run_page(config['run_dir'])}",
    ]
    if "wandb" in config["logger"]:
        notes.append(dashboard_hint())
    if note := collapse_note(values.get("kl", math.inf)):
        notes.insert(0, note)
    print_results(title, values, with_noun(quantities, data.noun), notes)


def find_pictures(config: dict[str, Any]) -> list[Path]:
    """Return the folder of the pictures of a run in a list; empty if there are none."""
    folder = ((config.get("callbacks") or {}).get("images") or {}).get("folder")
    return [Path(folder)] if folder and any(Path(folder).glob("*")) else []


def num_parameters(model: LatentVariableModel) -> int:
    """Return the number of parameters of a model."""
    return sum(p.numel() for p in model.parameters())


def divergence_error(name: str, value: float) -> ValueError:
    """Return the error of a run whose test number is not finite."""
    return ValueError(
        f"training diverged (test {name} {value}): try a smaller optimizer.lr or trainer.gradient_clip_val=1"
    )


def dashboard_hint() -> str:
    """Return where the W&B run can be seen."""
    import wandb

    if wandb.run is None or wandb.run.disabled:
        return "dashboard: W&B is off (WANDB_MODE)"
    if wandb.run.offline:
        return f"dashboard: wandb leet {Path(wandb.run.dir).parent} (offline; `wandb sync` uploads it)"
    return f"dashboard: {wandb.run.url}"
