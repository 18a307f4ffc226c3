"""Seconds to the first training step and to --help, and peak memory: ``python tests/benchmarks/start.py``.

The first step's end is stamped by a callback that is given on the command line like any of a user's own.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lightning.pytorch import Callback

HERE = Path(__file__).resolve().parent
RUN = [sys.executable, str(HERE.parent.parent / "run.py")]
# The plain loop with the networks of mlp_vae and nothing imported but torch, on images of MNIST's size.
LOOP = """
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
images = torch.randint(0, 2, (60_000, 784), dtype=torch.uint8)
encoder = nn.Sequential(nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 40))
decoder = nn.Sequential(nn.Linear(20, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, 784))
optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], fused=True)
for index in torch.randperm(len(images)).split(128):
    x = images[index].float()
    loc, log_scale = encoder(x).chunk(2, 1)
    z = loc + log_scale.exp() * torch.randn_like(loc)
    distortion = binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
    loss = distortion + 0.5 * (loc.square() + (2 * log_scale).exp() - 2 * log_scale - 1).sum()
    (loss / len(x)).backward()
    optimizer.step()
    optimizer.zero_grad()
"""


class Stamp(Callback):
    """Leaves the process when the first training batch is done, having written down the time."""

    def on_train_batch_end(self, *_) -> None:
        Path("stamp").write_text(str(time.time()))
        os._exit(0)


def launch(command: list[str], folder: str, threads: int = 1) -> subprocess.Popen:
    """Start a command that says nothing."""
    env = os.environ | {"PYTHONPATH": f"{HERE.parent.parent}{os.pathsep}{HERE}", "OMP_NUM_THREADS": str(threads)}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def seconds_to_step(words: list[str]) -> float:
    """From the start of ``python run.py`` to the end of its first training batch."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        launch([*RUN, *words, "allow_packages=[start]", "+callbacks.stamp._target_=start.Stamp"], folder).wait()
        return float(Path(folder, "stamp").read_text()) - start


def seconds_to_end(words: list[str]) -> float:
    """Of a command that ends by itself."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.time()
        if code := launch([*RUN, *words], folder).wait():
            raise RuntimeError(f"run.py {' '.join(words)} left with exit code {code}")
        return time.time() - start


def peak_megabytes(command: list[str]) -> float:
    """Most memory that a process held, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        process = launch(command, folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} left with exit code {process.returncode}")
        return usage.ru_maxrss / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of MNIST")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    root = given.data_root.resolve()
    mnist = ["data=mnist", f"data.root={root}", "data.binarize=static", "data.batches_per_step=1", "threads=1"]
    for name, measure in {
        "python run.py data=mnist, to its first batch's end": lambda: seconds_to_step([*mnist, "logger=csv"]),
        "the same with the default logger": lambda: seconds_to_step(mnist),
        "python run.py --help": lambda: seconds_to_end(["--help"]),
    }.items():
        times = [measure() for _ in range(given.rounds)]
        print(f"{name}: {statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f})", flush=True)
    loop = peak_megabytes([sys.executable, "-c", LOOP])
    run = peak_megabytes([*RUN, *mnist, "logger=csv", "trainer.max_epochs=1"])
    print(f"peak memory: run.py {run:.0f} MB, the plain loop {loop:.0f} MB; may be {1.2 * loop + 150:.0f}")


if __name__ == "__main__":
    main()
