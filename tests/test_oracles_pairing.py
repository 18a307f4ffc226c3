"""Everything that is paired: seeds, evaluations and trainings, codes and KLs, heads and columns, runs and rows.

Each piece has a number of its own that names where it belongs, and the pieces come in different orders.
"""

import csv
import io
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from test_report import make_run, rows_of

from vaezoo.evaluation import udr as evaluation
from vaezoo.metrics import disentanglement
from vaezoo.report import Run, page, read_runs
from vaezoo.report import tables as comparison
from vaezoo.report.charts import thinned
from vaezoo.report.read import known_quantities
from vaezoo.report.statistics import Variant, compare, difference
from vaezoo.runs import sweep

VALUES = {0: 3.0, 1: 10.0, 2: 100.0, 5: 7.0}  # what a seed adds: pairs by position would show it


def run(model, seed, elbo, **test):
    """A run whose test ELBO is the model's plus the seed's."""
    return Run(
        Path(f"{model}-{seed}"),
        [f"model={model}", f"seed={seed}"],
        {"status": "completed", "model": model, "seed": seed, "scored": "bits",
         "test": {"elbo": elbo + VALUES[seed], **test}, "wall_seconds": 10.0 + seed},
        config={"seed": seed, "model": {"name": model}},
    )  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), [((0, 1, 2), (2, 1)), ((2, 0, 1), (1, 5, 2)), ((1, 2), (2, 0, 1))])
def test_differences_are_of_the_same_seed(ours, theirs):
    """Both have seeds 1 and 2, in different orders and positions; their differences are -1 and -3."""
    change = {1: -1.0, 2: -3.0}
    a = Variant("a", [run("a", seed, -50.0) for seed in ours], 3)
    b = Variant("b", [run("b", seed, -50.0 - change.get(seed, 900.0)) for seed in theirs], 3)
    found = difference(a, b)
    low, high = stats.ttest_rel([-1.0, -3.0], [0.0, 0.0]).confidence_interval(0.95)
    assert (found.mean, found.num) == (pytest.approx(-2.0), 2)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high))
    assert difference(b, a).mean == pytest.approx(2.0)


def test_differences_are_of_the_same_number():
    """A run without the number is ignored; each number has its own differences."""
    a = Variant("a", [run("a", 0, -50.0, fid=1.0), run("a", 1, -50.0), run("a", 2, -50.0, fid=4.0)], 3)
    b = Variant("b", [run("b", seed, -50.0, fid=float(10 * seed)) for seed in (2, 1, 0)], 3)
    assert difference(a, b, "fid").mean == pytest.approx(((1 - 0) + (4 - 20)) / 2)


def test_the_headline_says_how_far_the_next_is_below():
    runs = [run("a", seed, -40.0) for seed in (0, 1, 2)] + [run("b", seed, -42.0 - 0.1 * seed) for seed in (2, 1, 0)]
    low, high = stats.t.interval(0.95, 2, 2.1, stats.sem([2.0, 2.1, 2.2]))
    text = compare(runs)[0].headline
    mean = -40 + np.mean([3, 10, 100])
    half = stats.t.ppf(0.975, 2) * stats.sem([3, 10, 100])
    assert text == (
        f"Best test ELBO: a {mean:.2f} ± {half:.2f} nats per image (95 % interval over 3 seeds); "
        f"b is next, {low:.2f} to {high:.2f} below"
    ).replace("-", "\N{MINUS SIGN}")


def test_every_column_has_its_own_numbers():
    """Each quantity of each model has another value, which must be under its head and in its model's row."""
    known = known_quantities()
    main, cost = ([name for name in known if known[name].column == kind] for kind in ("main", "cost"))
    assert (len(main), len(cost)) == (16, 4)
    runs = []
    for model, base in (("low", 1000.0), ("high", 2000.0)):
        for seed in (1, 0):
            test = {name: base + 10 * i + seed for i, name in enumerate(main) if name not in ("elbo", "distortion")}
            one = run(model, seed, base - 5000, log_px=base + 300 + seed, **test)
            one.summary |= {name: base + 500 + 10 * i + seed for i, name in enumerate(cost)}
            one.summary["peak_memory_mb"] = {"process": base + 900 + seed}
            runs.append(one)
    (part,) = compare(runs)
    heads, lines = comparison.table(part)
    assert [line[0] for line in lines] == ["high", "low"]
    for line, base in zip(lines, (2000.0, 1000.0), strict=True):
        cells = dict(zip((head.split(" (")[0] for head in heads), line, strict=True))
        assert len(cells) == len(heads)
        expected = {
            known[name].title(name).split(" (")[0]: base + 10 * i + 0.5
            for i, name in enumerate(main) if name not in ("elbo", "distortion")
        }  # fmt: skip
        expected |= {"distortion": -(base + 300.5), "test ELBO": base - 5000 + 6.5, "memory": base + 900.5}
        expected |= {known[name].label: base + 500 + 10 * i + 0.5 for i, name in enumerate(cost[:-1])}
        for head, value in expected.items():
            shown = float(cells[head].split(" ± ")[0].replace(",", ""))
            assert shown == pytest.approx(value, abs=0.51), head
        assert cells["seeds"] == "2/2"
        assert cells["difference to the best"] == ("best" if base == 2000 else "-1,000.00")


def test_all_pairs_of_models_are_compared():
    """Three models have three differences, each beside its two models."""
    runs = [run(model, seed, elbo) for model, elbo in (("b", -60.0), ("a", -50.0), ("c", -75.0)) for seed in (1, 0)]
    text = comparison.markdown(runs, "title", Path())
    assert "| a - b | 10.00 |\n| a - c | 25.00 |\n| b - c | 15.00 |" in text
    rows = [line.split(" | ") for line in text.split("## Runs")[1].splitlines() if "completed" in line]
    assert [(row[0].strip("| "), float(row[1])) for row in rows] == [
        (str(one.folder), pytest.approx(one.test["elbo"])) for one in runs
    ]


def test_a_row_of_the_csv_is_one_run():
    runs = [run("b", 1, -60.0, fid=3.0), run("a", 5, -50.0, mig=0.2), run("b", 0, -61.0)]
    rows = list(csv.DictReader(io.StringIO(comparison.as_csv(runs, Path()))))
    for one, row in zip(runs, rows, strict=True):
        assert (row["model"], int(row["seed"]), row["folder"]) == (one.model, one.seed, str(one.folder))
        assert float(row["elbo"]) == one.test["elbo"]
        assert (row["fid"], row["mig"]) == tuple(str(one.test.get(name, "")) for name in ("fid", "mig"))


def test_evaluations_find_their_trainings(tmp_path):
    """Whatever the order of names, each number goes to the run with the same seed and weights."""
    for i, (model, seed) in enumerate([("b", 2), ("a", 0), ("b", 0), ("a", 2)]):
        trained = make_run(tmp_path / f"runs/{i}", model, seed, elbo=-100.0 - seed)
        checkpoint = f"{trained}/checkpoints/best.ckpt"
        told = {"elbo": -100.0 - seed, "fid": 10.0 * seed + ord(model)}
        make_run(tmp_path / f"evaluations/{9 - i}", model, seed, test=told, checkpoint=checkpoint, task="evaluate")
    runs = read_runs([tmp_path])
    assert len(runs) == 4
    for one in runs:
        assert one.numbers["fid"] == 10.0 * one.seed + ord(one.model)
        assert one.numbers["kl"] == 10.0  # the training's own stay


def test_a_sweep_table_is_in_the_order_of_its_jobs(tmp_path):
    for job, (seed, elbo) in {3: (0, -7.0), 0: (1, -8.0), 12: (2, -9.0)}.items():
        folder = make_run(tmp_path / f"j{job}", "mlp_vae", seed, elbo, wall_seconds=float(job))
        words = [f"seed={seed}"]
        (folder / "job.json").write_text(json.dumps({"job": job, "overrides": words}))
    found = sweep.sweep_rows(tmp_path)
    assert [(row["job"], row["overrides"], row["test_elbo"], row["seconds"], row["folder"]) for row in found] == [
        (0, "seed=1", -8.0, 0.0, "j0"), (3, "seed=0", -7.0, 3.0, "j3"), (12, "seed=2", -9.0, 12.0, "j12"),
    ]  # fmt: skip
    assert [(row["test_kl"], row["test_distortion"]) for row in found] == [(10.0, -2.0), (10.0, -3.0), (10.0, -1.0)]


def test_the_page_assigns_each_number_to_its_run(tmp_path):
    """Runs of three models in a mixed order: indices, labels, means, differences and curves belong to the right run."""
    order = [("c", 1), ("a", 0), ("b", 1), ("a", 1), ("c", 0), ("b", 0)]
    elbos = {"a": -50.0, "b": -70.0, "c": -60.0}
    for i, (model, seed) in enumerate(order):
        make_run(tmp_path / f"{i}", model, seed, elbos[model] + 3 * seed)
    runs = read_runs([tmp_path])
    found = page.contents(runs, tmp_path / "report.html", "title")
    assert [(one["model"], one["seed"]) for one in found["runs"]] == order
    curves = rows_of(found["comparisons"][0]["rows"]["curves"])
    for place, (one, (model, seed)) in enumerate(zip(found["runs"], order, strict=True)):
        assert one["label"] == f"{model} · seed {seed}"
        assert one["numbers"]["elbo"] == elbos[model] + 3 * seed
        *_, last = (row for row in curves if row["run"] == place and row["split"] == "val")
        assert (last["epoch"], last["step"], last["elbo"]) == (3.0, 30, elbos[model] + 3 * seed - 3)
        assert last["variant"] == model
        assert one["per_dimension"] == {"kl_dim": [8.0, 2.0]}
    (part,) = found["comparisons"]
    assert [v["label"] for v in part["variants"]] == ["a", "c", "b"]
    for variant in part["variants"]:
        model = variant["label"]
        assert {order[place] for place in variant["runs"]} == {(model, 0), (model, 1)}
        assert variant["numbers"]["elbo"]["mean"] == elbos[model] + 1.5
        if model != "a":
            assert variant["numbers"]["difference"]["mean"] == pytest.approx(elbos[model] + 50)
    assert part["columns"][:2] == ["elbo", "difference"]


def test_thinned_curves_keep_the_first_and_the_last():
    curve = [SimpleNamespace(epoch=i / 2, step=i, elbo=-float(i)) for i in range(101)]
    found = thinned(curve, 6)
    assert [(point.epoch, point.step, point.elbo) for point in found] == [
        (i / 2, i, -float(i)) for i in (0, 20, 40, 60, 80, 100)
    ]


def test_udr_goes_to_the_run_whose_codes_it_is_of(tmp_path, monkeypatch):
    """Codes of the test set and KLs are of the same run; the second run has no evaluation and is left out."""
    runs = [run("a", seed, -50.0, **{"kl_dim/000": 1.0 + seed, "kl_dim/001": 0.5}) for seed in (2, 5, 0, 1)]
    for one in runs:
        folder = tmp_path / one.folder
        folder.mkdir()
        status = "failed" if one.seed == 5 else "completed"
        (folder / "summary.json").write_text(json.dumps({"status": status, "test": {"fid": 1.0}, "units": {}}))
    asked = []

    def opened(config, path, checkpoint):
        assert (path, checkpoint) == (f"best of a-{config['seed']}", f"read best of a-{config['seed']}")

        def codes(split, num):
            asked.append((config["seed"], split, num))
            return torch.full((6, 2, 1), float(config["seed"])), torch.zeros(6)

        return SimpleNamespace(codes=codes)

    def udr(codes, kls):
        assert [z.shape for z in codes] == [(6, 2)] * 3
        assert [float(kl[0]) - 1 for kl in kls] == [float(z[0, 0]) for z in codes] == [2.0, 0.0, 1.0]
        return [float(z[0, 0]) / 10 for z in codes]

    monkeypatch.setattr(evaluation, "find_checkpoint", lambda folder: f"best of {folder}")
    monkeypatch.setattr(evaluation, "read_checkpoint", lambda path: f"read {path}")
    monkeypatch.setattr(evaluation, "load_run", opened)
    monkeypatch.setattr(disentanglement, "udr", udr)
    evaluation.add_variant_udr(Variant("a", runs, 4), tmp_path, [])
    assert asked == [(seed, "test", evaluation.CODES) for seed in (2, 0, 1)]
    for one in runs:
        test = json.loads((tmp_path / one.folder / "summary.json").read_text())["test"]
        if one.seed == 5:
            assert test == {"fid": 1.0}
        else:
            assert test == {"fid": 1.0, "udr": one.seed / 10, "udr_ceiling": 0.9, "udr_models": 3.0}


def test_udr_compares_each_model_with_all_others():
    """For four models: the median over the three others, computed with loops."""
    generator = np.random.default_rng(0)
    base = generator.standard_normal((200, 3))
    mixes = [
        np.eye(3),
        generator.standard_normal((3, 2)),
        np.array([[1, 0.5, 0], [0, 1, 0], [0.3, 0, 1]]),
        np.eye(3)[:, :2],
    ]
    codes = [base @ m + 0.3 * generator.standard_normal((200, m.shape[1])) for m in mixes]
    kls = [torch.tensor([1.0, 0.5, 0.02]), torch.tensor([0.2, 1.0]), torch.tensor([1.0, 0.005, 1.0]), torch.ones(2)]
    found = disentanglement.udr([torch.from_numpy(z) for z in codes], kls, disentanglement.spearman)
    kept = [z[:, kl.numpy() > 0.01] for z, kl in zip(codes, kls, strict=True)]
    for i, ours in enumerate(kept):
        scores = []
        for j, theirs in enumerate(kept):
            if i != j:
                r = np.array([[abs(stats.spearmanr(a, b)[0]) for b in ours.T] for a in theirs.T])
                rows, columns = (np.mean([max(line) ** 2 / sum(line) for line in m]) for m in (r, r.T))
                scores.append((rows + columns) / 2)
        assert found[i] == pytest.approx(sorted(scores)[1])
    assert not math.isclose(found[0], found[1])
