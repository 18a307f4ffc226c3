"""Objectives with a critic: a network of their own that tells two samples apart."""

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
    """z (n, D) with each column in a random order of its own: a sample of prod_d q(z_d)."""
    return z.gather(0, torch.rand_like(z).argsort(0))


class AdversarialTotalCorrelation(Objective):
    """loss = -ELBO + gamma E_{q(z)}[log D(z) / (1 - D(z))], D = sigmoid(critic)
    (Kim & Mnih 2018, https://arxiv.org/abs/1802.05983, eq. 2 and 3).

    The critic learns to tell samples of q(z) from samples of prod_d q(z_d), by

        critic_loss = -1/2 E_{q(z)}[log D(z)] - 1/2 E_{prod_d q(z_d)}[log(1 - D(z))]

    which is log 2 where it cannot. At its optimum its logit is log q(z) / prod_d q(z_d), whose mean is
    the total correlation. Both losses are in one "loss", which has the VAE's value: the VAE's term
    holds the critic constant and the critic's term holds z constant, so each parameter has its own
    gradient and no other. Both are taken at the critic before the step.

    Args:
        latent_shape: shape of one z.
        gamma: weight of the total correlation; >= 0.
        hidden: width of each of the critic's hidden layers.
        lr: learning rate of the critic's Adam.
        betas: of the critic's Adam.
    """

    is_batch_coupled = True

    def __init__(
        self,
        latent_shape: Shape,
        gamma: float = 10.0,
        hidden: Sequence[int] = (1000,) * 6,
        lr: float = 1e-4,
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
        joint = self.critic(z).to(z.dtype)  # autocast may have made it bf16
        product = self.critic(permute_dims(z)).to(z.dtype)
        critic_loss = (F.softplus(-joint).mean() + F.softplus(product).mean()) / 2

        loss = self.kl_term(trace) - trace.log_px.mean() + self.get_buffer("gamma") * tc
        return {"loss": loss + (critic_loss - critic_loss.detach()), "tc": tc, "critic_loss": critic_loss}
