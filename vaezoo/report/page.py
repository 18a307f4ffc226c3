"""The report: one HTML file that holds the page's template, the runs as JSON and small pictures."""

import json
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any

from vaezoo.metrics.quantities import BOUNDS, QUANTITIES, Quantity, use_noun
from vaezoo.report.figures import CURVE_POINTS, compiled, draw, vega_script
from vaezoo.report.labels import label, leading_columns, protocol, quantities
from vaezoo.report.media import add_media
from vaezoo.report.read import CONTINUE, Run, has_resumable
from vaezoo.report.statistics import Comparison, Variant, compare, difference, differing
from vaezoo.runs.folder import non_finite_to_none, write_atomic

LIMIT = 2_000_000  # bytes of the file
POINTS = 12_000  # of all curves, at most
DIFFERENCE = Quantity(
    "nats per image",
    "the test ELBO minus the best model's, seed by seed: negative for the worse",
    label="difference to the best",
    digits=2,
)


def write_report(runs: Sequence[Run], file: Path, title: str) -> None:
    """Write the page. It needs neither network nor server; a few hundred runs keep it below ``LIMIT``.

    Pictures are shrunk to fit. If too little room is left to see anything, they are left out, and the page says so.

    Args:
        runs: the result of ``read_runs``.
        file: the file to write.
        title: the page's heading.
    """
    page = contents(runs, file, title)
    add_media(page, runs, LIMIT - len(filled(page).encode()) - 10_000)
    write_atomic(file, filled(page))


def filled(page: dict[str, Any]) -> str:
    """The template with style, scripts and data in their places."""
    # "<" is written as an escape, so no string in the data can end the script element around it.
    data = json.dumps(non_finite_to_none(page), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    folder = resources.files("vaezoo.report")
    text = folder.joinpath("page.html").read_text(encoding="utf-8")
    for name in ("page.css", "charts.js", "page.js"):
        text = text.replace(f"[[{name}]]", folder.joinpath(name).read_text(encoding="utf-8"))
    return text.replace("[[vega]]", vega_script()).replace("[[data]]", data)


def contents(runs: Sequence[Run], file: Path, title: str) -> dict[str, Any]:
    """All that the page shows, ready for JSON; ``write_report`` adds the pictures."""
    comparisons = compare(runs)
    index = {id(run): i for i, run in enumerate(runs)}
    all_keys = differing(runs)
    labels = {id(run): label(run, runs, all_keys) for run in runs if not run.completed}
    labels |= {id(run): variant.label for c in comparisons for variant in c.variants for run in variant.runs}
    keys = sorted({key for c in comparisons for key in c.keys})
    points = min(CURVE_POINTS, POINTS // (2 * len(runs)))
    return {
        "title": title,
        "date": ended(runs),
        "versions": list(dict.fromkeys(part for run in runs for part in provenance(run.summary))),
        "runs": [described(run, labels.get(id(run)), file, keys) for run in runs],
        "comparisons": [compared(c, index) | drawn(c, index, points) for c in comparisons],
        "incomplete": [i for i, run in enumerate(runs) if run.status != "completed"],
        "remedy": f"{CONTINUE}." if has_resumable(runs) else "",
        "quantities": descriptions(runs),
        "bounds": {ending: use_noun(words, runs[0].noun) for ending, words in BOUNDS.items()},
        "left_out": 0,
    }


def ended(runs: Sequence[Run]) -> str:
    """The date on which the last run ended."""
    times = [file.stat().st_mtime for run in runs if (file := run.folder / "summary.json").exists()]
    return f"{datetime.fromtimestamp(max(times)):%Y-%m-%d}" if times else ""


def descriptions(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Unit, meaning, label and digits of each number on the page."""
    known = QUANTITIES | quantities(runs)
    known |= {"difference": DIFFERENCE._replace(unit=known["elbo"].unit)}
    names = dict.fromkeys([*known, *(name for run in runs for name in (*run.numbers, *run.per_dimension))])
    found = {name: known.get(name, Quantity("", "")) for name in names}
    return {
        name: {
            "unit": quantity.unit,
            "meaning": quantity.meaning,
            "better": quantity.better,
            "label": quantity.title(name),
            "digits": quantity.digits,
        }
        for name, quantity in found.items()
    }


def compared(comparison: Comparison, index: dict[int, int]) -> dict[str, Any]:
    """A comparison: its columns, its variants and the indices of its runs in the page's list.

    A narrow page drops columns from the end. A number that only one of several variants has, such as a term of its
    own loss, is no column: it cannot be compared, and it is among the run's details.
    """
    have = Counter(name for variant in comparison.variants for name in variant.numbers)
    names = [
        name
        for name in have
        if have[name] >= min(2, len(comparison.variants)) and not name.endswith(("_error", *BOUNDS))
    ]
    known = comparison.quantities
    leading = leading_columns(known, names)
    rest = [name for name in names if name not in known or known[name].column is None]
    if "elbo" in leading and len(comparison.variants) > 1:
        leading.insert(leading.index("elbo") + 1, "difference")
    best = comparison.variants[0]
    return {
        "elbo_kind": comparison.elbo_kind,
        "headline": comparison.headline,
        "verdicts": [verdict._asdict() for verdict in comparison.verdicts],
        "noun": comparison.runs[0].noun,
        "keys": comparison.keys,
        "columns": [*leading, *rest],
        "leading": len(leading),
        "protocols": {name: text for name in names if (text := protocol(name, comparison.runs, known))},
        "variants": [summed(variant, best, index) for variant in comparison.variants],
        "runs": [index[id(run)] for run in comparison.runs],
    }


def summed(variant: Variant, best: Variant, index: dict[int, int]) -> dict[str, Any]:
    """A variant's means and intervals, and its difference to the best."""
    numbers = variant.numbers
    if variant is not best and (gap := difference(variant, best)):
        numbers["difference"] = gap
    return {
        "label": variant.label,
        "tried": variant.tried,
        "collapsed": variant.collapsed,
        "numbers": {name: value._asdict() for name, value in numbers.items()},
        "runs": [index[id(run)] for run in variant.runs],
    }


def drawn(comparison: Comparison, index: dict[int, int], points: int) -> dict[str, Any]:
    """The charts of a comparison, their data, and the look of each variant."""
    from vaezoo.report.chart_parts import dashes, shapes

    charts = draw(comparison, index, points, legend=False)
    return {
        "charts": [
            {"name": c.name, "title": c.title, "spec": compiled(c, paper=False), "marks": c.marks, "place": c.place,
             "tip": c.tip}
            for c in charts
        ],
        "rows": {name: by_columns(rows) for chart in charts for name, rows in chart.rows.items()},
        "shapes": shapes(len(comparison.variants)),
        "dashes": [" ".join(map(str, dash)) for dash in dashes(len(comparison.variants))],
    }  # fmt: skip


def by_columns(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A table by columns, which is shorter: numbers are rounded, and each text is there once."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        column = [row.get(name) for row in rows]
        texts = list(dict.fromkeys(column)) if any(isinstance(value, str) for value in column) else []
        numbered = {text: i for i, text in enumerate(texts)}
        columns[name] = (
            {"texts": texts, "codes": [numbered[value] for value in column]}
            if texts
            else [float(f"{value:.7g}") if isinstance(value, float) else value for value in column]
        )
    return columns


def described(run: Run, label: str | None, file: Path, keys: Sequence[str]) -> dict[str, Any]:
    """A run without its pictures.

    Args:
        run: the run.
        label: its variant.
        file: the page, which paths are relative to.
        keys: settings that differ between the runs.
    """
    summary = run.summary
    return {
        "label": f"{label or run.model or run.folder.name} · seed {run.seed}",
        "model": run.model,
        "seed": run.seed,
        "completed": run.completed,
        "failure": None if run.status == "completed" else run.status,
        "verdict": run.verdict,
        "elbo_kind": run.elbo_kind,
        "numbers": run.numbers,
        "per_dimension": {
            name: [float(f"{value:.4g}") for value in values] for name, values in run.per_dimension.items()
        },
        "settings": {key: run.settings.get(key) for key in keys},
        "command": shlex.join(["python", "run.py", *run.overrides]),
        "folder": os.path.relpath(run.folder, file.resolve().parent),
        "checkpoint": summary.get("checkpoint"),
        "epochs": summary.get("epochs"),
        "steps": summary.get("steps"),
        "provenance": ", ".join(provenance(summary)),
        "pictures": [],
        "texts": run.texts,
        "sounds": [],
    }


def provenance(summary: dict[str, Any]) -> list[str]:
    """Versions, device and commit of a run."""
    versions = [f"{name} {version}" for name, version in summary.get("versions", {}).items()]
    commit = [f"commit {summary['git_commit'][:10]}"] if summary.get("git_commit") else []
    return [*versions, *filter(None, [summary.get("device")]), *commit]
