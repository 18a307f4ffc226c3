"""Training on a GPU beside hand-written loops: ``python tests/benchmarks/gpu.py [--data-root FOLDER] [--json FILE]``.

Needs no network and at most ``--minutes``: rows that would come later are left out, with the reason. Without
MNIST the images are random bytes. ``--small`` is a short run for a machine without a GPU, to see that all works.

For each workload, batch size and precision, all contenders take turns in this process: the plain loop, the loop that is
compiled, the loop as one CUDA graph, and vaezoo (Lightning's trainer, several batches in each of its steps). A ratio is
that of the medians of the turns. Then follow the usual template of Lightning, IWAE with 50 samples, and log p(x).
"""

import argparse
import itertools
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import contenders
import lightning.pytorch as pl
import speed
import torch
from torch import Tensor

from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.runs.setup import build_run, build_trainer, configure_machine, silence_lightning

PRECISIONS = {"fp32": ("highest", "32-true"), "tf32": ("high", "32-true"), "bf16": ("highest", "bf16-mixed")}
IWAE = "model=iwae data=mnist model.num_samples=50"


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def graph_of(step: Callable[[Tensor], Any], example: Tensor) -> Callable[[Tensor], Any]:
    """Return a step that replays one CUDA graph, captured from an eager step after some steps on another stream.

    Args:
        step: an optimizer step on a batch, whose optimizer is ``capturable``.
        example: a batch.
    """
    inputs, stream = example.clone(), torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(5):
            step(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(inputs)

    def replay(x: Tensor) -> None:
        inputs.copy_(x)
        graph.replay()

    return replay


def loop_rate(work: contenders.Workload, trick: str, bf16: bool, seconds: float, warmup: int) -> float:
    """Return the steps per second of a hand-written loop.

    Args:
        work: what is trained.
        trick: "", "compile" or "graph".
        bf16: whether the forward pass is under autocast.
        seconds: length of the measurement.
        warmup: steps before it.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain = contenders.Plain(work.encoder, work.decoder).to(device)
    run = torch.compile(plain) if trick == "compile" else plain
    optimizer = torch.optim.Adam(plain.parameters(), lr=work.lr, fused=True, capturable=trick == "graph")

    def step(x: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            loss = run(x)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=trick != "graph")

    source = contenders.batches(work.images.to(device), work.size)
    if trick == "graph":
        step = graph_of(step, next(source))
    for x in itertools.islice(source, warmup):
        step(x)
    synchronize()
    start, num = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for x in itertools.islice(source, 10):
            step(x)
        num += 10
        synchronize()
    return num / (time.perf_counter() - start)


class Clock(pl.Callback):
    """Measures the steps per second of a training, and ends it.

    Args:
        seconds: length of the measurement.
        warmup: steps before it.
    """

    def __init__(self, seconds: float, warmup: int):
        self.seconds, self.warmup, self.steps, self.start, self.rate = seconds, warmup, 0, 0.0, 0.0

    def on_microbatch_end(self, trainer: Any, pl_module: Any, item: Any) -> None:
        """Count a step."""
        self.steps += 1
        if self.steps == self.warmup:
            synchronize()
            self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if self.steps > self.warmup and not self.rate and time.perf_counter() - self.start >= self.seconds:
            synchronize()
            self.rate = (self.steps - self.warmup) / (time.perf_counter() - self.start)
            trainer.should_stop = True


def vaezoo_rate(words: list[str], seconds: float, warmup: int) -> float:
    """Return the steps per second of ``python run.py`` with these words, without loggers and callbacks."""
    config, model, data = build_run(contenders.compose_config(words))
    configure_machine(model, data, config["threads"])
    clock = Clock(seconds, warmup)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"max_epochs": -1, "enable_progress_bar": False, "limit_val_batches": 0}
        trainer = build_trainer(config | {"run_dir": folder}, [], [clock], enable_checkpointing=False, **settings)
        trainer.fit(model, data)
    return clock.rate


def measure(words: list[str], precision: str, names: list[str], rounds: int, seconds: float, warmup: int) -> list[dict]:
    """Return a row for each contender: its steps and images per second, its ratio to the plain loop, and its memory."""
    matmul, trainer_precision = PRECISIONS[precision]
    torch.set_float32_matmul_precision(matmul)
    words = [*words, f"trainer.precision={trainer_precision}"]
    work = contenders.Workload(words)
    rates: dict[str, list[float]] = {name: [] for name in names}
    memory: dict[str, float] = {}
    for _ in range(rounds):
        for name in names:
            base, _, trick = name.partition("+")
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            if base == "loop":
                rate = loop_rate(work, trick, precision == "bf16", seconds, warmup)
            else:
                rate = vaezoo_rate([*words, f"compile={str(trick == 'compile').lower()}"], seconds, warmup)
            rates[name].append(rate)
            memory[name] = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else float("nan")
    plain = statistics.median(rates["loop"])
    return [
        {"name": name, "steps_per_second": (middle := statistics.median(own)), "images_per_second": middle * work.size,
         "ratio": middle / plain, "megabytes": memory[name]}
        for name, own in rates.items()
    ]  # fmt: skip


def seconds_of_log_marginal(num_images: int, num_samples: int) -> float:
    """Return the time of log p(x) of images of MNIST's size by an MLP 784-400-20-400-784 with fresh weights."""
    from log_marginal import build

    model = build().to("cuda" if torch.cuda.is_available() else "cpu")
    x = (torch.rand(num_images, 1, 28, 28, device=model.device) > 0.8).float()
    estimate_log_marginal(model, x[:2], None, num_samples)
    synchronize()
    start = time.perf_counter()
    estimate_log_marginal(model, x, None, num_samples)
    synchronize()
    return time.perf_counter() - start


def template_rate(words: list[str]) -> float:
    """Return the images per second of the usual template of Lightning, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        contender = speed.Contender("template", words, Path(folder), threads=1)
        try:
            return contender.turn(windows=2, patience=60)
        finally:
            contender.close()


def print_rows(title: str, rows: list[dict]) -> None:
    """Print a table in Markdown."""
    print(f"\n{title}\n\n| contender | steps/s | images/s | ratio to loop | MB |\n|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row['steps_per_second']:,.0f} | {row['images_per_second']:,.0f} | {row['ratio']:.2f}"
        print(f"| {row['name']} | {numbers} | {row['megabytes']:,.0f} |", flush=True)


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="folder of MNIST; random bytes without it")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--small", action="store_true", help="digits only, some steps")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print tables and write them as JSON."""
    given = parse_arguments(arguments)
    silence_lightning()
    end, has_gpu, small = time.monotonic() + 60 * given.minutes, torch.cuda.is_available(), given.small
    card = torch.cuda.get_device_name() if has_gpu else platform.processor() or platform.machine()
    result: dict[str, Any] = {"device": card, "torch": torch.__version__, "tables": [], "left_out": []}
    machine = ["trainer=gpu", "data.batches_per_step=50"] if has_gpu else ["trainer.accelerator=cpu", "threads=1"]
    rounds, seconds, warmup = (1, 0.05, 3) if small else (3, 0.5, 60)
    workloads = ["digits"] if small else ["mlp", "conv", "burgess", "digits"]
    sizes = [None] if small else [128, 1024]
    print(f"{card}, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as scratch:
        root = given.data_root.resolve()
        if not small and not (root / "MNIST" / "raw" / "train-images-idx3-ubyte").exists():
            root = Path(scratch)
            speed.random_mnist(root, 60_000)

        def words_of(text: str) -> list[str]:
            own = [f"data.root={root}"] if "data=mnist" in text else []
            return [*text.split(), "data.binarize=static", *machine, *own]

        cases = itertools.product(sizes, ["fp32"] if small else PRECISIONS, workloads)
        for size, precision, workload in cases:
            title = f"{workload}, {precision}" + (f", batch {size}" if size else "")
            names = ["loop", *(["loop+graph"] if has_gpu else []), "vaezoo"]
            if not small and (size, precision) == (128, "fp32"):  # compiling takes long
                names += ["loop+compile", "vaezoo+compile"]
            if time.monotonic() > end - 60 and not small:
                result["left_out"].append(f"{title}: no time is left")
                continue
            words = [*words_of(speed.WORKLOADS[workload]), *([f"data.batch_size={size}"] if size else [])]
            rows = measure(words, precision, names, rounds, seconds, warmup)
            print_rows(title, rows)
            result["tables"].append({"title": title, "words": words, "rows": rows})
        if not has_gpu:
            result["left_out"].append("loop+graph: there is no GPU")
        if not small:
            result["template"] = {name: template_rate(words_of(speed.WORKLOADS[name])) for name in ("mlp", "digits")}
            result["iwae_50_steps_per_second"] = vaezoo_rate(words_of(IWAE), seconds, warmup)
        images, samples = (4, 50) if small else (10_000, 5_000)
        result["log_marginal"] = {
            "images": images, "samples": samples, "seconds": seconds_of_log_marginal(images, samples),
        }  # fmt: skip
    for key in ("template", "iwae_50_steps_per_second", "log_marginal", "left_out"):
        print(f"{key}: {result.get(key, 'left out')}")
    given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
