"""The group ``probes``: classifiers of the codes."""

import torch

from vaezoo.data.pairs import ImagePairs
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import CODES, EvaluationResult, EvaluationSettings, context_noun
from vaezoo.runs.trained import TrainedRun


def probes(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Measure how well simple classifiers read the labels from the codes."""
    from vaezoo.metrics import probes as metrics

    if context_noun(run.data) != "labels":
        raise DoesNotApply(f"the {run.data.noun}s have conditions in the place of labels")
    if run.model.conditional:
        raise DoesNotApply(f"{type(run.model).__name__} is given the labels that a probe would look for")
    if isinstance(run.data, ImagePairs):
        raise DoesNotApply(f"the encoder gets the {run.data.part} of a {run.data.noun}, from which the class follows")
    if run.data.test.y.dim() != 1:
        raise DoesNotApply("the data have factors in place of labels: see the group disentanglement")
    classes = run.data.test.y.unique()
    if len(classes[classes >= 0]) < 2:
        raise DoesNotApply("the test set has fewer than two classes")
    metric = metrics.Probes()
    for is_test, (name, num) in enumerate((("train", CODES), ("test", None))):
        codes, labels = run.codes(name, num)
        codes, labels = codes[labels >= 0], labels[labels >= 0]  # -1: the label is missing
        metric.update(code=codes, y=labels, split=torch.full((len(labels),), is_test))
    return EvaluationResult(metric.compute(), metrics.QUANTITIES)
