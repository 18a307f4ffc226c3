"""The VAE of sentences."""

from vaezoo.families import Family
from vaezoo.models.checks import check_sentence_likelihood
from vaezoo.models.vae import VAE
from vaezoo.objectives import ELBO
from vaezoo.types import Shape


class TextVAE(VAE):
    """The VAE of sentences: an autoregressive decoder, word dropout and a KL term that is warmed up.

        log p(x | z) = sum_{t = 1}^{T} log p(x_t | x_1, ..., x_{t-1}, z),  x_T = <end>
        loss = -E_q[log p(x | z)] + beta(step) KL(q(z | x), p(z)),  beta(step) = min(1, step / warmup_steps)

    A decoder that predicts each token from those before it can do without z: then KL(q, p) falls to 0. Three remedies
    are chosen here: beta rises from 0; free bits (``free_bits``); and word dropout, which hides a part of the tokens
    from the decoder in training. The logged ELBO has neither beta nor free bits in it. Its training value has word
    dropout in it; those of validation and test have not.

    Reference: Bowman et al. 2016, Generating Sentences from a Continuous Space, https://arxiv.org/abs/1511.06349.
    Differs from the paper: causal convolutions in place of LSTMs, as in Yang et al. 2017,
    https://arxiv.org/abs/1702.08139; beta rises linearly, not as a sigmoid; free bits are added (Kingma et al. 2016,
    https://arxiv.org/abs/1606.04934).

    >>> import torch
    >>> from functools import partial
    >>> from vaezoo.families import TokenSequence
    >>> from vaezoo.nets import SequenceEncoder, TokenInput
    >>> likelihood = TokenSequence(num_tokens=9, length=5, end_token=1, word_dropout=0.3)
    >>> encoder = partial(TokenInput, net=SequenceEncoder, num_tokens=9)
    >>> model = TextVAE((5,), likelihood=likelihood, encoder=encoder, latent_dim=8, warmup_steps=500)
    >>> model(torch.tensor([[4, 7, 3, 1, -1]])).elbo.shape
    torch.Size([1])

    Args:
        data_shape: (T,), number of tokens of a sentence with ``<end>`` and padding.
        likelihood: a ``TokenSequence``, which has the sizes of the decoder and the probability of word dropout.
        warmup_steps: number of optimizer steps until beta is 1; >= 0.
        **kwargs: arguments of ``VAE``, without objective.

    Raises:
        ValueError: the likelihood cannot score sentences.
    """

    def __init__(self, data_shape: Shape, *, likelihood: Family, warmup_steps: int, **kwargs):
        check_sentence_likelihood(likelihood, "a text_vae")
        super().__init__(data_shape, likelihood=likelihood, objective=ELBO(warmup_steps=warmup_steps), **kwargs)
