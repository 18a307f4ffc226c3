"""The way from one code to another."""

import torch
from torch import Tensor


def mix_codes(a: Tensor, b: Tensor, steps: int, on_sphere: bool = False) -> Tensor:
    """Return points at equal distances on the lines from a to b, (N, steps, *latent_shape).

    >>> mix_codes(torch.tensor([[0.0, 4.0]]), torch.tensor([[1.0, 2.0]]), steps=3)[0].tolist()
    [[0.0, 4.0], [0.5, 3.0], [1.0, 2.0]]

    Args:
        a: codes, (N, *latent_shape).
        b: codes, (N, *latent_shape).
        steps: number of points; the first is a, the last is b.
        on_sphere: whether the points are moved to the unit sphere.
    """
    share = torch.linspace(0, 1, steps).to(a).reshape(steps, *[1] * (a.dim() - 1))
    path = torch.lerp(a.unsqueeze(1), b.unsqueeze(1), share)
    return path / path.norm(dim=-1, keepdim=True) if on_sphere else path
