"""The Wasserstein auto-encoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import MMD
from vaezoo.types import Shape


class WAE(VAE):
    """The Wasserstein auto-encoder with MMD (WAE-MMD): the MMD between q(z) and the prior replaces the KL.

        loss = -E_q[log p(x | z)] + lambda MMD^2(q(z), p(z))

    The aggregate posterior q(z) is matched to the prior, not each q(z | x), so the codes of different x can stay apart.

    Reference: Tolstikhin et al. 2018, Wasserstein Auto-Encoders, https://arxiv.org/abs/1711.01558.
    Differs from the paper: the cost c(x, G(z)) is -log p(x | z), which for a normal with fixed scale is the squared
    error divided by 2 scale^2. The encoder is Gaussian, so that there is an ELBO; the paper's theory allows that, but
    its experiments have a deterministic encoder. Nothing in the loss keeps the encoder's scale from shrinking, so the
    KL is large and the ELBO, which is a true bound, is far below that of a VAE. The loss sees only samples of the
    prior: a mixture of normals is not trained, because its samples have no gradient.

    >>> import torch
    >>> model = WAE((1, 28, 28), latent_dim=10, lambda_mmd=100.0, kernel="imq")
    >>> sorted(model.objective(model(torch.zeros(5, 1, 28, 28))))
    ['loss', 'mmd']

    Args:
        lambda_mmd: lambda, in nats; >= 0. The paper has 10 for the squared error; nats need a larger value.
        kernel: kernel of the MMD, "imq" or "rbf". "imq" is the mean over seven scales; the paper's code takes the sum,
            so its lambda is 7 times as large.
        **kwargs: arguments of ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, lambda_mmd: float, kernel: str, **kwargs):
        super().__init__(data_shape, objective=MMD(lambda_mmd, kernel), **kwargs)
