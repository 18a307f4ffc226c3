"""One HTML file: the template of this package with the runs as JSON and small pictures inside it."""

import base64
import io
import json
import math
import os
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vaezoo.metrics.quantities import Quantity
from vaezoo.pictures import TITLE_HEIGHT
from vaezoo.report.columns import BESIDE, COST, LEADING, PROTOCOLS, QUANTITIES
from vaezoo.report.labels import label
from vaezoo.report.read import Point, Run, drawn_at
from vaezoo.report.statistics import Comparison, Variant, compare, difference, differing, protocol
from vaezoo.runs.folder import non_finite_to_none, write_atomic

LIMIT = 2_000_000  # bytes of the file
POINTS = 30_000  # of all curves, at most
CURVE_POINTS = 150  # of one
PICTURE_BYTES = 40_000  # of one picture, where there is room
WIDEST, NARROWEST = 800, 160  # px that a picture is shrunk to
APART = ("_error", *BESIDE)  # of a number, shown with it
RELATIVE = ("loss", "log_px")  # numbers that a table over models leaves to each run: no common scale, or twice the same
DIFFERENCE = Quantity("nats per image", "the test ELBO minus the best model's, seed by seed: negative for the worse")
# Of the pictures that ``frame`` puts under a title: too small to read in a thumbnail, it is cut off there.
CAPTIONS = {
    "reconstructions": "validation images, each above its reconstruction",
    "samples": "means of p(x | z), z drawn from the prior",
    "traversals": "a latent dimension a row, the most used first, moved about one image's code by standard deviations",
    "manifold": "the latent plane at equally spaced quantiles of the prior, z0 to the right, z1 upwards",
}


def write_report(runs: Sequence[Run], file: Path, title: str) -> None:
    """Write the page: it needs neither network nor server, and some hundred runs keep it below ``LIMIT``.

    Pictures are shrunk to what room there is, and left out, which the page says, where it is too little
    to see anything.

    Args:
        runs: as ``read_runs`` gives them.
        file: where to write.
        title: the page's heading.
    """
    page = contents(runs, file, title)
    room = LIMIT - len(filled(page)) - 10_000
    left = sum(len(run.pictures) for run in runs)
    for entry, run in zip(page["runs"], runs, strict=True):
        for kind, path in run.pictures.items():
            if source := thumbnail(path, min(PICTURE_BYTES, room // left), TITLE_HEIGHT if kind in CAPTIONS else 0):
                told = {"kind": kind, "epoch": drawn_at(path)}
                entry["pictures"].append(told | {"source": source})
                room -= len(source) + 50
            else:
                page["left_out"] += 1
            left -= 1
    write_atomic(file, filled(page))


def filled(page: dict[str, Any]) -> str:
    """The template with style, script and data in their places."""
    # "<" as an escape: no string in the data can end the script element that holds it.
    data = json.dumps(non_finite_to_none(page), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    folder = resources.files("vaezoo.report")
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    for name in ("page.css", "charts.js", "page.js"):
        text = text.replace(f"[[{name}]]", folder.joinpath(name).read_text(encoding="utf-8"))
    return text.replace("[[data]]", data)


def contents(runs: Sequence[Run], file: Path, title: str) -> dict[str, Any]:
    """All that the page shows, as JSON will have it."""
    comparisons = compare(runs)
    place = {id(run): i for i, run in enumerate(runs)}
    every = differing(runs)
    labels = {id(run): label(run, runs, every) for run in runs if not run.completed}
    labels |= {id(run): variant.label for c in comparisons for variant in c.variants for run in variant.runs}
    keys = sorted({key for c in comparisons for key in c.keys})
    points = min(CURVE_POINTS, POINTS // (2 * len(runs)))
    return {
        "title": title,
        "date": ended(runs),
        "versions": list(dict.fromkeys(part for run in runs for part in made(run.summary))),
        "runs": [described(run, labels.get(id(run)), file, keys, points) for run in runs],
        "comparisons": [compared(c, place) for c in comparisons],
        "incomplete": [i for i, run in enumerate(runs) if not run.completed],
        "quantities": {name: quantity._asdict() for name, quantity in quantities(runs).items()},
        "captions": CAPTIONS,
        "costs": COST,
        "left_out": 0,
    }


def ended(runs: Sequence[Run]) -> str:
    """The day on which the last of the runs ended."""
    times = [(run.folder / "summary.json").stat().st_mtime for run in runs if run.summary]
    return f"{datetime.fromtimestamp(max(times)):%Y-%m-%d}" if times else ""


def quantities(runs: Sequence[Run]) -> dict[str, Quantity]:
    """What the numbers mean, as their summaries say: a ``Quantity``, or unit and meaning in one text."""
    told = {name: value for run in runs for name, value in run.summary.get("units", {}).items()}
    texts = {name: Quantity("", value) for name, value in told.items() if isinstance(value, str)}
    full = {name: Quantity(*value) for name, value in told.items() if name not in texts}
    return texts | QUANTITIES | {"difference": DIFFERENCE} | full


def compared(comparison: Comparison, place: dict[int, int]) -> dict[str, Any]:
    """A comparison: its columns, variants, and runs by their place in the page's list.

    The columns come in the order in which they are given up where a page is narrow, the last ones first. A number
    that a single variant of several has, such as a term of its own loss, is no column: there is nothing to compare
    it with, and the run's details have it.
    """
    have = Counter(name for variant in comparison.variants for name in variant.numbers)
    names = [name for name in have if have[name] >= min(2, len(comparison.variants)) and not name.endswith(APART)]
    leading = [name for name in (*LEADING, *COST) if name in names]
    if "elbo" in leading and len(comparison.variants) > 1:
        leading.insert(1, "difference")
    beside = {name for parts in PROTOCOLS.values() for name in parts}
    rest = [name for name in names if name not in {*leading, *RELATIVE, *beside}]
    best = comparison.variants[0]
    return {
        "scale": comparison.scale,
        "headline": comparison.headline,
        "verdicts": comparison.verdicts,
        "keys": comparison.keys,
        "columns": [*leading, *rest],
        "protocols": {name: told for name in names if (told := protocol(name, comparison.runs))},
        "variants": [summed(variant, best, place) for variant in comparison.variants],
        "runs": [place[id(run)] for run in comparison.runs],
    }


def summed(variant: Variant, best: Variant, place: dict[int, int]) -> dict[str, Any]:
    """A variant's means and intervals, and its difference to the best."""
    numbers = variant.numbers
    if variant is not best and (gap := difference(variant, best)):
        numbers["difference"] = gap
    return {
        "label": variant.label,
        "tried": variant.tried,
        "numbers": {name: value._asdict() for name, value in numbers.items()},
        "runs": [place[id(run)] for run in variant.runs],
    }


def described(run: Run, label: str | None, file: Path, keys: Sequence[str], points: int) -> dict[str, Any]:
    """A run, its pictures apart; of its settings those that differ between runs."""
    summary = run.summary
    return {
        "label": f"{label or run.model or run.folder.name} · seed {run.seed}",
        "model": run.model,
        "seed": run.seed,
        "cause": None if run.completed else run.cause,
        "verdict": run.verdict,
        "scale": run.scale,
        "numbers": run.numbers,
        "bars": {name: [float(f"{value:.4g}") for value in values] for name, values in run.bars.items()},
        "curves": {split: thinned(curve, points) for split, curve in run.curves.items()},
        "settings": {key: run.settings.get(key) for key in keys},
        "command": shlex.join(["python", "run.py", *run.overrides]),
        "folder": os.path.relpath(run.folder, file.resolve().parent),
        "checkpoint": summary.get("checkpoint"),
        "epochs": summary.get("epochs"),
        "steps": summary.get("steps"),
        "made": ", ".join(made(summary)),
        "pictures": [],
    }


def thinned(curve: Sequence[Point], num: int) -> list[list[float]]:
    """At most so many of a curve's points, evenly, with the first and the last: [epoch, step, ELBO]."""
    kept = np.linspace(0, max(len(curve) - 1, 0), min(len(curve), max(num, 2))).round().astype(int)
    return [[round(curve[i].epoch, 3), curve[i].step, round(curve[i].elbo, 4)] for i in kept]


def made(summary: dict[str, Any]) -> list[str]:
    """With what a run was made: versions, device, commit."""
    versions = [f"{name} {version}" for name, version in summary.get("versions", {}).items()]
    commit = [f"commit {summary['git_commit'][:10]}"] if summary.get("git_commit") else []
    return [*versions, *filter(None, [summary.get("device")]), *commit]


def thumbnail(file: Path, spare: int, top: int = 0) -> str | None:
    """A picture below its uppermost ``top`` px as a data URI of at most ``spare`` bytes; None where that is too few,
    or the file is no picture.

    It keeps its size and every pixel where it can; else it is compressed, and shrunk as far as needed.
    """
    try:
        image = Image.open(file).convert("RGB")
        image = image.crop((0, min(top, image.height - 1), image.width, image.height))
    except (OSError, SyntaxError) as error:  # of Pillow, for a PNG file with a broken part
        print(f"{file}: the picture cannot be read ({error}) and is left out", file=sys.stderr)
        return None
    if file.stat().st_size < spare and len(source := encoded(image, lossless=True)) <= spare:
        return source
    width = min(image.width, WIDEST)
    while width >= NARROWEST:
        size = (width, max(1, round(image.height * width / image.width)))
        source = encoded(image.resize(size, Image.Resampling.LANCZOS), quality=70)
        if len(source) <= spare:
            return source
        width = min(int(0.95 * width * math.sqrt(spare / len(source))), width - 1)  # bytes go with the area
    return None


def encoded(image: Image.Image, **how: Any) -> str:
    """An image as a data URI of WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", **how)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
