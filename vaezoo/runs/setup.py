"""Build the objects of a run from its config."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import lightning.pytorch as pl
import torch

from vaezoo.data import DataModule
from vaezoo.errors import ConfigError
from vaezoo.families import Family, Rescaled, WrappedFamily
from vaezoo.instantiate import build
from vaezoo.loggers import WandB, call_or_disable
from vaezoo.models import LatentVariableModel
from vaezoo.runs.checks import check_optimizer, check_trainer
from vaezoo.runs.shares import take_share
from vaezoo.training.machine import keep_freed_memory, set_threads, skip_gpu_probe
from vaezoo.training.schedulers import check_schedule

UNIT_INTERVAL = frozenset({"binary", "byte", "unit"})  # kinds of data in [0, 1]
AUTO = {"_target_": "auto"}  # conf/model/likelihood/auto.yaml


def silence_lightning() -> None:
    """Silence Lightning's routine messages, and those that do not apply to our loaders."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).handlers.clear()  # it would print each line twice, once through Hydra's handler
        logging.getLogger(name).setLevel(logging.ERROR)
    table = logging.getLogger("lightning.pytorch.callbacks.model_summary")  # printed only if the user asks for it
    table.setLevel(logging.INFO)
    table.handlers = [logging.StreamHandler()]
    # On a machine without a GPU, torch.compile warns that CUDA is missing.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*`devices=1`.*|.*GPU available but not used.*",
    ):
        warnings.filterwarnings("ignore", message=message)


def build_run(
    config: dict[str, Any], is_recorded: bool = False, content: Any = None
) -> tuple[dict[str, Any], LatentVariableModel, DataModule]:
    """Build the model and the data module of a config, and check that they fit together.

    Args:
        config: the resolved config of a run. It is not changed.
        is_recorded: whether it is the config that a trained run has recorded.
        content: as in ``match_data``.

    Returns:
        The config as it is recorded, in which everything that follows the data has its value (``match_data``); the
        model, with this config as ``model.config``; and the data module, before its ``setup`` if the config has the
        shape of the data.

    Raises:
        ConfigError: a value of the config is wrong, or the likelihood cannot score the data.
    """
    seed = config["seed"]
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed!r} should be an integer from 0 to {2**32 - 1}")
    check_optimizer(config["optimizer"] or {})
    config, data = match_data(config, is_recorded, content)
    model = build_model(config)
    if config["data"].get("binarize") == "auto":  # so that it is recorded
        binarize = data.resolve_binarize(model.likelihood.supported_data)  # type: ignore[attr-defined]  # of images
        config["data"]["binarize"] = binarize
    model.check_data_kind(data)
    return config, model, data


def build_model(config: dict[str, Any]) -> LatentVariableModel:
    """Build the model of a config that follows no data (``match_data``), with its optimizer and its scheduler.

    Args:
        config: the resolved config of a run, which becomes ``model.config``.
    """
    allow_packages, seed = tuple(config["allow_packages"]), config["seed"]
    scheduler, interval = build_schedule(config["scheduler"] or {}, allow_packages)
    pl.seed_everything(seed, verbose=False)  # before the model is built: its initial weights are random
    model: LatentVariableModel = build(
        config["model"],
        "model",
        allow_packages,
        seed=seed,
        optimizer=build(config["optimizer"], "optimizer", allow_packages),
        scheduler=scheduler,
        scheduler_interval=interval,
        on_nan=config["on_nan"],
        compiled=config["compile"],
    )
    model.config = config
    return model


def build_schedule(node: dict[str, Any], allow_packages: tuple[str, ...]) -> tuple[Any, str | None]:
    """Build what makes the learning-rate schedule, and return it with the interval of the config.

    Args:
        node: the config of the schedule: a class or a function of ``PLACES`` with its own arguments, and perhaps
            ``interval``; empty: there is none.
        allow_packages: the user's own packages.

    Raises:
        ConfigError: an argument is wrong or missing.
    """
    if not node:
        return None, None
    if "_target_" not in node:
        raise ConfigError("scheduler._target_ is missing: choose a scheduler, scheduler=NAME, or name a class of torch")
    arguments = {key: value for key, value in node.items() if key != "interval"}
    factory, interval = build(arguments | {"_partial_": True}, "scheduler", allow_packages), node.get("interval")
    check_schedule(factory, interval)
    return factory, interval


def match_data(
    config: dict[str, Any], is_recorded: bool = False, content: Any = None
) -> tuple[dict[str, Any], DataModule]:
    """Build the data module, and replace what follows the data in the config by its value.

    * ``data.root`` and ``data.path`` become absolute, so that the run can be evaluated from another working directory.
    * ``data.shape: null``, or a ``data.condition``: the data are read now, and data and model get their shape. So does
      a model with a condition, ``model.context_shape``.
    * ``model/likelihood=auto``: the default likelihood of the kind of data. Any other likelihood of standardized
      columns reports log p(x) in the user's units, too.
    * ``null`` in ``model/likelihood=token_sequence``: the vocabulary's size, the length and the end token of the data.
    * ``bounded: null`` of a VampPrior: whether the data are in [0, 1].
    * If entries are missing: a likelihood that leaves them out, and an encoder that sees which they are. If the data
      are tokens: an encoder with a vector for each of them.

    Args:
        config: the resolved config of a run. It is not changed.
        is_recorded: whether it is the config that a trained run has recorded. Its likelihood stays as it is: earlier
            versions scored standardized columns.
        content: data in memory: a data module that takes the place of the config's, or what such a module would read
            from a file (``ArrayData``, ``TableData`` and ``TextData`` have an attribute ``content``); None: the data
            are in files.

    Returns:
        The new config, and the data module.
    """
    allow_packages = tuple(config["allow_packages"])
    data_config, model_config = absolute_paths(config["data"]), dict(config["model"])
    data: DataModule
    if isinstance(content, DataModule):
        data = content
    else:
        data = build(data_config, "data", allow_packages, seed=config["seed"])
        if content is not None:
            data.content = content  # type: ignore[attr-defined]  # of those that can take it
    has_condition = data_config.get("condition") is not None and not is_recorded
    if has_condition:  # x may be a part of an image
        data.known_shape = data_config["shape"] = model_config["data_shape"] = None
    if data.known_shape is None or data_config.get("shape", ...) is None:
        if data.known_shape is None:
            data.prepare_data()
        data_config["shape"] = list(data.shape or ())
        if model_config.get("data_shape", ...) is None:
            model_config["data_shape"] = data_config["shape"]
    if has_condition and "context_shape" in model_config:
        model_config["context_shape"] = list(data.context_shape)
    if model_config.get("likelihood") == AUTO:
        if data_config.get("binarize") == "auto":
            data_config["binarize"] = data.resolve_binarize(None)  # type: ignore[attr-defined]  # of images
        model_config["likelihood"] = data.likelihood_config()
    elif "likelihood" in model_config and data.data_kind == "real" and data.is_standardized and not is_recorded:
        family: Family = build(model_config["likelihood"], "model.likelihood", allow_packages)
        if "real" in family.supported_data and not isinstance(family, WrappedFamily):
            model_config["likelihood"] = data.in_user_units(model_config["likelihood"])
    if (likelihood := model_config.get("likelihood") or {}).get("num_tokens", ...) is None:
        model_config["likelihood"] = fill_token_sizes(likelihood, data)
    prior = model_config.get("prior")
    if isinstance(prior, dict) and prior.get("bounded", ...) is None:
        model_config["prior"] = prior | {"bounded": data.data_kind in UNIT_INTERVAL}
    if model_config.get("bounded", ...) is None:
        model_config["bounded"] = data.data_kind in UNIT_INTERVAL
    wrap_parts(model_config, data, allow_packages)
    return config | {"data": data_config, "model": model_config}, data


def absolute_paths(data_config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of data with absolute paths.

    Raises:
        ConfigError: a path is not text.
    """
    paths = {}
    for key, noun in {"root": "folder", "path": "file"}.items():
        if not isinstance(path := data_config.get(key, ""), str):
            raise ConfigError(f"data.{key}={path} should be the name of a {noun}")
        if path not in ("", "???"):  # ??? stands for a value that the user must give
            paths[key] = os.path.abspath(os.path.expanduser(path))
    return data_config | paths


def fill_token_sizes(likelihood: dict[str, Any], data: DataModule) -> dict[str, Any]:
    """Return the config of a likelihood of tokens in which each null that the data decide is replaced.

    Args:
        likelihood: the config node of a family of tokens.
        data: the data module.

    Raises:
        ConfigError: the data are no tokens.
    """
    if getattr(data, "features", None) == "counts":
        raise ConfigError(
            "this model writes sentences of tokens, but data.features=counts makes counts of words: leave it out, or "
            "use a model of counts such as model=prod_lda"
        )
    if data.data_kind != "token":
        raise ConfigError(
            f"this model writes sentences of tokens, but {type(data).__name__} has {data.noun}s: use data=topics, or "
            f"data=text data.path=FILE with a sentence per line, or a model of {data.noun}s such as model=mlp_vae"
        )
    sizes = data.likelihood_config()
    return likelihood | {key: value for key, value in sizes.items() if likelihood.get(key, ...) is None}


def wrap_parts(model_config: dict[str, Any], data: DataModule, allow_packages: tuple[str, ...]) -> None:
    """Wrap encoder and likelihood in a model's config: the encoder takes such data, and missing entries are left out.

    Args:
        model_config: the config of a model; it is changed.
        data: the data module (``DataModule.input_config``).
        allow_packages: the user's own packages.
    """
    wrapper = data.input_config()
    if wrapper is None or "likelihood" not in model_config or "encoder" not in model_config:
        return  # the class has its own parts
    family: Family = build(model_config["likelihood"], "model.likelihood", allow_packages)
    if data.has_missing and not family.supports_missing:
        model_config["likelihood"] = {"_target_": "vaezoo.families.Masked", "family": model_config["likelihood"]}
    if model_config["encoder"].get("_target_") != wrapper["_target_"]:  # a config of a run has it already
        model_config["encoder"] = wrapper | {"_partial_": True, "net": model_config["encoder"]}


def describe_choice(model: LatentVariableModel, data: DataModule) -> str:
    """Describe the kind of data, the likelihood and how to choose another one, in a line."""
    family: Any = model.likelihood
    names = [type(family).__name__]
    while isinstance(family := getattr(family, "family", None), Family):  # a wrapper, such as Masked
        names.append(type(family).__name__)
    binarize = getattr(data, "binarize", "none")
    drawn = f", data.binarize={binarize}" if binarize != "none" else ""
    given = ", y" if model.conditional else ""
    return f"{data.data_kind} data{drawn}; log p(x | z{given}): {' of '.join(names)} (model/likelihood=NAME changes it)"


def configure_machine(model: LatentVariableModel, data: DataModule, threads: int | None) -> None:
    """Set the number of threads, take the share of a job beside others, and set the layout of the memory, for speed.

    Args:
        model: its parameters are laid out anew.
        data: its batch size says, with the model's size, how much there is to compute.
        threads: number of threads on the CPU; None: one for a small model, else torch's choice.
    """
    set_threads(threads, sum(p.numel() for p in model.parameters()) * data.batch_size)
    take_share(torch.get_num_threads())
    keep_freed_memory()
    skip_gpu_probe()
    model.to(memory_format=torch.channels_last)  # convolutions on CPUs are fastest in this layout


def build_callbacks(config: dict[str, Any]) -> list[pl.Callback]:
    """Build the callbacks of a config; those that are null are left out.

    Raises:
        ConfigError: an entry is neither null nor a callback.
    """
    built = build(config["callbacks"], "callbacks", tuple(config["allow_packages"]))
    for name, callback in built.items():
        if callback is not None and not isinstance(callback, pl.Callback):
            raise ConfigError(f"callbacks.{name}={callback} should be null, or have the _target_ of a callback")
    return [callback for callback in built.values() if callback is not None]


def build_trainer(config: dict[str, Any], loggers: list, callbacks: list, **settings: Any) -> pl.Trainer:
    """Build the trainer of a config.

    Args:
        config: the resolved config of a run.
        loggers: built loggers.
        callbacks: built callbacks.
        **settings: further arguments of the trainer.

    Raises:
        ConfigError: a setting of the trainer is wrong.
    """
    trainer = config["trainer"] | settings
    check_trainer(trainer)
    if not trainer.get("enable_progress_bar", True):  # then Lightning refuses any progress bar
        callbacks = [c for c in callbacks if not isinstance(c, pl.callbacks.ProgressBar)]
    return build(trainer, "trainer", logger=loggers, callbacks=callbacks, default_root_dir=config["run_dir"])


def test(trainer: pl.Trainer, model: LatentVariableModel, data: DataModule) -> dict[str, float]:
    """Return the test numbers: exact means over the test images, in float64."""
    trainer.test(model, data, verbose=False)
    return model.results["test"]


def log_likelihood_kind(model: LatentVariableModel, data: DataModule) -> str:
    """Return the measure of log p(x): "bits", "levels" (8-bit), "counts", "tokens", "categories", "columns of several
    kinds" or "density". ELBOs compare only within one.

    If the data module has standardized real numbers and the likelihood does not report log p(x) in the user's units,
    " of standardized columns" is added. So is what else log p(x) is of (``Family.measure``), and for a model that is
    given labels, " given y".
    """
    discrete = {"binary": "bits", "count": "counts", "token": "tokens", "categorical": "categories"}
    kinds = discrete | {"mixed": "columns of several kinds"}
    kind = "levels" if model.likelihood.supported_data == {"byte"} else kinds.get(data.data_kind, "density")
    if data.is_standardized and not any(isinstance(part, Rescaled) for part in model.likelihood.modules()):
        kind += " of standardized columns"
    kind = f"{kind} {model.likelihood.measure}".rstrip()
    return f"{kind} given y" if model.conditional else kind


@contextmanager
def open_loggers(config: dict[str, Any]) -> Iterator[list[Any]]:
    """Build the loggers of a config, and close W&B's run when the block ends, also after an error.

    A second run in this process would otherwise be added to the first one, without a warning.
    """
    loggers: list[Any] = []
    try:
        loggers += filter(None, build(config["logger"], "logger", tuple(config["allow_packages"])).values())
        yield loggers
    except BaseException:
        finish_wandb(loggers, exit_code=1)
        raise
    finish_wandb(loggers, exit_code=0)


def finish_wandb(loggers: list[Any], exit_code: int) -> None:
    """Finish W&B's run, if this process has one.

    Args:
        loggers: those of the run.
        exit_code: 0 if the run has ended without an error.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    logger = next((logger for logger in loggers if isinstance(logger, WandB)), WandB(experiment=wandb.run))
    call_or_disable(logger, wandb.finish, exit_code=exit_code)
    if logger.disabled:
        with suppress(Exception):  # W&B's connection has failed
            wandb.teardown(exit_code)  # otherwise W&B tries again when the interpreter exits, with a traceback
