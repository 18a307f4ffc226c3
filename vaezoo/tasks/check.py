"""Look at the data and at the model that would be trained, before training."""

import json
import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from vaezoo.data import DataModule
from vaezoo.data.statistics import describe_data
from vaezoo.errors import ConfigError, count_noun, escape_unprintable, format_duration
from vaezoo.models import LatentVariableModel
from vaezoo.pictures import Display
from vaezoo.runs.folder import describe_files, write_atomic
from vaezoo.runs.notes import describe_doubts
from vaezoo.runs.setup import build_run, build_trainer, configure_machine, describe_choice, silence_lightning
from vaezoo.runs.summary import peak_memory_mb, write_summary

SHEET = 32  # examples on the sheet
TRIAL_STEPS = 12  # optimizer steps that are timed
SPLITS = {"train": "training", "val": "validation", "test": "test"}
MOST_LINES = 12  # of a long list on the terminal
FEW_STEPS = 10  # optimizer steps per epoch; fewer lead to a warning


def check(config: dict[str, Any]) -> None:
    """Print what the data are and what a training of this command would cost, and train nothing.

    The run's folder gets ``check.json`` with all numbers, ``check.png`` with 32 training examples as the model sees
    them, and the same examples in a form for people if the data module writes one. The time of an epoch is measured in
    a few steps of a model that is thrown away.

    Args:
        config: the resolved config of a training.
    """
    silence_lightning()
    final_config, model, data = build_run(config)
    data.prepare_data()
    start = time.perf_counter()
    data.setup()
    measured = {"seconds_to_read": round(time.perf_counter() - start, 2)}
    measured |= measure_epoch(final_config, model, data)
    report(final_config, model, data, measured)


@rank_zero_only
def report(config: dict[str, Any], model: LatentVariableModel, data: DataModule, measured: dict[str, Any]) -> None:
    """Describe the data, write the files and print the numbers, in the first process only.

    Args:
        config: the final config of the run.
        model: the model.
        data: the data module, after its ``setup``.
        measured: what was measured, by name.
    """
    found = describe_data(data) | {"about_these_data": data.report(), "choice": describe_choice(model, data)}
    found |= measured | {"notes": describe_doubts(model, data)}
    folder = Path(config["run_dir"])
    files = draw_sheet(data, folder)
    write_atomic(folder / "check.json", json.dumps(found, indent=1, ensure_ascii=False))
    write_summary(config, noun=data.noun, task="check", files=[str(file) for file in files])
    print(escape_unprintable("\n".join(lines(found, [folder / "check.json", *files]))))


def draw_sheet(data: DataModule, folder: Path) -> list[Path]:
    """Draw and write training examples as the model sees them, and return the files."""
    x = data.examples(SHEET).x
    display, files = Display(data), []
    if display.can_draw(x):
        file = folder / "check.png"
        title = f"{count_noun(len(x), f'training {data.noun}')} of {type(data).__name__}"
        Image.fromarray(display.grid(x, title)).save(file)
        files.append(file)
    return files + data.save_examples(x, folder / "check-examples")


def measure_epoch(config: dict[str, Any], model: LatentVariableModel, data: DataModule) -> dict[str, Any]:
    """Train a few steps, and return the speed, the time of an epoch and the memory that is used.

    Args:
        config: the final config of the run.
        model: the model. Its weights change.
        data: the data module, after its ``setup``.
    """
    configure_machine(model, data, config["threads"])
    stopwatch = Stopwatch()
    settings = {"max_epochs": 1, "limit_train_batches": TRIAL_STEPS, "limit_val_batches": 0, "max_time": None}
    short = config | {"trainer": config["trainer"] | settings | {"enable_progress_bar": False}}
    try:
        trainer = build_trainer(short, [], [stopwatch], enable_checkpointing=False)
        trainer.fit(model, data)
    except ConfigError:
        raise
    except ValueError as error:
        raise ValueError(f"the first steps of the training fail: {error}") from error
    rate = stopwatch.rate
    examples_per_step = data.batch_size * data.trainer_info.world_size * trainer.accumulate_grad_batches
    return {
        "model": config["name"],
        "parameters": sum(p.numel() for p in model.parameters()),
        f"{data.noun}s_per_second": round(rate, 1) if rate else None,
        "batch_size": data.batch_size,
        "examples_per_step": examples_per_step,
        "steps_per_epoch": math.ceil(data.examples_per_epoch / examples_per_step),
        "seconds_per_epoch": round(data.examples_per_epoch / rate, 1) if rate else None,
        "epochs": config["trainer"]["max_epochs"],
        "peak_memory_mb": peak_memory_mb(),
    }


class Stopwatch(pl.Callback):
    """Measures the speed of training steps, without the first third of them, which are slower.

    Attributes:
        rate: examples per second; None before two steps.
    """

    def __init__(self) -> None:
        self.rate: float | None = None
        self.marks: list[tuple[float, int]] = []

    def on_microbatch_end(self, trainer: pl.Trainer, pl_module: Any, item: Any) -> None:
        """Note the time after a batch."""
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), len(item.batch.x) * trainer.world_size))
        (start, _), *later = self.marks[len(self.marks) // 3 :]
        if later:
            self.rate = sum(num for _, num in later) / max(later[-1][0] - start, 1e-9)


def lines(found: dict[str, Any], files: list[Path]) -> list[str]:
    """Return the numbers as lines of text: one screen."""
    noun, numbers = found["noun"], found["numbers"]
    sizes = ", ".join(f"{numbers[name]:,} {word}" for name, word in SPLITS.items())
    shape = "x".join(map(str, found["shape"]))
    text = [
        f"{found['class']}: {count_noun(sum(numbers.values()), noun)} of shape {shape} ({sizes})",
        f"{found['choice']}; model: {found['model']}, {found['parameters']:,} parameters",
    ]
    looked = "" if found["looked_at"] == sum(numbers.values()) else f", of {count_noun(found['looked_at'], noun)}"
    names_only = found["kind"] in ("token", "categorical")  # their numbers have no meaning
    has_columns = "columns" in found["about_these_data"]  # each with its own range
    if found["range"] and not names_only and not has_columns:
        low, high = found["range"]
        spread = "" if found["std"] is None else f", standard deviation {found['std']:.4g}"
        text.append(f"values: {low:.4g} to {high:.4g}, mean {found['mean']:.4g}{spread}{looked}")
    if found["missing"]:
        share, rows = f"{found['missing']:.2%}", f"{found['missing_examples']:.2%}"
        word = "padding" if found["kind"] == "token" else "missing"
        text.append(f"{word}: {share} of the entries, in {rows} of the {noun}s")
    text.append(
        f"duplicates: {found['duplicates']:,}; test {noun}s that are also training {noun}s: {found['shared']:,}; "
        f"constant entries: {found['constant_entries']:,}"
    )
    if found["classes"]:
        text.append(f"classes of the training {noun}s: {shorten(found['classes'])}")
    for name, value in found["about_these_data"].items():
        if value not in (0, "", None, {}, []):
            text.append(f"{name}: {shorten(value)}")
    speed = ""
    if rate := found[f"{noun}s_per_second"]:
        seconds, epochs = numbers["train"] / rate, found["epochs"]
        training = f" and {format_duration(seconds * epochs)} for {count_noun(epochs, 'epoch')}" if epochs else ""
        speed = f"{rate:,.0f} {noun}s/s, {format_duration(seconds)} for an epoch{training}; "
    text.append(f"training: {speed}{found['peak_memory_mb']['process']:,.0f} MB of memory")
    return [*text, *found.get("notes", []), *describe_few_steps(found), *describe_files(files)]


def describe_few_steps(found: dict[str, Any]) -> list[str]:
    """Return a warning if an epoch has fewer than ``FEW_STEPS`` optimizer steps and a smaller batch gives more."""
    num, batch_size, steps = found["numbers"]["train"], found["batch_size"], found["steps_per_epoch"]
    batches_per_step = found["examples_per_step"] // batch_size
    largest = max(1, num // (FEW_STEPS * batches_per_step))
    smaller = 2 ** (largest.bit_length() - 1)  # the largest power of two with at least FEW_STEPS steps
    if steps >= FEW_STEPS or smaller >= batch_size:
        return []
    return [
        f"warning: {count_noun(num, 'training ' + found['noun'])} and batches of {batch_size:,} are "
        f"{count_noun(steps, 'optimizer step')} per epoch: data.batch_size={smaller} makes "
        f"{math.ceil(num / (smaller * batches_per_step))}"
    ]


def shorten(value: Any) -> str:
    """Return a value as text of limited length: only the first entries of a long list or dict."""
    if isinstance(value, dict):
        parts = [f"{key} {item}" if isinstance(item, int | float) else f"{key}: {item}" for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [str(item) for item in value]
    elif isinstance(value, bool):
        return "yes" if value else "no"
    else:
        return f"{value:,}" if isinstance(value, int) else str(value)
    more = [f"... ({len(parts) - MOST_LINES:,} more in check.json)"] if len(parts) > MOST_LINES else []
    separator = "\n  " if any(len(part) > 30 for part in parts) else ", "
    return (separator if separator != ", " else "") + separator.join([*parts[:MOST_LINES], *more])
