"""A trained run, loaded from its folder: its model, its data, and passes of the model over the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from torch import Tensor
from tqdm import tqdm

from vaezoo.callbacks.progress import Progress
from vaezoo.data import DataModule, OwnData, Split
from vaezoo.errors import ConfigError, name_some
from vaezoo.instantiate import build, locate
from vaezoo.missing import is_observed
from vaezoo.models import LatentVariableModel
from vaezoo.models.checks import are_close
from vaezoo.runs.checkpoint import DATA_KEY, find_checkpoint, print_once, read_checkpoint
from vaezoo.runs.load import check_config, load_weights
from vaezoo.runs.overrides import has_key, set_values
from vaezoo.runs.setup import (
    absolute_paths,
    build_model,
    build_run,
    build_trainer,
    configure_machine,
    log_likelihood_kind,
    silence_lightning,
)
from vaezoo.training.eval_mode import evaluating
from vaezoo.types import Batch

TRAINING_BATCH = 500  # training examples at a time, in a pass that trains nothing
# Keys that a command may set besides the run: where files are, and on which machine the task runs.
CHANGEABLE = ("task", "run", "run_dir", "resume", "data", "trainer", "debug", "allow_packages", "threads", "compile")
# Keys that divide the data into training, validation and test set.
SPLIT_KEYS = ("data.val_size", "data.test_size", "data.split_seed")
SPLITS = ("train", "val", "test", "all")
# Keys of new data that say where they are; all others are inherited from the data of the training.
PLACE_KEYS = ("root", "path", "name")


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A trained run.

    Args:
        config: the config of the run, with the overrides of the present command for data and trainer.
        model: the model with the checkpoint's weights, on the trainer's device, in eval mode.
        data: the data module, after its ``setup``.
        trainer: a trainer without loggers.
        path: the file of the checkpoint.
        chosen: the set that the task is applied to: "train", "val", "test" or "all".
        own_config: the config of the run with the data of its training.
    """

    config: dict[str, Any]
    model: LatentVariableModel
    data: DataModule
    trainer: pl.Trainer
    path: Path
    chosen: str = "test"
    own_config: dict[str, Any] = field(default_factory=dict)

    def with_own_data(self) -> "TrainedRun":
        """Return the run with the data of its training, divided as in the training.

        Raises:
            ConfigError: they are missing.
        """
        return self if self.chosen != "all" else load_run(self.own_config, self.path, read_checkpoint(self.path))

    @property
    def log_likelihood_kind(self) -> str:
        """The measure of log p(x): see ``vaezoo.runs.setup.log_likelihood_kind``."""
        return log_likelihood_kind(self.model, self.data)

    def title(self, what: str) -> str:
        """Return a title for results: model, data, checkpoint and what the results are."""
        return f"{self.config['name']} on {type(self.data).__name__}, {self.path}: {what}"

    def split(self, name: str, num: int | None = None) -> Split:
        """Return the split "train", "val", "test" or "all", or ``num`` examples of it, evenly spaced.

        The first ``num`` examples would not be typical, because test sets are sorted: MNIST's by its two sources, of
        which the first is easier.
        """
        split: Split = getattr(self.data, name)
        return split if num is None or num >= len(split.x) else split.select(self.places(name, num))

    def places(self, name: str, num: int | None = None) -> Tensor:
        """Return the places in a split of ``num`` examples, evenly spaced, or of all examples, int64, ascending."""
        size = len(getattr(self.data, name).y)
        return torch.arange(size) if num is None or num >= size else torch.arange(num) * size // num

    def keys(self, num: int | None = None) -> dict[str, np.ndarray]:
        """Return the columns that say which examples those of the chosen set are, or ``num`` of them, evenly spaced."""
        which = self.places(self.chosen, num).numpy()
        return {head: column[which] for head, column in self.data.keys(self.chosen).items()}

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


def open_run(config: dict[str, Any], task_keys: tuple[str, ...] = (), split: str | None = "test") -> TrainedRun:
    """Load the run that ``run=PATH`` names, with the settings of its own config.

    Overrides of data and trainer replace those of the run's config: a choice (``data=fashion_mnist``, ``trainer=cpu``)
    replaces all of it, a key (``data.root=...``) is set in it. The packages that may be imported are those of the
    present command alone, and data are downloaded only into a folder that this command names.

    Args:
        config: the resolved config of the present command.
        task_keys: keys that the task itself takes.
        split: the set that the task is applied to: "train", "val", "test"; or "all", which are prepared as the data of
            the training were and not divided. None: "all" if the command names new data that have no published test
            set, else "test".

    Raises:
        ConfigError: there is no run, its config is incomplete, an override would change what was trained, or there is
            no such split.
    """
    if split not in (*SPLITS, None):
        raise ConfigError(f"split={split} is not one of {', '.join(SPLITS)}")
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
        if text == "logger=none":  # a task has no loggers anyway
            continue
        if text.split(".")[0].split("=")[0] not in (*CHANGEABLE, *task_keys):
            raise ConfigError(f"{text} cannot be changed: task={task} takes it from the run ({path})")
    choices = {group for group in ("data", "trainer", "threads") for text in overrides if text.startswith(f"{group}=")}
    if "data" not in choices and (changed := [text for text in overrides if has_key(text, SPLIT_KEYS)]):
        raise ConfigError(
            f"{changed[0]} cannot be changed: examples that the model of {path} was trained on would be in its test set"
        )
    if "data" in choices and is_own_data(config):
        split = split or "all"
        config = config | {"data": inherit_data(config["data"], saved["data"], overrides)}
    own_config = merge_overrides(saved | {group: config[group] for group in choices - {"data"}}, overrides, "trainer.")
    saved |= {group: config[group] for group in choices}
    merged = merge_overrides(saved, overrides, "data.", "trainer.")
    names_folder = "data" in choices or any(text.startswith("data.root=") for text in overrides)
    run = load_run(merged, path, checkpoint, download=names_folder, chosen=split or "test")
    return replace(run, own_config=own_config if "data" in choices else merged)


def merge_overrides(config: dict[str, Any], overrides: list[str], *prefixes: str) -> dict[str, Any]:
    """Return a config in which the overrides with one of these prefixes are set."""
    return set_values(config, [text for text in overrides if text.startswith(prefixes)])


def inherit_data(data: dict[str, Any], saved: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return the config of new data, with the options of the training's data unless the command sets them.

    Args:
        data: the config of the new data.
        saved: the config of the data of the training.
        overrides: those of the command.
    """
    names = {"binarize"} & data.keys() if data["_target_"] != saved["_target_"] else data.keys() - set(PLACE_KEYS)
    given = {text.split("=")[0].removeprefix("data.") for text in overrides if text.startswith("data.")}
    return data | {name: saved[name] for name in names & saved.keys() if name not in given}


def load_run(
    config: dict[str, Any], path: Path, checkpoint: dict[str, Any], download: bool = False, chosen: str = "test"
) -> TrainedRun:
    """Load the run of a checkpoint.

    Args:
        config: the config of the run.
        path: the file of the checkpoint.
        checkpoint: its content.
        download: whether missing data are downloaded.
        chosen: the set that the task is applied to.

    Raises:
        ConfigError: the data are missing, or do not fit the model.
    """
    silence_lightning()
    is_new = chosen == "all"
    config, model, data = build_for_new_data(config) if is_new else build_run(config, is_recorded=True)
    configure_machine(model, data, config["threads"])
    load_weights(model, checkpoint, path)
    trainer = build_trainer(config, [], [Progress()], enable_checkpointing=False)
    if download:
        data.prepare_data()
    saved = checkpoint.get(DATA_KEY)  # checkpoints of earlier versions have none
    try:
        data.setup_new(saved or {"shape": list(model.data_shape)}) if is_new else data.setup()
    except FileNotFoundError as error:
        raise ConfigError(f"{path} needs {error.filename}, which is missing: add data.root=FOLDER") from error
    if data.shape != model.data_shape:
        raise ConfigError(
            f"{path} was trained on {data.noun}s of shape {model.data_shape}, but those of {type(data).__name__} have "
            f"shape {data.shape}: choose other data"
        )
    if is_new:
        check_new_data(model, data, path, (saved or {}).get("class_names") or [])
    if saved:
        present = data.describe()
        check_encoding(model, data, saved, present, path)
        hashes = {description.get("content_hash") for description in (saved, present)}
        if not is_new and None not in hashes and len(hashes) == 2:
            print_once(f"the {data.noun}s have changed since the training of {path}: the test set is another one")
    model.to(trainer.strategy.root_device)
    model.eval()
    return TrainedRun(config, model, data, trainer, path, chosen)


def build_for_new_data(config: dict[str, Any]) -> tuple[dict[str, Any], LatentVariableModel, DataModule]:
    """Build the model of a run, which new data do not change, and the data module, whose shape they have."""
    config = config | {"data": absolute_paths(config["data"])}
    node = config["data"] | ({"shape": None} if "shape" in config["data"] else {})
    return config, build_model(config), build(node, "data", tuple(config["allow_packages"]), seed=config["seed"])


def is_own_data(config: dict[str, Any]) -> bool:
    """Return whether the data of a config are of the user's own and have no published test set."""
    target: Any = locate(config["data"].get("_target_"), "data", tuple(config["allow_packages"]))
    return isinstance(target, type) and issubclass(target, OwnData)


def check_new_data(model: LatentVariableModel, data: DataModule, path: Path, class_names: Sequence[str]) -> None:
    """Raise an error if a trained model cannot take new data.

    Args:
        model: the model.
        data: the new data, after their ``setup_new``.
        path: the file of the checkpoint, for the message.
        class_names: the classes of the training; empty if they have no names.

    Raises:
        ConfigError: entries or labels are missing that the model needs, or the data are of another kind.
    """
    nouns = f"{data.noun}s"
    if data.has_missing and not (model.likelihood.supports_missing and encodes_missing(model, data)):
        raise ConfigError(
            f"entries of the {nouns} are missing, but the model of {path} was trained without missing entries: fill "
            f"them in, or train a model on {nouns} with missing entries"
        )
    model.check_data_kind(data)
    if model.conditional and data.all is not None:
        if bool((data.all.y < 0).any()):
            raise ConfigError(
                f"{nouns} have no label, or one that the model of {path} was not trained with, but it needs one for "
                f"each: {data.label_place}, with the classes of the training"
                + f" ({name_some(class_names)})"
                * bool(class_names)
            )
        model.check_labels(data.all.y)


def encodes_missing(model: LatentVariableModel, data: DataModule) -> bool:
    """Return whether the encoder leaves out missing entries: its code of an example with one is finite."""
    assert data.all is not None
    for x, y in data.batches(data.all, TRAINING_BATCH):
        has_holes = ~is_observed(x).flatten(1).all(1)
        if has_holes.any():
            with evaluating(model):
                code = model.encode(x[has_holes][:1].to(model.device), y[has_holes][:1].to(model.device))
            return bool(code.isfinite().all())
    return True


def check_encoding(
    model: LatentVariableModel, data: DataModule, saved: dict[str, Any], present: dict[str, Any], path: Path
) -> None:
    """Raise an error if the numbers in x, or the labels of a conditional model, do not mean what they did in training.

    Args:
        model: the model.
        data: the present data, after their ``setup``.
        saved: the description of the data in the checkpoint (``DataModule.describe``).
        present: the description of the present data.
        path: the file of the checkpoint, for the message.

    Raises:
        ConfigError: scales, categories, tokens or classes differ.
    """
    if not are_close(data.encoding(saved), data.encoding(present)):
        new = f" (task=score, encode, reconstruct and impute take new {data.noun}s: name data=CHOICE, too)"
        raise ConfigError(
            f"{path} was trained on {data.noun}s with other scales, categories or tokens than these, so the numbers in "
            f"x would mean something else: use the data of the training{new if isinstance(data, OwnData) else ''}"
        )
    names = saved.get("class_names"), present.get("class_names")
    if model.conditional and all(names) and names[0] != names[1]:
        raise ConfigError(f"{path} was trained with the classes {names[0]}, not with {names[1]}: use the same classes")


def command_overrides() -> list[str]:
    """Return the overrides of the present command."""
    return [text.lstrip("+") for text in HydraConfig.get().overrides.task]
