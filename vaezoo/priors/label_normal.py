"""A normal prior for each class."""

from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from vaezoo.conditional import Conditional
from vaezoo.nets.label_conditioned import check_class_labels
from vaezoo.priors.base import Prior
from vaezoo.types import Shape


class LabelNormal(Prior):
    """A prior that depends on the label, p(z | y) = N(mu_y, diag sigma_y^2), all parameters learned.

    The ELBO is then a bound on log p(x | y). Training starts at the standard normal for every class.

    Reference: Sohn et al. 2015, Learning Structured Output Representation using Deep Conditional Generative Models,
    https://papers.nips.cc/paper/5775. Differs from the paper: there, a network maps the condition to mu and sigma; for
    a class label, a table is as general.

    Args:
        shape: shape of one z.
        posterior: not used.
        num_classes: number of classes; >= 1. Labels are 0 ... num_classes - 1.
    """

    conditional = True

    def __init__(self, shape: Shape, posterior: Conditional | None = None, *, num_classes: int):
        super().__init__(shape)
        if num_classes < 1:
            raise ValueError(f"num_classes must be >= 1, got {num_classes}")
        self.num_classes, self.shape = num_classes, tuple(shape)
        self.loc = nn.Parameter(torch.zeros(num_classes, prod(shape)))
        self.log_scale = nn.Parameter(torch.zeros(num_classes, prod(shape)))

    def forward(self, context: Tensor | None = None) -> Independent:
        """Return p(z | y), with batch shape (B,) and event shape ``shape``.

        Args:
            context: labels, (B,).

        Raises:
            ValueError: there are no labels.
        """
        if context is None:
            raise ValueError("the prior LabelNormal needs class labels: pass context=labels, a tensor of integers (B,)")
        y = context.long()
        loc, scale = (nn.functional.embedding(y, table) for table in (self.loc, self.log_scale.exp()))
        normal = Normal(loc.unflatten(-1, self.shape), scale.unflatten(-1, self.shape), validate_args=False)
        return Independent(normal, len(self.shape), validate_args=False)

    def check_labels(self, labels: Tensor) -> None:
        check_class_labels(labels, self.num_classes, "the prior LabelNormal", "model.prior.num_classes")
