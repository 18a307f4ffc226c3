"""Read a table from a file of text (.csv, .tsv, .txt) or from a .parquet file, without silent guesses.

Text is read as text first. A column is then made numbers or dates only if each of its entries is one. Anything that can
be read in two ways is refused with a question.
"""

import csv
import gzip
import io
import math
import re
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaezoo.data.memory import available_memory, check_memory
from vaezoo.data.text_encoding import decode
from vaezoo.errors import ConfigError, count_noun

if TYPE_CHECKING:
    import pandas
    import pyarrow

MISSING = ("NA", "N/A", "NaN", "nan", "null", "NULL", "None", "-", "?")
SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
DECIMALS = {"point": ".", "comma": ","}
TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
BLOCK_SIZE = 2**30  # bytes that pyarrow reads at once; a row must fit into a block
MEMORY_PER_BYTE = 12  # bytes of memory that a table needs for each byte of text
MEMORY_PER_CELL = 24  # bytes of memory that a table needs for each cell of a .parquet file
NUM_SNIFFED = 100  # rows that the separator and the header are found by
GROUP_MARKS = " \u00a0\u202f'"  # separators of thousands in either convention


def number_pattern(mark: str, other: str) -> str:
    """Return the pattern of a number with this decimal mark, with or without separators of thousands."""
    groups = "|".join(rf"(?:{re.escape(g)}[0-9]{{3}})+" for g in (other, *GROUP_MARKS))
    digits = rf"(?:[0-9]+|[1-9][0-9]{{0,2}}(?:{groups}))"
    point = re.escape(mark)
    return rf"[+-]?(?:{digits}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"


# Patterns of entries, for Python and for pyarrow.
NUMBERS = {".": number_pattern(".", ","), ",": number_pattern(",", ".")}
ANY_NUMBER = re.compile("|".join(NUMBERS.values()))
ISO_DATE = (
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)


def date_pattern(mark: str) -> str:
    """Return the pattern of a date with this mark, such as 31.12.2024 or 12/31/2024 11:59 PM, maybe with a time."""
    minutes = r":[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?"
    time = rf"(?:(?:[01]?[0-9]|2[0-3]){minutes}|(?:0?[1-9]|1[0-2]){minutes} ?[AaPp][Mm])"
    number = rf"(?:0?[1-9]|1[0-2]|{ABOVE_12})"
    return rf"{number}{mark}{number}{mark}[12][0-9]{{3}}(?:,? {time})?"


ABOVE_12 = "(?:1[3-9]|2[0-9]|3[01])"  # a day that is not a month
DOT_DATE, SLASH_DATE = date_pattern(r"\."), date_pattern("/")
DATES = (ISO_DATE, DOT_DATE, SLASH_DATE)
DATE_PARTS = re.compile(r"([0-9]+)[./]([0-9]+)[./]([0-9]+)(?:,? ([0-9]+)(:[0-9:.]+) ?([AaPp]?)[Mm]?)?")
DATE_ORDERS = {"dayfirst": "day first", "monthfirst": "month first"}  # with their names for people
CODE = r"[+-]?0[0-9]+"  # a number with leading zeros, such as a post code, is text


class TableFile(NamedTuple):
    """A table that was read from a file or from memory.

    Args:
        frame: one row for each row of the table. A column is float64 (NaN is a missing entry), datetime64 (NaT),
            text, or an ordered category.
        found: how the file was read, as plain values: separator, header, decimal mark, new names of columns, the
            order of day and month of columns with dates that are not ISO dates, and the number of missing entries by
            their spelling.
        place: returns the place of a row, counted from 0, for messages: the name of the file and the line.
        undecided_dates: names of the columns of dates that can be read with the day first and with the month first.
            They are text in ``frame``.
    """

    frame: "pandas.DataFrame"
    found: dict[str, Any]
    place: Callable[[int], str]
    undecided_dates: tuple[str, ...] = ()


class TextColumn(NamedTuple):
    """A column of text, by its distinct entries.

    Args:
        codes: index of each row's entry, (N,); -1 is a missing entry.
        entries: the distinct entries, without spaces around them, an array of pyarrow.
    """

    codes: np.ndarray
    entries: "pyarrow.StringArray"

    def all_match(self, pattern: str) -> bool:
        """Return whether all entries match a pattern."""
        import pyarrow.compute as pc

        return bool(pc.all(pc.match_substring_regex(self.entries, f"^(?:{pattern})$"), min_count=0).as_py())

    def find(self, pattern: str) -> str | None:
        """Return the first entry in which a pattern occurs, if there is one."""
        import pyarrow.compute as pc

        place = pc.index(pc.match_substring_regex(self.entries, pattern), True).as_py()
        return None if place < 0 else self.entries[place].as_py()

    def first_row(self, entry: str) -> int:
        """Return the first row with this entry."""
        return int(np.flatnonzero(self.codes == self.entries.index(entry).as_py())[0])


def read_table(
    path: str | Path,
    separator: str | None = None,
    encoding: str = "utf-8",
    header: bool | None = None,
    decimal: str | None = None,
    missing: Sequence[str] = MISSING,
    dates: str | Mapping[str, str] | None = None,
) -> TableFile:
    """Read a table.

    Args:
        path: a file .csv, .tsv or .txt, or one of these compressed as .gz, or .parquet. The other arguments, apart from
            ``missing`` and ``dates``, are for files of text.
        separator: what separates the cells: ``comma``, ``semicolon``, ``tab``, ``bar``, or any other character. None:
            it is found by the first rows.
        encoding: the encoding of the text, such as ``cp1252``.
        header: whether the first row has the names of the columns. None: it is found by the first rows.
        decimal: the decimal mark of numbers, ``point`` or ``comma``. None: it is found by all numbers of the file.
        missing: entries that stand for a missing value, apart from the empty one. In a .parquet file they are for
            numbers and dates only: null is the missing value there.
        dates: the order of day and month in dates such as 01/02/2024, ``dayfirst`` or ``monthfirst``, for all columns
            or by the name of the column. None: each column decides itself; if it does not, it is read as text.

    Raises:
        ConfigError: the file cannot be read, is no table, or can be read in two ways.
    """
    path = Path(path)
    if decimal is not None and decimal not in DECIMALS:
        raise ConfigError(f"data.decimal={decimal} should be point, comma or null")
    suffix = Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if suffix not in (*TEXT_SUFFIXES, ".parquet"):
        raise ConfigError(
            f"data.path={path} is not a table that can be read: give a .csv, .tsv, .txt (also .gz) or .parquet file, "
            f"and save a spreadsheet as .csv first"
        )
    if path.is_dir() or not path.exists():
        raise ConfigError(f"data.path={path} {'is a folder' if path.is_dir() else 'does not exist'}: name a file")
    if suffix == ".parquet":
        return read_parquet(path, missing, dates)
    text = decode(path, read_bytes(path), encoding)
    if not text.strip():
        raise ConfigError(f"{path} is empty: give a file with a header and rows")
    return parse_text(path, text, separator, header, decimal, missing, dates)


# Text.


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed if its name ends with .gz.

    Raises:
        ConfigError: the file cannot be read, or the table does not fit into memory.
    """
    most = available_memory() // MEMORY_PER_BYTE
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            content: bytes = file.read(most + 1)  # a small file may hold a large compressed one
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read ({error}): check the file") from error
    if len(content) > most:
        raise ConfigError(
            f"{path} has more than {most / 1e9:,.2f} GB of text, too much for the available memory: use a part of it"
        )
    return content


def parse_text(
    path: Path,
    text: str,
    separator: str | None,
    header: bool | None,
    decimal: str | None,
    missing: Sequence[str],
    dates: str | Mapping[str, str] | None,
) -> TableFile:
    """Make a table of text. The arguments are those of ``read_table``."""
    import pandas

    separator = find_separator(text) if separator is None else SEPARATORS.get(separator, separator)
    if len(separator.encode()) != 1 or separator in '\r\n"':
        raise ConfigError(f"data.separator={separator} should be comma, semicolon, tab, bar or one other character")
    first_rows = [row for _line, row in text_rows(text, separator, NUM_SNIFFED)]
    if header is None:
        header = find_header(path, first_rows, missing)
    names, renamed = find_names(first_rows[0] if header else [""] * len(first_rows[0]))
    columns = split_cells(path, text, separator, len(names), header)
    if columns.num_rows == 0:
        raise ConfigError(f"{path} has a header but no rows: add rows, or use data.header=false if line 1 is a row")

    def place(row: int) -> str:
        return f"{path} line {line_of_row(text, separator, row + header, len(names))}"

    counts: Counter[str] = Counter()
    texts = {}
    for name, column in zip(names, columns.columns, strict=True):
        texts[name] = to_text_column(column.chunk(0), {"", *missing}, counts)
    mark = find_decimal(path, texts, separator, place) if decimal is None else DECIMALS[decimal]
    orders, undecided = find_date_orders(texts, dates)
    found = {
        "file": str(path),
        "separator": next((word for word, mark in SEPARATORS.items() if mark == separator), separator),
        "header": "the first row" if header else "none",
        "decimal": next(word for word, other in DECIMALS.items() if other == mark),
        "renamed_columns": renamed if header else {},
        "dates": orders,
        "missing_entries": dict(counts),
    }
    frame = pandas.DataFrame({n: to_values(t, n, mark, orders.get(n), place) for n, t in texts.items()}, copy=False)
    return TableFile(frame, found, place, undecided)


@contextmanager
def cells_of_any_length() -> Iterator[None]:
    """Let Python's csv module read cells that are longer than its limit."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def text_rows(
    text: str, separator: str, num: int | None = None, blank: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """Iterate over the line number and the cells of the first ``num`` rows.

    Args:
        text: the text of the file.
        separator: the character between two cells.
        num: number of rows; None: all.
        blank: whether a blank line is a row.
    """
    with cells_of_any_length():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        line = 1
        for row in reader:
            if row or blank:
                yield line, row or [""]
                num = None if num is None else num - 1
                if num == 0:
                    return
            line = reader.line_num + 1


def line_of_row(text: str, separator: str, row: int, num_cells: int) -> int:
    """Return the line in which a row begins; rows are counted from 0, the header is one.

    A blank line is a row, a missing entry, only in a table of one column.
    """
    rows = text_rows(text, separator, blank=num_cells == 1)
    return next(line for i, (line, _) in enumerate(rows) if i == row)


def find_separator(text: str) -> str:
    """Return the separator with which the first rows have equally many cells.

    A comma comes last, since it may also be a decimal mark: ``1,5;2,5`` has equally many cells with both. If there is
    no such separator, some rows have too many or too few cells, and the one that suits most rows is returned.
    """
    agreement = {}
    for separator in ("\t", ";", "|", ","):
        sizes = Counter(len(row) for _line, row in text_rows(text, separator, NUM_SNIFFED))
        size, count = max(sizes.items(), key=lambda item: (item[1], item[0]))
        agreement[separator] = 0 if size == 1 else count / sizes.total()
        if size > 1 and len(sizes) == 1:
            return separator
    best = max(agreement, key=lambda separator: agreement[separator])
    return best if agreement[best] else ","


def split_cells(path: Path, text: str, separator: str, num_cells: int, header: bool) -> "pyarrow.Table":
    """Split text into cells: a table of dictionary-encoded text columns, without the header.

    Raises:
        ConfigError: a row has too many or too few cells, or a quote is not closed.
    """
    import pyarrow
    from pyarrow import csv as arrow_csv

    invalid = []

    def on_invalid(row: Any) -> str:
        invalid.append(row)
        return "error"

    names = [str(i) for i in range(num_cells)]
    # Blank lines at the end are no rows.
    content = text.encode().rstrip(b"\r\n") + b"\n"
    try:
        table = arrow_csv.read_csv(
            pyarrow.BufferReader(content),
            # Invalid rows are numbered in one thread only.
            arrow_csv.ReadOptions(
                column_names=names,
                skip_rows_after_names=int(header),
                use_threads=False,
                block_size=min(len(content) + 1, BLOCK_SIZE),
            ),
            arrow_csv.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                ignore_empty_lines=num_cells > 1,
                invalid_row_handler=on_invalid,
            ),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
                strings_can_be_null=False,
            ),
        )
    except pyarrow.ArrowInvalid as error:
        if not invalid:
            raise ConfigError(f"{path} cannot be read as a table ({error}): check data.separator") from error
        row = invalid[0]
        line = line_of_row(text, separator, row.number - 1, num_cells)
        if row.text.count('"') % 2 and "\n" in row.text:
            raise ConfigError(f"{path} line {line} opens a quote that is never closed: correct the line") from error
        word = next((word for word, mark in SEPARATORS.items() if mark == separator), separator)
        raise ConfigError(
            f"{path} line {line} has {count_noun(row.actual_columns, 'cell')}, but line 1 has {num_cells} "
            f"(data.separator={word}): correct the line, or name another separator "
            f"({', '.join(SEPARATORS)}) or data.decimal"
        ) from error
    return table.unify_dictionaries().combine_chunks()


def find_header(path: Path, rows: list[list[str]], missing: Sequence[str]) -> bool:
    """Return whether the first row is a header.

    It is one if it has text above a column of numbers. It is none if it has numbers there, and if each cell above a
    column of text occurs again in this column. If all columns are text, it is one if its cells are all different and
    none of them occurs again in its column.

    Raises:
        ConfigError: the first row may be both, such as ``country,1990,1991``.
    """
    holes = {"", *missing}

    def is_number(cell: str) -> bool:
        return ANY_NUMBER.fullmatch(cell) is not None

    first, votes = [cell.strip() for cell in rows[0]], set()
    columns = [[row[i].strip() for row in rows[1:] if i < len(row)] for i in range(len(first))]
    for cell, column in zip(first, columns, strict=True):
        entries = [entry for entry in column if entry not in holes]
        if entries and cell and all(map(is_number, entries)) and (cell not in holes or not is_number(cell)):
            votes.add(not is_number(cell))
    may_be_names = [  # above text, and different from it
        cell not in column and not (column and all(map(is_number, column)))
        for cell, column in zip(first, columns, strict=True)
        if cell
    ]
    if votes == {True, False} or (votes == {False} and any(may_be_names)):
        raise ConfigError(
            f"{path} line 1 may be a header or a row, since it has numbers above numbers and text that may be names: "
            f"use data.header=true or data.header=false"
        )
    if votes:
        return votes == {True}
    names = [cell for cell in first if cell]
    return len(set(names)) == len(names) and all(may_be_names)


def find_names(cells: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Return names of columns, all different, and those that were changed: the new name -> the name in the file."""
    names: dict[str, None] = {}  # a set in order
    renamed = {}
    used = {cell.strip() for cell in cells}
    for i, cell in enumerate(cells):
        name = base = cell.strip() or f"column_{i + 1}"
        number = 2
        while name in names or (name != cell.strip() and name in used):
            name, number = f"{base}_{number}", number + 1
        names[name] = None
        if name != cell.strip():
            renamed[name] = cell.strip()
    return list(names), renamed


def to_text_column(column: Any, holes: set[str], counts: Counter[str]) -> TextColumn:
    """Return a column with missing entries.

    Args:
        column: a dictionary-encoded column of pyarrow.
        holes: entries that stand for a missing value.
        counts: number of missing entries by their spelling, to be added to.
    """
    import pyarrow
    import pyarrow.compute as pc

    codes, trimmed = column.indices.to_numpy(), pc.utf8_trim_whitespace(column.dictionary)
    is_hole = pc.is_in(trimmed, pyarrow.array(sorted(holes)))
    distinct = pc.dictionary_encode(pc.if_else(is_hole, None, trimmed))
    for i in np.flatnonzero(is_hole.to_numpy(zero_copy_only=False)).tolist():
        counts[trimmed[i].as_py() or "empty"] += int((codes == i).sum())
    return TextColumn(distinct.indices.fill_null(-1).to_numpy()[codes], distinct.dictionary)


def find_decimal(path: Path, columns: dict[str, TextColumn], separator: str, place: Callable[[int], str]) -> str:
    """Return the decimal mark of a file: the one with which all its columns of numbers are numbers.

    Raises:
        ConfigError: numbers such as ``1,234`` may be read in two ways and no other column decides, or columns disagree.
    """
    only: dict[str, str] = {}  # decimal mark -> a column of numbers with this mark only
    ambiguous: tuple[str, str] | None = None  # a column and an entry
    for name, column in columns.items():
        entry = column.find(",") or column.find(r"\.")
        marks = [mark for mark, pattern in NUMBERS.items() if entry and column.all_match(pattern)]
        if not marks or column.find(f"^{CODE}$"):
            continue
        if len(marks) == 1:
            only.setdefault(marks[0], name)
        # 1.234 is read as usual, unless the file comes from a country where the comma is the decimal mark.
        elif entry and (separator == ";" or "," in entry):
            ambiguous = ambiguous or (name, entry)
    if len(only) == 2:
        raise ConfigError(
            f"{path} has numbers with a decimal point in column {only['.']!r} and with a "
            f"decimal comma in column {only[',']!r}: use data.decimal=point or data.decimal=comma, "
            f"the other column is then text"
        )
    if only:
        return next(iter(only))
    if ambiguous:
        name, entry = ambiguous
        thousands, fraction = entry.replace(",", "").replace(".", ""), entry.replace(",", ".")
        readings = {"comma": fraction, "point": thousands} if "," in entry else {"comma": thousands, "point": fraction}
        raise ConfigError(
            f"{place(columns[name].first_row(entry))}: {entry!r} in column {name!r} is {readings['point']} with "
            f"data.decimal=point and {readings['comma']} with data.decimal=comma: choose one"
        )
    return "."


def find_date_orders(
    columns: Mapping[str, TextColumn], dates: str | Mapping[str, str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the order of day and month of each column that has one, and the columns that can be read in both orders.

    Args:
        columns: the columns by their names.
        dates: the order that the user asks for, as in ``read_table``.

    Raises:
        ConfigError: the order that is asked for does not exist.
    """
    for order in dates.values() if isinstance(dates, Mapping) else [dates]:
        if order not in (None, *DATE_ORDERS):
            raise ConfigError(f"data.dates={order} should be dayfirst, monthfirst or null")
    asked = dates if isinstance(dates, Mapping) else dict.fromkeys(columns, dates)
    orders = {n: order for n, column in columns.items() if (order := find_date_order(column, asked.get(n)))}
    undecided = (n for n, t in columns.items() if n not in orders and len(t.entries) and t.all_match(SLASH_DATE))
    return orders, tuple(undecided)


def find_date_order(column: TextColumn, asked: str | None = None) -> str | None:
    """Return the order of day and month, ``dayfirst`` or ``monthfirst``, in a column of dates with dots or slashes.

    With dots the day is always first, as in 31.12.2024. With slashes, a number above 12 is the day. None: the column is
    not of such dates, or they can be read in both orders.

    Args:
        column: the column.
        asked: the order that the user asks for. It is for slashes only.
    """
    if not len(column.entries):
        return None
    if column.all_match(DOT_DATE):
        return "dayfirst"
    if not column.all_match(SLASH_DATE):
        return None
    by_entries = "dayfirst" if column.find(f"^{ABOVE_12}/") else "monthfirst" if column.find(f"/{ABOVE_12}/") else None
    return asked or by_entries


def to_iso_date(entry: str, order: str) -> str:
    """Return a date with dots or slashes as an ISO date.

    >>> to_iso_date("1.2.2024 9:05", "dayfirst"), to_iso_date("1/2/2024 12:30 am", "monthfirst")
    ('2024-02-01T09:05', '2024-01-02T00:30')
    """
    match = DATE_PARTS.fullmatch(entry)
    assert match is not None
    first, second, year, hour, minutes, half = match.groups()
    day, month = (first, second) if order == "dayfirst" else (second, first)
    if half:
        hour = str(int(hour) % 12 + 12 * (half in "Pp"))
    return f"{year}-{month:0>2}-{day:0>2}" + (f"T{hour:0>2}{minutes}" if hour else "")


def to_values(column: TextColumn, name: str, mark: str, order: str | None, place: Callable[[int], str]) -> np.ndarray:
    """Return a column as numbers or dates if each entry is one, otherwise as text.

    Args:
        column: the column.
        name: its name, for messages.
        mark: the decimal mark.
        order: the order of day and month (``find_date_order``). None: dates are ISO dates.
        place: returns the place of a row.

    Raises:
        ConfigError: a number is too large, or all entries look like dates, but one is none.
    """
    if column.all_match(NUMBERS[mark]) and not column.find(f"^{CODE}$"):
        codes, entries = column.codes, column.entries.to_pylist()
        if mark == "," or column.find(f"[,{GROUP_MARKS}]"):
            remove = str.maketrans("", "", GROUP_MARKS + (",." if mark == "." else ".,")[0])
            entries = [entry.translate(remove).replace(mark, ".") for entry in entries]
        numbers = np.array([*map(float, entries), math.nan])
        if np.isinf(numbers).any():
            entry = column.entries[int(np.isinf(numbers).argmax())].as_py()
            raise ConfigError(
                f"{place(column.first_row(entry))}: {entry!r} in column {name!r} is too large for a number: correct "
                f"it, or add it to data.missing"
            )
        return numbers[codes]
    return to_dates_or_text(column, name, order, place)


def to_dates_or_text(column: TextColumn, name: str, order: str | None, place: Callable[[int], str]) -> np.ndarray:
    """Return a column as dates if each entry is one, otherwise as text. The arguments are those of ``to_values``.

    Raises:
        ConfigError: all entries look like dates, but one is none.
    """
    import pandas

    codes, entries = column.codes, column.entries.to_pylist()
    if order or column.all_match(ISO_DATE):
        iso = [to_iso_date(entry, order) for entry in entries] if order else entries
        dates = pandas.to_datetime(pandas.Series(iso), format="ISO8601", utc=True, errors="coerce")
        if dates.isna().any():
            entry = entries[int(dates.isna().argmax())]
            read = f" with the {DATE_ORDERS[order]}" if order else ""
            raise ConfigError(
                f"{place(column.first_row(entry))}: {entry!r} in column {name!r} is not a date{read}: correct it, or "
                f"add it to data.missing"
            )
        return np.append(dates.dt.tz_localize(None).to_numpy().astype("datetime64[us]"), np.datetime64("NaT", "us"))[
            codes
        ]
    return np.array([*entries, None], dtype=object)[codes]


# Parquet, and tables in memory.


def read_parquet(path: Path, missing: Sequence[str], dates: str | Mapping[str, str] | None) -> TableFile:
    """Read a .parquet file. The index of a pandas table is a column, too. The arguments are those of ``read_table``."""
    import pyarrow
    from pyarrow import parquet

    def place(row: int) -> str:
        return f"{path} row {row + 1}"

    try:
        with parquet.ParquetFile(path) as file:
            size = MEMORY_PER_CELL * file.metadata.num_rows * file.metadata.num_columns
            check_memory(str(path), size, "use a part of the rows or of the columns")
            table = file.read()
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{path} is not a parquet file that can be read ({error}): check the file") from error
    types = pyarrow.types
    for field in table.schema:
        kind = field.type.value_type if types.is_dictionary(field.type) else field.type
        plain = (types.is_boolean, types.is_integer, types.is_floating, types.is_decimal, types.is_timestamp)
        texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_date, types.is_null)
        if not any(test(kind) for test in plain + texts):
            raise ConfigError(f"{path}: column {field.name!r} holds {field.type}: give numbers, text or dates only")
    if table.num_rows == 0 or table.num_columns == 0:
        raise ConfigError(f"{path} has {table.num_rows} rows and {table.num_columns} columns: give at least one")
    names, renamed = find_names(table.column_names)
    frame = table.rename_columns(names).to_pandas(ignore_metadata=True, date_as_object=False)
    found = {"file": str(path), "renamed_columns": renamed}
    file = read_frame(frame, missing, dates, place)
    return file._replace(found=found | file.found)


def row_place(row: int) -> str:
    """Return the place of a row of a table in memory."""
    return f"row {row + 1}"


def read_frame(
    frame: "pandas.DataFrame",
    missing: Sequence[str] = MISSING,
    dates: str | Mapping[str, str] | None = None,
    place: Callable[[int], str] = row_place,
) -> TableFile:
    """Read a table in memory: text becomes dates as it does in a file of text.

    Args:
        frame: any table of pandas.
        missing: entries that stand for a missing value in columns of numbers and of dates.
        dates: the order of day and month in dates such as 01/02/2024, as in ``read_table``.
        place: returns the place of a row for messages.

    Raises:
        ConfigError: a column holds other objects or infinity, or all its entries look like dates, but one is none.
    """
    typed = to_typed_frame(frame, missing, place)
    texts = {}
    for name, column in typed.items():
        if column.dtype in (object, "str"):
            text = dictionary_column(column, missing)
            if len(text.entries) and any(map(text.all_match, DATES)):
                texts[str(name)] = text
    orders, undecided = find_date_orders(texts, dates)
    for name, text in texts.items():
        typed[name] = to_dates_or_text(text, name, orders.get(name), place)
    return TableFile(typed, {"dates": orders}, place, undecided)


def dictionary_column(column: "pandas.Series", missing: Sequence[str]) -> TextColumn:
    """Return a column of text in memory by its distinct entries; the empty one and those of ``missing`` are missing."""
    import pandas
    import pyarrow

    codes, entries = pandas.factorize(column.fillna("").to_numpy(object))
    encoded = pyarrow.DictionaryArray.from_arrays(codes, pyarrow.array(entries, pyarrow.string()))
    return to_text_column(encoded, {"", *missing}, Counter())


def to_typed_frame(
    frame: "pandas.DataFrame", missing: Sequence[str], place: Callable[[int], str] = row_place
) -> "pandas.DataFrame":
    """Return a table in memory with the four types of columns of ``TableFile``; text is not read as dates.

    Args:
        frame: any table of pandas.
        missing: numbers among these entries stand for a missing value.
        place: returns the place of a row for messages.

    Raises:
        ConfigError: a column holds other objects, or infinity.
    """
    import pandas
    from pandas.api import types

    if not frame.columns.is_unique:
        name = frame.columns[frame.columns.duplicated()][0]
        raise ConfigError(f"two columns have the name {name!r}: rename one of them")
    holes = [float(entry) for entry in missing if re.fullmatch(NUMBERS["."], entry)]
    columns: dict[str, Any] = {}
    for name, column in frame.items():
        column = column.reset_index(drop=True)
        if isinstance(column.dtype, pandas.CategoricalDtype):
            column = column.cat.rename_categories([format_value(level) for level in column.cat.categories])
            columns[str(name)] = column if column.cat.ordered else to_object(column)
        elif types.is_datetime64_any_dtype(column.dtype):
            utc = column.dt.tz_convert("UTC").dt.tz_localize(None) if column.dt.tz is not None else column
            columns[str(name)] = utc.to_numpy().astype("datetime64[us]")
        elif types.is_bool_dtype(column.dtype):
            columns[str(name)] = to_object(column)
        elif types.is_numeric_dtype(column.dtype):
            values = column.to_numpy(dtype=np.float64, na_value=math.nan)
            if np.isinf(values).any():
                row = int(np.isinf(values).argmax())
                raise ConfigError(f"{place(row)}: column {name!r} holds infinity: correct it, or make it missing")
            columns[str(name)] = np.where(np.isin(values, holes), math.nan, values)
        else:
            values = column.to_numpy(dtype=object)
            is_hole = column.isna().to_numpy()
            kinds = {type(value).__name__ for value in values[~is_hole]}
            if kinds and kinds <= {"int", "float", "Decimal"}:
                columns[str(name)] = np.where(is_hole, math.nan, values).astype(np.float64)
            elif kinds <= {"str", "bool"}:
                columns[str(name)] = to_object(column)
            else:
                raise ConfigError(f"column {name!r} holds {', '.join(sorted(kinds))}: give numbers, text or dates only")
    return pandas.DataFrame(columns, copy=False)


def to_object(column: "pandas.Series") -> np.ndarray:
    """Return a column as text, with None for a missing entry."""
    return np.array([None if hole else format_value(v) for v, hole in zip(column, column.isna(), strict=True)], object)


def format_value(value: Any) -> str:
    """Return a value as the name of a category; whole numbers have no decimal point, dates are ISO dates.

    >>> format_value(3.0), format_value(0.5), format_value(" blue"), format_value(np.datetime64("2024-12-31T00:00"))
    ('3', '0.5', 'blue', '2024-12-31')
    """
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime):
        return value.isoformat().removesuffix("T00:00:00")
    if isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value).strip()
