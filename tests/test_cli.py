"""The command line: runs, run folders, sweeps, several processes and mistakes."""

import csv
import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
import yaml
from conftest import REPO, command, config
from PIL import Image
from torch._inductor.exc import CppCompileError, InductorError, InvalidCxxCompiler
from torch.utils import cpp_extension

import vaezoo
import vaezoo.runs.checkpoint
from vaezoo.cli import main, parse_arguments, to_argv
from vaezoo.config_folder import config_folder
from vaezoo.data import Digits
from vaezoo.error_messages import describe_error
from vaezoo.errors import ConfigError
from vaezoo.runs.checks import check_optimizer, check_trainer
from vaezoo.runs.overrides import by_key, get_value, quote, set_values
from vaezoo.runs.setup import silence_lightning

SHORT = ("trainer.max_epochs=2", "model.encoder.hidden=[16]", "model.decoder.hidden=[16]")


def inspect_wandb(run_dir):
    """Read an offline W&B run from its file."""
    (folder,) = (run_dir / "wandb").glob("offline-run-*")
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    return folder, json.loads(done.stdout)


def test_what_a_run_writes(cli):
    """One command: checkpoints, metrics, pictures, a summary, a W&B run; then load and evaluate agree."""
    code, out, _err, run = cli(
        *SHORT, "model.latent_dim=2", "callbacks.images.every_n_epochs=1", "trainer.log_every_n_steps=10"
    )
    assert code == 0
    assert "nats per image" in out
    for name in (".hydra/config.yaml", "checkpoints/best.ckpt", "checkpoints/last.ckpt", "metrics.csv"):
        assert (run / name).is_file()
    kinds = {path.name.rsplit("-", 1)[0] for path in (run / "panels").glob("*.png")}
    assert kinds == {"reconstructions", "samples", "traversals", "manifold", "scatter"}

    summary = json.loads((run / "summary.json").read_text())
    test = summary["test"]
    assert test["elbo"] == pytest.approx(test["log_px"] - test["kl"], abs=1e-4)
    assert test["kl"] == pytest.approx(sum(v for k, v in test.items() if k.startswith("kl_dim/")), abs=1e-6)
    assert {"wall_seconds", "train_examples_per_second", "peak_memory_mb", "parameters", "seed"} <= set(summary)
    assert {"versions", "git_commit", "units", "config"} <= set(summary)
    assert summary["units"]["elbo"]["unit"] == "nats per image"
    assert summary["config"]["data"]["binarize"] == "dynamic"  # what auto became

    rows = list(csv.DictReader((run / "metrics.csv").open()))
    vals = [row for row in rows if row["val/elbo"]]
    assert len(vals) == 2
    for row in vals:
        assert float(row["val/elbo"]) == pytest.approx(float(row["val/log_px"]) - float(row["val/kl"]), abs=1e-4)

    folder, record = inspect_wandb(run)
    logged = record["summary"]
    for stage in ("train", "test", "optimization"):
        bound = logged[f"{stage}/log_px"] - logged[f"{stage}/kl"]
        assert logged[f"{stage}/elbo"] == pytest.approx(bound, abs=1e-4)
    assert logged["val/elbo"] == {"max": pytest.approx(max(float(row["val/elbo"]) for row in vals))}
    assert {"val/active_units", "val/kl_per_dim", "images/samples", "optimization/gradient_norm"} <= set(logged)
    assert record["config"]["model"]["latent_dim"] == 2
    pictures = list((folder / "files" / "media").rglob("*.png"))
    assert pictures
    assert all(np.asarray(Image.open(path)).std() > 5 for path in pictures)  # not black, not constant

    model = vaezoo.load(run)
    assert not model.training
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    assert model.encode(x).shape == (3, 2)
    assert model.sample(4).sample().shape == (4, 1, 8, 8)
    assert model.log_marginal(x, num_samples=10).shape == (3,)

    code, out, _err, again = cli("task=evaluate", f"run={run}", "task.metrics=[]")
    assert code == 0
    assert json.loads((again / "summary.json").read_text())["test"] == test  # every digit

    words = ("task.metrics=[likelihood]", "task.num_samples=20", "task.num_images=null")
    code, out, _err, again = cli("task=evaluate", f"run={run}", *words)
    found = json.loads((again / "summary.json").read_text())["test"]
    assert "log p(x) by 20 importance samples" in out
    assert found["elbo"] < found["log_p"] < found["elbo"] + 5
    model, data = vaezoo.load(run), Digits(val_size=180)
    data.setup()
    log_p = model.log_marginal(data.test.x.float(), num_samples=20)
    assert found["log_p"] == pytest.approx(float(log_p.mean()), rel=1e-6)  # whatever the batches
    assert 0 < found["inference_gap"] < 5
    assert found["log_p_error"] == pytest.approx(float(log_p.std()) / 360**0.5, rel=1e-4)


@pytest.mark.parametrize("logger", ["none", "csv", "tensorboard"])
def test_loggers(cli, logger):
    """logger=none writes no metrics; the others write metrics.csv, and TensorBoard its own."""
    code, _out, _err, run = cli(*SHORT, f"logger={logger}")
    assert code == 0
    assert (run / "metrics.csv").exists() == (logger != "none")
    assert bool(list(run.glob("tensorboard/events*"))) == (logger == "tensorboard")
    assert not (run / "wandb").exists()


def test_pictures_do_not_affect_the_training(cli):
    """Panels on or off: equal weights, bit for bit."""
    states = []
    for more in (("callbacks.images.every_n_epochs=1",), ("callbacks.images=null",)):
        _code, _out, _err, run = cli(*SHORT, "logger=none", *more)
        states.append(torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    "more",
    [
        ("optimizer=adamw", "scheduler=cosine", "trainer.gradient_clip_val=1"),
        ("trainer.precision=bf16-mixed", "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=1"),
        ("callbacks/ema=default", "callbacks/early_stopping=default", "callbacks.early_stopping.patience=1"),
        ("callbacks/anneal=linear", "callbacks.anneal.steps=10", "model.free_bits=0.1"),
        ("callbacks/anneal=cyclical", "callbacks.anneal.period=10"),
        ("model/likelihood=discretized_logistic",),
        ("data.binarize=threshold", "seed=5"),
        ("trainer.fast_dev_run=true",),
        ("callbacks.checkpoint_best=null",),
    ],
    ids=" ".join,
)
def test_options_of_training(cli, more):
    """Each option gives a summary with finite numbers."""
    code, _out, err, run = cli(*SHORT, "logger=csv", *more)
    assert code == 0, err
    test = json.loads((run / "summary.json").read_text())["test"]
    assert np.isfinite(test["elbo"])
    if "model/likelihood=discretized_logistic" in more:
        assert test["bits_per_dim"] == pytest.approx(-test["elbo"] / (64 * np.log(2)))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=beta_vae", "model.betta=4"], "model.betta: there is no such key, did you mean model.beta? "),
        (["model=betavae"], "model=betavae is not a choice, did you mean beta_vae?"),
        (["modle=mlp_vae"], "modle: there is no such key, did you mean model?"),
        (["+model.foo=3"], "model.foo: VAE has no such option"),
        (["model=beta_vae", "model.beta=abc"], "model.beta='abc' should be a number"),
        (["trainer.max_epochs=many"], "trainer.max_epochs='many' should be an integer"),
        (["seed=x"], "seed='x' should be an integer"),
        (["model.latent_dim=0"], "latent_dim must be >= 1, got 0"),
        (["data=mnist", "data.root=nowhere"], "nowhere and could not be downloaded (offline)"),
        (["model/likelihood=normal", "data.binarize=static"], "use data.binarize=none or another model/likelihood"),
        (["data.binarize=none", "model/likelihood=bernoulli"], "use data.binarize=dynamic or another model/likelihood"),
        (["task=evaluate"], "task=evaluate needs run=PATH"),
        (["task=evaluate", "run=nowhere"], "nowhere does not exist"),
        (["model._target_=os.system"], "not in an allowed package"),
        (["data.shape=[1,9,9]"], "data.shape is (1, 9, 9), but the images of Digits are (1, 8, 8)"),
        (["callbacks/anneal=linear", "callbacks.anneal.weight=gamma"], "ELBO has no such weight"),
        (["model.latent_dim"], "model.latent_dim cannot be read"),
        (["model.encoder.hidden=[200"], "model.encoder.hidden=[200 cannot be read"),
        (["model.encoder.hidden=[0]"], "model: hidden must be a list of integers >= 1, got [0]"),
        (["model=conv_vae", "model.encoder.channels=[8,2.5]"], "model: channels must be a list of integers >= 1"),
        (["callbacks.images.every_n_epochs=0"], "callbacks.images: every_n_epochs must be >= 1, got 0"),
        (["trainer.precision=17"], "trainer: Precision 17 is invalid"),
        (["trainer.max_epochs=-3"], "trainer.max_epochs must be >= 1, or -1 for no end, got -3"),
        (["trainer.max_epochs=0"], "trainer.max_epochs must be >= 1, or -1 for no end, got 0"),
        (["trainer.max_steps=0"], "trainer.max_steps must be >= 1, or -1 for no end, got 0"),
        (["compile=3"], "compile=3 is not true or false"),
        (["callbacks.progress.every_n_seconds=-1"], "callbacks.progress: every_n_seconds must be >= 0, got -1"),
        (["optimizer.lr=inf"], "optimizer.lr=inf should be a finite number"),
        (["optimizer.betas=[nan,0.9]"], "optimizer.betas[0]=nan should be a finite number"),
        (["+optimizer.momentum=0.9"], "optimizer.momentum: Adam has no such option"),
        (["optimizer.lr=fast"], "optimizer.lr='fast' should be a number"),
        (["optimizer.lr=-1"], "optimizer: Invalid learning rate: -1"),
        (["model.encoder.hidden=200"], "hidden must be a list of integers >= 1, got 200"),
        (["model=vq_vae", "model/prior=vamp"], "model/prior: the chosen model has no prior, remove this override"),
        (["run=somewhere"], "run=somewhere is not the folder of a run"),
        (["seed=0,1"], "seed=0,1 names several values: add -m for a sweep"),
        (["trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches must be >= 1, got 0"),
        (["threads=0"], "threads=0 should be an integer >= 1"),
        (["hydra.run.dir=/proc/nowhere"], "/proc/nowhere"),
        (["optimizer.lr=1e30", "trainer.max_epochs=2"], "training diverged"),
        (["threads=9999"], f"threads=9999 is more than the {os.cpu_count()} cores of this machine: use at most "),
        (["trust=[mypackage]"], "trust has a new name: use allow_packages"),
        (["allow_packages=mypackage"], "should be a list of packages, such as 'allow_packages=[mypackage]'"),
        (
            ["callbacks.checkpoint_best.monitor=val/elob"],
            "callbacks.checkpoint_best.monitor=val/elob is not logged, did you mean val/elbo?",
        ),
        (["callbacks/early_stopping=default", "callbacks.early_stopping.patience=-1"], "patience must be >= 0, got -1"),
        (
            ["callbacks/early_stopping=default", "trainer.limit_val_batches=0"],
            "callbacks.early_stopping.monitor=val/elbo needs a validation, and trainer.limit_val_batches=0 turns",
        ),
        (["callbacks.monitor=3"], "callbacks.monitor=3 should be null, or have the _target_ of a callback"),
        (["scheduler=cosine", "scheduler.warmup_steps=-5"], "scheduler.warmup_steps must be >= 0, got -5"),
        (["trainer.limit_test_batches=0.1"], "trainer.limit_test_batches=0.1 is less than one of the 4 test batches"),
        (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9] should be two numbers from 0 to below 1"),
        (["data.root=3"], "data.root=3 should be the name of a folder"),
        (["scheduler=null"], "scheduler=null is not a choice: name one of its group, `--help` lists them"),
        (["--epochs", "3"], "--epochs is not an option, keys are set as in KEY=VALUE: did you mean trainer.max"),
        (["--cfg", "all of it"], "argument --cfg/-c: invalid choice: 'all of it'"),
        (["lr=0.01"], "lr: there is no such key, did you mean optimizer.lr?"),
        (["epochs=3"], "epochs: there is no such key, did you mean trainer.max_epochs?"),
        (
            ["optimizer.weight_decay=1"],
            "the config does not list it, but Adam takes it: add it with a plus, +optimizer.weight_decay=1",
        ),
        (["logger=wandb", "logger.wandb.notes=a"], "takes it: add it with a plus, +logger.wandb.notes=a"),
        (["logger=wandb", "logger.wandb.projekt=a"], "did you mean logger.wandb.project?"),
        (
            ["scheduler._target_=torch.optim.lr_scheduler.StepLR"],
            "the config does not list it, add it with a plus, +scheduler._target_=torch.optim.lr_scheduler.StepLR",
        ),
        (["scheduler.warmup_steps=1"], "scheduler is empty: choose a scheduler, or add it with a plus"),
        (
            ["data=/a/folder"],
            "data=/a/folder is not a choice, a folder of pictures is read by data=folder data.root=/a/folder",
        ),
        (["data=a/b.csv"], "data=a/b.csv is not a choice, a file of this kind is read by data=table data.path=a/b.csv"),
        (["model/encoder=foo"], "model/encoder=foo is not a choice, choose from"),
        (["hydra/sweeper=nevergrad"], "hydra/sweeper=nevergrad is not a choice, choose from basic"),
        (["hydra/launcher=job"], "optuna, joblib and submitit need pip install 'vaezoo[sweep]'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_get_one_sentence(cli, monkeypatch, arguments, words):
    """One line with the value and what to do, exit code 1, no traceback."""
    from torchvision.datasets import mnist

    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(mnist, "download_and_extract_archive", offline)
    code, out, err, _run = cli("logger=csv", *arguments)
    assert code == 1
    assert words.strip() in err
    assert "Traceback" not in out + err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1


def test_evaluation_repeats_every_number_under_a_schedule(cli):
    """The test loss has the objective's own weights, not those that a schedule has reached."""
    arguments = ("callbacks/anneal=cyclical", "callbacks.anneal.period=33", "callbacks/ema=default", "logger=none")
    _code, _out, _err, run = cli(*SHORT, *arguments, "callbacks.images=null")
    test = json.loads((run / "summary.json").read_text())["test"]
    assert test["loss"] == pytest.approx(-test["elbo"], abs=1e-5)
    _code, _out, _err, again = cli("task=evaluate", f"run={run}", "task.metrics=[]")
    assert json.loads((again / "summary.json").read_text())["test"] == test
    code, _out, err, _ = cli("task=evaluate", f"run={run}", "model.latent_dim=7")
    assert code == 1
    assert "model.latent_dim=7 cannot be changed: task=evaluate takes it from the run" in err


def test_evaluation_with_overrides_of_the_data(cli, monkeypatch):
    """Another data set and another split are used, and not silently those of the run."""
    _code, _out, _err, run = cli(*SHORT, "logger=none", "callbacks.images=null")
    test = json.loads((run / "summary.json").read_text())["test"]
    from torchvision.datasets import mnist

    def offline(*_, **__):
        raise OSError("offline")

    monkeypatch.setattr(mnist, "download_and_extract_archive", offline)
    code, _out, err, _ = cli("task=evaluate", f"run={run}", "data=mnist", "data.root=nowhere", "trainer=cpu")
    assert code == 1
    assert "MNIST is not in data.root=" in err
    for words, same in ((["data=digits", "trainer=cpu"], True), (["data.binarize=threshold"], False)):
        code, _out, err, again = cli("task=evaluate", f"run={run}", "task.metrics=[]", *words)
        assert code == 0, err
        assert (json.loads((again / "summary.json").read_text())["test"] == test) == same
    code, _out, err, _ = cli("task=evaluate", f"run={run}", "data.split_seed=1")
    assert code == 1
    assert "data.split_seed=1 cannot be changed: examples that the model of" in err


def test_wandb_online_without_a_key_asks_nothing(tmp_path):
    """W&B would show a menu on a terminal. The run is logged offline instead, with a message."""
    home = {"HOME": str(tmp_path), "NETRC": str(tmp_path / "none"), "WANDB_CONFIG_DIR": str(tmp_path)}
    words = [sys.executable, str(REPO / "run.py"), "trainer.max_epochs=1", "callbacks.images=null"]
    environment = {k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"} | home | {"WANDB_MODE": "online"}
    leader, follower = os.openpty()
    settings = {"cwd": tmp_path, "env": environment, "stdin": follower, "stdout": follower}
    done = subprocess.run(words, **settings, check=False, timeout=120)
    os.close(leader)
    os.close(follower)
    assert done.returncode == 0
    assert list(tmp_path.glob("outputs/*/*/wandb/offline-run-*"))


def test_debug_shows_where(cli):
    _code, _out, err, _run = cli("model.latent_dim=0", "debug=true")
    assert "Traceback" in err


def test_corrupt_checkpoint(cli):
    """A damaged checkpoint is refused in one sentence; the other checkpoint of the run can be evaluated."""
    _code, _out, _err, run = cli(*SHORT, "logger=none", "callbacks.images=null")
    best = run / "checkpoints" / "best.ckpt"
    best.write_bytes(best.read_bytes()[:-200])
    code, _out, err, _ = cli("task=evaluate", f"run={run}", "task.metrics=[]")
    assert code == 1
    assert "is not a readable checkpoint" in err
    code, *_ = cli("task=evaluate", f"run={run / 'checkpoints' / 'last.ckpt'}", "task.metrics=[]")
    assert code == 0


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InvalidCxxCompiler(), "InvalidCxxCompiler: No working C++ compiler found"),
        (CppCompileError(["g++"], "a.h: In function f\n" + 5000 * "a.h:1: error: no luck\n"), "a.h:1: error: no luck"),
    ],
    ids=["none", "broken"],
)
def test_a_compiler_that_fails_gets_one_sentence(error, words):
    """The reason and what to do, however long the compiler's output is."""
    told = describe_error(InductorError(error, None))
    assert told.startswith(f"torch.compile failed ({words}")
    assert told.endswith("): use compile=false, or install a C++ compiler that works, such as g++")
    assert len(told) < 300


def test_no_warning_about_a_missing_gpu(monkeypatch, tmp_path, caplog):
    """torch looks for CUDA when it compiles."""
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    silence_lightning()
    importlib.reload(cpp_extension)
    assert not caplog.records


def test_help_is_quick_and_complete(tmp_path):
    """The choices and five examples, for less than 1.5 s of processor time: the least of three, as others work too."""
    seconds, settings = [], {"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300}
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, str(REPO / "run.py"), "--help"], **settings, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert done.stdout.count("python run.py") >= 5
    for group in ("model: ", "data: ", "logger: ", "trainer: ", "model/likelihood: "):
        assert group in done.stdout
    keys = yaml.safe_load(Path(config_folder(), "config.yaml").read_text()).keys() - {"defaults", "hydra"}
    for key in [*(keys - {"name", "run_dir"}), "task.num_samples"]:  # what they are follows from the others
        assert f" {key}=" in done.stdout
    assert min(seconds) < 1.5


def test_help_loads_no_torch(tmp_path):
    """Nor does Hydra's search for plugins, which imports the launcher of sweeps."""
    code = "import sys; from vaezoo.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    settings = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(REPO)}, "capture_output": True}
    assert subprocess.run([sys.executable, "-c", code], **settings, check=False).returncode == 0


def test_sweep(cli, tmp_path, monkeypatch):
    """A table with a row for each job; the rows of a failed and a killed job have the reason."""
    deadly = "import os, signal\ndef model(**_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (tmp_path / "deadly.py").write_text(deadly)
    (tmp_path / "more" / "model").mkdir(parents=True)
    deadly_config = "defaults: [mlp_vae, _self_]\n_target_: deadly.model\n"
    (tmp_path / "more" / "model" / "deadly.yaml").write_text(deadly_config)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, out, err, _ = cli(
        f"--config-dir={tmp_path / 'more'}", "-m", "model=mlp_vae,deadly", "model.latent_dim=2,0",
        "allow_packages=[deadly]", *SHORT, "callbacks.images=null",
    )  # fmt: skip
    assert code == 1
    (sweep,) = tmp_path.glob("multirun/*/*")
    rows = list(csv.DictReader((sweep / "summary.csv").open()))
    assert [row["job"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["status"] == "completed"
    assert [row["scored"] for row in rows] == ["bits", "", "", ""]
    assert "latent_dim must be >= 1" in rows[1]["status"]
    assert rows[2]["status"] == rows[3]["status"] == "killed by SIGKILL"
    rate, distortion = float(rows[0]["test_kl"]), float(rows[0]["test_distortion"])
    assert float(rows[0]["test_elbo"]) == pytest.approx(-rate - distortion, abs=1e-3)
    assert all(row["overrides"].startswith("model=") for row in rows)
    for word in ("test ELBO", "rate", "distortion", "killed by", "SIGKILL"):
        assert word in out
    inspect_wandb(sweep / "0")
    assert "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: 3 of 4 jobs failed, the first is job 1: model: latent_dim must be >= 1, got 0")
    assert "Error executing job" not in err


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("model=mlp_vae,mpl_vae", "error: model=mpl_vae is not a choice, did you mean mlp_vae?"),
        ("model=glob(*_xyz)", "error: the sweep has no job: a glob(...) in it matches no choice, `--help` lists them"),
    ],
)
def test_a_sweep_with_a_typing_error_runs_nothing(cli, tmp_path, word, line):
    """An unknown choice is an error before the first job starts."""
    code, _out, err, _ = cli("-m", word)
    assert code == 1
    assert err.splitlines() == [line]
    assert not list(tmp_path.rglob("job.json"))


def test_collapse_is_told_after_the_training(cli):
    """With the remedies; a model that uses its code gets no such line."""
    words = ("model=beta_vae", "model/encoder=mlp", "model/decoder=mlp", "model.encoder.hidden=[8]", "logger=none",
             "trainer.max_epochs=2", "callbacks.images=null", "optimizer.lr=1e-2")  # fmt: skip
    for beta, is_told in ((1000, True), (1, False)):
        code, out, err, _ = cli(*words, f"model.beta={beta}")
        assert code == 0, err
        assert ("posterior collapse: KL 0.0" in out) == is_told


def test_interrupt(tmp_path):
    """Ctrl-C: exit code 130, one line, and a checkpoint that can be read."""
    words = [sys.executable, str(REPO / "run.py"), "trainer.max_epochs=100000", "logger=none", "callbacks.images=null"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        lines = [process.stderr.readline().rstrip() for _ in range(6)]
        process.send_signal(signal.SIGINT)
        assert lines[0] == "starting mlp_vae on digits, seed 0"  # before the imports
        assert re.fullmatch(r"mlp_vae: [\d,]+ parameters, .+, 100000 epochs", lines[1])
        assert lines[2] == "data: Digits, images of shape 1x8x8: 1,257 training, 180 validation, 360 test"
        assert lines[3].startswith("binary data, data.binarize=dynamic; log p(x | z): Bernoulli")
        assert lines[4].startswith(f"run folder: {tmp_path}/outputs/")
        assert re.fullmatch(r"epoch \d+/100000  train elbo -[\d.]+  val elbo -[\d.]+  .+ left", lines[5])
        rest = process.stderr.read()
    assert process.returncode == 130
    assert "stopped by SIGINT; saved" in rest
    assert "repeat the command with resume=auto to continue" in rest
    assert "Traceback" not in rest
    (run,) = tmp_path.glob("outputs/*/*")
    assert vaezoo.runs.checkpoint.read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"] > 0


def test_two_processes(tmp_path):
    """DDP over gloo: one run folder, each test image once, and the same numbers as with one process."""
    small = [f"model.{part}.channels=[4,8]" for part in ("encoder", "decoder")]
    arguments = ("model=conv_vae", "model/likelihood=normal", *small, "trainer=ddp", "trainer.accelerator=cpu")
    done = command(*arguments, "trainer.devices=2", "trainer.max_epochs=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = tmp_path.glob("outputs/*/*")
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 2 * 10  # 1,257 images over 2 processes of 64
    inspect_wandb(run)
    model = vaezoo.load(run)
    from vaezoo.data import Digits

    data = Digits(binarize="none", val_size=180)
    data.setup()
    alone = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    alone.test(model, data, verbose=False)
    for name in ("elbo", "elbo_error", "kl"):  # noise and all, up to rounding
        assert summary["test"][name] == pytest.approx(model.results["test"][name], rel=1e-5)
    assert "recommended" not in done.stderr
    few = ("task.metrics=[probes]", "hydra.run.dir=evaluation")
    done = command("task=evaluate", f"run={run}", *few, cwd=tmp_path)  # with the run's own trainer
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "evaluation" / "summary.json").read_text())["test"]
    assert {name: again[name] for name in summary["test"]} == summary["test"]
    assert again["linear_probe"] > 0
    failed = command(*arguments, "data.val_size=5000", cwd=tmp_path)
    assert failed.returncode == 1
    assert "data.val_size=5000" in failed.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limit_test_batches": 0}, "trainer.limit_test_batches=0 should be a number of batches >= 1, or a fraction"),
        ({"limit_train_batches": 0.0}, "trainer.limit_train_batches=0.0 should be a number of batches >= 1"),
        ({"limit_val_batches": 1.5}, "trainer.limit_val_batches=1.5 should be .* at most 1.0, or 0 for none"),
        ({"overfit_batches": -1}, "trainer.overfit_batches=-1 should be a number"),
        ({"val_check_interval": 0}, "trainer.val_check_interval=0 should be a number of batches >= 1"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch must be >= 1, got 0"),
        ({"log_every_n_steps": 0}, "trainer.log_every_n_steps must be >= 1, got 0"),
        ({"num_sanity_val_steps": -2}, "trainer.num_sanity_val_steps must be >= 0, or -1 for all, got -2"),
        ({"num_nodes": 0}, "trainer.num_nodes must be >= 1, got 0"),
        ({"fast_dev_run": -1}, "trainer.fast_dev_run=-1 should be true, false or a number of batches >= 1"),
        ({"max_time": 5}, "trainer.max_time=5 should be a time above 0, days:hours:minutes:seconds"),
        ({"max_time": "00:00:00:00"}, "trainer.max_time=00:00:00:00 should be a time above 0"),
        ({"max_time": {"seconds": 0}}, "should be a time above 0"),
        ({"enable_progress_bar": 3}, "trainer.enable_progress_bar=3 should be true or false"),
        ({"deterministic": "x"}, "trainer.deterministic=x should be true, false or warn"),
        ({"profiler": 3}, "trainer.profiler=3 should be simple, advanced, pytorch or null"),
        ({"accelerator": "tpu"}, "trainer.accelerator=tpu: this machine has "),
        ({"accelerator": "cpu", "devices": -1}, "trainer.devices must be >= 1, got -1; -1 stands for all GPUs"),
        ({"accelerator": "cpu", "devices": 0}, "trainer.devices must be >= 1, got 0$"),
        ({"accelerator": "cpu", "devices": 9999}, "trainer.devices=9999 is more than this machine has cores: "),
    ],
)
def test_meaningless_trainer_settings_are_refused(settings, words):
    """The message has the key, the value and what it should be."""
    with pytest.raises(ConfigError, match=words):
        check_trainer(settings)


def test_valid_trainer_settings_are_accepted():
    check_trainer(config("trainer"))
    for name, values in {
        "limit_test_batches": [1, 0.5, 1.0, None], "limit_val_batches": [0, 0.0], "overfit_batches": [0.0, 3],
        "max_epochs": [-1, 1, None], "max_time": ["00:00:00:01", {"hours": 1}, None], "fast_dev_run": [True, False, 2],
        "num_sanity_val_steps": [-1, 0], "devices": [1, 2, "auto"], "deterministic": ["warn", True],
    }.items():  # fmt: skip
        for value in values:
            check_trainer({"accelerator": "cpu", name: value})


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"eps": 0}, "optimizer.eps must be > 0, got 0"), ({"lr": 0.0}, "optimizer.lr must be > 0, got 0.0"),
     ({"betas": 0.9}, "optimizer.betas=0.9 should be two numbers"), ({"betas": [0.9, 1]}, "should be two numbers")],
)  # fmt: skip
def test_meaningless_optimizer_settings_are_refused(settings, words):
    check_optimizer(config("optimizer"))
    with pytest.raises(ConfigError, match=words):
        check_optimizer(settings)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["a=1", "-m", "seed=0,1"], ["--multirun", "a=1", "seed=0,1"]),
        (["a=1", "--config-dir", "x", "b=2"], ["--config-dir=x", "a=1", "b=2"]),
        (["--model.beta=4", "--seed=1", "a=2"], ["model.beta=4", "seed=1", "a=2"]),
        (["a=1", "--cfg", "job", "--resolve"], ["--cfg=job", "--resolve", "a=1"]),
        (["~a", "+b=-3"], ["~a", "+b=-3"]),
        (["a=1", "--info"], ["--info=all", "a=1"]),
        (["trainer.max_epochs=1", "--multirun", "seed=0,1"], ["--multirun", "trainer.max_epochs=1", "seed=0,1"]),
        (["a=1", "seed=0,1", "-m"], ["--multirun", "a=1", "seed=0,1"]),
        (["--experiment=mnist", "--run=D", "--resume=auto"], ["experiment=mnist", "run=D", "resume=auto"]),
        (["--model.encoder.hidden=[400, 400]", "a=b=--c"], ["model.encoder.hidden=[400, 400]", "a='b=--c'"]),
        (["--callbacks.images=None", "--compile=True"], ["callbacks.images=null", "compile=True"]),
        (["--data.root=-x", "--+model.z=1"], ["data.root=-x", "+model.z=1"]),
    ],
)
def test_flags_may_stand_anywhere(given, found):
    """Hydra's flags and overrides may be mixed, and W&B's agent puts two dashes before a key."""
    assert to_argv(parse_arguments(given)) == found


def test_the_command_of_wandb_agent(tmp_path):
    """``/usr/bin/env python run.py --KEY=VALUE ...``, as the agent calls by default, and a sweep with -m at the end."""
    agent = ["--model.beta=4", "--model=beta_vae", "--optimizer.lr=0.001", "--callbacks.images=None", "--logger=csv"]
    done = command(*agent, "--trainer.max_epochs=1", "--hydra.run.dir=D", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "D" / "summary.json").read_text())["config"]
    assert (config["model"]["beta"], config["optimizer"]["lr"], config["callbacks"]["images"]) == (4, 0.001, None)


@pytest.mark.parametrize(
    "value",
    ["Klänge", "Kunden Übersicht.csv", "a=b.csv", "Umsatz (2).csv", "O'Brien.csv", r"C:\Daten\Ä", "a&b#c;d", "~/x",
     "ä\\'"],
)  # fmt: skip
def test_any_text_is_a_value(value):
    """Hydra reads what the user typed, and a recorded override is read as it is."""
    (override,) = parse_arguments([f"data.root={value}"]).overrides
    assert get_value(by_key([override]), "data.root") == value
    assert parse_arguments([override]).overrides == [override]


@pytest.mark.parametrize(
    "override",
    ["seed=1", "seed=1,2", "data.root=a,ä", "model=glob(*)", "models=[a", "trainer={a: ä", "name='ä", 'name="ä', "~a",
     "name=a b", "name=", "Klänge=1", "data.root=${oc.env:HOME}/x", "a"],
)  # fmt: skip
def test_what_hydra_reads_stays(override):
    """Numbers, sweeps, lists and texts in quotes; a mistake in a list, or in a key, is left for the error message."""
    assert parse_arguments([override]).overrides == [override]


def test_a_quoted_text_is_the_text():
    for text in ("a b", r"a\b", r"a\'b", "a\\", "'", "\\'\\"):
        assert get_value(by_key([f"name={quote(text)}"]), "name") == text
        config = set_values({"data": {"root": "", "shape": [1]}}, [f"data.root={quote(text)}", "data.shape=[2,3]"])
        assert config == {"data": {"root": text, "shape": [2, 3]}}


def test_paths_of_any_name(cli):
    """A training on a file, resumed and evaluated, with names that Hydra's grammar does not know."""
    file, run = "Übersicht a=b (2).csv", Path("Müller's Läufe (1)/Lauf")
    Path(file).write_text("\n".join(["x,y", *(f"{i % 7},{i % 5 + 0.5}" for i in range(60))]))
    words = (*SHORT, "data=table", f"data.path={file}", f"hydra.run.dir={run}", "logger=none")
    code, _out, err, _run = cli(*words)
    assert code == 0, err
    assert "complete" in cli(*words, "resume=auto")[1]
    code, _out, err, _run = cli(f"run={run}", "trainer.max_epochs=3")
    assert code == 0, err
    code, _out, err, again = cli("task=evaluate", f"run={run}", "task.metrics=[]")
    assert code == 0, err
    test, epochs = (json.loads((run / "summary.json").read_text())[name] for name in ("test", "epochs"))
    assert epochs == 3
    assert json.loads((again / "summary.json").read_text())["test"] == test


def test_from_a_notebook(cli, monkeypatch):
    """main takes a list of overrides. Without one, the notebook's own command line is not used."""
    monkeypatch.setattr(sys, "argv", ["kernel", "-f", "kernel.json"])
    main(["hydra.run.dir=D", *SHORT, "logger=none", "callbacks.images=null"])
    assert json.loads(Path("D/summary.json").read_text())["status"] == "completed"
    assert sys.argv == ["kernel", "-f", "kernel.json"]
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    code, _out, err, _run = cli()
    assert code == 1
    assert err.splitlines()[-1].startswith("error: main() has no command line here: give a list, such as main([")


@pytest.mark.parametrize("start", ["runpy.run_path(REPO + '/run.py', run_name='__main__')", "import vaezoo"])
def test_an_unsupported_system(tmp_path, start):
    """One sentence before anything else is imported, not an import error."""
    code = f"import runpy, sys; sys.platform = 'win32'; REPO = {str(REPO)!r}; sys.argv = ['run.py', '--help']; "
    code += "[sys.modules.__setitem__(name, None) for name in ('fcntl', 'resource', 'hydra', 'torch')]; " + start
    words = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(REPO)}, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "-c", code], **words, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: vaezoo runs on Linux and macOS, not on win32: on Windows, install it in WSL\n"
    assert done.stdout == ""
