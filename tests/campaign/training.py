"""Training under faults: killed, signalled and fed with NaN, it continues to the bit or ends with one sentence.

    python tests/campaign/training.py --minutes 15 --seed 1 --kinds kills,targeted,nan,signals,same,commands
    python tests/campaign/training.py --minutes 10 --kinds parent,jobs,reused,logging,output

Each attempt is the whole program, ``run.py OVERRIDES resume=auto``, in a fork of this process. Its result is compared
with that of the same command without faults: loss, examples and images of every batch, the checkpoints, the metrics
and the summary. The script prints one line of figures for each kind of fault and exits with 1 if there was an error.
"""

import argparse
import contextlib
import csv
import json
import os
import pty
import random
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"

import lightning.pytorch  # noqa: F401  # each fork has loaded what a run imports
import probe
import sklearn.datasets  # noqa: F401
import torch
import torch._dynamo

import vaezoo.cli
import vaezoo.tasks.fit
from vaezoo.runs.checkpoint import read_checkpoint

REPO = Path(__file__).resolve().parents[2]

# The overrides of each run, and the choices from which further ones are drawn.
BASE = {
    "logger": "csv",
    "debug": "true",
    "threads": "1",
    "allow_packages": "[probe]",
    "trainer": "cpu",
    "trainer.max_epochs": "3",
    "trainer.log_every_n_steps": "7",
    "data.batch_size": "16",
    "data.val_size": "800",  # which leaves 40 batches in an epoch: enough for all events, and more runs in a minute
    "callbacks.images": "null",
    "callbacks.checkpoint_last.every_seconds": "0",
    "+callbacks.probe._target_": "probe.Probe",
    "+callbacks.probe.record": "${run_dir}/record",
}
MLP = {"model/encoder": "mlp", "model/decoder": "mlp", "model.encoder.hidden": "[16]", "model.decoder.hidden": "[16]"}
CONV = {
    "model/encoder": "conv",
    "model/decoder": "conv",
    "model.encoder.channels": "[4,8]",
    "model.decoder.channels": "[4,8]",
    "model.encoder.hidden": "16",
    "model.decoder.hidden": "16",
}
NETS = [MLP, CONV]
ACCUMULATION = [{}, {"trainer.accumulate_grad_batches": "4"}]
PRECISION = [{}, {"trainer.precision": "bf16-mixed"}]
CHUNK = [{"data.batches_per_step": "1"}, {"data.batches_per_step": "3"}, {}]
EXTRAS = [
    {},
    {"callbacks/ema": "default", "callbacks.ema.decay": "0.9"},
    {"scheduler": "cosine", "scheduler.warmup_steps": "10"},
    {"callbacks/anneal": "linear", "callbacks.anneal.steps": "100"},
    {"callbacks/anneal": "geco", "callbacks.anneal.target": "24"},
    {"data.binarize": "static", "trainer.gradient_clip_val": "1"},
    {"data.num_workers": "2"},
    {"callbacks/early_stopping": "default", "callbacks.early_stopping.patience": "1",
     "callbacks.early_stopping.min_delta": "99"},
    {"trainer.val_check_interval": "30"},
    {"trainer.check_val_every_n_epoch": "2"},
    {"trainer.max_steps": "100"},
    {"seed": "1", "optimizer": "adamw", "model/posterior": "planar"},
    {"model": "factor_vae", "model.critic_hidden": "[16,16]"},
    {"model": "vq_vae"},
]  # fmt: skip
TIMES = ("step/examples_per_second",)


@dataclass
class End:
    """How an attempt ended."""

    code: int  # negative: killed by this signal
    out: str  # stdout and stderr
    seconds: float


def attempt(
    folder: Path,
    words: dict[str, str],
    faults: Callable[[str, int], None] | None = None,
    broken: tuple | None = None,
    signals: tuple[tuple[float, int], ...] = (),
    saves: str = "",
    group: bool = False,
    terminal: bool = False,
    resume: bool = True,
    streams: tuple[str, str] = ("kept", "kept"),
    broken_after: float = 0,
) -> End:
    """Run the command of these overrides in a folder, once.

    Args:
        faults: told of each event in it, and how often that has happened.
        broken: what ``probe.break_step`` is given.
        signals: seconds after its start, or after the signal before, and what it is sent then.
        saves: names the draws of when it saves.
        group: send the signals to its workers, too.
        terminal: stderr is a terminal.
        resume: whether to add resume=auto.
        streams: stdout and stderr, each "kept", "closed", "full" (/dev/full), or a "pipe" whose reader goes away
            after ``broken_after`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    ours, theirs = pty.openpty() if terminal else (None, None)
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
            os.dup2(file, 1)
            os.dup2(theirs if terminal else file, 2)
            os.close(reader)
            for number, state in enumerate(streams, 1):
                if state == "closed":
                    os.close(number)
                elif state != "kept":
                    os.dup2(writer if state == "pipe" else os.open("/dev/full", os.O_WRONLY), number)
            os.close(writer)
            os.chdir(folder.parent)
            probe.fault, probe.saves = faults, random.Random(saves)
            probe.install()
            if broken:
                probe.break_step(*broken)
            sys.argv = command(folder, words, resume)
            with contextlib.suppress(SystemExit):
                code: object = 0
                try:
                    vaezoo.cli.main()
                except SystemExit as leave:
                    code = leave.code or 0
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(code))
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    os.close(writer)
    threading.Timer(broken_after, os.close, [reader]).start()
    shown = b""
    if terminal:
        os.close(theirs)
        with contextlib.suppress(OSError):  # the terminal is gone with the process
            while part := os.read(ours, 65536):
                shown += part
        os.close(ours)
    ended = os.pidfd_open(pid)
    for wait, signum in signals:
        if not select.select([ended], [], [], wait)[0]:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(pid, signum)
    os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    out = log.read_text() + shown.decode()
    assert code != 99, out
    if code != -signal.SIGKILL:  # which its workers complain of
        assert "Traceback" not in out, out
    return End(code, out, time.monotonic() - start)


def command(folder: Path, words: dict[str, str], resume: bool = True) -> list[str]:
    """Return the command line."""
    text = [f"{key}={value}" for key, value in (BASE | words).items()]
    return ["run.py", *text, *["resume=auto"] * resume, f"hydra.run.dir={folder.name}"]


def outcome(folder: Path) -> dict:
    """Return everything that must be equal for two runs of a command."""
    record: dict[str, list] = {}
    for line in (folder / "record").read_text().splitlines():
        epoch, number, *values = json.loads(line)
        before = record.setdefault(f"epoch {epoch}, batch {number}", values)
        assert before == values, f"epoch {epoch}, batch {number} was {before}, and is {values} the next time"
    found = {"record": record, "metrics": metrics(folder)}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed", summary
    found["summary"] = {key: summary[key] for key in ("test", "last_val", "objective", "epochs", "steps", "scored")}
    for name in ("last", "best"):
        checkpoint = read_checkpoint(folder / "checkpoints" / f"{name}.ckpt")
        del checkpoint["vaezoo_config"]
        # How many validation batches there ever were, the ones of an interrupted validation included.
        found[name] = {key: leaf for key, leaf in leaves(checkpoint) if ".val_loop." not in key}
    assert not list(folder.rglob("*.tmp")), "a temporary file is left"
    return found


def metrics(folder: Path) -> list[dict[str, str]]:
    """Return the rows of metrics.csv without times."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: cell for key, cell in row.items() if cell and key not in TIMES} for row in rows]


def leaves(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values inside a checkpoint, tensors as their hash."""
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{name}.{key}")
    else:
        yield name, probe.digest(value) if isinstance(value, torch.Tensor) else value


def compare(found: object, expected: object, name: str = "") -> None:
    """Describe the first difference between two outcomes."""
    if isinstance(found, dict) and isinstance(expected, dict):
        assert found.keys() == expected.keys(), f"{name}: only in one: {list(found.keys() ^ expected.keys())[:5]}"
        for key, part in found.items():
            compare(part, expected[key], f"{name}.{key}")
    elif isinstance(found, list) and isinstance(expected, list):
        assert len(found) == len(expected), f"{name}: {len(found)} in place of {len(expected)}"
        for number, (part, other) in enumerate(zip(found, expected, strict=True)):
            compare(part, other, f"{name}.{number}")
    else:
        assert found == expected or found != found, f"{name} is {found}, and {expected} where nothing happened"


class Campaign:
    """Runs cases in a folder; each command is run once without faults."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.whole: dict[str, tuple[dict, float, float]] = {}

    def alone(self, words: dict[str, str], broken: tuple | None = None) -> tuple[dict, float, float]:
        """Return the outcome of a command without faults, and the seconds until its first batch and until its end."""
        name = json.dumps([words, broken])
        if name not in self.whole:
            folder = Path(tempfile.mkdtemp(prefix="whole", dir=self.folder))
            began, start = folder.with_suffix(".began"), time.time()

            def mark(event: str, count: int) -> None:
                if event == "epoch's start" and count == 1:
                    began.touch()

            end = attempt(folder, words, mark, broken)
            assert end.code == 0, end.out
            self.whole[name] = outcome(folder), began.stat().st_mtime - start, end.seconds
        return self.whole[name]

    def kills(self, folder: Path, rng: random.Random) -> Counter:
        """Kill a run at random times, again and again."""
        words = draw(rng)
        expected, first, whole = self.alone(words)
        figures = Counter(runs=1)
        for turn in range(rng.randint(4, 12)):
            wait = rng.uniform(0, first) if rng.random() < 0.2 else first + rng.uniform(0, 0.5) * (whole - first)
            end = attempt(folder, words, signals=((wait, signal.SIGKILL),), saves=f"{rng.random()}")
            if end.code == 0:
                break
            assert end.code == -signal.SIGKILL, f"attempt {turn}: {end}"
            figures["kills"] += 1
        return figures + self.finish(folder, words, expected)

    def finish(self, folder: Path, words: dict[str, str], expected: dict, broken: tuple | None = None) -> Counter:
        """Run without faults from here on, and compare the outcome with that of a run without any."""
        end = attempt(folder, words, broken=broken)
        assert end.code == 0, end
        compare(outcome(folder), expected)
        return Counter({"batches compared": len(expected["record"])})

    def targeted(self, folder: Path, rng: random.Random) -> Counter:
        """Kill a run before named events, at which it could matter."""
        words = draw(rng)
        expected, *_ = self.alone(words)
        figures = Counter(runs=1)
        for _ in range(rng.randint(1, 4)):
            event, at = moment(rng)

            def die(what: str, count: int, event: str = event, at: int = at) -> None:
                if (what, count) == (event, at):
                    os.kill(os.getpid(), signal.SIGKILL)

            end = attempt(folder, words, die, saves=f"{rng.random()}")
            assert end.code in (0, -signal.SIGKILL), end
            if end.code:
                figures["kills"] += 1
                figures[f"at {event}"] += 1
        return figures + self.finish(folder, words, expected)

    def nan(self, folder: Path, rng: random.Random) -> Counter:
        """Put a non-finite number into a batch: the run stops in that step, or skips it."""
        words = draw(rng)
        clean, *_ = self.alone(words)
        epoch, number = map(int, re.findall(r"\d+", rng.choice(list(clean["record"]))))
        what = rng.choice(["images", "loss", "gradient"])
        value = float("nan") if what == "images" else rng.choice([float("nan"), float("inf"), float("-inf")])
        broken = (what, value, epoch, number)
        figures = Counter({f"{what} {value}": 1, "injections": 1})
        end = attempt(folder, words | {"debug": "false"}, broken=broken, saves=f"{rng.random()}")
        assert end.code == 1, f"{broken}: {end}"
        (line,) = (line for line in end.out.splitlines() if line.startswith("error: "))
        step = clean["record"][f"epoch {epoch}, batch {number}"][0]
        step -= (number + 1) % accumulation(words) == 0 or is_last(clean["record"], epoch, number)
        assert re.match(r"error: training diverged: the (loss|gradient of \S+) is not finite", line), line
        assert f"in step {step} " in line, f"{broken}, step {step}: {line}"
        named = [int(i) for i in re.findall(r"training examples ([0-9, ]*)", line)[0].split(",")]
        window = 1 if what != "gradient" else accumulation(words)
        batches = [probe.digest(torch.tensor(part)) for part in split(named, 16)]
        assert clean["record"][f"epoch {epoch}, batch {number}"][2] in batches, f"{broken}: {line}"
        assert len(batches) <= window, f"{broken}: {line}"
        last = [json.loads(text) for text in (folder / "record").read_text().splitlines()]
        assert all(row[2] <= step for row in last), f"{broken}: trained on"
        for path in (folder / "checkpoints").glob("*.ckpt"):
            assert read_checkpoint(path)["global_step"] <= step
        words = words | {"on_nan": "skip"}
        folder = folder.with_name(f"{folder.name}skip")
        expected, first, whole = self.alone(words, broken)
        assert expected["last"][".vaezoo_state.skipped"] == 1, expected["last"][".vaezoo_state.skipped"]
        for _ in range(rng.randint(1, 2)):
            wait = first + rng.uniform(0, 0.5) * (whole - first)
            end = attempt(folder, words, broken=broken, signals=((wait, signal.SIGKILL),), saves=f"{rng.random()}")
            assert end.code in (0, -signal.SIGKILL), end
            figures["kills while skipping"] += end.code < 0
        return figures + self.finish(folder, words, expected, broken)

    def signals(self, folder: Path, rng: random.Random) -> Counter:
        """Send signals to stop, at random times and before named events; to some runs a second time."""
        words = draw(rng)
        expected, _first, whole = self.alone(words)
        figures = Counter(runs=1)
        for _ in range(rng.randint(2, 4)):
            signum = rng.choice(vaezoo.runs.signals.SIGNALS)
            group = rng.random() < 0.5
            event, at = moment(rng)

            def ask(what: str, count: int, event: str = event, at: int = at, signum: int = signum) -> None:
                if (what, count) == (event, at):
                    os.kill(os.getpid(), signum)

            if rng.random() < 0.5:
                kind = f"at {event}"
                end = attempt(folder, words, ask, saves=f"{rng.random()}")
            else:
                kind = "at any time"
                wait = rng.uniform(0, whole)
                end = attempt(folder, words, signals=((wait, signum),), saves=f"{rng.random()}", group=group)
            if end.code == 0:
                figures["too late or not there"] += 1
                continue
            figures["signals"] += 1
            figures[kind] += 1
            if "send again to quit immediately" not in end.out:
                figures["before it listens"] += 1
                continue
            assert end.code == 128 + signum, f"{kind}: {end}"
            summary = json.loads((folder / "summary.json").read_text())
            said = [summary["status"], summary.get("error")]
            assert said == ["interrupted", f"interrupted by {signal.Signals(signum).name}"], f"{kind}: {said}, {end}"
        return figures + self.finish(folder, words, expected)

    def twice(self, folder: Path, rng: random.Random) -> Counter:
        """Send a second signal more than a second after the first: it ends a step that hangs."""
        words = draw(rng)
        expected, *_ = self.alone(words)
        signum = rng.choice(vaezoo.runs.signals.SIGNALS)
        event = rng.choice(["batch", "validation batch", "test batch", "save"])

        def hang(what: str, count: int) -> None:
            if (what, count) == (event, 1):
                end = time.monotonic() + 30
                os.kill(os.getpid(), signum)
                while (left := end - time.monotonic()) > 0:
                    time.sleep(left)

        end = attempt(folder, words, hang, signals=((5, signum),))
        assert end.code == 128 + signum, end
        assert end.seconds < 6, end
        return Counter({"second signals": 1}) + self.finish(folder, words, expected)

    def same(self, folder: Path, rng: random.Random) -> Counter:
        """Change the progress bar, pictures, workers and batches per step: the weights stay the same."""
        words = draw(rng)
        # A run that max_steps ends in an epoch's last chunk is validated then, and in another chunk it is not.
        varied = ("data.batches_per_step", "data.num_workers", "trainer.max_steps")
        words = {key: value for key, value in words.items() if key not in varied}
        expected, *_ = self.alone(words)
        for number, other in enumerate(OTHERWISE):
            there = folder.with_name(f"{folder.name}way{number}")
            end = attempt(there, words | other, terminal=number == 0)
            assert end.code == 0, end
            found = outcome(there)
            for name in ("record", "summary"):
                compare(found[name], expected[name], f"{other} {name}")
            for name in ("last", "best"):
                for key in (k for k in expected[name] if k.startswith((".state_dict", ".optimizer"))):
                    assert found[name][key] == expected[name][key], f"{other}: {name}{key}"
        return Counter({"runs compared": len(OTHERWISE)})

    def commands(self, folder: Path, rng: random.Random) -> Counter:
        """Kill or stop the real command line, alone and as a sweep, then repeat it."""
        words = draw(rng)
        expected, *_ = self.alone(words)
        figures = Counter()
        for _ in range(2):
            signum = rng.choice([*vaezoo.runs.signals.SIGNALS, signal.SIGKILL])
            end = program(folder, words, rng.uniform(3, 9), signum)
            assert end.code in (0, -signum, 128 + signum), end
            figures["stopped commands"] += end.code != 0
        end = program(folder, words)
        assert end.code == 0, end
        compare(outcome(folder), expected)
        sweep = folder.with_name(f"{folder.name}sweep")
        for wait in (rng.uniform(4, 16), None):
            end = program(sweep, words | {"seed": "3,4"}, wait, signal.SIGTERM)
            figures["stopped sweeps"] += end.code != 0
        assert end.code == 0, end
        for number, seed in enumerate("34"):
            compare(outcome(sweep / str(number)), self.alone(words | {"seed": seed})[0])
        return figures

    def parent(self, folder: Path, rng: random.Random) -> Counter:
        """Kill only the parent of a sweep or a comparison, and repeat the command, also at once: it completes."""
        words = draw(rng)
        figures, sweeps = Counter(), rng.random() < 0.5
        model, seed = words.pop("model", "mlp_vae"), words.pop("seed", "0")
        single = words | {"model": model, "seed": seed}
        measured = {"task.metrics": "[likelihood]", "task.num_samples": "2", "task.num_images": "9"}
        compared = words | {"task": "compare", "models": f"[{model}]", "seeds": f"[{seed}]"} | measured
        said = words | {"model": model, "seed": "3,4"} if sweeps else compared
        for _ in range(rng.randint(1, 2)):
            end = program(folder, said, rng.uniform(3, 14), signal.SIGKILL)
            assert end.code in (0, -signal.SIGKILL), end
            figures["killed parents"] += end.code != 0
            if rng.random() < 0.5:
                wait_for(lambda: not processes(folder), "a job outlives its parent")
                figures["with a pause"] += end.code != 0
        end = program(folder, said)
        assert end.code == 0, end
        wait_for(lambda: not processes(folder), "a process is left")
        if sweeps:
            for number, one in enumerate("34"):
                compare(outcome(folder / str(number)), self.alone(single | {"seed": one})[0])
            return figures + Counter(sweeps=1)
        expected = self.alone(single)[0]
        compare(outcome(folder / "runs" / f"{model}-seed{seed}"), expected)
        evaluation = json.loads((folder / "evaluations" / f"{model}-seed{seed}" / "summary.json").read_text())
        assert evaluation["status"] == "completed", evaluation
        assert evaluation["test"]["elbo"] == expected["summary"]["test"]["elbo"], evaluation
        assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
        return figures + Counter(comparisons=1)

    def jobs(self, folder: Path, rng: random.Random) -> Counter:
        """Disturb jobs side by side, of a sweep or a comparison, then repeat the command: it completes."""
        words = draw(rng)
        figures, sweeps = Counter(), rng.random() < 0.6
        model, seeds = words.pop("model", "mlp_vae"), "345" if sweeps else "34"
        words.pop("seed", None)
        measured = {"task.metrics": "[likelihood]", "task.num_samples": "2", "task.num_images": "9"}
        compared = words | {"task": "compare", "models": f"[{model}]", "seeds": f"[{','.join(seeds)}]"} | measured
        said = words | {"model": model, "seed": ",".join(seeds)} if sweeps else compared
        said = said | {"jobs": "2", "debug": "false"}
        expected = {seed: self.alone(words | {"model": model, "seed": seed}) for seed in seeds}
        whole = max(seconds for _, _, seconds in expected.values())
        reasons: set[str] = set()  # of this and of earlier disturbances, because some jobs may not have run since
        for _ in range(rng.randint(1, 3)):
            name = rng.choice(list(DISTURBANCES))
            whom, signums = DISTURBANCES[name]
            draws = random.Random(rng.random())
            met: list[int] = []
            end = program(folder, said, 0, strike=partial(strike, whom, signums, draws, whole, met))
            if not met:
                figures["too late"] += 1
                continue
            figures["disturbances"] += 1
            figures[name] += 1
            ends = (-signal.SIGKILL,) if signums == [signal.SIGKILL] else (128 + signums[0],)
            assert end.code in (ends if whom == "parent" else (0, 1)), f"{name}, {met}, {end.code}: {end.out[-300:]}"
            if whom == "parent" and signums == [signal.SIGKILL] and rng.random() < 0.5:
                reasons |= {"killed by SIGKILL", "interrupted by SIGTERM"}
                continue  # at once
            wait_for(lambda: not processes(folder), f"{name}: a process is left")
            errors = {json.loads(file.read_text()).get("error") for file in folder.rglob("summary.json")} - {None}
            sent = signums if whom == "job" else (*signums, signal.SIGTERM)  # without its parent, a job gets SIGTERM
            for signum in sent:
                reasons |= {f"{how} by {signal.Signals(signum).name}" for how in ("killed", "interrupted")}
            told = {error for error in errors if "jobs failed, the first is" not in error}
            assert told <= reasons, f"{name}: {told - reasons}, {end.out[-300:]}"
        end = program(folder, said)
        assert end.code == 0, end
        wait_for(lambda: not processes(folder), "a process is left")
        for place, seed in enumerate(seeds):
            compare(outcome(folder / (str(place) if sweeps else f"runs/{model}-seed{seed}")), expected[seed][0])
            if not sweeps:
                test = json.loads((folder / "evaluations" / f"{model}-seed{seed}" / "summary.json").read_text())
                assert test["test"]["elbo"] == expected[seed][0]["summary"]["test"]["elbo"], test
        return figures + Counter({"sweeps" if sweeps else "comparisons": 1, "runs compared": len(seeds)})

    def reused(self, folder: Path, rng: random.Random) -> Counter:
        """Another command in the folder of one that was killed: it is refused and changes nothing, or, where there was
        no checkpoint yet, has the folder for itself, also if it is killed while it takes it.
        """
        first = draw(rng)
        second = first | {"seed": "7", "optimizer.lr": "2e-3"}
        expected, before, whole = self.alone(first)
        figures = Counter({"second commands": 1})
        wait = rng.uniform(0, before) if rng.random() < 0.5 else rng.uniform(before, whole)
        attempt(folder, first, signals=((wait, signal.SIGKILL),), saves=f"{rng.random()}")
        saved, at = list((folder / "checkpoints").glob("*.ckpt")), rng.randint(1, 5)

        def die(what: str, count: int) -> None:
            if (what, count) == ("rename", at):
                os.kill(os.getpid(), signal.SIGKILL)

        if saved:
            files = contents(folder)
            end = attempt(folder, second | {"debug": "false"}, die, resume=rng.random() < 0.5)
            assert end.code == 1, end
            assert "holds the run of another command" in end.out, end
            assert contents(folder) == files, "a refused command changes the folder"
            return figures + Counter(refused=1) + self.finish(folder, first, expected)
        (folder / "record").unlink(missing_ok=True)
        end = attempt(folder, second, die, resume=False)
        assert end.code == -signal.SIGKILL, end
        figures["killed as well"] += 1
        if not any((folder / "checkpoints").glob("*.ckpt")):
            (folder / "record").unlink(missing_ok=True)
            end = attempt(folder, second, resume=False)
            assert end.code == 0, end
            other = self.alone(second)[0]
            compare(outcome(folder), other)
            return figures + Counter({"batches compared": len(other["record"])})
        return figures + self.finish(folder, second, self.alone(second)[0])

    def logging(self, folder: Path, rng: random.Random) -> Counter:
        """Kill W&B's service before named events: one sentence, and the run ends as without W&B."""
        words = draw(rng)
        expected, *_ = self.alone(words)
        event, at = moment(rng)
        mark = folder.with_name(f"{folder.name}killed")

        def kill(what: str, count: int) -> None:
            if what == event and count >= at and not mark.exists():  # the first files are written before it starts
                for pid in children(os.getpid()):
                    if "wandb" in command_line(pid):
                        os.kill(pid, signal.SIGKILL)
                        mark.touch()

        end = attempt(folder, words | {"logger": "wandb"}, kill, saves=f"{rng.random()}")
        assert end.code == 0, end
        assert end.out.count("has failed and is switched off") <= 1, end
        compare(outcome(folder), expected)
        told = "has failed and is switched off" in end.out
        figures = Counter({"runs": 1, "batches compared": len(expected["record"])})
        return figures + Counter({"killed services": int(mark.exists()), "told": int(told)})

    def output(self, folder: Path, rng: random.Random) -> Counter:
        """Close or fill standard output and error, or end the reader of a pipe: the run is complete."""
        words = draw(rng)
        expected, _first, whole = self.alone(words)
        streams = (rng.choice(["closed", "full", "pipe"]), rng.choice(["kept", "closed", "full", "pipe"]))
        end = attempt(folder, words, streams=streams, broken_after=rng.uniform(0, whole), saves=f"{rng.random()}")
        assert end.code == 0, f"{streams}: {end}"
        compare(outcome(folder), expected)
        figures = Counter({"runs without output": 1, "batches compared": len(expected["record"])})
        return figures + Counter(f"{name} {state}" for name, state in zip(("stdout", "stderr"), streams, strict=True))


# Whom a disturbance of jobs side by side meets, and with which signals.
DISTURBANCES = {
    "job killed": ("job", [signal.SIGKILL]), "warm process killed": ("warm", [signal.SIGKILL]),
    "parent killed": ("parent", [signal.SIGKILL]), "SIGINT": ("parent", [signal.SIGINT]),
    "SIGINT twice": ("parent", [signal.SIGINT, signal.SIGINT]), "SIGTERM": ("parent", [signal.SIGTERM]),
    "SIGHUP": ("parent", [signal.SIGHUP]),
}  # fmt: skip


def strike(
    whom: str, signums: list[int], draws: random.Random, most: float, met: list[int], process: subprocess.Popen
) -> None:
    """Send signals to a sweep or a comparison, to its warm process or to one of its jobs, at a random time after its
    first job has started.

    Args:
        whom: "parent", "warm" or "job".
        signums: the signals, of which a second one comes up to 2.5 seconds after the first.
        draws: the random times and the choice of the job.
        most: the largest time in seconds.
        met: gets each signal that was sent.
        process: the sweep or the comparison.
    """

    def forks() -> list[tuple[int, int]]:
        with contextlib.suppress(OSError):  # it has ended
            warm = [pid for pid in children(process.pid) if "runs.warm" in command_line(pid)]
            return [(pid, job) for pid in warm for job in children(pid)]
        return []

    while process.poll() is None and not forks():
        time.sleep(0.01)
    for wait, signum in zip((draws.uniform(0, most), draws.uniform(0, 2.5)), signums, strict=False):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        running = forks()
        if process.poll() is None and running:
            warm, job = draws.choice(running)
            with contextlib.suppress(OSError):
                os.kill({"parent": process.pid, "warm": warm, "job": job}[whom], signum)
                met.append(signum)


OTHERWISE = [
    {"trainer.enable_progress_bar": "true"},  # on a terminal
    {"trainer.enable_progress_bar": "false"},
    {"callbacks.images": "{_target_:vaezoo.callbacks.images.Images,folder:panels,every_n_epochs:1,num_images:4}"},
    {"data.num_workers": "1"},
    {"data.num_workers": "2", "data.batches_per_step": "3"},
    {"data.batches_per_step": "1"},
    {"data.batches_per_step": "1000"},
]  # fmt: skip

# What happens in a run, and how often at least it does until its end.
EVENTS = [
    ("epoch's start", 3), ("epoch's end", 3),
    ("validation's start", 3), ("validation batch", 9), ("validation's end", 3),
    ("batch", 60), ("batch in a window", 60), ("save", 9), ("fsync", 12), ("rename", 40), ("row", 20),
    ("test batch", 6), ("summary", 1),
]  # fmt: skip


def draw(rng: random.Random) -> dict[str, str]:
    """Draw a command: one of 8 settings, and one further option."""
    setting = rng.choice([net | often | how for net in NETS for often in ACCUMULATION for how in PRECISION])
    other = rng.randrange(len(EXTRAS))
    return setting | CHUNK[other % 3] | EXTRAS[other]


def moment(rng: random.Random) -> tuple[str, int]:
    """Draw an event, and how often it must have happened; a resumed run has fewer of them."""
    event, most = rng.choice(EVENTS)
    return event, 1 + int(most * rng.random() ** 2)


def accumulation(words: dict[str, str]) -> int:
    return int(words.get("trainer.accumulate_grad_batches", 1))


def split(numbers: list[int], size: int) -> list[list[int]]:
    return [numbers[i : i + size] for i in range(0, len(numbers), size)]


def is_last(record: dict[str, list], epoch: int, number: int) -> bool:
    return f"epoch {epoch}, batch {number + 1}" not in record


def program(
    folder: Path,
    words: dict[str, str],
    wait: float | None = None,
    signum: int = signal.SIGTERM,
    strike: Callable[[subprocess.Popen], None] | None = None,
) -> End:
    """Start the command in a process of its own; a sweep if values are lists.

    Args:
        wait: seconds after which it is disturbed; None: never.
        signum: the signal that it gets then.
        strike: what is done then in place of that.
    """
    arguments = command(folder, words)[1:]
    if "," in words.get("seed", ""):
        arguments = ["-m", *arguments[:-1], f"hydra.sweep.dir={folder.name}"]
    paths = os.pathsep.join([str(REPO), str(Path(__file__).parent)])
    start, log = time.monotonic(), folder.with_name(f"{folder.name}.out")
    with log.open("w") as file, subprocess.Popen(
        [sys.executable, str(REPO / "run.py"), *arguments], cwd=folder.parent, text=True,
        env=os.environ | {"PYTHONPATH": paths}, stdout=file, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            strike(process) if strike else process.send_signal(signum)
            process.wait()
    out = log.read_text()
    assert "Traceback" not in out, out
    return End(process.returncode, out, time.monotonic() - start)


def contents(folder: Path) -> dict[Path, bytes]:
    """Read every file in a folder except the lock."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def command_line(pid: int) -> str:
    """Return the command of a process; empty if it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


def processes(folder: Path) -> list[int]:
    """Return the processes whose command has a folder in it, and the warm processes and jobs that run beside it."""
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    named = re.compile(rf"hydra\.\w+\.dir='?({re.escape(str(folder))}|{folder.name})\b")
    return [pid for pid in numbers if named.search(command_line(pid)) or is_fork(pid, folder.parent)]


def is_fork(pid: int, place: Path) -> bool:
    """Return whether a process is a warm process, or a job that was forked from one, in a working folder."""
    with contextlib.suppress(OSError):
        return "vaezoo.runs.warm" in command_line(pid) and os.path.samefile(f"/proc/{pid}/cwd", place)
    return False


def wait_for(happened: Callable[[], bool], otherwise: str, seconds: float = 90) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, otherwise
        time.sleep(0.1)


# What a kind counts, and how many of them the whole campaign is to have.
KINDS = {
    "kills": ("kills", 220), "targeted": ("kills", 80), "nan": ("injections", 50), "signals": ("signals", 60),
    "twice": ("second signals", 4), "same": ("runs compared", 28), "commands": ("stopped commands", 4),
    "parent": ("killed parents", 6), "jobs": ("disturbances", 60), "reused": ("second commands", 20),
    "logging": ("killed services", 10), "output": ("runs without output", 20),
}  # fmt: skip


def main() -> None:
    """Run the whole campaign, or one case of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--minutes", type=float, default=20, help="give up after so long")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--case", type=int, help="only this one of each kind")
    parser.add_argument("--folder", type=Path, help="where to write, and what stays there")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, as its programs do
    end = time.monotonic() + 60 * options.minutes
    print(f"seed {options.seed}, {options.minutes:g} minutes at most", flush=True)
    faults = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        campaign = Campaign(folder)
        for kind in options.kinds.split(","):
            start, (counted, goal) = time.monotonic(), KINDS[kind]
            figures: Counter[str] = Counter()
            case = options.case or 0
            while True:
                rng = random.Random(f"{options.seed} {kind} {case}")
                try:
                    figures += getattr(campaign, kind)(folder / f"{kind}{case}", rng)
                except Exception as error:
                    faults += 1
                    said = " ".join(command(folder, draw(random.Random(f"{options.seed} {kind} {case}"))))
                    again = f"python {sys.argv[0]} --seed {options.seed} --kinds {kind} --case {case}"
                    print(f"FAULT: {type(error).__name__}: {str(error)[-900:]}\n  in {said}\n  {again}", flush=True)
                case += 1
                if faults > 9:
                    break
                if options.case is not None or figures[counted] >= goal or time.monotonic() > end:
                    break
            text = ", ".join(f"{count} {name}" for name, count in figures.items())
            print(f"{kind}: {text} ({time.monotonic() - start:.0f} s)", flush=True)
    print(f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
