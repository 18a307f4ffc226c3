"""Jobs that are forks of a warm process, and several of them side by side."""

import json
import os
import signal
import sys
import threading
import time

import pytest

from vaezoo.errors import ConfigError
from vaezoo.runs import jobs, shares
from vaezoo.runs.jobs import Jobs
from vaezoo.runs.shares import SHARE, divide_machine
from vaezoo.runs.signals import PARENT
from vaezoo.runs.warm import WarmProcess, is_supported

pytestmark = pytest.mark.skipif(not is_supported(), reason="only Linux without an NVIDIA GPU forks jobs")

SCRIPT = """
import json, os, random, signal, sys, vaezoo
task, *words = sys.argv[1:]
if task == "show":
    found = {"argv": sys.argv, "name": __name__, "folder": os.getcwd(), "path": sys.path[0], "group": os.getpgid(0),
             "pid": os.getpid(), "a": os.environ.get("A"), "left": getattr(vaezoo, "left", None),
             "torch": "torch" in sys.modules, "spec": __spec__}
    vaezoo.left = 1
    print(json.dumps(found))
elif task == "exit":
    sys.exit(int(words[0]))
elif task == "raise":
    raise RuntimeError("no")
elif task == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif task == "wait":
    import time
    print("ready", flush=True)
    time.sleep(20)
elif task == "save":  # after a signal to stop
    import time
    from pathlib import Path
    from vaezoo.runs.signals import stopping_with_parent
    def stop(signum, frame):
        time.sleep(0.3)
        Path(words[0], "heard").write_text(signal.Signals(signum).name)
        sys.exit(128 + signum)
    signal.signal(signal.SIGTERM, stop)
    with stopping_with_parent():
        Path(words[0], "ready").touch()
        time.sleep(20)
elif task == "threads":  # of OpenMP, in torch and in scikit-learn
    import numpy, torch
    torch.set_num_threads(2)
    assert torch.ones(10**6).isfinite().all()
    from sklearn.cluster import KMeans
    KMeans(2, n_init=1).fit(numpy.arange(20000.0).reshape(-1, 2))
elif task == "draw":
    import numpy, wandb
    wandb.Image(numpy.zeros((4, 4, 3), "uint8"))
elif task == "share":  # a number of threads, and the file for which it waits
    import time
    from vaezoo.runs.shares import take_share
    take_share(int(words[0]))
    print("cores", json.dumps(sorted(os.sched_getaffinity(0))), flush=True)
    while not os.path.exists(words[1]):
        time.sleep(0.01)
"""


def wait_until(happened, seconds=30):
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def text_of(file):
    return file.read_text() if file.exists() else ""


@pytest.fixture(scope="module")
def warm():
    process = WarmProcess()
    yield process
    process.close()
    assert process.process.returncode == 0


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "scripts" / "job.py"
    file.parent.mkdir()
    file.write_text(SCRIPT)
    return str(file)


def test_a_job_is_as_a_command_of_its_own(warm, script, tmp_path):
    """Arguments, folder, environment, path and process group; nothing of an earlier job is in it."""
    for number in range(2):
        job = warm.start([script, "show", "x=1"], os.environ | {"A": str(number)}, tmp_path / "log")
        assert job.wait() == 0
        found = json.loads((tmp_path / "log").read_text().splitlines()[-1])
        assert found == {
            "argv": [script, "show", "x=1"], "name": "__main__", "folder": str(tmp_path),
            "path": str(tmp_path / "scripts"), "group": job.pid, "pid": job.pid, "a": str(number), "left": None,
            "torch": True, "spec": None,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"), [(("exit", "0"), 0), (("exit", "3"), 3), (("raise",), 1), (("kill",), -signal.SIGKILL)]
)
def test_exit_codes(warm, script, tmp_path, words, code):
    """They are those of subprocess."""
    assert warm.start([script, *words], os.environ, tmp_path / "log").wait() == code
    assert ("RuntimeError: no" in (tmp_path / "log").read_text()) == (words == ("raise",))


def test_a_job_has_threads(script, tmp_path, monkeypatch):
    """If the warm process had started OpenMP's threads before the fork, the job would wait for them for ever."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process = WarmProcess()
    try:
        job = process.start([script, "threads"], os.environ, tmp_path / "log")
        timer = threading.Timer(60, job.send_signal, [signal.SIGKILL])
        timer.start()
        assert job.wait() == 0, text_of(tmp_path / "log")
        timer.cancel()
    finally:
        process.close()


def test_each_job_has_its_own_folder_for_pictures_of_wandb(warm, script, tmp_path):
    """W&B deletes its folder when a process ends, and all forks would have the same one."""
    for _ in range(2):
        job = warm.start([script, "draw"], os.environ, tmp_path / "log")
        assert job.wait() == 0, text_of(tmp_path / "log")


def test_a_signal_reaches_the_job_only(warm, script, tmp_path):
    job = warm.start([script, "wait"], os.environ, tmp_path / "log")
    wait_until(lambda: "ready" in text_of(tmp_path / "log"))
    job.send_signal(signal.SIGTERM)
    assert job.wait() == -signal.SIGTERM
    job.send_signal(signal.SIGTERM)  # it has ended
    assert warm.start([script, "exit", "5"], os.environ, None).wait() == 5


def test_a_module_is_run_as_python_does(warm, tmp_path):
    assert warm.start(["-m", "vaezoo", "--help"], os.environ, tmp_path / "log").wait() == 0
    assert "vaezoo trains variational autoencoders" in (tmp_path / "log").read_text()


def test_jobs_go_on_if_the_warm_process_is_killed(script, tmp_path, monkeypatch, capfd):
    """The job that runs has failed, and the next one starts; if that is impossible too, it starts by itself."""
    runner = Jobs(tmp_path / "sweep", [sys.executable, script], resume=False, group="g")
    runner.warm = WarmProcess(["task=none"])
    runner.warm.process.kill()
    runner.warm.process.wait()
    assert runner.call([sys.executable, script, "exit", "4"], tmp_path / "log", {}) == 4
    assert "the next job starts by itself" in capfd.readouterr().err
    monkeypatch.setattr(jobs, "is_supported", lambda: False)
    assert runner.call([sys.executable, script, "exit", "6"], tmp_path / "log", {}) == 6
    assert runner.warm is None


# Several jobs at the same time.


def test_each_job_has_its_own_signals_and_exit_code(warm, script, tmp_path):
    """They end in another order than they have started in."""
    first, second = (warm.start([script, "wait"], os.environ, tmp_path / name) for name in "ab")
    third = warm.start([script, "exit", "7"], os.environ, tmp_path / "c")
    assert third.wait() == 7
    wait_until(lambda: all("ready" in text_of(tmp_path / name) for name in "ab"))
    second.send_signal(signal.SIGTERM)
    assert second.wait() == -signal.SIGTERM
    os.kill(first.pid, 0)  # it runs
    first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL


@pytest.fixture
def runner(tmp_path):
    """Jobs in a folder with the folders a, b and c."""
    for name in "abc":
        (tmp_path / name).mkdir()
    runner = Jobs(tmp_path, [], resume=False, group="g")
    runner.log = True
    return runner


@pytest.mark.parametrize(("signum", "heard"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGTERM")])
def test_a_signal_to_stop_reaches_all_running_jobs(warm, script, runner, tmp_path, signum, heard):
    """Each saves; the third one does not start. A job does not save after SIGHUP, so it gets SIGTERM."""
    runner.warm, codes = warm, {}

    def run(name, share):
        if runner.stop_signal is None:
            codes[name] = runner.call([sys.executable, script, "save", name], tmp_path / f"{name}.log", share)

    def stop_when_ready():
        wait_until(lambda: (tmp_path / "a" / "ready").exists() and (tmp_path / "b" / "ready").exists())
        os.kill(os.getpid(), signum)

    with runner.forwarding_signals():
        threading.Thread(target=stop_when_ready).start()
        assert sorted(runner.run_all(run, "abc", [{}, {}])) == ["a", "b", "c"]
    assert runner.stop_signal == signum
    assert codes == {"a": 143, "b": 143}
    assert [text_of(tmp_path / name / "heard") for name in "abc"] == [heard, heard, ""]


def test_running_jobs_are_waited_for_if_the_warm_process_is_killed(script, runner, tmp_path, monkeypatch):
    """They get SIGTERM and save; then the next one starts by itself."""
    runner.warm = WarmProcess(["task=none"])
    monkeypatch.setenv(PARENT, str(os.getpid()))
    codes = {}

    def run(name, share):
        words = ["exit", "5"] if name == "c" else ["save", name]
        code = runner.call([sys.executable, script, *words], tmp_path / f"{name}.log", share)
        codes[name] = code, text_of(tmp_path / name / "heard")

    def kill_when_ready():
        wait_until(lambda: (tmp_path / "a" / "ready").exists() and (tmp_path / "b" / "ready").exists())
        runner.warm.process.kill()

    threading.Thread(target=kill_when_ready).start()
    assert set(runner.run_all(run, "abc", [{}, {}])) == set("abc")
    assert codes == {"a": (-9, "SIGTERM"), "b": (-9, "SIGTERM"), "c": (5, "")}
    runner.close()


def test_an_error_while_jobs_run_ends_them(runner):
    """For example, the folder of a job cannot be written: no further job starts."""
    begun = []

    def run(name, share):
        begun.append(name)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        list(runner.run_all(run, "abc", [{}]))
    assert "c" not in begun


# The share of a job.


def cores_of(found):
    return [json.loads(share[SHARE])["cores"] if SHARE in share else None for share in found]


@pytest.mark.parametrize(
    ("jobs", "count", "threads", "parts"),
    [
        ("auto", 6, 1, [[0], [1], [2], [3]]),
        ("auto", 6, None, [[0], [1], [2], [3]]),  # a job that takes more threads waits until no other one trains
        ("auto", 6, 2, [[0, 1], [2, 3]]),
        ("auto", 6, 3, [None]),
        ("auto", 6, 9, [None]),  # the job refuses it
        ("auto", 3, 1, [[0], [1], [2, 3]]),
        ("auto", 1, 1, [None]),
        ("auto", 0, 1, [None]),
        (2, 6, 1, [[0, 1], [2, 3]]),
        (1, 6, 1, [None]),
        (6, 9, 1, [[], [], [], [], [], []]),  # more than there are cores: not pinned
    ],
)
def test_cores_are_divided_by_threads(monkeypatch, tmp_path, jobs, count, threads, parts):
    monkeypatch.setattr(shares, "usable_cores", lambda: ([0, 1, 2, 3], 4))
    configs = [{"threads": 1, "trainer": {"accelerator": "cpu"}}, {"threads": threads, "trainer": {"devices": 1}}]
    assert cores_of(divide_machine(jobs, configs, count, tmp_path / "lock")) == parts


def test_a_limit_of_the_container_counts(monkeypatch, tmp_path):
    """It may be less than the cores that the process sees; which of them are free is not known."""
    monkeypatch.setattr(shares, "usable_cores", lambda: (list(range(64)), 2))
    found = divide_machine("auto", [{"threads": 1}], 9, tmp_path / "lock")
    assert [json.loads(share[SHARE])["size"] for share in found] == [1, 1]
    assert cores_of(found) == [[], []]


@pytest.mark.parametrize(
    ("jobs", "devices", "gpus"),
    [
        ("auto", 1, ["0", "2", "5", "7"]),
        ("auto", 2, ["0,2", "5,7"]),
        ("auto", 3, [None]),  # one job, which chooses among all
        (6, 1, ["0", "2", "5", "7", "0", "2"]),
        (1, 1, [None]),
    ],
)
def test_jobs_that_train_on_gpus_have_one_each(monkeypatch, tmp_path, jobs, devices, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5,7")
    configs = [{"threads": 8, "trainer": {"accelerator": "auto", "devices": devices}}]
    found = divide_machine(jobs, configs, 9, tmp_path / "lock")
    assert [share.get("CUDA_VISIBLE_DEVICES") for share in found] == gpus


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "many", None])
def test_jobs_is_a_number_or_auto(tmp_path, jobs):
    with pytest.raises(ConfigError, match=f"^jobs={jobs} should be an integer >= 1, or auto$"):
        divide_machine(jobs, [], 1, tmp_path / "lock")


def test_a_job_with_more_threads_than_cores_trains_alone(warm, script, tmp_path):
    """The others train side by side, each on its cores; it waits for them, and then has all cores."""
    cores = sorted(os.sched_getaffinity(0))
    share = {"size": 1, "cores": cores[:1], "lock": str(tmp_path / "lock")}
    environment = os.environ | {SHARE: json.dumps(share)}

    def start(name, threads):
        return warm.start([script, "share", threads, str(tmp_path / "go")], environment, tmp_path / name)

    small = [start("a", "1"), start("b", "1")]
    wait_until(lambda: all(text_of(tmp_path / name) for name in "ab"))
    large = start("c", "2")
    wait_until(lambda: text_of(tmp_path / "c"))
    waits = "waiting until no other job trains: this one has 2 threads (threads=1 does not wait)\n"
    assert text_of(tmp_path / "c") == waits
    (tmp_path / "go").touch()
    assert [job.wait() for job in (*small, large)] == [0, 0, 0]
    assert {text_of(tmp_path / name) for name in "ab"} == {f"cores {json.dumps(cores[:1])}\n"}
    assert text_of(tmp_path / "c") == f"{waits}cores {json.dumps(cores)}\n"
