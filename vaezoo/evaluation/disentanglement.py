"""The group ``disentanglement``: whether latent dimensions follow known factors."""

from vaezoo.data import FactorData
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings
from vaezoo.runs.trained import TrainedRun


def disentanglement(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Measure whether latent dimensions follow the factors of the data, if these are known."""
    from vaezoo.metrics import disentanglement as metrics

    if not isinstance(run.data, FactorData):
        raise DoesNotApply(f"the factors of {type(run.data).__name__} are not known")
    codes, labels = run.codes("test")
    metric = metrics.Disentanglement()
    metric.update(code=codes, factors=labels)
    return EvaluationResult(metric.compute(), metrics.QUANTITIES)
