"""Checks of data and settings that do not go together with a model; each error says what to do instead."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor

from vaezoo.families import Family, TokenSequence
from vaezoo.types import Batch

if TYPE_CHECKING:
    from vaezoo.models.base import LatentVariableModel


def check_data_kind(model: "LatentVariableModel", data: Any) -> None:
    """Raise a ValueError if the likelihood cannot score the kind of data that a data module makes."""
    supported, name = model.likelihood.supported_data, type(model.likelihood).__name__
    subject, other = f"the likelihood {name}", "another model/likelihood"
    instead = "leave model/likelihood out, so that it follows the data, or use another one"
    masked = "use vaezoo.families.Masked, and vaezoo.nets.MaskedInput for the encoder"
    if model.has_own_likelihood:
        subject, other = f"the likelihood that {type(model).__name__} sets itself", "another model"
        instead = masked = "use a model whose likelihood follows the data, such as model=mlp_vae"
        if "count" in supported:
            instead = f"if all are whole numbers, say so by data.kind=count or data.types; otherwise {instead}"
    scored = f"{subject} scores {' or '.join(sorted(supported))} data"
    if data.data_kind not in supported and hasattr(data, "binarize") and supported & {"binary", "byte"}:
        fix = "data.binarize=dynamic" if "binary" in supported else "data.binarize=none"
        raise ValueError(
            f"{scored}, but data.binarize={data.binarize} makes {data.data_kind} data: use {fix} or {other}"
        )
    if data.data_kind not in supported:
        raise ValueError(f"{scored}, but {type(data).__name__} makes {data.data_kind} data: {instead}")
    if getattr(data, "has_missing", False) and not model.likelihood.supports_missing:
        raise ValueError(f"entries of {type(data).__name__} are missing, but {subject} needs all of them: {masked}")


def check_data_module(model: "LatentVariableModel", data: Any) -> None:
    """Raise a ValueError if the model cannot take the examples of a data module: their kind or their shape."""
    check_data_kind(model, data)
    if tuple(data.shape) != model.data_shape:
        noun = getattr(data, "noun", "example")
        raise ValueError(f"data_shape is {model.data_shape}, but {type(data).__name__}'s {noun}s are {data.shape}")


def check_precision(data: Any, precision: str) -> None:
    """Raise a ValueError if counts, categories or scales of columns would be rounded to 16 bits.

    bfloat16 holds whole numbers up to 256 only, and ln of a count that the encoder sees, or ln of the scale of a
    column, a constant of log p(x), to 0.4 %.
    """
    is_rounded = getattr(data, "data_kind", None) in ("mixed", "count") or getattr(data, "is_standardized", False)
    if is_rounded and precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"trainer.precision={precision} rounds counts, categories and the scales of columns: use bf16-mixed or "
            f"32-true"
        )


def check_same_data(saved: Mapping[str, Any], present: Mapping[str, Any], data: Any = None) -> None:
    """Raise a ValueError if a training is resumed with other data, or with data that are prepared in another way.

    Args:
        saved: the description of the data in the checkpoint (``DataModule.describe``).
        present: the description of the present data.
        data: the present data module; None if the data are loaders.
    """
    encoding = getattr(data, "encoding", None)
    if saved and encoding and not are_close(encoding(saved), encoding(present)):
        raise ValueError(
            "the data are prepared in another way than when the checkpoint was written, so the numbers in x mean "
            "something else: resume with the version of vaezoo and the files of the training, or start a new run"
        )
    for key in saved.keys() & present.keys():  # other versions have other keys
        if not are_close(saved[key], present[key]):
            raise ValueError(
                f"the data have changed since the checkpoint was written, in their {key.replace('_', ' ')}: restore "
                f"the files of the training and the versions of the libraries that read them, or start a new run"
            )


def are_close(a: Any, b: Any) -> bool:
    """Return whether two plain values are equal, floats up to the rounding errors of another processor."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(are_close(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(are_close, a, b))
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
    return bool(a == b)


def check_batch(model: "LatentVariableModel", batch: Batch) -> None:
    """Raise a ValueError if the model cannot take a batch: its types, its shapes or its values.

    NaN and infinity are not refused. They make the loss NaN, and ``on_nan`` decides what happens then.
    """
    x, y = batch
    for name, value in {"x": x, "y": y}.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name} of Batch(x, y) is a {type(value).__name__}: give a tensor"
                + ", torch.zeros(len(x)) if there are no labels" * (name == "y")
            )
    if x.shape[1:] != model.data_shape or y.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"Batch(x, y) has the shapes {tuple(x.shape)} and {tuple(y.shape)}: data_shape={model.data_shape} takes "
            f"x of shape {('B', *model.data_shape)} and y of shape (B, ...)".replace("'", "")
        )
    model.likelihood.check(x.where(x.isfinite(), 0))
    model.check_labels(y)


def check_objective(model: "LatentVariableModel", world_size: int) -> None:
    """Raise a ValueError if likelihood, objective and the number of processes would silently optimize another loss."""
    likelihood, objective = model.likelihood, model.objective
    if world_size > 1 and (likelihood.is_batch_coupled or objective.is_batch_coupled):
        raise ValueError(
            f"{type(model).__name__}'s loss couples the examples of a batch, and each of {world_size} "
            f"processes would see only its own examples: use trainer.devices=1"
        )
    if likelihood.is_batch_coupled and objective.uses_gradient_hooks:
        raise ValueError(
            f"{type(objective).__name__} weights the gradient of each sample by itself, but the likelihood "
            f"{type(likelihood).__name__} couples them: use another model/likelihood"
        )


def check_sentence_likelihood(likelihood: Family, owner: str) -> None:
    """Raise a ValueError if a likelihood cannot score sentences.

    Args:
        likelihood: the likelihood of ``owner``.
        owner: the model, for the message.
    """
    if not isinstance(likelihood, TokenSequence):
        raise ValueError(
            f"{owner} needs a likelihood of sentences, got {type(likelihood).__name__}: use "
            f"model/likelihood=token_sequence"
        )
