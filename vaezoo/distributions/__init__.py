"""Distributions: subclasses of ``torch.distributions.Distribution``. They hold tensors, no ``nn.Parameter``."""

from vaezoo.distributions.categories import ColumnsDistribution, IndexCategoricalDistribution
from vaezoo.distributions.continuous_bernoulli import ContinuousBernoulliDistribution
from vaezoo.distributions.counts import NegativeBinomialDistribution, PoissonDistribution
from vaezoo.distributions.coupled_mixture import CoupledMixtureDistribution
from vaezoo.distributions.deterministic import Deterministic
from vaezoo.distributions.discretized_logistic import DiscretizedLogisticDistribution
from vaezoo.distributions.experts import ExpertMixture, ExpertProduct
from vaezoo.distributions.flow import FlowDistribution
from vaezoo.distributions.joint import JointDistribution
from vaezoo.distributions.levels import CategoricalDistribution
from vaezoo.distributions.log_normal import LogNormalDistribution
from vaezoo.distributions.optimal_scale_normal import OptimalScaleNormalDistribution
from vaezoo.distributions.parameters import get_parameters, is_diagonal_normal, with_parameters
from vaezoo.distributions.token_sequence import TokenSequenceDistribution
from vaezoo.distributions.triangular_normal import TriangularNormal
from vaezoo.distributions.vector_quantized import NearestCode, UniformCodes
from vaezoo.distributions.von_mises_fisher import HypersphericalUniformDistribution, VonMisesFisherDistribution
from vaezoo.distributions.wrapped import MaskedDistribution, RescaledDistribution

__all__ = [
    "CategoricalDistribution",
    "ColumnsDistribution",
    "ContinuousBernoulliDistribution",
    "CoupledMixtureDistribution",
    "Deterministic",
    "DiscretizedLogisticDistribution",
    "ExpertMixture",
    "ExpertProduct",
    "FlowDistribution",
    "HypersphericalUniformDistribution",
    "IndexCategoricalDistribution",
    "JointDistribution",
    "LogNormalDistribution",
    "MaskedDistribution",
    "NearestCode",
    "NegativeBinomialDistribution",
    "OptimalScaleNormalDistribution",
    "PoissonDistribution",
    "RescaledDistribution",
    "TokenSequenceDistribution",
    "TriangularNormal",
    "UniformCodes",
    "VonMisesFisherDistribution",
    "get_parameters",
    "is_diagonal_normal",
    "with_parameters",
]
