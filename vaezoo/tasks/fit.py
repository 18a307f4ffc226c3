"""Train a model, test its best checkpoint, and write down what came out."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from vaezoo.callbacks.checkpoints import Best
from vaezoo.callbacks.monitor import Monitor
from vaezoo.callbacks.progress import describe_training
from vaezoo.data import ImageData
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.loggers import CSV, TensorBoard
from vaezoo.metrics.quantities import QUANTITIES
from vaezoo.models import LatentVariableModel
from vaezoo.report.tables import print_results
from vaezoo.runs import signals
from vaezoo.runs.checkpoint import (
    CONFIG_KEY,
    CheckpointIO,
    load_weights,
    newest_checkpoint,
    print_once,
    read_checkpoint,
    remove_leftovers,
)
from vaezoo.runs.checks import CheckTestShare
from vaezoo.runs.resume import CHANGEABLE_KEYS, overrides_key
from vaezoo.runs.setup import (
    build_run,
    build_trainer,
    configure_machine,
    log_likelihood_kind,
    open_loggers,
    silence_lightning,
    test,
)
from vaezoo.runs.summary import write_summary

# The parts of a config that must not change when a run is resumed.
FIXED = ("seed", "model", "data", "optimizer", "scheduler")
ABSENT = "no value"  # a key that one of two configs does not have


def fit(config: dict[str, Any]) -> None:
    """Train, then test the checkpoint with the best val/elbo (or the last weights, without any)."""
    start = time.perf_counter()
    silence_lightning()
    allow_packages = tuple(config["allow_packages"])
    model, data = build_run(config)
    configure_machine(config, model, data)
    with signals.handling_signals(), open_loggers(config) as loggers:
        built = build(config["callbacks"], "callbacks", allow_packages).values()
        for name, callback in zip(config["callbacks"], built, strict=True):
            if callback is not None and not isinstance(callback, pl.Callback):
                raise ConfigError(f"callbacks.{name}={callback} should be null, or have the _target_ of a callback")
        callbacks = [*filter(None, built), CheckTestShare()]
        trainer = build_trainer(config, loggers, callbacks, plugins=[CheckpointIO()])
        checkpoint = prepare_resume(config, loggers) if config["resume"] else None
        for logger in loggers:
            logger.log_hyperparams(config)
        trainer.fit(model, data, ckpt_path=checkpoint)
        test_and_summarize(config, trainer, model, data, start)


def prepare_resume(config: dict[str, Any], loggers: list) -> Path | None:
    """The checkpoint that a resumed run goes on from, with its loggers wound back to it; None where there is none."""
    folder = Path(config["run_dir"], "checkpoints")
    remove_leftovers(folder)
    found = newest_checkpoint(folder)
    path, checkpoint = found or (None, {"global_step": 0})
    for logger in loggers:
        if isinstance(logger, CSV | TensorBoard):
            logger.rewind(checkpoint["global_step"])
    if path is None:
        return None
    for key, before, now in config_differences(checkpoint[CONFIG_KEY], config):
        is_default = ABSENT in (before, now) and not key.endswith("_target_")  # of another version
        if key.split(".")[0] in FIXED and not is_default:
            raise ConfigError(f"{path} was trained with {key}={before}, not with {key}={now}: start a new run")
        print_once(f"resumed with another {key}: {now} in place of {before}")
    print_once(f"going on from {path}, step {checkpoint['global_step']}")
    return path


def config_differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The keys at which two configs say different things of what a run that goes on should not change."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            if key or name in (*FIXED, "trainer", "threads", "compile"):
                there, here = before.get(name, ABSENT), now.get(name, ABSENT)
                yield from config_differences(there, here, f"{key}.{name}" if key else name)
    elif before != now and not overrides_key(key, CHANGEABLE_KEYS):
        yield key, before, now


def test_and_summarize(
    config: dict[str, Any], trainer: pl.Trainer, model: LatentVariableModel, data: ImageData, start: float
) -> None:
    """Test the best weights and write the summary."""
    callbacks: list = trainer.callbacks  # type: ignore[attr-defined]  # set by its connector
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
    if not math.isfinite(values["elbo"]):
        raise divergence_error(values["elbo"])
    summary = write_summary(
        config,
        task="fit",
        data=type(data).__name__,
        scored=log_likelihood_kind(model, data),
        test=values,
        last_val=validation,
        objective=best.score if best else validation.get("elbo"),
        **progress,
        wall_seconds=round(time.perf_counter() - start, 2),
        train_images_per_second=round(monitor.images / monitor.seconds, 1) if monitor and monitor.seconds else None,
        parameters=sum(p.numel() for p in model.parameters()),
    )
    speed = summary["train_images_per_second"]
    title = f"{config['name']} on {type(data).__name__}, seed {config['seed']}: test set, log p of {summary['scored']}"
    notes = [
        f"{describe_training(progress['steps'], progress['epochs'])} in {summary['wall_seconds']:.0f} s"
        + (f", {speed:,.0f} images/s in training" if speed else ""),  # one that had ended before trains no more
        f"run folder: {config['run_dir']}",
    ]
    if "wandb" in config["logger"]:
        notes.append(dashboard_hint(config["run_dir"]))
    print_results(title, values, QUANTITIES, notes)


def divergence_error(elbo: Any) -> ValueError:
    """What to say of a run without a finite bound."""
    return ValueError(
        f"training diverged (ELBO {float(elbo)}): try a smaller optimizer.lr or trainer.gradient_clip_val=1"
    )


def dashboard_hint(run_dir: str) -> str:
    """Where the W&B run is to be seen."""
    import wandb

    if wandb.run is None or wandb.run.disabled:
        return "dashboard: W&B is off (WANDB_MODE)"
    if wandb.run.offline:
        return f"dashboard: wandb leet {Path(wandb.run.dir).parent} (offline; `wandb sync` uploads it)"
    return f"dashboard: {wandb.run.url}"
