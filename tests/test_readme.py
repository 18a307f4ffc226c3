"""The commands of the README and of docs/data.md run as they are written, and so does their code."""

import re
import shlex

import numpy as np
import pytest
import soundfile
from conftest import DATA, REPO, needs_mnist
from doc_commands import blocks, commands
from PIL import Image

README, EXTEND = REPO / "README.md", REPO / "docs" / "extend.md"
COMMANDS = commands(README)
COMMANDS += [words for words in commands(REPO / "docs" / "data.md") if words not in COMMANDS]
SINGLE = [c for c in COMMANDS if "-m" not in c and not any(w.startswith(("run=", "runs=", "models=")) for w in c)]
SWEEPS = [c for c in COMMANDS if "-m" in c]

assert len(SINGLE) >= 10
assert SWEEPS


def write_own_data(folder):
    """Write the files that the commands on own data name."""
    rng = np.random.default_rng(0)
    (folder / "PHOTOS").mkdir()
    (folder / "WAVS").mkdir()
    for i in range(30):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / "PHOTOS" / f"{i}.png")
        soundfile.write(folder / "WAVS" / f"{i}.wav", rng.uniform(-0.5, 0.5, 20_000), 8000)
    np.savez(folder / "faces.npz", rng.integers(0, 256, (200, 24, 24, 3), dtype=np.uint8))
    rows = [f"{20 + i % 60},{rng.normal():.3f},{'red' if i % 3 else ''}" for i in range(200)]
    (folder / "people.csv").write_text("\n".join(["age,height,color", *rows]))
    lengths = rng.integers(3, 9, 60)
    np.savez(folder / "vowels.npz", frames=rng.normal(size=(lengths.sum(), 4)), lengths=lengths)
    (folder / "book.txt").write_text("\n".join(f"the {i} words of line {i % 50}" for i in range(200)))


@pytest.mark.parametrize("words", SINGLE, ids=" ".join)
def test_single_runs(cli, tmp_path, words):
    """Each command, for one epoch (of MNIST, a few steps); those on own data, with data that are written here."""
    own = any(name in word for word in words for name in ("PHOTOS", "WAVS", "data.path="))
    if own:
        write_own_data(tmp_path)
        words = [*words, "data.batch_size=16"]
        if "model=conv_vae" in words:  # traversals in color are dear: fewer dimensions
            words += ["model.latent_dim=3", "callbacks.images.num_images=4"]
    else:
        words = [f"data.root={DATA}" if w.startswith("data.root=") else w for w in words]
    if (not own and any(w.startswith("data.root=") for w in words)) or "experiment=mnist" in words:
        if needs_mnist.args[0]:
            pytest.skip(needs_mnist.kwargs["reason"])
        words.append(f"data.root={DATA}")
    if any(w.startswith(("data=", "experiment=")) for w in words):
        words += ["trainer.limit_train_batches=3", "trainer.limit_test_batches=1"]
    if "trainer=ddp" in words or "--help" in words:
        pytest.skip("run in a process of its own by test_cli.py")
    code, _out, err, _run = cli(*words, "trainer.max_epochs=1")
    assert code == 0, err


def test_sweeps(cli):
    """The first sweep, each of its jobs for one epoch: all of them complete."""
    code, out, err, _ = cli(*SWEEPS[0], "trainer.max_epochs=1", "callbacks.images=null", "logger=none")
    assert code == 0, err
    assert "job" in out
    jobs = 1
    for word in SWEEPS[0]:
        jobs *= len(word.split(",")) if "=" in word else 1
    assert (table := out[out.index("all with") :]).count("completed") == jobs, table


def block(file, language, word):
    """The only block of code in a language that has this word."""
    (found,) = [content for content in blocks(file.read_text(), language) if word in content]
    return found


def test_adding_a_model_and_data(cli, tmp_path):
    """The model, the config and the data of docs/extend.md, copied from it, train together."""
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "mypackage" / "my_vae.py").write_text(block(EXTEND, "python", "class MyVAE"))
    (tmp_path / "mypackage" / "data.py").write_text(block(EXTEND, "python", "class Bars"))
    config = block(EXTEND, "yaml", "MyVAE").replace("vaezoo.models.my_vae", "mypackage.my_vae")
    (tmp_path / "conf" / "model" / "my_vae.yaml").write_text(config)
    data = re.search(r"python run.py ('allow_packages=.*?)`", EXTEND.read_text())[1]
    code, _out, err, run = cli(
        f"--config-dir={tmp_path / 'conf'}", "model=my_vae", "model.gamma=3", *shlex.split(data),
        "trainer.max_epochs=2", "logger=csv", "trainer.log_every_n_steps=2",
    )  # fmt: skip
    assert code == 0, err
    header = (run / "metrics.csv").read_text().splitlines()[0]
    assert {"step/gamma", "val/excess", "train/excess"} <= set(header.split(","))


def test_python(tmp_path, monkeypatch):
    """The code of the README, for one epoch."""
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block(README, "python", "vaezoo.fit").replace("max_epochs=20", "max_epochs=1, verbose=False"), names)
    assert names["images"].shape == (16, 1, 8, 8)
    assert (tmp_path / "model.ckpt").exists()
