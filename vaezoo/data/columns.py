"""Columns of a table: find their kinds, make the array x of them, and make a table of x again."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.splits import mix_bits
from vaezoo.data.table_files import DATES, ISO_DATE, NUMBERS, format_value
from vaezoo.errors import ConfigError, suggest

if TYPE_CHECKING:
    import pandas

KINDS = ("real", "date", "count", "categorical", "ordinal", "id", "ignore")  # that a user may ask for
PARTS = {"real": "real", "date": "real", "count": "count", "categorical": "categorical", "ordinal": "ordinal"}
FEW_VALUES = 10  # distinct whole numbers that are taken as categories
MAX_CATEGORIES = 1000
FREE_TEXT_VALUES, FREE_TEXT_LENGTH = 20, 20  # text with more values, whose median length is above this, is free text
MAX_WHOLE = 2**24  # float32 holds whole numbers up to it exactly
ID_NAME = re.compile(r"(^|[^a-z])(id|ids|uuid|index|idx|key|nr)$", re.IGNORECASE)
MISSING_BITS = np.uint64(2**64 - 1)  # of a missing entry in the digest of a row: no number has them
DAY = np.timedelta64(86_400_000_000, "us")


@dataclass(frozen=True)
class Column:
    """The description of one column, in plain values.

    Args:
        name: its name in the table.
        kind: ``real``, ``date``, ``count``, ``categorical`` or ``ordinal`` are in x, a date as a number of days;
            ``label`` is y; ``id``, ``constant``, ``empty`` and ``ignore`` are left out.
        reason: why it has this kind.
        categories: the names of the categories or levels, in the order of their codes 0, 1, ...
        loc: in x, a real number is (value - loc) / scale; loc is the mean of the observed training entries.
        scale: the standard deviation of the observed training entries, in the user's units; 1 for other kinds.
        decimals: the number of decimal places of the training entries of a real column; 99 if it is above 12.
        maximum: the largest training entry of a count. Nothing reads it: it is kept for checkpoints that have it.
        has_time: whether dates have a time of day.
    """

    name: str
    kind: str
    reason: str = ""
    categories: tuple[str, ...] = ()
    loc: float = 0.0
    scale: float = 1.0
    decimals: int = 99
    maximum: float = 1.0
    has_time: bool = False

    @property
    def part(self) -> str | None:
        """The part of x that the column is in: real, count, categorical or ordinal; None if it is not in x."""
        return PARTS.get(self.kind)


def type_option(name: str, kind: str) -> str:
    """Return the option that gives a column a kind, as it is typed in a shell: any name may be in it."""
    return f"""'data.types=["{name}: {kind}"]'"""


def read_types(types: Any) -> dict[str, Any]:
    """Return the kinds by the names of their columns, from a map or from a list of "NAME: KIND".

    Raises:
        ValueError: it is neither.
    """
    if types is None or isinstance(types, Mapping):
        return dict(types or {})
    if isinstance(types, list | tuple) and all(isinstance(item, str) and ": " in item for item in types):
        return {name: kind for name, _, kind in (item.rpartition(": ") for item in types)}
    raise ValueError(
        f"""data.types={types} should be a map or a list of names with kinds: use 'data.types=["COLUMN: real"]'"""
    )


def find_columns(
    frame: "pandas.DataFrame",
    asked: Mapping[str, str | Sequence[str]] | None = None,
    label: str | None = None,
    place: Callable[[int], str] | None = None,
) -> list[Column]:
    """Find the kind of each column.

    A column that the user has not asked for has the first kind of this list whose condition holds, for its entries
    that are not missing:

    * ``empty``: there is none;
    * ``constant``: all are equal;
    * ``date``: all are dates of one form, with or without a time: 2024-12-31, 31.12.2024, 31/12/2024 or 12/31/2024;
    * ``ordinal``: it is an ordered category of a .parquet file;
    * ``id``: all are different, and they are text, or whole numbers that increase from row to row or whose column has
      a name such as "id" or "customer_id"; or they are free text: more than 20 values with a median length above 20
      characters;
    * ``categorical``: text with at most 1,000 values; or numbers with two values, or whole numbers with at most 10
      values. The values must occur twice on average; for text, at most 10 values are enough;
    * ``count``: whole numbers from 0 to 2^24;
    * ``real``: any other numbers.

    Args:
        frame: a table with the four types of columns of ``TableFile``.
        asked: the kinds that the user asks for, by the column's name: one of ``KINDS``, or the list of the levels of an
            ordinal column in their order.
        label: the name of the column that is the class.
        place: returns the place of a row for messages. None: the number of the row.

    Raises:
        ConfigError: a column does not have the kind that is asked for, has too many different texts, or does not exist.
    """
    asked, place = dict(asked or {}), place or (lambda row: f"row {row + 1}")
    names = [str(name) for name in frame.columns]
    for name, kind in asked.items():
        if name not in names:
            raise ConfigError(f"data.types: there is no column {name!r}, {suggest(str(name), names)}")
        is_levels = isinstance(kind, list | tuple) and 1 < len(kind) == len(set(map(format_value, kind)))
        if kind not in KINDS and not is_levels:
            raise ConfigError(
                f"data.types: {kind!r} of column {name!r} is not one of {', '.join(KINDS)}, nor a list of different "
                f"levels"
            )
    if label is not None and label not in names:
        raise ConfigError(f"data.label={label}: there is no such column, {suggest(label, names)}")
    columns = []
    for name in names:
        if name == label:
            columns.append(make_label(frame[name], place))
        elif name in asked:
            columns.append(make_asked(frame[name], asked[name], place))
        else:
            columns.append(make_column(frame[name], *find_kind(frame[name], place)))
    if not any(column.part for column in columns):
        listed = "; ".join(f"{column.name}: {column.kind}, {column.reason}" for column in columns[:5])
        option = type_option("COLUMN", "real")
        raise ConfigError(f"no column is left for the model ({listed}): name kinds with {option}")
    return columns


def find_kind(column: "pandas.Series", place: Callable[[int], str]) -> tuple[str, str]:
    """Return the kind of a column and the reason, as ``find_columns`` says."""
    entries = column.dropna()
    num, distinct = len(entries), entries.nunique()
    if num == 0:
        return "empty", "it has no entry"
    if distinct == 1:
        return "constant", f"its only value is {format_value(entries.iloc[0])}"
    if is_date(column):
        return "date", "all entries are dates"
    if is_ordered(column):
        return "ordinal", "it is an ordered category"
    repeats = distinct <= num / 2
    if not is_number(column):
        if distinct == num:
            return "id", "text, all different"
        length = entries.drop_duplicates().str.len().median()
        if distinct > FREE_TEXT_VALUES and length > FREE_TEXT_LENGTH:
            as_category = f"{type_option(str(column.name), 'categorical')} makes it a category"
            return "id", f"free text, {distinct:,} values with a median length of {length:g} characters; {as_category}"
        if distinct <= MAX_CATEGORIES and (repeats or distinct <= FEW_VALUES):
            return "categorical", f"text with {distinct} values"
        raise ConfigError(describe_many_texts(column, distinct, place))
    values = entries.to_numpy()
    if distinct == 2 and repeats:
        return "categorical", f"two values, {' and '.join(map(format_value, np.unique(values)))}"
    if not (values == np.rint(values)).all():
        return "real", "numbers that are not whole"
    if distinct == num and (ID_NAME.search(str(column.name)) or (np.diff(values) > 0).all()):
        return "id", "whole numbers, all different, that increase or are named id"
    if distinct <= FEW_VALUES and repeats:
        return "categorical", f"whole numbers with {distinct} values"
    if values.min() < 0:
        return "real", "whole numbers, some of them negative"
    if values.max() > MAX_WHOLE:
        return "real", f"whole numbers, some of them above {MAX_WHOLE:,}"
    return "count", f"whole numbers >= 0 with {distinct} values"


def describe_many_texts(column: "pandas.Series", distinct: int, place: Callable[[int], str]) -> str:
    """Say that text has too many different entries to be a category; if most of them are numbers, name one that is not.

    Args:
        column: the column.
        distinct: the number of different entries.
        place: returns the place of a row.
    """
    name, entries = column.name, column.dropna()
    leave_out = f"leave the column out with {type_option(name, 'id')}"
    for noun, pattern in (
        *(("number", pattern) for pattern in NUMBERS.values()),
        *(("date", pattern) for pattern in DATES),
    ):
        fits = entries.str.fullmatch(pattern)
        if 0.5 <= fits.mean() < 1:
            row = int(fits.idxmin())
            return (
                f"{place(row)}: {column.loc[row]!r} in column {name!r} is not a {noun}, though {fits.sum():,} of "
                f"{len(entries):,} entries are: correct it, add it to data.missing, or {leave_out}"
            )
    row = int(entries.index[0])
    return (
        f"{place(row)}: {column.loc[row]!r} in column {name!r} is one of {distinct:,} different texts in "
        f"{len(entries):,} rows, too many for categories: {leave_out}, or write dates as YYYY-MM-DD"
    )


def make_asked(column: "pandas.Series", kind: str | Sequence[str], place: Callable[[int], str]) -> Column:
    """Return a column with the kind that the user asks for.

    Raises:
        ConfigError: an entry does not fit this kind.
    """
    reason = "asked for"
    if not isinstance(kind, str):
        made = Column(str(column.name), "ordinal", reason, tuple(map(format_value, kind)))
        to_codes(column, made, place)
        return made
    if kind in ("real", "count"):
        values = to_numbers(column, kind, place)
        is_count = np.isnan(values) | ((values >= 0) & (values <= MAX_WHOLE) & (values == np.rint(values)))
        if kind == "count" and not is_count.all():
            row = int(is_count.argmin())
            raise ConfigError(
                f"{place(row)}: {values[row]:g} in column {column.name!r} is not a whole number from 0 to "
                f"{MAX_WHOLE:,}: use {type_option(column.name, 'real')}"
            )
    if kind == "date" and not is_date(column):
        row = int(column.first_valid_index() or 0)
        raise ConfigError(
            f"{place(row)}: {column.loc[row]!r} in column {column.name!r} is not a date: write dates as YYYY-MM-DD"
        )
    if kind == "ordinal" and not (is_number(column) or is_ordered(column)):
        raise ConfigError(
            f"column {column.name!r} has levels without a known order: name them from the lowest to the highest, "
            f"'data.types={{{column.name}: [low, high]}}'"
        )
    return make_column(column, kind, reason)


def make_label(column: "pandas.Series", place: Callable[[int], str]) -> Column:
    """Return the column of the class.

    Raises:
        ConfigError: it has more classes than a label can have.
    """
    num, distinct = len(column.dropna()), column.nunique()
    if is_date(column) or distinct == num or distinct > min(MAX_CATEGORIES, max(num / 2, FEW_VALUES)):
        raise ConfigError(
            f"data.label={column.name} has {distinct:,} different values in {num:,} rows, which is no class: "
            f"name a column with classes, or data.label=null"
        )
    return make_column(column, "label", "asked for as the class")


def make_column(column: "pandas.Series", kind: str, reason: str) -> Column:
    """Return the description of a column without its scale."""
    categories: tuple[str, ...] = ()
    if kind in ("categorical", "ordinal", "label"):
        values = column.cat.categories if is_ordered(column) else np.sort(column.dropna().unique())
        categories = tuple(map(format_value, values))
    has_time = kind == "date" and bool((column.dropna() != column.dropna().dt.normalize()).any())
    return Column(str(column.name), kind, reason, categories, has_time=has_time)


def is_number(column: "pandas.Series") -> bool:
    """Return whether a column holds numbers, or no entry at all."""
    return column.dtype.kind == "f"


def is_date(column: "pandas.Series") -> bool:
    """Return whether a column holds dates."""
    return column.dtype.kind == "M"


def is_ordered(column: "pandas.Series") -> bool:
    """Return whether a column is an ordered category."""
    return column.dtype.name == "category"


# Values.


def to_numbers(column: "pandas.Series", kind: str, place: Callable[[int], str]) -> np.ndarray:
    """Return a column of numbers or dates as float64 (N,), dates as days since 1970; NaN is a missing entry.

    Raises:
        ConfigError: an entry is not a number or not a date.
    """
    if kind == "date" and is_date(column):
        values = column.to_numpy().astype("datetime64[us]")
        return np.where(np.isnat(values), math.nan, (values - np.datetime64(0, "us")) / DAY)
    if is_number(column) and (kind != "date" or column.isna().all()):
        return column.to_numpy()
    entries = column.dropna().astype(str)
    fits = entries.str.fullmatch(ISO_DATE if kind == "date" else NUMBERS["."])
    if kind != "date" and fits.all():  # text because of leading zeros
        return column.astype(object).where(column.notna(), math.nan).to_numpy().astype(np.float64)
    wrong, noun = int(fits.idxmin()), "date" if kind == "date" else "number"
    raise ConfigError(
        f"{place(wrong)}: {entries.loc[wrong]!r} in column {column.name!r} is not a {noun}: correct it, or add it to "
        f"data.missing"
    )


def to_codes(
    column: "pandas.Series", description: Column, place: Callable[[int], str], unseen: str = "error"
) -> np.ndarray:
    """Return a column of categories as codes, float64 (N,); NaN is a missing entry.

    Args:
        column: text, numbers or an ordered category.
        description: its categories.
        place: returns the place of a row for messages.
        unseen: ``missing``: an entry that is not among the categories becomes a missing one.

    Raises:
        ConfigError: an entry is not among the categories.
    """
    import pandas

    index = {name: float(code) for code, name in enumerate(description.categories)}
    codes, entries = pandas.factorize(column)
    values = np.array([*(index.get(format_value(entry), -1) for entry in entries), math.nan])[codes]
    if (values == -1).any() and unseen == "error":
        row = int((values == -1).argmax())
        known = ", ".join(description.categories[:10])
        raise ConfigError(
            f"{place(row)}: {format_value(column.iloc[row])!r} in column {description.name!r} is not one of its "
            f"{len(index)} categories ({known}{', ...' * (len(index) > 10)}): correct it, or use data.unseen=missing"
        )
    return np.where(values == -1, math.nan, values)


def check_counts(values: np.ndarray, name: str, place: Callable[[int], str]) -> None:
    """Raise a ConfigError if an entry of a column of counts, (N,), is negative or not whole; NaN is a missing entry."""
    wrong = (values < 0) | (values % 1 > 0)
    if wrong.any():
        row = int(wrong.argmax())
        raise ConfigError(
            f"{place(row)}: {format_value(values[row])} in column {name!r} is not a count, which is a whole number "
            f"from 0: correct it"
        )


def row_digests(frame: "pandas.DataFrame", columns: Sequence[Column]) -> np.ndarray:
    """Return a number for each row that depends on its content only, uint64 (N,); ids and the label have no part in it.

    Numbers count by their value and text by its characters, so the digest of a row stays the same if rows are added or
    a column changes its kind, unless it becomes an id.
    """
    import pandas

    digests = np.zeros(len(frame), dtype=np.uint64)
    for column in columns:
        if column.kind in ("id", "ignore", "label"):
            continue
        series = frame[column.name]
        if is_number(series):
            bits = (series.to_numpy() + 0.0).view(np.uint64)  # -0 is 0
        elif is_date(series):
            bits = series.to_numpy().astype("datetime64[us]").view(np.uint64)
        else:
            codes, entries = pandas.factorize(series)
            hashes = [hashlib.blake2b(str(e).encode(), digest_size=8).digest() for e in entries]
            bits = np.array([*(int.from_bytes(h, "little") for h in hashes), 0], dtype=np.uint64)[codes]
        bits = np.where(series.isna(), MISSING_BITS, bits)
        digests = mix_bits(digests ^ mix_bits(bits))
    return digests


# The array x.


class TableTransform:
    """Make x of a table and a table of x.

    x has a number for each column that is modelled: first the real ones, then counts, categories and ordinal levels.
    Real numbers are standardized, categories and levels are codes 0, 1, ... If all columns are of one of the last three
    kinds, x is int64 with -1 for a missing entry, otherwise float32 with NaN.

    Args:
        columns: the descriptions of all columns, in the order of the table.
    """

    def __init__(self, columns: Sequence[Column]):
        self.columns = list(columns)
        parts = list(dict.fromkeys(PARTS.values()))
        self.x_columns = [column for part in parts for column in self.columns if column.part == part]

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> "TableTransform":
        """Return the transform that ``describe`` has described."""
        names = {field.name for field in fields(Column)}
        columns = [{key: value for key, value in node.items() if key in names} for node in description["columns"]]
        return cls([Column(**node | {"categories": tuple(node["categories"])}) for node in columns])

    def describe(self) -> dict[str, Any]:
        """Return all that is needed to prepare new rows, as plain values."""
        return {"columns": [asdict(column) | {"categories": list(column.categories)} for column in self.columns]}

    @property
    def parts(self) -> dict[str, list[Column]]:
        """The modelled columns by their part of x, in the order of x."""
        parts: dict[str, list[Column]] = {}
        for column in self.x_columns:
            parts.setdefault(str(column.part), []).append(column)
        return parts

    @property
    def data_kind(self) -> str:
        """Kind of data: ``real``, ``count``, ``categorical`` or ``mixed`` (``vaezoo.families``)."""
        kinds = {"categorical" if part == "ordinal" else part for part in self.parts}
        return "mixed" if len(self.parts) > 1 else kinds.pop()

    @property
    def loc(self) -> np.ndarray:
        """Means of the modelled columns, (D,)."""
        return np.array([column.loc for column in self.x_columns])

    @property
    def scale(self) -> np.ndarray:
        """Scales of the modelled columns, (D,)."""
        return np.array([column.scale for column in self.x_columns])

    def to_values(
        self, frame: "pandas.DataFrame", place: Callable[[int], str] | None = None, unseen: str = "error"
    ) -> np.ndarray:
        """Return the modelled columns as numbers in the user's units or as codes, float64 (N, D), with NaN.

        Args:
            frame: a table with the four types of columns of ``TableFile``.
            place: returns the place of a row for messages. None: the number of the row.
            unseen: ``error`` or ``missing``, for a category that the training table does not have.

        Raises:
            ConfigError: a column or a category is unknown, an entry is of another kind, or a count is negative or not
                whole.
        """
        place = place or (lambda row: f"row {row + 1}")
        values = np.empty((len(frame), len(self.x_columns)))
        for i, column in enumerate(self.x_columns):
            if column.name not in frame:
                raise ConfigError(f"column {column.name!r} is missing in the table: add it, empty if it is unknown")
            series = frame[column.name]
            if column.categories:
                values[:, i] = to_codes(series, column, place, unseen)
            else:
                values[:, i] = to_numbers(series, column.kind, place)
            if column.kind == "count":
                check_counts(values[:, i], column.name, place)
        return values

    def fit(self, values: np.ndarray) -> "TableTransform":
        """Return the transform with the means and scales of training rows.

        Args:
            values: training rows as ``to_values`` returns them, (N, D).

        Raises:
            ConfigError: the values are too large for their standard deviation.
        """
        fitted = {}
        for column, entries in zip(self.x_columns, values.T, strict=True):
            seen = entries[~np.isnan(entries)]
            if column.part == "real" and len(seen):
                with np.errstate(over="ignore"):
                    loc, scale = float(seen.mean()), float(seen.std())
                if not (math.isfinite(loc) and math.isfinite(scale)):
                    raise ConfigError(
                        f"column {column.name!r} has values up to {np.abs(seen).max():g}, which are too large: give "
                        f"them in another unit, or leave the column out with {type_option(column.name, 'id')}"
                    )
                # A constant column has no scale; its standard deviation may be a rounding error above 0.
                is_constant = scale <= 1e-12 * abs(loc)
                fitted[column.name] = replace(
                    column, loc=loc, scale=1.0 if is_constant else scale, decimals=count_decimals(seen)
                )
            elif column.part == "count" and len(seen):
                fitted[column.name] = replace(column, maximum=max(1.0, float(seen.max())))
        return TableTransform([fitted.get(column.name, column) for column in self.columns])

    def standardize(self, values: np.ndarray) -> Tensor:
        """Return x, (N, D), of values in the user's units."""
        x = torch.from_numpy((values - self.loc) / self.scale)
        if self.data_kind in ("count", "categorical"):
            return torch.where(x.isnan(), -1, x).long()
        return x.float()

    def transform(
        self, frame: "pandas.DataFrame", place: Callable[[int], str] | None = None, unseen: str = "error"
    ) -> Tensor:
        """Return x, (N, D), of a table; the arguments are those of ``to_values``."""
        return self.standardize(self.to_values(frame, place, unseen))

    def inverse(self, x: Tensor) -> "pandas.DataFrame":
        """Return the table of x (N, D) in the user's units, with categories as text and columns in the table's order.

        Real numbers have the decimal places of the training entries, or fewer if float32 cannot hold them.
        """
        import pandas

        values = x.double().cpu().numpy()
        if not x.is_floating_point():
            values = np.where(values < 0, math.nan, values)
        made = {}
        for i, column in enumerate(self.x_columns):
            entries, is_hole = values[:, i], np.isnan(values[:, i])
            if column.categories:
                codes = np.where(is_hole, -1, np.rint(entries).clip(0, len(column.categories) - 1)).astype(int)
                made[column.name] = pandas.Series(np.array([*column.categories, None], dtype=object)[codes])
            elif column.kind == "count":
                made[column.name] = pandas.Series(np.rint(entries)).astype("Int64")
            else:
                numbers = entries * column.scale + column.loc
                if column.kind == "date":
                    made[column.name] = pandas.Series(format_dates(numbers, column.has_time))
                else:
                    digits = math.ceil(-math.log10(column.scale * 2**-21))  # the rounding error is 2^-22 for |x| < 8
                    made[column.name] = pandas.Series(np.round(numbers, min(column.decimals, digits)))
        return pandas.DataFrame({c.name: made[c.name] for c in self.columns if c.part})


def count_decimals(values: np.ndarray) -> int:
    """Return the number of decimal places with which all values can be written; 99 if it is above 12.

    >>> count_decimals(np.array([0.5, 1.25, 3.0]))
    2
    """
    return next((digits for digits in range(13) if (np.round(values, digits) == values).all()), 99)


def format_dates(days: np.ndarray, has_time: bool) -> np.ndarray:
    """Return days since 1970 as ISO dates, to the day or the second; NaN becomes None."""
    steps = np.rint(days * (86_400 if has_time else 1))
    unit: Any = "s" if has_time else "D"
    dates = np.where(np.isnan(steps), 0, steps).astype(np.int64).astype(f"datetime64[{unit}]")
    return np.array(
        [None if hole else date for hole, date in zip(np.isnan(days), np.datetime_as_string(dates), strict=True)]
    )
