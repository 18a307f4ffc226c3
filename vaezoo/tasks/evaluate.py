"""Test a trained run again: the same data, the same noise, the same digits."""

import time
from typing import Any

from omegaconf import OmegaConf

from vaezoo.build import ConfigError
from vaezoo.checkpoint import CONFIG_KEY, find_checkpoint, read_checkpoint, restore
from vaezoo.tasks import common

# What a command line may say besides the run: where things are and on what they run.
CHANGEABLE = ("task", "run", "resume", "data", "trainer", "logger", "callbacks", "debug", "trust", "threads", "run_dir")


def evaluate(config: dict[str, Any]) -> None:
    """Test the best checkpoint of ``run``, on the data and with the settings of its own config.

    What the command line says of data and trainer goes before the run's config: a choice
    (``data=fashion_mnist``, ``trainer=cpu``) replaces it, a key (``data.root=...``) is set in it.
    """
    start = time.perf_counter()
    common.quiet()
    if not config["run"]:
        raise ConfigError("task=evaluate needs run=PATH, a trained run's folder such as outputs/DATE/TIME")
    path = find_checkpoint(config["run"])
    checkpoint = read_checkpoint(path)
    saved = checkpoint[CONFIG_KEY] | {"run_dir": config["run_dir"], "trust": config["trust"]}
    words = overrides()
    fixed = [text for text in words if text.split(".")[0].split("=")[0] not in CHANGEABLE]
    if fixed:
        raise ConfigError(f"{fixed[0]} cannot be changed: task=evaluate takes it from the run ({path})")
    chosen = {group for group in ("data", "trainer", "threads") for text in words if text.startswith(f"{group}=")}
    saved |= {group: config[group] for group in chosen}
    said = [text for text in words if text.startswith(("data.", "trainer."))]
    own: Any = OmegaConf.to_container(OmegaConf.merge(saved, OmegaConf.from_dotlist(said)))
    model, data = common.build_run(own)
    common.use_machine(own, model, data)
    restore(model, checkpoint, path)
    trainer = common.build_trainer(own, [], [], enable_progress_bar=False, enable_checkpointing=False)
    values = common.test(trainer, model, data)
    if trainer.is_global_zero:
        seconds = round(time.perf_counter() - start, 2)
        origin = {"checkpoint": str(path), "scored": common.scored(model, data)}
        common.write_summary(own, task="evaluate", **origin, test=values, wall_seconds=seconds)
        title = f"{own['name']} on {type(data).__name__}, {path}: test set, log p of {origin['scored']}"
        common.print_results(title, values, [f"run folder: {config['run_dir']}"])


def overrides() -> list[str]:
    """The command line's words that set a key."""
    from hydra.core.hydra_config import HydraConfig

    return [word.lstrip("+") for word in HydraConfig.get().overrides.task]
