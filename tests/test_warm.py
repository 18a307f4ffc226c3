"""Jobs that are forks of a warm process."""

import json
import os
import signal
import sys
import time

import pytest

from vaezoo.runs import jobs
from vaezoo.runs.jobs import Jobs
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
    time.sleep(60)
"""


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


def test_a_signal_reaches_the_job_only(warm, script, tmp_path):
    job = warm.start([script, "wait"], os.environ, tmp_path / "log")
    while not (tmp_path / "log").exists() or "ready" not in (tmp_path / "log").read_text():
        time.sleep(0.01)
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
