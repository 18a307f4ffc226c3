"""Whether latent dimensions follow known factors."""

from vaezoo.data import FactorData
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import Found, Settings
from vaezoo.runs.trained import TrainedRun


def disentanglement(run: TrainedRun, settings: Settings) -> Found:
    """Whether dimensions follow factors, where they are known."""
    from vaezoo.metrics import disentanglement as metrics

    if not isinstance(run.data, FactorData):
        raise DoesNotApply(f"the factors of {type(run.data).__name__} are not known")
    codes, labels = run.codes("test")
    metric = metrics.Disentanglement()
    metric.update(code=codes, factors=labels)
    return Found(metric.compute(), metrics.QUANTITIES)
