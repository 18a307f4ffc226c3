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
from vaezoo.data.columns import (
    PARTS,
    Column,
    TableTransform,
    find_columns,
    read_types,
    row_digests,
    to_codes,
    type_option,
)
from vaezoo.data.own import OwnData
from vaezoo.data.splits import Split, digest_rows
from vaezoo.data.table_files import DATE_ORDERS, MISSING, TableFile, format_value, read_frame, read_table
from vaezoo.errors import ConfigError
from vaezoo.missing import is_observed
from vaezoo.types import Cells

if TYPE_CHECKING:
    import pandas

MANY_CATEGORIES = 50  # more of them in a column are mentioned in the report


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
        dates: the order of day and month in dates with slashes, ``dayfirst`` or ``monthfirst``, for all columns or by
            the name of the column. None: a number above 12 in the column decides.
        types: the kinds of columns that are not to be found, by name: ``real``, ``date``, ``count``, ``categorical``,
            ``ordinal``, ``id`` or ``ignore``; or a list of ordinal levels from the lowest to the highest. Names that
            Hydra cannot read as keys stand in a list: ``["NAME: KIND"]``.
        label: the column with the class, which becomes y. None: there is none.
        unseen: what becomes of a category of new rows that the training table does not have: ``error`` or ``missing``.
        holes: share of the observed entries that are hidden at random, in [0, 1), for experiments with missing data.
        **kwargs: arguments of ``OwnData``.

    Raises:
        ValueError: ``holes`` is out of range.
    """

    noun = "row"
    label_place = "the table has the column of the label"
    shows_draws = True  # a row of means is no possible row
    content: "pandas.DataFrame | None" = None

    def __init__(
        self,
        path: str = "",
        separator: str | None = None,
        encoding: str = "utf-8",
        header: bool | None = None,
        decimal: str | None = None,
        missing: Sequence[str] = MISSING,
        dates: str | Mapping[str, str] | None = None,
        types: Mapping[str, str | Sequence[str]] | Sequence[str] | None = None,
        label: str | None = None,
        holes: float = 0.0,
        unseen: str = "error",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= holes < 1:
            raise ValueError(f"data.holes={holes} is not a share: use a number in [0, 1)")
        if unseen not in ("error", "missing"):
            raise ValueError(f"data.unseen={unseen} is not known: use data.unseen=error or data.unseen=missing")
        if not isinstance(missing, Sequence) or isinstance(missing, str):
            raise ValueError(f"data.missing={missing} is not a list: use data.missing=[{missing}]")
        self.path, self.types, self.label, self.holes = path, read_types(types), label, holes
        self.dates = dict(dates) if isinstance(dates, Mapping) else dates
        self.reading: dict[str, Any] = {
            "separator": separator,
            "encoding": encoding,
            "header": header,
            "decimal": decimal,
            "missing": [str(entry) for entry in missing],
        }
        self.unseen = unseen
        self.fitted: TableTransform | None = None
        self.complete: dict[str, Tensor] = {}
        self.num_duplicates = 0

    # Reading.

    def read_file(self) -> TableFile:
        """Read the table."""
        if self.content is not None:
            return read_frame(self.content, self.reading["missing"], self.dates)
        if not self.path:
            raise ConfigError("data.path is missing: name the file of the table, data.path=FILE.csv")
        return read_table(self.path, **self.reading, dates=self.dates)

    def check_date_orders(self, file: TableFile) -> None:
        """Raise a ConfigError if a column of dates can be read in two ways, unless it has another kind."""
        for name in file.undecided_dates:
            entries = file.frame[name].dropna().drop_duplicates()
            if len(entries) > 1 and self.types.get(name, "date") == "date" and name != self.label:
                raise ConfigError(
                    f"{file.place(entries.index[0])}: the dates in column {name!r}, such as {entries.iloc[0]!r} and "
                    f"{entries.iloc[1]!r}, can be read with the day or with the month first: use data.dates=dayfirst "
                    f"or data.dates=monthfirst"
                )

    def read(self) -> tuple[Split, ...]:
        file = self.read_file()
        self.check_date_orders(file)
        columns = find_columns(file.frame, self.types, self.label, file.place)
        self.class_names = names_of_classes(columns)
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

    def fits(self, description: Mapping[str, Any]) -> bool:
        return "columns" in description

    def use_description(self, description: Mapping[str, Any]) -> None:
        if not isinstance(self.dates, str):
            self.dates = {**(description.get("dates") or {}), **(self.dates or {})}

    def read_new(self, description: Mapping[str, Any]) -> tuple[Split, np.ndarray]:
        self.use_description(description)
        file = self.read_file()
        self.frame, self.found = file.frame, file.found
        self.fitted = transform = TableTransform.from_description(description)
        self.class_names = names_of_classes(transform.columns)
        x = transform.transform(file.frame, file.place, self.unseen)
        return Split(x, self.read_labels(file, unseen="missing")), digest_rows(x.numpy())

    def all_keys(self) -> dict[str, np.ndarray]:
        """Return the number of each row, counted from 1, and the columns of ids."""
        ids = [c.name for c in self.transform.columns if c.kind == "id" and c.name in self.frame]
        return {"row": np.arange(1, len(self.frame) + 1)} | {name: without_zeros(self.frame[name]) for name in ids}

    def hide(self, values: np.ndarray) -> np.ndarray:
        """Return the values with NaN for a share ``holes`` of the entries, which depends on ``split_seed`` only."""
        if not self.holes:
            return values
        generator = seeding.generator(self.split_seed, "holes")
        hidden = torch.rand(values.shape, generator=generator, dtype=torch.float64).numpy() < self.holes
        return np.where(hidden, math.nan, values)

    def read_labels(self, file: TableFile, unseen: str = "error") -> Tensor:
        """Return the classes, int64 (N,); -1 if there is none.

        Args:
            file: the table.
            unseen: what becomes of a class that the training table does not have: ``error`` or ``missing``.
        """
        columns = [column for column in self.transform.columns if column.kind == "label" and column.name in file.frame]
        if not columns:
            return torch.full((len(file.frame),), -1)
        codes = to_codes(file.frame[columns[0].name], columns[0], file.place, unseen)
        return torch.from_numpy(np.nan_to_num(codes, nan=-1)).long()

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
            nodes: dict[str, dict[str, Any]] = {
                "real": self.in_user_units(normal),
                "count": {"_target_": "vaezoo.families.NegativeBinomial"},
                "categorical": {"_target_": "vaezoo.families.Categories", "sizes": sizes},
                "ordinal": {"_target_": "vaezoo.families.OrdinalColumns", "sizes": sizes},
            }
            families[part] = nodes[part]
            layout[part] = [len(columns)]
        if len(families) == 1:
            return next(iter(families.values()))
        return {"_target_": "vaezoo.families.Joint", "layout": layout, "families": families}

    def in_user_units(self, likelihood: dict[str, Any]) -> dict[str, Any]:
        scales = [column.scale for column in self.transform.x_columns if column.part == "real"]
        return {"_target_": "vaezoo.families.Rescaled", "family": likelihood, "scale": scales}

    def input_config(self) -> dict[str, Any] | None:
        """Return the node of a network that sees counts on a logarithmic scale, standardized by the training rows."""
        counts = [i for i, column in enumerate(self.transform.x_columns) if column.kind == "count"]
        if not counts:
            return super().input_config()
        split = self.splits_as_read[0] if self.splits_as_read else self.all or self.training_split
        rows = split.x[:][:, counts]
        logs = torch.where(is_observed(rows), rows, 0).double().log1p().where(is_observed(rows), math.nan)
        loc = logs.nanmean(0)
        scale = (logs - loc).square().nanmean(0).sqrt()
        scale = torch.where(scale > 0, scale, 1.0)
        logarithmic = {"log_columns": counts, "loc": loc.nan_to_num().tolist(), "scale": scale.tolist()}
        return {"_target_": "vaezoo.nets.MaskedInput", **logarithmic}

    def describe(self) -> dict[str, Any]:
        reading = self.reading | {"decimal": self.reading["decimal"] or self.found.get("decimal")}
        options = {"reading": reading, "dates": self.found.get("dates"), "holes": self.holes}
        return super().describe() | self.transform.describe() | options

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
        entries, reason = self.frame[name], column.reason
        if column.kind == "date":
            reason += "; days since 1970-01-01"
            if order := self.found.get("dates", {}).get(name):
                reason += f", {DATE_ORDERS[order]}"
        text = f"{column.kind} ({reason})"
        if num := int(entries.isna().sum()):
            text += f", {num:,} missing"
        if (num := len(column.categories)) > MANY_CATEGORIES and column.kind == "categorical":
            text += f", {num:,} categories are many ({type_option(name, 'id')} leaves the column out)"
        if column.categories:
            return f"{text}: {', '.join(column.categories[:8])}{', ...' * (len(column.categories) > 8)}"
        if column.part:
            low, high = entries.min(), entries.max()
            dates = column.kind == "date"
            return f"{text}: {low.date() if dates else format_value(low)} ... " + (
                str(high.date()) if dates else format_value(high)
            )
        return text

    def to_cells(self, x: Tensor) -> Cells:
        """Return rows (N, D) as cells to be drawn, with the columns in the table's order.

        The level of a count is that of its logarithm ln(1 + x).
        """
        modelled = self.transform.x_columns
        levels = x.double().cpu().numpy().copy()
        if not x.is_floating_point():
            levels[levels < 0] = math.nan
        logarithmic = self.input_config() or {}
        for i, loc, scale in zip(*(logarithmic.get(key, ()) for key in ("log_columns", "loc", "scale")), strict=True):
            levels[:, i] = (np.log1p(levels[:, i].clip(0)) - loc) / scale
        table = self.transform.inverse(x)
        order = [next(i for i, column in enumerate(modelled) if column.name == name) for name in table]
        entries = table.astype(object).where(table.notna(), "").to_numpy()
        texts = [[f"{entry:.6g}" if isinstance(entry, float) else str(entry) for entry in row] for row in entries]
        note = " (of ln(1 + x) for counts)" if any(column.kind == "count" for column in modelled) else ""
        return Cells(list(table), levels[:, order], texts, [bool(modelled[i].categories) for i in order], note)

    @property
    def is_category(self) -> Tensor:
        return torch.tensor([bool(column.categories) for column in self.transform.x_columns])

    @property
    def entry_names(self) -> list[str]:
        return [column.name for column in self.transform.x_columns]

    def to_columns(self, x: Tensor) -> dict[str, np.ndarray]:
        return {name: column.to_numpy() for name, column in self.transform.inverse(x).items()}

    def save_filled(self, x: Tensor, name: str, which: Tensor, path: Path) -> list[Path]:
        """Write rows of a set as .csv, with all columns of the table: entries that were observed stay as they were.

        The arguments are those of ``DataModule.save_filled``.
        """
        table = self.frame.iloc[self.rows[name][which].numpy()].reset_index(drop=True)
        filled, holes = self.transform.inverse(x), ~is_observed(getattr(self, name).x[which]).numpy()
        for i, column in enumerate(self.transform.x_columns):
            values = filled[column.name]
            if column.part == "real" and column.kind != "date":  # the others are exact in x
                values = values.where(holes[:, i], table[column.name])
            table[column.name] = values
        for column in self.transform.columns:
            if column.part is None and column.name in table:
                table[column.name] = without_zeros(table[column.name])
        file = path.with_name(f"{path.name}.csv")
        table.to_csv(file, index=False)
        return [file]

    def imputation_errors(self, x: Tensor, name: str, which: Tensor) -> dict[str, dict[str, Any]]:
        """Return the error rate of the categories, and the root mean square error of numbers in the user's units.

        The baseline is the most frequent category or the mean of the observed entries of the training rows.
        """
        if name not in self.complete:
            return {}
        complete, observed = self.complete[name][which], getattr(self, name).x[which]
        train = self.training_split.x[:]
        errors = {}
        for i, column in enumerate(self.transform.x_columns):
            hidden = is_observed(complete[:, i]) & ~is_observed(observed[:, i])
            seen = train[:, i][is_observed(train[:, i])]
            if not hidden.any() or len(seen) == 0:
                continue
            truth, guess = complete[hidden, i].double(), x[hidden, i].double()
            if column.categories:
                kind, baseline = "error rate", seen.mode().values.double()
                model, simple = (truth != guess).double().mean(), (truth != baseline).double().mean()
            else:
                kind, baseline = "RMSE", seen.double().mean()
                model, simple = ((truth - value).square().mean().sqrt() * column.scale for value in (guess, baseline))
            errors[column.name] = {
                "kind": kind, "model": float(model), "baseline": float(simple), "num": int(hidden.sum())
            }  # fmt: skip
        return errors

    def save_examples(self, x: Tensor, path: Path) -> list[Path]:
        """Write rows (N, D) as .csv, in the user's units and with categories as text."""
        file = path.with_name(f"{path.name}.csv")
        self.transform.inverse(x).to_csv(file, index=False)
        return [file]

    def save_labelled(self, x: Tensor, y: Tensor, path: Path) -> list[Path]:
        """Write rows (N, D) as .csv, with their classes in the column of the label."""
        file = path.with_name(f"{path.name}.csv")
        name = next(column.name for column in self.transform.columns if column.kind == "label")
        self.transform.inverse(x).assign(**{name: self.label_columns(y)["class"]}).to_csv(file, index=False)
        return [file]


def without_zeros(column: "pandas.Series") -> np.ndarray:
    """Return a column that is not modelled, such as ids: numbers that are all whole become integers."""
    values = column.to_numpy()
    is_whole = values.dtype.kind == "f" and bool((np.abs(values) < 2**53).all()) and bool((values % 1 == 0).all())
    return values.astype(np.int64) if is_whole else values


def names_of_classes(columns: Sequence[Column]) -> list[str] | None:
    """Return the classes of the label's column; None if there is no label."""
    return next((list(column.categories) for column in columns if column.kind == "label"), None)


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
    transform = TableTransform.from_description(description)
    reading, dates = description["reading"], description.get("dates")
    if isinstance(table, str | Path):
        file = read_table(table, **reading, dates=dates)
    else:
        file = read_frame(table, reading["missing"], dates)
    return transform.transform(file.frame, file.place, unseen)
