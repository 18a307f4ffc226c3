"""Fully connected layers at the speed of the processor."""

import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies float32 matrices faster than what torch takes: on x86 processors not of Intel's make.

    There MKL, torch's choice, keeps to narrow vectors: half the speed on a Zen 4. The answer is the processor's
    alone, and never a measurement's, for the two differ in the last bits.
    """
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "GenuineIntel" not in cpu.read_text() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


ONEDNN = onednn_is_faster()


# torch keeps compiled graphs on disk by this name: another backward pass needs another name.
@torch.library.custom_op("vaezoo::linear_v2", mutates_args=())
def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` in float32 on a CPU, x (N, K)."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@onednn_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(len(x), len(weight))


def keep(ctx, inputs, output) -> None:
    """Save what the backward pass needs."""
    ctx.save_for_backward(*inputs[:2])


def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x, weight and bias, those that are needed: products again, which have gradients in turn."""
    x, weight = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad
    grad, x = grad.contiguous(), x.contiguous()  # of a slice of columns oneDNN's product is a thousand times slower
    return (
        onednn_linear(grad, weight.t(), None) if needs_x else None,
        onednn_linear(grad.t(), x.t(), None) if needs_weight else None,
        grad.sum(0) if needs_bias else None,
    )


onednn_linear.register_autograd(backward, setup_context=keep)


class Linear(nn.Linear):
    """``nn.Linear``; (N, in) to (N, out) in float32 on a CPU by whatever library is faster there.

    By oneDNN it has gradients of any order, and no forward-mode derivatives (``torch.func.jvp``).
    """

    def forward(self, input: Tensor) -> Tensor:
        single = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu" and input.dim() == 2
        if single and not torch.is_autocast_enabled("cpu") and ONEDNN:
            return onednn_linear(input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)
