"""The record of a run's command: it belongs to the command that holds the folder's lock."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from vaezoo.errors import ConfigError
from vaezoo.runs.folder import JOB_RECORD, SWEEP_RECORD, read_jobs, read_summary, relevant_overrides, write_atomic
from vaezoo.runs.resume import (
    OVERRIDE_FILES,
    comparison_defaults,
    is_larger_comparison,
    may_continue,
    read_overrides,
    same_overrides,
)

# Files and folders that an attempt may leave without a checkpoint. They are removed before a new attempt.
LEFTOVERS = ("metrics.csv", "panels", "tensorboard")


def record_command(folder: Path, cfg: DictConfig) -> None:
    """Write the record of the present command into its folder, as Hydra would: config, hydra and overrides.

    If the folder holds results of another command, it is refused and nothing in it changes. What an earlier attempt
    left without a checkpoint is removed before the record changes.

    Args:
        folder: locked by this process.
        cfg: the config without Hydra's own part.

    Raises:
        ConfigError: the folder holds results of another command, or a training that this one would overwrite.
    """
    words: list[str] = OmegaConf.to_container(HydraConfig.get().overrides.task)  # type: ignore[assignment]
    place = folder / OVERRIDE_FILES["run"]
    before = read_overrides(folder, "run")
    sweep = (folder / SWEEP_RECORD).exists()
    trained = any((folder / "checkpoints").glob("*.ckpt")) or any((folder / "runs").glob(f"*/{JOB_RECORD}"))
    if sweep or trained or read_summary(folder).get("status") == "completed":
        if sweep or before is None:
            held = "a sweep" if sweep else f"results without the record of their command ({place.name})"
            raise ConfigError(f"{folder} holds {held}: choose another hydra.run.dir")
        if not may_continue(words, before):
            command = " ".join(relevant_overrides(before)) or "without overrides"
            raise ConfigError(
                f"{folder} holds the run of another command ({command}): choose another hydra.run.dir, or delete it"
            )
        if trained and cfg.resume is None:
            kind = "comparison" if (folder / "runs").exists() else "run of this command"
            raise ConfigError(f"{folder} holds a {kind}: resume=auto goes on with it, or choose another hydra.run.dir")
    (folder / "summary.json").unlink(missing_ok=True)
    if before is not None and not trained:
        for name in LEFTOVERS:
            (folder / name).unlink() if (folder / name).is_file() else shutil.rmtree(folder / name, ignore_errors=True)
    place.parent.mkdir(exist_ok=True)
    write_atomic(place.with_name("config.yaml"), OmegaConf.to_yaml(cfg))
    write_atomic(place.with_name("hydra.yaml"), OmegaConf.to_yaml(OmegaConf.create({"hydra": HydraConfig.get()})))
    write_atomic(place, OmegaConf.to_yaml(HydraConfig.get().overrides.task))


def check_sweep(folder: Path, words: Sequence[str], resumes: bool) -> None:
    """Refuse a sweep's folder that holds another command's jobs, or those of this one when it does not resume.

    Raises:
        ConfigError: the folder is in use by other results.
    """
    before = read_overrides(folder, "sweep")
    if read_overrides(folder, "run") is not None:
        raise ConfigError(f"{folder} holds a run: choose another hydra.sweep.dir")
    if before is None or not read_jobs(folder):
        return
    if not same_overrides(before, words) and not is_larger_comparison(words, before, comparison_defaults()):
        raise ConfigError(
            f"{folder} holds the sweep of another command ({' '.join(relevant_overrides(before))}): choose another "
            f"hydra.sweep.dir, or delete it"
        )
    if not resumes:
        raise ConfigError(f"{folder} holds this sweep: resume=auto goes on with it, or choose another hydra.sweep.dir")
