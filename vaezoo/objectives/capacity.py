"""The evidence lower bound with a rate that is held at a target."""

from torch import Tensor

from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace


class Capacity(Objective):
    """loss = -E_q[log p(x | z)] + gamma |KL(q, p) - C|, C linear from 0 to ``capacity`` over ``steps``
    (Burgess et al. 2018, https://arxiv.org/abs/1804.03599). KL is the batch's mean.

    Args:
        capacity: C at the end, nats; >= 0.
        gamma: weight of the distance from C; >= 0.
        steps: optimizer steps until C is ``capacity``; >= 1.
    """

    is_batch_coupled = True  # the distance of a mean is no mean of distances

    def __init__(self, capacity: float = 25.0, gamma: float = 100.0, steps: int = 2000):
        super().__init__()
        if steps < 1:
            raise ValueError(f"capacity_steps must be >= 1, got {steps}")
        self.steps = steps
        self.set_weight("capacity", capacity)
        self.set_weight("gamma", gamma)
        self.schedules["capacity"] = self.fraction

    def fraction(self, step: int) -> float:
        """C / ``capacity`` at an optimizer step."""
        return min(1.0, step / self.steps)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        distance = (self.kl_term(trace) - self.get_buffer("capacity")).abs()
        return {"loss": self.get_buffer("gamma") * distance - trace.log_px.mean(), "capacity_distance": distance}
