"""The VAE of what people have chosen, with a multinomial likelihood."""

from functools import partial

from vaezoo.families import Multinomial
from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, LogInput
from vaezoo.objectives import ELBO
from vaezoo.types import NetFactory, Shape


class MultVAE(VAE):
    """The VAE of a vector of counts x (D,) given their sum N: what a person has chosen, or the words of a text.

        p(x | z, N) = N! / prod_d x_d! prod_d pi_d^x_d,  pi = softmax(f(z))
        loss = -E_q[log p(x | z, N)] + beta KL(q(z | x), p(z))

    With beta < 1, recommendations (the largest pi_d) become better, although the bound becomes worse. The logged ELBO
    never contains beta; it is a bound of log p(x | N), and has the multinomial coefficient. So it compares with
    ``count_vae`` and ``prod_lda``, which are given the sum too.

    Reference: Liang et al. 2018, Variational Autoencoders for Collaborative Filtering, https://arxiv.org/abs/1802.05814.
    Differs from the paper: the encoder is given ln(1 + x) and not x / |x|, without dropout; log p(x | z) includes the
    coefficient; beta is constant unless ``callbacks/anneal=linear`` raises it.

    >>> import torch
    >>> model = MultVAE((3,), latent_dim=2, beta=0.2)
    >>> model(torch.tensor([[1, 0, 2]])).elbo.shape
    torch.Size([1])

    Args:
        data_shape: (D,).
        beta: weight of KL(q, p); >= 0.
        encoder: makes the network of q(z | x), see ``VAE``; it is given ln(1 + x).
        **kwargs: arguments of ``VAE``, without likelihood and objective.

    Raises:
        ValueError: data_shape is not that of a vector.
    """

    def __init__(self, data_shape: Shape, *, beta: float, encoder: NetFactory | None = None, **kwargs):
        encoder = partial(LogInput, net=encoder or MLP)
        super().__init__(data_shape, encoder=encoder, likelihood=Multinomial(), objective=ELBO(beta), **kwargs)
        self.has_own_likelihood = True
