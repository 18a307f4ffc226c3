"""The evidence lower bound (ELBO), with a weight on its KL term."""

from functools import partial

from torch import Tensor

from vaezoo.objectives.base import Objective, linear_rise
from vaezoo.trace import Trace


class ELBO(Objective):
    """The negative ELBO, with a weight on its KL term.

        loss = -E_q[log p(x | z)] + beta KL(q(z | x), p(z)),  mean over the batch

    beta = 1 is the negative ELBO of Kingma & Welling 2013, Auto-Encoding Variational Bayes,
    https://arxiv.org/abs/1312.6114, eq. 3. beta > 1 is the loss of Higgins et al. 2017, beta-VAE: Learning Basic
    Visual Concepts with a Constrained Variational Framework, https://openreview.net/forum?id=Sy2fzU9gl.

    Args:
        beta: weight of KL(q, p); >= 0.
        warmup_steps: number of optimizer steps in which the weight rises linearly from 0 to beta (Bowman et al. 2016,
            Generating Sentences from a Continuous Space, https://arxiv.org/abs/1511.06349); 0: it is beta at once.

    Raises:
        ValueError: a number is negative.
    """

    kl_weight = "beta"

    def __init__(self, beta: float = 1.0, warmup_steps: int = 0):
        super().__init__()
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be >= 0, got {warmup_steps}")
        self.set_weight("beta", beta)
        if warmup_steps > 0:
            self.schedules["beta"] = partial(linear_rise, steps=warmup_steps)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {"loss": self.get_buffer("beta") * self.kl_term(trace) - trace.mean_log_px}
