"""The vector-quantised VAE."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.conditional import Conditional, Network
from vaezoo.distributions import UniformCodes
from vaezoo.families import Bernoulli, Family
from vaezoo.models.base import LatentVariableModel
from vaezoo.nets import MLP, Quantizer
from vaezoo.objectives import Commitment
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


class VQVAE(LatentVariableModel):
    """The vector-quantised VAE: van den Oord et al. 2017, https://arxiv.org/abs/1711.00937.

    The encoder emits n vectors z_e(x); each becomes the nearest of C codes e, and the decoder's
    gradient is passed straight through to it:

        q(z = k | x) = 1 for k = argmin_c |z_e(x) - e_c|, else 0;   p(z) uniform
        ELBO = log p(x | z_q(x)) - n ln C
        loss = -ELBO + commitment |z_e(x) - sg[e]|^2,  e by running means.

    The ELBO is a bound like any other: q has no entropy, so each position costs ln C nats. The paper
    then learns a prior over the codes, which can only lower that; here samples come from the uniform
    one. ``val/codes_used`` counts the codes that an epoch of validation uses, ``val/perplexity`` is
    exp of the entropy of their use.

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D, dimensions of a code.
        num_latents: n, positions.
        num_codes: C.
        commitment: weight of the encoder's distance to its codes; >= 0.
        decay: of the codebook's running means, in [0, 1).
        restart_below: share of the even use below which a code is restarted, in [0, 1).
        encoder: makes the network from x to (n, D); ``vaezoo.nets.MLP`` where None.
        decoder: makes p(x | z)'s network; ``vaezoo.nets.MLP`` where None.
        likelihood: family of p(x | z); Bernoulli where None.
        **kwargs: as ``LatentVariableModel``.
    """

    latent_kind = "codes"

    def __init__(
        self,
        data_shape: Shape,
        latent_dim: int,
        num_latents: int,
        num_codes: int,
        commitment: float,
        decay: float,
        restart_below: float,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        likelihood: Family | None = None,
        **kwargs,
    ):
        if num_latents < 1:
            raise ValueError(f"num_latents must be >= 1, got {num_latents}")
        super().__init__(data_shape, Commitment(commitment), **kwargs)
        self.latent_shape = (num_latents, latent_dim)
        self.quantizer = Quantizer(num_codes, latent_dim, decay, restart_below)
        self.encoder = Network(self.data_shape, self.latent_shape, encoder or MLP)
        self.decoder = Conditional(self.latent_shape, self.data_shape, decoder or MLP, likelihood or Bernoulli())

    @property
    def limits(self) -> dict[str, str]:
        reason = "a code is one of C points: see codes_used and perplexity"
        return super().limits | {"kl_per_dim": reason, "active_units": reason}

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        with torch.no_grad():
            self.quantizer.init_from_data(self.encoder(x, context).flatten(0, 1))

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        q = self.quantizer(self.encoder(x, context))
        z = q.rsample(torch.Size([num_samples or 1]))  # (K, B, n, D), K times the same
        prior = UniformCodes(self.quantizer.codebook, self.latent_shape[0])
        return Trace(x, self.decoder(z, context), (Latent(q, prior, z),))

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        codebook = self.quantizer.codebook
        return codebook[self.quantizer.nearest(self.encoder(x, context).to(codebook.dtype))]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z, context)

    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        return self.decode(UniformCodes(self.quantizer.codebook, self.latent_shape[0]).sample((num,)), context)

    def latent_statistics(self, trace: Trace) -> dict[str, Tensor]:
        """How often each code is used, (B, C)."""
        q: Any = trace.latent.q
        return {"use": F.one_hot(q.codes, len(self.quantizer.codebook)).double().mean(1)}

    def reduce_latent_statistics(self, means: dict[str, Tensor]) -> dict[str, float]:
        """``codes_used`` and the ``perplexity`` of their use."""
        if "use" not in means:
            return {}
        use = means["use"]
        return {"codes_used": float((use > 0).sum()), "perplexity": float(torch.special.entr(use).sum().exp())}
