"""Save a model, and load one from a checkpoint, which a stranger may have written."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from vaezoo.archive import leaves
from vaezoo.instantiate import build
from vaezoo.models import LatentVariableModel
from vaezoo.runs.checkpoint import CONFIG_KEY, DATA_KEY, find_checkpoint, read_checkpoint, write_checkpoint

LARGE = 10**7  # an integer in a model's config may be at most this large, or as large as the checkpoint
LARGEST_CONFIG = 100_000  # entries


def save(model: LatentVariableModel, path: str | Path) -> None:
    """Save a model to a file, from which ``load`` builds it again.

    The file holds the weights, the config of the model and what it knows of its data, but not the state of a training.
    Beside it stands its SHA-256.

    Args:
        model: a model of a run, or one that was built from classes of the zoo with plain arguments; or a run of
            ``vaezoo.fit``.
        path: the file, such as model.ckpt. A file of this name is replaced.

    Raises:
        ValueError: an argument of the model cannot be described by a config, a weight is not finite, or the path is a
            folder.
        OSError: the file cannot be written.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file, such as {Path(path, 'model.ckpt')}")
    model = getattr(model, "model", model)  # of a run of vaezoo.fit
    write_checkpoint({"state_dict": model.state_dict(), **model.origin()}, path)


def load(path: Any, allow_packages: str | Sequence[str] = (), map_location: Any = None) -> LatentVariableModel:
    """Load a trained model, in eval mode.

    Nothing in the checkpoint is executed and nothing is written, as long as ``allow_packages`` is empty: a checkpoint
    may come from a stranger.

    Args:
        path: a run folder, whose best checkpoint is loaded, or the file of a checkpoint; or what ``vaezoo.fit`` has
            returned.
        allow_packages: packages of your own that the model's config may name.
        map_location: the device of the model, such as "cuda"; the CPU if None.

    Returns:
        The model, with ``encode``, ``decode``, ``sample``, ``log_marginal``, and with ``data_description``, which says
        what the data were: column names and scales, vocabulary, class names.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: the checkpoint cannot be read, its weights are broken, or its config names a class that is not
            admitted.
    """
    path = getattr(path, "folder", path)
    checkpoint, path = read_checkpoint(path), find_checkpoint(path)
    allow_packages = (allow_packages,) if isinstance(allow_packages, str) else tuple(allow_packages)
    config = check_config(checkpoint, path, allow_packages)
    model = build_model(config, path, allow_packages)
    model.config = config
    description = checkpoint.get(DATA_KEY, {})  # checkpoints of earlier versions have none
    if not isinstance(description, dict):
        raise ValueError(f"{path} describes its data by a {type(description).__name__}, not by a dict")
    model.data_description = description
    load_weights(model, checkpoint, path)
    return model.eval() if map_location is None else model.eval().to(map_location)


def load_weights(model: torch.nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Load a checkpoint's weights into a model.

    Args:
        model: the model.
        checkpoint: the content of the checkpoint.
        path: the file of the checkpoint, for messages.

    Raises:
        ValueError: names, shapes or dtypes do not fit.
    """
    check_weights(model, checkpoint, path)
    model.load_state_dict(checkpoint["state_dict"])


def check_weights(model: torch.nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Raise a ValueError if the weights of a checkpoint do not fit a model: their names, shapes and dtypes.

    Floating-point weights may have another precision than the model, because ``trainer.precision=bf16-true`` saves
    bfloat16.
    """
    expected, given = model.state_dict(), checkpoint["state_dict"]
    for name in [*expected, *given]:
        if name not in given or name not in expected:
            fault = f"{name} is only in the {'model' if name in expected else 'checkpoint'}"
        elif not isinstance(given[name], torch.Tensor):
            fault = f"{name} is a {type(given[name]).__name__}"
        elif given[name].shape != expected[name].shape:
            fault = f"{name} is {tuple(given[name].shape)}, the model's is {tuple(expected[name].shape)}"
        elif given[name].dtype != expected[name].dtype and not (
            given[name].is_floating_point() and expected[name].is_floating_point()
        ):
            fault = f"{name} is {given[name].dtype}, the model's is {expected[name].dtype}"
        else:
            continue
        raise ValueError(f"{path} does not fit its own config ({fault})")


def check_config(checkpoint: dict[str, Any], path: str | Path, allow_packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the config of a checkpoint after a check that its model can be built and has the checkpoint's weights.

    Raises:
        ValueError: the config is incomplete, or describes another model or one that is larger than the checkpoint.
    """
    config = checkpoint[CONFIG_KEY]
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict) or type(config.get("seed")) is not int:
        raise ValueError(f"{path} does not hold the config of a run: model or seed is missing")
    if not allow_packages:  # a config from a stranger may describe a model of any size
        check_size(config, checkpoint, path)
    return config


def check_size(config: dict[str, Any], checkpoint: dict[str, Any], path: str | Path) -> None:
    """Build the model of a config on torch's meta device, which needs no memory, and compare it with the weights.

    Raises:
        ValueError: the model has more parameters than the checkpoint has numbers, or other parameters.
    """
    if has_more_entries(config["model"], LARGEST_CONFIG):
        raise ValueError(f"{path} has a config of more than {LARGEST_CONFIG:,} entries, which no model has")
    stored = sum(value.numel() for value in checkpoint["state_dict"].values() if isinstance(value, torch.Tensor))
    for name, value in leaves(config["model"], "model"):
        if isinstance(value, int) and value > max(stored, LARGE):
            raise ValueError(f"{path} has {name}={value} in its config, but holds only {stored:,} numbers")
    with torch.device("meta"), limited_parameters(2 * stored + 1000):
        model = build_model(config, path)
    check_weights(model, checkpoint, path)


def has_more_entries(node: Any, most: int) -> bool:
    """Return whether nested dicts and lists have more than ``most`` entries. A repeated one counts each time."""
    waiting = [node]
    for _ in range(most):
        if not waiting:
            return False
        part = waiting.pop()
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list | tuple) else ()
    return True


def build_model(config: dict[str, Any], path: str | Path, allow_packages: tuple[str, ...] = ()) -> LatentVariableModel:
    """Build the model of a checkpoint's config, and leave the state of torch's random generator as it was.

    Raises:
        ValueError: the config does not describe a model, or its parts do not fit together.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            model = build(config["model"], "model", allow_packages, seed=config["seed"])
    except ValueError:
        raise
    except Exception as error:  # parts that do not fit together raise errors of any class
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{path} has a config that builds no model ({reason}): if it is your own class, use "
            f"allow_packages=('vaezoo',)"
        ) from error
    if not isinstance(model, LatentVariableModel):
        raise ValueError(f"{path} has a config that builds a {type(model).__name__}, not a model")
    return model


@contextmanager
def limited_parameters(most: int) -> Iterator[None]:
    """Raise a ValueError as soon as the modules that a block builds have more than ``most`` parameters."""
    total = 0

    def count(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        nonlocal total
        total += 0 if parameter is None else parameter.numel()
        if total > most:
            raise ValueError("the config describes a model that is larger than the checkpoint")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()
