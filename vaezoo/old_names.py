"""Names in the records of earlier versions, so that old checkpoints still load and old runs can be resumed."""

import re
from typing import Any

# Old to new full names of classes and functions that a config's ``_target_`` may hold.
NEW_NAMES = {
    "vaezoo.callbacks.loggers.CSV": "vaezoo.loggers.CSV",
    "vaezoo.callbacks.loggers.TensorBoard": "vaezoo.loggers.TensorBoard",
    "vaezoo.callbacks.loggers.wandb_logger": "vaezoo.loggers.wandb_logger",
    "vaezoo.callbacks.images.Panels": "vaezoo.callbacks.images.Images",
    "vaezoo.callbacks.panels.Panels": "vaezoo.callbacks.images.Images",
    "vaezoo.flows.FlowPrior": "vaezoo.priors.FlowPrior",
    "vaezoo.flows.IAFPosterior": "vaezoo.families.IAFPosterior",
    "vaezoo.flows.PlanarPosterior": "vaezoo.families.PlanarPosterior",
    "vaezoo.nets.Conditioned": "vaezoo.nets.LabelConditioned",
    "vaezoo.objectives.DensityRatio": "vaezoo.objectives.AdversarialTotalCorrelation",
    "vaezoo.objectives.MomentPenalty": "vaezoo.objectives.CovariancePenalty",
    "vaezoo.posteriors.FullCovarianceNormal": "vaezoo.families.FullCovarianceNormal",
    "vaezoo.posteriors.diagonal_normal": "vaezoo.families.diagonal_normal",
    "vaezoo.quantizer.Quantizer": "vaezoo.nets.Quantizer",
    "vaezoo.schedulers.cosine": "vaezoo.training.schedulers.cosine",
    "vaezoo.spherical.HypersphericalUniform": "vaezoo.priors.HypersphericalUniform",
    "vaezoo.spherical.VonMisesFisher": "vaezoo.families.VonMisesFisher",
}

# Old to new config keys.
NEW_KEYS = {
    "callbacks.best": "callbacks.checkpoint_best",
    "callbacks.last": "callbacks.checkpoint_last",
    "callbacks.panels": "callbacks.images",
    "data.chunk": "data.batches_per_step",
    "trust": "allow_packages",
}

# Arguments that earlier versions did not have, with the values that those versions used. Their runs keep them.
OLD_DEFAULTS = {
    "vaezoo.models.VampVAE": {"bounded": True},
    "vaezoo.priors.VampPrior": {"bounded": True},
}

# Old to new names of numbers in summaries and in metrics.csv.
NEW_NUMBERS = {
    "log_p_images": "log_p_examples",
    "train_images_per_second": "train_examples_per_second",
    "step/images_per_second": "step/examples_per_second",
}


def update_numbers(values: dict[str, Any]) -> dict[str, Any]:
    """Return recorded numbers with their present names.

    >>> update_numbers({"log_p": -90.0, "log_p_images": 1000.0})
    {'log_p': -90.0, 'log_p_examples': 1000.0}
    """
    return {NEW_NUMBERS.get(name, name): value for name, value in values.items()}


def update_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded ``summary.json`` with the present names of the numbers in it."""
    parts = {name: update_numbers(part) for name in ("test", "units") if isinstance(part := summary.get(name), dict)}
    for name, unit in parts.get("units", {}).items():
        if isinstance(unit, dict) and isinstance(protocol := unit.get("protocol"), str):
            for old, new in NEW_NUMBERS.items():
                protocol = protocol.replace(f"{{{old}}}", f"{{{new}}}")
            parts["units"][name] = unit | {"protocol": protocol}
    return update_numbers(summary | parts)


def update_override(override: str) -> str:
    """Return a recorded override with the present name of its key.

    >>> update_override("~callbacks.panels"), update_override("callbacks.last.every_seconds=0")
    ('~callbacks.images', 'callbacks.checkpoint_last.every_seconds=0')
    """
    for old, new in NEW_KEYS.items():
        override = re.sub(rf"^([+~]*){re.escape(old)}(?=[.=@]|$)", rf"\g<1>{new}", override)
    return override


def update_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a recorded config with the present names of its keys and of the classes in it, and with new arguments.

    >>> update_config({"seed": 3, "callbacks": {"best": None, "monitor": {}}})
    {'seed': 3, 'callbacks': {'checkpoint_best': None, 'monitor': {}}}
    >>> update_config({"scheduler": {"_target_": "vaezoo.schedulers.cosine"}})
    {'scheduler': {'_target_': 'vaezoo.training.schedulers.cosine'}}
    >>> update_config({"prior": {"_target_": "vaezoo.priors.VampPrior", "num_components": 5}})
    {'prior': {'bounded': True, '_target_': 'vaezoo.priors.VampPrior', 'num_components': 5}}
    """

    def update(node: Any, path: str) -> Any:
        if path.endswith("_target_") and isinstance(node, str):
            return NEW_NAMES.get(node, node)
        if not isinstance(node, dict):
            return node
        paths = {key: f"{path}.{key}" if path else str(key) for key in node}
        updated = {
            NEW_KEYS[paths[key]].rpartition(".")[2] if paths[key] in NEW_KEYS else key: update(value, paths[key])
            for key, value in node.items()
        }
        return OLD_DEFAULTS.get(str(updated.get("_target_")), {}) | updated

    return update(config, "")
