"""The shares of the machine that jobs side by side have: cores, or GPUs.

The number of threads of a job does not depend on the jobs beside it, because another number of threads adds in another
order, which changes the last bits of a result. So the cores are divided among the jobs, and the threads are those that
``threads`` says. A job that has more threads than its share has cores, such as a large model with ``threads=null``,
waits until no other job trains, and then trains alone on all cores.
"""

import fcntl
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from vaezoo.errors import ConfigError

SHARE = "VAEZOO_SHARE"  # the environment variable with the share of a job
GPU_ACCELERATORS = ("auto", "gpu", "cuda")
locked_files: list[IO[str]] = []  # of this process. They stay open, and so locked, until it ends


def divide_machine(jobs: Any, configs: Sequence[Mapping[str, Any]], count: int, lock: Path) -> list[dict[str, str]]:
    """Return environment variables for as many jobs as run at the same time.

    Args:
        jobs: how many run at the same time; "auto" for as many as there are GPUs for their devices, or cores for their
            threads.
        configs: configs of the jobs. The one that needs most says what each needs.
        count: how many jobs there are.
        lock: the file that the jobs lock while they train.

    Raises:
        ConfigError: ``jobs`` is neither an integer >= 1 nor "auto".
    """
    check_jobs(jobs)
    trainers = [config.get("trainer") or {} for config in configs]
    devices = max((positive(trainer.get("devices")) for trainer in trainers), default=1)
    gpus = visible_gpus() if any(trainer.get("accelerator") in GPU_ACCELERATORS for trainer in trainers) else []
    if gpus:
        groups = [gpus[i : i + devices] for i in range(0, len(gpus) - devices + 1, devices)] or [gpus]
        shares = [{"CUDA_VISIBLE_DEVICES": ",".join(group)} for group in groups]
        number = min(count, len(groups) if jobs == "auto" else jobs)
        return [shares[i % len(shares)] for i in range(number)] if number > 1 else [{}]
    threads = devices * max((positive(config.get("threads")) for config in configs), default=1)
    cores, limit = usable_cores()
    number = min(count, max(1, limit // threads) if jobs == "auto" else jobs)
    if number <= 1:
        return [{}]
    share = {"size": max(threads, limit // number), "cores": [], "lock": str(lock.absolute())}
    if len(cores) != limit or number * threads > limit:  # no cores that are its own
        return [{SHARE: json.dumps(share)}] * number
    ends = [i * limit // number for i in range(number + 1)]
    parts = [cores[start:end] for start, end in pairwise(ends)]
    return [{SHARE: json.dumps(share | {"cores": part})} for part in parts]


def check_jobs(jobs: Any) -> None:
    """Raise a ConfigError if ``jobs`` is neither an integer >= 1 nor "auto"."""
    if jobs != "auto" and (type(jobs) is not int or jobs < 1):
        raise ConfigError(f"jobs={jobs} should be an integer >= 1, or auto")


def positive(value: Any) -> int:
    """Return a setting if it is an integer >= 1, else 1: null, or a wrong value, which the job reports."""
    return value if type(value) is int and value >= 1 else 1


def usable_cores() -> tuple[list[int], int]:
    """Return the cores on which this process may run, where the system says them, and how many it may keep busy."""
    if share := json.loads(os.environ.get(SHARE, "{}")):  # this process is one of several jobs, and has jobs itself
        return share["cores"], share["size"]
    from joblib import cpu_count  # imported here, because Hydra imports this module at each start, for its launcher

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return cores, cpu_count()  # which knows the limit of a container


def visible_gpus() -> list[str]:
    """Return the numbers or names of the NVIDIA GPUs that this process may use."""
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in chosen.split(",") if name.strip()]
    with suppress(OSError, subprocess.SubprocessError):
        query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        return subprocess.run(query, check=True, capture_output=True, text=True, timeout=30).stdout.split()
    return []


def take_share(threads: int) -> None:
    """Pin this process to its cores, if it is one of several jobs side by side; with more threads than its share has
    cores, wait until no other job trains.

    Args:
        threads: the number of its threads, which it has set.
    """
    share = json.loads(os.environ.get(SHARE, "{}"))
    if not share or locked_files:
        return
    alone = threads > share["size"]
    if os.environ.get("LOCAL_RANK", "0") == "0":  # the first process of a job on several devices waits for all of them
        lock_until_the_end(Path(share["lock"]), alone, threads)
    if share["cores"] and not alone:
        for thread in os.listdir("/proc/self/task"):  # torch may have started some
            os.sched_setaffinity(int(thread), share["cores"])


def lock_until_the_end(path: Path, alone: bool, threads: int) -> None:
    """Lock a file until this process ends: with others that share it, or alone."""
    kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
    file = path.open("a+")
    locked_files.append(file)
    with suppress(OSError):  # a file system without locks
        try:
            fcntl.lockf(file, kind | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            if alone:
                print(f"waiting until no other job trains: this one has {threads} threads (threads=1 does not wait)")
            fcntl.lockf(file, kind)
