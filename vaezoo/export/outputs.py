"""The parameters of q(z | x) and p(x | z) by name: the outputs of the exported functions.

A new distribution whose parameters are to be exported is registered with ``posterior_outputs`` or
``likelihood_outputs``; without that, a posterior gives ``vaezoo.distributions.get_parameters`` and a likelihood only
its mean.
"""

from functools import singledispatch
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent, Laplace, MixtureSameFamily, Normal

from vaezoo.distributions import (
    CategoricalDistribution,
    ColumnsDistribution,
    ContinuousBernoulliDistribution,
    CountsGivenTotal,
    CoupledMixtureDistribution,
    DiscretizedLogisticDistribution,
    FlowDistribution,
    IndexCategoricalDistribution,
    JointDistribution,
    LogNormalDistribution,
    MaskedDistribution,
    NearestCode,
    NegativeBinomialDistribution,
    NegativeBinomialGivenTotal,
    RescaledDistribution,
    SelfMaskedDistribution,
    TriangularNormal,
    get_parameters,
)
from vaezoo.export.preprocessing import Units
from vaezoo.models import M2VAE, VAE, VQVAE, VRNN, LadderVAE, LatentVariableModel

Outputs = dict[str, Tensor]

POSTERIOR_MEANINGS = {
    "code": "the code of x, as task=encode writes it: a point estimate of z",
    "mean": "mean of q(z | x)",
    "std": "standard deviation of q(z | x)",
    "scale_tril": "L of the covariance L L' of q(z | x), lower triangular",
    "loc": "mu of the von Mises-Fisher q(z | x), a unit vector",
    "concentration": "kappa of the von Mises-Fisher q(z | x)",
    "base_mean": "mean of the normal that the flow q(z | x) transforms",
    "base_std": "standard deviation of the normal that the flow q(z | x) transforms",
    "indices": "place of each code in the codebook, from 0",
    "class_probs": "q(y | x), the probability of each class",
}
LIKELIHOOD_MEANINGS = {
    "mean": "mean of p(x | z); the most probable value of categories",
    "logits": "logits of p(x = 1 | z)",
    "std": "standard deviation of p(x | z)",
    "scale": "scale of p(x | z)",
    "loc": "locations of p(x | z)",
    "log_scale": "logarithms of the scales of p(x | z)",
    "dispersion": "theta of the negative binomial p(x | z), whose variance is mean + mean^2 / theta",
    "log_shares": "logarithms of the shares that the expected counts have of their sum; the mean is at the mean sum",
    "zero_logits": "logits of the probability that a count is 0 for another reason",
    "log_weights": "logarithms of the weights of the components of p(x | z)",
    "coefficients": "by how much the location of a channel depends on the channels before it",
    "log_probs": "logarithms of the probabilities of all values, along the last axis",
    "probs": "probabilities of all categories, along the last axis; columns with fewer categories end with 0",
}


@singledispatch
def encoder_outputs(model: LatentVariableModel, x: Tensor, labels: Tensor | None) -> Outputs:
    """Return the code of x, (B, *latent_shape), and the parameters of q(z | x), by name.

    A class of models that is not registered gives the code alone.

    Args:
        model: the model, in eval mode.
        x: data, (B, *data_shape), as the model sees them.
        labels: labels, (B,), if the model is conditional.
    """
    return {"code": model.encode(x, labels)}


@encoder_outputs.register
def _(model: VAE, x: Tensor, labels: Tensor | None) -> Outputs:
    family, params = model.encoder.family, model.encoder.params(x, labels)
    return {"code": family.point_estimate(*params)} | posterior_outputs(family(*params))


@encoder_outputs.register
def _(model: VQVAE, x: Tensor, labels: Tensor | None) -> Outputs:
    q = model.quantizer(model.encoder(x, labels))
    return {"code": model.quantizer.codebook[q.codes]} | posterior_outputs(q)


@encoder_outputs.register
def _(model: LadderVAE, x: Tensor, labels: Tensor | None) -> Outputs:
    layers = model.top_down(x, labels)[::-1]  # z_1, ..., z_L
    outputs = {"code": layers[0].mean}
    for i, q in enumerate(layers, 1):
        outputs |= {f"{name}_{i}": value for name, value in posterior_outputs(q).items()}
    return outputs


@encoder_outputs.register
def _(model: M2VAE, x: Tensor, labels: Tensor | None) -> Outputs:
    logits = model.classifier(x)
    labels = logits.argmax(-1)
    q = model.encoder(x, labels)  # of the most probable class, as the code
    code = torch.cat([q.mean, model.one_hot(labels, q.mean)], -1)
    return {"code": code, "class_probs": logits.softmax(-1)} | posterior_outputs(q)


@encoder_outputs.register
def _(model: VRNN, x: Tensor, labels: Tensor | None) -> Outputs:
    path = model.infer(x, 1, lambda q: q.mean)  # q of a frame, given the means of the frames before
    return {"code": path.z[0]} | {name: value[0] for name, value in posterior_outputs(path.q).items()}


@singledispatch
def posterior_outputs(q: Distribution) -> Outputs:
    """Return the parameters of q(z | x) by name, (B, ...) each; empty if they are not known."""
    try:
        return get_parameters(q)
    except NotImplementedError:
        return {}


@posterior_outputs.register
def _(q: Independent) -> Outputs:
    return posterior_outputs(q.base_dist)


@posterior_outputs.register
def _(q: Normal) -> Outputs:
    return {"mean": q.loc, "std": q.scale}


@posterior_outputs.register
def _(q: TriangularNormal) -> Outputs:
    return {"mean": q.loc, "scale_tril": q.scale_tril}


@posterior_outputs.register
def _(q: FlowDistribution) -> Outputs:
    return {f"base_{name}": value for name, value in posterior_outputs(q.base).items()}


@posterior_outputs.register
def _(q: NearestCode) -> Outputs:
    return {"indices": q.codes}


@singledispatch
def likelihood_outputs(px: Distribution, units: Units) -> Outputs:
    """Return the parameters of p(x | z) by name, (B, ...) each, other than its mean; empty if they are not known.

    Args:
        px: p(x | z), batch shape (B,).
        units: the user's units, for parameters that have the unit of x.
    """
    return {}


@likelihood_outputs.register(Independent)
def _(px: Independent, units: Units) -> Outputs:
    return likelihood_outputs(px.base_dist, units)


@likelihood_outputs.register(MaskedDistribution)
@likelihood_outputs.register(RescaledDistribution)
@likelihood_outputs.register(SelfMaskedDistribution)
def _(px: MaskedDistribution | RescaledDistribution | SelfMaskedDistribution, units: Units) -> Outputs:
    return likelihood_outputs(px.base, units)


@likelihood_outputs.register(Bernoulli)
@likelihood_outputs.register(ContinuousBernoulliDistribution)
def _(px: Bernoulli | ContinuousBernoulliDistribution, units: Units) -> Outputs:
    return {"logits": px.logits}


@likelihood_outputs.register(Normal)
def _(px: Normal, units: Units) -> Outputs:
    return {"std": units.length(px.scale)}


@likelihood_outputs.register(Laplace)
def _(px: Laplace, units: Units) -> Outputs:
    return {"scale": units.length(px.scale)}


@likelihood_outputs.register(LogNormalDistribution)
def _(px: LogNormalDistribution, units: Units) -> Outputs:
    return {"loc": px.loc, "scale": px.scale}


@likelihood_outputs.register(NegativeBinomialDistribution)
def _(px: NegativeBinomialDistribution, units: Units) -> Outputs:
    return {"dispersion": px.log_dispersion.exp()}


@likelihood_outputs.register(CountsGivenTotal)
def _(px: CountsGivenTotal, units: Units) -> Outputs:
    return {"log_shares": px.log_shares}


@likelihood_outputs.register(NegativeBinomialGivenTotal)
def _(px: NegativeBinomialGivenTotal, units: Units) -> Outputs:
    zeros = {} if px.zero_logits is None else {"zero_logits": px.zero_logits}
    return {"log_shares": px.log_shares, "dispersion": px.log_dispersion.exp().expand_as(px.log_shares)} | zeros


@likelihood_outputs.register(DiscretizedLogisticDistribution)
def _(px: DiscretizedLogisticDistribution, units: Units) -> Outputs:
    return {"loc": px.loc, "log_scale": px.log_scale}


@likelihood_outputs.register(MixtureSameFamily)
def _(px: MixtureSameFamily, units: Units) -> Outputs:
    return {"log_weights": px.mixture_distribution.logits} | likelihood_outputs(px.component_distribution, units)


@likelihood_outputs.register(CoupledMixtureDistribution)
def _(px: CoupledMixtureDistribution, units: Units) -> Outputs:
    outputs = {"log_weights": px.logits.log_softmax(-3), "loc": px.loc, "log_scale": px.log_scale}
    return outputs | ({"coefficients": px.coefficients} if px.event_shape[0] > 1 else {})


@likelihood_outputs.register(CategoricalDistribution)
def _(px: CategoricalDistribution, units: Units) -> Outputs:
    return {"log_probs": px.levels.logits}


@likelihood_outputs.register(IndexCategoricalDistribution)
def _(px: IndexCategoricalDistribution, units: Units) -> Outputs:
    return {"log_probs": px.logits}


@likelihood_outputs.register(ColumnsDistribution)
def _(px: ColumnsDistribution, units: Units) -> Outputs:
    parts: Any = px.parts  # of categories
    probs = [part.logits.exp() for part in parts]
    most = max(part.shape[-1] for part in probs)
    padded = [F.pad(part, (0, most - part.shape[-1])) for part in probs]
    return {"probs": torch.cat(padded, -2).index_select(-2, px.order)}


@likelihood_outputs.register(JointDistribution)
def _(px: JointDistribution, units: Units) -> Outputs:
    outputs: Outputs = {}
    for (name, part), part_units in zip(px.parts.items(), units.split(px.layout.sizes), strict=True):
        outputs |= {f"{name}_{key}": value for key, value in likelihood_outputs(part, part_units).items()}
    return outputs
