"""Tests of the cache of bytes and of processes that may crash."""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch

from vaezoo.data import byte_cache
from vaezoo.data.byte_cache import (
    ARRAYS,
    RECORD,
    ROWS,
    ByteCache,
    Content,
    cache_folder,
    cache_key,
    load_or_build,
    reserve,
    write_row,
)
from vaezoo.data.splits import LazyExamples
from vaezoo.data.workers import CHUNK, Crash, map_in_processes
from vaezoo.errors import ConfigError

EXAMPLES = np.random.default_rng(0).integers(0, 256, (7, 3, 2), dtype=np.uint8)


def build(path):
    """Write all examples, the last one first."""
    reserve(path, EXAMPLES.nbytes)
    file = os.open(path, os.O_WRONLY)
    for row in reversed(range(len(EXAMPLES))):
        write_row(file, EXAMPLES[row].tobytes(), row)
    os.close(file)
    digests = np.array([2**64 - 1, 0], np.uint64)
    return Content(EXAMPLES.shape, {"digests": digests}, {"names": ["a", "\u00e9"], "none": None})


def fails(path):
    raise AssertionError("built a second time")


def test_what_is_written_is_read(tmp_path, capsys):
    folder = tmp_path / "a" / "b"
    cache = load_or_build(folder, "key", build)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    line = capsys.readouterr().out
    assert line.startswith(f"cache: 0.0 MB in {folder / 'key'}; all caches in {folder} have {size / 1e6:,.1f} MB")
    for read in (cache, load_or_build(folder, "key", fails)):
        rows = read.read(torch.tensor([6, 0, 6]))
        assert torch.equal(rows, torch.from_numpy(EXAMPLES[[6, 0, 6]]))
        rows.zero_()  # a copy
        assert torch.equal(read.read(torch.tensor([6])), torch.from_numpy(EXAMPLES[[6]]))
        assert read.arrays["digests"].tolist() == [2**64 - 1, 0]
        assert read.record == {"names": ["a", "\u00e9"], "none": None}
        assert (read.shape, read.nbytes) == ((7, 3, 2), 42)
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in folder.iterdir()) == [".key.lock", "key"]


def damage_key(path):
    record = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps(record | {"key": "another"}))


def damage_version(path):
    record = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps(record | {"version": -1}))


def damage_objects(path):
    """An array with pickled objects, which could run code."""
    np.savez(path / ARRAYS, digests=np.array([{}], object))


DAMAGES = {
    "rows cut short": lambda path: os.truncate(path / ROWS, 41),
    "rows too long": lambda path: os.truncate(path / ROWS, 43),
    "no rows": lambda path: (path / ROWS).unlink(),
    "no arrays": lambda path: (path / ARRAYS).unlink(),
    "arrays cut short": lambda path: os.truncate(path / ARRAYS, 30),
    "arrays empty": lambda path: os.truncate(path / ARRAYS, 0),
    "pickled objects": damage_objects,
    "record cut short": lambda path: os.truncate(path / RECORD, 9),
    "record of another kind": lambda path: (path / RECORD).write_text("[1, 2]"),
    "another key": damage_key,
    "another version": damage_version,
    "a file instead": lambda path: (shutil.rmtree(path), path.write_text("a")),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_cache_is_built_anew(tmp_path, name):
    load_or_build(tmp_path, "key", build)
    DAMAGES[name](tmp_path / "key")
    with pytest.raises(ValueError, match="is not a complete cache"):
        ByteCache(tmp_path / "key", "key")
    cache = load_or_build(tmp_path, "key", build)
    assert torch.equal(cache.read(torch.arange(7)), torch.from_numpy(EXAMPLES))


def test_a_failed_build_leaves_nothing(tmp_path):
    def fail(path):
        build(path)
        raise ConfigError("no picture can be read")

    with pytest.raises(ConfigError, match="no picture can be read"):
        load_or_build(tmp_path, "key", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".key.lock"]


def in_processes(function, num=1):
    """Run a function in processes, and return their exit codes."""
    processes = [multiprocessing.get_context("fork").Process(target=function) for _ in range(num)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def test_a_killed_build_is_not_used(tmp_path, monkeypatch):
    """The process is killed after all is written, before the folder gets its name."""

    def build_and_die():
        monkeypatch.setattr(Path, "replace", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        load_or_build(tmp_path, "key", build)

    assert in_processes(build_and_die) == [-signal.SIGKILL]
    assert (tmp_path / ".key.building" / RECORD).exists()
    assert not (tmp_path / "key").exists()
    assert torch.equal(load_or_build(tmp_path, "key", build).read(torch.arange(7)), torch.from_numpy(EXAMPLES))
    assert not (tmp_path / ".key.building").exists()


def test_two_processes_build_once(tmp_path):
    def build_slowly(path):
        with (tmp_path / "built").open("a") as file:
            file.write("x")
        time.sleep(0.5)
        return build(path)

    def load():
        assert (load_or_build(tmp_path, "key", build_slowly).rows == EXAMPLES).all()

    assert in_processes(load, 3) == [0, 0, 0]
    assert (tmp_path / "built").read_text() == "x"


@pytest.mark.parametrize("step", ["reserve", "write"])
def test_a_full_disk_is_a_sentence(tmp_path, monkeypatch, step):
    """Before anything is written, or while rows are written."""
    if step == "reserve":
        usage = namedtuple("usage", "total used free")(100, 99, 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    else:
        writes = [4]

        def write(file, content, offset):
            if not writes:
                raise OSError(errno.ENOSPC, "No space left on device")
            return writes.pop()

        monkeypatch.setattr(os, "pwrite", write)
    with pytest.raises(ConfigError, match=r"cache in .* cannot be written, the disk is full, .* MB are free .*: make"):
        load_or_build(tmp_path, "key", build)
    assert [path.name for path in tmp_path.iterdir()] == [".key.lock"]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("a")
    with pytest.raises(ConfigError, match=r"file/caches cannot be written, Not a directory: make room, or set .* X"):
        load_or_build(tmp_path / "file" / "caches", "key", build)


def test_folder_of_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("pictures") == tmp_path / "vaezoo" / "pictures"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder("pictures") == Path.home() / ".cache" / "vaezoo" / "pictures"


def test_key_is_a_function_of_all_parts():
    """Parts that read the same one after the other have another key."""
    keys = {cache_key("ab", "c"), cache_key("a", "bc"), cache_key("a", "b", "c"), cache_key(np.arange(2))}
    keys |= {cache_key(np.arange(2), None), cache_key([1, 2]), cache_key([1, [2]])}
    assert len(keys) == 7
    assert cache_key("ab", np.arange(2), None) == cache_key("ab", np.arange(2), None)


def test_20_gb_are_read_with_little_memory(tmp_path):
    """The file is sparse, so it takes no space here. All of its bytes could not be held with 4 GB."""
    path, num = tmp_path / "key", 20_000_000_000 // 12_288
    path.mkdir()
    with (path / ROWS).open("wb") as file:
        file.truncate(num * 12_288)
    np.savez(path / ARRAYS, rows=np.arange(2))
    record = {"version": byte_cache.VERSION, "key": "key", "shape": [num, 3, 64, 64], "record": {}}
    (path / RECORD).write_text(json.dumps(record))
    with (path / ROWS).open("r+b") as file:
        file.seek((num - 1) * 12_288)
        file.write(bytes([7]) * 12_288)

    def read():
        resource.setrlimit(resource.RLIMIT_DATA, (4 * 10**9,) * 2)
        cache = ByteCache(path, "key")
        x = LazyExamples(cache.read, torch.arange(num)).select(torch.randperm(num)[1:])
        for batch in torch.randperm(len(x)).split(100)[:5]:
            assert x.index_select(0, batch).shape == (100, 3, 64, 64)
        assert (cache.read(torch.tensor([num - 1])) == 7).all()
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < 4e9

    assert in_processes(read) == [0]


# Processes that may crash.


def square(number):
    return number**2


@pytest.mark.parametrize("num_processes", [1, 3])
@pytest.mark.parametrize("num", [0, 1, CHUNK, 5 * CHUNK + 1])
def test_each_item_once(num, num_processes):
    results = list(map_in_processes(square, range(num), num_processes))
    assert sorted(results) == [(number, number**2) for number in range(num)]


def test_a_crash_costs_one_item():
    """A process that aborts, is killed, exits or reads a wrong address ends with one item, and the others are there."""

    def crash(number):
        if number == 5:
            os.abort()
        if number == 70:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 71:
            os._exit(3)
        if number == 150:
            os.kill(os.getpid(), signal.SIGSEGV)
        return number**2

    results = dict(map_in_processes(crash, range(200), 2))
    crashes = {number: str(results.pop(number)) for number in (5, 70, 71, 150)}
    assert results == {number: number**2 for number in range(200) if number not in crashes}
    assert crashes == {
        5: "the process that read it crashed (SIGABRT)",
        70: "the process that read it crashed (SIGKILL)",
        71: "the process that read it crashed (exit code 3)",
        150: "the process that read it crashed (SIGSEGV)",
    }


def test_a_crash_that_does_not_repeat_costs_nothing(tmp_path):
    def crash_once(number):
        if number == 5 and not (tmp_path / "crashed").exists():
            (tmp_path / "crashed").write_text("")
            os.abort()
        return number

    assert sorted(map_in_processes(crash_once, range(40), 1)) == [(number, number) for number in range(40)]
    assert not isinstance(Crash(-6), int)


def test_an_error_is_raised_here():
    def fail(number):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        list(map_in_processes(fail, range(100), 2))


def test_processes_end_with_their_parent(tmp_path):
    """Also if the parent is killed and cannot end them."""

    def note(number):
        (tmp_path / str(os.getpid())).write_text("")
        time.sleep(0.05)

    process = multiprocessing.get_context("fork").Process(target=lambda: list(map_in_processes(note, range(10_000), 2)))
    process.start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.join()
    children = [int(path.name) for path in tmp_path.iterdir()]
    assert len(children) == 2
    while any(map(is_running, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, children))


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
