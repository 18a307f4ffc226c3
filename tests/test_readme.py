"""The README's commands run as they are written."""

import re
import shlex

import pytest
from conftest import DATA, REPO, needs_mnist
from test_cli import command

README = (REPO / "README.md").read_text()
BLOCKS = re.findall(r"```(?:bash|sh)\n(.*?)```", README, re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS = [shlex.split(line)[2:] for line in LINES if line.startswith("python run.py")]
SINGLE = [c for c in COMMANDS if "-m" not in c and not any(w.startswith("run=") for w in c)]
SWEEPS = [c for c in COMMANDS if "-m" in c]

assert len(SINGLE) >= 4
assert SWEEPS


@pytest.mark.parametrize("words", SINGLE, ids=" ".join)
def test_single_runs(cli, words):
    """Each command, for one epoch (of MNIST, a few steps)."""
    words = [f"data.root={DATA}" if w.startswith("data.root=") else w for w in words]
    if any(w.startswith("data.root=") for w in words) or "experiment=mnist" in words:
        if needs_mnist.args[0]:
            pytest.skip(needs_mnist.kwargs["reason"])
        words += [f"data.root={DATA}", "trainer.limit_train_batches=3", "trainer.limit_test_batches=1"]
    if "trainer=ddp" in words or "--help" in words:
        pytest.skip("run in a process of its own by test_cli.py")
    code, _out, err, _run = cli(*words, "trainer.max_epochs=1")
    assert code == 0, err


def test_sweeps(tmp_path):
    """The first sweep, each of its jobs for one epoch: all of them complete."""
    done = command(*SWEEPS[0], "trainer.max_epochs=1", "callbacks.panels=null", "logger=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "job" in done.stdout
    jobs = 1
    for word in SWEEPS[0]:
        jobs *= len(word.split(",")) if "=" in word else 1
    assert done.stdout.count("completed") == jobs
