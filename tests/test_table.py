"""Tests of the data modules of tables: splits, units, missing entries, new rows, and what people see of them."""

import inspect
import json
import math
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import config
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from vaezoo import load
from vaezoo.config_folder import config_folder
from vaezoo.data import BundledTable, TableData
from vaezoo.data.table import prepare_rows
from vaezoo.errors import ConfigError
from vaezoo.families import DimensionScaleNormal
from vaezoo.missing import is_observed
from vaezoo.runs.setup import build_run, log_likelihood_kind


def people(num=200, seed=0):
    """A table with every kind of column, missing entries and equal rows."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "person": [f"person {i}" for i in range(num)],
            "city": rng.choice(["Rome", "Oslo", "Cork"], num),
            "visits": rng.poisson(9, num),
            "height": rng.normal(170, 9, num).round(1),
            "size": rng.choice(["S", "M", "L"], num),
            "joined": np.datetime64("2020-01-01") + rng.integers(0, 900, num),
            "income": rng.lognormal(10, 1, num).round(2),
            "country": "Atlantis",
            "paid": rng.choice(["yes", "no"], num),
        }
    )
    content = [c for c in frame if c != "person"]
    frame = frame.mask((rng.random(frame.shape) < 0.1) & (frame.columns != "person"))
    frame.loc[10:39, content] = np.tile(frame.loc[:9, content].to_numpy(), (3, 1))  # the same under other names
    return frame


OPTIONS = {"types": {"size": ["S", "M", "L"]}, "label": "paid", "batch_size": 16}


@pytest.fixture
def make(tmp_path):
    """Write a table as .csv and return its data module after ``setup``."""

    def make(frame, name="people.csv", **options):
        frame.to_csv(tmp_path / name, index=False)
        data = TableData(str(tmp_path / name), **(OPTIONS | options))
        data.setup()
        return data

    return make


def test_rows_are_those_of_the_file(make):
    frame = people()
    data = make(frame)
    assert data.data_kind == "mixed"
    assert data.shape == (6,)
    assert data.has_missing
    assert [column.name for column in data.transform.x_columns] == [
        "height", "joined", "income", "visits", "city", "size",
    ]  # fmt: skip
    assert sorted(torch.cat(list(data.rows.values())).tolist()) == list(range(len(frame)))
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        rows = frame.iloc[data.rows[name].numpy()].reset_index(drop=True)
        back = data.transform.inverse(split.x)
        for column in ("visits", "height", "income", "city", "size"):
            expected, found = rows[column], back[column].astype(rows[column].dtype)
            pd.testing.assert_series_equal(found, expected, rtol=1e-5)
        classes = {"no": 0, "yes": 1}
        assert split.y.tolist() == [classes.get(paid, -1) for paid in rows["paid"]]


def test_equal_rows_are_in_one_set_and_stay_there(make):
    """Rows that differ in their id only are equal; a larger table leaves each row in its set."""
    frame = people()
    data = make(frame)
    sets = {int(row): name for name, rows in data.rows.items() for row in rows}
    assert all(sets[row] == sets[row % 10] for row in range(10, 40))
    assert data.report()["duplicate_rows"] == 30
    more = pd.concat([frame, people(100, seed=1).assign(person=[f"other {i}" for i in range(100)])])
    larger = make(more, "more.csv")
    assert {int(r): name for name, rows in larger.rows.items() for r in rows if r < len(frame)} == sets
    other = make(frame, split_seed=1)
    assert not torch.equal(other.rows["train"], data.rows["train"])


def test_validation_and_test_rows_have_no_part_in_the_scales(make):
    frame = people()
    data = make(frame)
    real = data.train.x[:, :3].double()
    assert real.nanmean(0).abs().max() < 1e-6
    std = torch.stack([column[~column.isnan()].std(correction=0) for column in real.unbind(1)])
    torch.testing.assert_close(std, torch.ones(3, dtype=torch.float64), rtol=1e-6, atol=0)
    held_out = torch.cat([data.rows["val"], data.rows["test"]]).numpy()
    seen = frame["height"].drop(index=held_out)
    column = data.transform.x_columns[0]
    assert (column.loc, column.scale) == pytest.approx((seen.mean(), seen.std(ddof=0)), rel=1e-12)


def test_every_column_is_reported_with_its_kind_and_reason(make):
    report = make(people()).report()
    assert report["separator"] == "comma"
    assert report["kinds"] == {
        "id": 1, "categorical": 1, "count": 1, "real": 2, "ordinal": 1, "date": 1, "constant": 1, "label": 1,
    }  # fmt: skip
    lines = report["columns"]
    assert lines["person"] == "id (text, all different)"
    assert lines["country"].startswith("constant (its only value is Atlantis)")
    assert re.fullmatch(r"categorical \(text with 3 values\), \d+ missing: Cork, Oslo, Rome", lines["city"])
    assert re.fullmatch(r"ordinal \(asked for\), \d+ missing: S, M, L", lines["size"])
    assert re.fullmatch(
        r"date \(all entries are dates; days since 1970-01-01\), \d+ missing: 2020-01-\d\d ... 2022-06-\d\d",
        lines["joined"],
    )
    assert re.fullmatch(r"count \(whole numbers >= 0 with \d+ values\), \d+ missing: \d ... \d\d", lines["visits"])
    json.dumps(report)


def test_many_categories_are_mentioned(make):
    frame = people(400)
    frame["shop"] = [f"shop {i % 51}" for i in range(400)]
    lines = make(frame).report()["columns"]
    option = """'data.types=["shop: id"]'"""
    words = f"categorical (text with 51 values), 51 categories are many ({option} leaves the column out): shop 0, "
    assert lines["shop"].startswith(words)
    frame["shop"] = [f"shop {i % 50}" for i in range(400)]
    assert make(frame).report()["columns"]["shop"].startswith("categorical (text with 50 values): shop 0, ")


def test_dates_as_people_write_them(make, tmp_path):
    """The column decides the order of day and month, or a question is asked; the order is kept for new rows."""
    days = pd.date_range("2023-06-01", periods=200).to_series().reset_index(drop=True)
    numbers = np.random.default_rng(0).normal(size=200)
    tables = {}
    for form in ("%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y"):
        data = make(pd.DataFrame({"day": days.dt.strftime(form), "x": numbers}), types=None, label=None)
        line = data.report()["columns"]["day"]
        order = "" if form.startswith("%Y") else ", month first" if form.startswith("%m") else ", day first"
        assert line == f"date (all entries are dates; days since 1970-01-01{order}): 2023-06-01 ... 2023-12-17"
        tables[form] = data
    first = tables["%Y-%m-%d"]
    for form, data in tables.items():
        assert torch.equal(data.train.x, first.train.x)
        back = data.transform.inverse(data.train.x)["day"]  # ISO dates
        assert back.tolist() == days.dt.strftime("%Y-%m-%d")[data.rows["train"].numpy()].tolist()
        new = tmp_path / "new.csv"  # the new rows alone do not decide
        new.write_text(f"day,x\n{pd.Timestamp('2023-07-08').strftime(form)},0.5\n")
        assert data.transform.inverse(prepare_rows(new, data.describe()))["day"].tolist() == ["2023-07-08"]
    early = pd.DataFrame({"day": days.dt.strftime("%m/%d/%Y"), "x": numbers})[days.dt.day <= 12]
    words = (
        "people.csv line 2: the dates in column 'day', such as '06/01/2023' and '06/02/2023', can be read with the "
        "day or with the month first: use data.dates=dayfirst or data.dates=monthfirst"
    )
    with pytest.raises(ConfigError, match=words):
        make(early, types=None, label=None)
    assert make(early, types={"day": "id"}, label=None).transform.columns[0].kind == "id"
    back = make(early, types=None, label=None, dates="dayfirst")
    assert {day[-2:] for day in back.transform.inverse(back.train.x)["day"]} == {f"{i:02}" for i in range(6, 13)}


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("%Y-%m-%d", {}),
        ("%Y-%m-%dT%H:%M:%S", {}),
        ("%d.%m.%Y", {}),
        ("%m/%d/%Y", {}),
        ("%d/%m/%Y %H:%M", {"dates": {"joined": "dayfirst"}}),
        ("%Y-%m-%d", {"types": {"joined": "categorical", "size": ["S", "M", "L"]}}),
        ("%d.%m.%Y", {"types": {"joined": "id"}}),
    ],
)
def test_a_table_in_memory_is_read_as_a_file_of_text(make, tmp_path, form, options):
    """A DataFrame, a .parquet file and a .csv file with the same values give the same x, and so do new rows."""
    frame = people()
    frame["joined"] = pd.to_datetime(frame["joined"]).dt.strftime(form)
    frame.loc[[3, 50], "joined"] = ["NA", ""]  # missing entries, as in a file of text
    frame.to_parquet(tmp_path / "people.parquet")
    first = make(frame, **options)
    parquet = TableData(str(tmp_path / "people.parquet"), **(OPTIONS | options))
    memory = TableData(**(OPTIONS | options))
    memory.content = frame
    texts = [frame["person"][20], frame["person"][70]]
    new = frame.iloc[[20, 70]]
    new.to_parquet(tmp_path / "new.parquet")
    new.to_csv(tmp_path / "new.csv", index=False)
    expected = prepare_rows(tmp_path / "new.csv", first.describe())
    for data in (parquet, memory):
        data.setup()
        for name in ("train", "val", "test"):
            assert torch.equal(data.rows[name], first.rows[name])
            x, y = getattr(data, name).x, getattr(data, name).y
            assert torch.equal(x.view(torch.int32), getattr(first, name).x.view(torch.int32))  # also NaN
            assert torch.equal(y, getattr(first, name).y)
        for key in ("kinds", "columns", "duplicate_rows", "dates"):
            assert data.report()[key] == first.report()[key]
        description = json.loads(json.dumps(data.describe()))
        assert description["columns"] == json.loads(json.dumps(first.describe()))["columns"]
        rows = [prepare_rows(table, description) for table in (new, tmp_path / "new.parquet", tmp_path / "new.csv")]
        for name in ("new.parquet", "new.csv"):
            encoded = TableData(str(tmp_path / name), **(OPTIONS | {"dates": options.get("dates")}))
            encoded.setup_new(description)
            assert encoded.all_keys()["person"].tolist() == texts
            rows.append(encoded.all.x)
        for x in rows:
            assert torch.equal(x.view(torch.int32), expected.view(torch.int32))


def test_dates_of_new_rows_have_the_order_of_the_training(make, tmp_path):
    """New rows that would decide otherwise, or do not decide, are read as the training rows were."""
    days = pd.date_range("2023-06-01", periods=200).strftime("%m/%d/%Y")
    data = make(pd.DataFrame({"day": days, "x": np.linspace(0, 1, 200) ** 2}), types=None, label=None)
    new = pd.DataFrame({"day": ["07/08/2023"], "x": [0.5]})
    new.to_csv(tmp_path / "new.csv", index=False)
    new.to_parquet(tmp_path / "new.parquet")
    expected = prepare_rows(new, data.describe())
    assert data.transform.inverse(expected)["day"].tolist() == ["2023-07-08"]
    for name in ("new.csv", "new.parquet"):
        encoded = TableData(str(tmp_path / name))
        encoded.setup_new(data.describe())
        assert torch.equal(encoded.all.x, expected)
    with pytest.raises(ConfigError, match=r"row 1: '13/08/2023' in column 'day' is not a date with the month first"):
        prepare_rows(new.assign(day="13/08/2023"), data.describe())
    encoded = TableData(str(tmp_path / "new.csv"), dates="dayfirst")
    encoded.setup_new(data.describe())
    assert encoded.transform.inverse(encoded.all.x)["day"].tolist() == ["2023-08-07"]


def test_dates_in_memory_that_can_be_read_in_two_ways_are_refused():
    data = TableData(missing=["unknown"])
    data.content = pd.DataFrame({"day": ["", "unknown", "1/2/2024", "3/4/2024"], "x": [0.5, 1.5, 2.5, 3.5]})
    words = "row 3: the dates in column 'day', such as '1/2/2024' and '3/4/2024', can be read with the day or with"
    with pytest.raises(ConfigError, match=words):
        data.setup()
    data.content = data.content.assign(day=["2024-01-31", "2024-02-30", "2024-02-01", ""])
    with pytest.raises(ConfigError, match="row 2: '2024-02-30' in column 'day' is not a date: correct it"):
        data.setup()
    data.dates = "usa"
    with pytest.raises(ConfigError, match=r"data.dates=usa should be dayfirst, monthfirst or null"):
        data.setup()


def test_text_in_memory_that_is_no_date_stays_text():
    """Numbers as text, two forms of dates, and text with an empty entry are categories."""
    data = TableData()
    frame = pd.DataFrame(
        {
            "number": ["12", "7", "12", "7"] * 30,
            "form": ["2024-01-31", "31.1.2024", "never", ""] * 30,
            "empty": [None] * 120,
            "x": np.linspace(0, 1, 120) ** 2,
        }
    )
    data.content = frame.astype({"number": object, "form": object})
    data.setup()
    kinds = {column.name: (column.kind, column.categories) for column in data.transform.columns}
    assert kinds["number"] == ("categorical", ("12", "7"))
    assert kinds["form"] == ("categorical", ("", "2024-01-31", "31.1.2024", "never"))
    assert kinds["empty"] == ("empty", ())


def test_likelihood_follows_the_kinds(make):
    data = make(people())
    node = data.likelihood_config()
    assert node["layout"] == {"real": [3], "count": [1], "categorical": [1], "ordinal": [1]}
    assert list(node["families"]) == list(node["layout"])
    assert node["families"]["real"]["scale"] == [column.scale for column in data.transform.x_columns[:3]]
    assert node["families"]["categorical"] == {"_target_": "vaezoo.families.Categories", "sizes": [3]}
    one = make(people()[["visits"]], types=None, label=None)
    assert (one.data_kind, one.train.x.dtype) == ("count", torch.int64)
    assert one.likelihood_config() == {"_target_": "vaezoo.families.NegativeBinomial"}
    json.dumps(node)


def test_new_rows_are_prepared_as_the_training_rows(make, tmp_path):
    """From a description that has been through JSON, for a file and for a table in memory."""
    frame = people()
    data = make(frame)
    description = json.loads(json.dumps(data.describe()))
    rows = data.rows["test"].numpy()
    new = frame.iloc[rows].drop(columns=["paid", "person"])[::-1]
    new.to_csv(tmp_path / "new.csv", index=False, sep=";")
    for table in (new, str(tmp_path / "new.csv")):
        x = prepare_rows(table, description)
        assert torch.equal(x.nan_to_num(-7), data.test.x.flip(0).nan_to_num(-7))
    new.iloc[1, new.columns.get_loc("city")] = "Paris"
    new.to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(ConfigError, match=r"new.csv line 3: 'Paris' in column 'city' is not one of its 3 categories"):
        prepare_rows(tmp_path / "new.csv", description)
    assert prepare_rows(new, description, unseen="missing")[1].isnan().any()


def test_hidden_entries(make):
    """``holes`` hides a share of the entries, by ``split_seed``, before the scales are computed; the truth is kept."""
    frame = people(400)
    full, data, again = make(frame), make(frame, holes=0.5), make(frame, holes=0.5, seed=3)
    assert not full.complete
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test)):
        observed, truth = is_observed(split.x), data.complete[name]
        assert torch.equal(torch.where(observed, split.x, 0), torch.where(observed, truth, 0))
        assert torch.equal(is_observed(truth), is_observed(getattr(full, name).x))
        hidden = is_observed(truth) & ~observed
        share = hidden.sum() / is_observed(truth).sum()
        assert abs(share - 0.5) < 5 * 0.5 / is_observed(truth).sum().sqrt()
    assert torch.equal(is_observed(again.train.x), is_observed(data.train.x))
    assert data.train.x[:, :3].nanmean(0).abs().max() < 1e-5
    assert data.complete["train"][:, :3].nanmean(0).abs().max() > 1e-3


def test_cells_of_rows(make):
    """Standard deviations, counts on a logarithmic scale and codes, in the table's order, with the user's values."""
    data = make(people())
    cells, columns = data.to_cells(data.train.x), {c.name: i for i, c in enumerate(data.transform.x_columns)}
    assert cells.names == [c.name for c in data.transform.columns if c.part]
    saved = data.transform.inverse(data.train.x)
    for j, name in enumerate(cells.names):
        column, x = data.transform.x_columns[columns[name]], data.train.x[:, columns[name]].double()
        assert cells.is_category[j] == bool(column.categories)
        if column.kind == "count":
            logs = x.log1p().numpy()
            x = (logs - np.nanmean(logs)) / np.nanstd(logs)
        assert np.allclose(cells.levels[:, j], x, equal_nan=True)
        for i, entry in enumerate(saved[name]):
            text = cells.texts[i][j]
            assert (text == "") == np.isnan(cells.levels[i, j])
            if column.categories and text:
                assert text == entry
    counts = make(pd.DataFrame({"a": [*range(40)] * 2}), types={"a": "count"}, label=None)
    cells = counts.to_cells(torch.tensor([[-1], [3]]))
    assert np.isnan(cells.levels[0, 0])
    assert [row[0] for row in cells.texts] == ["", "3"]


def test_examples_are_saved_in_the_users_units(make, tmp_path):
    frame = people()
    data = make(frame)
    files = data.save_examples(data.test.x, tmp_path / "samples-1.5")
    assert files == [tmp_path / "samples-1.5.csv"]
    saved = pd.read_csv(files[0])
    expected = frame.iloc[data.rows["test"].numpy()].reset_index(drop=True)[list(saved)]
    assert list(saved) == ["city", "visits", "height", "size", "joined", "income"]
    assert saved["height"].tolist() == pytest.approx(expected["height"].tolist(), nan_ok=True)
    assert saved["joined"].dropna().tolist() == expected["joined"].dropna().dt.strftime("%Y-%m-%d").tolist()
    pd.testing.assert_series_equal(saved["city"], expected["city"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": ""}, "data.path is missing: name the file"),
        ({"holes": 1.0}, "data.holes=1.0 is not a share"),
        ({"missing": "NA"}, "data.missing=NA is not a list: use data.missing=[NA]"),
        ({"types": "real"}, "data.types=real should be a map or a list of names with kinds"),
        ({"types": {"size": "ordinal"}}, "column 'size' has levels without a known order"),
        ({"val_size": 1000}, "data.val_size"),
        ({"shape": [5]}, "data.shape is (5,), but the rows of TableData are (6,)"),
    ],
)
def test_bad_options(tmp_path, options, words):
    people().to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(ValueError, match=re.escape(words)):
        TableData(**({"path": str(tmp_path / "a.csv")} | OPTIONS | options)).setup()


def test_nothing_is_read_before_it_is_needed(tmp_path):
    data = TableData(str(tmp_path / "none.csv"))
    with pytest.raises(ConfigError, match=r"none.csv does not exist"):
        data.data_kind  # noqa: B018


def test_importing_the_data_modules_is_light():
    """pandas and pyarrow take half a second."""
    code = "import sys, vaezoo.data; print([m for m in ('pandas', 'pyarrow', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "rows", "kinds", "classes"),
    [
        ("breast_cancer", 569, {"real": 30, "label": 1}, 2),
        ("wine", 178, {"real": 13, "label": 1}, 3),
        ("diabetes", 442, {"real": 6, "count": 3, "categorical": 1}, 0),
    ],
)
def test_bundled_tables(name, rows, kinds, classes):
    from sklearn import datasets

    data = BundledTable(name, batch_size=16)
    data.setup()
    assert sum(len(split.x) for split in (data.train, data.val, data.test)) == rows
    assert data.report()["kinds"] == kinds
    y = torch.cat([data.train.y, data.val.y, data.test.y])
    assert y.unique().tolist() == (list(range(classes)) if classes else [-1])
    options = {"scaled": False} if name == "diabetes" else {}
    source = getattr(datasets, f"load_{name}")(as_frame=True, **options)
    back = data.transform.inverse(data.test.x)
    expected = source.data.iloc[data.rows["test"].numpy()]
    np.testing.assert_allclose(back[list(expected)].astype(float), expected, rtol=1e-5, atol=1e-5)
    if classes:
        labels = np.array(source.target_names)[source.target.iloc[data.rows["test"].numpy()]]
        classes_of_data = next(c.categories for c in data.transform.columns if c.kind == "label")
        assert [classes_of_data[i] for i in data.test.y] == labels.tolist()


def test_there_is_no_other_bundled_table():
    with pytest.raises(ConfigError, match=r"data.name=wines is no bundled table, did you mean wine\?"):
        BundledTable("wines")


def test_config_has_the_defaults_of_the_class():
    """The exceptions are ``batch_size``, since tables are often small, and ``batches_per_step``."""
    defaults = {}
    for parent in reversed(TableData.__mro__):
        if parent.__module__.startswith("vaezoo.data"):
            defaults |= {name: p.default for name, p in inspect.signature(parent.__init__).parameters.items()}
    node = config("data", "data=table", "data.path=a.csv")
    assert node.keys() - {"_target_"} == defaults.keys() - {"self", "seed", "kwargs", "root"}
    same = node.keys() - {"_target_", "path", "batch_size", "batches_per_step", "missing"}
    assert {name: node[name] for name in same} == {name: defaults[name] for name in same}
    assert node["missing"] == list(defaults["missing"])
    for name in ("breast_cancer", "diabetes", "wine"):
        node = config("data", f"data=tables/{name}")
        assert (node["name"], node["_target_"], node["holes"]) == (name, "vaezoo.data.BundledTable", 0.0)


# Models of tables.


def build(data_config, likelihood=None):
    """Build mlp_vae for a table as a run does; if no likelihood is given, it follows the data."""
    with initialize_config_dir(config_folder(), version_base="1.3"):
        cfg = compose("config", ["data=table", "data.path=a.csv", "model.latent_dim=2"])
    names = ("model", "data", "optimizer", "scheduler", "allow_packages", "seed", "on_nan", "compile")
    node = {name: OmegaConf.to_container(OmegaConf.select(cfg, name), resolve=True) for name in names[:5]}
    node |= {name: cfg[name] for name in names[5:]}
    node["model"]["likelihood"] = likelihood or node["model"]["likelihood"]
    _, model, data = build_run(node | {"data": node["data"] | data_config})
    data.setup()
    return model, data


@pytest.mark.parametrize("holes", [0.0, 0.5])
@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (["height", "income", "joined"], "real"),
        (["visits"], "count"),
        (["city", "paid"], "categorical"),
        (["size"], "categorical"),
        (["size", "height", "city", "visits"], "mixed"),
    ],
)
def test_a_model_scores_the_observed_entries_only(tmp_path, columns, kind, holes):
    """log p(x | z) is the sum over the observed entries, in the user's units; a missing one has gradient 0."""
    frame = people()[columns]
    frame = frame if holes else frame.dropna()
    frame.to_csv(tmp_path / "a.csv", index=False)
    types = {"size": ["S", "M", "L"]} if "size" in columns else None
    model, data = build({"path": str(tmp_path / "a.csv"), "types": types, "holes": holes, "batch_size": 8})
    assert data.data_kind == kind
    assert data.has_missing == (holes > 0)
    batch = data.examples(64)
    model.likelihood.check(batch.x)
    model.decoder.init_from_data(data.mean, batch.x)
    trace = model(batch.x, batch.y)
    assert trace.elbo.isfinite().all()
    trace.elbo.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())

    shape, observed = data.shape, is_observed(batch.x)
    raw = torch.randn(len(batch.x), *model.likelihood.raw_shape(shape), requires_grad=True)
    px = model.likelihood(*model.likelihood.split(raw, shape))
    px.log_prob(batch.x).sum().backward()
    columns = data.transform.x_columns
    num_real = sum(column.part == "real" for column in columns)
    means = slice(0, num_real)  # the raw outputs that come first are the means of the real columns
    assert torch.equal(raw.grad[:, means] != 0, observed[:, means])
    if kind == "real":
        normal = next(m for m in model.likelihood.modules() if isinstance(m, DimensionScaleNormal))
        z = (batch.x - raw) / normal.scale
        exact = -0.5 * z**2 - (normal.scale * math.sqrt(2 * math.pi)).log() - torch.tensor(data.transform.scale).log()
        torch.testing.assert_close(px.log_prob(batch.x), torch.where(observed, exact, 0).float(), rtol=1e-5, atol=1e-5)
    if holes:
        x = torch.full_like(batch.x, torch.nan if batch.x.is_floating_point() else -1)
        nothing = model(x, batch.y)
        assert torch.equal(nothing.log_px, torch.zeros_like(nothing.log_px))
        assert torch.equal(nothing.elbo, -nothing.kl.sum(-1))


@pytest.mark.parametrize("choice", [["model=vamp_vae"], ["model=iwae", "model/prior=vamp"]])
def test_pseudo_inputs_of_a_table_are_rows(tmp_path, cli, choice):
    """They start from training rows in the scales of x, and not in [0, 1]; a count near 0 may go below it."""
    frame = people()
    frame["visits"] = np.random.default_rng(0).poisson(0.3, len(frame)) * np.arange(len(frame))
    frame.to_csv(tmp_path / "a.csv", index=False)
    options = ["data=table", "data.path=a.csv", "logger=none", "callbacks.images=null", "model.latent_dim=2"]
    code, _, err, run = cli(*options, *choice, "trainer.max_epochs=2")
    assert code == 0, err
    model = load(run)
    u = model.prior.pseudo_inputs
    assert model.config["model"].get("prior", model.config["model"])["bounded"] is False
    assert u.isfinite().all()
    assert u.min() < -1
    assert u.max() > 50
    code, _, err, _ = cli("task=encode", f"run={run}")
    assert code == 0, err


@pytest.mark.parametrize("holes", [0.0, 0.3])
def test_a_named_likelihood_is_in_the_users_units(tmp_path, holes):
    """It has the value of the default likelihood, if it is the same family; the config records its scales."""
    people().dropna()[["height", "income", "joined"]].to_csv(tmp_path / "a.csv", index=False)
    options = {"path": str(tmp_path / "a.csv"), "batch_size": 8, "holes": holes}
    default, data = build(options)
    named, _ = build(options, {"_target_": "vaezoo.families.DimensionScaleNormal", "shape": [3]})
    assert named.config == default.config
    x = data.examples(20).x
    torch.manual_seed(0)
    expected = default(x).elbo
    torch.manual_seed(0)
    assert torch.equal(named(x).elbo, expected)
    assert expected.isfinite().all()
    own = {"_target_": "vaezoo.families.Laplace"}
    _, recorded, _ = build_run(build(options, own)[0].config, is_recorded=True)
    assert recorded.config["model"]["likelihood"] == build(options, own)[0].config["model"]["likelihood"]


def test_a_recorded_likelihood_of_standardized_columns_stays(tmp_path):
    """A run of an earlier version has the numbers that it had."""
    people().dropna()[["height", "income"]].to_csv(tmp_path / "a.csv", index=False)
    model, _ = build({"path": str(tmp_path / "a.csv"), "batch_size": 8})
    earlier = model.config | {"model": model.config["model"] | {"likelihood": {"_target_": "vaezoo.families.Laplace"}}}
    config, model, data = build_run(earlier, is_recorded=True)
    assert config["model"]["likelihood"] == {"_target_": "vaezoo.families.Laplace"}
    assert log_likelihood_kind(model, data) == "density of standardized columns"


@pytest.mark.parametrize("likelihood", ["auto", "normal", "laplace"])
@pytest.mark.parametrize("factor", [1000, 1024])
def test_the_unit_of_a_column_changes_the_elbo_by_its_logarithm_only(tmp_path, monkeypatch, cli, factor, likelihood):
    """-ln(factor) for each observed entry: to 1e-4 nats, and to the rounding of sums for a power of two."""
    monkeypatch.setattr("vaezoo.data.table.row_digests", lambda frame, columns: np.arange(len(frame), dtype=np.uint64))
    frame = people()[["height", "income"] + ["city"] * (likelihood == "auto")]
    results = []
    for name, table in (("a", frame), ("b", frame.assign(height=frame["height"] * factor))):
        table.to_csv(tmp_path / f"{name}.csv", index=False)
        options = ["data.batch_size=16", "model.latent_dim=2", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]"]
        trainer = ["logger=none", "trainer.max_epochs=3", "callbacks.images=null"]
        code, _, err, run = cli(
            "data=table",
            f"data.path={name}.csv",
            "data.types={height: real}",
            f"model/likelihood={likelihood}",
            *options,
            *trainer,
        )
        assert code == 0, err
        results.append(json.loads((run / "summary.json").read_text())["test"])
    data = TableData(str(tmp_path / "a.csv"), batch_size=16)
    data.setup()
    expected = math.log(factor) * float(is_observed(data.test.x[:, 0]).double().mean())
    assert results[0]["elbo"] - results[1]["elbo"] == pytest.approx(expected, abs=1e-4 if factor == 1000 else 1e-5)
    assert results[0]["kl"] == pytest.approx(results[1]["kl"], rel=1e-4 if factor == 1000 else 0)


def test_a_trained_model_prepares_new_rows(tmp_path, cli):
    """What a checkpoint says about its table is enough."""
    frame = people()
    frame.to_csv(tmp_path / "people.csv", index=False)
    code, _, err, run = cli(
        "data=table", "data.path=people.csv", "data.types={size: [S, M, L]}", "logger=none", "trainer.max_epochs=1",
        "model.latent_dim=2",
    )  # fmt: skip
    assert code == 0, err
    model = load(run)
    x = prepare_rows(frame.head(7), model.data_description)
    assert model.encode(x).shape == (7, 2)
    assert model(x).elbo.isfinite().all()
    assert len(list((run / "panels").glob("*.png"))) > 0
    code, _, err, task = cli("task=sample", f"run={run}", "task.num=5")
    assert code == 0, err
    assert len(pd.read_csv(task / "samples.csv")) == 5


def test_a_small_table_is_one_batch(tmp_path, cli):
    """No option is needed for a table of a few rows, also for a loss that needs the number of training rows."""
    people(40)[20:].to_csv(tmp_path / "a.csv", index=False)
    small = ("data=table", "data.path=a.csv", "model=beta_tc_vae", "model.latent_dim=2", "logger=none")
    code, out, err, _ = cli(*small, "trainer.max_epochs=2", "callbacks.images=null")
    assert code == 0, err
    assert re.search(r"^batch_size=64: the 1\d training rows are one batch$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("likelihood", "kind"),
    [
        (None, "density"),
        ({"_target_": "vaezoo.families.SharedScaleNormal"}, "density"),
        (
            {"_target_": "vaezoo.families.Masked", "family": {"_target_": "vaezoo.families.SharedScaleNormal"}},
            "density of standardized columns",
        ),
        (
            {"_target_": "vaezoo.families.Rescaled", "family": {"_target_": "vaezoo.families.Laplace"}, "scale": 2.0},
            "density",
        ),
    ],
)
def test_a_likelihood_of_standardized_columns_is_named(tmp_path, likelihood, kind):
    """It is not comparable with those that report log p(x) in the user's units."""
    people()[["height", "income"]].to_csv(tmp_path / "a.csv", index=False)
    model, data = build({"path": str(tmp_path / "a.csv"), "batch_size": 8}, likelihood)
    assert log_likelihood_kind(model, data) == kind


def test_names_that_are_no_keys(tmp_path, cli):
    """A spreadsheet's names, as a message spells the option; a run with them goes on; large counts do not drown x."""
    rows = [f"{i};{1 + i % 28}.{1 + i % 12}.2020;{80_331 + 7 * i % 300};{i % 17 / 3:.2f}" for i in range(90)]
    content = "\n".join(["Nr.;Datum der Er\u00f6ffnung?;PLZ;Umsatz in \u20ac", *rows]).replace(".", ",")
    (tmp_path / "a.csv").write_text(content, encoding="utf-8")
    small = ["data=table", "data.path=a.csv", "logger=none", "callbacks.images=null", "data.batch_size=16"]
    types = 'data.types=["Datum der Er\u00f6ffnung?: id"]'
    code, _, err, run = cli(*small, types, "trainer.max_epochs=1")
    assert code == 0, err
    code, _, err, _ = cli(f"run={run}", "trainer.max_epochs=2")
    assert code == 0, err
    model = load(run)
    assert [column["kind"] for column in model.data_description["columns"]][1:] == ["id", "count", "real"]
    net = model.encoder.net
    plz = torch.tensor([80_331 + 7 * i % 300 for i in range(90)]).double().log1p()
    assert abs(float(net.loc[0]) - float(plz.mean())) < 0.3 * float(plz.std())
    assert float(net.scale[0]) == pytest.approx(float(plz.std()), rel=0.2)
