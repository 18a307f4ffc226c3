"""The group ``samples``: generated images against the test set."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.data import ImageData
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import BATCH, EvaluationResult, EvaluationSettings
from vaezoo.pictures import cycle_classes
from vaezoo.runs.trained import TrainedRun


def samples(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Compare generated images with as many test images, by the features of a network."""
    evaluator = get_sample_evaluator(run, settings.inception)
    context = cycle_classes(evaluator.labels, evaluator.num_images).to(run.model.device)
    with torch.no_grad(), seeding.isolated(run.model.device, run.model.seed, "samples"):
        images = [evaluator.to_images(run.model.sample(len(y), y)) for y in context.split(BATCH)]
    bar = tqdm(images, "features of samples", disable=None, delay=1, leave=False)
    values = evaluator.scores(torch.cat([evaluator.features(x) for x in bar]))
    note = evaluator.note
    if "recall" not in values:
        note += f"; {evaluator.num_images} images are too few for precision, recall, density and coverage"
    return EvaluationResult(values | evaluator.references(), evaluator.metrics.QUANTITIES, note)


@lru_cache(maxsize=1)
def get_sample_evaluator(run: TrainedRun, inception: str | None) -> "SampleEvaluator":
    """The run's evaluator, created once for the groups ``samples`` and ``samplers``."""
    return SampleEvaluator(run, inception)


class SampleEvaluator:
    """Compare generated images with the test set, by the features of a network.

    A model of bits is judged by bits that are drawn from its p(x | z), all others (levels, densities) by the mean of
    p(x | z): samples would add noise to the image.

    Args:
        run: the run.
        inception: a file with Inception's weights. If None, the network is trained on the run's data.
    """

    def __init__(self, run: TrainedRun, inception: str | None):
        from vaezoo.evaluation.features import with_labels
        from vaezoo.metrics import samples

        data = run.data
        if not isinstance(data, ImageData) or len(data.shape or ()) != 3:
            raise DoesNotApply(f"the features are those of pictures, and {type(data).__name__} has {data.noun}s")
        if inception is None and not len(with_labels(data.train).y):  # type: ignore[arg-type]  # after its setup
            raise DoesNotApply(
                f"the network of the features is trained on labels, and the {data.noun}s have none: give Inception's "
                f"weights, task.inception=FILE"
            )
        if data.condition is not None:
            raise DoesNotApply("the features are those of whole images without a condition")
        self.metrics = samples
        self.run, self.labels, self.num_images = run, data.test.y, len(data.test.x)
        self.is_binary = data.data_kind == "binary"
        self.net = feature_network(run, inception)
        kind = "drawn from p(x | z)" if self.is_binary else "means of p(x | z)"
        self.note = (
            f"samples are {kind}, judged by {self.net.describe()}; 'training images' is the score of as "
            f"many training images"
        )
        self.real = self.split_features("test")

    def split_features(self, split: str) -> Tensor:
        """The features of a split's images as the model gets them, (N, F), as many as the test set has."""
        return torch.cat([self.features(x) for x, _ in self.run.batches(split, self.num_images, "features")])

    def features(self, x: Tensor) -> Tensor:
        """The features of images, on the CPU."""
        return self.net(x.to(next(self.net.parameters()).device)).cpu()

    def to_images(self, px: Distribution) -> Tensor:
        """Images from p(x | z), on the CPU: draws if the data are bits, else means."""
        return (px.sample() if self.is_binary else px.mean).cpu()

    def scores(self, fake: Tensor) -> dict[str, float]:
        """Compute all metrics of generated images from their features."""
        metric = self.metrics.SampleMetrics()
        metric.update(real=self.real, fake=fake)
        return metric.compute()

    def references(self) -> dict[str, float]:
        """The scores of as many training images in place of generated ones."""
        return self.metrics.references(self.scores(self.split_features("train")))


def feature_network(run: TrainedRun, inception: str | None) -> Any:
    """Inception on the run's device if its weights are given, else a network trained on the run's data."""
    if inception is not None:
        from vaezoo.metrics.inception import Inception

        return Inception(inception).to(run.model.device)
    from vaezoo.evaluation.features import features_for

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vaezoo" / "features"
    assert isinstance(run.data, ImageData)  # by ``SampleEvaluator``
    return features_for(run.data, cache)
