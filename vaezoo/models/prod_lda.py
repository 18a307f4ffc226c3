"""The topic model ProdLDA."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from vaezoo.families import Multinomial
from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, LogInput, SharesDecoder
from vaezoo.priors import DirichletNormal
from vaezoo.types import NetFactory, Shape


class ProdLDA(VAE):
    """ProdLDA, a topic model: each text has shares of T topics, and each topic weights of the D words.

        theta = softmax(z),  z ~ N(0, (1 - 1/T) / alpha I),  x ~ Multinomial(N, softmax(B theta))
        ELBO = E_q[log p(x | z, N)] - KL(q(z | x), p(z)) <= log p(x | N)

    The normal approximates a Dirichlet prior of theta with the concentration alpha (Laplace's approximation). The words
    of a topic are multiplied and not mixed (a product of experts), which makes topics more distinct than those of LDA.
    The weights B are ``model.decoder.net.weights``, (D, T): the largest of a column are the words of its topic.

    Reference: Srivastava & Sutton 2017, Autoencoding Variational Inference for Topic Models,
    https://arxiv.org/abs/1703.01488.
    Differs from the paper: no batch normalization and no dropout, so that an example's bound is a function of this
    example alone; the encoder is given ln(1 + x); the bound has the multinomial coefficient.

    >>> import torch
    >>> model = ProdLDA((5,), num_topics=3, alpha=0.02)
    >>> model(torch.tensor([[1, 0, 2, 0, 0]])).elbo.shape
    torch.Size([1])

    Args:
        data_shape: (D,).
        num_topics: T; >= 2.
        alpha: concentration of the Dirichlet prior of a text's topics; > 0. A small one makes few of them large.
        encoder: makes the network of q(z | x), see ``VAE``; it is given ln(1 + x).
        **kwargs: arguments of ``VAE``, without latent_dim, decoder, prior and likelihood.

    Raises:
        ValueError: data_shape is not that of a vector, or a number is out of range.
    """

    def __init__(
        self, data_shape: Shape, *, num_topics: int, alpha: float, encoder: NetFactory | None = None, **kwargs
    ):
        super().__init__(
            data_shape,
            num_topics,
            encoder=partial(LogInput, net=encoder or MLP),
            decoder=SharesDecoder,
            likelihood=Multinomial(),
            prior=partial(DirichletNormal, alpha=alpha),
            **kwargs,
        )
        self.has_own_likelihood = True

    def topic_words(self, names: Sequence[str], num: int = 10) -> list[list[str]]:
        """Return the words with the largest weights in each topic, the largest first.

        Args:
            names: the words, (D,).
            num: number of words of a topic.
        """
        weights: Tensor = self.decoder.net.weights  # type: ignore[assignment]  # of a ``SharesDecoder``
        return [[names[i] for i in topic.argsort(descending=True)[:num].tolist()] for topic in weights.T]
