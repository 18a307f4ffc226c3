"""Checkpoints and run folders of a stranger: whatever their config names, nothing runs and nothing is written.

    python tests/campaign/security.py

Calls everything that a checkpoint's config can name, with arguments that would do harm if any of it were followed, and
puts payloads into every place of a config, into the archive and into a run folder's record. An audit hook of Python
notes every file that is opened for writing, deleted or renamed, every process, connection and import of a payload.
Prints one line of figures for each kind and exits with 1 if anything had an effect. The test suite runs all of it.
"""

import argparse
import contextlib
import copy
import inspect
import io
import itertools
import json
import os
import pickle
import pkgutil
import resource
import sys
import tempfile
import time
import typing
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning.pytorch.callbacks  # noqa: F401  # loaded, as by a run: a config may name what is in it
import torch
from hydra.errors import OverrideParseException

import vaezoo
from vaezoo.errors import ConfigError
from vaezoo.instantiate import build, locate
from vaezoo.nets.mlp import activation_function
from vaezoo.runs import setup
from vaezoo.runs.checkpoint import read_checkpoint
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.inherit import inherited_overrides
from vaezoo.runs.load import load

PAYLOAD_MODULE = "a_payload_module"  # writes a file when it is imported
CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.chmod", "os.truncate", "os.system",
    "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill", "subprocess.Popen", "socket.connect",
    "shutil.rmtree", "shutil.move", "shutil.copyfile", "pty.spawn", "ctypes.dlopen", "signal.pthread_kill",
)  # fmt: skip


class Watch:
    """Notes what happens while ``watching``: an audit hook cannot be removed, so there is one for the process."""

    def __init__(self) -> None:
        self.active, self.seen = False, []
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple) -> None:
        if not self.active:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC) if isinstance(flags, int) else 0
            if (writes or (isinstance(mode, str) and set(mode) & set("wax+"))) and path != os.devnull:
                self.seen.append(f"open {path} for writing")
        elif event == "import" and arguments[0].startswith(PAYLOAD_MODULE):
            self.seen.append(f"import {arguments[0]}")
        elif event in CHANGES and "libnvidia-ml" not in str(arguments[0]):  # torch looks for a GPU
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event in ("exec", "compile") and PAYLOAD_MODULE in f"{arguments!r:.2000}":
            self.seen.append(f"{event} of a payload")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Note what happens in this block; what it prints is dropped."""
        self.active = True
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                yield
        finally:
            self.active = False


def admitted(at: str) -> dict[Any, str]:
    """Everything that a config can name at a place, each once, with one of its full names."""
    for module in pkgutil.walk_packages(vaezoo.__path__, "vaezoo."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            with contextlib.suppress(ImportError):  # Hydra's plugins are imported under another name
                import_module(module.name)
    found = {}
    for name, module in sorted(sys.modules.items()):
        for attribute in sorted(getattr(module, "__dict__", {})):
            with contextlib.suppress(ConfigError):
                found.setdefault(locate(f"{name}.{attribute}", at), f"{name}.{attribute}")
    return found


def arguments(target: Any, folder: Path) -> Iterator[dict[str, Any]]:
    """Sets of arguments for a target: nothing, values that fit, and values that would do harm."""
    harmful = [
        f"touch {folder / 'by_command'}", str(folder / "by_path"), f"{PAYLOAD_MODULE}.run", PAYLOAD_MODULE,
        f"__import__('{PAYLOAD_MODULE}')", {"class_path": f"{PAYLOAD_MODULE}.run"}, [f"{PAYLOAD_MODULE}.run"],
    ]  # fmt: skip
    image, vector = [1, 6, 6], [3]
    fitting = {"in_shape": image, "out_shape": image, "data_shape": image, "shape": vector, "latent_shape": vector}
    plain = {int: 2, float: 0.5, str: "relu", bool: True}
    names: list[str] = []
    required: list[str] = []
    hints: dict[str, Any] = {}
    for cls in inspect.getmro(target) if isinstance(target, type) else (target,):
        function = vars(cls).get("__init__", cls) if isinstance(cls, type) else cls
        with contextlib.suppress(ValueError, TypeError):
            for name, parameter in inspect.signature(function).parameters.items():
                if name not in ("self", "args", "kwargs") and parameter.kind not in (2, 4) and name not in names:
                    names.append(name)
                    if parameter.default is parameter.empty:
                        required.append(name)
        with contextlib.suppress(Exception):
            hints = typing.get_type_hints(function) | hints
    good = {name: fitting.get(name, plain.get(hints.get(name, int), 2)) for name in names}
    yield {}
    yield {name: good[name] for name in required}
    yield good
    for name, value in itertools.product(names, harmful):
        yield {other: good[other] for other in required} | {name: value}


def call_everything(watch: Watch, folder: Path, at: str, every: int) -> tuple[int, int, list[str]]:
    """Call what a config can name at a place; the number of targets, of calls, and what had an effect."""
    effects, calls = [], 0
    targets = admitted(at)
    for target, name in targets.items():
        for given in itertools.islice(arguments(target, folder), 0, None, every):
            calls += 1
            before = len(watch.seen)
            try:
                with watch.watching(), torch.device("meta"):  # no time and no memory for weights
                    target(**copy.deepcopy(given))
            except SystemExit:
                watch.seen.append("exit")
            except Exception:  # most of the arguments make no sense
                pass
            effects += [f"{name}({given!r:.150}): {event}" for event in watch.seen[before:]]
    return len(targets), calls, effects


def call_activations(watch: Watch) -> tuple[int, list[str]]:
    """Take every name of torch.nn.functional for an activation; the number, and what had an effect."""
    names = [*vars(torch.nn.functional), "__import__", "os.system", PAYLOAD_MODULE, f"{PAYLOAD_MODULE}.run"]
    before = len(watch.seen)
    for name in names:
        with watch.watching(), contextlib.suppress(ValueError):
            activation_function(name)
    return len(names), watch.seen[before:]


def payloads(folder: Path) -> list[Any]:
    """Nodes that would run, write, delete, import or end something if they were followed."""
    command = f"touch {folder / 'payload'}"
    victim = str(folder / "victim.ckpt")
    init = {"class_path": "os.system"}
    class_path = {"_target_": "lightning.pytorch.cli.instantiate_class", "args": command, "init": init}
    saving = "lightning.pytorch.core.saving"
    found = {"_target_": "vaezoo.runs.checkpoint.find_checkpoint", "path": victim}
    empty = {"state_dict": {}, "vaezoo_config": {}}
    return [
        class_path,
        {"_target_": "os.system", "command": command},
        {"_target_": "posix.system", "command": command},
        {"_target_": "subprocess.Popen", "args": command, "shell": True},
        {"_target_": "subprocess.run", "args": command, "shell": True},
        {"_target_": "subprocess.check_output", "args": command, "shell": True},
        {"_target_": "builtins.eval", "source": f"__import__('os').system('{command}')"},
        {"_target_": "builtins.exec", "source": f"import {PAYLOAD_MODULE}"},
        {"_target_": "builtins.open", "file": victim, "mode": "w"},
        {"_target_": "builtins.__import__", "name": PAYLOAD_MODULE},
        {"_target_": "importlib.import_module", "name": PAYLOAD_MODULE},
        {"_target_": f"{PAYLOAD_MODULE}.run"},
        {"_target_": f"{PAYLOAD_MODULE}.Module"},
        {"_target_": "runpy.run_path", "path_name": str(folder / f"{PAYLOAD_MODULE}.py")},
        {"_target_": "shutil.rmtree", "path": str(folder)},
        {"_target_": "os.remove", "path": victim},
        {"_target_": "pathlib.Path.unlink", "self": victim},
        {"_target_": "pathlib.Path.write_text", "self": victim, "data": "x"},
        {"_target_": "sys.exit", "status": 0},
        {"_target_": "os._exit", "status": 0},
        {"_target_": "os.kill", "pid": os.getpid(), "sig": 9},
        {"_target_": "webbrowser.open", "url": f"file://{victim}"},
        {"_target_": "socket.create_connection", "address": ["127.0.0.1", 9]},
        {"_target_": "urllib.request.urlopen", "url": "http://127.0.0.1:9/"},
        {"_target_": "ctypes.CDLL", "name": victim},
        {"_target_": "pickle.loads", "data": "cos\nsystem\n(S'true'\ntR."},
        {"_target_": "torch.load", "f": victim, "weights_only": False},
        {"_target_": "torch.save", "obj": 1, "f": victim},
        {"_target_": "torch.hub.load", "repo_or_dir": str(folder), "model": "x", "source": "local"},
        {"_target_": "torch.jit.load", "f": victim},
        {"_target_": "torch.utils.cpp_extension.load", "name": "x", "sources": [victim]},
        {"_target_": "torch.nn.modules.module.torch.load", "f": victim, "weights_only": False},
        {"_target_": "torch.nn.functional.boolean_dispatch.__globals__"},
        {"_target_": "torch.nn.utils.parametrize.register_parametrization"},
        {"_target_": "torch.nn.init.torch.save", "obj": 1, "f": victim},
        {"_target_": "torch.optim.optimizer.torch.load", "f": victim},
        {"_target_": "numpy.save", "file": victim, "arr": [1]},
        {"_target_": "numpy.load", "file": victim, "allow_pickle": True},
        {"_target_": "hydra.utils.instantiate", "config": class_path},
        {"_target_": "hydra._internal.utils._locate", "path": f"{PAYLOAD_MODULE}.run"},
        {"_target_": f"{saving}._load_from_checkpoint", "checkpoint_path": victim, "weights_only": False},
        {"_target_": f"{saving}.save_hparams_to_yaml", "config_yaml": victim, "hparams": {}},
        {"_target_": f"{saving}.load_hparams_from_yaml", "config_yaml": victim},
        {"_target_": "lightning.pytorch.LightningModule.load_from_checkpoint", "checkpoint_path": victim},
        {"_target_": "lightning.pytorch.cli.LightningCLI", "model_class": {"_partial_": True, **class_path}},
        {"_target_": "lightning.pytorch.loggers.csv_logs.CSVLogger", "save_dir": str(folder)},
        {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint", "dirpath": str(folder / "made")},
        {"_target_": "lightning.fabric.utilities.cloud_io._atomic_save", "checkpoint": {}, "filepath": victim},
        {"_target_": "vaezoo.runs.folder.write_atomic", "path": found, "text": "x"},
        {"_target_": "vaezoo.runs.checkpoint.write_checkpoint", "checkpoint": empty, "path": victim},
        {"_target_": "vaezoo.runs.checkpoint_file.write_digests", "path": victim, "digests": ["x"]},
        {"_target_": "vaezoo.runs.checkpoint_file.remove_leftovers", "folder": str(folder)},
        {"_target_": "vaezoo.runs.load.load", "path": victim},
        {"_target_": "vaezoo.runs.summary.write_summary", "config": {"run_dir": str(folder), "name": "x", "seed": 0}},
        {"_target_": "vaezoo.cli.exit_with_error", "error": "x", "debug": False},
        {"_target_": "vaezoo.cli.main"},
        {"_target_": "vaezoo.cli.main"},
        {"_target_": "vaezoo.tasks.fit.fit", "config": {}},
        {"_target_": "vaezoo.instantiate.import_module", "name": PAYLOAD_MODULE},
        {"_target_": "vaezoo.instantiate.build", "node": class_path, "allow_packages": ["os", "lightning"]},
        {"_target_": "vaezoo.metrics.inception.Inception", "weights": victim},
        {"_target_": "vaezoo.loggers.wandb_logger", "save_dir": str(folder)},
        {"_target_": "vaezoo.loggers.CSV", "save_dir": str(folder)},
        {"_target_": "vaezoo.runs.jobs.Jobs", "folder": str(folder), "program": [], "resume": False, "group": "x"},
        {"_target_": "vaezoo.inference.importance_sampling.math.sqrt"},
        {"_target_": "vaezooevil.run"},
        {"_target_": "..os.system", "command": command},
        {"_target_": "vaezoo.models.VAE.__init__.__globals__"},
        {"_target_": ["os", "system"], "command": command},
        {"_target_": {"_target_": "os.system", "command": command}},
        {"_target_": None},
        {"_target_": 7},
        {"_target_": ""},
        {"_target_": "torch.nn.ParameterList", "values": [{"_target_": "torch.nn.BatchNorm1d", "num_features": 10**7}]},
        {"deeper": [{"and": {"deeper": [class_path]}}]},
        [[[class_path]]],
    ]  # fmt: skip


# Where a payload is put: a path into the config of a run; a number is an item of a list.
PLACES = [
    "model", "model.encoder", "model.decoder", "model.likelihood", "model.prior", "model.posterior",
    "model.objective", "model.data_shape", "model.latent_dim", "model.encoder.hidden", "model.encoder.hidden.0",
    "model.decoder.activation", "model.likelihood.scale", "model.optimizer", "model.other", "optimizer",
    "optimizer.lr", "optimizer.betas", "optimizer.betas.1", "optimizer.params", "scheduler", "scheduler.warmup_steps",
    "scheduler.lr_lambda", "data", "data.root", "data.shape", "data.shape.0", "data.read", "trainer",
    "trainer.strategy", "trainer.profiler", "trainer.plugins", "trainer.plugins.0", "trainer.callbacks",
    "trainer.logger", "trainer.devices", "trainer.default_root_dir", "seed", "threads", "on_nan", "compile",
]  # fmt: skip


def insert(config: dict[str, Any], place: str, payload: Any, partial: bool) -> dict[str, Any]:
    """Return a config with the payload at a place."""
    config = copy.deepcopy(config)
    *path, last = place.split(".")
    node: Any = config
    for key in path:
        if isinstance(node, dict) and not isinstance(node.get(key), dict | list):
            node[key] = {}
        node = node[int(key)] if isinstance(node, list) else node[key]
    if partial and isinstance(payload, dict):
        payload = {**payload, "_partial_": True}
    if isinstance(node, list):
        node[int(last)] = payload
    else:
        node[last] = payload
    return config


def small_config(folder: Path) -> dict[str, Any]:
    """The config of a small run, as a checkpoint holds it."""
    net = {"_target_": "vaezoo.nets.MLP", "_partial_": True, "hidden": [4], "activation": "relu"}
    likelihood = {"_target_": "vaezoo.families.FixedScaleNormal", "scale": 0.1}
    parts = {"encoder": net, "decoder": dict(net), "likelihood": likelihood}
    root = str(folder / "data")
    return {
        "model": {"_target_": "vaezoo.models.VAE", "data_shape": [1, 3, 2], "latent_dim": 2, **parts},
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3, "betas": [0.9, 0.999]},
        "scheduler": {"_target_": "vaezoo.training.schedulers.cosine", "_partial_": True, "warmup_steps": 3},
        "data": {"_target_": "vaezoo.data.Digits", "shape": [1, 8, 8], "root": root, "binarize": "none"},
        "trainer": {"_target_": "lightning.pytorch.Trainer", "accelerator": "cpu", "devices": 1, "max_epochs": 1},
        "seed": 0, "threads": 1, "on_nan": "stop", "compile": False, "name": "x",
        "allow_packages": ["os", "lightning", PAYLOAD_MODULE],
    }  # fmt: skip


def open_like_a_task(config: dict[str, Any], folder: Path) -> None:
    """Build from a checkpoint's config what a task on a trained run builds."""
    merged = config | {"run_dir": str(folder / "task"), "allow_packages": []}
    setup.build_run(merged)
    setup.build_trainer(merged, [], [], enable_checkpointing=False)


def try_payloads(watch: Watch, folder: Path, every: int) -> tuple[int, int, list[str]]:
    """Put every payload into every place of a checkpoint's config; payloads, attempts, and what had an effect."""
    config = small_config(folder)
    model = build(config["model"], "model", seed=0)
    checkpoint = {"state_dict": model.state_dict(), "vaezoo_config": config}
    path = folder / "stranger.ckpt"
    torch.save(checkpoint, path)
    load(path)
    open_like_a_task(copy.deepcopy(config), folder)
    effects, attempts = [], 0
    nodes = payloads(folder)
    for node, place, partial in itertools.islice(itertools.product(nodes, PLACES, (False, True)), 0, None, every):
        changed = insert(config, place, node, partial)
        whole = {**checkpoint, "vaezoo_config": changed}
        openers: list[Callable[[], Any]] = [lambda changed=changed: open_like_a_task(changed, folder)]
        if place.startswith(("model", "seed")):
            torch.save(whole, path)
            openers.append(lambda: load(path))
        for opener in openers:
            attempts += 1
            before, where = len(watch.seen), f"{place}={node!r:.150}"
            try:
                with watch.watching():
                    opener()
            except SystemExit:
                effects.append(f"{where}: exit")
            except Exception as error:
                if "\n" in str(error):
                    effects.append(f"{where}: {type(error).__name__} of several lines")
            effects += [f"{where}: {event}" for event in watch.seen[before:] if "/lightning_logs" not in event]
    return len(nodes), attempts, effects


class Storage:
    """Stands for a storage of ``size`` numbers when it is pickled."""

    def __init__(self, size: int):
        self.size = size


class Rebuilt:
    """Pickles as a call of a function."""

    def __init__(self, function: Callable, *given: Any):
        self.call = function, given

    def __reduce__(self) -> tuple:
        return self.call


class Pickler(pickle._Pickler):  # Python's own, which knows protocol 2's opcodes alone
    """A pickler in torch's format."""

    def persistent_id(self, value: Any) -> Any:
        return ("storage", torch.FloatStorage, "0", "cpu", value.size) if isinstance(value, Storage) else None


def archive(content: Any, compression: int = zipfile.ZIP_STORED, numbers: int = 4, **parts: bytes) -> bytes:
    """A torch archive with any content, well-formed or not."""
    pickled, file = io.BytesIO(), io.BytesIO()
    Pickler(pickled, 2).dump(content)
    with zipfile.ZipFile(file, "w", compression) as whole:
        whole.writestr("archive/data.pkl", pickled.getvalue())
        whole.writestr("archive/byteorder", "little")
        whole.writestr("archive/data/0", bytes(4 * numbers))
        whole.writestr("archive/version", "3\n")
        for name, part in parts.items():
            whole.writestr(f"archive/data/{name}", part)
    return file.getvalue()


def broken_archives(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Archives that run something or cost far more memory than they are large, by what is wrong with them."""
    rebuild = torch._utils._rebuild_tensor_v2

    def tensor(size: tuple, stride: tuple, numbers: int = 4) -> Rebuilt:
        return Rebuilt(rebuild, Storage(numbers), 0, size, stride, False, {})

    def whole(weight: Any, **more: Any) -> dict[str, Any]:
        return {"state_dict": {"w": weight}, "vaezoo_config": small_config(folder), **more}

    small = tensor((4,), (1,))
    repeated: list = []
    for _ in range(60):
        repeated = [repeated, repeated]
    cycle: list = []
    cycle.append(cycle)
    deep: Any = 0
    for _ in range(20_000):
        deep = (deep,)
    yield "compressed parts", archive(whole(small), zipfile.ZIP_DEFLATED, bomb=bytes(200_000_000))
    yield "a tensor of 1e11 numbers over one", archive(whole(tensor((10**11,), (0,))))
    yield "a tensor of 1e11 numbers beside the weights", archive(whole(small, other=tensor((10**11,), (0,))))
    yield "a storage larger than the file", archive(whole(tensor((10**9,), (1,), 10**9)))
    yield "an array of bytes of any size", archive(whole(small, other=Rebuilt(bytearray, 10**11)))
    yield "a tensor class of any size", archive(whole(Rebuilt(torch.FloatTensor, 10**10)))
    yield "a list of 2^60 lists", archive(whole(small, other=repeated))
    yield "a list of itself", archive(whole(small, other=cycle))
    yield "a command", archive(whole(Rebuilt(os.system, f"touch {folder / 'pickled'}")))
    yield "an import", archive(whole(Rebuilt(import_module, PAYLOAD_MODULE)))
    yield "eval", archive(whole(Rebuilt(eval, f"__import__('{PAYLOAD_MODULE}')")))
    yield "a set", archive(whole(small, other={1, 2}))
    yield "no dict", archive([1, 2])
    yield "no config", archive({"state_dict": {}, "vaezoo_config": 7})
    yield "weights that are no dict", archive({"state_dict": [1], "vaezoo_config": small_config(folder)})
    yield "weights that are no tensors", archive(whole("x"))
    doubled, file = archive(whole(small)), io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(doubled)) as old, zipfile.ZipFile(file, "w") as new, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in [*old.namelist(), "archive/data.pkl"]:
            new.writestr(name, old.read(name))
    yield "two parts of one name", file.getvalue()
    model = small_config(folder)["model"]
    nets = {"values": [{"_target_": "torch.nn.BatchNorm1d", "num_features": 10**7, "affine": False}] * 300}
    encoder = {"_target_": "torch.nn.ParameterList", **nets}
    changes = {"a partial": {"_partial_": True}, "2^60 lists": {"x": repeated}, "nets": {"encoder": encoder}}
    for name, more in changes.items():
        config = small_config(folder) | {"model": model | more}
        yield f"a config with {name}", archive(whole(small, vaezoo_config=config))
    sys.setrecursionlimit(200_000)
    with contextlib.suppress(RecursionError):
        yield "tuples 20,000 deep", archive(whole(small, other=deep))
    sys.setrecursionlimit(1000)
    size = {"_target_": "vaezoo.models.VAE", "data_shape": [1, 3, 2], "latent_dim": 10**9}
    flows = {"_target_": "vaezoo.models.IAFVAE", "data_shape": [1, 3, 2], "num_flows": 10**9}
    layers = {"_target_": "vaezoo.models.LadderVAE", "data_shape": [1, 3, 2], "latent_dim": 4, "num_layers": 10**9}
    codes = {"_target_": "vaezoo.models.VQVAE", "data_shape": [1, 3, 2], "num_codes": 10**11}
    for name, model in {"a latent space": size, "flows": flows, "layers": layers, "codes": codes}.items():
        content = whole(small, vaezoo_config=small_config(folder) | {"model": model})
        yield f"a config with 1e9 {name}", archive(content)


def try_archives(watch: Watch, folder: Path) -> tuple[int, list[str]]:
    """Load every broken archive; the number, and what ran, was accepted, or took more than a gigabyte or 5 s."""
    effects, path = [], folder / "archive.ckpt"
    kinds = list(broken_archives(folder))
    for kind, content in kinds:
        path.write_bytes(content)
        before, memory, start = len(watch.seen), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        for opener in (read_checkpoint, load):
            try:
                with watch.watching():
                    opener(path)
                if opener is load:
                    effects.append(f"{kind}: loaded")
            except (ValueError, FileNotFoundError) as error:
                if "\n" in str(error):
                    effects.append(f"{kind}: an error of several lines: {error}")
            except BaseException as error:
                effects.append(f"{kind}: {type(error).__name__} {error}")
        effects += [f"{kind}: {event}" for event in watch.seen[before:]]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
        if grown > 1_000_000:
            effects.append(f"{kind}: {grown:,} kB of memory")
        if time.monotonic() - start > 5:
            effects.append(f"{kind}: {time.monotonic() - start:.0f} s")
    return len(kinds), effects


RECORDS = [
    "allow_packages=[subprocess]", "+allow_packages=[os]", "++allow_packages=[a_payload_module]", "trust=[os]",
    "hydra.launcher._target_=os.system",
    "hydra/launcher=basic", "+hydra.callbacks.x._target_=os.system", "hydra={callbacks:{x:{_target_:os.system}}}",
    "model@hydra.launcher=mlp_vae", "+model@hydra.callbacks.x=mlp_vae", "hydra.run.dir=elsewhere",
    "hydra.job.chdir=true", "run_dir=elsewhere", "+run_dir=elsewhere", "run=elsewhere", "task=report",
    "task._target_=os.system", "+task.config=x", "models=[a]", "runs=outputs", "resume=auto",
    "hydra/job_logging=default", "+new.key=1",
]  # fmt: skip
PATHS = [
    "callbacks.checkpoint_best.dirpath=victim", "+callbacks.x._target_=lightning.pytorch.callbacks.ModelCheckpoint",
    "+logger.x._target_=lightning.pytorch.loggers.CSVLogger", "+logger.x.save_dir=${hydra:runtime.cwd}",
    "data.root=${oc.env:HOME}", "+logger.wandb.notes=${data.root}", "+logger.wandb.entity=evil",
    "+callbacks.x.dirpath=${data.root}", "callbacks.checkpoint_best={dirpath:victim}", "name=${oc.env:HOME}",
    "callbacks.checkpoint_best.dirpath=/etc", "callbacks.images.folder=../..", "logger.csv.save_dir=~",
    "callbacks.checkpoint_last.dirpath=a/b", "callbacks={checkpoint_best:{dirpath:/etc}}",
    "experiment=../../evil", "model=../../evil",
    "data._target_=a/b", "+logger.wandb.entity=${oc.env:HOME}", "callbacks.checkpoint_best.dirpath=${run_dir}/../x",
    "callbacks.checkpoint_best.dirpath='/etc'",
]  # fmt: skip
KEPT = [
    "model=conv_vae", "model.latent_dim=3", "data.root=/somewhere/else", "+scheduler.final=0.1", "~callbacks.images",
    "callbacks.images.folder=${run_dir}/pictures", "model/prior=vamp", "trainer.max_epochs=3", "seed=4",
    "optimizer.betas=[0.9,0.95]", "experiment=mnist", "threads=1", "name=x", "on_nan=skip",
]  # fmt: skip


def try_records(folder: Path) -> tuple[int, list[str]]:
    """Resume from a record with each word; the number, and the words that were inherited or dropped by mistake."""
    effects, run = [], RunFolder(folder)
    for word in RECORDS:
        with contextlib.suppress(ConfigError):
            effects += [f"{word}: inherited"] * bool(inherited_overrides([word], run))
    effects += [f"{word}: dropped" for word in KEPT if inherited_overrides([word], run) != [word]]
    for word in PATHS:
        with contextlib.suppress(ConfigError, OverrideParseException):
            effects.append(f"{word}: accepted as {inherited_overrides([word], run)}")
    return len(RECORDS) + len(PATHS) + len(KEPT), effects


def control(watch: Watch, folder: Path) -> tuple[int, list[str]]:
    """Do what the hook is to notice; the number of actions, and those that it missed."""
    made = folder / "control"
    actions: dict[str, Callable[[], Any]] = {
        "writing": lambda: made.write_text("x"),
        "renaming": lambda: made.rename(folder / "renamed"),
        "deleting": lambda: (folder / "renamed").unlink(),
        "a command": lambda: os.system("true"),
        "an import": lambda: import_module(PAYLOAD_MODULE),
        "evaluating": lambda: eval(f"'{PAYLOAD_MODULE}'"),
    }
    missed = []
    for name, action in actions.items():
        before = len(watch.seen)
        with watch.watching():
            action()
        missed += [f"{name} was not noticed"] * (len(watch.seen) == before)
    del sys.modules[PAYLOAD_MODULE]
    (folder / "imported").unlink()
    return len(actions), missed


def main() -> None:
    """Everything, in a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--every", type=int, default=1, help="make every so many-th call and attempt, for a short run")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    setup.silence_lightning()
    start, watch = time.monotonic(), Watch()
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "victim.ckpt").write_text("untouched")
        (folder / f"{PAYLOAD_MODULE}.py").write_text(
            f"import pathlib, torch\npathlib.Path({str(folder / 'imported')!r}).touch()\n"
            "def run(*_, **__):\n    raise SystemExit\nclass Module(torch.nn.Module):\n    pass\n"
        )
        sys.path.insert(0, str(folder))
        number, missed = control(watch, folder)
        figures["control"] = {"actions": number, "effects": missed}
        for at in ("model", "model.encoder", "optimizer", "scheduler", "data", "trainer", "callbacks"):
            targets, calls, effects = call_everything(watch, folder, at, options.every)
            figures[f"called at {at}"] = {"targets": targets, "calls": calls, "effects": effects}
        number, effects = call_activations(watch)
        figures["activations"] = {"names": number, "effects": effects}
        number, attempts, effects = try_payloads(watch, folder, options.every)
        figures["payloads"] = {"payloads": number, "attempts": attempts, "effects": effects}
        number, effects = try_archives(watch, folder)
        figures["archives"] = {"archives": number, "effects": effects}
        number, effects = try_records(folder)
        figures["records"] = {"words": number, "effects": effects}
        left = {path.name for path in folder.iterdir()}
        left -= {"victim.ckpt", f"{PAYLOAD_MODULE}.py", "__pycache__", "stranger.ckpt", "archive.ckpt"}
        touched = (folder / "victim.ckpt").read_text() != "untouched"
        figures["files"] = {"effects": sorted(left) + ["victim.ckpt"] * touched}
    if options.json:
        print(json.dumps(figures))
    else:
        for kind, found in figures.items():
            told = ", ".join(f"{value:,} {name}" for name, value in found.items() if name != "effects")
            print(f"{kind}: {told or 'none left'}; {len(found['effects'])} effects")
            for effect in found["effects"][:20]:
                print(f"  EFFECT {effect}")
        print(f"{time.monotonic() - start:.0f} s")
    sys.exit(any(found["effects"] for found in figures.values()))


if __name__ == "__main__":
    main()
