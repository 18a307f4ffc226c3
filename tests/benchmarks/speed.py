"""Images per second of vaezoo beside hand-written loops: ``python tests/benchmarks/speed.py [WORKLOAD ...]``.

Every contender is a process of its own, started once, warmed up and stopped (SIGSTOP);
then they take turns: the plain loop, a contender, the plain loop, the next, and so on. Each
pair gives one ratio, and the table has their median and range: what slows the machine down slows both.
"""

import argparse
import csv
import json
import os
import platform
import pty
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent

# A workload is what a user types.
WORKLOADS = {
    "mlp": "model=mlp_vae data=mnist model.encoder.hidden=[400] model.decoder.hidden=[400]",
    "conv": "model=conv_vae data=mnist",
    "burgess": "model=mlp_vae model/encoder=burgess model/decoder=burgess model.latent_dim=10 "
    "data=sprites data.batch_size=64",
    "digits": "model=mlp_vae data=digits",
}
# What may follow ``vaezoo+``: further words. Tricks of the other contenders are in contenders.py.
VARIANTS = {
    "compile": ["compile=true"],
    "bf16": ["trainer.precision=bf16-mixed"],
    "ddp": ["trainer=ddp"],
    "unsaved": ["callbacks.checkpoint_best=null", "callbacks.checkpoint_last=null"],
}
CONTENDERS = ["template", "loop+compile+channels_last+mmap+trim+adam", "vaezoo", "vaezoo+compile", "vaezoo+bf16"]
SCALING = {
    "batch": [f"data.batch_size={size}" for size in (32, 128, 512, 1024)],
    "latent": [f"model.latent_dim={size}" for size in (2, 20, 200)],
    "data": [f"images={num}" for num in (10_000, 60_000, 240_000)],
}


class Contender:
    """A training process that runs only when it is its turn.

    Args:
        name: loop, template or vaezoo, with its tricks or variants: ``loop+compile``.
        words: of vaezoo's command line.
        folder: where it may write.
        threads: of OpenMP.
    """

    def __init__(self, name: str, words: list[str], folder: Path, threads: int):
        self.name, self.read, self.column = name, 0, "images_per_second"
        self.rows, self.log = folder / "rows.csv", folder / "log.txt"
        base, *tricks = name.split("+")
        if base == "vaezoo":
            own = ["logger=csv", "trainer.max_epochs=100000", f"hydra.run.dir={folder}/run"]
            own += [word for trick in tricks for word in VARIANTS[trick]]
            command = [sys.executable, str(REPO / "run.py"), *words, *own]
            self.rows, self.column = folder / "run" / "metrics.csv", "step/examples_per_second"
        else:
            command = [sys.executable, str(HERE / "contenders.py"), name, *words]
        path = os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")])
        env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "COLUMNS": "100"}
        master, terminal = pty.openpty()  # progress bars are drawn on a terminal alone
        with (folder / "rows.csv").open("w") as out:
            self.process = subprocess.Popen(
                command,
                stdout=out,
                stderr=terminal,
                stdin=subprocess.DEVNULL,
                cwd=folder,
                env=env,
                start_new_session=True,
            )
        os.close(terminal)
        threading.Thread(target=self.drain, args=(master,), daemon=True).start()

    def drain(self, master: int) -> None:
        """Keep what it says on its terminal."""
        with self.log.open("wb") as log:
            try:
                while text := os.read(master, 65536):
                    log.write(text)
                    log.flush()
            except OSError:  # the terminal's other end is gone
                pass

    def new_rates(self) -> list[float]:
        """The rates reported since the last turn."""
        if not self.rows.exists():
            return []
        with self.rows.open() as file:
            whole = [line for line in file if line.endswith("\n")]
        rates = [float(row[self.column]) for row in csv.DictReader(whole) if row.get(self.column)]
        return rates[self.read :]

    def turn(self, windows: int, patience: float) -> float:
        """Run until ``windows`` whole windows are reported; their median images/s.

        The first window is left out: it holds the time in which the process was stopped.
        """
        deadline = time.monotonic() + patience
        self.signal(signal.SIGCONT)
        while len(rates := self.new_rates()) < windows + 1:
            if self.process.poll() is not None or time.monotonic() > deadline:
                last = self.log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise RuntimeError(f"{self.name} reported {len(rates)} of {windows + 1} windows: {last[0][-300:]}")
            time.sleep(0.05)
        self.signal(signal.SIGSTOP)
        self.read += len(rates)
        return statistics.median(rates[1:])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and the processes it has started."""
        os.killpg(self.process.pid, number)

    def close(self) -> None:
        """End it, whatever it is doing."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()


def compare(names: list[str], words: list[str], threads: int, rounds: int, windows: int, warmup: int) -> list[dict]:
    """Rates of the plain loop and each contender, and their ratios pair by pair; a row each.

    A contender that fails has ``error`` in its row, and the others go on.
    """
    rows = [{"name": name, "rates": [], "ratios": []} for name in ["loop", *names]]
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        alive = []
        for i, row in enumerate(rows):
            folder = Path(scratch, str(i))
            folder.mkdir()
            contender = Contender(row["name"], words, folder, threads)
            stack.callback(contender.close)
            try:
                contender.turn(warmup, patience=600)
                alive.append((contender, row))
            except RuntimeError as error:
                contender.close()
                row["error"] = str(error)
        if "error" in rows[0]:
            raise RuntimeError(rows[0]["error"])
        (loop, base), *others = alive
        for _ in range(rounds):
            for contender, row in others:
                limit, rate = loop.turn(windows, 300), contender.turn(windows, 300)
                base["rates"].append(limit)
                row["rates"].append(rate)
                row["ratios"].append(rate / limit)
    for row in rows:
        if row["rates"]:
            row["images_per_second"] = statistics.median(row["rates"])
            row["ratio"] = statistics.median(row["ratios"] or [1.0])
    return rows


def print_table(title: str, rows: list[dict]) -> None:
    """A table in Markdown."""
    print(f"\n{title}\n\n| contender | images/s | ratio to loop | lowest to highest |\n|---|---|---|---|")
    for row in rows:
        if "error" in row:
            print(f"| {row['name']} | - | - | {row['error']} |")
        else:
            low, high = min(row["ratios"] or [1.0]), max(row["ratios"] or [1.0])
            print(f"| {row['name']} | {row['images_per_second']:,.0f} | {row['ratio']:.2f} | {low:.2f} to {high:.2f} |")
    sys.stdout.flush()


def random_mnist(folder: Path, num: int) -> None:
    """Random bytes in MNIST's files: ``num`` training images and 10,000 test images."""
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, count in {"train": num, "t10k": 10_000}.items():
        images = struct.pack(">IIII", 0x803, count, 28, 28) + os.urandom(count * 784)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + bytes(count))


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "workloads",
        nargs="*",
        default=["mlp", "conv", "burgess"],
        metavar="workload",
        help=f"of {', '.join(WORKLOADS)}",
    )
    parser.add_argument(
        "--contenders", nargs="+", default=CONTENDERS, help="besides loop; with tricks or variants, as in loop+compile"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--windows", type=int, default=4, help="of trainer.log_every_n_steps steps, in each turn")
    parser.add_argument("--warmup", type=int, default=4, help="windows before the first round")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of MNIST; random bytes without it")
    parser.add_argument("--scaling", choices=SCALING, help="repeat with growing batches, latents or data")
    parser.add_argument("--words", nargs="*", default=[], help="further words of vaezoo's command line, for all")
    parser.add_argument("--json", type=Path, default=Path("speed.json"))
    given = parser.parse_args()
    if unknown := set(given.workloads) - set(WORKLOADS):
        parser.error(f"{sorted(unknown)[0]} is not one of {', '.join(WORKLOADS)}")
    return given


def main() -> None:
    """Measure, print tables and write them as JSON."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nobody stays behind, stopped
    tables = []
    for workload in given.workloads:
        for value in SCALING.get(given.scaling, [""]):
            words = [*WORKLOADS[workload].split(), "data.binarize=static", f"threads={given.threads}", *given.words]
            title = f"{workload}, {given.threads} thread{'s' * (given.threads > 1)}"
            with tempfile.TemporaryDirectory() as scratch:
                key, _, num = value.partition("=")
                if "data=mnist" in words:
                    root, kind = given.data_root.resolve(), "MNIST"
                    if key == "images" or not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
                        root, kind = Path(scratch), "random bytes"
                        random_mnist(root, int(num) if key == "images" else 60_000)
                    words.append(f"data.root={root}")
                    title += f", {kind}"
                if value:
                    words += [value] * (key != "images")
                    title += f", {value}"
                rows = compare(given.contenders, words, given.threads, given.rounds, given.windows, given.warmup)
            print_table(title, rows)
            tables.append({"title": title, "words": words, "rows": rows})
            machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
            given.json.write_text(json.dumps({"machine": machine, "tables": tables}, indent=2) + "\n")


if __name__ == "__main__":
    main()
