"""The report: reading run folders, comparing runs, and the page."""

import base64
import csv
import io
import json
import math
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from vaezoo.errors import ConfigError
from vaezoo.pictures import add_labels
from vaezoo.report import Run, read_runs, write_figures, write_report
from vaezoo.report.figures import vega_script
from vaezoo.report.media import thumbnail
from vaezoo.report.page import LIMIT
from vaezoo.report.read import read_curves
from vaezoo.report.statistics import compare, differing, interval
from vaezoo.report.tables import table


@pytest.fixture(autouse=True)
def without_charts(monkeypatch):
    """Leave the charts undrawn: most tests here are of the data. ``monkeypatch.undo()`` draws them."""
    monkeypatch.setattr("vaezoo.report.page.compiled", lambda chart, paper: {})
    monkeypatch.setattr("vaezoo.report.page.vega_script", lambda: "")


def make_run(folder, model="mlp_vae", seed=0, elbo=-100.0, overrides=(), pictures=(), panel=None, **values):
    """Write a run's folder as a training does, with a rate of 10 nats."""
    folder.mkdir(parents=True)
    beta = next((float(word.split("=")[1]) for word in overrides if word.startswith("model.beta=")), 1.0)
    config = {
        "name": model, "seed": seed, "run_dir": str(folder), "task": {"_target_": "vaezoo.tasks.fit.fit"},
        "model": {"beta": beta, "_target_": model}, "trainer": {"max_epochs": 3},
        "data": {"_target_": "vaezoo.data.MNIST", "shape": [1, 28, 28], "binarize": "dynamic", "root": str(folder)},
        "callbacks": {"best": {"dirpath": f"{folder}/checkpoints"}},
    }  # fmt: skip
    test = {"elbo": elbo, "log_px": elbo + 10, "kl": 10.0, "active_units": 7.0, "kl_dim/000": 8.0, "kl_dim/001": 2.0}
    summary = {
        "status": "completed", "model": model, "seed": seed, "scored": "bits", "test": test, "wall_seconds": 12.5,
        "units": {"active_units": "latent dimensions in use"}, "parameters": 1000, "peak_memory_mb": {"process": 500.0},
        "versions": {"torch": "9.9"}, "config": config, "epochs": 3, "steps": 30,
    }  # fmt: skip
    (folder / "summary.json").write_text(json.dumps(summary | values))
    words = [f"model={model}", f"seed={seed}", *overrides]
    (folder / "job.json").write_text(json.dumps({"job": seed, "overrides": words}))
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", "step", "step/elbo", "train/elbo", "val/elbo"])
        writer.writeheader()
        writer.writerow({"step": 0, "step/elbo": -500})  # without an epoch
        for epoch in range(3):
            writer.writerow({"epoch": epoch, "step": 10 * epoch + 4, "val/elbo": elbo - 10 / (epoch + 1)})  # amid it
            writer.writerow({"epoch": epoch, "step": 10 * epoch + 9, "val/elbo": elbo - 9 / (epoch + 1)})
            writer.writerow({"epoch": epoch, "step": 10 * epoch + 9, "train/elbo": elbo})
    (folder / "panels").mkdir()
    for name in pictures:
        Image.fromarray(np.full((40, 60, 3), 200, np.uint8) if panel is None else panel).save(folder / "panels" / name)
    return folder


def rows_of(columns):
    """The rows of a table that a page stores by columns."""
    whole = {name: [c["texts"][i] for i in c["codes"]] if isinstance(c, dict) else c for name, c in columns.items()}
    return [dict(zip(whole, values, strict=True)) for values in zip(*whole.values(), strict=True)]


def data_of(page):
    """The data in a page as a browser reads it: up to the first end of the script element."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


@pytest.fixture
def sweep(tmp_path):
    """Two models with three seeds each; one run failed and one is not finished."""
    for seed, elbo in enumerate((-100.0, -101.0, -102.0)):
        make_run(tmp_path / "sweep" / f"{seed}", "mlp_vae", seed, elbo, pictures=["samples-0001.png"])
    for seed, elbo in enumerate((-90.0, -91.0)):
        make_run(tmp_path / "sweep" / f"{3 + seed}", "conv_vae", seed, elbo)
    failed = {"status": "failed", "error": "training diverged (ELBO nan): try a smaller optimizer.lr"}
    for job, seed in ((5, 2), (10, 3)):
        (tmp_path / "sweep" / f"{job}").mkdir()
        words = ["model=conv_vae", f"seed={seed}", "hydra.run.dir=x"]
        (tmp_path / "sweep" / f"{job}" / "job.json").write_text(json.dumps({"job": job, "overrides": words}))
    (tmp_path / "sweep" / "5" / "summary.json").write_text(json.dumps(failed))
    return tmp_path / "sweep"


def test_interval_by_hand():
    # mean 2, s = 1 and n = 3: the half width is t / sqrt(3); with 2 degrees of freedom t = (2p - 1) / sqrt(2p (1 - p))
    t = 0.95 / math.sqrt(2 * 0.975 * 0.025)
    mean, half, num = interval([1.0, 2.0, 3.0])
    assert (mean, num) == (2.0, 3)
    assert half == pytest.approx(t / math.sqrt(3), rel=1e-9)
    mean, half, num = interval([5.0])
    assert (mean, num) == (5.0, 1)
    assert math.isnan(half)


def test_sweep_is_read_in_the_order_of_its_jobs(sweep):
    runs = read_runs([sweep])
    assert [run.folder.name for run in runs] == ["0", "1", "2", "3", "4", "5", "10"]  # 10 after 5
    assert [(run.model, run.seed) for run in runs[3:]] == [("conv_vae", seed) for seed in range(4)]
    assert runs[0].numbers["distortion"] == 90.0
    assert runs[0].numbers["peak_memory_mb"] == 500.0
    assert runs[0].per_dimension == {"kl_dim": [8.0, 2.0]}
    assert runs[0].overrides == ["model=mlp_vae", "seed=0"]
    assert runs == read_runs([sweep / run.folder.name for run in runs])


def test_failed_and_unfinished_runs_are_listed_with_the_reason(sweep):
    runs = read_runs([sweep])
    assert [run.completed for run in runs] == [True] * 5 + [False] * 2
    assert runs[5].failure == "training diverged (ELBO nan): try a smaller optimizer.lr"
    assert runs[6].failure == "not finished"
    make_run(sweep / "11", "conv_vae", 0, status="failed", error="killed by SIGKILL")  # a seed that has come through
    best = compare(read_runs([sweep]))[0].variants[0]
    assert (best.label, len(best.runs), best.tried) == ("conv_vae", 2, 4)
    write_report(runs, sweep / "report.html", "sweep")
    page = data_of((sweep / "report.html").read_text())
    assert [page["runs"][i]["failure"] for i in page["incomplete"]] == [runs[5].failure, "not finished"]
    assert page["runs"][5]["command"] == "python run.py model=conv_vae seed=2"


def test_curves_count_completed_epochs(sweep):
    points = read_runs([sweep / "0"])[0].curves
    assert [point.epoch for point in points["val"]] == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    assert [point.step for point in points["train"]] == [10, 20, 30]
    assert points["val"][-1].elbo == pytest.approx(-103.0)


def test_newest_picture_of_each_kind(tmp_path):
    names = ["zebra-0001.png", "samples-0010.png", "samples-0002.png", "reconstructions-0001.png"]
    pictures = read_runs([make_run(tmp_path / "run", pictures=names)])[0].pictures
    assert [file.name for file in pictures.values()] == [names[3], names[1], names[0]]


def test_means_are_over_seeds_and_best_comes_first(sweep):
    (comparison,) = compare(read_runs([sweep]))
    assert comparison.elbo_kind == "MNIST 1x28x28, dynamic binarization, log p of bits"
    assert [variant.label for variant in comparison.variants] == ["conv_vae", "mlp_vae"]
    elbo = comparison.variants[1].numbers["elbo"]
    assert (elbo.mean, elbo.num) == (-101.0, 3)
    assert elbo.half == pytest.approx(stats.t.interval(0.95, 2, -101, 1 / math.sqrt(3))[1] + 101)


def test_headline_says_whether_the_best_is_significantly_better(sweep, tmp_path):
    headline = compare(read_runs([sweep]))[0].headline
    assert headline.startswith("Best test ELBO: conv_vae \u221290.50 ± 6.35 nats per image (95 % interval over 2")
    pairs = [(-90.0, -91.0), (-100.0, -101.5), (-110.0, -111.0)]  # what a seed does to both falls out
    for seed, elbos in enumerate(pairs):
        for model, elbo in zip("ab", elbos, strict=True):
            make_run(tmp_path / "near" / f"{model}{seed}", model, seed, elbo)
    low, high = stats.ttest_rel(*zip(*pairs, strict=True)).confidence_interval(0.95)
    headline = compare(read_runs([tmp_path / "near"]))[0].headline
    assert headline.endswith(f"b is next, {low:.2f} to {high:.2f} below")
    two = [tmp_path / "near" / name for name in ("a0", "a1", "b0", "b1")]
    assert "b is next, not distinguished" in compare(read_runs(two))[0].headline
    assert "one seed, so without an interval" in compare(read_runs([tmp_path / "near" / "a0"]))[0].headline


def test_runs_that_differ_in_a_setting_are_not_averaged(tmp_path):
    for i, (seed, beta) in enumerate([(0, 1), (1, 1), (0, 4), (1, 4)]):
        make_run(tmp_path / str(i), "beta_vae", seed, -100.0 - beta, [f"model.beta={beta}"])
    runs = read_runs([tmp_path])
    assert differing(runs) == ["model.beta"]
    assert [v.label for v in compare(runs)[0].variants] == ["beta_vae beta=1", "beta_vae beta=4"]


def test_configs_that_differ_without_an_override_are_not_averaged(tmp_path):
    folders = [make_run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    summary = json.loads((folders[1] / "summary.json").read_text())
    summary["config"]["trainer"]["max_epochs"] = 30
    (folders[1] / "summary.json").write_text(json.dumps(summary))
    assert [v.label for v in compare(read_runs([tmp_path]))[0].variants] == [
        "mlp_vae max_epochs=3",
        "mlp_vae max_epochs=30",
    ]


def test_a_seed_counts_once(tmp_path):
    make_run(tmp_path / "1", seed=0, elbo=-100.0)
    make_run(tmp_path / "2", seed=0, elbo=-102.0)
    (variant,) = compare(read_runs([tmp_path]))[0].variants
    assert (variant.numbers["elbo"].mean, variant.numbers["elbo"].num) == (-102.0, 1)  # the later run


def test_elbos_of_different_kinds_are_not_compared(tmp_path):
    make_run(tmp_path / "0", elbo=-90.0)
    make_run(tmp_path / "1", elbo=900.0, scored="density")
    kinds = [comparison.elbo_kind for comparison in compare(read_runs([tmp_path]))]
    assert [kind.split(" of ")[1] for kind in kinds] == ["bits", "density"]
    assert [len(comparison.variants) for comparison in compare(read_runs([tmp_path]))] == [1, 1]


def test_elbos_on_different_test_sets_are_not_compared(tmp_path):
    """data.root is no setting of a training, but of two folders of pictures the ELBOs are those of other pictures."""
    for name, test_set in (("0", "aa"), ("1", "bb"), ("2", "aa")):
        make_run(tmp_path / name, seed=int(name), test_set=test_set)
    comparisons = compare(read_runs([tmp_path]))
    assert sorted(comparison.elbo_kind.split(", ")[1] for comparison in comparisons) == ["test set aa", "test set bb"]
    assert sorted(comparison.variants[0].numbers["elbo"].num for comparison in comparisons) == [1, 2]


@pytest.mark.parametrize(("weights", "num"), [("best", 1), ("last", 2)])
def test_evaluation_of_the_best_weights_adds_its_numbers_to_the_run(tmp_path, weights, num):
    trained = make_run(tmp_path / "a", pictures=["samples-0001.png"])
    test = {"elbo": -100.0, "log_p": -95.0, "log_p_error": 0.2}
    checkpoint = str(trained / "checkpoints" / f"{weights}.ckpt")
    make_run(tmp_path / "b", test=test, checkpoint=checkpoint, task="evaluate")
    runs = read_runs([tmp_path])
    assert len(runs) == num
    assert runs[-1].numbers["log_p"] == -95.0
    assert runs[-1].pictures["samples"].is_relative_to(trained)
    assert len(compare(runs)[0].variants) == num


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("moves", [1, 2])
def test_evaluations_find_their_runs_after_a_move(tmp_path, moves, order):
    """Also if another comparison is now in the old folder: each run keeps its own numbers."""
    for beta in (1, 2):
        here, words = tmp_path / "here", [f"model.beta={beta}"]
        trained = make_run(here / "runs" / "a", elbo=-100.0 * beta, overrides=words)
        evaluated = {"test": {"elbo": -100.0 * beta, "fid": float(beta)}, "task": "evaluate"}
        best = f"{trained}/checkpoints/best.ckpt"
        make_run(here / "evaluations" / "a", overrides=words, checkpoint=best, **evaluated)
        if beta <= moves:
            here.rename(tmp_path / f"there{beta}")
    folders = [tmp_path / "there1", tmp_path / ("there2" if moves == 2 else "here")]
    runs = read_runs(folders[::order])
    assert sorted((run.settings["model.beta"], run.numbers["fid"]) for run in runs) == [(1, 1), (2, 2)]


def test_an_evaluation_of_another_training_in_the_same_folder_is_not_merged(tmp_path):
    for beta in (1, 2):
        shutil.rmtree(tmp_path / "a", ignore_errors=True)
        trained = make_run(tmp_path / "a", overrides=[f"model.beta={beta}"])
        if beta == 1:
            make_run(tmp_path / "b", checkpoint=f"{trained}/checkpoints/best.ckpt", task="evaluate")
    assert len(read_runs([tmp_path])) == 2


def test_other_binarizations_of_the_same_images_are_not_compared():
    runs = [Run(tmp, config={"data": {"binarize": "dynamic", "split_seed": seed}}) for seed in (0, 1) for tmp in "ab"]
    assert len({run.elbo_kind for run in runs}) == 2
    one, other = (Run("a", config={"data": data}) for data in ({"split_seed": 1}, {}))
    assert one.elbo_kind == other.elbo_kind  # nothing is drawn


def test_evaluations_of_a_missing_training_are_merged(tmp_path):
    """Each evaluation adds its numbers; those of another checkpoint are not merged."""
    gone = make_run(tmp_path / "elsewhere")
    for i, (name, weights) in enumerate([("fid", "best"), ("mig", "best"), ("mig", "last")]):
        test = {"elbo": -100.0, name: float(i)}
        checkpoint = f"{gone}/checkpoints/{weights}.ckpt"
        make_run(tmp_path / "here" / f"{i}", test=test, checkpoint=checkpoint, task="evaluate")
    runs = read_runs([tmp_path / "here"])
    assert [(run.test.get("fid"), run.test["mig"]) for run in runs] == [(0, 1), (None, 2)]


def test_samples_of_a_run_are_not_a_run(sweep):
    make_run(sweep / "samples", task="sample")
    assert len(read_runs([sweep])) == 7


def test_a_refused_command_is_not_a_run(sweep):
    """A failed training without any files is not a run either, unless it is a job."""
    (sweep / "refused").mkdir()
    (sweep / "refused" / "summary.json").write_text('{"status": "failed", "error": "data.shape is wrong"}')
    assert len(read_runs([sweep])) == 7


@pytest.mark.parametrize("path", ["", "checkpoints/best.ckpt"])
def test_a_failed_evaluation_belongs_to_its_run(tmp_path, path):
    """It is not a run of the default model, although its own command names no model."""
    for model, seed in [("mlp_vae", 1), ("iwae", 3)]:
        trained = make_run(tmp_path / model, model, seed)
    hydra = trained / ".hydra"
    hydra.mkdir()
    (hydra / "overrides.yaml").write_text("[model=iwae, seed=3]")
    (trained / "checkpoints").mkdir()
    (trained / "checkpoints" / "best.ckpt").touch()
    config = {"name": "mlp_vae", "seed": 0, "task": {"_target_": "vaezoo.tasks.evaluate.evaluate"}}
    (tmp_path / "z").mkdir()
    told = {"status": "failed", "error": "why", "model": "mlp_vae", "config": config | {"run": str(trained / path)}}
    (tmp_path / "z" / "summary.json").write_text(json.dumps(told))
    (tmp_path / "z" / "job.json").write_text('{"job": 9, "overrides": []}')
    runs = read_runs([tmp_path])
    told = [("iwae", 3, "evaluation failed: why"), ("mlp_vae", 1, "completed")]
    assert [(run.model, run.seed, run.status) for run in runs] == told
    (alone,) = read_runs([tmp_path / "z"])  # its training is not among the runs
    assert (alone.model, alone.seed, alone.status) == ("iwae", 3, "evaluation failed: why")
    assert [variant.tried for variant in compare(runs)[0].variants] == [1, 1]


def test_folders_of_other_tasks_are_not_runs(sweep):
    hydra = sweep / "report" / ".hydra"
    hydra.mkdir(parents=True)
    (hydra / "config.yaml").write_text("task: {_target_: vaezoo.tasks.report.report}")
    assert len(read_runs([sweep])) == 7


def test_an_unfinished_run_is_read_from_hydras_files(tmp_path):
    hydra = tmp_path / ".hydra"
    hydra.mkdir()
    (hydra / "overrides.yaml").write_text("- seed=3\n")
    (hydra / "config.yaml").write_text("seed: 3\nname: ${hydra:runtime.choices.model}\n")
    (hydra / "hydra.yaml").write_text("hydra: {runtime: {choices: {model: iwae}}}")
    (run,) = read_runs([tmp_path])
    assert (run.model, run.seed, run.failure) == ("iwae", 3, "not finished")


def test_errors_name_the_folder_and_the_fix(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere is not a folder: give a run's"):
        read_runs([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match=r"holds no run: give a folder with a summary.json"):
        read_runs([tmp_path])


def test_thirty_runs_with_large_pictures_stay_below_two_megabytes(tmp_path, monkeypatch):
    monkeypatch.undo()
    noise = np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)  # which nothing compresses
    names = [f"{kind}-0010.png" for kind in ("reconstructions", "samples", "traversals")]
    first = make_run(tmp_path / "runs" / "0", pictures=names, panel=noise)
    for seed in range(1, 30):
        folder = make_run(tmp_path / "runs" / str(seed), seed=seed)
        for name in names:
            (folder / "panels" / name).hardlink_to(first / "panels" / name)
    file = tmp_path / "report.html"
    write_report(read_runs([tmp_path / "runs"]), file, "thirty")
    page = data_of(file.read_text())
    assert LIMIT / 2 < file.stat().st_size < LIMIT
    assert page["left_out"] == 0
    assert all(len(run["pictures"]) == 3 for run in page["runs"])


def test_pictures_keep_every_pixel_if_they_fit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    source = thumbnail(tmp_path / "a.png", 100_000)
    decoded = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert np.array_equal(np.asarray(decoded.convert("RGB")), pixels)
    assert 10_000 < len(thumbnail(tmp_path / "a.png", 16_000)) <= 16_000
    assert thumbnail(tmp_path / "a.png", 100) is None
    assert thumbnail(tmp_path / "b.png", 100_000) is None


def test_page_is_deterministic_and_self_contained(sweep, monkeypatch):
    monkeypatch.undo()
    pages = []
    for _ in range(2):
        write_report(read_runs([sweep]), sweep / "report.html", "sweep")
        pages.append((sweep / "report.html").read_text())
    assert pages[0] == pages[1]
    assert "default-src 'none'" in pages[0]  # so Vega, which can load data, cannot
    own = pages[0].replace(vega_script(), "")
    assert len(own) < len(pages[0]) - 500_000
    assert not re.search(r"(src|href)=[\"']?http|@import|url\((?!#)|fetch\(|\[\[(data|page|charts|vega)", own)
    assert re.findall(r"https?://[^\"' ]+", own) == ["http://www.w3.org/2000/svg"]  # a name, not a place


def test_descriptions_come_from_the_summaries(tmp_path):
    """Entries of all versions: fields by name, a list without labels, a text."""
    units = {
        "spread": {"unit": "nats", "meaning": "of the codes", "better": -1, "label": "Spread of z", "digits": 4},
        "sharpness": ["", "of the samples", 1],
        "mig": ["share", "mutual information gap", 1],
        "codes": "codes in use",
        "kl": "what it is",
    }
    run = make_run(tmp_path / "a", units=units)
    write_report(read_runs([run]), tmp_path / "report.html", "t")
    told = data_of((tmp_path / "report.html").read_text())["quantities"]
    assert told["spread"] == units["spread"]
    none = {"digits": None}
    assert told["sharpness"] == {"unit": "", "meaning": "of the samples", "better": 1, "label": "sharpness"} | none
    assert told["codes"] == {"unit": "", "meaning": "codes in use", "better": 0, "label": "codes"} | none
    # An entry of the package completes what an older version wrote.
    full = {"unit": "share", "meaning": "mutual information gap", "better": 1, "label": "MIG", "digits": 3}
    assert told["mig"] == full
    assert told["kl"]["unit"] == "nats per image"


@pytest.mark.parametrize("units", [3, {"x": 3}, {"x": ["nats"]}, {"x": {"unit": "", "meaning": "", "digits": "2"}}])
def test_a_summary_with_broken_units_is_left_out(tmp_path, capsys, units):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", units=units)
    assert [run.folder.name for run in read_runs([tmp_path])] == ["a"]
    assert f"{tmp_path / 'b'} is left out: its files are not those of a run (" in capsys.readouterr().err


def test_the_order_of_columns_is_merged(tmp_path):
    """A number that the first run lacks comes after the number before it in its own run."""
    for name, keys in {"a": ["fid", "mig"], "b": ["linear_probe", "fid", "udr"]}.items():
        units = {key: {"unit": "", "meaning": key, "column": "main"} for key in keys}
        make_run(tmp_path / name, name, units=units, test={"elbo": -1.0} | dict.fromkeys(keys, 0.5))
    (comparison,) = compare(read_runs([tmp_path]))
    heads, _ = table(comparison)
    assert heads[4:8] == ["linear probe", "fid", "udr", "mig"]


def test_a_number_of_one_variant_is_no_column(tmp_path):
    make_run(tmp_path / "0", "a", test={"elbo": -1.0, "tc": 0.5, "mig": 0.1, "mig_ceiling": 0.9})
    make_run(tmp_path / "1", "b", test={"elbo": -2.0, "mig": 0.2, "mig_ceiling": 0.9})
    write_report(read_runs([tmp_path]), tmp_path / "report.html", "t")
    (comparison,) = data_of((tmp_path / "report.html").read_text())["comparisons"]
    assert comparison["columns"] == ["elbo", "difference", "mig", "wall_seconds", "parameters", "peak_memory_mb"]


def test_the_protocol_of_a_number_is_in_the_head_of_its_column(tmp_path):
    made = {"log_p_samples": 500.0, "log_p_examples": 1000.0, "fid": 2.0}
    made |= {"num_features": 2048.0, "num_real": 10_000.0, "num_generated": 64.0}
    for i, samples in enumerate((500.0, 500.0, 5000.0)):
        test = {"elbo": -9.0, "log_p": -8.0} | made | {"log_p_samples": samples}
        make_run(tmp_path / "runs" / str(i), f"m{i}", test=test)
    write_report(read_runs([tmp_path / "runs"]), tmp_path / "report.html", "t")
    (comparison,) = data_of((tmp_path / "report.html").read_text())["comparisons"]
    assert comparison["columns"][:4] == ["log_p", "elbo", "difference", "fid"]
    assert not {"log_p_samples", "num_features"} & set(comparison["columns"])
    assert comparison["protocols"] == {
        "log_p": "K = 500, 1,000 images or K = 5,000, 1,000 images", "fid": "2,048 features, 10,000 real, 64 generated",
    }  # fmt: skip


def test_difference_to_the_best_is_paired_by_seed(tmp_path):
    pairs = [(-90.0, -91.0), (-100.0, -101.5), (-110.0, -111.0)]
    for seed, elbos in enumerate(pairs):
        for model, elbo in zip("ab", elbos, strict=True):
            make_run(tmp_path / "runs" / f"{model}{seed}", model, seed, elbo)
    write_report(read_runs([tmp_path / "runs"]), tmp_path / "report.html", "t")
    page = data_of((tmp_path / "report.html").read_text())
    best, other = page["comparisons"][0]["variants"]
    assert "difference" not in best["numbers"]
    gap = other["numbers"]["difference"]
    low, high = stats.ttest_rel(*reversed(list(zip(*pairs, strict=True)))).confidence_interval(0.95)
    assert gap["mean"] == pytest.approx(-3.5 / 3)
    assert (gap["mean"] - gap["half"], gap["mean"] + gap["half"]) == pytest.approx((low, high))
    assert "negative for the worse" in page["quantities"]["difference"]["meaning"]
    assert best["numbers"]["wall_seconds"] == {"mean": 12.5, "half": None, "num": 3}  # costs are means alone


def test_all_heads_have_the_word_for_an_example(tmp_path):
    units = {"elbo": {"unit": "nats per row", "meaning": "a bound", "label": "test ELBO", "column": "main"}}
    runs = [make_run(tmp_path / name, name, elbo=elbo, units=units) for name, elbo in (("a", -9.0), ("b", -8.0))]
    write_report(read_runs(runs), tmp_path / "report.html", "t")
    described = data_of((tmp_path / "report.html").read_text())["quantities"]
    assert described["difference"]["unit"] == described["elbo"]["unit"] == "nats per row"


def test_command_runs_when_pasted_into_a_shell(tmp_path):
    words = ["model.hidden=[64, 32]", "name='$HOME `x` \\ *'", 'tag="it\'s"', "+a={b: 1}", "~scheduler", "a=b;&|!"]
    run = make_run(tmp_path / "a", overrides=words)
    write_report(read_runs([run]), tmp_path / "report.html", "t")
    command = data_of((tmp_path / "report.html").read_text())["runs"][0]["command"]
    script = f'python() {{ printf "%s\\n" "$@"; }}; {command}'
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines() == ["run.py", "model=mlp_vae", "seed=0", *words]


def test_the_title_of_a_picture_is_cut_off(tmp_path):
    below = np.random.default_rng(0).integers(0, 256, (3, 10, 3), np.uint8).repeat(40, 0).repeat(40, 1)
    titled = add_labels(below, "samples, epoch 12")
    make_run(tmp_path / "a", pictures=["samples-0012.png", "scatter-0012.png"], panel=titled)
    write_report(read_runs([tmp_path / "a"]), tmp_path / "report.html", "t")
    page = data_of((tmp_path / "report.html").read_text())
    samples, scatter = page["runs"][0]["pictures"]
    assert (samples["kind"], samples["epoch"]) == ("samples", 12)
    assert samples["caption"].startswith("means of p(x | z) for z ~ p(z)")
    for picture, pixels in ((samples, below), (scatter, titled)):  # a scatter plot keeps its own
        image = Image.open(io.BytesIO(base64.b64decode(picture["source"].partition(",")[2])))
        assert np.array_equal(np.asarray(image.convert("RGB")), pixels)


def test_non_finite_numbers_are_null(tmp_path):
    run = make_run(tmp_path / "a", test={"elbo": -100.0, "fid": math.inf, "mig": None})
    write_report(read_runs([run]), tmp_path / "report.html", "t")
    page = data_of((tmp_path / "report.html").read_text())
    assert page["runs"][0]["numbers"]["fid"] is None
    assert "mig" not in page["runs"][0]["numbers"]


def test_figures_are_written_for_each_kind_of_elbo(sweep, tmp_path):
    make_run(sweep / "11", elbo=900.0, scored="density")
    files = write_figures(read_runs([sweep]), tmp_path / "figures")
    kinds = [file.name.split("-mnist")[0] for file in files if file.suffix == ".png"]
    one = ["rate-distortion", "curves-elbo", "metrics"]  # of one run: nothing varies
    assert kinds == ["rate-distortion", "curves-elbo", "settings", "metrics", *one]
    assert [file.with_suffix(".png") for file in files if file.suffix == ".svg"] == files[::2]
    for file in files[::2]:
        with Image.open(file) as image:
            assert image.width >= 900
            assert image.info["dpi"][0] == pytest.approx(200, abs=0.1)
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
        drawing = ElementTree.parse(file.with_suffix(".svg")).getroot()
        assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
        assert "mlp_vae" in "".join(drawing.itertext())


def test_an_empty_run_folder(tmp_path):
    run = Run(tmp_path)
    assert (run.model, run.failure, run.numbers) == ("", "not finished", {})
    write_report([run], tmp_path / "report.html", "nothing")
    assert write_figures([run], tmp_path) == []


def test_curves_use_the_epoch_length_of_the_summary(tmp_path):
    """A run that ended within its first epoch has not trained a whole one."""
    (tmp_path / "metrics.csv").write_text("epoch,step,val/elbo\n0,99,-5\n0,199,-4\n")
    curves = read_curves(tmp_path / "metrics.csv", {"steps": 200, "epochs": 0.25})
    assert [point.epoch for point in curves["val"]] == [0.125, 0.25]
    assert [point.epoch for point in read_curves(tmp_path / "metrics.csv", {})["val"]] == [0.5, 1.0]


@pytest.mark.parametrize("size", [0, 30, 300])
def test_a_truncated_picture_is_reported_and_left_out(tmp_path, capsys, size):
    """The page is written without it."""
    rng = np.random.default_rng(0)
    file = tmp_path / "samples-0001.png"
    Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(file)
    assert thumbnail(file, 100_000) is not None
    file.write_bytes(file.read_bytes()[:size])
    assert thumbnail(file, 100_000) is None
    assert f"{file}: the picture cannot be read (" in capsys.readouterr().err
