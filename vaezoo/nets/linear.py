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


def multiply(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """``a @ b.T + bias`` by oneDNN, a (N, K) and b (M, K) in float32 on a CPU."""
    return torch.ops.mkldnn._linear_pointwise(a, b, bias, "none", [], "")


@torch.library.custom_op("vaezoo::linear", mutates_args=())
def onednn_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` in float32 on a CPU, x (N, K)."""
    return multiply(x, weight, bias)


@onednn_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty(len(x), len(weight))


@torch.library.custom_op("vaezoo::linear_backward", mutates_args=())
def onednn_backward(grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool) -> tuple[Tensor, Tensor]:
    """The gradients of x, where it is needed, and of the weight."""
    of_x = multiply(grad, weight.t()) if needs_x else grad.new_empty(0)
    return of_x, multiply(grad.t(), x.t())


@onednn_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor, needs_x: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x) if needs_x else grad.new_empty(0), torch.empty_like(weight)


def keep(ctx, inputs, output) -> None:
    """Save what the backward pass needs."""
    x, weight, _ = inputs
    ctx.save_for_backward(x, weight)


def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """The gradients of x, weight and bias."""
    x, weight = ctx.saved_tensors
    needs_x, _, needs_bias = ctx.needs_input_grad
    of_x, of_weight = onednn_backward(grad.contiguous(), x, weight, needs_x)
    return of_x if needs_x else None, of_weight, grad.sum(0) if needs_bias else None


onednn_linear.register_autograd(backward, setup_context=keep)


class Linear(nn.Linear):
    """``nn.Linear`` of (N, in) to (N, out), in float32 on a CPU by whatever library is faster there."""

    def forward(self, input: Tensor) -> Tensor:
        single = input.dtype == self.weight.dtype == torch.float32 and input.device.type == "cpu"
        if single and not torch.is_autocast_enabled("cpu") and ONEDNN:
            return onednn_linear(input, self.weight, self.bias)
        return F.linear(input, self.weight, self.bias)
