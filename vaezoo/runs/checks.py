"""Refuse meaningless settings before anything is built: the libraries accept them, or their messages are unclear."""

import os
import re
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator

from vaezoo.errors import ConfigError

# The smallest values of the trainer's numbers, and other values with a meaning of their own.
MINIMUMS: dict[str, tuple[float, dict[Any, str]]] = {
    "accumulate_grad_batches": (1, {}),
    "gradient_clip_val": (0, {}),
    "max_epochs": (1, {-1: "no end"}),
    "max_steps": (1, {-1: "no end"}),
    "log_every_n_steps": (1, {}),
    "check_val_every_n_epoch": (1, {}),
    "num_sanity_val_steps": (0, {-1: "all"}),
    "num_nodes": (1, {}),
}
# Numbers or fractions of batches, and whether 0 is allowed, for none.
BATCH_LIMITS = {
    "limit_train_batches": False,
    "limit_val_batches": True,
    "limit_test_batches": False,
    "val_check_interval": False,
    "overfit_batches": True,
}
SWITCHES = ("enable_progress_bar", "enable_model_summary", "detect_anomaly", "benchmark")


def check_trainer(trainer: dict[str, Any]) -> None:
    """Refuse meaningless settings of the trainer.

    Raises:
        ConfigError: the message names the first one, its value and what it should be.
    """
    for name, (least, special) in MINIMUMS.items():
        value: Any = trainer.get(name)
        if is_number(value) and value < least and value not in special:
            other = "".join(f", or {key} for {meaning}" for key, meaning in special.items())
            raise ConfigError(f"trainer.{name} must be >= {least:g}{other}, got {value}")
    for name, zero in BATCH_LIMITS.items():
        value = trainer.get(name)
        if is_number(value) and not (value == 0 and zero):
            allowed = value >= 1 if type(value) is int else 0 < value <= 1
            if not allowed:
                none = ", or 0 for none" if zero else ""
                raise ConfigError(
                    f"trainer.{name}={value} should be a number of batches >= 1, or a fraction of them above 0 and at "
                    f"most 1.0{none}"
                )
    for name in SWITCHES:
        if not isinstance(trainer.get(name), bool | None):
            raise ConfigError(f"trainer.{name}={trainer[name]} should be true or false")
    if trainer.get("deterministic") not in (True, False, None, "warn"):
        raise ConfigError(f"trainer.deterministic={trainer['deterministic']} should be true, false or warn")
    if is_number(steps := trainer.get("fast_dev_run", False)) and (type(steps) is float or steps < 0):
        raise ConfigError(f"trainer.fast_dev_run={steps} should be true, false or a number of batches >= 1")
    if not isinstance(trainer.get("profiler"), str | None):
        raise ConfigError(f"trainer.profiler={trainer['profiler']} should be simple, advanced, pytorch or null")
    if trainer.get("max_time") is not None and not is_time(trainer["max_time"]):
        raise ConfigError(
            f"trainer.max_time={trainer['max_time']} should be a time above 0, days:hours:minutes:seconds as in "
            f"00:12:00:00"
        )
    check_machine(trainer.get("accelerator", "auto"), trainer.get("devices", 1))


def check_machine(accelerator: Any, devices: Any) -> None:
    """Refuse an accelerator that this machine does not have, and more devices than it has."""
    gpus = {"cuda": CUDAAccelerator.is_available(), "mps": MPSAccelerator.is_available()}
    accelerators = ["cpu", *(name for name, is_available in gpus.items() if is_available)]
    known = accelerators if len(accelerators) == 1 else [*accelerators, "gpu"]
    if accelerator in ("gpu", "cuda", "mps", "tpu") and accelerator not in known:
        raise ConfigError(
            f"trainer.accelerator={accelerator}: this machine has only {' and '.join(accelerators)}, use "
            f"trainer.accelerator=auto"
        )
    on_gpu = len(accelerators) > 1 and accelerator != "cpu"
    if type(devices) is not int:
        if not on_gpu and devices != "auto":
            raise ConfigError(f"trainer.devices={devices} should be an integer >= 1: there is no GPU")
        return
    if on_gpu:
        most, unit = (CUDAAccelerator.auto_device_count() if gpus["cuda"] else 1), "GPUs"
    else:
        most, unit = max(2, os.cpu_count() or 1), "cores"
    if devices == -1 and on_gpu:
        return
    if devices < 1:
        hint = "; -1 stands for all GPUs, and there is none" * (devices == -1)
        raise ConfigError(f"trainer.devices must be >= 1, got {devices}{hint}")
    if devices > most:
        raise ConfigError(f"trainer.devices={devices} is more than this machine has {unit}: use at most {most}")


def check_optimizer(optimizer: dict[str, Any]) -> None:
    """Refuse meaningless values of the settings that all optimizers have.

    Raises:
        ConfigError: the message names the first one, its value and what it should be.
    """
    betas = optimizer.get("betas", [0.9, 0.999])
    if not (isinstance(betas, list) and len(betas) == 2 and all(is_number(b) and not (b < 0 or b >= 1) for b in betas)):
        raise ConfigError(f"optimizer.betas={betas} should be two numbers from 0 to below 1, as in [0.9,0.999]")
    for name in ("lr", "eps"):
        if is_number(value := optimizer.get(name, 1)) and value == 0:
            raise ConfigError(f"optimizer.{name} must be > 0, got {value}")


class CheckTestShare(pl.Callback):
    """Refuses a fraction of the test batches that is less than one batch, before the training starts."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        share, num = trainer.limit_test_batches, len(trainer.datamodule.test_dataloader())  # type: ignore[attr-defined]
        if type(share) is float and share * num < 1:
            raise ConfigError(f"trainer.limit_test_batches={share} is less than one of the {num} test batches")


def is_number(value: Any) -> bool:
    """Return whether a value is a number, not true or false."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_time(value: Any) -> bool:
    """Return whether a value is a time above 0 in a form that Lightning reads."""
    if isinstance(value, str) and re.fullmatch(r"\d+:\d\d:\d\d:\d\d", value):
        return any(int(part) > 0 for part in value.split(":"))
    try:
        return isinstance(value, dict) and timedelta(**value) > timedelta()
    except TypeError:
        return False
