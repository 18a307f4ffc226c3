"""A slice of the fault campaign: cases of the kinds that no other test has (``tests/campaign/README.md``).

The others are in ``test_signals.py``, ``test_loggers.py``, ``test_streams.py`` and ``test_resume_cli.py``.
"""

import os
import subprocess
import sys

from conftest import REPO


def test_a_case_of_each_kind():
    """The program is killed, signalled and fed with NaN, and ends as if it had not been."""
    kinds = ["kills", "targeted", "nan", "signals", "reused"]
    script = REPO / "tests" / "campaign" / "training.py"
    command = [sys.executable, str(script), "--seed", "10", "--case", "0", "--kinds", ",".join(kinds)]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines[1:]] == [*kinds, "0 faults"]
    assert all("batches compared" in line for line in lines[1:-1])
