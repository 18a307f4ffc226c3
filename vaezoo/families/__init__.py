"""Families: raw network outputs -> a distribution.

A family says how many planes of numbers the network must emit (``n_params``) and which data it can
score (``scores``); posterior and likelihood are the same concept used twice. Those here are
elementwise; posteriors whose dimensions depend on each other are in ``vaezoo.posteriors`` and
``vaezoo.flows``. Data are one of

* ``binary``: 0 or 1;
* ``byte``: k / 255 for k = 0 ... 255, as an 8-bit image;
* ``unit``: any number in [0, 1];
* ``real``: any number.
"""

from vaezoo.families.base import Family, require_tensor, soft_floor
from vaezoo.families.bernoulli import Bernoulli, ContinuousBernoulli, ContinuousBernoulliDistribution
from vaezoo.families.discrete import (
    Categorical,
    CategoricalDistribution,
    DiscretizedLogistic,
    DiscretizedLogisticDistribution,
    MixtureOfDiscretizedLogistics,
)
from vaezoo.families.normal import FixedScaleNormal, Laplace, Normal, OptimalScaleNormal, SharedScaleNormal

__all__ = [
    "Bernoulli",
    "Categorical",
    "CategoricalDistribution",
    "ContinuousBernoulli",
    "ContinuousBernoulliDistribution",
    "DiscretizedLogistic",
    "DiscretizedLogisticDistribution",
    "Family",
    "FixedScaleNormal",
    "Laplace",
    "MixtureOfDiscretizedLogistics",
    "Normal",
    "OptimalScaleNormal",
    "SharedScaleNormal",
    "require_tensor",
    "soft_floor",
]
