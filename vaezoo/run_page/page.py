"""Write the page of a run from the files in its folder. It needs neither network nor scripts."""

import base64
import csv
import math
import shlex
from collections.abc import Iterator
from contextlib import suppress
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from vaezoo.callbacks.progress import format_epochs
from vaezoo.errors import count_noun, escape_unprintable
from vaezoo.metrics.latent import collapse_note
from vaezoo.metrics.quantities import QUANTITIES, Quantity, with_noun
from vaezoo.report.read import drawn_at, read_pictures
from vaezoo.run_page.charts import bar_chart, has_points_outside, line_chart
from vaezoo.runs.folder import RunFolder, write_atomic

NAME = "index.html"
CURVES = ("elbo", "kl", "log_px", "loss")  # the loss takes the place of an ELBO that a model does not have
COLUMNS = [f"{stage}/{name}" for name in CURVES for stage in ("train", "val")]
PNG = b"\x89PNG\r\n\x1a\n"
MAX_PICTURE = 4_000_000  # bytes of a picture in the page; a larger one is a link
MAX_SOUND, MAX_SOUNDS = 200_000, 8  # bytes of the data URI of a sound; number of sounds
MAX_LINES = 60  # of texts
COSTS = ("wall_seconds", "train_examples_per_second", "parameters", "peak_memory_mb")


def write_run_page(folder: str | Path) -> Path:
    """Write the page of a run, and return its file. What the folder does not have is left out.

    Args:
        folder: the folder of a run with a ``summary.json``.
    """
    folder = Path(folder)
    run = RunFolder(folder)
    summary = run.read_summary()
    title = f"{summary.get('model', folder.name)} on {summary.get('data', 'unknown data')}, seed {summary.get('seed')}"
    sections = [
        *head(title, summary, run.read_overrides() or []),
        *links(folder),
        *numbers(summary),
        *curves(folder, summary),
        *pictures(folder),
        *texts(folder),
        *sounds(folder),
        *settings(summary.get("config")),
    ]
    template = resources.files("vaezoo.run_page").joinpath("page.html").read_text(encoding="utf-8")
    page = template.replace("[[title]]", clean(title)).replace("[[body]]", "\n".join(sections))
    write_atomic(folder / NAME, page)
    return folder / NAME


def clean(text: Any) -> str:
    """Return a value as text of HTML: special characters are escaped, and those that cannot be printed are named."""
    return escape(escape_unprintable(str(text)))


def head(title: str, summary: dict[str, Any], overrides: list[str]) -> Iterator[str]:
    """Yield the title, the facts of the training, notes on collapse and the command."""
    epochs, steps = summary.get("epochs"), summary.get("steps")
    facts = []
    if isinstance(epochs, int | float) and isinstance(steps, int):
        facts += [f"{format_epochs(epochs)} epoch{'s' * (epochs != 1)}", count_noun(steps, "step")]
    if isinstance(parameters := summary.get("parameters"), int):
        facts.append(f"{parameters:,} parameters")
    facts += [f"log p of {summary['scored']}"] if "scored" in summary else []
    facts += [str(summary["device"])] if "device" in summary else []
    versions = as_dict(summary.get("versions"))
    facts += [f"{name} {version}" for name, version in versions.items()]
    facts += [f"commit {str(summary['git_commit'])[:10]}"] if summary.get("git_commit") else []
    yield f"<h1>{clean(title)}</h1>"
    yield f'<p class="soft">{clean(" · ".join(facts))}</p>'
    for note in notes(summary):
        yield f'<p class="note">{clean(note)}</p>'
    yield f"<pre>{clean(shlex.join(['python', 'run.py', *overrides]))}</pre>"


def links(folder: Path) -> Iterator[str]:
    """Yield links to what else is in the folder."""
    found = [name for name in ("metrics.csv", "summary.json", "panels", "checkpoints") if (folder / name).exists()]
    yield f'<p class="soft">Files: {", ".join(f"""<a href="{name}">{name}</a>""" for name in found)}</p>'


def notes(summary: dict[str, Any]) -> list[str]:
    """Return the notes of a summary, and one on posterior collapse if the KL shows it."""
    found = [str(note) for note in summary.get("notes") or [] if isinstance(note, str)]
    rate = as_dict(summary.get("test")).get("kl")
    if (
        isinstance(rate, int | float)
        and (note := collapse_note(rate))
        and not any("collapse" in text for text in found)
    ):
        found.append(note)
    return found


def numbers(summary: dict[str, Any]) -> Iterator[str]:
    """Yield the table of the test numbers, a chart of those of the latent dimensions, and the table of the costs."""
    test = {name: value for name, value in as_dict(summary.get("test")).items() if isinstance(value, int | float)}
    known = read_quantities(summary)
    scalars = {name: value for name, value in test.items() if "/" not in name and not name.endswith("_error")}
    if scalars:
        order = [*(name for name in known if name in scalars), *(name for name in scalars if name not in known)]
        yield f"<h2>Test set</h2><table>{''.join(row(name, test, known) for name in order)}</table>"
    by_dimension = {
        name.partition("/")[2].lstrip("0") or "0": v for name, v in test.items() if name.startswith("kl_dim/")
    }
    if by_dimension:
        unit = known["kl_dim"].unit if "kl_dim" in known else "nats"
        chart = bar_chart({f"z{number}": value for number, value in by_dimension.items()}, "KL by dimension", unit)
        yield f'<div class="charts">{chart}</div>'
    memory = as_dict(summary.get("peak_memory_mb"))
    values = summary | {"peak_memory_mb": memory.get("gpu", memory.get("process"))}
    costs = {name: values[name] for name in COSTS if isinstance(values.get(name), int | float)}
    if costs:
        yield f"<h2>Cost</h2><table>{''.join(row(name, costs, known) for name in costs)}</table>"


def read_quantities(summary: dict[str, Any]) -> dict[str, Quantity]:
    """Return the quantities of a run as its summary describes them."""
    known = with_noun(QUANTITIES, str(summary.get("noun", "image")))
    units = as_dict(summary.get("units"))
    return known | {
        name: Quantity.from_json(value, known.get(name)) for name, value in units.items() if isinstance(value, dict)
    }


def row(name: str, values: dict[str, Any], known: dict[str, Quantity]) -> str:
    """Return a row of a table: name, value, unit and meaning of a number."""
    quantity = known.get(name, Quantity("", ""))
    text = format_number(values[name], quantity.digits)
    if isinstance(error := values.get(f"{name}_error"), int | float):
        text += f" ± {format_number(error, quantity.digits)}"
    arrow = {1: " ↑", -1: " ↓"}.get(quantity.better, "")
    meaning = ", ".join(filter(None, (quantity.unit, quantity.meaning)))
    return (
        f'<tr><th>{clean(quantity.title(name))}{arrow}</th><td class="number">{clean(text)}</td>'
        f'<td class="meaning">{clean(meaning)}</td></tr>'
    )


def format_number(value: float, digits: int | None) -> str:
    """Return a number with some digits after the point; by default, with four digits in all.

    >>> format_number(-109.8212, 2), format_number(407224, None), format_number(0.01234, None)
    ('-109.82', '407,224', '0.01234')
    """
    if not math.isfinite(value):
        return str(value)
    if digits is not None:
        return f"{value:z,.{digits}f}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def curves(folder: Path, summary: dict[str, Any]) -> Iterator[str]:
    """Yield the learning curves of ``metrics.csv``: the ELBO, the KL and log p(x | z), for training and validation."""
    epochs, steps = summary.get("epochs"), summary.get("steps")
    per_epoch = steps / epochs if isinstance(steps, int) and isinstance(epochs, int | float) and epochs else 1.0
    lines = read_curves(folder / "metrics.csv", per_epoch)
    known, charts, outside = read_quantities(summary), [], False
    for name in CURVES:
        stages = {stage: lines.get(f"{stage}/{name}", []) for stage in ("train", "val")}
        if any(stages.values()) and not (name == "loss" and "val/elbo" in lines):
            title = "KL (rate)" if name == "kl" else known[name].title(name).removeprefix("test ")
            charts.append(line_chart(stages, title, known[name].unit, digits=known[name].digits))
            outside |= has_points_outside(stages)
    if charts:
        yield "<h2>Learning curves</h2>"
        yield '<p class="soft legend"><b class="train">train</b><b class="val">validation</b></p>'
        yield f'<div class="charts">{"".join(charts)}</div>'
        if outside:
            yield '<p class="soft">Some of the first points lie outside the charts, which fit the others.</p>'


def read_curves(file: Path, per_epoch: float) -> dict[str, list[tuple[float, float]]]:
    """Read the points (epochs, value) of the curves that the page shows, by column. A broken row is left out.

    Args:
        file: a ``metrics.csv``, whose steps count from 0; it may be missing.
        per_epoch: steps in an epoch.
    """
    lines: dict[str, list[tuple[float, float]]] = {}
    if not file.is_file():
        return lines
    with file.open(encoding="utf-8", errors="replace", newline="") as text:
        rows = csv.reader(text)
        places = {name: i for i, name in enumerate(next(rows, []))}
        chosen = [(name, places[name]) for name in COLUMNS if name in places]
        for row in rows if "step" in places else ():
            if len(row) != len(places):
                continue
            for name, i in chosen:
                if row[i]:
                    with suppress(ValueError):
                        point = (int(row[places["step"]]) + 1) / per_epoch, float(row[i])
                        if math.isfinite(point[1]):
                            lines.setdefault(name, []).append(point)
    return lines


def pictures(folder: Path) -> Iterator[str]:
    """Yield the newest picture of each kind."""
    figures = []
    for kind, file in read_pictures(folder / "panels").items():
        content = file.read_bytes()
        if not content.startswith(PNG):
            continue
        epochs = drawn_at(file) or 0.0
        caption = f"{kind}, after {epochs:g} epoch{'s' * (epochs != 1)}"
        image = f'<a href="panels/{clean(file.name)}">{clean(file.name)}</a>'
        if len(content) <= MAX_PICTURE:
            source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            image = f'<img src="{source}" alt="{clean(caption)}" loading="lazy">'
        figures.append(f"<figure><figcaption>{clean(caption)}</figcaption>{image}</figure>")
    if figures:
        yield f'<h2>Pictures</h2><div class="pictures">{"".join(figures)}</div>'


def newest_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files of the newest folder with such files: ``panels``, or that of a task, ``RUN/TASK/DATE_TIME``."""
    places: dict[Path, list[Path]] = {}
    for file in [*folder.glob(f"panels/{pattern}"), *folder.glob(f"sample/*/{pattern}")]:
        places.setdefault(file.parent, []).append(file)
    newest = max(places, key=lambda place: max(file.stat().st_mtime for file in places[place]), default=None)
    return sorted(places[newest], key=lambda file: (len(file.name), file.name)) if newest is not None else []


def texts(folder: Path) -> Iterator[str]:
    """Yield the newest texts that the model has written, if there are any."""
    files = newest_files(folder, "samples*.txt")
    if files:
        lines = files[-1].read_text(encoding="utf-8", errors="replace").splitlines()[:MAX_LINES]
        yield f"<h2>Texts</h2><p class='soft'>{clean(files[-1].relative_to(folder))}</p>"
        yield f"<pre>{clean(chr(10).join(lines))}</pre>"


def sounds(folder: Path) -> Iterator[str]:
    """Yield a player for each of the newest sounds that the model has made, if there are any."""
    players = []
    for file in newest_files(folder, "samples-*.wav")[:MAX_SOUNDS]:
        source = f"data:audio/wav;base64,{base64.b64encode(file.read_bytes()).decode()}"
        if len(source) <= MAX_SOUND:
            name = clean(file.relative_to(folder))
            players.append(f'<p class="soft">{name}<audio controls preload="none" src="{source}"></audio></p>')
    if players:
        yield f"<h2>Sounds</h2>{''.join(players)}"


def settings(config: Any) -> Iterator[str]:
    """Yield the config: a line for each key, as an override of a command would write it."""
    if lines := [f"{key}={value}" for key, value in leaves(config)]:
        yield f"<h2>Config</h2><details><summary>{len(lines)} values</summary>"
        yield f"<pre>{clean(chr(10).join(lines))}</pre></details>"


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full keys of nested dicts and their values."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    elif key:
        yield key, "null" if node is None else node


def as_dict(value: Any) -> dict[str, Any]:
    """Return a value if it is a dict, else an empty dict."""
    return value if isinstance(value, dict) else {}
