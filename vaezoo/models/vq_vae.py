"""The vector-quantized VAE."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution

from vaezoo.conditional import Conditional, Network
from vaezoo.distributions import UniformCodes
from vaezoo.families import Bernoulli, Family
from vaezoo.models.base import LatentVariableModel
from vaezoo.models.inference import inference
from vaezoo.nets import MLP, Quantizer
from vaezoo.objectives import Commitment
from vaezoo.trace import Latent, Trace
from vaezoo.types import NetFactory, Shape


class VQVAE(LatentVariableModel):
    """The vector-quantized VAE: each latent is one of C codes.

        q(z = k | x) = 1 for k = argmin_c |z_e(x) - e_c|, else 0;  p(z) uniform
        ELBO = log p(x | z_q(x)) - n ln C
        loss = -ELBO + commitment |z_e(x) - sg[e]|^2

    The encoder returns n vectors z_e(x); each is replaced by the nearest code e, and the gradient of the decoder is
    passed straight through to the encoder. sg stops the gradient; the codes are updated by running means.

    The ELBO is a bound like that of other models: q has no entropy, so each of the n positions costs ln C nats. In
    validation and test, ``codes_used`` is the number of codes that were used at all, ``perplexity`` the exponential of
    the entropy of their use.

    Reference: van den Oord et al. 2017, Neural Discrete Representation Learning, https://arxiv.org/abs/1711.00937.
    Differs from the paper: there is no second training of a prior over the codes, which could only lower the cost of n
    ln C nats; samples come from the uniform prior.

    >>> import torch
    >>> settings = {"commitment": 0.25, "decay": 0.99, "restart_below": 0.01}
    >>> model = VQVAE((1, 28, 28), latent_dim=16, num_latents=9, num_codes=64, **settings)
    >>> model.encode(torch.zeros(5, 1, 28, 28)).shape
    torch.Size([5, 9, 16])

    Args:
        data_shape: shape of one example, (C, H, W).
        latent_dim: D, the number of dimensions of a code; >= 1.
        num_latents: n, the number of positions; >= 1.
        num_codes: C, the number of codes in the codebook; >= 1.
        commitment: weight of the distance between the encoder's output and its codes; >= 0.
        decay: decay of the codebook's running means; in [0, 1).
        restart_below: a code is replaced if it is used less than this fraction of uniform use; in [0, 1).
        encoder: makes the network from x to (n, D); ``vaezoo.nets.MLP`` if None.
        decoder: makes the network of p(x | z); ``vaezoo.nets.MLP`` if None.
        likelihood: family of p(x | z); Bernoulli if None.
        **kwargs: arguments of ``LatentVariableModel``.
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

    def prior(self) -> UniformCodes:
        """Return p(z), uniform over the codes at each position."""
        return UniformCodes(self.quantizer.codebook, self.latent_shape[0])

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        q = self.quantizer(self.encoder(x, context))
        z = q.rsample(torch.Size([num_samples or 1]))  # (K, B, n, D), K equal samples
        return Trace(x, self.decoder(z, context), (Latent(q, self.prior(), z),), context)

    @inference
    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        codebook = self.quantizer.codebook
        return codebook[self.quantizer.nearest(self.encoder(x, context).to(codebook.dtype))]

    @inference
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        return self.decoder(z, context)

    @inference
    def sample(self, num: int, context: Tensor | None = None) -> Distribution:
        return self.decode(self.prior().sample((num,)), context)

    def latent_statistics(self, trace: Trace) -> dict[str, Tensor]:
        """Return the fraction of positions at which each code is used, (B, C)."""
        q: Any = trace.latent.q
        return {"use": F.one_hot(q.codes, len(self.quantizer.codebook)).double().mean(1)}

    def reduce_latent_statistics(self, means: dict[str, Tensor]) -> dict[str, float]:
        """Return the number of codes that are used, ``codes_used``, and the ``perplexity`` of their use."""
        if "use" not in means:
            return {}
        use = means["use"]
        return {"codes_used": float((use > 0).sum()), "perplexity": float(torch.special.entr(use).sum().exp())}
