"""Build the objects of a run from its config."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lightning.pytorch as pl
import torch

from vaezoo.data import ImageData
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build
from vaezoo.loggers import WandB, call_or_disable
from vaezoo.models import LatentVariableModel
from vaezoo.runs.checks import check_optimizer, check_trainer
from vaezoo.training.machine import keep_freed_memory, set_threads, skip_gpu_probe


def silence_lightning() -> None:
    """Silence Lightning's routine messages, and those that do not apply to our loaders."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # it would print each line twice, once through Hydra's handler
        logging.getLogger(name).setLevel(logging.ERROR)
    table = logging.getLogger("lightning.pytorch.callbacks.model_summary")  # printed only if the user asks for it
    table.setLevel(logging.INFO)
    table.handlers = [logging.StreamHandler()]
    # On a machine without a GPU, torch.compile warns that CUDA is missing.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*`devices=1`.*|.*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def build_run(config: dict[str, Any]) -> tuple[dict[str, Any], LatentVariableModel, ImageData]:
    """Build the model and the data module of a config, and check that they fit together.

    Args:
        config: the resolved config of a run. It is not changed.

    Returns:
        The config as it is recorded, with ``data.binarize: auto`` and a relative ``data.root`` replaced by their
        values; the model, with this config as ``model.config``; and the data module, before its ``setup``.

    Raises:
        ConfigError: a value of the config is wrong, or the likelihood cannot score the data.
    """
    allow_packages, seed, data_config = tuple(config["allow_packages"]), config["seed"], dict(config["data"])
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed!r} should be an integer from 0 to {2**32 - 1}")
    check_optimizer(config["optimizer"] or {})
    pl.seed_everything(seed, verbose=False)  # before the model is built: its initial weights are random
    model: LatentVariableModel = build(
        config["model"],
        "model",
        allow_packages,
        seed=seed,
        optimizer=build(config["optimizer"], "optimizer", allow_packages),
        scheduler=build(config["scheduler"], "scheduler", allow_packages) or None,
        on_nan=config["on_nan"],
        compiled=config["compile"],
    )
    if not isinstance(data_config.get("root", ""), str):
        raise ConfigError(f"data.root={data_config['root']} should be the name of a folder")
    if "root" in data_config:  # absolute, so that the run can be evaluated from another working directory
        data_config["root"] = os.path.abspath(os.path.expanduser(data_config["root"]))
    data: ImageData = build(data_config, "data", allow_packages, seed=seed)
    if data_config.get("binarize") == "auto":  # so that it is recorded
        data_config["binarize"] = data.resolve_binarize(model.likelihood.supported_data)
    model.check_data_kind(data)
    model.config = config | {"data": data_config}
    return model.config, model, data


def configure_machine(model: LatentVariableModel, data: ImageData, threads: int | None) -> None:
    """Set the number of threads and the layout of the memory, for speed.

    Args:
        model: its parameters are laid out anew.
        data: its batch size says, with the model's size, how much there is to compute.
        threads: number of threads on the CPU; None: one for a small model, else torch's choice.
    """
    set_threads(threads, sum(p.numel() for p in model.parameters()) * data.batch_size)
    keep_freed_memory()
    skip_gpu_probe()
    model.to(memory_format=torch.channels_last)  # convolutions on CPUs are fastest in this layout


def build_callbacks(config: dict[str, Any]) -> list[pl.Callback]:
    """Build the callbacks of a config; those that are null are left out.

    Raises:
        ConfigError: an entry is neither null nor a callback.
    """
    built = build(config["callbacks"], "callbacks", tuple(config["allow_packages"]))
    for name, callback in built.items():
        if callback is not None and not isinstance(callback, pl.Callback):
            raise ConfigError(f"callbacks.{name}={callback} should be null, or have the _target_ of a callback")
    return [callback for callback in built.values() if callback is not None]


def build_trainer(config: dict[str, Any], loggers: list, callbacks: list, **settings: Any) -> pl.Trainer:
    """Build the trainer of a config.

    Args:
        config: the resolved config of a run.
        loggers: built loggers.
        callbacks: built callbacks.
        **settings: further arguments of the trainer.

    Raises:
        ConfigError: a setting of the trainer is wrong.
    """
    trainer = config["trainer"] | settings
    check_trainer(trainer)
    if not trainer.get("enable_progress_bar", True):  # then Lightning refuses any progress bar
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.ProgressBar)]
    return build(trainer, "trainer", logger=loggers, callbacks=callbacks, default_root_dir=config["run_dir"])


def test(trainer: pl.Trainer, model: LatentVariableModel, data: ImageData) -> dict[str, float]:
    """Return the test numbers: exact means over the test images, in float64."""
    trainer.test(model, data, verbose=False)
    return model.results["test"]


def log_likelihood_kind(model: LatentVariableModel, data: ImageData) -> str:
    """Return the measure of log p(x): "bits", "levels" (8-bit) or "density". ELBOs compare only within one.

    For a model that is given labels, " given y" is added.
    """
    supported = model.likelihood.supported_data
    kind = "bits" if data.data_kind == "binary" else "levels" if supported == {"byte"} else "density"
    return f"{kind} given y" if model.conditional else kind


@contextmanager
def open_loggers(config: dict[str, Any]) -> Iterator[list[Any]]:
    """Build the loggers of a config, and close W&B's run when the block ends, also after an error.

    A second run in this process would otherwise be added to the first one, without a warning.
    """
    loggers: list[Any] = []
    try:
        loggers += filter(None, build(config["logger"], "logger", tuple(config["allow_packages"])).values())
        yield loggers
    except BaseException:
        finish_wandb(loggers, exit_code=1)
        raise
    finish_wandb(loggers, exit_code=0)


def finish_wandb(loggers: list[Any], exit_code: int) -> None:
    """Finish W&B's run, if this process has one.

    Args:
        loggers: those of the run.
        exit_code: 0 if the run has ended without an error.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    logger = next((logger for logger in loggers if isinstance(logger, WandB)), WandB(experiment=wandb.run))
    call_or_disable(logger, wandb.finish, exit_code=exit_code)
    if logger.disabled:
        with suppress(Exception):  # W&B's connection has failed
            wandb.teardown(exit_code)  # otherwise W&B tries again when the interpreter exits, with a traceback
