"""Test a trained run again: the same data, the same noise, the same digits."""

import time
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import OmegaConf
from tqdm import tqdm

from vaezoo.build import ConfigError
from vaezoo.checkpoint import CONFIG_KEY, find_checkpoint, read_checkpoint, restore
from vaezoo.data import ImageData
from vaezoo.evidence import Evidence, estimate
from vaezoo.models import LatentVariableModel
from vaezoo.tasks import common

# What a command line may say besides the run: where things are and on what they run.
CHANGEABLE = (
    "task", "run", "run_dir", "resume", "data", "trainer", "logger", "callbacks", "debug", "trust", "threads",
    "compile",
)  # fmt: skip


def evaluate(config: dict[str, Any], num_samples: int = 0) -> None:
    """Test the best checkpoint of ``run``, on the data and with the settings of its own config.

    What the command line says of data and trainer goes before the run's config: a choice
    (``data=fashion_mnist``, ``trainer=cpu``) replaces it, a key (``data.root=...``) is set in it.

    Args:
        config: the resolved config.
        num_samples: importance samples of each test image for log p(x), such as 5000; 0 leaves it out.
    """
    if num_samples < 0:
        raise ConfigError(f"task.num_samples must be >= 0, got {num_samples}")
    start = time.perf_counter()
    common.quiet()
    if not config["run"]:
        raise ConfigError("task=evaluate needs run=PATH, a trained run's folder such as outputs/DATE/TIME")
    path = find_checkpoint(config["run"])
    checkpoint = read_checkpoint(path)
    saved = checkpoint[CONFIG_KEY] | {"run_dir": config["run_dir"], "trust": config["trust"]}
    words = overrides()
    fixed = [text for text in words if text.split(".")[0].split("=")[0] not in CHANGEABLE]
    if fixed:
        raise ConfigError(f"{fixed[0]} cannot be changed: task=evaluate takes it from the run ({path})")
    chosen = {group for group in ("data", "trainer", "threads") for text in words if text.startswith(f"{group}=")}
    saved |= {group: config[group] for group in chosen}
    said = [text for text in words if text.startswith(("data.", "trainer."))]
    own: Any = OmegaConf.to_container(OmegaConf.merge(saved, OmegaConf.from_dotlist(said)))
    model, data = common.build_run(own)
    common.use_machine(own, model, data)
    restore(model, checkpoint, path)
    trainer = common.build_trainer(own, [], [], enable_progress_bar=False, enable_checkpointing=False)
    values = common.test(trainer, model, data)
    if trainer.is_global_zero:
        origin = {"checkpoint": str(path), "scored": common.scored(model, data)}
        notes = []
        if num_samples:
            found = log_p(model, data, num_samples, compiled=config["compile"])
            values |= {"log_p": found.mean, "log_p_error": found.error, "log_p_draw_error": found.draw_error}
            notes.append(
                f"log p(x) by {num_samples:,} importance samples: {found.mean:.2f} +- {found.error:.2f} nats, the "
                f"standard error over {len(found.log_px):,} images ({found.draw_error:.3f} of it from the draws, of "
                f"which {found.ess.median():,.0f} count in the median image and {found.ess.min():,.0f} in the worst)"
            )
        seconds = round(time.perf_counter() - start, 2)
        common.write_summary(own, task="evaluate", **origin, test=values, wall_seconds=seconds)
        title = f"{own['name']} on {type(data).__name__}, {path}: test set, log p of {origin['scored']}"
        common.print_results(title, values, [*notes, f"run folder: {config['run_dir']}"])


def log_p(model: LatentVariableModel, data: ImageData, num_samples: int, compiled: bool) -> Evidence:
    """The importance-weighted bound of log p(x) for each test image, with a bar; in this process alone."""
    batches = data.batches(data.test, training=False, batch_size=data.eval_batch_size)
    batches.rank, batches.world_size = 0, 1
    parts, first = [], 0
    with tqdm(total=len(data.test.images), desc="log p(x)", disable=None) as bar:

        def progress(images: range) -> Iterator[int]:
            for image in images:
                yield image
                bar.update()

        for x, y in batches:
            x, y = x.to(model.device), y.to(model.device)
            parts.append(estimate(model, x, y, num_samples, first=first, compile=compiled, progress=progress))
            first += len(x)
    return Evidence(*map(torch.cat, zip(*parts, strict=True)))


def overrides() -> list[str]:
    """The command line's words that set a key."""
    from hydra.core.hydra_config import HydraConfig

    return [word.lstrip("+") for word in HydraConfig.get().overrides.task]
