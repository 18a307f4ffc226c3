"""The loss of the VQ-VAE."""

from typing import Any

from torch import Tensor

from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace


class Commitment(Objective):
    """The negative ELBO plus the commitment loss.

        loss = -ELBO + commitment |z_e(x) - sg[e]|^2

    z_e(x) is the output of the encoder, e the nearest code of the codebook, and sg stops the gradient. The square is
    summed over positions and dimensions; the loss is the mean over the batch.

    van den Oord et al. 2017, Neural Discrete Representation Learning, https://arxiv.org/abs/1711.00937, eq. 3. Its term
    for the codebook is not here, because ``vaezoo.nets.Quantizer`` updates the codebook by running means.

    Args:
        commitment: weight of the commitment loss; >= 0.
    """

    has_kl_term = False  # KL(q, p) is a constant, which free bits cannot change

    def __init__(self, commitment: float):
        super().__init__()
        self.set_weight("commitment", commitment)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        q: Any = trace.latent.q
        distance = (q.inputs - q.embeddings.detach()).square().flatten(1).sum(1).mean()
        loss = self.get_buffer("commitment") * distance - trace.elbo.mean()
        return {"loss": loss, "code_distance": distance}
