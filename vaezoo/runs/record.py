"""Record the command of a run or a sweep in its folder, or refuse a folder that holds results of another command."""

import shutil
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import RunFolder
from vaezoo.runs.overrides import may_resume, relevant_overrides, same_overrides

# Files and folders that a run without a checkpoint may leave. They are removed before the next one starts.
LEFTOVERS = ("metrics.csv", "panels", "index.html", "tensorboard")


def record_command(folder: RunFolder, cfg: DictConfig) -> None:
    """Record a command as Hydra would: its config, Hydra's own part of the config and the overrides.

    If the folder holds results of another command, it is refused and nothing in it changes.

    Args:
        folder: the run's folder, locked by this process.
        cfg: the config without Hydra's own part.

    Raises:
        ConfigError: the folder holds results of another command, or a training that this one would overwrite.
    """
    hydra = HydraConfig.get()
    overrides: list[str] = OmegaConf.to_container(hydra.overrides.task)  # type: ignore[assignment]
    recorded = folder.read_overrides()
    if folder.has_sweep or folder.has_training or folder.is_completed:
        check_results(folder, overrides, resumes=cfg.resume is not None)
    folder.remove_summary()
    if recorded is not None and not folder.has_training:
        for path in (folder.path / name for name in LEFTOVERS):
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
    folder.write_command(
        OmegaConf.to_yaml(cfg),
        OmegaConf.to_yaml(OmegaConf.create({"hydra": hydra})),
        OmegaConf.to_yaml(hydra.overrides.task),
    )


def check_results(folder: RunFolder, overrides: Sequence[str], resumes: bool) -> None:
    """Refuse a folder with results, unless they are of the same command and it may replace or resume them.

    Raises:
        ConfigError: the folder holds results of another command, or a training that this one would overwrite.
    """
    recorded = folder.read_overrides()
    if folder.has_sweep:
        raise ConfigError(f"{folder.path} holds a sweep: choose another hydra.run.dir")
    if recorded is None:
        raise ConfigError(
            f"{folder.path} holds results without a record of their command (.hydra/overrides.yaml): choose another "
            f"hydra.run.dir"
        )
    if not may_resume(overrides, recorded):
        command = " ".join(relevant_overrides(recorded)) or "without overrides"
        raise ConfigError(
            f"{folder.path} holds the run of another command ({command}): choose another hydra.run.dir, or delete it"
        )
    if folder.has_training and not resumes:
        kind = "comparison" if (folder.path / "runs").exists() else "run of this command"
        raise ConfigError(
            f"{folder.path} holds a {kind}: add resume=auto to continue it, or choose another hydra.run.dir"
        )


def check_sweep(folder: RunFolder, overrides: Sequence[str], resumes: bool) -> None:
    """Refuse a sweep's folder that holds jobs of another command, or jobs of this one if it does not resume them.

    Raises:
        ConfigError: the folder holds other results.
    """
    recorded = folder.read_overrides("sweep")
    if folder.read_overrides("run") is not None:
        raise ConfigError(f"{folder.path} holds a run: choose another hydra.sweep.dir")
    if recorded is None or not folder.read_jobs():
        return
    if not same_overrides(recorded, overrides):
        command = " ".join(relevant_overrides(recorded))
        raise ConfigError(
            f"{folder.path} holds the sweep of another command ({command}): choose another hydra.sweep.dir, or "
            f"delete it"
        )
    if not resumes:
        raise ConfigError(
            f"{folder.path} holds this sweep: add resume=auto to continue it, or choose another hydra.sweep.dir"
        )
