"""The groups of metrics by name."""

from collections.abc import Callable

from vaezoo.errors import ConfigError
from vaezoo.evaluation.ais import annealed
from vaezoo.evaluation.anomaly import anomaly
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings
from vaezoo.evaluation.disentanglement import disentanglement
from vaezoo.evaluation.ex_post_density import samplers
from vaezoo.evaluation.latent import latent
from vaezoo.evaluation.likelihood import likelihood
from vaezoo.evaluation.probes import probes
from vaezoo.evaluation.reconstruction import reconstruction
from vaezoo.evaluation.samples import samples
from vaezoo.runs.trained import TrainedRun

GROUPS: dict[str, Callable[[TrainedRun, EvaluationSettings], EvaluationResult]] = {
    group.__name__: group
    for group in (likelihood, annealed, latent, probes, reconstruction, samples, samplers, disentanglement, anomaly)
}


def select_groups(metrics: str | list) -> list[str]:
    """The names of the groups in ``task.metrics``.

    Raises:
        ConfigError: there is no such group.
    """
    names = list(GROUPS) if metrics == "all" else [metrics] if isinstance(metrics, str) else metrics
    if set(names) - set(GROUPS):
        raise ConfigError(f"task.metrics={metrics} should be all, or a list of {', '.join(GROUPS)}")
    return names
