"""Compares two checkouts of the project: does every command compute the same numbers, to the last bit?

    python tests/campaign/same_numbers.py TREE_BEFORE TREE_AFTER [--only NAME ...] [--json FILE]
    python tests/campaign/same_numbers.py FILE TREE_AFTER

The second form compares with the numbers that ``--json FILE`` has kept of an earlier TREE_AFTER on the same machine.

It shows that a reorganisation (modules moved, names changed) changes no number. A tree is a folder with ``run.py``,
``conf/`` and ``vaezoo/``. The script uses nothing of the package but the command line; config keys that were renamed
are in ``OLD_KEYS``, numbers in ``OLD_NUMBERS``.
Both trees run the same short commands, at the same time, each command in its own folder. Then each
file that the commands wrote is compared:

- ``*.ckpt``: every tensor (dtype, shape, bytes) and every number. Names may differ. The weights and the states of the
  optimizer and of the average must be in the same order; the rest (counters, scores, results) is compared as a sorted
  list, because a refactoring may store it in another place;
- ``metrics.csv``, ``comparison.csv``, ``summary.json`` and the data inside ``report.html``: every number with its name;
- ``*.npz``: every array; ``*.png``: every pixel, except in ``figures/``, because plots contain text.

Left out, because it may differ although the computation is the same: times, speeds, memory, versions, the git commit,
configs, units, paths, all other words; and ``previous.ckpt``, because it depends on the time whether that file exists.
Not covered: data sets that need files (MNIST and others) and with them the metrics of anomalies, annealed importance
sampling (it takes minutes), Inception's features, sweeps, GPUs, W&B and TensorBoard.

Every command runs with one thread. Most of them run in a forked child of a process that has imported the libraries,
but not the package: this saves some seconds for each command and gives the numbers of a fresh process. (To check this,
``--fresh`` runs each command in a fresh process.) The exit code is 1 if anything differs or if a command fails.
"""

import argparse
import csv
import hashlib
import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

SECONDS = 3600  # after this time, a command is killed and counts as failed
LIBRARIES = ("torch", "lightning.pytorch", "hydra", "torchmetrics", "numpy", "sklearn.datasets", "sklearn.linear_model",
             "scipy.stats", "PIL.Image", "matplotlib.figure", "rich.console", "rich.table", "tqdm")  # fmt: skip
LEFT_OUT = re.compile(r"git_commit|second|memory|/versions/|threads|/config/|/units/|/quantities/|/settings/|/verdict/")
# Likelihoods that are the default of images of digits, or score no images.
NOT_OF_IMAGES = {"auto", "bernoulli", "categories", "index_categorical", "log_normal", "negative_binomial", "ordinal",
                 "ordinal_columns", "poisson", "token_sequence"}  # fmt: skip
OF_PAIRS = {"jmvae", "mmvae", "mopoe_vae", "multimodal_vae", "mvtcae"}  # models of images with labels or captions
OLD_KEYS = {"data.batches_per_step": "data.chunk", "callbacks.checkpoint_best": "callbacks.best"}  # of earlier versions
OLD_NUMBERS = {"log_p_images": "log_p_examples"}  # names of earlier versions, with the present ones
IN_ORDER = ("state_dict", "optimizer_states", "lr_schedulers", "averaging_state", "current_model_state")

SHORT = "logger=csv trainer.accelerator=cpu trainer.max_epochs=2 trainer.limit_train_batches=8"
NETS = "model/encoder={0} model/decoder={0}"
SPRITES = "data=sprites data.size=32 data.batch_size=32 data.val_size=100 data.test_size=600 model.latent_dim=5"
SAMPLES = "task.metrics=[likelihood,latent,probes,reconstruction,samples]"
FACTORS = "task.metrics=[likelihood,latent,disentanglement]"
EVALUATED = {  # each run with its metrics: the samplers are slow to train
    "mlp_vae": "task.metrics=all",
    "vq_vae": SAMPLES,
    "ladder_vae": SAMPLES,
    "s_vae": SAMPLES,
    "cvae": SAMPLES,
    "sprites": FACTORS,
}
OTHERS = {  # name: words besides SHORT
    "ema": "callbacks/ema=default callbacks.ema.decay=0.9",
    "anneal_linear": "model=beta_vae callbacks/anneal=linear callbacks.anneal.steps=10",
    "anneal_cyclical": "callbacks/anneal=cyclical callbacks.anneal.period=6",
    "geco": "callbacks/anneal=geco callbacks.anneal.target=20 callbacks.checkpoint_best=null",
    "early_stopping": "callbacks/early_stopping=default callbacks.early_stopping.patience=1 "
    "callbacks.early_stopping.min_delta=100 trainer.max_epochs=5",
    "cosine": "scheduler=cosine scheduler.warmup_steps=4",
    "adamw": "optimizer=adamw",
    "accumulate": "trainer.accumulate_grad_batches=3",
    "clip": "trainer.gradient_clip_val=0.5",
    "bf16": "trainer.precision=bf16-mixed",
    "bf16_conv_ema": "model=conv_vae trainer.precision=bf16-mixed callbacks/ema=default",
    "chunk": "data.batches_per_step=3",
    "chunk_ema_accumulate": "data.batches_per_step=3 callbacks/ema=default trainer.accumulate_grad_batches=2 "
    "scheduler=cosine",
    "loader_workers": "data.num_workers=1 data.batches_per_step=3",
    "validation_inside_epoch": "trainer.val_check_interval=4",
    "skip_nan": "on_nan=skip data.batches_per_step=3",
    "seed": "seed=7",
    "static": "data.binarize=static",
    "threshold": "data.binarize=threshold",
    "grey": "data.binarize=none model/likelihood=normal",
    "free_bits": "model.free_bits=0.1 model.num_samples=3",
    "free_bits_per_layer": "model=ladder_vae model.free_bits=0.5 model.free_bits_per=layer callbacks/anneal=linear",
    "plane": "model.latent_dim=2",
    "resnet": NETS.format("resnet"),
    "burgess": NETS.format("burgess"),
    "conv_iwae": "model=iwae " + NETS.format("conv"),
    "conv_vq_vae": "model=vq_vae " + NETS.format("conv"),
    "iwae_dreg": "model=iwae model.gradient=dreg",
    "miwae_stl": "model=miwae model.gradient=stl",
    "piwae_dreg": "model=piwae model.gradient=dreg",
    "iwae_vamp": "model=iwae model/prior=vamp",
    "iaf_flow": "model/posterior=iaf model/prior=flow",
    "planar_mixture": "model/posterior=planar model/prior=mixture_of_normals",
    "sprites": "model=beta_tc_vae " + SPRITES,
    "sprites_colors": "model=factor_vae data.colors=3 model/likelihood=discretized_logistic " + SPRITES,
}


def commands(tree: Path) -> dict[str, dict[str, Any]]:
    """Return the commands: name -> steps (command lines, ``@OUT@/NAME`` is a command's folder), needs, fresh."""
    found = {path.stem: f"model={path.stem}" for path in sorted((tree / "conf/model").glob("*.yaml"))}
    found |= {name: f"{words} data=digit_labels" for name, words in found.items() if name in OF_PAIRS}
    likelihoods = {path.stem for path in (tree / "conf/model/likelihood").glob("*.yaml")} - NOT_OF_IMAGES
    found |= {f"likelihood_{name}": f"model/likelihood={name}" for name in sorted(likelihoods)} | OTHERS
    ran = {name: {"steps": [f"{SHORT} {words} hydra.run.dir=@OUT@/{name}"]} for name, words in found.items()}
    more = "hydra.run.dir=@OUT@/resumed trainer.max_epochs=1 callbacks/ema=default scheduler=cosine"
    ran["resumed"] = {"steps": [f"{SHORT} {more}", "run=@OUT@/resumed trainer.max_epochs=3"]}
    ran["ddp"] = {
        "steps": [f"{SHORT} model=mog_vae trainer=ddp trainer.devices=2 hydra.run.dir=@OUT@/ddp"],
        "fresh": True,
    }
    if shutil.which("c++") or shutil.which("g++"):
        ran["compile"] = {"steps": [f"{SHORT} compile=true hydra.run.dir=@OUT@/compile"], "fresh": True}
    else:
        print("compile: left out, because there is no C++ compiler on this machine")
    settings = "task.num_samples=20 task.num_images=40"
    words = f"{FACTORS} {settings} {SHORT} trainer.max_epochs=1"
    ran["compare"] = {"steps": [f"task=compare models=[mlp_vae,iwae] seeds=2 {words} hydra.run.dir=@OUT@/compare"]}
    for run, metrics in EVALUATED.items():
        tasks = {"evaluate": f"{metrics} {settings}", "sample": "num=20", "reconstruct": "num=20", "encode": ""}
        for task, words in tasks.items():
            name = f"{task}_{run}"
            step = f"task={task} run=@OUT@/{run} trainer.accelerator=cpu {words} hydra.run.dir=@OUT@/{name}"
            ran[name] = {"steps": [step], "needs": run}
    return ran


# One tree: the part of the script that runs inside of it.


def run_tree(tasks: dict[str, dict[str, Any]], out: Path, fresh: bool) -> None:
    """Run the commands in the working directory, and write what each left behind to ``OUT/NAME.json``."""
    for library in LIBRARIES:
        with suppress(ImportError):  # then the package will import it, or does not need it
            importlib.import_module(library)
    for name, task in tasks.items():
        result, log, seconds, code = out / f"{name}.json", out / f"{name}.log", 0.0, 0
        start = start_fresh if fresh or task.get("fresh") else start_here
        calls = [partial(start, with_tree_keys(step).replace("@OUT@", str(out)).split()) for step in task["steps"]]
        for call in [*calls, partial(write_parts, out / name, result)]:
            if code == 0:
                code, used = in_child(call, log)
                seconds += used
        if code:
            last = (log.read_text(errors="replace").strip() or "no output").splitlines()[-1]
            result.write_text(json.dumps({"failed": f"exit code {code}: {last}"}))
        print(name, round(seconds, 1), flush=True)


def with_tree_keys(words: str) -> str:
    """Return the words of a command with the config keys that the tree in the working directory has."""
    text = "".join(path.read_text() for path in Path("conf").rglob("*.yaml"))
    for new, old in OLD_KEYS.items():
        if f"{new.rpartition('.')[2]}:" not in text:
            words = words.replace(f"{new}=", f"{old}=")
    return words


def in_child(function: Callable[[], Any], log: Path) -> tuple[int, float]:
    """Call a function in a forked child with its output in a file, and return the exit code and the CPU seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(SECONDS)
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            function()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            with suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def start_here(words: list[str]) -> None:
    """Run ``run.py`` in this process, and check that the package is that of the tree."""
    sys.argv = ["run.py", *words]
    runpy.run_path("run.py", run_name="__main__")
    package = getattr(sys.modules.get("vaezoo"), "__file__", None)
    if package and not Path(package).resolve().is_relative_to(Path.cwd().resolve()):
        raise ImportError(f"vaezoo was imported from {package}, not from {Path.cwd()}")


def start_fresh(words: list[str]) -> None:
    """Replace this process by ``python run.py``."""
    os.execv(sys.executable, [sys.executable, "run.py", *words])


def write_parts(folder: Path, result: Path) -> None:
    """Write the parts of a folder: file (and what in it) -> [name, value as text] of each leaf."""
    parts: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "previous.ckpt" or "figures" in path.parts:
            continue
        if path.suffix == ".ckpt":
            import torch

            rest: list[tuple[str, str]] = []
            for key, value in torch.load(path, weights_only=True, map_location="cpu").items():
                if not key.endswith(("config", "vaezoo_data")):
                    place = parts.setdefault(f"{name} {key}", []) if key in IN_ORDER else rest
                    place.extend(leaves(value, key))
            parts[f"{name} rest"] = sorted(rest, key=lambda leaf: leaf[1])
        elif path.suffix == ".npz":
            import numpy as np

            with np.load(path) as arrays:
                parts[name] = [leaf for key in sorted(arrays) for leaf in leaves(arrays[key], key)]
        elif path.suffix == ".png":
            import numpy as np
            from PIL import Image

            parts[name] = list(leaves(np.asarray(Image.open(path)), "pixels"))
        elif path.name in ("metrics.csv", "comparison.csv"):
            with path.open() as lines:
                rows = enumerate(csv.DictReader(lines))
                cells = [(f"row {i} {key}", text) for i, row in rows for key, text in row.items()]
            parts[name] = [cell for cell in cells if not LEFT_OUT.search(cell[0])]
        elif path.name == "summary.json":
            parts[name] = sorted(leaf for leaf in leaves(json.loads(path.read_text())) if not LEFT_OUT.search(leaf[0]))
        elif path.name == "report.html":
            data = re.findall(r'<script[^>]*type="application/json"[^>]*>(.*?)</script>', path.read_text(), re.DOTALL)
            found = [leaf for text in data for leaf in leaves(json.loads(text)) if not LEFT_OUT.search(leaf[0])]
            parts[name] = sorted(found)
    if not any(parts.values()):
        raise FileNotFoundError(f"the command left no numbers in {folder}")
    result.write_text(json.dumps(parts))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield (name, text) for each number, tensor and array in nested values, in order. Words are no numbers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{name}/{number}")
    elif isinstance(value, bool | int | float) or value is None:
        yield name, repr(value)  # of a float, repr tells every bit
    elif hasattr(value, "dtype"):
        import torch

        # Of a tensor, the bytes: numpy has no bfloat16.
        array = value.contiguous().reshape(-1).view(torch.uint8).numpy() if torch.is_tensor(value) else value
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        kind = f"{str(value.dtype).removeprefix('torch.')}{tuple(value.shape)}"
        shown = f"{value.item()!r} " if len(value.shape) == 0 else ""
        yield name, f"{kind} {shown}sha256={digest}"


# Both trees.


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return a line for each part that differs, with its first difference."""
    failed = [f"{tree}: {said['failed']}" for tree, said in (("before", before), ("after", after)) if "failed" in said]
    if failed:
        return failed
    found = []
    for part in dict.fromkeys([*before, *after]):
        if part not in before or part not in after:
            found.append(f"{part}: only {'before' if part in before else 'after'}")
            continue
        old, new = with_present_names(before[part]), with_present_names(after[part])
        named = ".ckpt " not in part  # names inside a checkpoint may change
        pairs = [(a, b) for a, b in zip(old, new, strict=False) if (a != b if named else a[1] != b[1])]
        if pairs:
            (name, value), (other, changed) = pairs[0]
            found.append(f"{part}: {len(pairs)} differ, first {name} = {value} before, {other} = {changed} after")
        elif len(old) != len(new):
            found.append(f"{part}: {len(old)} values before, {len(new)} after")
    return found


def with_present_names(leaves: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return leaves of either tree with the present names of numbers."""
    for old, new in OLD_NUMBERS.items():
        leaves = [(re.sub(rf"\b{old}\b", new, name), value) for name, value in leaves]
    return leaves


def start_tree(name: str, tree: Path, folder: Path, flags: list[str]) -> subprocess.Popen:
    """Start the process that runs the commands of ``FOLDER/commands.json`` in a tree."""
    out = folder / name
    out.mkdir()
    environment = {
        "PYTHONPATH": str(tree),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        # Of each tree its own: what the other has computed is not to be found here.
        "XDG_CACHE_HOME": str(out / "cache"),
        "TORCHINDUCTOR_CACHE_DIR": str(out / "inductor"),
    }
    script = [sys.executable, "-P", str(Path(__file__).resolve())]  # -P: this script's folder stays off the path
    words = [*script, ".", ".", "--run", str(folder / "commands.json"), str(out), *flags]
    return subprocess.Popen(words, cwd=tree, env=os.environ | environment, stdout=subprocess.PIPE, text=True)


def main() -> int:
    """Run the commands in both trees, print what differs, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("before", type=Path, help="a checkout; or a file of --json, whose second checkout it was")
    parser.add_argument("after", type=Path, help="the checkout to compare with it")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="commands to run (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all digests and numbers of AFTER to this file")
    parser.add_argument("--fresh", action="store_true", help="run each command in a fresh process")
    parser.add_argument("--run", nargs=2, type=Path, help=argparse.SUPPRESS)  # COMMANDS OUT: the part inside a tree
    args = parser.parse_args()
    if args.run:
        run_tree(json.loads(args.run[0].read_text()), args.run[1], args.fresh)
        return 0
    results: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
    trees = {"before": args.before.resolve(), "after": args.after.resolve()}
    if args.before.is_file():
        results["before"] = json.loads(trees.pop("before").read_text())
    tasks = commands(next(iter(trees.values())))
    if args.only:
        if unknown := [name for name in args.only if name not in tasks]:
            parser.error(f"unknown command {unknown[0]}: choose from {', '.join(tasks)}")
        needed = {*args.only, *filter(None, (tasks[name].get("needs") for name in args.only))}
        tasks = {name: task for name, task in tasks.items() if name in needed}
    start, different = time.perf_counter(), 0
    with tempfile.TemporaryDirectory(prefix="same_numbers_") as place:
        folder = Path(place)
        (folder / "commands.json").write_text(json.dumps(tasks))
        flags = ["--fresh"] if args.fresh else []
        workers = {name: start_tree(name, tree, folder, flags) for name, tree in trees.items()}
        for name in tasks:
            seconds = []
            for tree, worker in workers.items():
                seconds.append(worker.stdout.readline().rpartition(" ")[2].strip() + " s")
                results[tree][name] = json.loads((folder / tree / f"{name}.json").read_text())
            missing = {"failed": f"{args.before} does not hold this command"}
            found = differences(results["before"].get(name, missing), results["after"][name])
            different += bool(found)
            print(f"{name}: {'DIFFERENT' if found else 'equal'} (CPU {', '.join(seconds)})", flush=True)
            for line in found:
                print("    " + re.sub(r"(sha256=\w{12})\w+", r"\1...", line))
        for worker in workers.values():
            worker.wait()
    print(f"{len(tasks) - different} of {len(tasks)} commands equal, in {time.perf_counter() - start:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(results["after"], indent=1))
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
