"""What every family has: how many planes it needs, what it can score, where training starts."""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution


class Family(nn.Module):
    """n raw tensors of one shape -> a distribution over that shape, elementwise or joint.

    Attributes:
        num_outputs: planes the network must emit.
        supported_data: the kinds of data that ``log_prob`` is a proper density or mass for.
        is_batch_coupled: whether one example's log p in training depends on the others of its batch.
        space: where its values lie: "real" or "sphere". A posterior's must be its prior's.
    """

    num_outputs: int = 1
    supported_data: frozenset[str] = frozenset({"byte", "unit", "real"})
    is_batch_coupled: bool = False
    space: str = "real"

    @property
    def limits(self) -> dict[str, str]:
        """What a model with this posterior cannot do (``vaezoo.models.base.CAPABILITIES``), with the reasons."""
        return {}

    @abstractmethod
    def forward(self, *params: Tensor) -> Distribution:
        """The distribution whose parameters are ``params``, each (*batch, *event).

        Its batch shape is theirs where it is elementwise, else (*batch,).
        """

    @abstractmethod
    def params_for_mean(self, mean: Tensor) -> tuple[Tensor, ...]:
        """Raw parameters of a distribution with this mean, or one near it: where training starts.

        Likelihoods alone need it.
        """

    def point_estimate(self, *params: Tensor) -> Tensor:
        """One point that stands for the distribution, (*batch, *event): its mean where it has one."""
        return self(*params).mean

    def check(self, x: Tensor) -> None:
        """Raise a ValueError for data that this family cannot score; too slow for a training step."""
        require_tensor(x)
        if "real" in self.supported_data:
            return
        name, got = type(self).__name__, f"got values in [{x.min()}, {x.max()}]"
        if self.supported_data == {"binary"} and not ((x == 0) | (x == 1)).all():
            raise ValueError(
                f"{name} scores 0 and 1 alone, {got}: binarise them, or choose a likelihood of grey values "
                f"such as ContinuousBernoulli"
            )
        if not ((x >= 0) & (x <= 1)).all():
            raise ValueError(
                f"{name} scores values in [0, 1], {got}: divide bytes by 255, or choose a likelihood of any real "
                f"number such as Normal"
            )
        if self.supported_data == {"byte"}:
            levels = 255 * x.double()
            types = {torch.float32, x.dtype} if x.is_floating_point() else {torch.float32}  # float64 may come from it
            rounding = 510 * max(torch.finfo(dtype).eps for dtype in types)
            if not ((levels - levels.round()).abs() <= rounding).all():
                raise ValueError(
                    f"{name} scores the levels k / 255 of 8-bit data, {got} between them: round them, "
                    f"(255 * x).round() / 255, or choose a likelihood of grey values such as ContinuousBernoulli"
                )


def require_tensor(value: object) -> None:
    """Raise a ValueError for what is not a tensor, such as a numpy array."""
    if not isinstance(value, Tensor):
        raise ValueError(f"expected a torch.Tensor, got a {type(value).__name__}: convert it, torch.from_numpy(x)")
