"""Classifiers of the codes."""

import torch

from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import CODES, Found, Settings
from vaezoo.runs.trained import TrainedRun


def probes(run: TrainedRun, settings: Settings) -> Found:
    """Whether labels are in the code."""
    from vaezoo.metrics import probes as metrics

    if run.model.conditional:
        raise DoesNotApply(f"{type(run.model).__name__}'s encoder is given the labels that a probe would look for")
    if run.data.test.labels.dim() != 1:
        raise DoesNotApply("the data has factors in place of labels: see disentanglement")
    if len(run.data.test.labels.unique()) < 2:
        raise DoesNotApply("the test set has fewer than two classes")
    metric = metrics.Probes()
    for judged, (name, num) in enumerate((("train", CODES), ("test", None))):
        codes, labels = run.codes(name, num)
        metric.update(code=codes, y=labels, split=torch.full((len(labels),), judged))
    return Found(metric.compute(), metrics.QUANTITIES)
