"""The VAE of count vectors, such as the reads of the genes of a cell."""

from functools import partial

from vaezoo.families import ScaledNegativeBinomial
from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, LogInput
from vaezoo.types import NetFactory, Shape


class CountVAE(VAE):
    """The VAE of a vector of counts x (D,) given their sum l, such as the reads of the genes of a cell: scVI's model.

        p(z) = N(0, I),  rho = softmax(f(z)),  l = sum_g x_g
        x_g ~ NB(mean = l rho_g, variance = mean + mean^2 / theta_g)
        ELBO = E_q[log p(x | z, l)] - KL(q(z | x), p(z)) <= log p(x | l)

    theta_g is a parameter of gene g. With ``zero_inflated``, x_g is 0 with a probability pi_g(z) for another reason.

    The size l is taken from x itself and not scored, so the values are log p(x | l): they can be compared with those of
    models that are given l too, such as a multinomial, and no others. For each l, the probabilities of all x with this
    sum add up to less than 1, because the sum of negative binomials may differ from l: log p(x | l) is not
    overestimated. A sample has the l of a training example.

    Reference: Lopez et al. 2018, Deep generative modeling for single-cell transcriptomics,
    https://doi.org/10.1038/s41592-018-0229-2.
    Differs from the paper: l is observed, as by default in the authors' later code, and not a latent variable; there
    are no batches of an experiment and no batch normalization; additional zeros are off by default.

    >>> import torch
    >>> model = CountVAE((3,), latent_dim=2, zero_inflated=False)
    >>> model(torch.tensor([[7, 0, 25]])).elbo.shape
    torch.Size([1])

    Args:
        data_shape: (D,).
        zero_inflated: whether counts have additional zeros.
        encoder: makes the network of q(z | x), see ``VAE``; it is given ln(1 + x).
        **kwargs: arguments of ``VAE``, without likelihood.

    Raises:
        ValueError: data_shape is not that of a vector.
    """

    def __init__(self, data_shape: Shape, *, zero_inflated: bool, encoder: NetFactory | None = None, **kwargs):
        likelihood = ScaledNegativeBinomial(data_shape[0], zero_inflated)
        super().__init__(data_shape, encoder=partial(LogInput, net=encoder or MLP), likelihood=likelihood, **kwargs)
        self.has_own_likelihood = True
