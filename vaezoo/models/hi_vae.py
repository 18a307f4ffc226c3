"""The VAE of tables with columns of several kinds and missing entries."""

from vaezoo.families import Bernoulli, Family, leave_out_missing
from vaezoo.models.mog_vae import MoGVAE
from vaezoo.nets import MLP, accept_missing
from vaezoo.types import NetFactory, Shape


class HIVAE(MoGVAE):
    """The VAE of rows with columns of several kinds and missing entries, and with a mixture as its prior.

        p(z) = sum_s pi_s N(z; mu_s, diag sigma_s^2)
        ELBO = E_q[sum_{d in o} log p_kind(d)(x_d | z)] - KL(q(z | x_o), p(z)) <= log p(x_o)

    o are the observed entries. Each column has the likelihood of its kind: ``families.Joint`` of a table of mixed
    columns, normals, negative binomials, categories, cumulative logits. Each term is in nats with its constant, real
    columns in the user's units, so a wide column does not weigh more than others.

    Reference: Nazabal et al. 2020, Handling Incomplete Heterogeneous Data using VAEs, https://arxiv.org/abs/1807.03653.
    Differs from the paper: the component s is summed out in p(z), and has no posterior q(s | x) of its own with
    Gumbel-softmax samples; sigma_s is learned, not 1; each column's parameters are outputs of one decoder, without the
    homogeneous layer in between; columns are standardized by the training rows and not by each batch. Counts are
    negative binomial and not Poisson, positive columns are normal unless a likelihood is chosen.

    >>> import torch
    >>> from vaezoo.families import SharedScaleNormal
    >>> model = HIVAE((3,), latent_dim=2, num_components=4, likelihood=SharedScaleNormal())
    >>> model(torch.tensor([[1.0, float("nan"), 0.5]])).elbo.shape
    torch.Size([1])

    Args:
        encoder: makes the network of q(z | x_o), see ``VAE``; ``MaskedInput`` is put around others than such.
        likelihood: family of p(x | z), see ``VAE``; ``Masked`` is put around one that scores complete data only.
        **kwargs: arguments of ``MoGVAE``, such as num_components.
    """

    def __init__(
        self, data_shape: Shape, *, encoder: NetFactory | None = None, likelihood: Family | None = None, **kwargs
    ):
        encoder, likelihood = accept_missing(encoder or MLP), leave_out_missing(likelihood or Bernoulli())
        super().__init__(data_shape, encoder=encoder, likelihood=likelihood, **kwargs)
