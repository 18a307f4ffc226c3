"""The header of a training: what is trained, on which data, where."""

from typing import Any

import lightning.pytorch as pl
import torch

from vaezoo.callbacks.progress import describe_plan
from vaezoo.errors import count_noun
from vaezoo.runs.checkpoint import print_once
from vaezoo.runs.notes import describe_doubts
from vaezoo.runs.setup import describe_choice


class Header(pl.Callback):
    """Prints the header when the data have been read, then the notes on model and data.

    Args:
        config: the final config of the run.
    """

    def __init__(self, config: dict[str, Any]):
        self.config = config

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it at run time
        for line in [*describe_run(self.config, trainer, pl_module, data), *describe_doubts(pl_module, data)]:
            print_once(line)


def describe_run(config: dict[str, Any], trainer: pl.Trainer, model: Any, data: Any) -> list[str]:
    """Return the lines of the header.

    Args:
        config: the final config of the run.
        trainer: the trainer, with its device.
        model: the model.
        data: the data module, after its ``setup``.
    """
    parameters = sum(p.numel() for p in model.parameters())
    sizes = {"training": data.train, "validation": data.val, "test": data.test}
    numbers = ", ".join(f"{len(split.y):,} {name}" for name, split in sizes.items())
    shape = "x".join(map(str, data.shape or ()))
    return [
        f"{config['name']}: {parameters:,} parameters, {describe_device(trainer)}, {describe_plan(trainer)}",
        f"data: {type(data).__name__}, {data.noun}s of shape {shape}: {numbers}",
        describe_choice(model, data),
        f"run folder: {config['run_dir']}",
    ]


def describe_device(trainer: pl.Trainer) -> str:
    """Return the device of a training as text: "cpu with 2 threads"."""
    device = trainer.strategy.root_device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    threads = f" with {count_noun(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    return f"{trainer.world_size} x {name}{threads}" if trainer.world_size > 1 else f"{name}{threads}"
