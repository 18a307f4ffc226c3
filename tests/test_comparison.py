"""The comparison: the numbers in its tables, and the task on the command line."""

import csv
import io
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import config
from scipy import stats
from test_report import make_run, without_charts  # noqa: F401

from vaezoo.evaluation.base import EvaluationResult
from vaezoo.evaluation.groups import GROUPS
from vaezoo.evaluation.udr import add_udr
from vaezoo.metrics.latent import verdict
from vaezoo.metrics.quantities import Quantity
from vaezoo.report import Run, read_runs
from vaezoo.report import tables as comparison
from vaezoo.report.page import contents
from vaezoo.report.read import known_quantities
from vaezoo.report.statistics import Variant, compare, interval
from vaezoo.report.table_files import write_tables
from vaezoo.report.tables import print_results
from vaezoo.runs.comparison import comparison_job
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.warm import is_supported
from vaezoo.tasks.compare import describe_place, read_members

TINY = ("trainer.max_epochs=1", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "threads=1", "logger=none",
        "callbacks.images=null")  # fmt: skip


def made(model, elbos, scored="bits"):
    """Make runs of a model, one for each seed."""
    return [
        Run(
            Path(f"{model}-{seed}"),
            [f"model={model}", f"seed={seed}"],
            {"status": "completed", "model": model, "seed": seed, "scored": scored,
             "test": {"elbo": elbo, "kl": 5.0, "log_px": elbo + 5}, "wall_seconds": 10.0 + seed},
            config={"seed": seed, "model": {"name": model}},
        )
        for seed, elbo in enumerate(elbos)
    ]  # fmt: skip


def test_differences_are_paired():
    """The interval is that of a paired t test, so an effect of the seed on both models cancels."""
    a, b = [-90.0, -100.0, -110.0], [-91.0, -101.5, -111.0]
    gap = comparison.difference(Variant("a", made("a", a), 3), Variant("b", made("b", b), 3))
    found = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (gap.mean - gap.half, gap.mean + gap.half) == pytest.approx((found.low, found.high))
    assert gap.half < 1 < interval(a).half


def test_differences_are_over_shared_seeds():
    ours, theirs = made("a", [-1.0, -2.0, -3.0]), made("b", [-2.0, -2.0])
    gap = comparison.difference(Variant("a", ours, 3), Variant("b", theirs, 2))
    assert gap.mean == pytest.approx(0.5)
    assert comparison.difference(Variant("a", ours[:1], 1), Variant("b", theirs[1:], 1)) is None


def test_table():
    """The best is first; one seed and costs have no interval."""
    (part,) = compare([*made("a", [-90.0, -92.0]), *made("b", [-80.0])])
    heads, lines = comparison.table(part)
    rows = {line[0]: dict(zip(heads, line, strict=True)) for line in lines}
    assert [line[0] for line in lines] == ["b", "a"]
    half = 12.7062 * np.std([-90.0, -92.0], ddof=1) / math.sqrt(2)
    assert rows["a"]["test ELBO"] == f"-91.00 ± {half:.2f}"
    assert rows["b"]["test ELBO"] == "-80.00"
    assert rows["b"]["difference to the best"] == "best"
    assert rows["a"]["difference to the best"] == "-10.00"
    assert rows["a"]["time (s)"] == "10"  # of 10 and 11


def test_nan_is_never_the_best():
    """A diverged model is last, whatever the order of the runs."""
    runs = [*made("b", [-90.0, -91.0]), *made("a", [math.nan, -1.0]), *made("c", [-80.0, -81.0])]
    for ordered in (runs, runs[::-1]):
        assert [variant.label for variant in compare(ordered)[0].variants] == ["c", "b", "a"]


def test_the_protocol_of_log_p_is_reported():
    """K and the number of images are in the head of its column."""
    runs = made("a", [-90.0, -92.0])
    for run, samples in zip(runs, (500, 5000), strict=True):
        run.summary["test"] |= {"log_p": -85.0, "log_p_samples": float(samples), "log_p_examples": 1000.0}
    heads, _ = comparison.table(compare(runs[:1])[0])
    assert "log p(x) (K = 500, 1,000 images)" in heads


def test_summaries_of_earlier_versions_have_the_present_names(tmp_path):
    """Names with images stand for examples: they are in the table, with the protocol and the costs."""
    units = {"log_p": {"unit": "nats per row", "meaning": "", "column": "main", "label": "log p(x)",
                       "protocol": "K = {log_p_samples}, {log_p_images} rows"},
             "log_p_images": {"unit": "rows", "meaning": "", "column": "run"}}  # fmt: skip
    summary = {"status": "completed", "task": "fit", "model": "a", "config": {"seed": 3}, "units": units,
               "train_images_per_second": 512.0,
               "test": {"elbo": -9.0, "log_p": -8.0, "log_p_samples": 5.0, "log_p_images": 40.0}}  # fmt: skip
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (run,) = read_runs([tmp_path])
    assert (run.numbers["log_p_examples"], run.numbers["train_examples_per_second"]) == (40, 512)
    assert not any("images" in name for name in (*run.numbers, *run.summary["units"]))
    heads, (row,) = comparison.table(compare([run])[0])
    assert "log p(x) (K = 5, 40 rows)" in heads
    assert row[heads.index("speed (images/s)")] == "512"


def test_without_an_elbo_there_is_no_difference():
    runs = made("a", [-90.0])
    del runs[0].summary["test"]["elbo"]
    heads, lines = comparison.table(compare(runs)[0])
    assert "difference to the best" not in heads
    assert len(heads) == len(lines[0])
    runs = made("a", [-90.0])
    runs[0].summary |= {"test": {}, "wall_seconds": None}
    assert comparison.table(compare(runs)[0]) == (["model", "seeds"], [["a", "1/1"]])


def test_a_number_of_some_seeds_says_how_many():
    runs = made("a", [-90.0, -92.0])
    runs[0].summary["test"]["fid"] = 3.0
    heads, (line,) = comparison.table(compare(runs)[0])
    assert line[heads.index("FID")] == "3.00 (of 1)"


def test_a_ceiling_is_shown_if_it_is_the_same_for_all_runs():
    """Models of different sizes have different ceilings, which are not shown."""
    runs = made("a", [-90.0, -92.0])
    for run, (mig, units) in zip(runs, [(0.9, 5.0), (0.91, 6.0)], strict=True):
        run.summary["test"] |= {"mig": 0.1, "mig_ceiling": mig, "active_units": 4.0, "active_units_ceiling": units}
    heads, _ = comparison.table(compare(runs)[0])
    assert {"MIG (at best 0.905)", "active units"} <= set(heads)


def test_posterior_collapse_is_reported():
    runs = made("a", [-90.0])
    found = {"active_units": 0.0, "active_units_ceiling": 20.0, "mutual_information": 5.0, "aggregate_kl": 1.0}
    for unused, told in {20: "posterior collapse: KL", 18: "18 of 20 dimensions are unused", 3: None}.items():
        runs[0].summary["verdict"] = verdict(found | {"collapsed_units": float(unused)})._asdict()
        text = comparison.markdown(runs, "t", Path())
        assert f"- a, 1 of 1 seeds: {told}" in text if told else "seeds:" not in text


def test_udr_has_no_interval():
    """Its values share pairs of models, so they are not independent."""
    runs = made("a", [-90.0, -92.0])
    for run, score in zip(runs, (0.2, 0.4), strict=True):
        run.summary["test"] |= {"udr": score, "udr_ceiling": 0.9, "udr_models": 2.0}
    heads, ((*_, cell, _seconds),) = comparison.table(compare(runs)[0])
    assert heads[-2] == "UDR (2 seeds; at best 0.9)"
    assert cell == "0.300"


def test_a_missing_checkpoint_leaves_out_udr_alone(tmp_path, capsys):
    runs = made("a", [-90.0, -92.0])
    for run in runs:
        run.summary["test"] |= {"kl_dim/000": 1.0, "kl_dim/001": 2.0}
        (tmp_path / run.folder.name).mkdir()
        (tmp_path / run.folder.name / "summary.json").write_text('{"status": "completed", "test": {}, "units": {}}')
    add_udr(runs, tmp_path, [])
    assert "no UDR of a: a-0 does not exist" in capsys.readouterr().err


def test_kinds_of_data_are_not_compared():
    """log p of bits and of levels: two tables without differences between them."""
    runs = [*made("a", [-90.0, -92.0]), *made("b", [-900.0, -910.0], scored="levels")]
    text = comparison.markdown(runs, "both", Path())
    assert text.count("| model | seeds |") == 2
    assert "a - b" not in text


def test_an_evaluation_shows_the_checkpoint_it_tested():
    """Its own folder has no checkpoint."""
    training, evaluation = made("a", [-90.0, -91.0])
    evaluation.summary["checkpoint"] = "elsewhere/checkpoints/last.ckpt"
    text = comparison.markdown([training, evaluation], "both", Path())
    assert "| completed | a-0/checkpoints/best.ckpt |" in text
    assert "| completed | elsewhere/checkpoints/last.ckpt |" in text


def test_failures_are_rows():
    """A model without a completed seed is a row; a failed seed counts as tried."""
    failed = Run(Path("c"), ["model=c", "seed=0"], {"status": "failed", "error": "out | of memory"})
    runs = [*made("a", [-90.0]), failed]
    (part,) = compare([*runs, Run(Path("a-1"), ["model=a", "seed=1"], {"status": "failed"}, config={"seed": 1})])
    assert [line[:3] for line in comparison.table(part)[1]] == [["a", "1/2", "-90.00"], ["c", "0/1", "-"]]
    parts = compare([*runs, *made("a", [-50.0], scored="levels")])  # where most runs are, and there alone
    assert [variant.label for part in parts for variant in part.variants] == ["a", "c", "a"]
    twins = [Run(Path(x), [f"model={x}", "optimizer.lr=0.00031415"], {"status": "failed"}) for x in "cd"]
    twins.append(Run(Path("e"), ["model=c", "optimizer.lr=0.000314151"], {"status": "failed"}))
    (part,) = compare([*made("a", [-90.0]), *twins])
    assert [(v.label, v.tried) for v in part.variants[1:]] == [
        ("c lr=0.00031415", 1), ("d lr=0.00031415", 1), ("c lr=0.000314151", 1),
    ]  # fmt: skip
    assert "| c | - | out \\| of memory |" in comparison.markdown(runs, "all", Path())
    rows = list(csv.DictReader(io.StringIO(comparison.as_csv(runs, Path()))))
    assert [row["status"] for row in rows] == ["completed", "out | of memory"]
    assert float(rows[0]["elbo"]) == -90


def test_the_title_names_the_data(monkeypatch):
    """Of the user's own data, also their file or folder."""
    choices = {}
    hydra = SimpleNamespace(get=lambda: SimpleNamespace(runtime=SimpleNamespace(choices=choices)))
    monkeypatch.setattr("vaezoo.tasks.compare.HydraConfig", hydra)
    for overrides, title in {
        ("data=folder", "data.root=photos/"): "folder photos", ("data=digits",): "digits",
        ("data=table", "data.path=a/customers.csv"): "table customers.csv", ("data=mnist", "data.root=x"): "mnist",
        ("data=tables/wine",): "tables/wine",
    }.items():  # fmt: skip
        choices["data"] = overrides[0].removeprefix("data=")
        assert describe_place({"data": config("data", *overrides), "allow_packages": []}) == title


def test_a_comparison(cli, tmp_path):
    """Each run is a job; a failed job is a row with the reason. Resuming runs only missing jobs, also of new seeds."""
    words = ("task=compare", 'models=[mlp_vae,"beta_vae optimizer.lr=1e30"]', "task.metrics=[disentanglement]", *TINY,
             "model/encoder=mlp", "model/decoder=mlp", "+optimizer.weight_decay=0.1")  # fmt: skip
    code, out, err, _ = cli(*words, "seeds=[3]", "hydra.run.dir=all")
    folder = tmp_path / "all"
    assert code == 1
    assert "1 of 2 jobs failed" in err
    assert "beta" in (folder / "comparison.md").read_text()
    training, evaluation = (folder / part / "mlp_vae-seed3" / "summary.json" for part in ("runs", "evaluations"))
    fit, test = (json.loads(file.read_text()) for file in (training, evaluation))
    assert fit["seed"] == 3
    assert fit["config"]["optimizer"]["weight_decay"] == 0.1
    assert fit["test"] == test["test"]
    rows = {row["model"]: row for row in csv.DictReader((folder / "comparison.csv").open())}
    assert float(rows["mlp_vae"]["elbo"]) == fit["test"]["elbo"]
    assert (folder / "report.html").stat().st_size < 2_000_000
    code, out, err, _ = cli(*words, "seeds=[3]", "hydra.run.dir=all")
    assert "all holds a comparison: add resume=auto to continue it" in err
    evaluation.unlink()  # as if it had been interrupted
    before = training.stat().st_mtime_ns
    code, out, err, _ = cli(*words, "seeds=[3,4]", "hydra.run.dir=all", "resume=auto")
    assert "resuming in all" in out
    assert training.stat().st_mtime_ns == before
    again = json.loads(evaluation.read_text())["test"]
    assert {name: again[name] for name in test["test"]} == test["test"]
    assert "| mlp_vae | 2/2 |" in (folder / "comparison.md").read_text()
    assert "| beta_vae lr=1e+30 | 0/2 |" in (folder / "comparison.md").read_text()
    # What several seeds tell: two models of as many informative dimensions are as like as each other.
    rows = [row for row in csv.DictReader((folder / "comparison.csv").open()) if row["status"] == "completed"]
    assert len(rows) == 2
    assert float(rows[0]["udr"]) == again["udr"]
    assert all(0 < float(row["udr"]) < float(row["udr_ceiling"]) == 0.9 for row in rows)
    # Other numbers of each: the trainings are those that are there.
    code, out, err, _ = cli(*words, "seeds=[3,4]", "task.metrics=[latent]", "hydra.run.dir=all", "resume=auto")
    assert training.stat().st_mtime_ns == before
    assert "mutual_information" in json.loads(evaluation.read_text())["test"]
    assert "error: 2 of 4 jobs failed, the first is beta_vae-optimizer.lr=1e30-seed3: training div" in err
    assert "training examples" not in err
    code, out, err, _ = cli(*words, "seeds=[4]", "hydra.run.dir=all", "resume=auto")
    assert "all holds the run of another command" in err


@pytest.mark.parametrize("has_config", [True, False])
@pytest.mark.usefixtures("without_charts")
def test_an_interrupted_comparison_says_what_did_not_complete(tmp_path, capsys, monkeypatch, has_config):
    """Each seed is one run, with its evaluation. Each seed that was asked for counts as tried, started or not."""
    monkeypatch.setenv("COLUMNS", "200")
    models = ("mlp_vae", "iwae", "vq_vae", "beta_vae model.beta=4")
    members = [comparison_job(tmp_path, model, seed, [], []) for seed in (0, 1) for model in models]
    for member, elbo in zip(members[:2], (-100.0, -90.0), strict=True):
        make_run(next(iter(member.stages)), member.model, elbo=elbo)
    (trained, evaluation), (stopped, _) = members[0].stages, members[2].stages
    config = RunFolder(trained).read_summary()["config"]
    evaluate = {"task": {"_target_": "vaezoo.tasks.evaluate.evaluate"}, "run": str(trained)}
    for member, folder, recorded in ((members[0], evaluation, evaluate), (members[2], stopped, config)):
        folder.mkdir(parents=True)
        RunFolder(folder).write_job(9, member.stages[folder])
        told = {"status": "interrupted", "model": member.model, "config": recorded | {"name": member.model}}
        RunFolder(folder).write_summary((told if has_config else {}) | {"error": "interrupted by SIGINT"})
    runs = read_members(members, [config] * 3 + [config | {"model": {"_target_": "beta_vae", "beta": 4.0}}])

    (part,) = compare(runs)
    seeds = {"mlp_vae": "1/2", "iwae": "1/2", "vq_vae": "0/2", "beta_vae beta=4": "0/2"}
    assert {line[0]: line[1] for line in comparison.table(part)[1]} == seeds
    comparison.print_comparison(part)
    printed = capsys.readouterr().out
    write_tables(runs, "t", tmp_path)
    markdown, latex = ((tmp_path / f"comparison.{ending}").read_text() for ending in ("md", "tex"))
    for label, count in seeds.items():
        assert re.search(rf"^ *{label} +{count} ", printed, re.M)
        assert f"| {label} | {count} |" in markdown
        assert "{} & {} &".format(label.replace("_", r"\_"), count) in latex
    states = [
        "evaluation interrupted by SIGINT",
        "evaluation not started",
        "interrupted by SIGINT",
        *["not started"] * 5,
    ]
    with (tmp_path / "comparison.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == states
    assert [line.split(" | ")[2] for line in markdown.split("## Runs")[1].splitlines()[4:-2]] == states
    assert markdown.endswith("\nThe same command with resume=auto completes what is missing.\n")
    page = contents(runs, tmp_path / "report.html", "t")
    rows = page["comparisons"][0]["variants"]
    assert {row["label"]: f"{len(row['runs'])}/{row['tried']}" for row in rows} == seeds
    assert [page["runs"][i]["failure"] for i in page["incomplete"]] == states
    assert [run["completed"] for run in page["runs"]] == [True] * 2 + [False] * 6
    assert page["remedy"] == "The same command with resume=auto completes what is missing."


def test_jobs_side_by_side_have_the_numbers_of_jobs_one_after_another(cli, tmp_path, monkeypatch):
    """All numbers but costs are equal to the last digit. Jobs that fail at once do not hold up the others. No job,
    training or evaluation, starts Python again.
    """
    if is_supported():
        monkeypatch.setattr("vaezoo.runs.jobs.subprocess", None)  # which would start it
    words = ("task=compare", 'models=[mlp_vae,"iwae optimizer.lr=1e30"]', "seeds=2", "task.metrics=[likelihood]", *TINY,
             "task.num_samples=2", "task.num_images=9")  # fmt: skip
    found = []
    for jobs in (1, 2):
        code, _out, err, _ = cli(*words, f"jobs={jobs}", f"hydra.run.dir=all{jobs}")
        assert code == 1, err
        assert "error: 2 of 4 jobs failed" in err
        folder = tmp_path / f"all{jobs}"
        with (folder / "comparison.csv").open() as file:
            rows = list(csv.DictReader(file))
        found.append([{k: v for k, v in row.items() if not re.search("second|memory", k)} for row in rows])
        shown = [line.split("  ") for line in err.splitlines() if line.startswith(("mlp_vae  ", "iwae "))]
        assert len(shown) == 4
        assert {line[2][:17] for line in shown} == {"completed", "training diverged"}
    assert [row["status"] for row in found[0]].count("completed") == 2
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "models=[] should name one or more"),
        (["models=[mlp_vae]", "seeds=[0,x]"], "seeds=[0, 'x']: expected a count or a list of integers >= 0, got 'x'"),
        (["models=[mlp_vae]", "seeds=[-1]"], "seeds=[-1]: expected a count or a list of integers >= 0, got -1"),
        (["models=[mlp_vae]", "seeds=0"], "seeds=[] should name one or more"),
        (["models=[mlp_vae]", "seeds=[1,1]"], "seeds=[1, 1] should name one or more, each once"),
        (["models=[mlp_vae]", "seed=3"], "seed=3: task=compare takes a list: use 'seeds=[3]'"),
        (["models=[mlp_vae]", "jobs=0"], "jobs=0 should be an integer >= 1, or auto"),
        (["models=[mlp_vae]", "task.metrics=[nosuch]"], "task.metrics=['nosuch'] should be all, or a list of"),
        (["models=[mlp_vae]", "task.num_images=1"], "task.num_images must be >= 2, got 1"),
        (["models=[mlp_vae]", "task.inception=nowhere.pth"], "task.inception=nowhere.pth: "),
        (["models=[mlp_vae]", "task.outliers=nosuch"], "task.outliers=nosuch is not a choice, choose from"),
        (["models=[iwae]", "model=mlp_vae"], "model=mlp_vae: task=compare takes a list: use 'models=[mlp_vae]'"),
        (["models=[mlp_vae,conv_va]"], "model=conv_va is not a choice, did you mean conv_vae?"),
        (['models=["beta_vae model.betta=2"]'], "beta_vae model.betta=2: model.betta: there is no such key, did"),
        (['models=["beta_vae model.beta=-3"]'], "beta_vae model.beta=-3: model: beta must be a finite number >= 0"),
    ],
)
def test_mistakes(cli, words, sentence):
    code, _out, err, _folder = cli("task=compare", *words)
    assert code == 1
    assert sentence in err
    assert len(err.splitlines()) == 1


def test_heads_of_all_columns():
    """Heads in their order, with units, protocols and bounds, also for summaries whose ``units`` have no labels."""
    test = {"log_p": -9.0, "log_p_samples": 500.0, "log_p_examples": 1000.0, "inference_gap": 1.0, "bits_per_dim": 3.0,
            "active_units": 7.0, "active_units_ceiling": 20.0, "codes_used": 60.0, "linear_probe": 0.9, "fid": 2.0,
            "num_features": 64.0, "num_real": 10_000.0, "num_generated": 500.0, "fid_reference": 0.0662, "mig": 0.2,
            "mig_ceiling": 0.9, "udr": 0.3, "udr_ceiling": 0.9, "udr_models": 2.0, "kid": 0.1, "loss": 9.0}  # fmt: skip
    new = {name: quantity.to_json() for name, quantity in known_quantities().items()}
    old = {name: [quantity.unit, quantity.meaning, quantity.better] for name, quantity in known_quantities().items()}
    for units in (new, old, {}):
        runs = made("a", [-90.0, -92.0])
        for run in runs:
            cost = {"train_examples_per_second": 5123.0, "parameters": 1_234_567, "peak_memory_mb": {"process": 512.0}}
            run.summary |= cost | {"units": units, "test": run.summary["test"] | test}
        heads, (line,) = comparison.table(compare(runs)[0])
        assert dict(zip(heads, line, strict=True)) == {
            "model": "a", "seeds": "2/2", "test ELBO": "-91.00 ± 12.71", "difference to the best": "best",
            "log p(x) (K = 500, 1,000 images)": "-9.00", "inference gap": "1.00", "bits/dim": "3.000", "rate": "5.00",
            "distortion": "86.00 ± 12.71", "active units (at best 20)": "7.0", "codes used": "60.0",
            "linear probe": "0.900",
            "FID (64 features, 10,000 real, 500 generated; training images: 0.0662)": "2.00",
            "MIG (at best 0.9)": "0.200", "UDR (2 seeds; at best 0.9)": "0.300", "time (s)": "10",
            "speed (images/s)": "5,123", "parameters": "1,234,567", "memory (MiB)": "512",
        }  # fmt: skip


def test_a_new_metric_is_a_function_with_its_quantity_and_a_group(cli, tmp_path, monkeypatch, capfd):
    """Its label and digits appear in the table, the page and the terminal without any other change."""
    quantity = Quantity("nats", "of the codes", 1, "spread of z", 4, "main", "{spread_images} images")
    quantities = {"spread": quantity, "spread_images": Quantity("images", "behind the spread", column="run")}

    def spread(run, settings):
        codes, _ = run.codes("test", 50)
        return EvaluationResult({"spread": float(codes.std()), "spread_images": float(len(codes))}, quantities)

    monkeypatch.setitem(GROUPS, "spread", spread)
    code, _out, err, run = cli("trainer.max_epochs=1", *TINY[1:])
    assert code == 0, err
    code, out, err, evaluation = cli("task=evaluate", f"run={run}", "task.metrics=[spread]")
    assert code == 0, err
    value = json.loads((evaluation / "summary.json").read_text())["test"]["spread"]
    assert f"{value:.3f}" in out
    assert "nats, of the codes" in out
    runs = read_runs([tmp_path / "outputs"])
    assert len(runs) == 1
    (part,) = compare(runs)
    heads, (line,) = comparison.table(part)
    assert line[heads.index("spread of z (50 images)")] == f"{value:.4f}"
    page = contents(runs, tmp_path / "report.html", "t")
    assert page["comparisons"][0]["columns"][:2] == ["elbo", "kl"]
    assert "spread" in page["comparisons"][0]["columns"]
    assert "spread_images" not in page["comparisons"][0]["columns"]
    assert page["comparisons"][0]["protocols"]["spread"] == "50 images"
    assert (page["quantities"]["spread"]["label"], page["quantities"]["spread"]["digits"]) == ("spread of z", 4)
    comparison.print_comparison(part)
    assert f"{value:.4f}" in capfd.readouterr().out


def test_the_verdict_is_read_from_its_key_or_from_the_notes_of_older_versions():
    old = {"notes": ["log p(x) is so", "18 of 20 dimensions are unused, the others carry 1 nat of x"]}
    new = {"verdict": {"collapsed": False, "mostly_unused": True, "unused": 18, "text": "so it is"}}
    fine = {"verdict": {"collapsed": False, "mostly_unused": False, "unused": 1, "text": "no collapse"}}
    texts = [Run(Path(), summary=summary).verdict for summary in (old, new, fine, old | fine, {})]
    assert texts == [old["notes"][1], "so it is", "", "", ""]


def test_scores_of_training_images_are_a_reference():
    """A model may surpass it. Summaries of older versions call it a ceiling and are read in the same way."""
    tables = []
    for end in ("reference", "ceiling"):
        runs = made("a", [-90.0, -92.0])
        for run in runs:
            run.summary["test"] |= {"fid": 0.05, f"fid_{end}": 0.0662, "mig": 0.1, "mig_ceiling": 0.9}
        tables.append(comparison.table(compare(runs)[0]))
        assert runs[0].numbers["fid_reference"] == 0.0662
    assert {"FID (training images: 0.0662)", "MIG (at best 0.9)"} <= set(tables[0][0])
    assert tables[0] == tables[1]


def test_references_and_ceilings_are_printed_with_different_words(capsys):
    values = {"recall": 0.942, "recall_error": 0.01, "recall_reference": 0.908, "mig": 0.1, "mig_ceiling": 0.9}
    print_results("t", values, {name: Quantity("share", "x", 1) for name in ("recall", "mig")}, [])
    out = capsys.readouterr().out
    assert "0.942 ± 0.010 (training images: 0.908)" in out
    assert "0.100 (at best 0.9)" in out
