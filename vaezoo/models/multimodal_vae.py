"""The multimodal VAE."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from vaezoo.families import Family, GaussianExperts, Joint, TokenSequence, WrappedFamily
from vaezoo.families.categories import CategoryFamily, ColumnFamily
from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, MaskedInput, PartDecoders, PartEncoders, TokenInput
from vaezoo.objectives import ELBO, ModalityKL, Objective
from vaezoo.trace import Trace
from vaezoo.types import NetFactory, Shape

OBJECTIVES = ("elbo", "jmvae", "mvtcae")


class MultimodalVAE(VAE):
    """The multimodal VAE: one latent for several modalities, such as an image and its caption.

        p(x | z) = prod_m p(x_m | z),  p(z) = N(0, I)
        ELBO = E_q[sum_m log p(x_m | z)] - KL(q(z | x), p(z)),  m over the observed modalities

    Each modality has an encoder, which gives an expert N(z; mu_m, diag sigma_m^2), and a decoder. ``aggregate`` makes
    the posterior of any subset of modalities from the experts (``families.GaussianExperts``), so a modality that is
    missing (all NaN) can be generated from the others:

    * ``product``: the MVAE, Wu & Goodman 2018, Multimodal Generative Models for Scalable Weakly-Supervised Learning,
      https://arxiv.org/abs/1802.05335;
    * ``mixture``: the MMVAE, Shi et al. 2019, Variational Mixture-of-Experts Autoencoders for Multi-Modal Deep
      Generative Models, https://arxiv.org/abs/1911.03393;
    * ``mopoe``: the MoPoE-VAE, Sutter et al. 2021, Generalized Multimodal ELBO, https://arxiv.org/abs/2105.02470.

    ``objective`` is ``elbo``, or, for a product, adds the KL of q(z | x) from the posterior of each modality alone:

    * ``jmvae``: Suzuki et al. 2016, Joint Multimodal Learning with Deep Generative Models,
      https://arxiv.org/abs/1611.01891;
    * ``mvtcae``: Hwang et al. 2021, Multi-View Representation Learning via Total Correlation Objective, NeurIPS 2021.

    x is one flat vector with the layout of its likelihood, ``families.Joint``. The posterior of a mixture is sampled in
    strata (``distributions.ExpertMixture``), and its KL is that of the mixture, estimated at the samples. The mean of
    the KLs of the components, which programs of the MoPoE-VAE minimize, is larger: log p(x) would look worse.

    Differs from the papers: no modality has a weight in the ELBO. MVAE: the subsets of the training are drawn at random
    (``subsets``), where the paper adds the ELBOs of several. MMVAE: the loss is the ELBO, not the bound of the IWAE,
    and the posterior is normal, not Laplace. JMVAE: the joint posterior is the product of the experts, where the paper
    has a further network of all modalities.

    >>> from vaezoo.families import Bernoulli, IndexCategorical
    >>> families = {"image": Bernoulli(), "label": IndexCategorical(10)}
    >>> likelihood = Joint({"image": (1, 8, 8), "label": (1,)}, families)
    >>> settings = {"aggregate": "product", "objective": "elbo", "alpha": 0.0, "beta": 1.0, "subsets": True}
    >>> model = MultimodalVAE((65,), latent_dim=10, likelihood=likelihood, hidden=[32], **settings)
    >>> x = torch.cat([torch.zeros(5, 64), torch.full((5, 1), torch.nan)], 1)  # the label is missing
    >>> model.eval()(x).elbo.shape, model.reconstruct(x)[:, 64].shape
    (torch.Size([5]), torch.Size([5]))

    Args:
        data_shape: shape of one x, (D,).
        latent_dim: number of latent dimensions; >= 1.
        aggregate: ``product``, ``mixture`` or ``mopoe``.
        objective: ``elbo``, ``jmvae`` or ``mvtcae``.
        alpha: weight of the KL from each modality: ``jmvae``, >= 0; ``mvtcae``, in [0, 1]; without effect on ``elbo``.
        beta: weight of KL(q, p); >= 0.
        subsets: whether each training example shows a random subset of its modalities, all with equal probability but
            the empty one. A product needs it to learn the posterior of each subset; the numbers of the training are
            then means over the subsets.
        hidden: widths of the hidden layers of the networks of modalities that are no images (C, H, W): perceptrons,
            which are given learned vectors of tokens and categories, and numbers with a mask of the missing ones.
        likelihood: the family of x, a ``Joint`` of the families of the modalities.
        encoder: makes the encoder of an image; ``vaezoo.nets.MLP`` if None.
        decoder: makes the decoder of an image; ``vaezoo.nets.MLP`` if None.
        **kwargs: arguments of ``VAE``, without posterior.

    Raises:
        ValueError: an option is unknown or out of range, or x does not consist of several modalities.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        latent_dim: int,
        aggregate: str,
        objective: str,
        alpha: float,
        beta: float,
        subsets: bool,
        hidden: Sequence[int],
        likelihood: Family,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        **kwargs,
    ):
        if not isinstance(likelihood, Joint):
            raise ValueError(
                f"a multimodal VAE needs examples of several modalities, each with a likelihood of its own, but the "
                f"likelihood is {type(likelihood).__name__}: use data=digit_labels or glyph_names, or model=mlp_vae"
            )
        if objective not in OBJECTIVES:
            raise ValueError(f"objective={objective} is not one of {', '.join(OBJECTIVES)}")
        if objective != "elbo" and aggregate != "product":
            raise ValueError(f"objective={objective} needs aggregate=product, got {aggregate}")
        num, shapes = len(likelihood.families), likelihood.layout.shapes
        loss: Objective = ELBO(beta)
        if objective == "jmvae":
            loss = ModalityKL(alpha, beta)
        elif objective == "mvtcae":
            loss = ModalityKL.total_correlation(alpha, num, beta)
        other = partial(MLP, hidden=hidden)
        encoders: dict[str, Any] = {}
        decoders: dict[str, Any] = {}
        integers = set()
        for name, shape in shapes.items():
            is_image, values = len(shape) == 3, num_values(likelihood.families[name])
            decoders[name] = decoder or MLP if is_image else other
            if values is not None:
                encoders[name] = partial(TokenInput, net=other, num_tokens=values)
                integers.add(name)
            else:
                encoders[name] = encoder or MLP if is_image else partial(MaskedInput, net=other)
        super().__init__(
            data_shape,
            latent_dim,
            encoder=partial(PartEncoders, layout=shapes, nets=encoders, integers=integers),
            decoder=partial(PartDecoders, layout=likelihood.raw_layout.shapes, nets=decoders),
            likelihood=likelihood,
            posterior=lambda shape: GaussianExperts(num, aggregate),
            objective=loss,
            **kwargs,
        )
        self.subsets, self.layout = subsets, likelihood.layout

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        return super().forward(self.hide_parts(x) if self.training and self.subsets else x, context, num_samples)

    def hide_parts(self, x: Tensor) -> Tensor:
        """Return x (B, D) with NaN in all modalities but a random subset of them, which is not empty."""
        sizes = self.layout.sizes
        subset = torch.randint(1, 2 ** len(sizes), (len(x), 1), device=x.device)  # bit m: modality m is in it
        kept = torch.cat([(subset >> m & 1).expand(-1, size) for m, size in enumerate(sizes)], 1)
        return x.where(kept > 0, torch.nan)


def num_values(family: Family) -> int | None:
    """Return V if a family scores tokens or categories 0 ... V - 1, else None."""
    while isinstance(family, WrappedFamily):
        family = family.family
    if isinstance(family, TokenSequence):
        return family.num_tokens
    if isinstance(family, CategoryFamily):
        return family.num_categories
    return max(family.sizes) if isinstance(family, ColumnFamily) else None
