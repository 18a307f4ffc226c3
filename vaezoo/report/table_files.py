"""The tables of a comparison as files: Markdown, CSV and LaTeX."""

import re
from collections.abc import Sequence
from pathlib import Path

from vaezoo.report.read import Run
from vaezoo.report.statistics import Comparison, compare
from vaezoo.report.tables import as_csv, markdown, table
from vaezoo.runs.folder import write_atomic

LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": "$<$", ">": "$>$", "|": "$|$", "\N{MINUS SIGN}": "$-$", "\N{PLUS-MINUS SIGN}": r"$\pm$", "\n": " "}
)


def write_tables(runs: Sequence[Run], title: str, folder: Path) -> None:
    """Write ``comparison.md``, ``comparison.csv`` and ``comparison.tex``.

    Args:
        runs: the runs.
        title: what is compared.
        folder: the folder of the files, which paths in them are relative to.
    """
    texts = {"md": markdown(runs, title, folder), "csv": as_csv(runs, folder), "tex": latex(runs, title)}
    for ending, text in texts.items():
        write_atomic(folder / f"comparison.{ending}", text)


def latex(runs: Sequence[Run], title: str) -> str:
    """A table with booktabs for each kind of ELBO, with the numbers of ``comparison.md``; the caption has the units."""
    lines = [r"% In the preamble: \usepackage{booktabs,graphicx}"]
    for comparison in compare(runs):
        heads, rows = table(comparison)
        short = [head.partition(" (")[0] for head in heads]
        body = [[escape_latex(label), *map(number_in_latex, cells)] for label, *cells in rows]
        lines += [
            "",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption(comparison, heads, title))}}}",
            r"\resizebox{\textwidth}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape_latex, short)) + r" \\",
            r"\midrule",
            *(" & ".join(cells) + r" \\" for cells in body),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    return "\n".join([*lines, ""])


def caption(comparison: Comparison, heads: Sequence[str], title: str) -> str:
    """Return the caption of the table, with the units of its columns."""
    units: dict[str, list[str]] = {}
    for name, quantity in comparison.quantities.items():
        beside = {head.partition(" (")[0]: head for head in heads}.get(quantity.title(name))
        if quantity.column in ("main", "cost") and beside and quantity.unit:
            units.setdefault(quantity.unit, []).append(quantity.title(name) if quantity.column == "cost" else beside)
    described = "; ".join(f"{unit}: {', '.join(names)}" for unit, names in units.items())
    half = "Means over seeds ± half the width of the 95 % confidence interval (Student's t)"
    return f"{title}. {comparison.elbo_kind}. {half}. Units: {described}."


def escape_latex(text: str) -> str:
    """A text in which no character has a meaning for LaTeX."""
    return text.translate(LATEX)


def number_in_latex(text: str) -> str:
    """A cell in which minus signs are as wide as they are in formulas."""
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escape_latex(text))
