"""The normal that approximates a Dirichlet prior."""

import math

from vaezoo.conditional import Conditional
from vaezoo.priors.base import StandardNormal
from vaezoo.types import Shape


class DirichletNormal(StandardNormal):
    """The prior N(0, (1 - 1/T) / alpha I) of z (T,), for which softmax(z) is nearly Dirichlet(alpha, ..., alpha).

    It is Laplace's approximation of the Dirichlet as a density of z (MacKay 1998; Hennig et al. 2012, Kernel Topic
    Models, https://arxiv.org/abs/1110.4713), without covariances, as in Srivastava & Sutton 2017, Autoencoding
    Variational Inference for Topic Models, https://arxiv.org/abs/1703.01488, eq. 4.

    Args:
        shape: (T,), T >= 2.
        posterior: not used.
        alpha: the concentration; > 0.
    """

    def __init__(self, shape: Shape, posterior: Conditional | None = None, *, alpha: float):
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha must be > 0 and finite, got {alpha}")
        if len(shape) != 1 or shape[0] < 2:
            raise ValueError(f"a Dirichlet prior needs at least 2 shares, got {tuple(shape)}")
        super().__init__(shape)
        self.scale.fill_(math.sqrt((1 - 1 / shape[0]) / alpha))
