"""What the terminal shows: header, progress, and tables that fit and are grouped."""

import json
import os
import re
from types import SimpleNamespace

import pytest
from conftest import REPO
from doc_commands import FENCE
from test_comparison import made
from test_oracles_values import told

from vaezoo.callbacks import progress
from vaezoo.callbacks.progress import Mark, Progress, describe_place, describe_time, seconds_left
from vaezoo.evaluation.groups import GROUPS as METRICS
from vaezoo.metrics.quantities import GROUPS, QUANTITIES, Quantity, given_context
from vaezoo.report.statistics import compare
from vaezoo.report.tables import print_comparison, print_results, table
from vaezoo.runs.sweep import print_sweep_table
from vaezoo.tasks.fit import find_pictures

# Results.


def printed(capsys):
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("columns", [None, 60, 80, 120])
def test_all_numbers_fit(capsys, monkeypatch, columns):
    """No line is too long, and nothing is cut off; a file counts as 80 columns."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    quantities = {name: quantity for name, quantity in told() if not name.endswith("_error")}
    values = {}
    for number, name in enumerate(quantities):
        values |= {name: -1234.5678 + number, f"{name}_error": 12.3456, f"{name}_reference": 0.001234567}
    print_results("title", values, quantities, [])
    lines = printed(capsys)
    assert max(map(len, lines)) <= (columns or 80)
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    for name in quantities:
        assert f" {name} " in text
        assert f"{values[name]:.3f} ± 12.346" in text or f"{values[name]:.0f} ± 12.346" in text
    assert text.count("0.00123") == len(quantities)


def test_numbers_stand_in_groups(capsys):
    """Those of each test first; numbers that only say how another one was measured are the last group."""
    assert set(METRICS) - {"annealed"} <= set(GROUPS)
    fid = Quantity("units", "of features", protocol="{num_real} images", group="samples")
    real, own = Quantity("images", "that are real", group="samples"), Quantity("", "", group="mine")
    quantities = {"num_real": real, "fid": fid, "own": own}
    quantities |= {name: QUANTITIES[name] for name in ("active_units", "elbo", "kl", "log_p", "log_p_samples")}
    print_results("title", dict.fromkeys(quantities, 2.5), quantities, ["a note"])
    heads = [line.strip().split(" ")[0] for line in printed(capsys) if not line.startswith("   ")]
    assert heads == [
        "title", "likelihood", "elbo", "kl", "log_p", "latent", "active_units", "samples", "fid",
        "mine", "own", "counts", "num_real", "log_p_samples", "a",
    ]  # fmt: skip


def test_a_model_that_is_given_labels_has_a_bound_of_log_p_given_y():
    given = given_context(QUANTITIES)
    assert given["elbo"].meaning == "evidence lower bound of log p(x | y)"
    assert given["log_p"].meaning == "importance-weighted lower bound of log p(x | y), tighter than the ELBO"
    assert [name for name in given if "log p(x)" in given[name].meaning] == []
    assert given["kl"] == QUANTITIES["kl"]


def test_the_first_page_shows_what_is_printed(capsys, monkeypatch):
    """The table in docs/start.md is that of its numbers."""
    monkeypatch.delenv("COLUMNS", raising=False)
    text = (REPO / "docs" / "start.md").read_text(encoding="utf-8")
    (block,) = (block for _, block in FENCE.findall(text) if "elbo ↑" in block)
    numbers = re.findall(r"^  (\w+) .? +(-?[\d.]+)(?: ± ([\d.]+))?  ", block, re.MULTILINE)
    values = {name: float(value) for name, value, _ in numbers}
    values |= {f"{name}_error": float(error) for name, _, error in numbers if error}
    print_results("mlp_vae on Digits, seed 0: test set, log p of bits", values, QUANTITIES, [])
    assert printed(capsys) == block.splitlines()


# Comparisons and sweeps.


def all_columns(collapsed=0):
    """Runs of two models with two seeds and a number in each column of a table; some have collapsed."""
    names = [name for name, quantity in told() if quantity.column == "main"]
    runs = made("beta_tc_vae", [-90.0, -92.0]) + made("a_model_of_the_user", [-1095.0, -1097.0])
    for number, run in enumerate(runs):
        run.summary["test"] |= {name: 1234.5 + number for name in names if name not in ("elbo", "kl", "distortion")}
        run.summary |= {"train_examples_per_second": 51230.0, "parameters": 1_234_567_890}
        run.summary["test"]["kl"] = 0.05 if number >= 4 - collapsed else 5.0
    return compare(runs)[0]


@pytest.mark.parametrize("columns", [None, 60, 120])
def test_a_comparison_shows_all_columns(capsys, monkeypatch, columns):
    """In as many parts as they need; heads are broken between words, and numbers are not."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", str(columns))
    comparison = all_columns()
    print_comparison(comparison)
    lines = printed(capsys)
    assert max(map(len, lines)) <= (columns or 80)
    heads, cells = table(comparison)
    rows = ["  ".join(line for line in lines if line.startswith(row[0])) for row in cells]
    for row, found in zip(cells, rows, strict=True):
        assert [text for text in re.split(" {2,}", found) if text != row[0]] == row[1:]
    words = " ".join(lines).split()
    assert all(word in words for head in heads for word in head.split())
    assert "*" not in words


def test_collapsed_models_are_marked_in_a_comparison(capsys):
    print_comparison(all_columns(collapsed=1))
    lines = printed(capsys)
    assert any(line.startswith("a_model_of_the_user *  ") for line in lines)
    assert not any(line.startswith("beta_tc_vae *") for line in lines)
    assert (
        "* posterior collapse in 1 of 2 runs of a_model_of_the_user, the KL is below 0.1 nats: the decoder ignores z; "
        "try callbacks/anneal=linear, model.free_bits=0.1, a smaller model.beta or a weaker decoder"
    ) in " ".join(lines)


def make_job(folder, number, **summary):
    folder.mkdir()
    (folder / "job.json").write_text(json.dumps({"job": number, "overrides": [f"seed={number}", "model=vae"]}))
    (folder / "summary.json").write_text(json.dumps({"status": "completed", "model": "vae"} | summary))


@pytest.mark.parametrize("kl", [0.05, 0.15, None])
def test_collapsed_jobs_are_marked_in_the_table_of_a_sweep(tmp_path, capsys, monkeypatch, kl):
    monkeypatch.delenv("COLUMNS", raising=False)
    test = {"elbo": -20.0, "log_px": -20.0} | ({} if kl is None else {"kl": kl})
    make_job(tmp_path / "0", 0, scored="columns of several kinds and which entries are missing", test=test)
    make_job(tmp_path / "1", 1, scored="bits", test={"elbo": -2345678.0, "kl": 5.0, "log_px": -2345673.0})
    print_sweep_table(tmp_path)
    *lines, _table = printed(capsys)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert len([line for line in lines if "completed *" in line]) == (kl == 0.05)
    assert ("* posterior collapse, the KL is below 0.1 nats: the decoder ignores z; try" in " ".join(lines)) == (
        kl == 0.05
    )


def test_the_folder_of_pictures_is_named_if_there_are_any(tmp_path):
    config = {"callbacks": {"images": {"folder": str(tmp_path / "panels")}}}
    assert find_pictures(config) == []
    (tmp_path / "panels").mkdir()
    assert find_pictures(config) == []
    (tmp_path / "panels" / "samples.png").touch()
    assert find_pictures(config) == [tmp_path / "panels"]
    assert find_pictures({"callbacks": {"images": None}}) == find_pictures({"callbacks": {}}) == []


# Progress.


def test_the_time_left_follows_from_the_speed():
    start = Mark(100.0, 2.0, 40)
    assert seconds_left(start, Mark(130.0, 5.0, 100), 50, -1) == pytest.approx(45 * 10)
    assert seconds_left(start, Mark(130.0, 5.0, 100), None, 500) == pytest.approx(400 * 0.5)
    assert seconds_left(start, Mark(130.0, 5.0, 100), 50, 500) == pytest.approx(200)  # what comes first
    assert seconds_left(start, Mark(130.0, 5.0, 100), 5, -1) == 0
    assert seconds_left(start, start, 50, 500) is None  # no speed
    assert seconds_left(start, Mark(130.0, 5.0, 100), -1, -1) is None  # no end


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (80, "1 min 20 s"), (3599.6, "1 h 0 min"), (7529, "2 h 5 min")],
)
def test_times_as_text(seconds, text):
    assert describe_time(seconds) == text


def test_places_count_from_1():
    trainer = SimpleNamespace(max_epochs=50, max_steps=-1, global_step=7)
    assert describe_place(trainer, 3) == "epoch 3/50"
    assert (
        describe_place(SimpleNamespace(max_epochs=-1, max_steps=500, global_step=7), 0.035) == "epoch 0.035, step 7/500"
    )
    assert describe_place(SimpleNamespace(max_epochs=None, max_steps=-1, global_step=7), 3) == "epoch 3"


@pytest.mark.parametrize("start", [0, 4])
def test_lines_of_a_training(monkeypatch, capsys, start):
    """Epochs of 10 s each, the first one of 100 s: of a new and of a resumed training of 12 epochs."""
    clock = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    model = SimpleNamespace(monitored="elbo", epochs=start, results={}, batches_per_epoch=20, last_metrics={})
    trainer = SimpleNamespace(
        max_epochs=12, max_steps=-1, global_step=0, current_epoch=start, is_global_zero=True, lightning_module=model
    )
    lines = Progress(every_n_seconds=0.0)
    lines._trainer = trainer
    lines.on_train_start(trainer)
    for epoch in range(start, 12):
        trainer.current_epoch = epoch
        lines.on_train_epoch_start(trainer)
        clock[0] += 100 if epoch == start else 10
        model.epochs = epoch + 1
        model.results = {"train": {"elbo": -20.0 + epoch}, "val": {"elbo": -21.0}}
    lines.on_train_end(trainer)
    found = capsys.readouterr().err.splitlines()
    assert len(found) == 12 - start
    left = describe_time(100 * (11 - start))
    assert found[0] == f"epoch {start + 1}/12  train elbo {start - 20:.2f}  val elbo -21.00  {left} left"
    assert found[1].endswith(f"  {describe_time(55 * (10 - start))} left")  # of both epochs
    assert found[5].endswith(f"  {describe_time(10 * (6 - start))} left")  # of the last five
    assert found[-1] == "epoch 12/12  train elbo -9.00  val elbo -21.00"


def test_a_terminal_without_a_width_gets_lines(monkeypatch):
    """In the terminal of ``script``, which has no size, a bar is not drawn."""
    for columns, lines in ((0, True), (80, False)):
        monkeypatch.setattr("sys.stdout", SimpleNamespace(isatty=lambda: True))
        monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: True, fileno=lambda: 2))
        size = os.terminal_size((columns, 24))
        system = SimpleNamespace(get_terminal_size=lambda _, size=size: size)
        monkeypatch.setattr("vaezoo.callbacks.progress.os", system)
        assert Progress().prints_lines == lines
