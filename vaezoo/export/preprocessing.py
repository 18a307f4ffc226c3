"""The user's numbers and x: what the data module does to them, as a module that can be exported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vaezoo.data.columns import TableTransform
from vaezoo.families.base import WHOLE_NUMBERS
from vaezoo.missing import to_float, to_whole

PIXELS = [0, 255]  # the range of values in the description of an array of bytes


@dataclass(frozen=True)
class Units:
    """The user's numbers u = loc + scale x, for x as the model sees it. They are computed in float64.

    Args:
        loc: loc of all dimensions, (), or of each, (D,); float64.
        scale: scale of all dimensions, (), or of each, (D,); float64.
        is_identity: whether u = x, which keeps its type.
    """

    loc: Tensor
    scale: Tensor
    is_identity: bool

    def to_model(self, u: Tensor) -> Tensor:
        """Return x for the user's numbers u."""
        return u if self.is_identity else (u.double() - self.loc) / self.scale

    def value(self, x: Tensor) -> Tensor:
        """Return the user's numbers for x."""
        return x if self.is_identity else self.loc + self.scale * x.double()

    def length(self, x: Tensor) -> Tensor:
        """Return a scale of x, such as a standard deviation, in the user's units."""
        return x if self.is_identity else self.scale * x.double()

    def split(self, sizes: list[int]) -> list["Units"]:
        """Return the units of parts with these numbers of dimensions."""
        if self.loc.dim() == 0:
            return [self] * len(sizes)
        parts = zip(self.loc.split(sizes), self.scale.split(sizes), strict=True)
        return [Units(loc, scale, self.is_identity) for loc, scale in parts]


class Preprocessing(nn.Module):
    """From the user's numbers u to x, as the data module of the training did it.

    =================  ============================================================================================
    data               u
    =================  ============================================================================================
    images             float32 (B, C, H, W), pixel / 255, in [0, 1]
    an array           float32, the numbers of the array; its pixels from 0 to 255 are divided by 255, as for images
    a table            float64 (B, D), a column for each one that is modelled: numbers in the user's units, dates as
                       days since 1970-01-01, categories as their codes 0, 1, ...; NaN marks a missing entry
    texts              int64 (B, T), the numbers of the tokens, then 1 (the end), then -1
    counts             int64 (B, ...), -1 marks a missing entry
    anything else      float32, as the data module makes it
    =================  ============================================================================================

    Args:
        description: what ``DataModule.describe`` returned for the data of the training.
        binarize: the mode of ``ImageData``, if the data are images. With ``threshold``, bits are made of grey values;
            otherwise a model of bits takes grey values as they are.
    """

    loc: Tensor
    scale: Tensor

    def __init__(self, description: Mapping[str, Any], binarize: str | None = None):
        super().__init__()
        self.noun, self.kind = description.get("noun", "example"), description.get("kind", "real")
        self.transform = TableTransform.from_description(description) if "columns" in description else None
        value_range = description.get("value_range")
        self.binarize = binarize if self.kind in ("binary", "byte") else None
        self.value_range = None if value_range in (None, PIXELS) else list(value_range)
        self.is_whole = self.kind in WHOLE_NUMBERS
        loc: Any = 0.0
        scale: Any = 1.0
        if self.transform is not None:
            loc, scale = self.transform.loc, self.transform.scale
        elif self.value_range is not None:
            loc, scale = self.value_range[0], self.value_range[1] - self.value_range[0]
        self.register_buffer("loc", torch.as_tensor(loc, dtype=torch.float64))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float64))
        self.is_identity = bool((self.loc == 0).all() and (self.scale == 1).all())
        is_float64 = self.transform is not None
        self.dtype = torch.float64 if is_float64 else torch.int64 if self.is_whole else torch.float32

    @property
    def units(self) -> Units:
        """The user's units."""
        return Units(self.loc, self.scale, self.is_identity)

    @property
    def meaning(self) -> str:
        """The meaning of u, as a sentence for the metadata of the files."""
        if self.transform is not None:
            return (
                "rows of a table, with the columns of `columns` in this order: numbers in the table's units, dates as "
                "days since 1970-01-01, categories as their place in `categories` from 0; NaN: a missing entry"
            )
        if self.kind == "token":
            return "numbers of tokens in `vocabulary` from 0, then 1 (the end of the text), then -1"
        if self.value_range is not None:
            return f"{self.noun}s with values from {self.value_range[0]:g} to {self.value_range[1]:g}"
        if self.kind == "byte":
            return f"{self.noun}s with values in [0, 1], pixel / 255"
        if self.kind == "binary":
            others = "1 if above 1/2" if self.binarize == "threshold" else "used as they are"
            return f"{self.noun}s with values 0 and 1; other values in [0, 1], such as pixel / 255, are {others}"
        missing = "; -1: a missing entry" if self.is_whole else "; NaN: a missing entry, if the model takes them"
        return f"{self.noun}s of {self.kind} numbers{missing}"

    def describe(self) -> dict[str, Any]:
        """Return what stands in the files besides the data's own description: the modelled columns of a table."""
        if self.transform is None:
            return {}
        kinds = [{"name": c.name, "kind": c.kind, "categories": list(c.categories)} for c in self.transform.x_columns]
        return {"columns": kinds}

    def forward(self, u: Tensor) -> Tensor:
        """Return x for the user's numbers u."""
        x = self.units.to_model(u)
        if self.is_whole:
            return to_whole(x) if x.is_floating_point() else x
        if self.value_range is not None and self.kind == "byte":
            x = (x * 255).round() / 255
        if self.binarize == "threshold":
            x = (x > 0.5).float()
        return x.float()

    def to_user(self, x: Tensor) -> Tensor:
        """Return the user's numbers for x, of the type of u."""
        if self.dtype == torch.int64:
            return x
        return self.units.value(to_float(x, torch.float64)).to(self.dtype)

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean or the mode of p(x | z) in the user's units: for a table as float64, as u is."""
        return self.to_user(x) if self.transform is not None else self.units.value(x)
