"""Train a model from Python, without a config, an account or a folder: ``vaezoo.fit``."""

import base64
import contextlib
import html
import io
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from vaezoo.config_folder import config_folder, offer_plugins
from vaezoo.data import DataModule
from vaezoo.data.array_files import ArrayFile, check_type
from vaezoo.data.picture_files import SUFFIXES as PICTURES
from vaezoo.data.sound_files import SUFFIXES as SOUNDS
from vaezoo.error_messages import READERS, describe_error, find_accepting_target, suggest_key
from vaezoo.errors import ConfigError, suggest
from vaezoo.models import LatentVariableModel
from vaezoo.runs.comparison import to_override
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.overrides import quote
from vaezoo.runs.record import record_command
from vaezoo.runs.signals import Stopped
from vaezoo.tasks.fit import fit as train

if TYPE_CHECKING:
    from pandas import DataFrame

    from vaezoo.figures import Show

# Parts of the config in which an option is looked for, in this order; the first one is the config itself.
PARENTS = ("", "model", "data", "optimizer", "scheduler", "trainer")
GROUPS = ("optimizer", "scheduler", "trainer", "logger", "experiment")  # options that name a choice
MODEL_GROUPS = ("encoder", "decoder", "likelihood", "prior", "posterior")


class FittedRun:
    """A training that is done: the model, its data and its numbers. A notebook shows an overview of it.

    Attributes:
        model: the model with the best weights by the validation, in eval mode, on the CPU.
        data: the data module, after its ``setup``.
        config: the config of the run.
        folder: the folder with checkpoints and logs. A temporary one is removed together with this object.

    Args:
        model: as the attribute.
        data: as the attribute.
        config: as the attribute.
        temporary: the temporary folder; None if the user named a folder.
    """

    def __init__(
        self,
        model: LatentVariableModel,
        data: DataModule,
        config: dict[str, Any],
        temporary: "tempfile.TemporaryDirectory[str] | None" = None,
    ):
        self.model, self.data, self.config = model, data, config
        self.folder, self.temporary = Path(config["run_dir"]), temporary
        self.summary = RunFolder(self.folder).read_summary()
        self.history = read_history(self.folder / "metrics.csv")

    @property
    def metrics(self) -> dict[str, Any]:
        """The numbers of the run, in nats per example.

        ``test`` and ``val`` are dicts of the test numbers and of the last validation, ``history`` is a table with a row
        for each epoch.
        """
        return {"test": self.summary["test"], "val": self.summary["last_val"], "history": self.history}

    @property
    def show(self) -> "Show":
        """Figures: ``show.samples()``, ``reconstructions``, ``traversals``, ``manifold`` and ``curves``."""
        from vaezoo.figures import Show  # imported here, because matplotlib takes half a second

        return Show(self.model, self.data, self.history)

    def __repr__(self) -> str:
        name, value = self.model.monitored, self.summary["test"][self.model.monitored]
        return f"FittedRun({self.config['name']} on {type(self.data).__name__}, test {name} {value:.3f} nats)"

    def _repr_html_(self) -> str:
        from vaezoo.figures import to_png

        test = self.summary["test"]
        names = [name for name in ("elbo", "log_px", "kl", "active_units") if name in test]
        rows = {name: f"{test[name]:.3f}" for name in names}
        if "elbo_error" in test:
            rows["elbo"] += f" ± {test['elbo_error']:.3f}"
        rows["epochs, seconds"] = f"{self.summary['epochs']}, {self.summary['wall_seconds']:.0f}"
        cells = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>" for name, text in rows.items())
        pictures = [self.show.reconstructions(8)]
        if len(self.history) > 1:
            pictures.append(self.show.curves())
        images = (base64.b64encode(to_png(picture)).decode() for picture in pictures)
        shown = "".join(f'<img src="data:image/png;base64,{image}"/><br/>' for image in images)
        return f"<b>{html.escape(repr(self))}</b><table>{cells}</table>{shown}"


def fit(
    data: Any,
    model: str = "mlp_vae",
    *,
    labels: Any = None,
    folder: str | Path | None = None,
    verbose: bool = True,
    **options: Any,
) -> FittedRun:
    """Train a model on data in memory or in files, and test it.

    It composes the config that ``python run.py`` would compose. With ``folder``, the run equals that of the command to
    the last digit, and the folder can be used by all tasks, such as ``task=evaluate run=FOLDER``.

    ``run = vaezoo.fit(images, "beta_vae", beta=4, max_epochs=20)``, then ``run.model.encode(images)``,
    ``run.metrics["test"]["elbo"]``, ``run.show.samples()``.

    Args:
        data: an array or tensor with a row for each example; a pair (x, y) of them; a data set of examples x or pairs
            (x, y); a table of pandas; a list of texts; a file (.npz, .npy, .pt, .h5, .csv, .parquet, .txt, ...) or a
            folder of pictures or sounds; the name of a data set in conf/data, such as "digits"; or a data module.
        model: name of a config in conf/model.
        labels: the labels of an array, (N,).
        folder: folder for checkpoints, logs and pictures; None: a temporary one.
        verbose: whether progress and results are printed.
        **options: any option of the command line by its last name: of the model (``beta=4``, ``latent_dim=10``), the
            data (``batch_size=64``), the optimizer (``lr=1e-3``) or the trainer (``max_epochs=20``); a choice
            (``likelihood="normal"``, ``optimizer="adamw"``); or a full key, ``**{"model.encoder.hidden": [64]}``.

    Returns:
        The run, with ``model``, ``metrics``, ``show`` and ``folder``.

    Raises:
        ValueError: an option is unknown or wrong, or the data cannot be used.
    """
    if not isinstance(model, str):
        raise ConfigError(
            f"model is a {type(model).__name__}: give the name of a config in conf/model, such as beta_vae; a Trainer "
            f"of Lightning trains a model of your own"
        )
    overrides, content = find_source(data, labels)
    overrides = [f"model={model}", *overrides, *([] if "logger" in options else ["logger=csv"])]
    overrides += to_overrides(overrides, options, [p for p in PARENTS if not (p == "data" and is_module(content))])
    temporary = tempfile.TemporaryDirectory(prefix="vaezoo-") if folder is None else None
    if temporary is not None:
        overrides.append("callbacks.images=null")  # its pictures would be written to the folder
    place = Path(temporary.name if temporary else folder).expanduser().absolute()  # type: ignore[arg-type]
    quiet = io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(unchanged_process())
        if not verbose:
            overrides.append("trainer.enable_progress_bar=false")
            stack.enter_context(contextlib.redirect_stdout(quiet))
            stack.enter_context(contextlib.redirect_stderr(quiet))
        cfg, config = stack.enter_context(composed(overrides, place, content))
        place.mkdir(parents=True, exist_ok=True)
        run_folder = RunFolder(place)
        stack.enter_context(run_folder.lock())
        record_command(run_folder, cfg)
        try:
            trained, module = train(config, content)
        except Stopped as stop:
            raise KeyboardInterrupt(str(stop)) from None
    return FittedRun(trained.eval(), module, config, temporary)


@contextlib.contextmanager
def unchanged_process() -> Iterator[None]:
    """Restore the random state, the number of threads and the environment after a block."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    try:
        with isolate_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


@contextlib.contextmanager
def composed(overrides: list[str], folder: Path, content: Any) -> Iterator[tuple[DictConfig, dict[str, Any]]]:
    """Compose the config of a run as Hydra's command line does, and be that command while the block runs.

    Args:
        overrides: those of the command.
        folder: the run's folder.
        content: data in memory; a data module takes the place of the config's data.

    Yields:
        The config without Hydra's own part, and its resolved content.

    Raises:
        ConfigError: an override is wrong.
    """
    before = HydraConfig.instance().cfg
    cfg = compose([*overrides, f"hydra.run.dir={quote(folder)}"])
    try:
        with open_dict(cfg):
            cfg.hydra.runtime.output_dir = str(folder)
            HydraConfig.instance().set_config(cfg)
            own = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
            if is_module(content):
                own.data = describe_module(content)
        config: Any = OmegaConf.to_container(own, resolve=True)
        yield own, config
    finally:
        HydraConfig.instance().cfg = before


def compose(overrides: list[str]) -> DictConfig:
    """Compose a config, with Hydra's own part.

    Raises:
        ConfigError: an override is wrong.
    """
    state = GlobalHydra.instance()
    before = state.hydra  # of a program that uses Hydra itself
    state.clear()
    try:
        offer_plugins()  # for a sweep later in this process
        with hydra.initialize_config_dir(config_folder(), version_base="1.3"):
            return hydra.compose("config", overrides, return_hydra_config=True)
    except HydraException as error:
        raise ConfigError(describe_error(error, overrides)) from error
    finally:
        GlobalHydra.instance().hydra = before


# Options.


def to_overrides(overrides: list[str], options: Mapping[str, Any], parents: Sequence[str] = PARENTS) -> list[str]:
    """Return the options of ``fit`` as overrides of a command.

    Args:
        overrides: those of the model and the data, which decide which options there are.
        options: the options by name.
        parents: parts of the config in which they are looked for, in this order.

    Raises:
        ConfigError: there is no such option.
    """
    choices, keys = [], {}
    for name, value in options.items():
        if name in (*GROUPS, *MODEL_GROUPS) and isinstance(value, str):
            choices.append(f"{'model/' if name in MODEL_GROUPS else ''}{name}={value}")
        else:
            keys[name] = value
    if not keys:
        return choices
    cfg = compose([*overrides, *choices])
    with open_dict(cfg):
        del cfg["hydra"]
    return choices + [f"{find_key(name, cfg, parents)}={to_override(plain(value))}" for name, value in keys.items()]


def find_key(name: str, cfg: DictConfig, parents: Sequence[str] = PARENTS) -> str:
    """Return the full key of an option, with a plus if a class takes it and the config does not list it.

    Raises:
        ConfigError: there is no such option.
    """
    if "." in name or "/" in name:
        return name
    for parent in parents:
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if name in node:
            return f"{parent}.{name}" if parent else name
    for parent in parents[1:]:
        if find_accepting_target(cfg[parent], name, parent, cfg):
            return f"+{parent}.{name}"
    hint = suggest_key(name, cfg)
    raise ConfigError(f"{name}: there is no such option of the model, the data or the training, {hint}")


def plain(value: Any) -> Any:
    """Return a value of Python or NumPy as one that a config can hold."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | torch.Size):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_history(file: Path) -> "DataFrame":
    """Return the means of each epoch that a run has logged, by their names ``train/*`` and ``val/*``."""
    import pandas as pd

    if not file.exists():
        return pd.DataFrame()
    table = pd.read_csv(file)
    names = [name for name in table.columns if name.startswith(("train/", "val/"))]
    epochs = table.dropna(subset=names, how="all").groupby("epoch")[names].last()
    return epochs.set_axis(epochs.index.astype(int)).dropna(axis=1, how="all")


# Data.


def is_module(content: Any) -> bool:
    """Return whether the data in memory are a data module."""
    return isinstance(content, DataModule)


def find_source(data: Any, labels: Any = None) -> tuple[list[str], Any]:
    """Return the overrides that choose the data, and the data in memory, if they are (``match_data``).

    Args:
        data: as in ``fit``.
        labels: as in ``fit``.

    Raises:
        ConfigError: the data are of another type, or a file does not exist.
    """
    if isinstance(data, tuple) and len(data) == 2 and labels is None and all(map(is_array, data)):
        data, labels = data
    if is_array(data):
        return ["data=array"], to_file(data, labels)
    if labels is not None:
        raise ConfigError(f"labels are for arrays, and the data are a {type(data).__name__}: leave labels out")
    if isinstance(data, DataModule):
        return [], data
    if isinstance(data, str | Path):
        return find_files(data), None
    if type(data).__module__.partition(".")[0] == "pandas" and hasattr(data, "columns"):
        return ["data=table", "data.path=''"], data
    if isinstance(data, list | tuple) and data and all(isinstance(item, str) for item in data):
        return ["data=text", "data.path=''"], list(data)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and len(data):
        return ["data=array"], stack(data)
    raise ConfigError(
        f"data are a {type(data).__name__}: give an array, a tensor, a data set, a table of pandas, a list of texts, a "
        f"path, the name of a data set or a data module of vaezoo"
    )


def is_array(value: Any) -> bool:
    """Return whether a value is an array or a tensor."""
    return isinstance(value, np.ndarray | Tensor)


def describe_module(data: DataModule) -> dict[str, Any]:
    """Return the config of a data module, with the shape of its examples, which the model's config refers to."""
    if data.known_shape is None:
        data.prepare_data()
    node = data.config_node if isinstance(data.config_node, dict) else {"_target_": type(data).__name__}
    return node | {"shape": list(data.shape or ())}


def to_array(value: Any) -> np.ndarray:
    """Return an array, a tensor, a number or a picture of PIL as an array."""
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)


def to_file(data: Any, labels: Any) -> ArrayFile:
    """Return an array and its labels, as if they were read from a file."""
    x = to_array(data)
    check_type(x.dtype, "the array")
    return ArrayFile("the array", x, None if labels is None else to_array(labels), "labels")


def stack(dataset: Any) -> ArrayFile:
    """Return the examples of a data set, of x or of pairs (x, y), as an array.

    Raises:
        ConfigError: the examples have several shapes.
    """
    items = [dataset[i] for i in range(len(dataset))]
    has_labels = isinstance(items[0], tuple | list) and len(items[0]) == 2
    examples = [to_array(item[0] if has_labels or isinstance(item, tuple | list) else item) for item in items]
    if shapes := {x.shape for x in examples} - {examples[0].shape}:
        raise ConfigError(
            f"the examples of the data set have several shapes, such as {examples[0].shape} and {shapes.pop()}: resize "
            f"them, or give a folder of pictures and size=64"
        )
    return to_file(np.stack(examples), np.array([item[1] for item in items]) if has_labels else None)


def find_files(data: str | Path) -> list[str]:
    """Return the overrides for a file, a folder or the name of a data set.

    Raises:
        ConfigError: it is none of them.
    """
    path, root = Path(data).expanduser(), Path(config_folder(), "data")
    names = sorted(file.relative_to(root).with_suffix("").as_posix() for file in root.rglob("*.yaml"))
    if isinstance(data, str) and data in names and not path.exists():
        return [f"data={data}"]
    if path.is_dir():
        kinds = {Path(name).suffix.lower() for _, _, files in os.walk(path) for name in files}
        kind = "audio" if kinds & set(SOUNDS) and not kinds & PICTURES else "folder"
        return [f"data={kind}", f"data.root={quote(path)}"]
    suffix = Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix
    if not path.exists() or not (reader := READERS.get(suffix.lower())):
        problem = "cannot be read" if path.exists() else "is no file, no folder and no data set"
        known = ", ".join(READERS) if path.exists() else suggest(str(data), names)
        raise ConfigError(f"{data} {problem}: {'give one of ' if path.exists() else ''}{known}")
    return [f"data={reader}", f"data.path={quote(path)}"]
