"""Tables of the user: the data module, and new rows for a trained model."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.data.columns import PARTS, TableTransform, find_columns, read_types, row_digests, to_codes
from vaezoo.data.own import OwnData
from vaezoo.data.splits import Split
from vaezoo.data.table_files import MISSING, TableFile, format_value, read_table, to_typed_frame
from vaezoo.errors import ConfigError
from vaezoo.missing import is_observed

if TYPE_CHECKING:
    import pandas

PICTURE_WIDTH = 32  # columns of a table in one row of a picture
MISSING_COLOR = (0.2, 0.35, 0.75)


class TableData(OwnData):
    """A table: one example is one row, from a file .csv, .tsv, .txt (also .gz) or .parquet.

    The kinds of the columns are found (``vaezoo.data.columns.find_columns``), and ``task=check`` prints them. Real
    columns are standardized by the observed entries of the training rows, and log p(x) is reported in the user's units.
    Missing entries stay missing.

    Attributes:
        content: a table in memory, which takes the place of the file.
        frame: the table itself, with the columns that are not modelled.
        complete: the sets without the entries that ``holes`` has hidden; empty if ``holes`` is 0.

    Args:
        path: the file.
        separator: what separates the cells: ``comma``, ``semicolon``, ``tab``, ``bar``, or any other character. None:
            it is found.
        encoding: the encoding of the text.
        header: whether the first row has the names of the columns. None: it is found.
        decimal: the decimal mark, ``point`` or ``comma``. None: it is found.
        missing: entries that stand for a missing value, apart from the empty one.
        types: the kinds of columns that are not to be found, by name: ``real``, ``date``, ``count``, ``categorical``,
            ``ordinal``, ``id`` or ``ignore``; or a list of ordinal levels from the lowest to the highest. Names that
            Hydra cannot read as keys stand in a list: ``["NAME: KIND"]``.
        label: the column with the class, which becomes y. None: there is none.
        holes: share of the observed entries that are hidden at random, in [0, 1), for experiments with missing data.
        **kwargs: arguments of ``OwnData``.

    Raises:
        ValueError: ``holes`` is out of range.
    """

    noun = "row"
    content: "pandas.DataFrame | None" = None

    def __init__(
        self,
        path: str = "",
        separator: str | None = None,
        encoding: str = "utf-8",
        header: bool | None = None,
        decimal: str | None = None,
        missing: Sequence[str] = MISSING,
        types: Mapping[str, str | Sequence[str]] | Sequence[str] | None = None,
        label: str | None = None,
        holes: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= holes < 1:
            raise ValueError(f"data.holes={holes} is not a share: use a number in [0, 1)")
        if not isinstance(missing, Sequence) or isinstance(missing, str):
            raise ValueError(f"data.missing={missing} is not a list: use data.missing=[{missing}]")
        self.path, self.types, self.label, self.holes = path, read_types(types), label, holes
        self.reading: dict[str, Any] = {
            "separator": separator,
            "encoding": encoding,
            "header": header,
            "decimal": decimal,
            "missing": [str(entry) for entry in missing],
        }
        self.fitted: TableTransform | None = None
        self.complete: dict[str, Tensor] = {}
        self.num_duplicates = 0

    # Reading.

    def read_file(self) -> TableFile:
        """Read the table."""
        if self.content is not None:
            return TableFile(to_typed_frame(self.content, self.reading["missing"]), {}, lambda row: f"row {row + 1}")
        if not self.path:
            raise ConfigError("data.path is missing: name the file of the table, data.path=FILE.csv")
        return read_table(self.path, **self.reading)

    def read(self) -> tuple[Split, ...]:
        file = self.read_file()
        columns = find_columns(file.frame, self.types, self.label, file.place)
        transform = TableTransform(columns)
        values = transform.to_values(file.frame, file.place)
        digests = row_digests(file.frame, columns)
        sets = self.divide(digests)
        self.frame, self.found = file.frame, file.found
        self.num_duplicates = len(digests) - len(np.unique(digests))
        observed = self.hide(values)
        self.fitted = transform = transform.fit(observed[sets["train"].numpy()])
        x, y = transform.standardize(observed), self.read_labels(file)
        if self.holes:
            self.complete = {name: transform.standardize(values)[rows] for name, rows in sets.items()}
        return tuple(Split(x[rows], y[rows]) for rows in sets.values())

    def hide(self, values: np.ndarray) -> np.ndarray:
        """Return the values with NaN for a share ``holes`` of the entries, which depends on ``split_seed`` only."""
        if not self.holes:
            return values
        generator = seeding.generator(self.split_seed, "holes")
        hidden = torch.rand(values.shape, generator=generator, dtype=torch.float64).numpy() < self.holes
        return np.where(hidden, math.nan, values)

    def read_labels(self, file: TableFile) -> Tensor:
        """Return the classes, int64 (N,); -1 if there is none."""
        if self.label is None:
            return torch.full((len(file.frame),), -1)
        column = next(column for column in self.transform.columns if column.kind == "label")
        return torch.from_numpy(np.nan_to_num(to_codes(file.frame[column.name], column, file.place), nan=-1)).long()

    @property
    def transform(self) -> TableTransform:
        """The way from the table to x and back. The table is read if it was not."""
        if self.fitted is None:
            self.inspect()
        assert self.fitted is not None
        return self.fitted

    # What the model and the user get.

    @property
    def data_kind(self) -> str:  # type: ignore[override]
        """Kind of data: ``real``, ``count``, ``categorical`` or ``mixed``; the table is read if it was not."""
        return self.transform.data_kind

    @property
    def is_standardized(self) -> bool:  # type: ignore[override]
        """True if there are real columns; the table is read if it was not."""
        return "real" in self.transform.parts

    def likelihood_config(self) -> dict[str, Any]:
        """Return the default likelihood: a normal, negative binomial, categorical or cumulative logit for each column.

        The normals have a learned scale for each column, and report log p(x) in the user's units.
        """
        families: dict[str, dict[str, Any]] = {}
        layout = {}
        for part, columns in self.transform.parts.items():
            sizes = [max(2, len(column.categories)) for column in columns]
            normal = {"_target_": "vaezoo.families.DimensionScaleNormal", "shape": [len(columns)]}
            scales = [column.scale for column in columns]
            nodes: dict[str, dict[str, Any]] = {
                "real": {"_target_": "vaezoo.families.Rescaled", "family": normal, "scale": scales},
                "count": {"_target_": "vaezoo.families.NegativeBinomial"},
                "categorical": {"_target_": "vaezoo.families.Categories", "sizes": sizes},
                "ordinal": {"_target_": "vaezoo.families.OrdinalColumns", "sizes": sizes},
            }
            families[part] = nodes[part]
            layout[part] = [len(columns)]
        if len(families) == 1:
            return next(iter(families.values()))
        return {"_target_": "vaezoo.families.Joint", "layout": layout, "families": families}

    def input_config(self) -> dict[str, Any] | None:
        """Return the node of a network that sees counts on a logarithmic scale, standardized by the training rows."""
        counts = [i for i, column in enumerate(self.transform.x_columns) if column.kind == "count"]
        if not counts:
            return super().input_config()
        rows = (self.splits_as_read[0] if self.splits_as_read else self.training_split).x[:][:, counts]
        logs = torch.where(is_observed(rows), rows, 0).double().log1p().where(is_observed(rows), math.nan)
        loc = logs.nanmean(0)
        scale = (logs - loc).square().nanmean(0).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        logarithmic = {"log_columns": counts, "loc": loc.nan_to_num().tolist(), "scale": scale.tolist()}
        return {"_target_": "vaezoo.nets.MaskedInput", **logarithmic}

    def describe(self) -> dict[str, Any]:
        reading = self.reading | {"decimal": self.reading["decimal"] or self.found.get("decimal")}
        return super().describe() | self.transform.describe() | {"reading": reading, "holes": self.holes}

    def encoding(self, description: Mapping[str, Any]) -> Any:
        keys = ("name", "kind", "categories", "loc", "scale")
        columns = [{key: column.get(key) for key in keys} for column in description.get("columns", [])]
        modelled = {column["name"]: column for column in columns if column["kind"] in PARTS}
        return {"columns": modelled, "holes": description.get("holes", 0)}

    def report(self) -> dict[str, Any]:
        columns = self.transform.columns
        return {
            **self.found,
            "duplicate_rows": self.num_duplicates,
            "kinds": dict(Counter(column.kind for column in columns)),
            "columns": {column.name: self.describe_column(column.name) for column in columns},
        }

    def describe_column(self, name: str) -> str:
        """Return the kind of a column, the reason, the missing entries and the range, for people."""
        column = next(column for column in self.transform.columns if column.name == name)
        entries, text = self.frame[name], f"{column.kind} ({column.reason})"
        if num := int(entries.isna().sum()):
            text += f", {num:,} missing"
        if column.categories:
            return f"{text}: {', '.join(column.categories[:8])}{', ...' * (len(column.categories) > 8)}"
        if column.part:
            low, high = entries.min(), entries.max()
            dates = column.kind == "date"
            return f"{text}: {low.date() if dates else format_value(low)} ... " + (
                str(high.date()) if dates else format_value(high)
            )
        return text

    def to_images(self, x: Tensor) -> Tensor:
        """Return rows as pictures (N, 3, H, W): a bar of 4 x 16 pixels for each column, from left to right.

        Black is 3 standard deviations below the mean, or the first category; white is 3 above, or the last one. Counts
        are on a logarithmic scale. Missing entries are blue.
        """
        grey = []
        for value, column in zip(x.float().unbind(1), self.transform.x_columns, strict=True):
            if column.categories:
                grey.append(value / max(1, len(column.categories) - 1))
            elif column.kind == "count":
                grey.append(value.clamp(min=-0.5).log1p() / math.log1p(column.maximum))
            else:
                grey.append((value + 3) / 6)
        is_hole = x.isnan() if x.is_floating_point() else x < 0
        colors = torch.tensor(MISSING_COLOR, device=x.device)
        rgb = torch.where(is_hole[..., None], colors, torch.stack(grey, 1).clamp(0, 1)[..., None])  # (N, D, 3)
        num, dims = x.shape
        width = min(dims, PICTURE_WIDTH)
        height = -(-dims // width)
        rgb = torch.cat([rgb, rgb.new_zeros(num, height * width - dims, 3)], 1)
        pixels = rgb.reshape(num, height, width, 3).movedim(-1, 1)
        return pixels.repeat_interleave(16, 2).repeat_interleave(4, 3)

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write rows (N, D) as .csv, in the user's units and with categories as text."""
        file = path.with_name(f"{path.name}.csv")
        self.transform.inverse(x).to_csv(file, index=False)
        return [file]


def prepare_rows(
    table: "str | Path | pandas.DataFrame", description: Mapping[str, Any], unseen: str = "error"
) -> Tensor:
    """Return x, (N, D), of new rows, prepared exactly as the rows that a model was trained with.

    Args:
        table: a file, or a table of pandas, with the columns of the training table; other columns are ignored.
        description: what ``TableData.describe`` returned for the training table.
        unseen: what becomes of a category that the training table does not have: ``error`` or ``missing``.

    Raises:
        ConfigError: the table does not fit the description.
    """
    transform, reading = TableTransform.from_description(description), description["reading"]
    if isinstance(table, str | Path):
        file = read_table(table, **reading)
        return transform.transform(file.frame, file.place, unseen)
    return transform.transform(to_typed_frame(table, reading["missing"]), unseen=unseen)
