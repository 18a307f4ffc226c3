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
    """Lightning's chatter off: what it says on every run, and what does not hold for our loaders."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # it would print each line twice beside Hydra
        logging.getLogger(name).setLevel(logging.ERROR)
    table = logging.getLogger("lightning.pytorch.callbacks.model_summary")  # asked for by name, it is no chatter
    table.setLevel(logging.INFO)
    table.handlers = [logging.StreamHandler()]
    # On a machine without a GPU, torch.compile tells where CUDA would be.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*`devices=1`.*|.*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def build_run(config: dict[str, Any]) -> tuple[LatentVariableModel, ImageData]:
    """The model and the data of a config, checked against each other.

    ``data.binarize: auto`` becomes the mode that the data module chooses, in the config itself.
    """
    allow_packages, seed, data_config = tuple(config["allow_packages"]), config["seed"], config["data"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed!r} should be a whole number from 0 to {2**32 - 1}")
    check_optimizer(config["optimizer"] or {})
    pl.seed_everything(seed, verbose=False)  # before the model exists: its initial weights are drawn from it
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
    if "root" in data_config:  # so that the run can be evaluated from another folder
        data_config["root"] = os.path.abspath(os.path.expanduser(data_config["root"]))
    data: ImageData = build(data_config, "data", allow_packages, seed=seed)
    if data_config.get("binarize") == "auto":  # so that it is recorded
        data_config["binarize"] = data.resolve_binarize(model.likelihood.supported_data)
    model.check_data_kind(data)
    model.config = config
    return model, data


def configure_machine(config: dict[str, Any], model: LatentVariableModel, data: ImageData) -> None:
    """Settings of the process and of the memory's layout, for speed."""
    set_threads(config["threads"], sum(p.numel() for p in model.parameters()) * data.batch_size)
    keep_freed_memory()
    skip_gpu_probe()
    model.to(memory_format=torch.channels_last)  # what convolutions on CPUs are fastest in


def build_trainer(config: dict[str, Any], loggers: list, callbacks: list, **settings: Any) -> pl.Trainer:
    """The trainer of a config."""
    trainer = config["trainer"] | settings
    check_trainer(trainer)
    if not trainer.get("enable_progress_bar", True):  # Lightning refuses a bar of ours then
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.ProgressBar)]
    return build(trainer, "trainer", logger=loggers, callbacks=callbacks, default_root_dir=config["run_dir"])


def test(trainer: pl.Trainer, model: LatentVariableModel, data: ImageData) -> dict[str, float]:
    """The test numbers: exact means over the test images, in float64."""
    trainer.test(model, data, verbose=False)
    return model.results["test"]


def log_likelihood_kind(model: LatentVariableModel, data: ImageData) -> str:
    """What log p is of, for ELBOs of different things cannot be compared: bits, 256 levels, or a density."""
    supported = model.likelihood.supported_data
    kind = "bits" if data.data_kind == "binary" else "levels" if supported == {"byte"} else "density"
    return f"{kind} given y" if model.conditional else kind


@contextmanager
def open_loggers(config: dict[str, Any]) -> Iterator[list[Any]]:
    """The loggers of a config while a block runs, and whatever happens W&B's run closed after it: a second one in this
    process would silently join it.
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
    """Finish W&B's run, if this process has one; if its service is gone, let nothing be left of it."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    logger = next((logger for logger in loggers if isinstance(logger, WandB)), WandB(experiment=wandb.run))
    call_or_disable(logger, wandb.finish, exit_code=exit_code)
    if logger.disabled:
        with suppress(Exception):  # its connection is what has failed
            wandb.teardown(exit_code)  # otherwise W&B tries once more when the interpreter exits, with a traceback
