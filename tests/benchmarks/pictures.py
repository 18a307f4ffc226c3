"""Speed of data=folder: decoding small jpegs into the cache, and training from the cache.

    python tests/benchmarks/pictures.py [--files 60000] [--rounds 3]

Prints: Pillow's own rate (open, convert and copy each file, one process); the rate at which the cache is built, and its
ratio to Pillow's rate times the number of cores; then in interleaved rounds the training speed of conv_vae with the
pictures in memory and read from the cache, and their ratio. Everything runs in a temporary folder.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

REPO = Path(__file__).resolve().parents[2]


def write_pictures(folder: Path, num: int) -> None:
    """Write jpegs of 64x64: smooth colors with noise, so that each file is about 2 kB."""
    rng = np.random.default_rng(0)
    for number in range(num):
        if number % 1000 == 0:
            (folder / f"{number // 1000:03d}").mkdir(parents=True)
        coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)
        image.save(folder / f"{number // 1000:03d}" / f"{number:06d}.jpg", quality=85)


def pillow_rate(files: list[Path]) -> float:
    """Return the files per second of Pillow alone in this process."""
    start = time.perf_counter()
    for file in files:
        with Image.open(file) as image:
            np.asarray(image.convert("RGB"))
    return len(files) / (time.perf_counter() - start)


def run(folder: Path, name: str, *words: str) -> tuple[dict, float]:
    """Return the summary of a command and its seconds."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, str(REPO / "run.py"), f"hydra.run.dir={folder / name}", *words]
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    seconds = time.perf_counter() - start
    return json.loads((folder / name / "summary.json").read_text()), seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pictures(folder / "pictures", args.files)
        files = sorted((folder / "pictures").rglob("*.jpg"))
        alone = pillow_rate(files[:5000])
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        from vaezoo.data import FolderData

        start = time.perf_counter()
        FolderData(root=str(folder / "pictures")).inspect()
        built = args.files / (time.perf_counter() - start)
        cores = os.cpu_count() or 1
        print(f"Pillow alone: {alone:,.0f} files/s on one core")
        print(f"cache: {built:,.0f} files/s on {cores} cores, {built / (cores * alone):.2f} of Pillow's rate on all")
        words = [
            "data=folder", f"data.root={folder / 'pictures'}", "model=conv_vae", "model/likelihood=normal",
            "logger=none", "callbacks.images=null", "callbacks.checkpoint_last=null", "trainer.max_epochs=1",
            f"trainer.limit_train_batches={min(150, args.files // 200)}", "trainer.limit_test_batches=1",
            "trainer.limit_val_batches=1", "threads=1",
        ]  # fmt: skip
        ratios = []
        for number in range(args.rounds):
            speeds = []
            for in_memory in ("true", "false"):
                summary, _ = run(folder, f"{in_memory}-{number}", *words, f"data.in_memory={in_memory}")
                speeds.append(summary["train_examples_per_second"])
            ratios.append(speeds[1] / speeds[0])
            print(f"training: {speeds[0]:,.0f} images/s in memory, {speeds[1]:,.0f} from the cache: {ratios[-1]:.3f}")
        if ratios:
            print(f"median ratio: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
