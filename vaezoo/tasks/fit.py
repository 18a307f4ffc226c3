"""Train a model, test its best checkpoint, and write down what came out."""

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from vaezoo.build import ConfigError, build
from vaezoo.callbacks.monitor import Monitor
from vaezoo.callbacks.progress import epochs
from vaezoo.checkpoint import read_checkpoint, restore
from vaezoo.data import ImageData
from vaezoo.models import LatentVariableModel
from vaezoo.tasks import common


def fit(config: dict[str, Any]) -> None:
    """Train, then test the checkpoint with the best val/elbo (or the last weights, without any)."""
    start = time.perf_counter()
    if config["run"] is not None:
        raise ConfigError(f"run={config['run']} is for task=evaluate: add task=evaluate, or leave run out")
    common.quiet()
    trust = tuple(config["trust"])
    model, data = common.build_run(config)
    with common.finished():
        loggers = [logger for logger in build(config["logger"], "logger", trust).values() if logger is not None]
        callbacks = [callback for callback in build(config["callbacks"], "callbacks", trust).values() if callback]
        trainer = common.build_trainer(config, loggers, callbacks)
        for logger in loggers:
            logger.log_hyperparams(config)
        try:
            trainer.fit(model, data)
        except SystemExit:  # Lightning's answer to Ctrl-C
            last = Path(config["run_dir"], "checkpoints", "last.ckpt")
            saved = f"the weights so far are in {last}" if last.exists() else "no weights were saved"
            raise KeyboardInterrupt(saved) from None
        summarise(config, trainer, model, data, start)


def summarise(
    config: dict[str, Any], trainer: pl.Trainer, model: LatentVariableModel, data: ImageData, start: float
) -> None:
    """Test the best weights and write the summary."""
    callbacks: list = trainer.callbacks  # type: ignore[attr-defined]  # set by its connector
    best = next((c for c in callbacks if isinstance(c, ModelCheckpoint) and c.monitor and c.best_model_path), None)
    monitor = next((c for c in callbacks if isinstance(c, Monitor)), None)
    progress = {"epochs": trainer.current_epoch, "steps": trainer.global_step}
    validation = model.results.get("val", {})
    if best and best.best_model_score is not None and not best.best_model_score.isfinite():
        raise diverged(best.best_model_score)
    if best:
        trainer.strategy.barrier("best checkpoint written")
        restore(model, read_checkpoint(best.best_model_path), best.best_model_path)
    values = common.test(trainer, model, data)
    if not trainer.is_global_zero:
        return
    if not math.isfinite(values["elbo"]):
        raise diverged(values["elbo"])
    summary = common.write_summary(
        config,
        task="fit",
        data=type(data).__name__,
        scored=common.scored(model, data),
        test=values,
        last_val=validation,
        objective=float(best.best_model_score or 0) if best else values["elbo"],
        **progress,
        wall_seconds=round(time.perf_counter() - start, 2),
        train_images_per_second=round(monitor.images / monitor.seconds, 1) if monitor and monitor.seconds else None,
        parameters=sum(p.numel() for p in model.parameters()),
    )
    speed = summary["train_images_per_second"] or 0
    title = f"{config['name']} on {type(data).__name__}, seed {config['seed']}: test set, log p of {summary['scored']}"
    notes = [
        f"{epochs(trainer.current_epoch)} in {summary['wall_seconds']:.0f} s, {speed:,.0f} images/s in training",
        f"run folder: {config['run_dir']}",
    ]
    if "wandb" in config["logger"]:
        notes.append(dashboard_hint(config["run_dir"]))
    common.print_results(title, values, notes)


def diverged(elbo: Any) -> ValueError:
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
