"""The checkpoint writer and reader under faults: killed while saving, on full disks, with damaged files.

    python tests/campaign/writer.py --seconds 600 --seed 1 --folder /somewhere/on/a/disk

It prints one line of figures for each kind of fault and exits with 1 if a checkpoint was damaged or lost, or loaded
although it was damaged. The test suite runs a part of each kind with the same functions.
"""

import argparse
import contextlib
import hashlib
import io
import os
import pickle
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from vaezoo.runs import checkpoint_file
from vaezoo.runs.checkpoint import newest_checkpoint, read_checkpoint, write_checkpoint
from vaezoo.runs.checkpoint_file import remove_leftovers


def state(number: int, floats: int = 50, weight: float | None = None, moment: float | None = None) -> dict:
    """Return a checkpoint with its number in each of its parts; one value may be replaced, for example by NaN."""
    w = torch.arange(floats, dtype=torch.float32) + number
    m = w.sqrt()
    w[floats // 2] = w[floats // 2] if weight is None else weight
    m[floats // 3] = m[floats // 3] if moment is None else moment
    return {
        "vaezoo_config": {"seed": number},
        "state_dict": {"w": w, "started": torch.tensor(number)},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(float(number)), "exp_avg": m}}}],
        "loops": {"done": number},
        "global_step": number,
    }


def same(found: dict, number: int) -> bool:
    """Whether a checkpoint is equal, to the bit, to the one with this number."""
    try:
        torch.testing.assert_close(found, state(number, len(found["state_dict"]["w"])), rtol=0, atol=0)
    except (AssertionError, KeyError, TypeError):
        return False
    return True


def save(folder: Path, number: int, floats: int = 50) -> None:
    """Save a checkpoint as a training saves its last state."""
    write_checkpoint(state(number, floats), folder / "last.ckpt", folder / "previous.ckpt")


def forked(work: Callable[[], object]) -> int:
    """Call a function in a fork of this process, and return the process id."""
    if pid := os.fork():
        return pid
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def survivor(folder: Path, least: int) -> int:
    """Return the number of the checkpoint to resume from; check that each file is intact and no checkpoint is lost."""
    for path in folder.glob("*.ckpt"):
        assert same(found := read_checkpoint(path), found["global_step"]), f"{path.name} is torn"
    newest = newest_checkpoint(folder)
    number = newest[1]["global_step"] if newest else 0
    assert number >= least, f"{least} was saved, {number} is left"
    remove_leftovers(folder)
    assert not list(folder.glob(".*")), "a temporary file is left"
    for path in folder.glob("*.ckpt"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (folder / f"{path.name}.sha256").read_text() == f"{digest}  {path.name}\n", f"{path.name}: not tidied"
    return number


def kills_at_lines(folder: Path, number: int = 0, every: int = 1) -> Iterator[int]:
    """Save, killed at the first line of the writer, then at later ones (every so many), until a save is complete."""

    def killed_at(line: int) -> Callable[[], None]:
        left = line

        def trace(frame, event, _argument):
            nonlocal left
            started = left < line or frame.f_code.co_name == "replace_verified"
            if frame.f_code.co_filename == checkpoint_file.__file__ and started and event == "line":
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        def work() -> None:
            sys.settrace(trace)
            save(folder, number + 1)

        return work

    line = 0
    while status := os.waitpid(forked(killed_at(line)), 0)[1]:
        assert os.WIFSIGNALED(status), "the save itself failed"
        number = survivor(folder, number)
        yield line
        line += every
    assert survivor(folder, number + 1) == number + 1
    assert line > 20, "the steps were not traced"


def kills_inside_saves(folder: Path, rng: random.Random, floats: int = 200_000) -> Iterator[str]:
    """Save again and again, killed after a random time in a save; yield how far that save had come."""
    number, duration = 0, 0.02

    def saves(pipe: int) -> None:
        for new in range(number + 1, sys.maxsize):
            os.write(pipe, b"<")
            save(folder, new, floats)
            os.write(pipe, b">")

    while True:
        ours, theirs = os.pipe()
        pid = forked(lambda pipe=theirs: saves(pipe))
        os.close(theirs)
        marks, start = b"", 0.0
        for _ in range(2 * rng.randrange(3) + 1):  # until the save to be killed begins
            marks += os.read(ours, 1)
            if marks.endswith(b">"):
                duration += 0.2 * (time.perf_counter() - start - duration)
            start = time.perf_counter()
        select.select([ours], [], [], rng.uniform(0, duration))  # or until it is over
        os.kill(pid, signal.SIGKILL)
        while mark := os.read(ours, 1):
            marks += mark
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "the save itself failed"
        os.close(ours)
        stage = how_far(folder) if marks.endswith(b"<") else "finished"
        number = survivor(folder, number + marks.count(b">"))
        yield stage


def how_far(folder: Path) -> str:
    """What the files say of the save that a kill has ended."""
    lists = [path.read_text().splitlines() for path in folder.glob("*.sha256")]
    if any(len(lines) > 1 for lines in lists):
        return "about to rename" if list(folder.glob(".last.ckpt.[0-9]*.tmp")) else "renamed"
    return "writing" if list(folder.glob(".*.tmp")) else "in memory"


@contextlib.contextmanager
def limited_file_size(limit: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def small_disk(folder: Path, size: int = 1 << 22) -> Iterator[None]:
    """A tmpfs of so many bytes at a folder; needs root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def free_pages(folder: Path, pages: int) -> Iterator[None]:
    """A disk filled up to so many pages."""
    disk = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(disk.f_frsize * (disk.f_bavail - pages)))
    assert os.statvfs(folder).f_bavail == pages
    try:
        yield
    finally:
        filler.unlink()


def refused(folder: Path, number: int, floats: int, full: contextlib.AbstractContextManager) -> bool:
    """Save ``number`` without the room for it: whether it was refused, in a sentence, with the last one intact."""
    words = ""
    try:
        with full:
            save(folder, number, floats)
    except OSError as error:
        words = str(error)
    expected = (str(folder / "last.ckpt"), "bytes needed", "bytes free", "make room") if words else ()
    missing = [word for word in expected if word not in words]
    assert not missing, f"{missing} is not in {words!r}"
    newest = number - bool(words)
    assert same(read_checkpoint(folder / "last.ckpt"), newest), f"last.ckpt is not {newest}: {words}"
    assert survivor(folder, newest) == newest
    return bool(words)


def serialised(content: object) -> bytes:
    """The bytes that torch.save makes of it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def mutations(rng: random.Random, floats: int = 2000) -> Iterator[tuple[str, bytes, bool]]:
    """Broken forms of checkpoint 2, for ever: kind, bytes, and whether its SHA-256 may be made to fit."""
    whole = serialised(state(2, floats))

    def block(fill: Callable[[int], bytes]) -> bytes:
        size = rng.choice([16, 512, 4096])
        at = rng.randrange(len(whole) - size)
        return whole[:at] + fill(size) + whole[at + size :]

    while True:
        at = rng.randrange(len(whole))
        yield "truncated", whole[: rng.randrange(1, len(whole))], False
        yield "flipped bit", whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :], False
        yield "zeroed block", block(bytes), False
        yield "random block", block(rng.randbytes), False
        yield "grown", whole + rng.randbytes(rng.randrange(1, 999)), False
        bad = rng.choice([float("nan"), float("inf"), float("-inf")])
        yield "non-finite weight", serialised(state(2, floats, weight=bad)), True
        yield "non-finite moment", serialised(state(2, floats, moment=bad)), True
        yield "empty", b"", True
        yield "text", b"this is no checkpoint\n" * rng.randrange(1, 99), True
        yield "random bytes", rng.randbytes(rng.randrange(1, 9999)), True
        yield "foreign pickle", pickle.dumps({"state_dict": Counter(a=1)}), True
        yield "foreign torch file", serialised({"model": torch.zeros(3)}), True
        yield "pickled code", serialised(state(2) | {"hyper_parameters": torch.nn.Linear(1, 1)}), True
        yield "weights alone", serialised({k: v for k, v in state(2).items() if k != "optimizer_states"}), True


def caught(folder: Path, content: bytes, sidecar: str) -> bool:
    """Whether a broken last.ckpt is refused in words and the one before it taken.

    False: without a SHA-256 beside it, it was taken, since all it holds is to the bit what was saved.
    """
    last, previous = folder / "last.ckpt", folder / "previous.ckpt"
    write_checkpoint(state(1), previous)
    write_checkpoint(state(2, 2000), last)
    last.write_bytes(content)
    beside = folder / "last.ckpt.sha256"
    if sidecar == "fitting":
        beside.write_text(f"{hashlib.sha256(content).hexdigest()}  last.ckpt\n")
    elif sidecar == "none":
        beside.unlink()
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        path, found = newest_checkpoint(folder)
    if sidecar == "none" and path == last and same(found, 2):
        return False
    assert path == previous, f"{path.name} was taken"
    assert same(found, 1)
    words = said.getvalue()
    assert words.startswith(str(last)), words
    assert words.endswith(": skipped\n"), words
    assert words.count("\n") == 1, words
    previous.unlink()
    with contextlib.redirect_stderr(said):
        try:
            newest_checkpoint(folder)
        except ValueError as error:
            said.write(str(error))
    assert said.getvalue().endswith("delete them to start again"), "the only checkpoint is broken and was taken"
    return True


def flips(folder: Path, bits: range, every: int = 1) -> Iterator[bool]:
    """These bits of a file without SHA-256, in every byte or in some: whether a flip was seen, or changed nothing."""
    path = folder / "alone.ckpt"
    whole = serialised(state(2))
    path.write_bytes(whole)
    assert same(read_checkpoint(path), 2)
    for at, byte in list(enumerate(whole))[::every]:
        for bit in bits:
            path.write_bytes(whole[:at] + bytes([byte ^ 1 << bit]) + whole[at + 1 :])
            try:
                found = read_checkpoint(path)
            except ValueError:
                yield True
            else:
                assert same(found, 2), f"bit {bit} of byte {at} changes what is read, and was not seen"
                yield False


def main() -> None:
    """The whole campaign."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=600, help="give up after so long")
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="where to write: on a disk, best")
    parser.add_argument("--kills", type=int, default=250, help="for each of the two places of TMPDIR")
    parser.add_argument("--mutations", type=int, default=1400)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    end = time.monotonic() + options.seconds
    print(f"seed {options.seed}, {options.seconds:.0f} s at most, in {options.folder}")
    faults = 0

    def part(name: str, run: Callable[[Path], str]) -> None:
        nonlocal faults
        start = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(dir=options.folder) as folder:
                result = run(Path(folder))
        except Exception as error:
            faults += 1
            result = f"FAULT: {type(error).__name__}: {error}"
        print(f"{name}: {result} ({time.monotonic() - start:.0f} s)", flush=True)

    def every_line(folder: Path) -> str:
        fresh, used = folder / "fresh", folder / "used"
        fresh.mkdir()
        used.mkdir()
        save(used, 1)
        save(used, 2)
        return f"{len(list(kills_at_lines(fresh)))} + {len(list(kills_at_lines(used, 2)))} kills, 0 torn"

    def random_kills(elsewhere: Path | None) -> Callable[[Path], str]:
        def run(folder: Path) -> str:
            os.environ["TMPDIR"] = str(elsewhere or folder)
            stages: Counter[str] = Counter()
            for stage in kills_inside_saves(folder, rng):
                stages[stage] += 1
                inside = stages.total() - stages["finished"]
                if inside == options.kills or time.monotonic() > end:
                    break
            return f"{inside} kills, 0 torn; when killed: {dict(stages)}"

        return run

    def disk_full(folder: Path) -> str:
        floats, number, points = 50_000, 2, Counter()
        with small_disk(folder) if os.geteuid() == 0 else contextlib.nullcontext():
            save(folder, 1, floats)
            save(folder, 2, floats)
            pages = -(-(folder / "last.ckpt").stat().st_size // 4096)
            for left in [*range(0, pages - 8, 2), *range(pages - 8, pages + 8)]:
                full = free_pages(folder, left) if os.geteuid() == 0 else limited_file_size(left * 4096)
                stopped = refused(folder, number + 1, floats, full)
                points["refused, and the old one loads" if stopped else "enough room"] += 1
                number += not stopped
        way = "a tmpfs with 0, 2, ... free pages" if os.geteuid() == 0 else "a limit of file size (no root, no tmpfs)"
        return f"{dict(points)}; by {way}"

    def broken_files(folder: Path) -> str:
        kinds: Counter[str] = Counter()
        harmless = 0
        for kind, content, fits in mutations(rng):
            for sidecar in ["stale", "none", *(["fitting"] if fits else [])]:
                harmless += not caught(folder, content, sidecar)
                kinds[kind] += 1
            if kinds.total() >= options.mutations or time.monotonic() > end:
                break
        return f"{kinds.total()} of {len(kinds)} kinds, 0 silent; {harmless} without SHA-256 changed no value"

    def all_flips(folder: Path) -> str:
        seen: Counter[bool] = Counter()
        for flip in flips(folder, range(8)):
            seen[flip] += 1
            if time.monotonic() > end:
                break
        return f"{seen.total()} single bits, without SHA-256: {seen[True]} seen, {seen[False]} changed no value"

    part("killed at every line of the writer", every_line)
    part("killed inside a save, TMPDIR on the same file system", random_kills(None))
    shm = Path("/dev/shm")
    if shm.is_dir() and shm.stat().st_dev != options.folder.stat().st_dev:
        part("killed inside a save, TMPDIR on another file system", random_kills(shm))
    else:
        print("killed inside a save, TMPDIR on another file system: left out, /dev/shm is no other one")
    part("disk full", disk_full)
    part("broken files", broken_files)
    part("flipped bits", all_flips)
    print(f"{faults} faults")
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
