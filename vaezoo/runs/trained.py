"""A trained run, opened again: its model, its data, and what passes of one over the other give."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from torch import Tensor
from tqdm import tqdm

from vaezoo.callbacks.progress import Progress
from vaezoo.data import ImageData, Split
from vaezoo.errors import ConfigError
from vaezoo.models import LatentVariableModel
from vaezoo.old_names import update_config
from vaezoo.runs.checkpoint import check_config, find_checkpoint, load_weights, read_checkpoint
from vaezoo.runs.setup import build_run, build_trainer, configure_machine, log_likelihood_kind, silence_lightning
from vaezoo.types import Batch

TRAINING_BATCH = 500  # training images at a time, in a pass that trains nothing
# What a command line may say besides the run: where things are and on what they run.
CHANGEABLE = ("task", "run", "run_dir", "resume", "data", "trainer", "debug", "allow_packages", "threads", "compile")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained run.

    Args:
        config: the run's own, with what the command line says of data and trainer.
        model: with the checkpoint's weights, on the trainer's device.
        data: set up.
        trainer: without loggers.
        path: the checkpoint.
    """

    config: dict[str, Any]
    model: LatentVariableModel
    data: ImageData
    trainer: pl.Trainer
    path: Path

    @property
    def log_likelihood_kind(self) -> str:
        """What log p is of."""
        return log_likelihood_kind(self.model, self.data)

    def title(self, what: str) -> str:
        """A heading for what came out."""
        return f"{self.config['name']} on {type(self.data).__name__}, {self.path}: {what}"

    def split(self, name: str, num: int | None = None) -> Split:
        """The "train", "val" or "test" split, or ``num`` examples of it, evenly spaced: test sets come sorted, MNIST's
        by its two sources, of which the first is the easier.
        """
        split: Split = getattr(self.data, name)
        size = len(split.images)
        return split if num is None or num >= size else split.select(torch.arange(num) * size // num)

    def batches(self, name: str, num: int | None = None, what: str = "") -> Iterator[Batch]:
        """A split in batches on the model's device, in order, as this process alone sees it.

        Args:
            name: train, val or test.
            num: of so many examples, evenly spaced; all where None.
            what: names the progress bar; none where it is empty.
        """
        training = name == "train"
        # Bits that are drawn afresh are a function of the batch: one size for them all.
        size = TRAINING_BATCH if training else self.data.eval_batch_size
        batches = self.data.batches(self.split(name, num), size, train=training)
        for x, y in tqdm(batches, desc=what, unit="batch", disable=None if what else True, delay=1, leave=False):
            yield Batch(x.to(self.model.device), y.to(self.model.device))

    def codes(self, name: str, num: int | None = None) -> tuple[Tensor, Tensor]:
        """``model.encode`` over a split, (N, *latent_shape), and the labels (N, ...), on the CPU."""
        with torch.no_grad():
            parts = [(self.model.encode(x, y).cpu(), y.cpu()) for x, y in self.batches(name, num, f"encode {name}")]
        codes, labels = zip(*parts, strict=True)
        return torch.cat(codes), torch.cat(labels)


def open_run(config: dict[str, Any], own: tuple[str, ...] = ()) -> TrainedRun:
    """Open the run that ``run=PATH`` names, with the settings of its own config.

    What the command line says of data and trainer goes before the run's config: a choice (``data=fashion_mnist``,
    ``trainer=cpu``) replaces it, a key (``data.root=...``) is set in it. Which packages are trusted is said on this
    command line alone, and data are downloaded only into a folder that it names.

    Args:
        config: the resolved config.
        own: keys of the task itself.

    Raises:
        ConfigError: no run, an incomplete config in it, or an override that would change what was trained.
    """
    task = HydraConfig.get().runtime.choices["task"]
    if not config["run"]:
        raise ConfigError(f"task={task} needs run=PATH, a trained run's folder such as outputs/DATE/TIME")
    path = find_checkpoint(config["run"])
    checkpoint = read_checkpoint(path)
    saved = update_config(check_config(checkpoint, path, tuple(config["allow_packages"])))
    for part in ("data", "trainer", "optimizer", "scheduler"):
        if not isinstance(saved.get(part), dict):
            raise ConfigError(f"{path} holds no config of {part}: task={task} needs the checkpoint of a run")
    saved = {key: config[key] for key in ("threads", "compile", "on_nan", "name")} | saved
    saved |= {"run_dir": config["run_dir"], "allow_packages": config["allow_packages"]}
    saved["data"].pop("eval_batch_size", None)  # an option once
    words = command_overrides()
    fixed = [text for text in words if text.split(".")[0].split("=")[0] not in (*CHANGEABLE, *own)]
    if fixed:
        raise ConfigError(f"{fixed[0]} cannot be changed: task={task} takes it from the run ({path})")
    chosen = {group for group in ("data", "trainer", "threads") for text in words if text.startswith(f"{group}=")}
    saved |= {group: config[group] for group in chosen}
    said = [text for text in words if text.startswith(("data.", "trainer."))]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(saved, OmegaConf.from_dotlist(said)))
    return load_run(merged, path, checkpoint, download="data" in chosen or any("data.root=" in text for text in said))


def load_run(config: dict[str, Any], path: Path, checkpoint: dict[str, Any], download: bool = False) -> TrainedRun:
    """Open the run of a checkpoint with the settings of a config; ``download`` data that are missing, or refuse."""
    silence_lightning()
    model, data = build_run(config)
    configure_machine(config, model, data)
    load_weights(model, checkpoint, path)
    trainer = build_trainer(config, [], [Progress()], enable_checkpointing=False)
    if download:
        data.prepare_data()
    try:
        data.setup()
    except FileNotFoundError as error:
        raise ConfigError(f"{error.filename} is missing, which {path} names: say data.root=FOLDER") from error
    if data.shape != model.data_shape:
        raise ConfigError(f"{path} is of images {model.data_shape}, those of {type(data).__name__} are {data.shape}")
    model.to(trainer.strategy.root_device)
    model.eval()
    return TrainedRun(config, model, data, trainer, path)


def command_overrides() -> list[str]:
    """The command line's words that set a key."""
    return [word.lstrip("+") for word in HydraConfig.get().overrides.task]
