"""The evidence lower bound, its rate weighted by beta."""

from torch import Tensor

from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace


class ELBO(Objective):
    """loss = -E_q[log p(x | z)] + beta KL(q, p), mean over the batch.

    beta = 1 is the negative bound of Kingma & Welling 2013 (https://arxiv.org/abs/1312.6114, eq. 3);
    beta > 1 is Higgins et al. 2017.

    Args:
        beta: weight of the rate; >= 0.
    """

    kl_weight = "beta"

    def __init__(self, beta: float = 1.0):
        super().__init__()
        self.set_weight("beta", beta)

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        return {"loss": self.get_buffer("beta") * self.kl_term(trace) - trace.log_px.mean()}
