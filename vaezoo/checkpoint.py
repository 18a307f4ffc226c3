"""Trained models back from disk: no Hydra, no pickled code."""

from pathlib import Path
from typing import Any

import torch

from vaezoo.build import build
from vaezoo.models import LatentVariableModel

CONFIG_KEY = "vaezoo_config"


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path names: itself, or a run folder's best, or its last."""
    path = Path(path)
    if path.is_file():
        return path
    for name in ("best", "last"):
        checkpoint = path / "checkpoints" / f"{name}.ckpt"
        if checkpoint.is_file():
            return checkpoint
    what = "has no checkpoints/best.ckpt or checkpoints/last.ckpt" if path.is_dir() else "does not exist"
    raise FileNotFoundError(f"{path} {what}: give a run folder such as outputs/DATE/TIME, or a .ckpt file")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors and plain values alone.

    Raises:
        ValueError: it cannot be read, or vaezoo did not write it.
    """
    path = find_checkpoint(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises what it likes: pickle, zip, runtime, end of file
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].split(". ")[0][:80]
        raise ValueError(
            f"{path} is not a readable checkpoint ({reason}): use another one of the run, or train again"
        ) from error
    if not isinstance(checkpoint, dict) or CONFIG_KEY not in checkpoint or "state_dict" not in checkpoint:
        raise ValueError(f"{path} is not a checkpoint of a vaezoo run: it holds no config to rebuild its model from")
    return checkpoint


def restore(model: torch.nn.Module, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a model, or say in one sentence why they do not fit."""
    try:
        model.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit its own config ({str(error).splitlines()[-1].strip()})") from error
    broken = [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds numbers that are not finite, in {broken[0]}: use another checkpoint of the run")


def load(path: str | Path, trust: tuple[str, ...] = ()) -> LatentVariableModel:
    """A trained model, on the CPU and in eval mode: ``encode``, ``decode``, ``sample``, ``log_marginal``.

    Args:
        path: a run folder (its best checkpoint is taken) or a checkpoint.
        trust: packages of your own that the model's config may name.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: it cannot be read, or holds broken weights.
    """
    checkpoint = read_checkpoint(path)
    config = checkpoint[CONFIG_KEY]
    model = build(config["model"], "model", trust, seed=config["seed"])
    model.config = config
    restore(model, checkpoint, find_checkpoint(path))
    return model.eval()
