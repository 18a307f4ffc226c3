"""Generated images against the test set."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.evaluation.base import BATCH, Found, Settings
from vaezoo.pictures import cycle_classes
from vaezoo.runs.trained import TrainedRun


def samples(run: TrainedRun, settings: Settings) -> Found:
    """Images of the model against as many of the test set, by the features of a network."""
    judge = judge_of(run, settings.inception)
    context = cycle_classes(judge.labels, judge.num).to(run.model.device)
    with torch.no_grad(), seeding.isolated(run.model.device, run.model.seed, "samples"):
        images = [judge.drawn(run.model.sample(len(y), y)) for y in context.split(BATCH)]
    bar = tqdm(images, "features of samples", disable=None, delay=1, leave=False)
    values = judge.scores(torch.cat([judge.of(x) for x in bar]))
    missing = "" if "recall" in values else f"; {judge.num} images are too few for precision, recall and their like"
    return Found(values | judge.references(), judge.metrics.QUANTITIES, judge.note + missing)


@lru_cache(maxsize=1)
def judge_of(run: TrainedRun, inception: str | None) -> "Judge":
    """The run's judge, made once for the groups that need it."""
    return Judge(run, inception)


class Judge:
    """The test set's features, by Inception where its weights are given, and what generated images are to be like.

    Bits are compared with bits: where a model scores bits, they are drawn from its p(x | z); else the mean is taken,
    since a density's noise is not in the picture that one means.
    """

    def __init__(self, run: TrainedRun, inception: str | None):
        from vaezoo.metrics import samples

        data = run.data
        self.metrics = samples
        self.run, self.labels, self.num = run, data.test.labels, len(data.test.images)
        self.bits = data.data_kind == "binary"
        self.net = network(run, inception)
        kind = "drawn from p(x | z)" if self.bits else "means of p(x | z)"
        self.note = f"samples are {kind}, judged by {self.net.describe()}; training images: what as many of them get"
        self.real = self.features("test")

    def features(self, split: str) -> Tensor:
        """Of as many of a split's images as the test set has, as the model sees them, (N, 64)."""
        return torch.cat([self.of(x) for x, _ in self.run.batches(split, self.num, "features")])

    def of(self, x: Tensor) -> Tensor:
        """The features of images, on the CPU."""
        return self.net(x.to(next(self.net.parameters()).device)).cpu()

    def drawn(self, px: Distribution) -> Tensor:
        """The images that stand for p(x | z)."""
        return (px.sample() if self.bits else px.mean).cpu()

    def scores(self, fake: Tensor) -> dict[str, float]:
        """All metrics of generated images' features."""
        metric = self.metrics.SampleMetrics()
        metric.update(real=self.real, fake=fake)
        return metric.compute()

    def references(self) -> dict[str, float]:
        """What as many training images get."""
        return self.metrics.references(self.scores(self.features("train")))


def network(run: TrainedRun, inception: str | None) -> Any:
    """Inception where its weights are given, on the run's device; else the one that is trained here."""
    if inception is not None:
        from vaezoo.metrics.inception import Inception

        return Inception(inception).to(run.model.device)
    from vaezoo.evaluation.features import features_for

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vaezoo" / "features"
    return features_for(run.data, cache)
