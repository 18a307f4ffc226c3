"""Output that is closed, full or lacks a character never ends a run, and never hides a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO

PRINTS = """
import os, sys
from vaezoo.streams import protect_output
protect_output()
for _ in range(3):
    print(chr(233) * 10_000)
    print(chr(233) * 10_000, file=sys.stderr, flush=True)
if os.fork() == 0:  # like a worker of a data loader
    print(chr(233), flush=True)
    os._exit(0)
os.wait()
open("file", "w").write("whole")
sys.exit(int(sys.argv[1]))
"""
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(command, cwd, **environment):
    """Run a shell command with the package on the path."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), str(cwd)]), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(["bash", "-c", command], cwd=cwd, env=env, capture_output=True, timeout=300, check=False)


@pytest.mark.parametrize("code", [0, 1])
@pytest.mark.parametrize("output", [">&- 2>&-", ">/dev/full 2>/dev/full", "2>&1 | head -c 9", "<&- >&- 2>/dev/full"])
def test_lost_output_does_not_change_the_exit_code(tmp_path, output, code):
    """Writes and the exit of the interpreter do not fail, and no file gets the descriptor of a closed stream."""
    done = shell(f"set -o pipefail; {sys.executable} -c '{PRINTS}' {code} {output}", tmp_path)
    assert done.returncode == code
    assert b"Exception" not in done.stderr
    assert (tmp_path / "file").read_text() == "whole"


def test_a_character_that_the_terminal_lacks(tmp_path):
    done = shell(f"{sys.executable} -c '{PRINTS}' 0", tmp_path, **POSIX)
    assert done.returncode == 0
    assert done.stdout.startswith(b"?" * 10_000)


def test_a_full_training_without_output(tmp_path):
    """It completes with exit code 0, and a run that fails has exit code 1."""
    words = "trainer.max_epochs=1 model.encoder.hidden=[8] logger=csv callbacks.images.every_n_epochs=1 threads=1"
    run = f"{sys.executable} {REPO / 'run.py'} {words} hydra.run.dir="
    both = f"{run}posix >/dev/full 2>&-; code=$?; {run}fails model.latent_dim=0 >&- 2>&-; echo $code $?"
    done = shell(both, tmp_path, **POSIX)
    assert done.stdout.split() == [b"0", b"1"]
    assert '"status": "completed"' in Path(tmp_path, "posix", "summary.json").read_text()
    assert '"status": "failed"' in Path(tmp_path, "fails", "summary.json").read_text()
