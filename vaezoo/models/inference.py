"""The use of a model after its training: arrays as inputs, and results without gradients."""

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from vaezoo.models.base import LatentVariableModel

Method = TypeVar("Method", bound=Callable[..., Any])


def inference(method: Method) -> Method:
    """Decorate a method of a model for its use after a training: arrays are accepted, and gradients are left out.

    A context that is one label is that of all examples.

    The results have gradients only if an argument requires them, as in ``decode(z.requires_grad_())``, or if the method
    is called while a ``Trainer`` trains the model. ``forward`` and the parts of a model, such as ``encoder`` and
    ``decoder``, have gradients always.

    Args:
        method: its first argument is named ``x`` if it takes examples: see ``to_examples``.
    """
    names = list(inspect.signature(method).parameters)[1:]
    first = names[0]

    @functools.wraps(method)
    def run(self: "LatentVariableModel", *arguments: Any, **named: Any) -> Any:
        if not arguments:
            arguments = (named.pop(first),) if first in named else ()
        values = [to_tensor(self, value) for value in arguments]
        named = {name: to_tensor(self, value) for name, value in named.items()}
        if first == "x" and values:
            values[0] = to_examples(self, values[0])
        trains = is_training(self)
        if "context" in names and len(values) == 2 and "context" not in named:
            named["context"] = values.pop()
        if type(named.get("context")) is int and values:
            num = len(values[0]) if isinstance(values[0], Tensor) else values[0]
            named["context"] = torch.full((num,), named["context"], device=self.device)
        if not trains:
            check_classes(self, named.get("context"))
        given = [value for value in (*values, *named.values()) if isinstance(value, Tensor)]
        keeps_gradients = any(value.requires_grad for value in given) or trains
        with torch.set_grad_enabled(keeps_gradients and torch.is_grad_enabled()):
            return method(self, *values, **named)

    return run  # type: ignore[return-value]


def check_classes(model: "LatentVariableModel", context: Any) -> None:
    """Raise a ValueError if labels are no classes of the model; -1 is a missing label."""
    num_classes = getattr(model, "num_classes", getattr(getattr(model, "prior", None), "num_classes", None))
    is_labels = isinstance(context, Tensor) and not context.is_floating_point() and context.numel() > 0
    if num_classes is None or not is_labels or torch.compiler.is_compiling():
        return
    low, high = int(context.min()), int(context.max())
    if high >= num_classes or low < (-1 if model.uses_labels else 0):
        raise ValueError(
            f"the model has {num_classes} classes, 0 to {num_classes - 1}, but a label is "
            f"{high if high >= num_classes else low}"
        )


def is_training(model: "LatentVariableModel") -> bool:
    """Return whether a ``Trainer`` trains the model at this moment."""
    try:
        return model.trainer.training
    except RuntimeError:  # it is not attached to one
        return False


def to_tensor(model: "LatentVariableModel", value: Any) -> Any:
    """Return an array of NumPy, or a list of labels, as a tensor on the model's device, floats in its dtype.

    Other values stay.

    Raises:
        ValueError: the array does not hold numbers.
    """
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return torch.tensor(value, device=model.device)
    if not isinstance(value, np.ndarray):
        if isinstance(value, str | list | tuple) or hasattr(value, "columns"):
            name = type(value).__name__
            raise ValueError(f"expected an array or a tensor, got {name}: {preparation_hint(model)}")
        return value
    if value.dtype.kind not in "biuf":
        raise ValueError(f"expected an array of numbers, got one of type {value.dtype}")
    if value.dtype.kind == "u" and value.dtype.itemsize > 1:
        value = value.astype(np.int64)  # torch cannot compute with large unsigned integers
    tensor = torch.from_numpy(np.ascontiguousarray(value)).to(model.device)
    return tensor.to(model.dtype) if tensor.is_floating_point() else tensor


def preparation_hint(model: "LatentVariableModel") -> str:
    """Return how a value of another type becomes an input of a model."""
    if "columns" in model.data_description:
        return "prepare rows with vaezoo.data.prepare_rows(table, model.data_description)"
    if "vocabulary" in model.data_description:
        return "prepare texts with vaezoo.data.prepare_texts(texts, model.data_description)"
    return "convert it with numpy.asarray(x)"


def to_examples(model: "LatentVariableModel", x: Any) -> Any:
    """Return examples as the model saw them in its training, if they are images of bytes or in another layout.

    Args:
        model: the model. ``data_description`` says what its training data were.
        x: examples, (B, *data_shape); or images (B, H, W) or (B, H, W, C), if those of the training were such arrays.

    Raises:
        ValueError: x is uint8, and the model was not trained on images of bytes; values are outside of [0, 1], and
            those of the training were not; or entries are missing, and the model cannot leave them out.
    """
    if not isinstance(x, Tensor):
        return x
    kind = model.data_description.get("kind")
    kinds = {kind} if kind else set(model.likelihood.supported_data)
    layout, shape = model.data_description.get("layout"), model.data_shape
    if x.shape[1:] != shape and x.dim() in (3, 4):
        other = x.unsqueeze(1) if layout == "NHW" else x.movedim(-1, 1) if layout == "NHWC" else x
        x = other if other.shape[1:] == shape else x
    if x.dtype == torch.bool:
        return x.to(model.dtype)
    x = from_bytes(model, x, kinds) if x.dtype == torch.uint8 else x
    if x.is_floating_point() and not model.likelihood.supports_missing and bool(x.isnan().any()):
        raise ValueError("x holds NaN, but the model was trained without missing entries: fill them in, or remove them")
    if kinds <= {"binary", "byte", "unit"} and x.numel():
        low, high = (float(value) for value in x.detach().nan_to_num(nan=0.0).aminmax())
        if low < 0 or high > 1:
            raise ValueError(
                f"the model takes values in [0, 1], but x holds values from {low:g} to {high:g}: scale x as the data "
                f"of the training were, for example x / 255"
            )
    return x


def from_bytes(model: "LatentVariableModel", x: Tensor, kinds: set[str]) -> Tensor:
    """Return examples of type uint8 as the model saw them in its training.

    Args:
        model: the model.
        x: the examples.
        kinds: the kinds of data that they may be.

    Raises:
        ValueError: the model was not trained on such examples.
    """
    if model.likelihood.takes_integers:
        return x.long()
    if kinds == {"byte"}:
        return x.to(model.dtype).div_(255)
    low, high = (int(value) for value in x.aminmax()) if x.numel() else (0, 0)
    if kinds == {"binary"}:
        if high <= 1:
            return x.to(model.dtype)
        if bool(((x == 0) | (x == 255)).all()):
            return x.to(model.dtype).div_(255)
        raise ValueError(
            f"x holds bytes from {low} to {high}, but the model was trained on bits: binarize x first, for example by "
            f"x > 127"
        )
    raise ValueError(
        f"x holds bytes from {low} to {high}, but the model takes {' or '.join(sorted(kinds))} data: convert x to "
        f"floats, scaled as the training data were, for example x / 255"
    )
