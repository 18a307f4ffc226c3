"""The objective of few labels: a bound for each example, with or without its label, and the cross-entropy."""

from typing import Any

import torch
from torch import Tensor

from vaezoo.objectives.base import Objective
from vaezoo.trace import Trace


class SemiSupervised(Objective):
    """The negative bound of each example, that with its label if it has one, and the cross-entropy of the labels.

        L(x, y) = E_q(z | x, y)[log p(x | y, z)] - ln C - KL(q(z | x, y), p(z))
        U(x)    = sum_y q(y | x) L(x, y) + H(q(y | x))
        loss    = -mean(L(x, y) if x has a label, else U(x)) + alpha * mean over labelled x of -ln q(y | x)

    The first mean is over all B examples of the batch, the second one over those with a label; it is 0 if none has one.
    A missing label is -1. U(x) is the ELBO of the trace, whose K samples are K / C of each class, class by class.

    Kingma et al. 2014, Semi-Supervised Learning with Deep Generative Models, https://arxiv.org/abs/1406.5298, eq. 6 to
    9. There, the bounds are sums over all N examples, and alpha is 0.1 N; here they are means, so alpha is 0.1.

    Args:
        alpha: weight of the cross-entropy; >= 0.
        num_classes: C, the number of classes; >= 1.
    """

    has_kl_term = False  # not one that free bits could be applied to

    def __init__(self, alpha: float, num_classes: int):
        super().__init__()
        self.set_weight("alpha", alpha)
        self.num_groups = num_classes

    def forward(self, trace: Trace) -> dict[str, Tensor]:
        label, code = trace.latents
        q: Any = label.q
        log_q = q.logits  # (B, C)
        labels = trace.context if trace.context is not None else log_q.new_full(log_q.shape[:1], -1)
        observed = labels >= 0
        place = labels.long().clamp(min=0).unsqueeze(1)  # (B, 1)
        bounds = (trace.log_px - code.kl_of_samples).unflatten(0, (-1, self.num_groups)).mean(0)  # (C, B)
        log_prior = label.p.log_prob(label.z[: self.num_groups])[:, :1]  # -ln C for each class
        supervised = (bounds + log_prior).T.gather(1, place).squeeze(1)
        cross_entropy = -log_q.gather(1, place).squeeze(1).where(observed, 0).sum() / observed.sum().clamp(min=1)
        bound = torch.where(observed, supervised, trace.elbo).mean()
        return {"loss": self.get_buffer("alpha") * cross_entropy - bound, "cross_entropy": cross_entropy}
