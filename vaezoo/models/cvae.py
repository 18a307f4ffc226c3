"""The conditional VAE."""

from functools import partial

from torch import Tensor

from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, LabelConditioned
from vaezoo.nets.label_conditioned import check_class_labels
from vaezoo.priors import VampPrior
from vaezoo.types import NetFactory, Shape


class CVAE(VAE):
    """The conditional VAE: encoder and decoder are given the label y, and the ELBO is a bound on log p(x | y).

        ELBO = E_q[log p(x | z, y)] - KL(q(z | x, y), p(z))

    z describes what y does not. ``sample(num, context=labels)`` draws from classes. To compare the bound with one on
    log p(x), subtract the entropy of the label: log p(x) >= log p(x | y) + log p(y).

    Reference: Sohn et al. 2015, Learning Structured Output Representation using Deep Conditional Generative Models,
    https://papers.nips.cc/paper/5775.
    Differs from the paper: the paper learns a prior p(z | y); here p(z) does not depend on y, as in Kingma et al. 2014,
    Semi-Supervised Learning with Deep Generative Models, https://arxiv.org/abs/1406.5298. A decoder that is given y can
    compensate for that.

    >>> import torch
    >>> model = CVAE((1, 28, 28), latent_dim=10, num_classes=10)
    >>> model.sample(3, context=torch.tensor([0, 1, 2])).mean.shape
    torch.Size([3, 1, 28, 28])

    Args:
        num_classes: C, the number of classes; labels are 0, ..., C - 1.
        encoder: makes the network of q(z | x, y), see ``VAE``; its input includes an embedding of y.
        decoder: makes the network of p(x | z, y), see ``VAE``; its input includes an embedding of y.
        label_in_encoder: whether the encoder is given y. If not, the bound has q(z | x) in place of q(z | x, y).
        **kwargs: arguments of ``VAE``.

    Raises:
        ValueError: the prior is a VampPrior, whose pseudo-inputs have no labels.
    """

    conditional = True

    def __init__(
        self,
        data_shape: Shape,
        *,
        num_classes: int,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        label_in_encoder: bool = True,
        **kwargs,
    ):
        if label_in_encoder:
            encoder = partial(LabelConditioned, net=encoder or MLP, num_classes=num_classes)
        decoder = partial(LabelConditioned, net=decoder or MLP, num_classes=num_classes)
        super().__init__(data_shape, encoder=encoder, decoder=decoder, **kwargs)
        self.num_classes = num_classes
        if isinstance(self.prior, VampPrior):
            raise ValueError("prior: the pseudo-inputs of a VampPrior have no labels, choose another prior")

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        if context is None:
            raise ValueError("a cvae needs one class label for each example, but the data have no labels")
        self.check_labels(context)
        super().init_from_data(x, context)

    def check_labels(self, labels: Tensor) -> None:
        """Raise a ValueError if the labels are not one of the model's classes for each example."""
        check_class_labels(labels, self.num_classes, "a cvae", "model.num_classes")
        super().check_labels(labels)
