"""Tests of reading tables: separators, decimal marks, missing entries, kinds of columns, and the way to x and back."""

import gzip
import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from vaezoo.data.columns import TableTransform, find_columns, row_digests
from vaezoo.data.table_files import find_names, read_table, to_typed_frame
from vaezoo.errors import ConfigError


@pytest.fixture
def read(tmp_path):
    """Write a file and read it as a table."""

    def read(content, name="people.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, **options)

    return read


def days(text):
    """A date as it is in the table."""
    return pd.Timestamp(text)


def columns_of(file):
    """The entries of a table, with None for a missing one."""
    frame = file.frame.astype(object)
    return frame.where(frame.notna(), None).to_dict("list")


# A table as a spreadsheet of a country with decimal commas saves it: names with the separator, quotes and empty cells.
SPREADSHEET = '''\
Name;Age;Income;Joined;"Town; district"\r
Anna;31;1.234,50;2021-03-01;"Basel; ""Old town"""\r
Bert;;2.000,00;2020-12-24;Bern\r
"Carl, jr";40;;;"Basel; ""Old town"""\r
Dora;28;12.345.678,25;2019-07-07;Bern\r
'''


def test_table_of_a_spreadsheet(read):
    file = read(SPREADSHEET)
    assert columns_of(file) == {
        "Name": ["Anna", "Bert", "Carl, jr", "Dora"],
        "Age": [31, None, 40, 28],
        "Income": [1234.5, 2000, None, 12345678.25],
        "Joined": [pd.Timestamp("2021-03-01"), pd.Timestamp("2020-12-24"), None, pd.Timestamp("2019-07-07")],
        "Town; district": ['Basel; "Old town"', "Bern", 'Basel; "Old town"', "Bern"],
    }
    assert file.found["separator"] == "semicolon"
    assert file.found["decimal"] == "comma"
    assert file.found["missing_entries"] == {"empty": 3}


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        ("a,b\n1,2\n", {}, {"a": [1], "b": [2]}),
        ("a\tb c\n1\t2\n", {}, {"a": [1], "b c": [2]}),
        ("a|b\n1|2\n", {}, {"a": [1], "b": [2]}),
        ("a b\n1 2\n", {"separator": " "}, {"a": [1], "b": [2]}),
        ("a,b\r1,2\r", {}, {"a": [1], "b": [2]}),
        ("\ufeffa,b\n1,2\n", {}, {"a": [1], "b": [2]}),
        ("a,b\n\n1,2\n\n", {}, {"a": [1], "b": [2]}),
        ("x\n1\n\n3\n\n", {}, {"x": [1, None, 3]}),  # the blank line within is a missing entry
        ('a,b\n"x\ny",2\n', {}, {"a": ["x\ny"], "b": [2]}),
        ('a,b\n5" pipe,2\n', {}, {"a": ['5" pipe'], "b": [2]}),
        ("M\u00fcller,b\n1,2\n".encode("cp1252"), {"encoding": "cp1252"}, {"M\u00fcller": [1], "b": [2]}),
        ("a,b\n1,2\n".encode("utf-16"), {"encoding": "utf-16"}, {"a": [1], "b": [2]}),
        ("1,2\n3,4\n", {}, {"column_1": [1, 3], "column_2": [2, 4]}),
        ("red,1\nred,2\n", {}, {"column_1": ["red", "red"], "column_2": [1, 2]}),
        ("1,2\n3,4\n", {"header": True}, {"1": [3], "2": [4]}),
        ("country,1990\nItaly,5.5\n", {"header": True}, {"country": ["Italy"], "1990": [5.5]}),
        ("a,a,,a_2\n1,2,3,4\n", {}, {"a": [1], "a_3": [2], "column_3": [3], "a_2": [4]}),
        (
            "a,b,c\nNA,N/A,NaN\nnan,null,NULL\nNone,-,?\n , \t,\n1,-1,x\n",
            {},
            {"a": [None] * 4 + [1], "b": [None] * 4 + [-1], "c": [None] * 4 + ["x"]},
        ),
        ("a,b\n-999,none\n1,Na\n", {}, {"a": [-999, 1], "b": ["none", "Na"]}),  # no missing entry without being asked
        ("a,b\n-999,x\n1,none\n", {"missing": ["-999", "none"]}, {"a": [None, 1], "b": ["x", None]}),
        ("a;b\n1,5;2\n", {}, {"a": [1.5], "b": [2]}),
        ("a;b\n1.5;2\n", {}, {"a": [1.5], "b": [2]}),
        ("a;b\n0.123;1.234\n", {}, {"a": [0.123], "b": [1.234]}),  # the first column decides for the second
        ("a;b\n0,123;1.234\n", {}, {"a": [0.123], "b": [1234]}),
        ('a,b\n"1,234",0.5\n"12,345,678.5",1\n', {}, {"a": [1234, 12345678.5], "b": [0.5, 1]}),
        ("a;b\n1 234,5;1\u00a0000\n", {}, {"a": [1234.5], "b": [1000]}),
        ("a;b\n1,234;2\n", {"decimal": "point"}, {"a": [1234], "b": [2]}),
        ("a;b\n1,234;2\n", {"decimal": "comma"}, {"a": [1.234], "b": [2]}),
        ("a,b\n1.234,2\n", {}, {"a": [1.234], "b": [2]}),
        ("a,b\n1e-3,+.5\n-2E5,7.\n", {}, {"a": [0.001, -2e5], "b": [0.5, 7]}),
        ("zip,v\n01234,1\n12345,2\n", {}, {"zip": ["01234", "12345"], "v": [1, 2]}),
        ("d,v\n31.1.2024,1\n1.2.2024,2\n", {}, {"d": [days("2024-01-31"), days("2024-02-01")], "v": [1, 2]}),
        (
            "d\n5.1.2024 9:05\n\n1.2.2024 23:59:30\n",
            {},
            {"d": [days("2024-01-05T09:05"), None, days("2024-02-01T23:59:30")]},
        ),
        ("d\n13/01/2024\n1/2/2024\n", {}, {"d": [days("2024-01-13"), days("2024-02-01")]}),
        ("d\n2/1/2024\n1/13/2024\n", {}, {"d": [days("2024-02-01"), days("2024-01-13")]}),
        (
            'd\n"12/31/2023, 12:00 AM"\n1/2/2024 1:30:05 pm\n',
            {},
            {"d": [days("2023-12-31"), days("2024-01-02T13:30:05")]},
        ),
        (
            "d,e\n1/2/2024,1/2/2024\n3/4/2024,3/4/2024\n",
            {"dates": {"e": "monthfirst"}},
            {
                "d": ["1/2/2024", "3/4/2024"],
                "e": [days("2024-01-02"), days("2024-03-04")],
            },
        ),
        ("d\n1/2/2024\n", {"dates": "dayfirst"}, {"d": [days("2024-02-01")]}),
        ("d\n1.2.2024\n", {"dates": "monthfirst"}, {"d": [days("2024-02-01")]}),  # dots: the day is first
        (
            "d,e\n31.1.2024,45.12.2000\n2024-02-01,1.1.2000\n",
            {},
            {  # two forms; no date
                "d": ["31.1.2024", "2024-02-01"],
                "e": ["45.12.2000", "1.1.2000"],
            },
        ),
        ("v,w\n1_000,inf\n2,3\n", {}, {"v": ["1_000", "2"], "w": ["inf", "3"]}),  # numbers for Python only
    ],
)
def test_text_is_read(read, content, options, expected):
    assert columns_of(read(content, **options)) == expected


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("", {}, "people.csv is empty"),
        ("a,b\n", {}, "people.csv has a header but no rows"),
        ("a,b\n1,2\n1,2,3\n", {}, "people.csv line 3 has 3 cells, but line 1 has 2 (data.separator=comma): correct"),
        ('a,b\n"1\n",2\n\n3\n', {}, "people.csv line 5 has 1 cell, but line 1 has 2"),
        ('a,b\n1,2\n"x,3\n4,5\n', {}, "people.csv line 3 opens a quote that is never closed"),
        ("x\n1,5\n2,5\n", {}, "people.csv line 2 has 2 cells, but line 1 has 1"),
        ("a;b\n5;1\n1,234;x\n", {}, "line 3: '1,234' in column 'a' is 1234 with data.decimal=point and 1.234 with"),
        ("a;b\n1.234;x\n", {}, "line 2: '1.234' in column 'a' is 1.234 with data.decimal=point and 1234 with"),
        ("a;b\n1,5;2.5\n", {}, "with a decimal point in column 'b' and with a decimal comma in column 'a'"),
        ("country,1990\nItaly,5\n", {}, "line 1 may be a header or a row"),
        ("d,v\n2024-01-31,1\n2024-02-30,2\n", {}, "line 3: '2024-02-30' in column 'd' is not a date"),
        (
            "d\n31.1.2024\n30.2.2024\n",
            {},
            "line 3: '30.2.2024' in column 'd' is not a date with the day first: correct it",
        ),
        ("d\n1/13/2024\n13/1/2024\n", {}, "line 2: '1/13/2024' in column 'd' is not a date with the day first"),
        (
            "d\n1/2/2024\n13/1/2024\n",
            {"dates": "monthfirst"},
            "line 3: '13/1/2024' in column 'd' is not a date with the month",
        ),
        ("d\n1/2/2024\n", {"dates": "usa"}, "data.dates=usa should be dayfirst, monthfirst or null"),
        (b"a\nx\nM\xfcller\n", {}, "line 3 has the byte 0xfc, which is not utf-8: name the encoding"),
        ("a\n1\n".encode("utf-16"), {}, "is UTF-16, not UTF-8: use data.encoding=utf-16"),
        ("a\nx\0\n", {}, "line 2 has a zero byte"),
        ("a,b\n1,2\n3,1e999\n", {}, "line 3: '1e999' in column 'b' is too large for a number"),
        ("a\n1\n", {"encoding": "klingon"}, "data.encoding=klingon is unknown"),
        ("a,b\n1,2\n", {"separator": "::"}, "data.separator=:: should be comma, semicolon, tab, bar or one other"),
        ("a,b\n1,2\n", {"decimal": ","}, "data.decimal=, should be point, comma or null"),
    ],
)
def test_text_is_refused(read, content, options, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(content, **options)


def test_files_that_are_no_tables_are_refused(read, tmp_path):
    for name, content, words in [
        ("a.xlsx", b"PK", "save a spreadsheet as .csv first"),
        ("a.csv.gz", b"no gzip", "cannot be read"),
        ("a.csv.gz", gzip.compress(b"a\n1\n")[:-9], "cannot be read"),
        ("a.parquet", b"PAR1", "is not a parquet file that can be read"),
    ]:
        with pytest.raises(ConfigError, match=words):
            read(content, name)
    with pytest.raises(ConfigError, match="does not exist"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match="is a folder"):
        read_table(tmp_path / "folder.csv")


def test_compressed_text_is_read(read):
    assert columns_of(read(gzip.compress(b"a\tb\n1\t2\n"), "a.tsv.gz")) == {"a": [1], "b": [2]}


def test_many_columns_and_long_cells(read):
    names = ",".join(f"c{i}" for i in range(10_000))
    row = ",".join(f"{i}.5" for i in range(10_000))
    frame = read(f"{names}\n{row}\n{row}\n").frame
    assert frame.shape == (2, 10_000)
    assert frame["c9999"].tolist() == [9999.5] * 2
    with pytest.raises(ConfigError, match="line 3 has 9,999 cells, but line 1 has 10000"):
        read(f"{names}\n{row}\n{row.removesuffix(',9999.5')}\n")
    assert len(read(f"a,b\n{'x' * 1_000_000},1\n").frame["a"][0]) == 1_000_000


def test_a_file_of_several_blocks_is_one_table(read, monkeypatch):
    monkeypatch.setattr("vaezoo.data.table_files.BLOCK_SIZE", 60)
    rows = [(i % 7, f"town {i % 5}") for i in range(100)]
    content = "n,town\n" + "".join(f"{n},{town}\n" for n, town in rows)
    assert columns_of(read(content)) == {"n": [n for n, _ in rows], "town": [town for _, town in rows]}
    with pytest.raises(ConfigError, match="line 102 has 3 cells"):
        read(content + "1,2,3\n")


def test_two_columns_of_one_name_in_memory_are_refused():
    with pytest.raises(ConfigError, match="two columns have the name 'a': rename one of them"):
        to_typed_frame(pd.DataFrame([[1, 2]], columns=["a", "a"]), [])


def test_names_of_columns_are_different():
    assert find_names(["a", "a", "", "column_3", "a"]) == (
        ["a", "a_2", "column_3_2", "column_3", "a_3"],
        {"a_2": "a", "column_3_2": "", "a_3": "a"},
    )


DAYS = ["2024-01-01", None, "2024-01-03", "2024-01-04"]


def test_parquet(tmp_path):
    """Nulls are missing entries, ordered categories keep their order, and dates are dates."""
    size = pd.Categorical(["S", "L", None, "M"], categories=["S", "M", "L"], ordered=True)
    frame = pd.DataFrame(
        {
            "size": size,
            "color": pd.Categorical(["red", "blue", "red", None]),
            "n": pd.array([1, None, 3, 2**40], dtype="Int64"),
            "x": [0.5, math.nan, -999, 2.5],
            "ok": [True, False, True, True],
            "day": pd.to_datetime(DAYS).tz_localize("CET"),
            "empty": [None] * 4,
        },
        index=[3, 5, 7, 9],
    )
    frame.to_parquet(tmp_path / "a.parquet")
    file = read_table(tmp_path / "a.parquet", missing=["NA", "-999"])
    days = [None if day is pd.NaT else day - pd.Timedelta(hours=1) for day in map(pd.Timestamp, DAYS)]
    assert columns_of(file) == {
        "size": ["S", "L", None, "M"],
        "color": ["red", "blue", "red", None],
        "n": [1, None, 3, 2**40],
        "x": [0.5, None, None, 2.5],
        "ok": ["True", "False", "True", "True"],
        "day": days,
        "empty": [None] * 4,
        "__index_level_0__": [3, 5, 7, 9],
    }  # fmt: skip
    assert file.frame["size"].cat.categories.tolist() == ["S", "M", "L"]
    for bad, words in [({"a": [[1], [2]]}, "holds list"), ({"a": [b"x"]}, "holds binary"), ({"a": [math.inf]}, "inf")]:
        pd.DataFrame(bad).to_parquet(tmp_path / "bad.parquet")
        with pytest.raises(ConfigError, match=f"bad.parquet.*'a' holds|{words}"):
            read_table(tmp_path / "bad.parquet")


# Kinds.


@pytest.mark.parametrize(
    ("entries", "kind"),
    [
        ([math.nan] * 20, "empty"),
        ([5.0, math.nan] * 10, "constant"),
        (["x"] * 20, "constant"),
        (pd.date_range("2024-01-01", periods=20).tolist(), "date"),
        ([f"person {i}" for i in range(20)], "id"),
        (["a", "b", "c", None] * 5, "categorical"),
        ([f"category {i:012}" for i in range(21)] * 2, "id"),  # 21 values of 21 characters are free text
        ([f"category {i:012}" for i in range(20)] * 2, "categorical"),
        ([f"category {i:011}" for i in range(21)] * 2, "categorical"),
        ([1.0, 2.0] * 10, "categorical"),
        ([0.5, 2.5] * 10, "categorical"),
        ([1.0, 2.0, 3.0, math.nan] * 5, "categorical"),
        ([-1.0, 0.0, 1.0, 2.0] * 5, "categorical"),
        ([0.5, 1.5, 2.5] * 7, "real"),
        (np.random.default_rng(0).normal(size=20), "real"),  # all different, and no id
        ([*range(11)] * 2, "count"),
        ([3, 1, 4, 15, 9, 2, 6, 53, 5, 8, 97, 93, 23, 84, 62, 64, 33, 83, 27, 95], "count"),
        ([*range(1000, 1020)], "id"),  # they increase
        ([*range(-10, 10)] * 2, "real"),
        ([2**24 + 1, *range(11)] * 2, "real"),
        ([2**24, *range(11)] * 2, "count"),
        (pd.Categorical(["low", "high"] * 10, categories=["low", "high"], ordered=True), "ordinal"),
    ],
)
def test_kind_of_a_column(entries, kind):
    frame = to_typed_frame(pd.DataFrame({"a": entries, "b": np.linspace(0.5, 1.5, len(entries))}), [])
    assert find_columns(frame)[0].kind == kind


def test_whole_numbers_named_id_are_an_id():
    frame = pd.DataFrame({"customer_id": [7.0, 3.0, 9.0], "paid": [7.0, 3.0, 9.0]})
    assert [column.kind for column in find_columns(frame)] == ["id", "count"]


TABLE = pd.DataFrame(
    {
        "grade": ["b", "a", "c", "a", "b", None],
        "age": [31.0, 40, math.nan, 28, 31, 55],
        "score": [0.5, 1.5, -2.25, 4, math.nan, 8],
        "level": [1.0, 3, 2, 3, 1, 1],
        "name": ["A", "B", "C", "D", "E", "F"],
    }
).astype({"grade": "str", "name": "str"})
ASKED = {"level": "ordinal", "grade": ["c", "b", "a"]}


def test_kinds_that_are_asked_for():
    columns = {column.name: column for column in find_columns(TABLE, ASKED | {"age": "real"}, label=None)}
    assert columns["level"].categories == ("1", "2", "3")
    assert columns["grade"].kind == "ordinal"
    assert columns["grade"].categories == ("c", "b", "a")
    assert columns["age"].kind == "real"
    columns = {column.name: column for column in find_columns(TABLE, label="grade")}
    assert columns["grade"].kind == "label"
    assert columns["grade"].categories == ("a", "b", "c")


@pytest.mark.parametrize(
    ("asked", "label", "words"),
    [
        ({"agee": "real"}, None, "data.types: there is no column 'agee', did you mean age?"),
        ({"age": "number"}, None, "data.types: 'number' of column 'age' is not one of real, date"),
        ({"age": 3}, None, "data.types: 3 of column 'age' is not one of real, date, count, categorical, ordinal, id"),
        ({"grade": ["a", "b", "c", "a"]}, None, "nor a list of different levels"),
        ({"score": "count"}, None, "row 1: 0.5 in column 'score' is not a whole number from 0 to 16,777,216"),
        ({"grade": "real"}, None, "row 1: 'b' in column 'grade' is not a number"),
        ({"grade": "date"}, None, "row 1: 'b' in column 'grade' is not a date"),
        ({"grade": "ordinal"}, None, "column 'grade' has levels without a known order"),
        ({"grade": ["a", "b"]}, None, "row 3: 'c' in column 'grade' is not one of its 2 categories (a, b)"),
        ({}, "grades", "data.label=grades: there is no such column, did you mean grade?"),
        ({}, "score", "data.label=score has 5 different values in 5 rows, which is no class"),
        (dict.fromkeys(TABLE, "id"), None, "no column is left for the model (grade: id, asked for; age"),
    ],
)
def test_wrong_kinds_are_refused(asked, label, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        find_columns(TABLE, asked, label)


def test_text_that_is_no_category_is_refused():
    """A typing error in a column of numbers is named; free text is left out if the user says so."""
    frame = pd.DataFrame({"a": [*map(str, range(20)), "2l"], "b": [1.5] * 20 + [2.5]})
    with pytest.raises(ConfigError, match=r"row 21: '2l' in column 'a' is not a number, though 21 of 22 entries are"):
        find_columns(
            pd.concat([frame, frame], ignore_index=True).drop_duplicates().pipe(lambda f: pd.concat([f, f[:1]]))
        )
    frame = pd.DataFrame({"a": [*"abcdefghijk", "a"], "b": np.linspace(0, 1, 12)})
    with pytest.raises(
        ConfigError, match=r"row 1: 'a' in column 'a' is one of 11 different texts in 12 rows, too many"
    ):
        find_columns(frame)
    assert find_columns(frame, {"a": "id"})[0].kind == "id"


def test_free_text_stays_beside_x():
    """The reason says how to use it as a category; equal texts do not make rows equal."""
    texts = [f"The {i % 40}th opinion, which is a long one." for i in range(200)]
    frame = pd.DataFrame({"my view": texts, "b": np.linspace(0, 1, 200)})
    (column, _) = find_columns(frame)
    assert (column.kind, column.part) == ("id", None)
    assert column.reason == (
        "free text, 40 values with a median length of 38 characters; "
        "'data.types=[\"my view: categorical\"]' makes it a category"
    )
    assert len(find_columns(frame, {"my view": "categorical"})[0].categories) == 40
    long = pd.DataFrame({"a": [f"{text} {i % 1500}" for i, text in enumerate(texts * 20)], "b": np.arange(4000) / 7})
    assert find_columns(long)[0].kind == "id"  # too many for categories


# x.


def fit(frame, asked=None, rows=slice(None), **options):
    transform = TableTransform(find_columns(frame, asked, **options))
    return transform.fit(transform.to_values(frame)[rows])


def test_x_of_a_mixed_table():
    """Real columns first, then counts, categories and levels; NaN is a missing entry."""
    transform = fit(TABLE, ASKED)
    assert transform.data_kind == "mixed"
    assert [column.name for column in transform.x_columns] == ["score", "age", "grade", "level"]
    x = transform.transform(TABLE)
    assert x.dtype == torch.float32
    scores = np.array([0.5, 1.5, -2.25, 4, 8])
    expected = [*((scores - scores.mean()) / scores.std())[:4], math.nan, (8 - scores.mean()) / scores.std()]
    torch.testing.assert_close(x[:, 0], torch.tensor(expected, dtype=torch.float32), equal_nan=True)
    torch.testing.assert_close(x[:, 1], torch.tensor([31, 40, math.nan, 28, 31, 55]), equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(x[:, 2], torch.tensor([1, 2, 0, 2, 1, math.nan]), equal_nan=True, rtol=0, atol=0)
    assert x[:, 3].tolist() == [0, 2, 1, 2, 0, 0]


@pytest.mark.parametrize(
    ("names", "kind"), [(["age"], "count"), (["grade"], "categorical"), (["level"], "categorical")]
)
def test_x_of_one_kind_is_whole_numbers(names, kind):
    transform = fit(TABLE[names], {name: ASKED[name] for name in names if name in ASKED})
    x = transform.transform(TABLE)
    assert transform.data_kind == kind
    assert x.dtype == torch.int64
    assert torch.equal(x == -1, torch.from_numpy(TABLE[names].isna().to_numpy()))
    pd.testing.assert_frame_equal(transform.inverse(x).astype(TABLE[names].dtypes), TABLE[names])


def test_scales_are_those_of_the_training_rows():
    """Other rows and missing entries have no part in them."""
    values = np.random.default_rng(0).normal(50, 7, size=(100, 2))
    values[::3, 0] = math.nan
    frame = pd.DataFrame(values, columns=["a", "b"])
    train = np.arange(60)
    transform = fit(frame, rows=train)
    x = transform.transform(frame).double()
    assert x[train].nanmean(0).abs().max() < 1e-6
    assert (x[train, 1].std(correction=0) - 1).abs() < 1e-6
    frame.iloc[60:] = 1e6
    assert fit(frame, rows=train).describe() == transform.describe()


def test_description_is_plain_and_makes_the_same_x():
    import json

    transform = fit(TABLE, ASKED)
    again = TableTransform.from_description(json.loads(json.dumps(transform.describe())))
    assert torch.equal(again.transform(TABLE).nan_to_num(-7), transform.transform(TABLE).nan_to_num(-7))
    assert again.columns == transform.columns


def test_round_trip():
    """The table of x is the table itself: real numbers to the digits that float32 holds, all else exactly."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "small": rng.normal(1e-6, 1e-8, 50),
            "price": rng.normal(50_000, 20_000, 50).round(2),
            "count": rng.integers(0, 2**24, 50).astype(float),
            "color": rng.choice(["red", "green", "blue"], 50),
            "rating": rng.integers(1, 6, 50).astype(float),
            "day": pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 2000, 50), unit="D"),
            "time": pd.to_datetime("2020-01-01") + pd.to_timedelta(rng.integers(0, 100_000, 50), unit="s"),
        }
    )
    holes = rng.random(frame.shape) < 0.2
    frame = to_typed_frame(frame.mask(holes), [])
    transform = fit(frame)
    assert [column.kind for column in transform.columns] == [
        "real", "real", "count", "categorical", "categorical", "date", "date",
    ]  # fmt: skip
    back = transform.inverse(transform.transform(frame))
    assert list(back) == list(frame)
    assert np.array_equal(back.isna(), frame.isna())
    for name in ("small", "price"):  # rounded in float32, and to digits
        assert (back[name] - frame[name]).abs().max() <= 2**-20 * transform.x_columns[name == "price"].scale
    assert np.array_equal(back["count"].dropna().astype(float), frame["count"].dropna())
    assert back["color"].dropna().tolist() == frame["color"].dropna().tolist()
    assert back["rating"].dropna().tolist() == [f"{v:g}" for v in frame["rating"].dropna()]
    assert back["day"].dropna().tolist() == frame["day"].dropna().dt.strftime("%Y-%m-%d").tolist()
    assert back["time"].dropna().tolist() == frame["time"].dropna().dt.strftime("%Y-%m-%dT%H:%M:%S").tolist()


def test_numbers_of_few_digits_come_back_exactly():
    frame = pd.DataFrame({"a": np.random.default_rng(0).normal(170, 10, 200).round(1)})
    transform = fit(frame)
    assert transform.inverse(transform.transform(frame))["a"].tolist() == frame["a"].tolist()


def test_new_rows():
    """They are prepared as the training rows; what these do not have is refused or made missing."""
    transform = fit(TABLE, ASKED)
    new = TABLE.iloc[[3, 1]][["level", "score", "grade", "age"]].reset_index(drop=True)
    assert torch.equal(transform.transform(new), transform.transform(TABLE)[[3, 1]])
    unknown = new.assign(grade=["a", "z"])
    with pytest.raises(ConfigError, match=r"row 2: 'z' in column 'grade' is not one of its 3 categories \(c, b, a\)"):
        transform.transform(unknown)
    assert transform.transform(unknown, unseen="missing")[:, 2].isnan().tolist() == [False, True]
    with pytest.raises(ConfigError, match="column 'age' is missing in the table"):
        transform.transform(new.drop(columns="age"))
    with pytest.raises(ConfigError, match="row 2: 'old' in column 'age' is not a number"):
        transform.transform(new.assign(age=["31", "old"]))
    transform.transform(new.assign(age=[math.nan, 2.0**25], score=[-4.5, -4]))
    for entry, text in ((-4.0, "-4"), (4.5, "4.5"), (-1234567.5, "-1234567.5")):
        with pytest.raises(ConfigError, match=rf"row 2: {re.escape(text)} in column 'age' is not a count"):
            transform.transform(new.assign(age=[31.0, entry]), unseen="missing")


def test_digest_of_a_row_depends_on_its_content_only():
    columns = find_columns(TABLE)
    digests = row_digests(TABLE, columns)
    assert len(set(digests.tolist())) == len(TABLE)
    order = [4, 2, 0, 5, 1, 3]
    assert np.array_equal(row_digests(TABLE.iloc[order].reset_index(drop=True), columns), digests[order])
    more = pd.concat([TABLE, TABLE.assign(name=[*"UVWXYZ"], age=-0.5)], ignore_index=True)
    assert np.array_equal(row_digests(more, find_columns(more))[:6], digests)
    renamed = TABLE.assign(name=["other"] * 6)  # an id is no content
    assert np.array_equal(row_digests(renamed, columns), digests)
    for name in ("grade", "age", "score", "level"):
        changed = TABLE.copy()
        changed.loc[2, name] = "b" if name == "grade" else 77
        assert (row_digests(changed, columns) != digests).tolist() == [False, False, True, False, False, False]


def test_a_missing_number_is_not_zero():
    """Such rows are no duplicates."""
    frame = pd.DataFrame({"a": [0.0, math.nan, 1.0], "b": [0.5, 0.5, 0.5]})
    assert len(set(row_digests(frame, find_columns(frame, {"a": "real"})).tolist())) == 3


def test_constant_column_that_is_asked_for_has_scale_one():
    frame = pd.DataFrame({"a": [0.3] * 30, "b": np.linspace(0, 1, 30)})
    transform = fit(frame, {"a": "real"})
    assert transform.x_columns[0].scale == 1
    assert transform.transform(frame)[:, 0].abs().max() < 1e-6


def test_a_table_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    """Also if its compressed file is small."""
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 100_000))
    (tmp_path / "a.csv").write_bytes(b"a,b\n" + b"1,2\n" * 100_000)
    pd.DataFrame({"a": np.ones(100_000)}).to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv.gz", "a.csv", "a.parquet"):
        assert len(read_table(tmp_path / name).frame) == 100_000
    for module in ("memory", "table_files"):
        monkeypatch.setattr(f"vaezoo.data.{module}.available_memory", lambda: 10**6)
    for name in ("a.csv.gz", "a.csv"):
        with pytest.raises(ConfigError, match=rf"{name} has more than 0.00 GB of text, too much for the available"):
            read_table(tmp_path / name)
    with pytest.raises(ConfigError, match=r"a.parquet needs 0.0 GB of memory .*: use a part of the rows"):
        read_table(tmp_path / "a.parquet")
