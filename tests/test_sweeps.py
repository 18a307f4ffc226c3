"""Sweeps: the same table for every launcher, searches that survive failed trials, and what the terminal shows."""

import csv
import json
import math
import os
import shlex
import subprocess
import sys

import pytest
from conftest import REPO, command

from vaezoo.runs.folder import RunFolder
from vaezoo.runs.sweep import COLUMNS, best_rows, print_sweep_table, split_overrides

# A task without torch. Its objective is best at lr=1e-3; it diverges for lr > 1. The test ELBO prefers the largest lr.
STUB = """
import json, math, os
from pathlib import Path

def task(config):
    lr, folder = config["optimizer"]["lr"], Path(config["run_dir"])
    (folder / "group").write_text(os.environ["WANDB_RUN_GROUP"])
    if lr > 1:
        raise ValueError("training diverged")
    summary = {"status": "completed", "model": config["name"], "scored": "bits", "objective": -abs(math.log10(lr) + 3),
               "test": {"elbo": lr, "kl": 1.0, "log_px": 1.0 + lr}, "wall_seconds": 1.0}
    (folder / "summary.json").write_text(json.dumps(summary))
"""


@pytest.fixture
def sweep(tmp_path, cli, monkeypatch):
    """Return a function that runs a sweep of the stub: its process and the sweep's folder."""
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "more" / "task").mkdir(parents=True)
    (tmp_path / "more" / "task" / "stub.yaml").write_text("_target_: stub.task\n_partial_: true\n")
    monkeypatch.syspath_prepend(str(tmp_path))  # for jobs in this process
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # and in others
    monkeypatch.setenv("COLUMNS", "80")

    def run(*overrides, own_process=False):
        words = ["--config-dir=more", "task=stub", "allow_packages=[stub]", "logger=none", "hydra.sweep.dir=S"]
        if own_process:
            return command(*words, *overrides, "-m", cwd=tmp_path), tmp_path / "S"
        code, out, err, _ = cli(*words, *overrides, "-m")
        return subprocess.CompletedProcess(words, code, out, err), tmp_path / "S"

    yield run
    sys.modules.pop("stub", None)


def rows(folder):
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def table_of(text):
    """Return the printed table, from its first line to the path of the file."""
    lines = [line.rstrip() for line in text.splitlines()]
    start = max(number for number, line in enumerate(lines) if " jobs" in line and "all with" in line)
    return lines[start : next(n for n, line in enumerate(lines) if line.startswith("table: ")) + 1]


LAUNCHERS = {"subprocess": None, "subprocess jobs=1": None, "basic": None, "joblib": "joblib",
             "submitit_local": "submitit"}  # fmt: skip


def test_every_launcher_leaves_the_same_table(sweep, tmp_path):
    """One job diverges: the others run, and the table, summary.csv, the W&B group and the exit code are the same."""
    found = []
    for launcher, package in LAUNCHERS.items():
        if package:
            pytest.importorskip(package, reason="needs the extra 'sweep'")
        words = f"hydra/launcher={launcher} optimizer.lr=1e-3,1e6,1e-2 seed=7".split()
        done, folder = sweep(*words, *["jobs=2"] * (launcher == "subprocess"))
        assert done.returncode == 1, done.stderr
        last = "error: 1 of 3 jobs failed, the first is job 1: training diverged"
        assert done.stderr.splitlines()[-1] == last
        told = done.stdout.splitlines().count("job 1: training diverged")  # side by side, also when it ends
        assert told == (2 if launcher == "subprocess" else 1)
        assert "Error executing job" not in done.stderr
        assert [row["status"] for row in rows(folder)] == ["completed", "training diverged", "completed"]
        assert {(folder / str(job) / "group").read_text() for job in range(3)} == {"S"}
        assert list(folder.glob(".summary*")) == []
        found.append(((folder / "summary.csv").read_text(), table_of(done.stdout)))
        folder.rename(tmp_path / launcher)
    assert all(other == found[0] for other in found)


def test_a_wrong_number_of_jobs_is_reported_at_once(sweep):
    done, folder = sweep("seed=0,1", "jobs=0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: jobs=0 should be an integer >= 1, or auto\n"
    assert not folder.exists()


@pytest.mark.parametrize("launcher", ["subprocess", "basic"])
def test_a_sweep_in_a_folder_with_other_results_is_refused(sweep, launcher):
    """One sentence, whatever the launcher. With resume=auto the same sweep skips the jobs that are complete."""
    words = (f"hydra/launcher={launcher}", "optimizer.lr=1e-3,1e-2")
    assert sweep(*words)[0].returncode == 0
    done, folder = sweep(*words, "seed=1")
    assert done.returncode == 1
    assert done.stderr.startswith("error: S holds the sweep of another command (")
    (folder / "0" / "group").unlink()
    done, folder = sweep(*words, "resume=auto")
    assert done.returncode == 0, done.stderr
    assert not (folder / "0" / "group").exists()
    assert len(rows(folder)) == 2


def search(sweep, *overrides, **options):
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    return sweep("hydra/sweeper=optuna", "hydra/launcher=basic", *overrides, **options)  # the quickest launcher


def test_a_search_maximizes_the_validation_and_survives_failed_trials(sweep, tmp_path):
    """12 trials, some of which diverge: the best one by validation is printed as a command that runs."""
    words = ["optimizer.lr=choice(1e-5,1e-3,1e-1,1e6)", "hydra.sweeper.n_trials=12", "seed=3"]
    done, folder = search(sweep, *words, own_process=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("12 trials maximize the best val/elbo of a run")
    trials = rows(folder)
    assert len(trials) == 12
    diverged = [row for row in trials if row["status"] == "training diverged"]
    assert len(diverged) >= 2
    assert all("optimizer.lr=1000000.0" in row["overrides"] for row in diverged)
    text = (folder / "best_command.txt").read_text()
    assert done.stdout.splitlines()[-1] == text.strip()
    assert "float-castable" not in done.stderr
    assert "optimizer.lr=0.001" in text
    assert "best_value: -0.0" in (folder / "optimization_results.yaml").read_text()
    words = shlex.split(text)
    assert words[:2] == ["python", str(REPO / "run.py")]
    assert "seed=3" in words
    again = [sys.executable, *words[1:], "hydra.run.dir=again"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), str(tmp_path)]), "WANDB_RUN_GROUP": "x"}
    subprocess.run(again, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert json.loads((tmp_path / "again" / "summary.json").read_text())["objective"] == pytest.approx(0)


def test_a_search_follows_the_mode_of_the_best_checkpoint(sweep):
    """If the best checkpoint has the smallest value, a search minimizes."""
    words = ("callbacks.checkpoint_best.mode=min", "callbacks.checkpoint_best.monitor=val/loss")
    done, folder = search(sweep, "optimizer.lr=choice(1e-3,1e-5)", "hydra.sweeper.n_trials=4", *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "4 trials minimize the best val/loss of a run"
    assert "optimizer.lr=1e-05" in (folder / "best_command.txt").read_text()


def test_a_search_in_which_all_trials_fail(sweep):
    """The table with the reasons is printed, and the exit code is 1."""
    done, folder = search(sweep, "optimizer.lr=choice(1e6,1e7)", "hydra.sweeper.n_trials=2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: 2 of 2 jobs failed, the first is job 0: training diverged"
    assert "job 0, 1: training diverged" in done.stdout
    assert not (folder / "best_command.txt").exists()


def test_a_search_without_a_best_checkpoint_asks_for_the_direction(sweep):
    words = ("optimizer.lr=choice(1e-3,1e-5)", "hydra.sweeper.n_trials=1", "callbacks.checkpoint_best=null")
    done, _folder = search(sweep, *words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the direction of the search follows callbacks.checkpoint_best, which is null")


def test_several_directions_are_refused(sweep):
    done, _folder = search(sweep, "optimizer.lr=choice(1e-3,1e-4)", "hydra.sweeper.direction=[maximize,minimize]")
    assert done.returncode == 1
    assert done.stderr == (
        "error: hydra.sweeper.direction=['maximize', 'minimize']: use maximize or minimize, a run has one objective\n"
    )


def test_a_search_on_digits(cli, tmp_path):
    """Real runs, of which some diverge: the best one is the best."""
    pytest.importorskip("optuna", reason="needs the extra 'sweep'")
    small = ("model.encoder.hidden=[16]", "model.decoder.hidden=[16]", "logger=csv", "callbacks.images=null")
    code, _out, err, _ = cli(
        "hydra/sweeper=optuna", "optimizer.lr=choice(1e-3,1e6)", "hydra.sweeper.n_trials=3", "trainer.max_epochs=1",
        *small, "hydra.sweep.dir=S", "-m",
    )  # fmt: skip
    assert code == 0, err
    trials = rows(tmp_path / "S")
    good = [row for row in trials if row["status"] == "completed"]
    bad = [row for row in trials if row["status"].startswith("training diverged")]
    assert (len(good), len(bad)) == (1, 2)
    assert "optimizer.lr=0.001" in (tmp_path / "S" / "best_command.txt").read_text()
    values = csv.DictReader((tmp_path / "S" / good[0]["job"] / "metrics.csv").open())
    best = max(float(row["val/elbo"]) for row in values if row["val/elbo"])
    assert float(good[0]["objective"]) == pytest.approx(best, rel=1e-6)
    assert float(good[0]["objective"]) != float(good[0]["test_elbo"])


# The table.


def make_jobs(folder, *jobs):
    """Write the folders of jobs: overrides and test ELBO, or overrides and the reason of a failure."""
    for number, (overrides, outcome) in enumerate(jobs):
        job = RunFolder(folder / str(number))
        job.path.mkdir(parents=True)
        job.write_job(number, overrides)
        if isinstance(outcome, str):
            job.write_summary({"status": "failed", "error": outcome})
        else:
            test = {"elbo": outcome, "kl": 21.5, "log_px": outcome + 21.5}
            model = {"status": "completed", "model": "mlp_vae", "scored": "bits", "test": test, "wall_seconds": 1234.5}
            job.write_summary(model)


LONG = "training diverged: the loss is not finite in step 1 (loss nan): try a smaller optimizer.lr"


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("many", [False, True])
def test_the_table_fits_the_terminal(tmp_path, capsys, monkeypatch, columns, many):
    """Shared overrides stand once above it, at most two lines a job, no line is too long, and paths stand below."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shared = ["data=mnist", "data.root=/data/of/all", "trainer.max_epochs=100", "callbacks.images.every_n_epochs=50"]
    more = ["model.encoder.hidden=[400,400]", "scheduler=cosine", "model/prior=vamp"] if many else []
    jobs = [
        ([*shared, f"model={model}", f"optimizer.lr={lr}", f"seed={seed}", *(more if seed else [])], -101.25 - seed)
        for model in ("mlp_vae", "beta_tc_vae") for lr in ("0.0012345678", "0.0001") for seed in (0, 1)
    ]  # fmt: skip
    make_jobs(tmp_path / "sweep", *jobs, ([*shared, "model=iwae", "optimizer.lr=1e6", "seed=0"], LONG))
    print_sweep_table(tmp_path / "sweep")
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(len(line) for line in lines[:-1]) <= columns
    assert lines[-1] == f"table: {tmp_path / 'sweep' / 'summary.csv'}"
    assert " ".join(lines).count("trainer.max_epochs=100") == 1
    text = " ".join(lines)
    assert "9 jobs, all with data=mnist data.root=/data/of/all trainer.max_epochs=100" in text
    assert "test set, nats per example, log p of bits" in lines
    assert f"job 8: {LONG}" in text
    start = next(n for n, line in enumerate(lines) if line.startswith(" job"))
    body = lines[start + 2 : next(n for n, line in enumerate(lines) if line.startswith("job 8"))]
    assert len([line for line in body if line]) <= (3 if many and columns == 80 else 1) * 9
    assert all(name in lines[start] for name in ("test ELBO", "status"))
    assert ("distortion" in lines[start]) or columns == 80
    assert sum("completed" in line for line in body) == 8
    assert sum("beta_tc_vae" in line for line in body) == 4


def test_kinds_of_elbo_are_told_apart(tmp_path, capsys):
    """With several kinds of log p(x) the table has a column for it, and each has its own best job."""
    make_jobs(tmp_path, (["seed=0"], -3.0), (["seed=1"], -2.0))
    summary = json.loads((tmp_path / "0" / "summary.json").read_text())
    (tmp_path / "0" / "summary.json").write_text(json.dumps(summary | {"scored": "density"}))
    print_sweep_table(tmp_path)
    out = capsys.readouterr().out
    assert "log p of" in out
    assert "density" in out
    assert next(csv.reader((tmp_path / "summary.csv").open())) == list(COLUMNS)


def test_best_rows():
    """Failed jobs and jobs without the number are never the best; kinds are not compared."""
    jobs = [("bits", -3.0, "completed"), ("bits", -2.0, "completed"), ("bits", math.inf, "failed"),
            ("density", 9.0, "completed"), ("bits", None, "completed")]  # fmt: skip
    table = [{"scored": kind, "objective": value, "state": state} for kind, value, state in jobs]
    assert best_rows(table, "objective") == [table[1], table[3]]
    assert best_rows(table, "objective", "minimize") == [table[0], table[3]]
    assert best_rows([], "objective") == []


def test_split_overrides():
    assert split_overrides([["a=1", "b=x=y"], ["b=x=z", "a=1"]]) == (["a=1"], [{"b": "x=y"}, {"b": "x=z"}])
    assert split_overrides([["a=1"]]) == (["a=1"], [{}])
