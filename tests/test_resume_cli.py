"""Resume from the command line: which folder a command continues in, which jobs a sweep repeats, how a run exits."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPO

from vaezoo.errors import ConfigError
from vaezoo.runs import folder as folder_module
from vaezoo.runs.folder import RunFolder, locked, write_atomic
from vaezoo.runs.jobs import Jobs, exit_reason
from vaezoo.runs.overrides import by_key, is_larger_comparison
from vaezoo.runs.resume import can_resume, is_complete, resolve_resume
from vaezoo.runs.signals import Stopped
from vaezoo.runs.sweep import print_sweep_table
from vaezoo.tasks.fit import config_differences, prepare_resume

# A task that does what plan.json says for its seed, and counts how often it was called.
STUB = """
import json, os, signal, time
from pathlib import Path
from vaezoo.runs.signals import SIGNALS, Stopped

def task(config):
    folder = Path(config["run_dir"])
    def stop(signum, frame):
        with (folder / "heard").open("a") as file:
            file.write(f"{signal.Signals(signum).name}\\n")
        time.sleep(0.2)  # in which it saves
        raise Stopped(signum, "last.ckpt")

    with (folder / "tries").open("a") as file:
        file.write(f"{config['resume']} {(folder / 'summary.json').exists()}\\n")
    deed = json.loads(Path("plan.json").read_text()).get(str(config["seed"]), "done")
    if deed == "raise":
        raise ValueError("no luck")
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "wait":
        for signum in SIGNALS:
            signal.signal(signum, stop)
        (folder / "group").write_text(str(os.getpgrp()))
        (folder / "ready").touch()
        time.sleep(60)
    if deed.startswith("done"):
        summary = {"status": "completed", "model": "stub", "test": {"elbo": -100.5, "kl": 10, "log_px": -90.5}}
        (folder / "summary.json").write_text(json.dumps(summary))
    if deed == "done, then stopped":
        raise Stopped(signal.SIGTERM)
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """Return the overrides that run the stub, in an empty folder. The plan says what each seed does."""
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "more" / "task").mkdir(parents=True)
    (tmp_path / "more" / "task" / "stub.yaml").write_text("_target_: stub.task\n_partial_: true\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def words(**plan):
        (tmp_path / "plan.json").write_text(
            json.dumps({name.removeprefix("seed"): deed for name, deed in plan.items()})
        )
        return ["--config-dir=more", "task=stub", "allow_packages=[stub]", "logger=none"]

    yield words
    sys.modules.pop("stub", None)


def start(*arguments, **settings):
    """Start run.py in a process of its own, in this folder."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | settings
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), os.getcwd()])}
    return subprocess.Popen([sys.executable, str(REPO / "run.py"), *arguments], env=environment, **pipes)


def tries(folder):
    return (folder / "tries").read_text().splitlines()


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def table(sweep):
    with (sweep / "summary.csv").open() as file:
        return {int(row["job"]): row for row in csv.DictReader(file)}


def test_auto_continues_in_the_same_folder_until_the_run_is_complete(cli, stub):
    """No run, a failed run, failed again, complete: all in one folder, and a complete run is not repeated."""
    words = stub(seed0="raise")
    code, out, err, run = cli(*words, "resume=auto")
    assert code == 1
    assert "no run of this command was found, a new one starts" in out
    assert "error: no luck" in err
    assert summary(run)["status"] == "failed"

    code, out, _err, new = cli(*words, "resume=auto")
    assert (code, new) == (1, None)
    assert f"resuming in {run.relative_to(run.parents[2])}" in out

    words = stub(seed0="done")
    code, *_ = cli("resume=auto", *words[::-1])  # the order of words says nothing
    assert code == 0
    assert tries(run) == ["auto False"] * 3  # no attempt finds the summary of an earlier one
    assert summary(run)["status"] == "completed"

    code, out, _err, new = cli(*words, "resume=auto")
    assert (code, new) == (0, None)
    assert "is complete: test ELBO -100.500 nats per image" in out
    assert len(tries(run)) == 3
    assert sorted(path.name for path in (run / ".hydra").iterdir()) == ["config.yaml", "hydra.yaml", "overrides.yaml"]


def test_auto_finds_the_newest_run_of_this_command(cli, stub):
    """A run with another seed is of another command. Without resume each command starts a new run."""
    words = stub(seed0="raise", seed1="raise")
    _code, _out, _err, _old = cli(*words, "seed=0")
    _code, _out, _err, mine = cli(*words, "seed=0")
    _code, _out, _err, _other = cli(*words, "seed=1")
    _code, _out, _err, new = cli(*words, "seed=0", "resume=auto")
    assert new is None
    assert tries(mine) == ["None False", "auto False"]
    _code, _out, _err, new = cli(*words, "seed=2", "resume=auto")
    assert new is not None


def test_auto_finds_a_run_that_differs_in_keys_without_effect_on_the_training(cli, stub):
    """An unfinished run continues with the new overrides. A complete run with other overrides is of another command."""
    words = stub(seed0="raise")
    _code, _out, _err, run = cli(*words, "seed=0", "logger=csv", "trainer.max_epochs=5")
    _code, _out, _err, longer = cli(*words, "seed=0", "resume=auto", "trainer.max_epochs=6")
    assert longer is not None
    _code, out, _err, new = cli(*words, "seed=0", "resume=auto", "trainer.max_epochs=5", "debug=true", "logger=none")
    assert new is None
    assert f"resuming in {run.relative_to(Path.cwd())}" in out
    assert "- debug=true" in (run / ".hydra" / "overrides.yaml").read_text().splitlines()
    stub()
    _code, _out, _err, new = cli(*words, "seed=0", "resume=auto", "trainer.max_epochs=5", "logger=csv")
    assert new is None
    assert summary(run)["status"] == "completed"
    _code, _out, _err, new = cli(*words, "seed=0", "resume=auto", "trainer.max_epochs=5", "debug=true")
    assert new is not None


def test_auto_in_a_given_folder(cli, stub):
    """hydra.run.dir=FOLDER: the run starts and continues there, and another command is refused."""
    words = [*stub(seed0="raise"), "hydra.run.dir=some 'place'"]
    words[-1] = r"hydra.run.dir='some \'place\''"
    folder = Path("some 'place'")
    for begins in (True, False):
        code, out, *_ = cli(*words, "resume=auto")
        assert code == 1
        assert bool(out) != begins  # the jobs of a sweep, each in its given folder, print nothing when they start
    assert len(tries(folder)) == 2
    code, _out, err, _new = cli(*words, "resume=auto", "seed=1")
    assert code == 1
    assert "error: some 'place' holds the run of another command: choose another hydra.run.dir" in err


def test_a_run_folder_continues_with_its_own_overrides(cli, stub):
    """run=FOLDER needs no other override. The model cannot be changed, the length of the training can."""
    words = stub(seed3="raise")
    _code, _out, _err, run = cli(*words, "seed=3", "trainer.max_epochs=5")
    code, _out, err, _new = cli(words[0], words[2], f"run={run}")
    assert (code, err.strip()) == (1, "error: no luck")
    stub()
    for word in ("seed=4", "optimizer.lr=1", "+trainers=1"):
        code, _out, err, _new = cli(words[0], words[2], f"run={run}", word)
        assert f"{word} cannot be changed" in err
    code, _out, err, new = cli(words[0], words[2], f"run={run}", "trainer.max_epochs=9", "seed=3")
    assert (code, new) == (0, None)
    assert tries(run) == ["None False", "auto False", "auto False"]
    assert "trainer.max_epochs=9" in (run / ".hydra" / "overrides.yaml").read_text()
    code, out, _err, _new = cli(words[0], words[2], f"run={run}")
    assert "is complete: test ELBO" in out
    assert len(tries(run)) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["run=nowhere"],
            "run=nowhere is not the folder of a run, it has no .hydra/overrides.yaml: use a folder outputs/DATE/TIME",
        ),
        (
            ["run=evaluated"],
            "run=evaluated is the folder of task=evaluate, not of a training: use the folder of a training",
        ),
        (["-m", "run=evaluated"], "run=evaluated resumes a single run: remove -m"),
        (["resume=yes"], "resume=yes is not known: use resume=auto or resume=null"),
        (["resume=auto", "seed=[1"], "seed=[1 cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(cli, tmp_path, arguments, sentence):
    (tmp_path / "evaluated" / ".hydra").mkdir(parents=True)
    (tmp_path / "evaluated" / ".hydra" / "overrides.yaml").write_text("- task=evaluate\n- run=somewhere\n")
    code, _out, err, new = cli(*arguments)
    assert (code, new) == (1, None)
    assert err.startswith(f"error: {sentence}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "overrides", [[], ["seed=1"], ["task=evaluate", "run=x"], ["resume=null"], ["run=null"]], ids=" ".join
)
def test_other_commands_stay_as_they_are(overrides):
    assert resolve_resume(overrides, multirun=False) == overrides


@pytest.mark.parametrize("arguments", [["--help", "resume=auto"], ["--cfg", "job", "run=x"]], ids=" ".join)
def test_help_and_config_are_shown_without_resuming(cli, arguments):
    code, out, err, run = cli(*arguments)
    assert (code, err, run) == (0, "", None)
    assert "resume" in out


def test_an_empty_record_is_no_record(tmp_path, monkeypatch):
    """A folder whose overrides were lost is not the run of a command without overrides."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "day" / "time" / ".hydra"
    folder.mkdir(parents=True)
    (folder / "overrides.yaml").write_text("")
    assert resolve_resume(["resume=auto"], multirun=False) == ["resume=auto"]
    (folder / "overrides.yaml").write_text("[]\n")
    assert resolve_resume(["resume=auto"], multirun=False)[1] == "hydra.run.dir='outputs/day/time'"


def test_a_folder_in_use_is_refused(cli, stub):
    """Two processes never write to one folder. The lock ends with its process, even if that is killed."""
    words = stub(seed0="wait")
    with start(*words) as process:
        while not (ready := list(Path().glob("outputs/*/*/ready"))):
            time.sleep(0.05)
        run = ready[0].parent
        code, _out, err, new = cli(*words, "resume=auto")
        assert (code, new) == (1, None)
        sentence = "is in use by a run that has not ended: wait for it or stop it"
        assert err == f"error: {run.resolve()} {sentence}\n"
        assert not (run / "summary.json").exists()
        process.kill()
    with locked(run):
        pass


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_in_a_run(stub, signum, code):
    """One line, 128 + the signal's number, and a summary that says interrupted."""
    with start(*stub(seed0="wait")) as process:
        while not (ready := list(Path().glob("outputs/*/*/ready"))):
            time.sleep(0.05)
        process.send_signal(signum)
        _out, err = process.communicate()
    assert process.returncode == code
    name = signal.Signals(signum).name
    assert err.splitlines() == [f"stopped by {name}; saved last.ckpt; repeat the command with resume=auto to continue"]
    assert summary(ready[0].parent)["error"] == f"interrupted by {name}"
    assert summary(ready[0].parent)["status"] == "interrupted"


def test_a_signal_after_the_end_leaves_the_summary(cli, stub):
    code, _out, _err, run = cli(*stub(seed0="done, then stopped"))
    assert code == 143
    assert summary(run)["status"] == "completed"


def test_a_repeated_sweep_runs_the_missing_jobs(stub):
    """Completed jobs are skipped. Failed, killed and new jobs run, each old one in its own folder."""
    words = ["-m", *stub(seed1="raise", seed2="kill"), "resume=auto"]
    with start(*words, "seed=0,1,2") as first:
        out, _err = first.communicate()
    assert first.returncode == 1
    assert "no sweep of this command was found" in out
    (sweep,) = Path().glob("multirun/*/*")
    status = [row["status"] for row in table(sweep).values()]
    assert status == ["completed", "no luck", "killed by SIGKILL"]
    assert table(sweep)[0]["overrides"] == "task=stub allow_packages=[stub] logger=none seed=0"

    # As if a glob(...) in the command now matched one more choice, before all others.
    record = (sweep / "sweep.json").read_text()
    write_atomic(sweep / "sweep.json", record.replace("seed=0,1,2", "seed=9,0,1,2"))
    stub(seed2="kill")
    with start(*words, "seed=9,0,1,2") as second:
        out, err = second.communicate()
    assert second.returncode == 1
    assert err.splitlines()[-1] == "error: 1 of 4 jobs failed, the first is job 2: killed by SIGKILL"
    assert "job 0:" not in out
    assert [len(tries(sweep / str(number))) for number in range(4)] == [1, 2, 2, 1]
    assert table(sweep)[3]["overrides"].endswith("seed=9")
    assert [row["status"] for row in table(sweep).values()].count("completed") == 3
    assert len(list(Path().glob("multirun/*/*"))) == 1


def test_interpolations_in_a_sweep_are_those_of_each_job(stub):
    """``${...}`` is resolved with the config of each job."""
    with start("-m", *stub(), "seed=0,1", "+note=${run_dir}", "resume=auto") as process:
        process.communicate()
    assert process.returncode == 0
    (sweep,) = Path().glob("multirun/*/*")
    assert "+note=${run_dir}" in json.loads((sweep / "sweep.json").read_text())
    assert [row["status"] for row in table(sweep).values()] == ["completed", "completed"]


@pytest.fixture
def listening():
    """Let programs that the test starts receive Ctrl-C, even if the test runs in the background and ignores it."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("listening")
def test_ctrl_c_in_a_sweep(stub):
    """A terminal sends Ctrl-C to a process group. The job gets it once: a second one would make it exit at once."""
    words = ["-m", *stub(seed1="wait"), "seed=1,2", "jobs=1"]
    with start(*words, start_new_session=True) as process:
        while not (ready := list(Path().glob("multirun/*/*/0/ready"))):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate()
    sweep = ready[0].parents[1]
    assert process.returncode == 130, err
    assert [row["status"] for row in table(sweep).values()] == ["interrupted by SIGINT", "not finished"]
    assert f"table: {sweep / 'summary.csv'}" in out
    assert (sweep / "0" / "heard").read_text() == "SIGINT\n"
    assert int((sweep / "0" / "group").read_text()) != process.pid
    assert not (sweep / "1" / "tries").exists()
    assert "Traceback" not in err


def test_sigterm_in_a_sweep(stub):
    """The running job saves before the sweep ends, and the same command runs the other jobs."""
    words = ["-m", *stub(seed1="wait"), "seed=1,2", "jobs=1"]
    with start(*words) as process:
        while not (ready := list(Path().glob("multirun/*/*/0/ready"))):
            time.sleep(0.05)
        process.terminate()
        _out, err = process.communicate()
    sweep = ready[0].parents[1]
    assert process.returncode == 143
    assert [row["status"] for row in table(sweep).values()] == ["interrupted by SIGTERM", "not finished"]
    assert err.splitlines() == [
        "stopped by SIGTERM; saved last.ckpt; repeat the command with resume=auto to continue",
        "stopped by SIGTERM; repeat the command with resume=auto to continue",
    ]
    stub()
    with start(*words, "resume=auto") as again:
        again.communicate()
    assert again.returncode == 0
    assert [tries(sweep / str(number)) for number in range(2)] == [["None False", "auto False"], ["auto False"]]


def test_a_lock_does_not_outlive_its_process(tmp_path):
    """A forked worker, which may outlive its parent for seconds, does not lock the folder."""
    with locked(tmp_path):
        worker = os.fork()
        if worker == 0:
            signal.pause()
    try:
        with locked(tmp_path):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


def test_the_table_keeps_brackets(tmp_path, capsys):
    """Brackets in overrides and errors are printed and not read as markup."""
    (tmp_path / "job.json").write_text('{"job": 0, "overrides": ["a.hidden=[400]"]}')
    (tmp_path / "summary.json").write_text('{"error": "got [bold]"}')
    print_sweep_table(tmp_path)
    out = capsys.readouterr().out
    assert "a.hidden=[400]" in out
    assert "got [bold]" in out


def test_the_reason_in_an_exit_code():
    assert [exit_reason(code) for code in (-11, 143, 7)] == [
        "killed by SIGSEGV", "interrupted by SIGTERM", "ended with exit code 7"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "now", "grows"),
    [
        ("seeds=2", "seeds=3", True),
        ("seeds=2", "seeds=[0,1,7]", True),
        ("seeds=2", "", True),  # three
        ("", "seeds=5", True),
        ("", "seeds=[5]", False),
        ("seeds=[1,2]", "seeds=2", False),
        ("models=[mlp_vae]", "models=[mlp_vae,'iwae optimizer.lr=1']", True),
        ("models=[mlp_vae,iwae]", "models=[mlp_vae]", False),
        ("task.num_samples=5", "task.num_samples=50", True),  # the trainings are the same
        ("trainer.max_epochs=5", "trainer.max_epochs=50", False),
        ("seeds=2", "seeds=1,2", False),
        ("seeds=2.5", "seeds=3", True),
        ("task=fit", "seeds=3", False),
        ("", "task=fit", False),
    ],
)
def test_a_comparison_that_grows(before, now, grows):
    """The models and seeds in the folder must be among those of the command."""
    common = ["task=compare", "models=[mlp_vae]", "data=mnist"]
    words = [[*common, *filter(None, [own])] for own in (now, before)]
    assert is_larger_comparison(*map(by_key, words)) == grows


def test_differences_between_configs():
    """Differences that affect the training are reported, but not the folder of the data."""
    before = {"seed": 0, "data": {"root": "/a/data", "val_size": 10}, "trainer": {"max_epochs": 2}, "debug": False}
    now = {"seed": 0, "data": {"root": "/b/data", "val_size": 20}, "trainer": {"max_epochs": 9}, "debug": True}
    assert list(config_differences(before, now)) == [("data.val_size", 10, 20)]


def test_a_complete_run_that_is_resumed_has_no_speed(cli):
    """It trains no more, and started from another folder it is the same run."""
    code, out, _err, run = cli("trainer.max_epochs=1", "logger=none", "callbacks.images=null")
    assert code == 0
    assert "images/s in training" in out
    Path("elsewhere").mkdir()
    os.chdir("elsewhere")
    code, out, err, _ = cli(f"run={run}", "callbacks.checkpoint_last.every_seconds=9")
    assert code == 0
    assert "20 steps (1 epoch) in " in out
    assert "images/s" not in out
    resuming, *header = err.splitlines()
    assert resuming == f"resuming from {run}/checkpoints/last.ckpt, step 20"
    assert header[-1] == f"run folder: {run}"


@pytest.mark.parametrize(
    ("words", "early"),
    [(["logger=wandb"], True), (["logger=csv"], False), (["logger=wandb", "run=x"], False)],
    ids=str,
)
def test_wandb_is_imported_before_torch(stub, words, early):
    """For a run that logs to W&B: after torch the import takes longer."""
    order = "import sys\ndef task(config):\n    print('wandb.apis.public' in sys.modules, 'torch' in sys.modules)\n"
    first = stub()[:-1]  # without logger=none
    Path("stub.py").write_text(order)
    with start(*first, *words) as process:
        out, _err = process.communicate()
    assert out == f"{early} False\n"


def test_what_resume_continues():
    """A training, a sweep and a comparison; not a task that applies a run."""
    assert all(map(can_resume, ([], ["model=iwae"], ["task=fit"], ["task=compare"])))
    assert not any(map(can_resume, (["task=export", "run=x"], ["run=x", "task=impute"], ["task=check"])))


def test_write_atomic_keeps_the_old_text_if_it_fails(tmp_path):
    path = tmp_path / "a.json"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\ud800")
    assert path.read_text() == "old"


def test_stopped_is_not_caught_as_an_exception():
    assert not issubclass(Stopped, Exception)
    assert str(Stopped(signal.SIGTERM)) == "stopped by SIGTERM"


def test_the_message_of_a_full_disk():
    """The message does not depend on the file."""
    from vaezoo.error_messages import describe_error

    assert describe_error(OSError(28, "No space left on device")).startswith(
        "no space left on the run's disk: make room"
    )


def test_a_run_cannot_continue_to_fewer_epochs(tmp_path):
    """It is refused before anything in the folder changes, because its results would be lost."""
    from vaezoo.errors import ConfigError
    from vaezoo.runs.resume import resolve_resume

    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- trainer.max_epochs=5\n")
    summary = '{"status": "completed", "epochs": 5}'
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(ConfigError, match=r"trainer\.max_epochs=2 is less than the 5 epochs"):
        resolve_resume([f"run={tmp_path}", "trainer.max_epochs=2"], multirun=False)
    assert (tmp_path / "summary.json").read_text() == summary


def test_an_interrupted_run_cannot_continue_to_fewer_epochs(cli):
    """It has no summary, so the checkpoint counts; the epochs that it has are enough."""
    words = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "logger=none", "callbacks.images=null")
    run = cli("trainer.max_epochs=3", *words)[-1]
    for epochs in (2, 3):
        (run / "summary.json").unlink()
        code, _, err, _ = cli(f"run={run}", f"trainer.max_epochs={epochs}")
        error = f"error: trainer.max_epochs=2 is less than the 3 epochs of {run}/checkpoints/last.ckpt: use a larger"
        assert (code, error in err) == ((1, True) if epochs == 2 else (0, False))


def finished(folder):
    """Write a checkpoint as a training does."""
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")


def contents(folder):
    """Read every file in a folder except the lock and the config that Hydra writes before a sweep starts."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "multirun.yaml")]
    return {path: path.read_bytes() for path in files}


def test_the_record_is_what_hydra_would_write(cli, stub):
    """Config, Hydra's own part and overrides are equal, byte by byte."""
    words = stub()
    code, *_ = cli(*words, "seed=3", "+note=${run_dir}", "hydra.run.dir=D", "hydra.output_subdir=theirs")
    assert code == 0
    for name in ("config.yaml", "hydra.yaml", "overrides.yaml"):
        assert Path("D", ".hydra", name).read_text() == Path("D", "theirs", name).read_text()


def test_a_folder_with_results_is_refused_to_another_command(cli, stub):
    """Nothing in the folder changes. The same training needs resume=auto. A run without results does not count."""
    words = [*stub(seed1="raise"), "hydra.run.dir=D"]
    folder = Path("D")
    code, *_ = cli(*words, "seed=1", "+note=first")
    assert code == 1
    (folder / "metrics.csv").write_text("of the first attempt")
    code, *_ = cli(*words, "seed=0", "+note=second")  # it left no checkpoint
    assert code == 0
    assert not (folder / "metrics.csv").exists()
    finished(folder)
    before = contents(folder)
    for more in (["seed=5", "+note=second"], ["seed=5", "+note=second", "resume=auto"], []):
        code, _out, err, _new = cli(*words, *more)
        assert code == 1
        assert len(err.splitlines()) == 1
        assert "D holds the run of another command" in err
        assert contents(folder) == before
    words_there = "task=stub allow_packages=[stub] logger=none seed=0 +note=second"
    assert f"({words_there}): choose another hydra.run.dir, or delete it" in err
    code, _out, err, _new = cli(*words, "seed=0", "+note=second")
    assert code == 1
    assert err.startswith(f"error: {folder.resolve()} holds a run of this command: add resume=auto to continue it, or ")
    assert contents(folder) == before
    code, _out, err, _new = cli(words[0], words[2], f"run={folder}", "trainer.max_epochs=9")
    assert code == 1
    assert f"+note=second is recorded in {folder} and is not inherited" in err
    code, *_ = cli(words[0], words[2], f"run={folder}", "trainer.max_epochs=9", "+note=second")
    assert code == 0
    shutil.rmtree(folder / ".hydra")
    code, _out, err, _new = cli(*words, "seed=0")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "holds results without a record of their command" in err


def test_the_same_evaluation_again(cli, stub):
    """The same evaluation replaces its result; another one is refused."""
    words = [*stub(), "hydra.run.dir=D"]
    for _ in range(2):
        code, *_ = cli(*words, "seed=1")
        assert code == 0
    assert tries(Path("D")) == ["None False", "None False"]
    code, _out, err, _new = cli(*words, "seed=2")
    assert code == 1
    assert "holds the run of another command" in err


@pytest.mark.parametrize("after", range(4))
def test_a_kill_while_the_record_is_written(cli, stub, monkeypatch, after):
    """After a kill at any file, the next command can use the folder, and no result changes its command."""
    words = [*stub(seed1="raise"), "hydra.run.dir=D"]
    cli(*words, "seed=1")
    count = 0

    def dying(path, text):
        nonlocal count
        count += 1
        if count > after:
            raise OSError("killed")
        write_atomic(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "write_atomic", dying)
        assert cli(*words, "seed=2")[0] == (1 if after < 3 else 0)
    stub()
    assert cli(*words, "seed=2")[0] == 0
    assert "seed=2" in Path("D", ".hydra", "overrides.yaml").read_text()


def test_a_sweep_in_an_old_folder(stub):
    """Another sweep, the same sweep without resume, and a run are refused; nothing in the folder changes."""
    first = [*stub(), "hydra.sweep.dir=S"]
    with start("-m", *first, "seed=1") as process:
        process.communicate()
    before = contents(Path("S"))
    for words, told in [
        (
            ["-m", *first, "seed=2"],
            "S holds the sweep of another command (task=stub allow_packages=[stub] logger=none seed=1): choose",
        ),
        (["-m", *first, "seed=1"], "S holds this sweep: add resume=auto to continue it"),
        ([*first, "seed=1", "hydra.run.dir=S"], "S holds a sweep: choose another hydra.run.dir"),
    ]:
        with start(*words) as process:
            _out, err = process.communicate()
        assert process.returncode == 1
        assert told in err
        assert len(err.splitlines()) == 1
        assert contents(Path("S")) == before


def test_a_run_is_resumed_only_with_its_own_config(cli):
    """Another seed, model, data, optimizer or scheduler is an error; a default that only one config has is reported."""
    small = ("logger=none", "callbacks.images=null", "model.encoder.hidden=[8]")
    code, _out, _err, run = cli("trainer.max_epochs=1", *small)
    assert code == 0
    config = summary(run)["config"]

    def changed(key, value):
        parts = key.split(".")
        other = json.loads(json.dumps(config))
        node = other
        for part in parts[:-1]:
            node = node.setdefault(part, {})
        node[parts[-1]] = value
        return other

    assert prepare_resume(config, []) == run / "checkpoints" / "last.ckpt"
    for key, value in [
        ("seed", 5), ("optimizer.lr", 0.1), ("model.latent_dim", 3), ("data.val_size", 10),
        ("scheduler._target_", "vaezoo.training.schedulers.cosine"), ("model.encoder.hidden", [9]),
    ]:  # fmt: skip
        with pytest.raises(ConfigError, match=rf"was trained with {key}=.*, not with {key}=.*: start a new run"):
            prepare_resume(changed(key, value), [])
    for key, value in [("model.news", 1), ("trainer.deterministic", True), ("threads", 1), ("trainer.max_epochs", 9)]:
        assert prepare_resume(changed(key, value), [])


def test_a_relative_data_folder_is_that_of_the_original_working_directory(cli, stub):
    """run=FOLDER from another working directory; an override of data.root is relative to the present one."""
    words = stub(seed0="raise")
    _code, _out, _err, run = cli(*words, "data=mnist", "data.root=here")
    Path("elsewhere").mkdir()
    home = Path.cwd()
    assert f"data.root='{home}/here'" not in resolve_resume([f"run={run}"], multirun=False)
    os.chdir("elsewhere")
    found = resolve_resume([f"run={run}"], multirun=False)
    assert f"data.root='{home}/here'" in found
    assert "data.root=here" not in found
    assert resolve_resume([f"run={run}", "data.root=there"], multirun=False).count("data.root=there") == 1


def test_a_comparison_is_complete_with_every_stage(tmp_path):
    """A comparison of an older version without an evaluation is continued, though its summary says completed."""
    done = '{"status": "completed"}'
    for part in ("", "runs/a-seed0", "evaluations/a-seed0", "runs/b-seed0"):
        (tmp_path / part).mkdir(parents=True, exist_ok=True)
        (tmp_path / part / "summary.json").write_text(done)
    assert not is_complete(RunFolder(tmp_path))
    (tmp_path / "evaluations" / "b-seed0").mkdir()
    (tmp_path / "evaluations" / "b-seed0" / "summary.json").write_text('{"status": "failed"}')
    assert not is_complete(RunFolder(tmp_path))
    (tmp_path / "evaluations" / "b-seed0" / "summary.json").write_text(done)
    assert is_complete(RunFolder(tmp_path))


def test_a_job_stops_if_its_parent_is_killed(stub):
    """The job saves; the same sweep waits for it and runs the missing jobs."""
    words = ["-m", *stub(seed1="wait"), "seed=1,2", "jobs=1"]
    with start(*words) as process:
        while not (ready := list(Path().glob("multirun/*/*/0/ready"))):
            time.sleep(0.05)
        process.kill()
        process.communicate()  # until the job, which has the same pipes, is gone too
    folder = ready[0].parent
    assert (folder / "heard").read_text() == "SIGTERM\n"
    assert summary(folder)["error"] == "interrupted by SIGTERM"
    stub()
    with start(*words, "resume=auto") as again:
        _out, err = again.communicate()
    assert (again.returncode, err) == (0, "")
    assert [row["status"] for row in table(folder.parent).values()] == ["completed", "completed"]


def test_a_job_waits_for_an_earlier_attempt(tmp_path, capsys):
    """Nothing in the folder changes while another process has locked it."""
    (tmp_path / "summary.json").write_text("{}")
    jobs = Jobs(tmp_path, [], resume=True, group="g")
    orphan = os.fork()
    if orphan == 0:
        with locked(tmp_path):
            (tmp_path / "locked").touch()
            time.sleep(1)
        os._exit(0)
    while not (tmp_path / "locked").exists():
        time.sleep(0.01)
    assert not jobs.wait_for_folder(tmp_path, seconds=0.1)
    assert (tmp_path / "summary.json").exists()
    assert jobs.wait_for_folder(tmp_path)
    assert not (tmp_path / "summary.json").exists()
    os.waitpid(orphan, 0)
    waits, in_use, waits_again = capsys.readouterr().err.splitlines()
    assert waits == waits_again == f"waiting for an earlier attempt in {tmp_path} to end"
    assert in_use.endswith("wait for it or stop it; continuing with the next job")
