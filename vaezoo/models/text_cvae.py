"""The conditional VAE of sentences."""

from vaezoo.families import Family
from vaezoo.models.checks import check_sentence_likelihood
from vaezoo.models.cvae import CVAE
from vaezoo.objectives import ELBO
from vaezoo.types import Shape


class TextCVAE(CVAE):
    """The conditional VAE of sentences: the decoder is given the class y of the sentence, such as its topic.

        ELBO = E_q[log p(x | z, y)] - KL(q(z | x), p(z)),  a bound on log p(x | y)

    ``sample(num, context=labels)`` writes sentences of given classes. The decoder, word dropout, warm-up and free bits
    are those of ``TextVAE``; the encoder is not given y, which can be read from x.

    Reference: Hu et al. 2017, Toward Controlled Generation of Text, https://arxiv.org/abs/1703.00955.
    Differs from the paper: all labels are known, as in ``CVAE``; their loss has a classifier, which makes samples agree
    with their class, and this one has none.

    Args:
        data_shape: (T,), number of tokens of a sentence with ``<end>`` and padding.
        likelihood: a ``TokenSequence``, see ``TextVAE``.
        warmup_steps: number of optimizer steps until the weight of the KL term is 1; >= 0.
        **kwargs: arguments of ``CVAE``, ``num_classes`` among them, without objective and label_in_encoder.

    Raises:
        ValueError: the likelihood cannot score sentences.
    """

    def __init__(self, data_shape: Shape, *, likelihood: Family, warmup_steps: int, **kwargs):
        check_sentence_likelihood(likelihood, "a text_cvae")
        objective = ELBO(warmup_steps=warmup_steps)
        super().__init__(data_shape, likelihood=likelihood, objective=objective, label_in_encoder=False, **kwargs)
