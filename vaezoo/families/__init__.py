"""Families of distributions: they make a distribution from the raw outputs of a network.

A family makes likelihoods p(x | z), posteriors q(z | x), or both. It is elementwise (one distribution for each pixel or
latent dimension) or over a whole latent (``Posterior``). It says how many raw outputs it needs (``num_outputs``), and
for which kinds of data it has a density or probability (``supported_data``):

* ``binary``: 0 or 1;
* ``byte``: k / 255 for k = 0 ... 255, as in an 8-bit image;
* ``unit``: any number in [0, 1];
* ``real``: any number;
* ``count``: whole numbers >= 0, as integers;
* ``token``: words or characters of a vocabulary, as integers 0 ... V - 1;
* ``categorical``: categories of any order, as integers 0 ... V - 1;
* ``mixed``: a vector of several kinds, as floats; ``vaezoo.layout.Layout`` names its parts.

A missing entry is NaN in floats and -1 in integers. ``Masked`` leaves missing entries out.
"""

from vaezoo.families.base import Family, require_tensor
from vaezoo.families.bernoulli import Bernoulli, ContinuousBernoulli
from vaezoo.families.categories import Categories, IndexCategorical, Ordinal, OrdinalColumns
from vaezoo.families.counts import NegativeBinomial, Poisson
from vaezoo.families.counts_given_total import Multinomial, ScaledNegativeBinomial, SharesOfTotal
from vaezoo.families.discrete import (
    Categorical,
    CoupledMixtureOfLogistics,
    DiscretizedLogistic,
    MixtureOfDiscretizedLogistics,
)
from vaezoo.families.experts import GaussianExperts
from vaezoo.families.flow import FlowPosterior, IAFPosterior, PlanarPosterior
from vaezoo.families.full_covariance import FullCovarianceNormal
from vaezoo.families.joint import Joint
from vaezoo.families.normal import (
    DimensionScaleNormal,
    FixedScaleNormal,
    Laplace,
    LogNormal,
    Normal,
    OptimalScaleNormal,
    SharedScaleNormal,
)
from vaezoo.families.posterior import Posterior, PosteriorFactory, diagonal_normal
from vaezoo.families.token_sequence import TokenSequence
from vaezoo.families.von_mises_fisher import VonMisesFisher
from vaezoo.families.wrapped import Masked, Rescaled, SelfMasking, WrappedFamily, leave_out_missing

__all__ = [
    "Bernoulli",
    "Categorical",
    "Categories",
    "ContinuousBernoulli",
    "CoupledMixtureOfLogistics",
    "DimensionScaleNormal",
    "DiscretizedLogistic",
    "Family",
    "FixedScaleNormal",
    "FlowPosterior",
    "FullCovarianceNormal",
    "GaussianExperts",
    "IAFPosterior",
    "IndexCategorical",
    "Joint",
    "Laplace",
    "LogNormal",
    "Masked",
    "MixtureOfDiscretizedLogistics",
    "Multinomial",
    "NegativeBinomial",
    "Normal",
    "OptimalScaleNormal",
    "Ordinal",
    "OrdinalColumns",
    "PlanarPosterior",
    "Poisson",
    "Posterior",
    "PosteriorFactory",
    "Rescaled",
    "ScaledNegativeBinomial",
    "SelfMasking",
    "SharedScaleNormal",
    "SharesOfTotal",
    "TokenSequence",
    "VonMisesFisher",
    "WrappedFamily",
    "diagonal_normal",
    "leave_out_missing",
    "require_tensor",
]
