"""A trained run, loaded from its folder: its model, its data, and passes of the model over the data."""

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
from vaezoo.data import DataModule, Split
from vaezoo.errors import ConfigError
from vaezoo.models import LatentVariableModel
from vaezoo.models.checks import are_close
from vaezoo.runs.checkpoint import DATA_KEY, find_checkpoint, read_checkpoint
from vaezoo.runs.load import check_config, load_weights
from vaezoo.runs.overrides import has_key
from vaezoo.runs.setup import build_run, build_trainer, configure_machine, log_likelihood_kind, silence_lightning
from vaezoo.types import Batch

TRAINING_BATCH = 500  # training examples at a time, in a pass that trains nothing
# Keys that a command may set besides the run: where files are, and on which machine the task runs.
CHANGEABLE = ("task", "run", "run_dir", "resume", "data", "trainer", "debug", "allow_packages", "threads", "compile")
# Keys that divide the data into training, validation and test set.
SPLIT_KEYS = ("data.val_size", "data.test_size", "data.split_seed")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained run.

    Args:
        config: the config of the run, with the overrides of the present command for data and trainer.
        model: the model with the checkpoint's weights, on the trainer's device, in eval mode.
        data: the data module, after its ``setup``.
        trainer: a trainer without loggers.
        path: the file of the checkpoint.
    """

    config: dict[str, Any]
    model: LatentVariableModel
    data: DataModule
    trainer: pl.Trainer
    path: Path

    @property
    def log_likelihood_kind(self) -> str:
        """The measure of log p(x): see ``vaezoo.runs.setup.log_likelihood_kind``."""
        return log_likelihood_kind(self.model, self.data)

    def title(self, what: str) -> str:
        """Return a title for results: model, data, checkpoint and what the results are."""
        return f"{self.config['name']} on {type(self.data).__name__}, {self.path}: {what}"

    def split(self, name: str, num: int | None = None) -> Split:
        """Return the "train", "val" or "test" split, or ``num`` examples of it, evenly spaced.

        The first ``num`` examples would not be typical, because test sets are sorted: MNIST's by its two sources, of
        which the first is easier.
        """
        split: Split = getattr(self.data, name)
        size = len(split.x)
        return split if num is None or num >= size else split.select(torch.arange(num) * size // num)

    def batches(self, name: str, num: int | None = None, what: str = "") -> Iterator[Batch]:
        """Yield a split in batches on the model's device, in order. Each process sees all of the split.

        Args:
            name: "train", "val" or "test".
            num: number of examples, evenly spaced; None: all.
            what: text before the progress bar; empty: no progress bar.
        """
        training = name == "train"
        # Bits that are drawn afresh are a function of the batch: one size for them all.
        size = TRAINING_BATCH if training else self.data.eval_batch_size
        batches = self.data.batches(self.split(name, num), size, train=training)
        for x, y in tqdm(batches, desc=what, unit="batch", disable=None if what else True, delay=1, leave=False):
            yield Batch(x.to(self.model.device), y.to(self.model.device))

    def codes(self, name: str, num: int | None = None) -> tuple[Tensor, Tensor]:
        """Encode a split: return the codes (N, *latent_shape) and the labels (N, ...), on the CPU.

        Args:
            name: "train", "val" or "test".
            num: number of examples, evenly spaced; None: all.
        """
        with torch.no_grad():
            parts = [(self.model.encode(x, y).cpu(), y.cpu()) for x, y in self.batches(name, num, f"encode {name}")]
        codes, labels = zip(*parts, strict=True)
        return torch.cat(codes), torch.cat(labels)


def open_run(config: dict[str, Any], task_keys: tuple[str, ...] = ()) -> TrainedRun:
    """Load the run that ``run=PATH`` names, with the settings of its own config.

    Overrides of data and trainer replace those of the run's config: a choice (``data=fashion_mnist``, ``trainer=cpu``)
    replaces all of it, a key (``data.root=...``) is set in it. The packages that may be imported are those of the
    present command alone, and data are downloaded only into a folder that this command names.

    Args:
        config: the resolved config of the present command.
        task_keys: keys that the task itself takes.

    Raises:
        ConfigError: there is no run, its config is incomplete, or an override would change what was trained.
    """
    task = HydraConfig.get().runtime.choices["task"]
    if not config["run"]:
        raise ConfigError(f"task={task} needs run=PATH, the folder of a trained run such as outputs/DATE/TIME")
    path = find_checkpoint(config["run"])
    checkpoint = read_checkpoint(path)
    saved = check_config(checkpoint, path, tuple(config["allow_packages"]))
    for part in ("data", "trainer", "optimizer", "scheduler"):
        if not isinstance(saved.get(part), dict):
            raise ConfigError(f"{path} has no config of {part}: task={task} needs the checkpoint of a run")
    saved = {key: config[key] for key in ("threads", "compile", "on_nan", "name")} | saved
    saved |= {"run_dir": config["run_dir"], "allow_packages": config["allow_packages"]}
    saved["data"].pop("eval_batch_size", None)  # an option of earlier versions
    overrides = command_overrides()
    for text in overrides:
        if text.split(".")[0].split("=")[0] not in (*CHANGEABLE, *task_keys):
            raise ConfigError(f"{text} cannot be changed: task={task} takes it from the run ({path})")
    choices = {group for group in ("data", "trainer", "threads") for text in overrides if text.startswith(f"{group}=")}
    if "data" not in choices and (changed := [text for text in overrides if has_key(text, SPLIT_KEYS)]):
        raise ConfigError(
            f"{changed[0]} cannot be changed: examples that the model of {path} was trained on would be in its test set"
        )
    saved |= {group: config[group] for group in choices}
    keys = [text for text in overrides if text.startswith(("data.", "trainer."))]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(saved, OmegaConf.from_dotlist(keys)))
    names_folder = "data" in choices or any("data.root=" in text for text in keys)
    return load_run(merged, path, checkpoint, download=names_folder)


def load_run(config: dict[str, Any], path: Path, checkpoint: dict[str, Any], download: bool = False) -> TrainedRun:
    """Load the run of a checkpoint.

    Args:
        config: the config of the run.
        path: the file of the checkpoint.
        checkpoint: its content.
        download: whether missing data are downloaded.

    Raises:
        ConfigError: the data are missing, or do not fit the model.
    """
    silence_lightning()
    config, model, data = build_run(config, is_recorded=True)
    configure_machine(model, data, config["threads"])
    load_weights(model, checkpoint, path)
    trainer = build_trainer(config, [], [Progress()], enable_checkpointing=False)
    if download:
        data.prepare_data()
    try:
        data.setup()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} needs {error.filename}, which is missing: add data.root=FOLDER") from error
    if data.shape != model.data_shape:
        raise ConfigError(
            f"{path} was trained on {data.noun}s of shape {model.data_shape}, but those of {type(data).__name__} have "
            f"shape {data.shape}: choose other data"
        )
    if saved := checkpoint.get(DATA_KEY):  # checkpoints of earlier versions have none
        check_encoding(model, data, saved, path)
    model.to(trainer.strategy.root_device)
    model.eval()
    return TrainedRun(config, model, data, trainer, path)


def check_encoding(model: LatentVariableModel, data: DataModule, saved: dict[str, Any], path: Path) -> None:
    """Raise an error if the numbers in x, or the labels of a conditional model, do not mean what they did in training.

    Args:
        model: the model.
        data: the present data, after their ``setup``.
        saved: the description of the data in the checkpoint (``DataModule.describe``).
        path: the file of the checkpoint, for the message.

    Raises:
        ConfigError: scales, categories, tokens or classes differ.
    """
    present = data.describe()
    if not are_close(data.encoding(saved), data.encoding(present)):
        raise ConfigError(
            f"{path} was trained on {data.noun}s with other scales, categories or tokens than these, so the numbers in "
            f"x would mean something else: use the data of the training"
        )
    names = saved.get("class_names"), present.get("class_names")
    if model.conditional and all(names) and names[0] != names[1]:
        raise ConfigError(f"{path} was trained with the classes {names[0]}, not with {names[1]}: use the same classes")


def command_overrides() -> list[str]:
    """Return the overrides of the present command."""
    return [text.lstrip("+") for text in HydraConfig.get().overrides.task]
