"""The ELBO and its parts of each example."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vaezoo import seeding
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.means import accumulation_dtype
from vaezoo.types import Batch

if TYPE_CHECKING:
    from vaezoo.models import LatentVariableModel


def bound_values(model: "LatentVariableModel", batches: Iterable[Batch]) -> dict[str, Tensor]:
    """Return the bound of each example and its parts, in nats, by name.

    The noise is that of a test (``EvaluationLoop.test_step``), so the mean of ``elbo`` over the test set, in its
    batches, is the ELBO of the test.

    Args:
        model: any model of the package.
        batches: examples x (B, *data_shape) and labels, on the model's device.

    Returns:
        ``elbo``, ``distortion`` (-E_q[log p(x | z)]) and ``rate`` (KL), (N,) each, float64; without a bound,
        ``distortion`` only.
    """
    parts: dict[str, list[Tensor]] = {}
    with evaluating(model), seeding.isolated(model.device, model.seed, "test"):
        for number, (x, y) in enumerate(batches):
            seeding.reseed(model.device, model.seed, "test", number, 0)
            trace = model(x, y)
            values = {"elbo": trace.elbo} if trace.has_bound else {}
            values["distortion"] = -trace.expectation(trace.log_px)
            values |= {"rate": trace.kl.sum(1)} if trace.has_bound else {}
            for name, value in values.items():
                parts.setdefault(name, []).append(value.to(accumulation_dtype(value)).cpu())
    return {name: torch.cat(values) for name, values in parts.items()}
