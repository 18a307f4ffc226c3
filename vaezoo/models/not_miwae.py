"""The importance-weighted autoencoder for entries that are missing because of their values."""

from vaezoo.families import Family, SelfMasking, SharedScaleNormal
from vaezoo.models.missing_iwae import MissingIWAE
from vaezoo.types import Shape


class NotMIWAE(MissingIWAE):
    """The importance-weighted autoencoder for entries that are missing not at random, because of their own values.

        loss = -L_K,  L_K = E[log 1/K sum_k w_k] <= log p(x_o, s),  z_k ~ q(z | x_o, s),  x_m,k ~ p(x_m | z_k)
        w_k = p(s | x_o, x_m,k) p(x_o | z_k) p(z_k) / q(z_k | x_o, s)
        p(s | x) = prod_d p(s_d | x_d),  p(s_d = 1 | x_d) = sigmoid(a_d + b_d x_d)

    s says which entries are observed. If large values are missing more often, b_d becomes negative, and task=impute
    fills in larger ones than ``missing_iwae`` does. a and b are learned for each column, ``model.likelihood.intercept``
    and ``slope``; a column of a table has its standard deviation as the unit here. The assumption cannot be tested on
    the observed entries alone.

    The bound is one of log p(x_o, s), which scores the mask too: it compares only with models that score it.

    Reference: Ipsen et al. 2021, not-MIWAE: Deep Generative Modelling with Missing not at Random Data,
    https://arxiv.org/abs/2006.12871, eq. 8 and 12.
    Differs from the paper: the encoder also sees the mask; the sign of b is learned from the start b = 0.

    >>> import torch
    >>> model = NotMIWAE((3,), latent_dim=2, num_samples=20)
    >>> model(torch.tensor([[1.0, float("nan"), 0.5]])).log_w.shape
    torch.Size([20, 1])

    Args:
        data_shape: (D,).
        num_samples: K; >= 1.
        likelihood: family of p(x | z), real numbers; a normal with one learned scale if None.
        **kwargs: arguments of ``MissingIWAE``.
    """

    def __init__(self, data_shape: Shape, *, num_samples: int, likelihood: Family | None = None, **kwargs):
        likelihood = SelfMasking(likelihood or SharedScaleNormal(), data_shape[-1])
        super().__init__(data_shape, num_samples=num_samples, likelihood=likelihood, **kwargs)
