"""Losses with a discriminator, a network that is trained to tell two samples apart."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from vaezoo.nets import MLP
from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace
from vaezoo.types import Shape


def permute_dims(z: Tensor) -> Tensor:
    """Permute each column of z (n, D) independently: samples of q(z) become samples of prod_d q(z_d)."""
    return z.gather(0, torch.rand_like(z).argsort(0))


class AdversarialTotalCorrelation(Objective):
    """The negative ELBO plus the total correlation of q(z), which a discriminator (the critic) estimates.

        loss = -ELBO + gamma E_{q(z)}[log D(z) / (1 - D(z))],  D = sigmoid(critic)
        critic_loss = -1/2 E_{q(z)}[log D(z)] - 1/2 E_{prod_d q(z_d)}[log(1 - D(z))]

    The critic learns to tell samples of q(z) from samples of prod_d q(z_d). Its loss is log 2 if it cannot. The logit
    of the best critic is log q(z) / prod_d q(z_d), and the mean of that under q(z) is the total correlation.

    Kim & Mnih 2018, Disentangling by Factorising, https://arxiv.org/abs/1802.05983, eq. 2 and 3.

    The returned "loss" has the value of the first line and the gradients of both: the first line treats the critic's
    parameters as constants, the second treats z as a constant. So one optimizer step trains model and critic, and
    neither loss reaches the parameters of the other.

    Args:
        latent_shape: shape of one z.
        gamma: weight of the total correlation; >= 0.
        hidden: width of each hidden layer of the critic.
        lr: learning rate of the critic.
        betas: Adam's betas for the critic.
    """

    is_batch_coupled = True

    def __init__(
        self,
        latent_shape: Shape,
        gamma: float,
        hidden: Sequence[int],
        lr: float,
        betas: Sequence[float] = (0.5, 0.9),
    ):
        super().__init__()
        self.set_weight("gamma", gamma)
        self.critic = MLP(latent_shape, (1,), hidden, "leaky_relu")
        self.optimizer_settings = {"lr": lr, "betas": tuple(betas)}

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        z = trace.latent.z.flatten(0, 1).flatten(1)  # (K B, D)
        constant = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        tc = functional_call(self.critic, constant, (z,)).to(z.dtype).mean()

        z = z.detach()
        joint = self.critic(z).to(z.dtype)  # autocast may have returned bf16
        product = self.critic(permute_dims(z)).to(z.dtype)
        critic_loss = (F.softplus(-joint).mean() + F.softplus(product).mean()) / 2

        loss = self.kl_term(trace) - trace.mean_log_px + self.get_buffer("gamma") * tc
        return {"loss": loss + (critic_loss - critic_loss.detach()), "tc": tc, "critic_loss": critic_loss}
