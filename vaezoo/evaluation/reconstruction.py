"""The group ``reconstruction``: similarity of images and their reconstructions."""

import torch

from vaezoo.data import ImageData
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings
from vaezoo.runs.trained import TrainedRun


def reconstruction(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Compare the test images with the means of p(x | z = encode(x))."""
    from vaezoo.metrics import samples as metrics

    if not isinstance(run.data, ImageData):
        raise DoesNotApply(f"PSNR and SSIM compare pictures, and {type(run.data).__name__} has {run.data.noun}s")
    metric = metrics.ReconstructionMetrics()
    with torch.no_grad():
        for x, y in run.batches("test", what="reconstruction"):
            metric.update(x.cpu(), run.model.autoencode(x, y).mean.cpu())
    values = metric.compute()
    missing = [name for name in ("ssim", "ms_ssim") if name not in values]
    notes = []
    if missing:
        size = "x".join(map(str, run.model.data_shape[1:]))
        notes.append(f"images of {size} are too small for {' and '.join(missing)}")
    if exact := metric.num_exact:
        equal = "equals its image" if exact == 1 else "equal their images"
        num = int(metric.count)
        notes.append(f"psnr is left out: {exact} of {num} reconstructions {equal} exactly (infinite PSNR)")
    return EvaluationResult(values, metrics.QUANTITIES, "; ".join(notes))
