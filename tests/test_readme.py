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
SINGLE = [c for c in COMMANDS if "-m" not in c and not any(w.startswith(("run=", "runs=", "models=")) for w in c)]
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
        words.append(f"data.root={DATA}")
    if any(w.startswith(("data=", "experiment=")) for w in words):
        words += ["trainer.limit_train_batches=3", "trainer.limit_test_batches=1"]
    if "trainer=ddp" in words or "--help" in words:
        pytest.skip("run in a process of its own by test_cli.py")
    code, _out, err, _run = cli(*words, "trainer.max_epochs=1")
    assert code == 0, err


def test_sweeps(tmp_path):
    """The first sweep, each of its jobs for one epoch: all of them complete."""
    done = command(*SWEEPS[0], "trainer.max_epochs=1", "callbacks.images=null", "logger=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "job" in done.stdout
    jobs = 1
    for word in SWEEPS[0]:
        jobs *= len(word.split(",")) if "=" in word else 1
    assert done.stdout.count("completed") == jobs


def blocks(language, word):
    (block,) = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if word in b]
    return block


def test_adding_a_model_and_data(cli, tmp_path):
    """The README's own model, config and data, copied from it, train together."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "mypackage" / "my_vae.py").write_text(blocks("python", "class MyVAE"))
    (tmp_path / "mypackage" / "data.py").write_text(blocks("python", "class Bars"))
    config = blocks("yaml", "MyVAE").replace("vaezoo.models.my_vae", "mypackage.my_vae")
    (tmp_path / "conf" / "model" / "my_vae.yaml").write_text(config)
    data = re.search(r"python run.py ('allow_packages=.*?)`", README)[1]
    code, _out, err, run = cli(
        f"--config-dir={tmp_path / 'conf'}", "model=my_vae", "model.gamma=3", *shlex.split(data),
        "trainer.max_epochs=2", "logger=csv", "trainer.log_every_n_steps=2",
    )  # fmt: skip
    assert code == 0, err
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert {"step/gamma", "val/excess", "train/excess"} <= set(header.split(","))


def test_without_configs():
    """`Trainer(...).fit(BetaVAE(...), Digits(...))` as the README has it."""
    short = "max_epochs=1, logger=False, enable_checkpointing=False"
    exec(blocks("python", "Trainer(").replace("max_epochs=5", short), {})
