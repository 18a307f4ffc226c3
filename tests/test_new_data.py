"""A trained model and new data: they are prepared as those of the training, and every row says what it is of."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

from vaezoo.data.own import match_classes

SHORT = ("trainer.max_epochs=1", "logger=none", "threads=1", "model.latent_dim=2", "callbacks.images=null",
         "data.batch_size=8")  # fmt: skip
Z = ["z0", "z1"]


def train(cli, *overrides):
    code, _, err, run = cli(*overrides, *SHORT)
    assert code == 0, err
    return run


def encode(cli, run, *overrides, **options):
    """The table of codes."""
    code, _, err, folder = cli("task=encode", f"run={run}", *overrides)
    assert code == 0, err
    assert folder.parent == run / "encode"
    return pd.read_csv(folder / "codes.csv", **options)


def error_of(cli, *overrides):
    code, _, err, _ = cli(*overrides)
    assert code == 1
    return err.splitlines()[-1]


def same(codes, others, key):
    """Whether the rows of two tables have the same codes, by a key."""
    merged = codes.merge(others, on=key, suffixes=("", "_other"))
    assert len(merged) == min(len(codes), len(others)) > 0
    return np.allclose(merged[Z], merged[[f"{z}_other" for z in Z]], atol=1e-5)


def write_pictures(folder, num=40, size=8):
    rng = np.random.default_rng(0)
    for i in range(num):
        name = folder / ("cat" if i % 2 else "dog") / f"{i}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size), np.uint8)).save(name)


def test_pictures(cli, tmp_path):
    """Files are named by their paths; a picture of another folder has the code that it has in the training's."""
    write_pictures(tmp_path / "photos")
    run = train(cli, "data=folder", "data.root=photos", "data.size=8")
    test, everything = encode(cli, run), encode(cli, run, "split=all")
    assert len(everything) == 40
    assert set(everything["class"]) == {"cat", "dog"}
    assert same(test, everything, "file")
    (tmp_path / "new" / "dog").mkdir(parents=True)
    (tmp_path / "new" / "wolf").mkdir()
    for i in (4, 2):
        (tmp_path / "photos" / "dog" / f"{i}.png").rename(tmp_path / "new" / "dog" / f"{i}.png")
    large = Image.open(tmp_path / "photos" / "cat" / "1.png").resize((32, 24)).convert("RGB")
    large.save(tmp_path / "new" / "wolf" / "large.png")
    _, out, _, folder = cli("task=encode", f"run={run}", "data=folder", "data.root=new")
    assert "1 image of classes that the training did not have: wolf" in out.splitlines()
    new = pd.read_csv(folder / "codes.csv")
    assert new.file.tolist() == ["dog/2.png", "dog/4.png", "wolf/large.png"]
    assert new["class"].fillna("none").tolist() == ["dog", "dog", "none"]  # the training had no wolves
    assert same(new.iloc[:2], everything, "file")


def test_pictures_for_a_model_of_published_images(cli, tmp_path):
    """Size, channels and binarization are those of the training."""
    run = train(cli, "data=digits")
    write_pictures(tmp_path / "new", num=3, size=30)
    assert len(encode(cli, run, "data=folder", "data.root=new")) == 3


def test_labels_are_numbers_among_the_classes_of_the_training():
    y = torch.tensor([0, 2, 1, -1])
    assert match_classes(y, ["cat", "dog", "wolf"], ["dog", "cat"]).tolist() == [1, -1, 0, -1]
    assert match_classes(y, ["dog", "cat"], ["dog", "cat"]).tolist() == [0, -1, 1, -1]  # numbers without names


def test_a_conditional_model_needs_labels(cli, tmp_path):
    """Classes are matched by their names, not by their numbers."""
    write_pictures(tmp_path / "photos")
    run = train(cli, "data=folder", "data.root=photos", "data.size=8", "model=cvae", "model.num_classes=2")
    everything = encode(cli, run, "split=all")
    for name in ("3", "5"):
        (tmp_path / "new" / "cat").mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / "cat" / f"{name}.png").rename(tmp_path / "new" / "cat" / f"{name}.png")
    (tmp_path / "new" / "dog").mkdir()
    (tmp_path / "photos" / "dog" / "2.png").rename(tmp_path / "new" / "dog" / "2.png")
    assert same(encode(cli, run, "data=folder", "data.root=new"), everything, "file")
    (tmp_path / "new" / "dog" / "2.png").rename(tmp_path / "new" / "2.png")
    error = error_of(cli, "task=encode", f"run={run}", "data=folder", "data.root=new")
    assert "images have no label, or one that the model" in error


def people(rows=120, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "name": [f"p{seed}-{i}" for i in range(rows)],
            "height": np.round(rng.normal(170, 10, rows), 1),
            "visits": rng.poisson(20, rows),
            "color": rng.choice(["red", "blue", "green"], rows),
        }
    )


def test_rows(cli, tmp_path):
    """Rows of another file are standardized by the training rows and named by their ids, in any order of columns."""
    frame = people()
    frame.to_csv(tmp_path / "t.csv", index=False)
    run = train(cli, "data=table", "data.path=t.csv")
    everything = encode(cli, run, "split=all")
    assert everything.name.tolist() == frame.name.tolist()
    assert everything.row.tolist() == list(range(1, 121))
    assert same(encode(cli, run), everything, "name")
    few = frame.iloc[[7, 3, 50]][["color", "visits", "name", "height"]]
    few.to_csv(tmp_path / "new.tsv", index=False, sep="\t")
    new = encode(cli, run, "data=table", "data.path=new.tsv")
    assert new.name.tolist() == few.name.tolist()
    assert same(new, everything, "name")
    few.assign(color="pink").to_csv(tmp_path / "pink.csv", index=False)
    words = ("task=encode", f"run={run}", "data=table", "data.path=pink.csv")
    assert "'pink' in column 'color' is not one of its 3 categories" in error_of(cli, *words)
    new = encode(cli, run, *words[2:], "data.unseen=missing")  # counts: the encoder and the likelihood know holes
    assert np.isfinite(new[[*Z, "elbo"]]).all().all()
    few.drop(columns="height").to_csv(tmp_path / "short.csv", index=False)
    assert "column 'height' is missing in the table" in error_of(cli, *words[:3], "data.path=short.csv")


def test_a_count_that_is_negative_or_no_whole_number(cli, tmp_path):
    """It is refused with its line and its column, also if all columns are counts."""
    frame = people()
    for name, columns in (("mixed", list(frame)), ("counts", ["name", "visits"])):
        frame[columns].to_csv(tmp_path / f"{name}.csv", index=False)
        run = train(cli, "data=table", f"data.path={name}.csv")
        for entry in ("-4", "-4.5", "4.5"):
            new = frame[columns].head(5).astype({"visits": object})
            new.loc[3, "visits"] = entry
            new.to_csv(tmp_path / "new.csv", index=False)
            error = error_of(cli, "task=encode", f"run={run}", "data=table", "data.path=new.csv")
            assert error.endswith(
                f"new.csv line 5: {entry} in column 'visits' is not a count, which is a whole number from 0: correct it"
            )


def test_holes_that_the_model_does_not_know(cli, tmp_path):
    """The encoder of a table without holes and counts would return NaN."""
    frame = people().drop(columns="visits")
    frame.to_csv(tmp_path / "t.csv", index=False)
    run = train(cli, "data=table", "data.path=t.csv")
    frame.loc[3, "height"] = None
    frame.to_csv(tmp_path / "new.csv", index=False)
    error = error_of(cli, "task=encode", f"run={run}", "data=table", "data.path=new.csv")
    assert "entries of the rows are missing, but the model of" in error


def test_lines(cli, tmp_path):
    """Lines are named by their numbers in the file; the vocabulary is that of the training."""
    rng = np.random.default_rng(0)
    lines = [" ".join(rng.choice(list("abcdefg"), 4)) for _ in range(200)]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    run = train(cli, "data=text", "data.path=t.txt")
    everything = encode(cli, run, "split=all", keep_default_na=False)
    assert everything.text.tolist() == lines
    test = encode(cli, run)
    assert [lines[line - 1] for line in test.line] == test.text.tolist()
    assert same(test, everything, "line")
    (tmp_path / "new.txt").write_text(f"\n{lines[5]}\n\nzebra {lines[6]}\n{lines[7]}")
    new = encode(cli, run, "data=text", "data.path=new.txt")
    assert new.line.tolist() == [2, 4, 5]
    assert np.allclose(new[Z].iloc[[0, 2]], everything[Z].iloc[[5, 7]], atol=1e-5)


def test_sounds(cli, tmp_path):
    """Frames are named by their file and their start."""
    rng = np.random.default_rng(0)
    (tmp_path / "wavs").mkdir()
    for i in range(12):
        soundfile.write(tmp_path / "wavs" / f"{i}.wav", 0.3 * rng.standard_normal(300), 8000)
    run = train(cli, "data=audio", "data.root=wavs", "data.frame=100")
    everything = encode(cli, run, "split=all")
    assert len(everything) == 36
    assert sorted(set(everything.start_seconds)) == [0, 0.0125, 0.025]
    (tmp_path / "new").mkdir()
    (tmp_path / "wavs" / "7.wav").rename(tmp_path / "new" / "7.wav")  # one file is enough
    new = encode(cli, run, "data=audio", "data.root=new")
    assert new.file.tolist() == ["7.wav"] * 3
    assert np.allclose(new[Z], everything[everything.file == "7.wav"][Z], atol=1e-5)


def test_arrays(cli, tmp_path):
    """Another array is read as that of the training was: the same range becomes 0 to 1."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4096, (60, 5)).astype(np.uint16)
    np.save(tmp_path / "a.npy", x)
    run = train(cli, "data=array", "data.path=a.npy", "data.value_range=[0,4095]", "data.kind=unit")
    everything = encode(cli, run, "split=all")
    np.save(tmp_path / "b.npy", x[:7] // 2)
    np.save(tmp_path / "c.npy", x[[4, 9]])
    assert np.allclose(encode(cli, run, "data=array", "data.path=c.npy")[Z], everything[Z].iloc[[4, 9]], atol=1e-5)
    assert not np.allclose(encode(cli, run, "data=array", "data.path=b.npy")[Z], everything[Z].iloc[:7], atol=1e-3)
    np.save(tmp_path / "d.npy", x[:7, :4])
    error = error_of(cli, "task=encode", f"run={run}", "data=array", "data.path=d.npy")
    assert "was trained on examples of shape (5,), but those of ArrayData have shape (4,)" in error


def test_reconstructions_are_named(cli, tmp_path):
    """The values are in the user's units beside the ids, and the distortion is -log p(x | z) at the code."""
    frame = people()
    frame.to_csv(tmp_path / "t.csv", index=False)
    run = train(cli, "data=table", "data.path=t.csv")
    code, _, err, folder = cli("task=reconstruct", f"run={run}", "num=5", "split=train")
    assert code == 0, err
    table = pd.read_csv(folder / "reconstructions.csv")
    assert list(table) == ["row", "name", "distortion_at_code", "height", "visits", "color"]
    assert table.height.between(100, 240).all()
    assert json.loads((folder / "summary.json").read_text())["set"] == "train"
    arrays = np.load(folder / "reconstructions.npz")
    assert arrays["rows"].shape == arrays["reconstructions"].shape == (5, 3)
    assert arrays["name"].tolist() == table.name.tolist()


def test_data_of_another_kind(cli, tmp_path):
    """Pictures for the model of a table, and so on: one sentence."""
    write_pictures(tmp_path / "photos", num=6)
    people().to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "t.txt").write_text("\n".join(f"a b {i}" for i in range(60)))
    table = train(cli, "data=table", "data.path=t.csv")
    images = train(cli, "data=digits")
    for run, words in (
        (table, ["data=folder", "data.root=photos"]),
        (table, ["data=text", "data.path=t.txt"]),
        (images, ["data=table", "data.path=t.csv"]),
        (images, ["data=audio", "data.root=photos"]),
    ):
        error = error_of(cli, "task=encode", f"run={run}", *words)
        assert "the model was trained on" in error
        assert "has other data: use data of the same kind" in error


def test_arrays_of_files_are_named(cli, tmp_path):
    """The key "file" is an array of the .npz, too."""
    write_pictures(tmp_path / "photos")
    run = train(cli, "data=folder", "data.root=photos", "data.size=8")
    code, _, err, folder = cli("task=encode", f"run={run}", "format=npz")
    assert code == 0, err
    arrays = np.load(folder / "codes.npz")
    assert set(arrays["class"]) <= {"cat", "dog"}
    assert all(name.endswith(".png") for name in arrays["file"])
    (tmp_path / "photos").rename(tmp_path / "moved")
    new = encode(cli, run, "data=folder", "data.root=moved", "split=test")  # size and division of the training
    assert sorted(new.file) == sorted(arrays["file"])


@pytest.mark.parametrize("file_format", ["csv", "parquet", "npz"])
def test_formats(cli, tmp_path, file_format):
    """All formats hold the same numbers and names."""
    people().to_csv(tmp_path / "t.csv", index=False)
    run = train(cli, "data=table", "data.path=t.csv")
    code, _, err, folder = cli("task=encode", f"run={run}", f"format={file_format}")
    assert code == 0, err
    (file,) = folder.glob("codes.*")
    if file_format == "npz":
        arrays = np.load(file)
        assert arrays["z"].shape == (len(arrays["name"]), 2)
        names, first = arrays["name"].tolist(), arrays["z"][:, 0]
    else:
        table = pd.read_csv(file) if file_format == "csv" else pd.read_parquet(file)
        names, first = table.name.tolist(), table.z0
    expected = encode(cli, run)
    assert names == expected.name.tolist()
    assert np.allclose(first, expected.z0, atol=1e-7)


def test_a_column_of_the_user_that_has_the_name_of_a_result(cli, tmp_path):
    people().rename(columns={"name": "elbo"}).to_csv(tmp_path / "t.csv", index=False)
    run = train(cli, "data=table", "data.path=t.csv")
    assert list(encode(cli, run))[:3] == ["row", "elbo_in_data", "elbo"]


def test_the_folder_of_a_task_is_in_the_run(cli, tmp_path):
    """Also if a checkpoint is named; a link in its place is refused; hydra.run.dir decides if it is given."""
    run = train(cli, "data=digits")
    for words in ([f"run={run}"], [f"run={run / 'checkpoints' / 'best.ckpt'}"]):
        assert cli("task=sample", "num=2", *words)[3].parent == run / "sample"
    code, *_ = cli("task=sample", "num=2", f"run={run}", "hydra.run.dir=here")
    assert code == 0
    assert (tmp_path / "here" / "samples.npz").exists()
    (tmp_path / "elsewhere").mkdir()
    (run / "encode").symlink_to(tmp_path / "elsewhere")
    assert f"{run / 'encode'} is a link" in error_of(cli, "task=encode", f"run={run}")
    assert list((tmp_path / "elsewhere").iterdir()) == []
