"""The Wasserstein auto-encoder."""

from vaezoo.models.vae import VAE
from vaezoo.objectives import MMD
from vaezoo.types import Shape


class WAE(VAE):
    """The Wasserstein auto-encoder, WAE-MMD: Tolstikhin et al. 2018, https://arxiv.org/abs/1711.01558.

        loss = -E_q[log p(x | z)] + lambda MMD^2(q(z), p(z))

    The aggregate q(z) is drawn to the prior, not each q(z | x): codes of different x may stay apart.

    Where we leave the paper: its cost c(x, G(z)) is -log p(x | z) here, which for the fixed-scale normal
    is the squared error / (2 scale^2); and its experiments have a deterministic encoder, where ours is
    Gaussian, which its theory allows, so that there is an ELBO. No term of the loss rewards its scale, which
    shrinks: the ELBO is a true bound, but far below a VAE's, and the rate is large.
    The prior learns from its draws alone: a mixture of normals stays where it starts.

    Args:
        lambda_mmd: lambda, nats; >= 0. The paper's 10 goes with squared error; nats need more.
        kernel: imq or rbf. The imq is the mean over seven scales: the paper's code takes their sum, a
            lambda 7 times ours.
        **kwargs: as ``VAE``.
    """

    def __init__(self, data_shape: Shape, *, lambda_mmd: float, kernel: str, **kwargs):
        super().__init__(data_shape, objective=MMD(lambda_mmd, kernel), **kwargs)
