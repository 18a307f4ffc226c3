"""Metrics: torchmetrics, so that they are right over ragged batches and several processes."""

from vaezoo.metrics.mean import ExampleMean

__all__ = ["ExampleMean"]
