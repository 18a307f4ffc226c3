"""``vaezoo.fit``: a training from Python equals that of the command line, for any kind of data."""

import csv
import json
import re
import threading

import hydra
import numpy as np
import pandas
import pytest
import torch
from conftest import REPO, RandomImages
from hydra.core.hydra_config import HydraConfig
from matplotlib.figure import Figure
from PIL import Image
from torch.utils.data import TensorDataset

import vaezoo
from vaezoo.data import Digits
from vaezoo.errors import ConfigError
from vaezoo.models import VAE
from vaezoo.runs.checkpoint import read_checkpoint

SMALL = {"model.encoder.hidden": [8], "model.decoder.hidden": [8]}
QUICK = SMALL | {"max_epochs": 1, "verbose": False, "batch_size": 16}
COMMAND = ("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "logger=csv")
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (120, 6, 6, 3), dtype=np.uint8)
LABELS = np.array(["cat", "dog", "owl"])[np.arange(120) % 3]
TABLE = pandas.DataFrame(
    {"age": RNG.integers(20, 90, 120), "size": RNG.normal(size=120).round(3), "color": LABELS, "kind": LABELS}
)
TEXTS = [f"the {word} number {i % 7} sat on the mat {i}" for i, word in enumerate(LABELS)]


def weights(run):
    return torch.cat([value.double().flatten() for value in run.model.state_dict().values()])


def without_speed(folder):
    """The logged numbers that do not depend on the machine's speed."""
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [{name: value for name, value in row.items() if name != "step/images_per_second"} for row in rows]


def test_a_run_equals_that_of_the_command_line(cli, tmp_path):
    """The same weights, logs and summary, and the folder can be used by the tasks and be resumed."""
    options = {"beta": 2, "lr": 3e-3, "max_epochs": 2, "seed": 5, "scheduler": "step", "step_size": 1}
    ours = vaezoo.fit("digits", "beta_vae", **SMALL, **options, encoder="mlp", decoder="mlp", folder=tmp_path / "ours")
    code, _out, err, run = cli(
        "model=beta_vae", "model/encoder=mlp", "model/decoder=mlp", *COMMAND, "model.beta=2", "optimizer.lr=3e-3",
        "trainer.max_epochs=2", "seed=5", "scheduler=step", "scheduler.step_size=1",
    )  # fmt: skip
    assert code == 0, err
    theirs = json.loads((run / "summary.json").read_text())
    assert ours.metrics["test"] == theirs["test"]
    assert ours.metrics["val"] == theirs["last_val"]
    assert without_speed(ours.folder) == without_speed(run)
    for name in ("best", "last"):
        ckpt = [read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (ours.folder, run)]
        assert all(torch.equal(value, ckpt[1]["state_dict"][key]) for key, value in ckpt[0]["state_dict"].items())
        assert ckpt[0]["vaezoo_config"]["model"] == ckpt[1]["vaezoo_config"]["model"]
    assert {path.name for path in ours.folder.iterdir()} == {path.name for path in run.iterdir()}
    assert list(ours.history.index) == [0, 1]
    assert ours.history["val/elbo"].iloc[-1] == theirs["last_val"]["elbo"]
    code, _out, err, evaluation = cli("task=evaluate", f"run={ours.folder}", "task.metrics=[]")
    assert code == 0, err
    assert json.loads((evaluation / "summary.json").read_text())["test"] == theirs["test"]
    code, _out, err, _run = cli(f"run={ours.folder}", "trainer.max_epochs=3")
    assert code == 0, err
    assert json.loads((ours.folder / "summary.json").read_text())["epochs"] == 3


def test_arrays_equal_their_files(tmp_path):
    """An array, a tensor, a pair, a data set and a file give the same weights; labels are kept."""
    np.savez(tmp_path / "a.npz", x=IMAGES, y=LABELS)
    dataset = [(Image.fromarray(image), label) for image, label in zip(IMAGES, LABELS, strict=True)]
    runs = [
        vaezoo.fit(tmp_path / "a.npz", layout="NHWC", **QUICK),
        vaezoo.fit(IMAGES, labels=LABELS, layout="NHWC", **QUICK),
        vaezoo.fit((torch.from_numpy(IMAGES), LABELS), layout="NHWC", **QUICK),
        vaezoo.fit(dataset, layout="NHWC", **QUICK),
    ]
    for run in runs[1:]:
        assert torch.equal(weights(run), weights(runs[0]))
        assert run.metrics["test"] == runs[0].metrics["test"]
        assert run.data.class_names == ["cat", "dog", "owl"]
        assert run.model.data_description == runs[0].model.data_description
    alone = vaezoo.fit(TensorDataset(torch.from_numpy(IMAGES)), layout="NHWC", **QUICK)
    assert torch.equal(weights(alone), weights(runs[0]))
    assert runs[1].model.encode(IMAGES).shape == (120, 20)
    assert runs[1].model.reconstruct(IMAGES).shape == (120, 3, 6, 6)


def test_tables_and_texts_equal_their_files(tmp_path):
    TABLE.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.txt").write_text("\n".join(TEXTS))
    for memory, file, options in ((TABLE, "a.csv", {"label": "kind"}), (TEXTS, "a.txt", {"max_tokens": 8})):
        ours, theirs = (vaezoo.fit(data, **QUICK, **options) for data in (memory, tmp_path / file))
        assert torch.equal(weights(ours), weights(theirs))
        assert ours.metrics["test"] == theirs.metrics["test"]
        assert np.isfinite(ours.metrics["test"]["elbo"])


def test_folders_and_data_modules(tmp_path):
    """A folder of pictures, and a data module of one's own or of the package."""
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(IMAGES[:40]):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    run = vaezoo.fit(str(tmp_path / "photos"), **QUICK)
    assert run.data.shape == (3, 6, 6)
    run = vaezoo.fit(Digits(val_size=180, batch_size=64, batches_per_step=8), **SMALL, max_epochs=1, verbose=False)
    assert run.config["data"] == {"_target_": "vaezoo.data.digits.Digits", "val_size": 180, "batch_size": 64,
                                  "batches_per_step": 8, "shape": [1, 8, 8]}  # fmt: skip
    named = vaezoo.fit("digits", **SMALL, max_epochs=1, verbose=False, binarize="dynamic")
    assert named.metrics["test"] == run.metrics["test"]
    run = vaezoo.fit(RandomImages((1, 4, 4)), **SMALL, max_epochs=1, verbose=False, model="cvae", num_classes=10)
    assert run.data.shape == run.model.data_shape == (1, 4, 4)
    with pytest.raises(ConfigError, match="batch_size: there is no such option"):
        vaezoo.fit(RandomImages((1, 4, 4)), **QUICK)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ("digits", {"model": VAE}, r"model is a _?\w+: give the name of a config in conf/model, such as beta_vae"),
        ("digits", {"model": "beta_va"}, r"model=beta_va is not a choice, did you mean beta_vae\?"),
        ("digits", {"model": "beta_vae", "bta": 4}, r"bta: there is no such option .*, did you mean model.beta\?"),
        ("digits", {"max_epoch": 4}, r"max_epoch: there is no such option .*, did you mean trainer.max_epochs\?"),
        ("digits", {"latent_dim": "x"}, r"latent_dim should be an integer"),
        ("digits", {"lr": -1.0}, r"optimizer: Invalid learning rate: -1.0"),
        ("digits", {"likelihood": "norml"}, r"model/likelihood=norml is not a choice, did you mean normal\?"),
        ("digits", {"model.encoder.hiden": [3]}, r"encoder.hiden: there is no such key, did you mean .*hidden\?"),
        ("digts", {}, r"digts is no file, no folder and no data set: did you mean digits\?"),
        (__file__, {}, r"test_python.py cannot be read: give one of .csv, "),
        (3, {}, r"data are a int: give an array, a tensor, a data set, a table of pandas, a list of texts, a path"),
        (TABLE, {"labels": LABELS}, r"labels are for arrays, and the data are a DataFrame: leave labels out"),
        ([np.zeros((2, 3)), np.zeros((3, 3))], {}, r"several shapes, such as \(2, 3\) and \(3, 3\): resize them"),
        (np.array([object()] * 5), {}, r"the array holds Python objects"),
        (np.zeros((50, 5, 5, 2)), {}, r"the array has the shape .*, whose channels cannot be told: use data.layout"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_mistakes_are_said_in_one_sentence(data, options, message):
    with pytest.raises(ValueError, match=message) as error:
        vaezoo.fit(data, **{"max_epochs": 1, "verbose": False} | options)
    assert "\n" not in str(error.value)


def test_nothing_else_changes(tmp_path, monkeypatch, capfd):
    """Neither the random numbers of the program, nor its threads, nor the present folder; and it works in a thread."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    threads = torch.get_num_threads()
    runs = []
    worker = threading.Thread(target=lambda: runs.append(vaezoo.fit("digits", **SMALL, max_epochs=1, verbose=False)))
    worker.start()
    worker.join()
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().out == ""
    (run,) = runs
    folder = run.folder
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert torch.equal(vaezoo.load(run).encode(np.ones((2, 1, 8, 8))), run.model.encode(np.ones((2, 1, 8, 8))))
    vaezoo.save(run.model, tmp_path / "digits.ckpt")
    assert vaezoo.load(tmp_path / "digits.ckpt").data_description["noun"] == "image"
    runs.clear()
    del run
    assert not folder.exists()


def test_a_folder_with_results_is_refused(tmp_path):
    vaezoo.fit("digits", **SMALL, max_epochs=1, verbose=False, folder=tmp_path / "a")
    with pytest.raises(ConfigError, match="a holds a run of this command: add resume=auto to continue it"):
        vaezoo.fit("digits", **SMALL, max_epochs=1, verbose=False, folder=tmp_path / "a")


def test_progress_is_shown(capfd):
    vaezoo.fit("digits", **SMALL, max_epochs=1)
    out, err = capfd.readouterr()
    assert "epoch 1/1  train elbo" in err
    assert "elbo" in out


PLANE = {"latent_dim": 2, "max_epochs": 2}


@pytest.mark.parametrize(
    ("data", "options", "drawn"),
    [
        (IMAGES, {"layout": "NHWC", "model": "mlp_vae"}, True),
        (TABLE, {}, True),
        (TEXTS, {"max_tokens": 8}, True),
        (RNG.normal(size=(90, 5)), {}, False),
    ],
    ids=["images", "table", "texts", "vectors"],
)
def test_figures(data, options, drawn, tmp_path):
    """Each is a figure of matplotlib, which a notebook shows; what cannot be drawn says what can."""
    run = vaezoo.fit(data, **QUICK | PLANE | options)
    is_table = isinstance(data, pandas.DataFrame)
    names = ["samples", "reconstructions", "curves", *["traversals"] * drawn, *["manifold"] * (drawn and not is_table)]
    for name in names:
        figure = getattr(run.show, name)()
        assert isinstance(figure, Figure)
        assert figure._repr_png_()[:4] == b"\x89PNG"
        figure.savefig(tmp_path / f"{name}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        assert pixels.std() > 1, name
    text = run._repr_html_()
    assert text.count("<img") == 2
    assert f"{run.metrics['test']['elbo']:.3f}" in text
    if is_table:
        with pytest.raises(ValueError, match=r"a plane of rows cannot be drawn: use show\.traversals"):
            run.show.manifold()
    if not drawn:
        with pytest.raises(ValueError, match=r"cannot be drawn: use show\.samples"):
            run.show.traversals()


def test_rows_and_texts_are_prepared(tmp_path):
    """What is no array is refused with the way to prepare it; a run can be saved as its model."""
    for data, hint in ((TABLE, "prepare_rows"), (TEXTS, "prepare_texts")):
        run = vaezoo.fit(data, **SMALL, max_epochs=1, verbose=False)
        with pytest.raises(ValueError, match=f"expected an array or a tensor, got .*{hint}"):
            run.model.encode(data if hint == "prepare_rows" else list(data))
        prepare = getattr(vaezoo.data, hint)
        assert run.model.encode(prepare(data, run.model.data_description)).shape[0] == len(data)
    vaezoo.save(run, tmp_path / "a.ckpt")
    assert type(vaezoo.load(tmp_path / "a.ckpt")) is type(run.model)


def test_figures_that_a_model_does_not_have():
    run = vaezoo.fit("digits", "vq_vae", **SMALL, max_epochs=1, verbose=False)
    assert run.show.samples()
    with pytest.raises(ValueError, match=r"the latent of a VQVAE is not one vector: use show\.samples"):
        run.show.traversals()
    run = vaezoo.fit("digits", **SMALL, max_epochs=1, verbose=False, logger="none")
    with pytest.raises(ValueError, match=r"a plane needs 2 latent dimensions, and z has 20: use latent_dim=2"):
        run.show.manifold()
    with pytest.raises(ValueError, match="the run has logged nothing: use logger=csv"):
        run.show.curves()


def run_notebook(folder):
    """Execute the notebook in a folder and return its cells of code."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(REPO / "docs" / "start.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.filterwarnings("ignore")
def test_the_notebook(tmp_path, monkeypatch):
    """Every cell runs, figures appear by themselves, and only the saved model is left in the folder."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))
    cells = run_notebook(tmp_path)
    shown = {cell.source: {kind for out in cell.outputs for kind in out.get("data", {})} for cell in cells}
    assert {"text/html", "text/plain"} == shown["run"]
    assert all("image/png" in kinds for source, kinds in shown.items() if source.startswith("run.show"))
    assert cells[-1].outputs[-1]["data"]["text/plain"] == "True"
    assert {path.name for path in tmp_path.iterdir()} == {"digits.ckpt", "digits.ckpt.sha256"}


def test_the_examples_of_the_docs(tmp_path, monkeypatch):
    """The blocks of docs/python.md run as they stand, but for fewer epochs."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPO / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    names = {"images": IMAGES[:, :, :, 0]}
    for name in ("people.csv", "new.csv"):
        TABLE.to_csv(name, index=False)
    for block in blocks[:2]:
        exec(re.sub(r"max_epochs=\d+", "max_epochs=1, batch_size=32, verbose=False", block), names)
    quiet = "max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False"
    exec(blocks[2].replace("max_epochs=5", quiet), names)
    assert torch.cat(names["codes"]).shape == (360, 10)


def test_inside_a_program_that_uses_hydra(tmp_path):
    """Its own configs and its state stay as they are."""
    (tmp_path / "theirs.yaml").write_text("a: 1")
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.3"):
        vaezoo.fit("digits", **SMALL, max_epochs=1, verbose=False)
        assert hydra.compose("theirs").a == 1
    assert HydraConfig.instance().cfg is None
