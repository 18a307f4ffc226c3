"""A loss that keeps KL(q, p) at a capacity, which rises during training."""

from functools import partial

from torch import Tensor

from vaezoo.objectives.base import Objective, linear_rise
from vaezoo.trace import Trace


class Capacity(Objective):
    """The negative log-likelihood plus the distance between KL(q, p) and a capacity C.

        loss = -E_q[log p(x | z)] + gamma |KL(q(z | x), p(z)) - C|

    KL is the mean over the batch. C rises linearly from 0 to ``capacity`` in the first ``steps`` optimizer steps.

    Burgess et al. 2018, Understanding disentangling in beta-VAE, https://arxiv.org/abs/1804.03599.

    Args:
        capacity: final value of C, in nats; >= 0.
        gamma: weight of the distance; >= 0.
        steps: number of optimizer steps until C reaches ``capacity``; >= 1.
    """

    is_batch_coupled = True  # the distance of a mean is not the mean of the distances

    def __init__(self, capacity: float, gamma: float, steps: int):
        super().__init__()
        if steps < 1:
            raise ValueError(f"capacity_steps must be >= 1, got {steps}")
        self.set_weight("capacity", capacity)
        self.set_weight("gamma", gamma)
        self.schedules["capacity"] = partial(linear_rise, steps=steps)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        distance = (self.kl_term(trace) - self.get_buffer("capacity")).abs()
        return {"loss": self.get_buffer("gamma") * distance - trace.mean_log_px, "capacity_distance": distance}
