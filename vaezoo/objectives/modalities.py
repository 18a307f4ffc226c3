"""Objectives of models of several modalities: they pull the posterior of each one towards the joint posterior."""

from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vaezoo.distributions import ExpertProduct
from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace


class ModalityKL(Objective):
    """The negative ELBO, and the KL of the joint posterior from the posterior given each modality alone.

        loss = -reconstruction E_q[log p(x | z)] + beta KL(q(z | x), p(z)) + alpha sum_m KL(q(z | x), q(z | x_m))

    with m over the observed modalities. The ELBO that is logged has none of the weights. The sum over m is logged as
    ``modality_kl``.

    * Suzuki et al. 2016, Joint Multimodal Learning with Deep Generative Models, https://arxiv.org/abs/1611.01891
      (JMVAE-kl): reconstruction = beta = 1.
    * Hwang et al. 2021, Multi-View Representation Learning via Total Correlation Objective, NeurIPS 2021 (MVTCAE):
      ``ModalityKL.total_correlation``.

    Args:
        alpha: weight of the KL from each modality; >= 0.
        beta: weight of the KL from the prior; >= 0.
        reconstruction: weight of log p(x | z); >= 0.
    """

    kl_weight = "beta"

    def __init__(self, alpha: float, beta: float = 1.0, reconstruction: float = 1.0):
        super().__init__()
        self.set_weight("alpha", alpha)
        self.set_weight("beta", beta)
        self.set_weight("reconstruction", reconstruction)

    @classmethod
    def total_correlation(cls, alpha: float, num_modalities: int, beta: float = 1.0) -> "ModalityKL":
        """Return the loss of the MVTCAE, with M modalities:

            -(M - alpha) / M E_q[log p(x | z)] + beta ((1 - alpha) KL(q, p) + alpha / M sum_m KL(q, q_m))

        Args:
            alpha: weight of the KL from each modality against that from the prior; in [0, 1].
            num_modalities: M.
            beta: weight of both; >= 0.

        Raises:
            ValueError: alpha is out of range.
        """
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1] for the objective mvtcae, got {alpha}")
        return cls(beta * alpha / num_modalities, beta * (1 - alpha), (num_modalities - alpha) / num_modalities)

    def modality_kl(self, trace: Trace) -> Tensor:
        """Return sum_m KL(q(z | x), q(z | x_m)), the mean over the batch, ().

        Raises:
            ValueError: the posterior is no product of experts.
        """
        q = trace.latent.q
        if not isinstance(q, ExpertProduct):
            raise ValueError("this objective needs the posterior of each modality: use model.aggregate=product")
        joint, single = q.base_dist, q.singles.base_dist
        one = Normal(joint.loc.unsqueeze(-2), joint.scale.unsqueeze(-2), validate_args=False)
        return (kl_divergence(one, single).sum(-1) * q.observed).sum(-1).mean()

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        weights, apart = self.weights(), self.modality_kl(trace)
        bound = weights["beta"] * self.kl_term(trace) - weights["reconstruction"] * trace.mean_log_px
        return {"loss": bound + weights["alpha"] * apart, "modality_kl": apart}
