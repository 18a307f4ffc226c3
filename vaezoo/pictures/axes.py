"""The axes of a latent space: how much each dimension is used, and where its codes lie."""

from typing import NamedTuple

from torch import Tensor

from vaezoo.models import LatentVariableModel
from vaezoo.types import Batch


class LatentAxes(NamedTuple):
    """The D dimensions of a flat latent, ranked by their use.

    Args:
        usage: the larger, the more a dimension is used, (D,): its KL if the model has a KL for each dimension, else the
            variance of its codes.
        usage_name: "KL (nats)" or "variance".
        center: mean of each dimension, (D,).
        scale: standard deviation of each dimension, (D,).
        source: what ``center`` and ``scale`` are computed from: "prior" or "codes".
    """

    usage: Tensor
    usage_name: str
    center: Tensor
    scale: Tensor
    source: str


def measure_latent_axes(model: LatentVariableModel, batch: Batch) -> LatentAxes | None:
    """Measure the use of the latent dimensions on a batch; None if the model does not have one flat latent."""
    latents = model(batch.x, batch.y, num_samples=1).latents
    shape = model.latent_shape
    if len(shape) != 1 or len(latents) > 1:
        return None
    if latents and latents[0].kl_per_dim is not None:
        p = latents[0].p
        centre, spread = (value.reshape(-1, *shape)[0] for value in (p.mean, p.stddev))
        return LatentAxes(latents[0].kl_per_dim.mean(0), "KL (nats)", centre, spread, "prior")
    codes = model.encode(batch.x, batch.y)
    return LatentAxes(codes.var(0), "variance", codes.mean(0), codes.std(0), "codes")
