"""Priors p(z): modules that are made from the shape of the latent and return a distribution when called."""

from vaezoo.priors.base import Prior, PriorFactory, StandardNormal
from vaezoo.priors.context_normal import ContextNormal
from vaezoo.priors.dirichlet_normal import DirichletNormal
from vaezoo.priors.flow import FlowPrior
from vaezoo.priors.hypersphere import HypersphericalUniform
from vaezoo.priors.label_normal import LabelNormal
from vaezoo.priors.mixture import MixtureOfNormals
from vaezoo.priors.vamp import VampPrior

__all__ = [
    "ContextNormal",
    "DirichletNormal",
    "FlowPrior",
    "HypersphericalUniform",
    "LabelNormal",
    "MixtureOfNormals",
    "Prior",
    "PriorFactory",
    "StandardNormal",
    "VampPrior",
]
