"""The report's charts and tables as Python makes them: names, axes, figures, LaTeX, collapse, texts and sounds."""

import json
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
from test_report import data_of, make_run, rows_of, sweep, without_charts  # noqa: F401

from vaezoo.report import read_runs, write_figures, write_report
from vaezoo.report.chart_layout import GAP, LETTER, LINE, MARK, Box, Frame, on_axis, place_names, round_numbers
from vaezoo.report.figures import COLOURS, draw
from vaezoo.report.statistics import compare, describe
from vaezoo.report.table_files import latex, write_tables

FRAME = Frame((19, 21), (80, 90), 520, 360)


def test_names_beside_points_cover_nothing():
    rng = np.random.default_rng(0)
    rows = [
        {"variant": f"model_{i // 2}", "run": i, "kl": 20 + rng.normal() / 9, "distortion": 85 + rng.normal()}
        for i in range(40)
    ]
    iso = [{"x2": 21, "y2": 84, "text": "-105"}]
    placed = place_names(rows, iso, FRAME)
    boxes = []
    for name in placed:
        x, y = FRAME.at(name["kl"], name["distortion"])
        left = x + name["dx"] - (LETTER * len(name["variant"]) if name["align"] == "right" else 0)
        middle = y + name["dy"]
        boxes.append(Box(left, middle - LINE / 2, left + LETTER * len(name["variant"]), middle + LINE / 2))
    points = [FRAME.at(row["kl"], row["distortion"]) for row in rows]
    marks = [Box(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in points]
    assert 8 <= len(placed) <= 20
    assert len({name["variant"] for name in placed}) == len(placed)
    for i, box in enumerate(boxes):
        assert box.is_inside(520, 360)
        assert not any(box.overlaps(other) for other in [*boxes[:i], *marks])


@pytest.mark.parametrize(("low", "high", "expected"), [(0, 7, [0, 1, 2, 3, 4, 5, 6, 7]), (-16510.2, -16509.7, None)])
def test_round_numbers(low, high, expected):
    found = round_numbers(low, high, 7)
    assert expected is None or found == expected
    assert 3 <= len(found) <= 8
    assert low <= min(found) <= max(found) <= high
    assert np.allclose(np.diff(found), found[1] - found[0], rtol=1e-6)


def test_labels_of_an_axis_do_not_overlap():
    values = list(np.geomspace(1e-5, 1e-1, 100))
    places, marks = on_axis(values, round_marks=False)
    heights = [height for _, height in marks]
    assert np.allclose(places, np.linspace(0, 1, 100))  # logarithmic
    assert 15 < len(heights) < 30
    assert np.diff(heights).min() >= GAP
    assert on_axis(["a", "b", "a"], round_marks=False) == ([0.75, 0.25, 0.75], [("a", 0.75), ("b", 0.25)])


def test_charts_have_the_numbers_of_the_runs(sweep):  # noqa: F811
    runs = read_runs([sweep])
    (comparison,) = compare(runs)
    charts = {c.name: c for c in draw(comparison, {id(run): i for i, run in enumerate(runs)}, 150, legend=True)}
    for row in charts["rate-distortion"].rows["points"]:
        assert (row["kl"], row["distortion"]) == (10.0, -runs[row["run"]].numbers["elbo"] - 10)
    last = {row["run"]: row["elbo"] for row in charts["curves-elbo"].rows["curves"] if row["split"] == "val"}
    assert last == {i: run.curves["val"][-1].elbo for i, run in enumerate(runs) if run.completed}
    rows = [row for row in charts["metrics"].rows["metrics"] if row["key"] == "elbo"]
    (mean,) = (row for row in rows if row.get("mean") is not None and row["variant"] == "mlp_vae")
    half = comparison.variants[1].numbers["elbo"].half
    assert (mean["mean"], mean["low"], mean["high"]) == (-101.0, -101.0 - half, -101.0 + half)
    assert sorted(row["value"] for row in rows if "value" in row) == [-102.0, -101.0, -100.0, -91.0, -90.0]
    axis = charts["curves-elbo"].drawing.to_dict(validate=False)["layer"][0]["encoding"]["x"]["axis"]
    assert axis["tickMinStep"] == 1  # epochs are whole numbers


@pytest.mark.parametrize(
    ("units", "filled"), [((3, 7, None), [True, True, False]), ((7, 7, None), [False] * 3), ((None,) * 3, [False] * 3)]
)
def test_each_run_has_a_mark_that_active_units_fill(tmp_path, units, filled):
    """A run without active units has a mark without fill; so have all, if the legend would show one value."""
    for i, value in enumerate(units):
        test = {"elbo": -100.0 - i, "log_px": -90.0 - 2 * i, "kl": 10.0 - i}
        make_run(tmp_path / str(i), "abc"[i], test=test if value is None else test | {"active_units": value})
    files = write_figures(read_runs([tmp_path]), tmp_path / "figures")
    (file,) = (file for file in files if file.name.startswith("rate-") and file.suffix == ".svg")
    marks = [mark.attrib for mark in ElementTree.parse(file).iter() if "point" in mark.get("aria-roledescription", "")]
    assert [mark.get("fill", "transparent") not in ("transparent", "none") for mark in marks] == filled
    assert [mark["stroke"] for mark in marks] == list(COLOURS[:3])
    assert ("active units" in file.read_text()) == any(filled)


def test_collapse_is_told(tmp_path):
    """By the KL of the training alone, and by the verdict of an evaluation, which has the mutual information."""
    make_run(tmp_path / "0", "good")
    make_run(tmp_path / "1", "flat", elbo=-120.0, test={"elbo": -120.0, "log_px": -119.95, "kl": 0.05})
    verdict = {"collapsed": False, "mostly_unused": True, "text": "15 of 20 dimensions are unused"}
    make_run(tmp_path / "2", "lean", elbo=-130.0, verdict=verdict)
    (comparison,) = compare(read_runs([tmp_path]))
    assert [(v.label, v.collapsed) for v in comparison.variants] == [("good", False), ("flat", True), ("lean", False)]
    flat, lean = comparison.verdicts
    assert (flat.collapsed, lean.collapsed) == (True, False)
    assert flat.text.startswith("flat, 1 of 1 seeds: posterior collapse: KL 0.05 nats: the decoder ignores z; try")
    write_report(read_runs([tmp_path]), tmp_path / "report.html", "t")
    (told,) = data_of((tmp_path / "report.html").read_text())["comparisons"]
    assert [variant["collapsed"] for variant in told["variants"]] == [False, True, False]
    write_tables(read_runs([tmp_path]), "t", tmp_path)
    assert f"- {flat.text}" in (tmp_path / "comparison.md").read_text()


def test_log_p_leads_if_it_was_estimated_in_one_way(tmp_path):
    numbers = {"log_p_samples": 500.0, "log_p_examples": 100.0}
    for model, elbo, log_p in (("a", -90.0, -89.0), ("b", -92.0, -88.0)):
        for seed in (0, 1):
            test = {"elbo": elbo - seed, "log_p": log_p - seed} | numbers
            make_run(tmp_path / f"{model}{seed}", model, seed, test=test)
    (comparison,) = compare(read_runs([tmp_path]))
    first, second = comparison.headline.split(". ")
    assert first.startswith("Highest log p(x): b \N{MINUS SIGN}88.50 ± 6.35 nats per image")
    assert second.startswith("Best test ELBO: a \N{MINUS SIGN}90.50")
    make_run(tmp_path / "c", "c", test={"elbo": -95.0, "log_p": -80.0} | numbers | {"log_p_samples": 5000.0})
    (comparison,) = compare(read_runs([tmp_path]))
    assert comparison.headline.startswith("Best test ELBO: a")  # bounds with another K cannot be compared


def test_the_title_says_what_was_compared(tmp_path):
    for i, model in enumerate("abcde"):
        make_run(tmp_path / model, model, elbo=-10.0 - i)
    runs = read_runs([tmp_path])
    assert describe(runs) == "a, b, c, 2 more on MNIST"
    assert describe(runs[:2]) == "a, b on MNIST"


def test_latex(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / f"a{seed}", r"50%_of $x^2$ {\input} & ~#", seed, elbo=-1234.5 - seed)
        make_run(tmp_path / f"b{seed}", "b", seed, elbo=-1240.25 - seed)
    write_tables(read_runs([tmp_path]), "a_b", tmp_path)
    text = (tmp_path / "comparison.tex").read_text()
    assert text == latex(read_runs([tmp_path]), "a_b")
    head = r"50\%\_of \$x\textasciicircum{}2\$ \{\textbackslash{}input\} \& \textasciitilde{}\#"
    best, other = (line for line in text.splitlines() if "2/2" in line)
    assert best.startswith(rf"{head} & 2/2 & $-$1,235.00 $\pm$ 6.35 & best & 10.00 & 1,225.00 $\pm$ 6.35 & 7.0 &")
    assert other.startswith(r"b & 2/2 & $-$1,240.75 $\pm$ 6.35 & $-$5.75 & 10.00 &")
    assert best.count(" & ") == text.split(r"\toprule")[1].splitlines()[1].count(" & ")
    (caption,) = (line for line in text.splitlines() if line.startswith(r"\caption"))
    assert caption.startswith(r"\caption{a\_b. MNIST 1x28x28, dynamic binarization, log p of bits. Means over seeds")
    assert "nats per image: test ELBO, rate, distortion; dimensions: active units; s: time" in caption
    if shutil.which("pdflatex"):
        page = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{comparison}\end{document}"
        (tmp_path / "page.tex").write_text(page)
        words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
        assert done.returncode == 0, done.stdout[-500:]


def test_texts_and_sounds_are_in_the_page(tmp_path):
    run = make_run(tmp_path / "a")
    for number, name in enumerate(("2026-01-01", "2026-01-02")):  # the newer samples count
        folder = run / "sample" / name
        folder.mkdir(parents=True)
        (folder / "samples.npz").touch()
        (folder / "samples.txt").write_text("".join(f"text {number} {i} {'x' * 300}\n" for i in range(20)))
        for i in (0, 2, 10):
            soundfile.write(folder / f"samples-{i}.wav", np.zeros(100 if i < 10 else 200_000), 8000)
    write_report(read_runs([tmp_path]), tmp_path / "report.html", "t")
    (told,) = data_of((tmp_path / "report.html").read_text())["runs"]
    assert [text[:8] for text in told["texts"]] == [f"text 1 {i}" for i in range(8)]
    assert {len(text) for text in told["texts"]} == {201}
    assert [source[:22] for source in told["sounds"]] == ["data:audio/wav;base64,"] * 2  # not the large one
    make_run(tmp_path / "b", seed=1)
    write_report(read_runs([tmp_path]), tmp_path / "report.html", "t")
    _, other = data_of((tmp_path / "report.html").read_text())["runs"]
    assert (other["texts"], other["sounds"]) == ([], [])


def test_words_for_an_example(tmp_path):
    """The reference of a table is that of training rows."""
    test = {"elbo": -9.0, "fid": 2.0, "fid_reference": 0.5}
    units = {"fid": {"unit": "", "meaning": "", "label": "distance", "column": "main"}}
    make_run(tmp_path / "a", noun="row", test=test, units=units)
    write_tables(read_runs([tmp_path]), "t", tmp_path)
    text = (tmp_path / "comparison.md").read_text()
    assert "distance (training rows: 0.5)" in text
    assert "'training rows' is the score of as many training rows" in text
    assert "image" not in text
    write_report(read_runs([tmp_path]), tmp_path / "report.html", "t")
    data = data_of((tmp_path / "report.html").read_text())
    assert data["bounds"]["_reference"] == "training rows:"
    assert data["comparisons"][0]["noun"] == "row"
    assert json.dumps(rows_of(data["comparisons"][0]["rows"]["curves"]))
