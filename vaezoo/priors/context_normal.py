"""A normal prior whose parameters a network computes from a condition."""

from torch import Tensor
from torch.distributions import Distribution

from vaezoo.conditional import Conditional
from vaezoo.families import diagonal_normal
from vaezoo.nets.context_conditioned import require_context
from vaezoo.priors.base import Prior
from vaezoo.types import NetFactory, Shape


class ContextNormal(Prior):
    """A prior that depends on a condition, p(z | c) = N(mu(c), diag sigma(c)^2), such as an image c.

    The ELBO is then a bound on log p(x | c).

    Reference: Sohn et al. 2015, Learning Structured Output Representation using Deep Conditional Generative Models,
    https://papers.nips.cc/paper/5775.

    Args:
        shape: shape of one z.
        posterior: not used.
        context_shape: shape of one c.
        net: makes the network from c to mu and log sigma.
    """

    conditional = True

    def __init__(self, shape: Shape, posterior: Conditional | None = None, *, context_shape: Shape, net: NetFactory):
        super().__init__(shape)
        self.shape = tuple(shape)
        self.normal = Conditional(context_shape, shape, net, diagonal_normal(shape))

    def forward(self, context: Tensor | None = None) -> Distribution:
        """Return p(z | c), with batch shape (B,) and event shape ``shape``.

        Args:
            context: conditions, (B, *context_shape).
        """
        num = context.shape[0] if isinstance(context, Tensor) else 1  # len() would fix the batch size of an export
        return self.normal(require_context(context, num, self.normal.in_shape))

    def check_labels(self, labels: Tensor) -> None:
        """Raise a ValueError if the context is no condition of this shape, but for example a class label."""
        require_context(labels, len(labels), self.normal.in_shape)
