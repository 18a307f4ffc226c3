"""The VQ-VAE's objective."""

from typing import Any

from torch import Tensor

from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace


class Commitment(Objective):
    """loss = -ELBO + commitment |z_e(x) - sg[e]|^2, summed over positions and dimensions, mean over the batch.

    van den Oord et al. 2017, eq. 3, whose codebook term is left to running means. z_e(x) is the
    encoder's output and e the nearest code. The rate is a constant, so free bits would mean nothing.

    Args:
        commitment: weight, >= 0.
    """

    has_kl_term = False

    def __init__(self, commitment: float = 0.25):
        super().__init__()
        self.set_weight("commitment", commitment)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        q: Any = trace.latent.q
        distance = (q.inputs - q.embeddings.detach()).square().flatten(1).sum(1).mean()
        loss = self.get_buffer("commitment") * distance - trace.elbo.mean()
        return {"loss": loss, "code_distance": distance}
