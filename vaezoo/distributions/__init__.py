"""Distributions: subclasses of ``torch.distributions.Distribution``. They hold tensors, no ``nn.Parameter``."""

from vaezoo.distributions.categories import ColumnsDistribution, IndexCategoricalDistribution
from vaezoo.distributions.continuous_bernoulli import ContinuousBernoulliDistribution
from vaezoo.distributions.counts import NegativeBinomialDistribution, PoissonDistribution, ZeroInflatedDistribution
from vaezoo.distributions.counts_given_total import CountsGivenTotal, MultinomialGivenTotal, NegativeBinomialGivenTotal
from vaezoo.distributions.coupled_mixture import CoupledMixtureDistribution
from vaezoo.distributions.deterministic import Deterministic
from vaezoo.distributions.discretized_logistic import DiscretizedLogisticDistribution
from vaezoo.distributions.experts import ExpertMixture, ExpertProduct
from vaezoo.distributions.flow import FlowDistribution
from vaezoo.distributions.frame_sequence import FrameSequenceDistribution
from vaezoo.distributions.joint import JointDistribution
from vaezoo.distributions.levels import CategoricalDistribution
from vaezoo.distributions.log_normal import LogNormalDistribution
from vaezoo.distributions.optimal_scale_normal import OptimalScaleNormalDistribution
from vaezoo.distributions.parameters import get_parameters, is_diagonal_normal, with_parameters
from vaezoo.distributions.token_sequence import TokenSequenceDistribution
from vaezoo.distributions.triangular_normal import TriangularNormal
from vaezoo.distributions.vector_quantized import NearestCode, UniformCodes
from vaezoo.distributions.von_mises_fisher import HypersphericalUniformDistribution, VonMisesFisherDistribution
from vaezoo.distributions.wrapped import MaskedDistribution, RescaledDistribution, SelfMaskedDistribution

__all__ = [
    "CategoricalDistribution",
    "ColumnsDistribution",
    "ContinuousBernoulliDistribution",
    "CountsGivenTotal",
    "CoupledMixtureDistribution",
    "Deterministic",
    "DiscretizedLogisticDistribution",
    "ExpertMixture",
    "ExpertProduct",
    "FlowDistribution",
    "FrameSequenceDistribution",
    "HypersphericalUniformDistribution",
    "IndexCategoricalDistribution",
    "JointDistribution",
    "LogNormalDistribution",
    "MaskedDistribution",
    "MultinomialGivenTotal",
    "NearestCode",
    "NegativeBinomialDistribution",
    "NegativeBinomialGivenTotal",
    "OptimalScaleNormalDistribution",
    "PoissonDistribution",
    "RescaledDistribution",
    "SelfMaskedDistribution",
    "TokenSequenceDistribution",
    "TriangularNormal",
    "UniformCodes",
    "VonMisesFisherDistribution",
    "ZeroInflatedDistribution",
    "get_parameters",
    "is_diagonal_normal",
    "with_parameters",
]
