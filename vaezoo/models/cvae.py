"""The conditional VAE."""

from functools import partial

from torch import Tensor

from vaezoo.models.vae import VAE
from vaezoo.nets import MLP, LabelConditioned
from vaezoo.priors import VampPrior
from vaezoo.types import NetFactory, Shape


class CVAE(VAE):
    """The conditional VAE: Sohn et al. 2015, https://papers.nips.cc/paper/5775.

    Encoder and decoder see the label y, and the bound is one of log p(x | y):

        ELBO = E_q[log p(x | z, y)] - KL(q(z | x, y), p(z)).

    z is left to describe what y does not, and ``sample(num, context=labels)`` draws from a class. The
    prior does not depend on y, as in Kingma et al. 2014 (https://arxiv.org/abs/1406.5298), where the
    paper learns p(z | y): a decoder that sees y can make up for it. To set the bound beside one of
    log p(x), subtract the label's entropy: log p(x) >= log p(x | y) + log p(y).

    Args:
        num_classes: C; labels are 0 ... C - 1.
        **kwargs: as ``VAE``.
    """

    conditional = True

    def __init__(
        self,
        data_shape: Shape,
        *,
        num_classes: int,
        encoder: NetFactory | None = None,
        decoder: NetFactory | None = None,
        **kwargs,
    ):
        sees = partial(partial, LabelConditioned, num_classes=num_classes)
        super().__init__(data_shape, encoder=sees(net=encoder or MLP), decoder=sees(net=decoder or MLP), **kwargs)
        self.num_classes = num_classes
        if isinstance(self.prior, VampPrior):
            raise ValueError("prior: the pseudo-inputs of a VampPrior have no label, choose another one")

    def init_from_data(self, x: Tensor, context: Tensor | None = None) -> None:
        if context is None:
            raise ValueError("a cvae needs one class label for each example, and this data's labels are none")
        self.check_labels(context)
        super().init_from_data(x, context)

    def check_labels(self, labels: Tensor) -> None:
        """Refuse labels that are not one class of the model for each example."""
        if labels.dim() != 1:
            raise ValueError(
                f"a cvae needs one class label for each example, and this data's labels are of shape "
                f"{tuple(labels.shape[1:])}"
            )
        if labels.is_floating_point():
            raise ValueError(f"class labels must be integers, got {labels.dtype}: convert them with labels.long()")
        low, high = int(labels.min()), int(labels.max())
        if low < 0:
            raise ValueError(f"labels run from {low} to {high}: number the classes from 0")
        if high >= self.num_classes:
            raise ValueError(
                f"num_classes={self.num_classes}, but the labels run from {low} to {high}: "
                f"use model.num_classes={high + 1}"
            )
