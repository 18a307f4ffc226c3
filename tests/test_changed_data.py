"""A trained model and data that have changed since: the run is refused in one sentence, never computed silently."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vaezoo.data import Digits, TableData
from vaezoo.models.checks import are_close

SHORT = ("trainer.max_epochs=1", "logger=none", "threads=1", "model.latent_dim=2", "callbacks.images=null")


def write_table(path, rows=120, scale=1.0):
    rng = np.random.default_rng(0)
    pd.DataFrame({"height": scale * rng.normal(size=rows), "width": rng.normal(size=rows)}).to_csv(path, index=False)


def train(cli, *overrides):
    code, _, err, run = cli(*overrides, *SHORT)
    assert code == 0, err
    return run


def error_of(cli, *overrides):
    code, _, err, _ = cli(*overrides)
    assert code == 1
    return err.splitlines()[-1]


def test_a_table_with_other_scales_is_not_evaluated(cli, tmp_path):
    """The rows would be standardized by another mean and standard deviation than those of the training."""
    write_table(tmp_path / "t.csv")
    run = train(cli, "data=table", "data.path=t.csv", "data.batch_size=16")
    for task in ("sample", "encode"):
        assert cli(f"task={task}", f"run={run}")[0] == 0
    write_table(tmp_path / "t.csv", scale=2.0)
    for task in ("evaluate", "sample", "reconstruct", "encode"):
        error = error_of(cli, f"task={task}", f"run={run}")
        assert "was trained on rows with other scales, categories or tokens" in error
        assert "(task=score, encode, reconstruct and impute take new rows: name data=CHOICE, too)" in error


def test_a_text_with_another_vocabulary_is_not_evaluated(cli, tmp_path):
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(list("abcdefg"), 4)) for _ in range(200)]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    run = train(cli, "data=text", "data.path=t.txt", "data.max_tokens=5", "data.batch_size=16")
    (tmp_path / "t.txt").write_text("\n".join(line.replace("a", "z") for line in lines))
    assert "other scales, categories or tokens" in error_of(cli, "task=encode", f"run={run}")


def test_outliers_of_another_vocabulary_are_refused(cli, tmp_path):
    (tmp_path / "t.txt").write_text("\n".join(f"a b {i % 50}" for i in range(200)))
    run = train(cli, "data=text", "data.path=t.txt", "data.max_tokens=54", "data.batch_size=16")
    arguments = ("task.outliers=topics", "task.num_samples=1", "task.metrics=[anomaly]")
    error = error_of(cli, "task=evaluate", f"run={run}", *arguments)
    assert "task.outliers=topics: its scales, categories or tokens are not those of TextData" in error


@pytest.mark.parametrize("change", ["data.split_seed=1", "data.test_size=0.5", "data.val_size=0.2"])
def test_the_division_of_a_trained_run_does_not_change(cli, tmp_path, change):
    """The test set would have rows of the training."""
    write_table(tmp_path / "t.csv")
    run = train(cli, "data=table", "data.path=t.csv", "data.batch_size=16")
    assert f"{change} cannot be changed" in error_of(cli, "task=encode", f"run={run}", change)


def test_a_run_is_not_resumed_on_other_pictures(cli, tmp_path):
    """data.root may name the new place of the same pictures, but not other pictures."""
    rng = np.random.default_rng(0)
    for i in range(40):
        pixels = rng.integers(0, 256, (8, 8), np.uint8)
        for folder, image in (("a", pixels), ("moved", pixels), ("b", 255 - pixels)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
    run = train(cli, "data=folder", "data.root=a", "data.batch_size=8")
    error = error_of(cli, f"run={run}", "data.root=b", "trainer.max_epochs=2")
    assert "the data have changed since the checkpoint was written, in their content hash" in error
    assert cli(f"run={run}", "data.root=moved", "trainer.max_epochs=2")[0] == 0


def test_another_test_set_is_named(cli, tmp_path):
    """A trained model is evaluated on pictures that were added since, and a line says that they are others."""
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for i in range(40):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "a" / f"{i}.png")
    run = train(cli, "data=folder", "data.root=a", "data.batch_size=8")
    line = f"the images have changed since the training of {run}/checkpoints/best.ckpt: the test set is another one"
    evaluate = ("task=evaluate", f"run={run}", "task.metrics=[]")
    assert line not in cli(*evaluate)[2]
    Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "a" / "new.png")
    code, _, err, _ = cli(*evaluate)
    assert code == 0
    assert err.splitlines().count(line) == 1
    for words in (("split=all", "data=folder", "data.root=a"), ("split=train",)):  # all: no test set at all
        assert (line in cli("task=encode", f"run={run}", *words)[2]) == (len(words) == 1)


def test_a_conditional_model_keeps_its_classes(cli, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "photos" / name / f"{i}.png")
    run = train(cli, "data=folder", "data.root=photos", "data.batch_size=8", "model=cvae", "model.num_classes=2")
    (tmp_path / "photos" / "cat").rename(tmp_path / "photos" / "wolf")  # the dog is class 0 now
    error = error_of(cli, "task=encode", f"run={run}")
    assert "was trained with the classes ['cat', 'dog'], not with ['dog', 'wolf']" in error


def test_the_name_of_a_test_set(tmp_path):
    """It is another one if the test examples, or the meaning of their numbers, are others."""

    def name(scale=1.0, **options):
        write_table(tmp_path / "t.csv", scale=scale)
        data = TableData(str(tmp_path / "t.csv"), batch_size=16, **options)
        data.setup()
        return data.test_set

    assert name() == name(seed=3) != ""
    others = [name(scale=2.0), name(split_seed=1), name(test_size=0.3), name(holes=0.2), name(types={"width": "id"})]
    assert len({name(), *others}) == 6
    assert Digits().test_set == ""


def test_descriptions_are_compared_up_to_rounding_errors():
    value = {"a": [1.0, "x", None], "b": 2}
    assert are_close(value, {"a": [1.0 + 1e-15, "x", None], "b": 2})
    for other in ({"a": [1.001, "x", None], "b": 2}, {"a": [1.0, "x"], "b": 2}, {"a": [1.0, "x", None]}, None):
        assert not are_close(value, other)


def test_a_table_is_not_rounded_to_16_bits(cli, tmp_path):
    """bfloat16 has no 257, and ln 1000 in it is 6.906: counts, categories and constants of log p would be others."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"visits": 2 * rng.integers(200, 300, 120) + 1, "height": rng.normal(size=120)})
    frame.to_csv(tmp_path / "t.csv", index=False)
    table = ("data=table", "data.path=t.csv", "data.batch_size=16")
    words = "trainer.precision=bf16-true rounds counts, categories and the scales of columns"
    assert words in error_of(cli, *table, *SHORT, "trainer.precision=bf16-true")
    assert words in error_of(cli, *table, *SHORT, "data.types={height: id}", "trainer.precision=bf16-true")
    bundled = ("data=tables/wine", "trainer.precision=bf16-true")
    assert words in error_of(cli, *bundled, *SHORT)
    run = train(cli, *table, "trainer.precision=bf16-mixed")
    assert words in error_of(cli, "task=evaluate", f"run={run}", "trainer.precision=bf16-true")


def test_keys_of_the_runs_own_data_need_no_plus(cli, tmp_path):
    """The composed data are the digits, which have no path; the run's data have one."""
    write_table(tmp_path / "t.csv")
    run = train(cli, "data=table", "data.path=t.csv", "data.batch_size=16")
    (tmp_path / "t.csv").rename(tmp_path / "moved.csv")
    for place in (run, run / "checkpoints" / "best.ckpt"):
        code, _, err, _ = cli("task=encode", f"run={place}", "data.path=moved.csv")
        assert code == 0, err
    assert cli("task=encode", f"run={run}", "+data.path=moved.csv")[0] == 0
    assert "data.pth: there is no such key" in error_of(cli, "task=encode", f"run={run}", "data.pth=moved.csv")
    assert cli("task=encode", f"run={run}", "data=table", "data.path=moved.csv")[0] == 0
