"""What several test files share."""

import contextlib
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import wandb.util
from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from lightning.pytorch.loggers.logger import DummyLogger
from omegaconf import OmegaConf

from vaezoo.cli import main
from vaezoo.config_folder import config_folder, offer_plugins
from vaezoo.data import ImageData, Split
from vaezoo.runs.setup import AUTO
from vaezoo.runs.warm import WarmProcess

REPO = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("VAEZOO_TEST_DATA", REPO.parent / "shared" / "data"))

torch.set_num_threads(1)  # two test processes share the cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"  # whoever runs the tests, nothing is uploaded
# Hydra composes each config twice, the first time only for hydra.mode, which no test sets: a quarter of a second saved
# for each command in this process.
Hydra.get_mode = lambda self, config_name, overrides: None

# W&B reads the metadata of all installed packages for each run: another quarter of a second.
wandb.util.working_set = functools.cache(lambda find=wandb.util.working_set: tuple(find()))

needs_mnist = pytest.mark.skipif(
    not (DATA / "MNIST" / "raw" / "train-images-idx3-ubyte").exists(),
    reason=f"MNIST is not in {DATA}: name its folder with VAEZOO_TEST_DATA",
)


class RandomImages(ImageData):
    """Noisy images, bright or dark by their label's parity, of any shape: the same ones every time."""

    def __init__(self, shape, num=120, **kwargs):
        super().__init__(shape=shape, **{"val_size": 20, "batch_size": 32, **kwargs})
        self.num = num

    def read(self):
        g = torch.Generator().manual_seed(0)
        labels = torch.randint(0, 10, (self.num + 30,), generator=g)
        bright = (labels % 2).reshape(-1, *[1] * len(self.shape))
        noise = torch.rand(len(labels), *self.shape, generator=g)
        images = (255 * (0.7 * bright + 0.3 * noise)).to(torch.uint8)
        return Split(images[: self.num], labels[: self.num]), Split(images[self.num :], labels[self.num :])


class Rows(DummyLogger):
    """Keeps all rows that are logged."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, metrics))


@functools.cache
def composed(*overrides):
    """The config. Hydra takes longer for it than a model takes for a pass: once only for the same overrides."""
    offer_plugins()
    with initialize_config_dir(config_folder(), version_base="1.3"):
        cfg = compose("config", list(overrides))
    if cfg.model.get("likelihood") == AUTO:
        cfg.model.likelihood = {"_target_": "vaezoo.families.Bernoulli"}
    return cfg


def config(node, *overrides, shape=None):
    """A node of the composed config, as plain values of its own. A likelihood that follows the data is the one of bits.

    ``shape`` takes the place of the shape of the data.
    """
    cfg = composed(*overrides)
    before = cfg.data.shape
    try:
        cfg.data.shape = before if shape is None else list(shape)
        return OmegaConf.to_container(OmegaConf.select(cfg, node), resolve=True)
    finally:
        cfg.data.shape = before


def train(folder, *words):
    """Run a command in a folder, in this process, which has everything imported; its run is the folder ``run``."""
    with contextlib.chdir(folder):
        main([*words, "logger=none", "callbacks.images=null", "hydra.run.dir=run"])
    return folder / "run"


def run_folders(root, arguments):
    """The folders of runs, and of tasks in the run that the arguments name."""
    runs = [Path(text[4:]) for text in arguments if text.startswith("run=")]
    runs += [run.parent.parent for run in runs if run.is_file()]
    return {*root.glob("outputs/*/*"), *(folder for run in runs for folder in run.glob("*/20??-??-??_*"))}


class SharedWarmProcess(WarmProcess):
    """The one warm process of a test process: it imports everything once, not once for each command with jobs."""

    def close(self):
        """Leave it to the next command. It ends with the test process."""


@functools.cache
def warm_process():
    return SharedWarmProcess()


def pytest_sessionfinish():
    if warm_process.cache_info().currsize:
        WarmProcess.close(warm_process())


REDIRECTED = """
import os, runpy, sys
_, program, out, err, *words = sys.argv
for number, name in ((1, out), (2, err)):
    os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
sys.argv = [program, *words]
runpy.run_path(program, run_name="__main__")
"""


def command(*arguments, cwd, **environment):
    """Run run.py in a process of its own, a fork of the warm process: exit code, stdout and stderr."""
    with tempfile.TemporaryDirectory() as folder:
        script, out, err = (Path(folder, name) for name in ("redirected.py", "out", "err"))
        script.write_text(REDIRECTED)
        words = [str(script), str(REPO / "run.py"), str(out), str(err), *arguments]
        with contextlib.chdir(cwd):
            job = warm_process().start(words, os.environ | {"OMP_NUM_THREADS": "1"} | environment, None)
        code = job.wait()
        return subprocess.CompletedProcess(arguments, code, out.read_text(), err.read_text())


@pytest.fixture(scope="session")
def explored_run(tmp_path_factory):
    """Return the folder of a small run that has learned a little, for the tests of the explorer."""
    words = ("trainer.max_epochs=5", "optimizer.lr=0.01", "model.latent_dim=14")
    hidden = ("model.encoder.hidden=[32]", "model.decoder.hidden=[32]")
    return train(tmp_path_factory.mktemp("explore"), *words, *hidden)


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    """Run the command line in this process, in an empty folder: (exit code, stdout, stderr, run folder)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vaezoo.runs.jobs.WarmProcess", lambda overrides: warm_process())

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        before = run_folders(tmp_path, arguments)
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code or 0
        out, err = capfd.readouterr()
        new = sorted(run_folders(tmp_path, arguments) - before)
        return code, out, err, new[0] if new else None

    return call
