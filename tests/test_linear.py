"""The linear layer by oneDNN is torch's own: values, every gradient, and gradients of those."""

import itertools
import time

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from vaezoo.nets import linear

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")


def leaves(needs, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = ((7, 5), (3, 5), (3,))
    return [torch.randn(shape, generator=g).requires_grad_(need) for shape, need in zip(shapes, needs, strict=True)]


@pytest.mark.parametrize("needs", list(itertools.product([False, True], repeat=3)), ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns", "slice", "one row"])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients(needs, layout, bias):
    """Of whatever needs one, for an x of any strides; a second derivative too."""
    results = []
    for function in (F.linear, linear.onednn_linear):
        x, weight, b = leaves(needs)
        seen = {"rows": x, "columns": x.t().contiguous().t(), "slice": torch.cat([x, x], 1)[:, :5],
                "one row": x[:1].expand(7, 5)}[layout]  # fmt: skip
        y = function(seen, weight, b if bias else None)
        of = [leaf for leaf in (x, weight, b if bias else None) if leaf is not None and leaf.requires_grad]
        assert y.requires_grad == bool(of)
        first = torch.autograd.grad(y.pow(3).sum(), of, create_graph=True) if of else ()
        second = torch.autograd.grad(sum(g.square().sum() for g in first), of) if of else ()
        results.append([y, *first, *second])
    for ours, theirs in zip(*results, strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_slice_of_columns_costs_no_more():
    """A half of the latent, as a coupling flow passes it on."""

    def seconds(x, weight):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            torch.autograd.grad(linear.onednn_linear(x, weight, None).sum(), weight)
            times.append(time.perf_counter() - start)
        return min(times)

    wide, weight = torch.randn(128, 40), torch.randn(400, 20, requires_grad=True)
    assert seconds(wide[:, :20], weight) < 20 * seconds(wide[:, :20].contiguous(), weight)


def test_only_what_is_needed_is_multiplied(monkeypatch):
    """A critic that is held constant costs two products, not three."""
    calls = []

    class Count(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            calls.extend([func] if "linear" in str(func) else [])
            return func(*args, **(kwargs or {}))

    x, weight, b = leaves((True, False, False))
    with Count():
        linear.onednn_linear(x, weight, b).sum().backward()
    assert sum("vaezoo" in str(call) for call in calls) == 2


@pytest.mark.parametrize("onednn", [False, True])
def test_the_layer_takes_it_in_single_precision_alone(onednn, monkeypatch):
    taken = []
    monkeypatch.setattr(linear, "ONEDNN", onednn)
    monkeypatch.setattr(linear, "onednn_linear", lambda *args: taken.append(1) or F.linear(*args))
    layer = linear.Linear(5, 3)
    layer(torch.randn(2, 5))
    assert len(taken) == onednn
    taken.clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(2, 5)).dtype == torch.bfloat16
    layer.double()(torch.randn(2, 5).double())
    assert taken == []
