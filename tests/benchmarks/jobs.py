"""Seconds of a comparison with 1, 2 and 4 jobs at a time: ``python tests/benchmarks/jobs.py``.

Three models and two seeds on digits are trained for ten epochs and evaluated. The rounds are interleaved. Beside the
seconds on the clock stand those of the processors, and the number of cores that were busy on average. All comparisons
must have the same numbers, but for their costs.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
COMMAND = ["task=compare", "models=[mlp_vae,beta_vae,iwae]", "seeds=2", "trainer.max_epochs=10", "threads=1"]
COSTS = ("second", "memory")  # in the names of columns


def measure(words: list[str]) -> tuple[float, float, list[dict[str, str]]]:
    """Return seconds on the clock and of the processors, and the rows of the comparison without costs."""
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("w+") as log:
        command = [sys.executable, str(REPO / "run.py"), *words, "hydra.run.dir=all"]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)  # usage: with that of the jobs
        wall = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} left with exit code {process.returncode}:\n{log.read()}")
        with Path(folder, "all", "comparison.csv").open(newline="") as file:
            rows = [drop_costs(row) for row in csv.DictReader(file)]
    return wall, usage.ru_utime + usage.ru_stime, rows


def drop_costs(row: dict[str, str]) -> dict[str, str]:
    """Return a row of a comparison without times, speeds and memory."""
    return {name: value for name, value in row.items() if not any(cost in name for cost in COSTS)}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("words", nargs="*", help="further overrides of the comparison")
    given = parser.parse_args()
    print(f"python run.py {' '.join(COMMAND + given.words)} jobs=..., on {len(os.sched_getaffinity(0))} cores")
    times: dict[int, list[tuple[float, float]]] = {jobs: [] for jobs in given.jobs}
    expected = None
    for number in range(given.rounds):
        for jobs in given.jobs:
            wall, used, rows = measure([*COMMAND, *given.words, f"jobs={jobs}"])
            expected = rows if expected is None else expected
            pairs = list(zip(rows, expected, strict=True))
            if differ := {name for row, other in pairs for name in row if row[name] != other[name]}:
                raise RuntimeError(f"jobs={jobs} and jobs={given.jobs[0]} differ in {', '.join(sorted(differ))}")
            times[jobs].append((wall, used))
            print(f"round {number}, jobs={jobs}: {wall:.1f} s, {used:.1f} s of processors", flush=True)
    print("| jobs | seconds | of processors | busy cores | time relative to the first |\n|---|---|---|---|---|")
    first = statistics.median(wall for wall, _ in times[given.jobs[0]])
    for jobs, found in times.items():
        wall, used = (statistics.median(part) for part in zip(*found, strict=True))
        print(f"| {jobs} | {wall:.1f} | {used:.1f} | {used / wall:.2f} | {wall / first:.2f} |")


if __name__ == "__main__":
    main()
