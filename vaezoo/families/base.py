"""The base class of all families of distributions."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo.instantiate import Recorded
from vaezoo.missing import is_observed
from vaezoo.types import Shape

WHOLE_NUMBERS = frozenset({"count", "token", "categorical"})  # kinds of data that are integers, not floats


class Family(Recorded, nn.Module):
    """A function from n raw tensors of one shape to a distribution over this shape, elementwise or joint.

    >>> from vaezoo.families import Normal
    >>> family = Normal()
    >>> family.num_outputs  # mean and log scale
    2
    >>> family(torch.zeros(5, 3), torch.zeros(5, 3))
    Normal(loc: torch.Size([5, 3]), scale: torch.Size([5, 3]))

    Attributes:
        num_outputs: n, the number of raw tensors. If ``raw_shape`` is not overridden, the network must emit n numbers
            for each dimension.
        supported_data: the kinds of data for which ``log_prob`` is a proper log density or log probability.
        is_batch_coupled: whether, in training, log p of an example depends on the other examples of its batch.
        supports_missing: whether missing entries (``vaezoo.missing``) are left out of log p.
        space: the space of its values, "real" or "sphere". A posterior must have the space of its prior.
        fill_value: a value that the family can score; it replaces missing entries before the density is computed.
        measure: what log p(x) is of, beside the values of x, in words such as "given their sum". Numbers of different
            measures cannot be compared.
    """

    num_outputs: int = 1
    supported_data: frozenset[str] = frozenset({"byte", "unit", "real"})
    is_batch_coupled: bool = False
    supports_missing: bool = False
    space: str = "real"
    fill_value: float = 0
    measure: str = ""

    @property
    def takes_integers(self) -> bool:
        """True if the data are integers (int64): counts, tokens or categories."""
        return self.supported_data <= WHOLE_NUMBERS

    @property
    def limits(self) -> dict[str, str]:
        """Capabilities (``vaezoo.models.base.CAPABILITIES``) that a model lacks with this posterior or likelihood, and
        why.
        """
        return {}

    def raw_shape(self, shape: Shape) -> tuple[int, ...]:
        """Return the shape of the network's output for one y: n blocks along the first dimension by default.

        Args:
            shape: shape of one y.
        """
        first, *rest = shape
        return (self.num_outputs * first, *rest)

    def split(self, raw: Tensor, shape: Shape) -> tuple[Tensor, ...]:
        """Split the network's output into the raw parameters.

        Concatenated along the first dimension after the batch dimensions, the parameters are the output again.

        Args:
            raw: output of the network, (*batch, *raw_shape(shape)).
            shape: shape of one y.
        """
        return raw.chunk(self.num_outputs, dim=-len(shape))

    @abstractmethod
    def forward(self, *params: Tensor) -> Distribution:
        """Return the distribution with these raw parameters.

        Its batch shape is (*batch, *event) if the family is elementwise, otherwise (*batch,).

        Args:
            *params: the raw parameters as ``split`` returns them; each (*batch, *event) by default.
        """

    @abstractmethod
    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        """Return raw parameters of a distribution whose mean is ``mean``, or near it. Training starts from them.

        Only likelihoods need this method.

        Args:
            mean: the mean, shape of one y.
        """

    def params_for_data(self, mean: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """Return raw parameters of a distribution that fits the data. Training starts from them.

        By default they are ``params_for_mean(mean)``.

        Args:
            mean: the mean of the observed entries, shape of one y.
            x: training examples, (N, *shape); entries may be missing.
        """
        return self.params_for_mean(mean)

    def point_estimate(self, *params: Tensor) -> Tensor:
        """Return one point that represents the distribution, (*batch, *event): the mean, if it has a formula."""
        return self(*params).mean

    def given(self, px: Distribution, x: Tensor) -> Distribution:
        """Return p(x | z) with what it takes from x itself, such as the sum of counts; by default nothing.

        Args:
            px: a distribution of this family, batch shape (B,).
            x: examples, (B, *shape).
        """
        return px

    def check(self, x: Tensor) -> None:
        """Raise a ValueError if the data are not of a supported kind. It is too slow to call in every training step."""
        require_tensor(x)
        if self.supported_data & {"real", "mixed"}:
            return
        name, got = type(self).__name__, f"got values in [{x.min()}, {x.max()}]"
        if self.takes_integers:
            if x.is_floating_point():
                raise ValueError(
                    f"{name} takes whole numbers as integers, got {x.dtype}: convert whole numbers with x.long(), or "
                    f"choose a likelihood of real numbers such as Normal"
                )
            if not is_observed(x).all():
                raise ValueError(
                    f"{name} takes whole numbers >= 0, {got}: if -1 marks missing entries, use Masked({name}), or "
                    f"choose a likelihood of real numbers such as Normal"
                )
            return
        if self.supported_data == {"binary"} and not ((x == 0) | (x == 1)).all():
            raise ValueError(
                f"{name} takes only the values 0 and 1, {got}: binarize the data, or choose a likelihood of grey "
                f"values such as ContinuousBernoulli"
            )
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(
                f"{name} takes values in [0, 1], {got}: divide bytes by 255, or choose a likelihood of real numbers "
                f"such as Normal"
            )
        if self.supported_data == {"byte"}:
            levels = 255 * x.double()
            # Data in float64 may have been float32 before.
            types = {torch.float32, x.dtype} if x.is_floating_point() else {torch.float32}
            rounding = 510 * max(torch.finfo(dtype).eps for dtype in types)
            if not ((levels - levels.round()).abs() <= rounding).all():
                raise ValueError(
                    f"{name} takes the 256 levels k / 255 of 8-bit data, {got} that are not levels: round the data by "
                    f"(255 * x).round() / 255, or choose a likelihood of grey values such as ContinuousBernoulli"
                )


def require_tensor(value: object) -> None:
    """Raise a ValueError if the value is not a tensor, but for example a numpy array."""
    if not isinstance(value, Tensor):
        array = "x" if type(value).__name__ == "ndarray" else "numpy.asarray(x)"
        raise ValueError(
            f"expected a torch.Tensor, got {type(value).__name__}: convert it with torch.from_numpy({array})"
        )
