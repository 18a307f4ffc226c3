"""Weights & Biases without questions: no prompt, no hang, no account needed."""

import os
import sys
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only


def wandb_logger(
    save_dir: str, project: str = "vaezoo", name: str | None = None, init_timeout: float = 20.0, **settings: Any
) -> WandbLogger | None:
    """A W&B logger that is online if it can be.

    WANDB_MODE decides where it is set; else a stored or exported API key makes it online, and offline
    after all when no connection comes within ``init_timeout``; without a key it is offline. Offline
    runs lie in ``save_dir``/wandb, for ``wandb sync`` and ``wandb leet``.

    Args:
        save_dir: the run's folder.
        project: W&B project.
        name: the run's name.
        init_timeout: seconds to wait for a connection.
        **settings: further arguments of ``wandb.init``, such as ``entity``, ``group`` or ``tags``.

    Returns:
        The logger; None in every process but the first.
    """
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]  # Lightning hangs it on the decorator
        return None
    import wandb

    def start(mode: Any):
        # A Settings object is changed by init: a fresh one per attempt.
        quiet = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
        return wandb.init(dir=save_dir, project=project, name=name, mode=mode, settings=quiet, **settings)

    try:
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        run = start(mode)
    except (wandb.Error, TimeoutError) as error:
        reason = str(error).strip().splitlines()[0]
        print(f"W&B is not to be had online ({reason}): this run is logged offline", file=sys.stderr)
        run = start("offline")
    return WandbLogger(experiment=run)
