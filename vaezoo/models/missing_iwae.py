"""The importance-weighted autoencoder for data with missing entries."""

from vaezoo.families import Bernoulli, Family, leave_out_missing
from vaezoo.models.iwae import IWAE
from vaezoo.nets import MLP, accept_missing
from vaezoo.types import NetFactory, Shape


class MissingIWAE(IWAE):
    """The importance-weighted autoencoder for data with missing entries, which it can fill in: the paper's MIWAE.

        loss = -L_K,  L_K = E[log 1/K sum_k w_k] <= log p(x_o),  z_1, ..., z_K ~ q(z | x_o, s)
        w_k = p(z_k) prod_{d in o} p(x_d | z_k) / q(z_k | x_o, s)
        E[x_m | x_o] ~ sum_k w_k E[x_m | z_k] / sum_k w_k

    o are the observed entries, m the missing ones, s says which are which. The bound holds if entries are missing at
    random: whether one is missing depends on observed entries only. It is the number of a row with its own holes, so
    values of rows with different holes are not comparable one by one. ``task=impute`` fills missing entries in.

    The zoo's ``miwae`` is another model, the multiply importance-weighted autoencoder of Rainforth et al. 2018.

    Reference: Mattei & Frellsen 2019, MIWAE: Deep Generative Modelling and Imputation of Incomplete Data Sets,
    https://arxiv.org/abs/1812.02633, eq. 4 and 14.
    Differs from the paper: the encoder also sees the mask s, because an observed 0 is not a missing entry; the
    likelihood follows the data, a normal with one learned scale for each real column of a table, and not a Student t.
    Observed entries are not weighted by kind: all are nats.

    >>> import torch
    >>> from vaezoo.families import SharedScaleNormal
    >>> model = MissingIWAE((3,), latent_dim=2, num_samples=20, likelihood=SharedScaleNormal())
    >>> model(torch.tensor([[1.0, float("nan"), 0.5]])).log_w.shape
    torch.Size([20, 1])

    Args:
        num_samples: K; >= 1.
        encoder: makes the network of q(z | x_o, s), see ``VAE``; ``MaskedInput`` is put around others than such.
        likelihood: family of p(x | z), see ``VAE``; ``Masked`` is put around one that scores complete data only.
        **kwargs: arguments of ``IWAE``.
    """

    def __init__(
        self,
        data_shape: Shape,
        *,
        num_samples: int,
        encoder: NetFactory | None = None,
        likelihood: Family | None = None,
        **kwargs,
    ):
        encoder, likelihood = accept_missing(encoder or MLP), leave_out_missing(likelihood or Bernoulli())
        super().__init__(data_shape, num_samples=num_samples, encoder=encoder, likelihood=likelihood, **kwargs)
