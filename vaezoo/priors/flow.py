"""A normalizing flow as the prior."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import Normal as TorchNormal

from vaezoo.conditional import Conditional
from vaezoo.distributions.flow import check_flow_shape, make_flow
from vaezoo.nets import MLP
from vaezoo.nets.mlp import check_widths
from vaezoo.priors.base import Prior
from vaezoo.types import Shape


class AffineCoupling(nn.Module):
    """One part of z stays as it is; the other is scaled and shifted by networks of the first
    (Dinh et al. 2017, eq. 4-5): y_b = z_b exp(s(z_a)) + t(z_a), log |det dy/dz| = sum s(z_a).

    Args:
        dim: D; >= 2.
        hidden: width of each hidden layer of the network of s and t.
        activation: name of a function in ``torch.nn.functional``.
        keep_first: whether z_a is the first half, else the second.
    """

    max_log_scale = 2.0  # |s| is below it: a layer scales by e^2 at most

    def __init__(self, dim: int, hidden: Sequence[int], activation: str, keep_first: bool):
        super().__init__()
        self.sizes = [dim // 2, dim - dim // 2]
        self.stays = 0 if keep_first else 1
        self.net = MLP([self.sizes[self.stays]], [2 * self.sizes[1 - self.stays]], hidden, activation)
        # Near the identity at first: couplings at full strength scramble what the encoder has to start from.
        nn.init.xavier_uniform_(self.net.layers[-1].get_parameter("weight"), gain=0.01)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """z_a, z_b, and s and t of z_a."""
        halves = z.split(self.sizes, dim=-1)
        stays, moves = halves[self.stays], halves[1 - self.stays]
        out = self.net(stays.reshape(-1, stays.shape[-1])).reshape(*stays.shape[:-1], -1)
        s, t = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=-1)
        return stays, moves, self.max_log_scale * torch.tanh(s / self.max_log_scale), t

    def join(self, stays: Tensor, moved: Tensor) -> Tensor:
        return torch.cat([stays, moved] if self.stays == 0 else [moved, stays], dim=-1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        stays, moves, s, t = self.split(z)
        return self.join(stays, moves * s.exp() + t), s.sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        stays, moved, s, t = self.split(y)
        return self.join(stays, (moved - t) * torch.exp(-s)), s.sum(-1)


class FlowPrior(Prior):
    """p(z): a standard normal pushed through T affine couplings, which keep each half in turn.

    Density and samples both cost one pass (Dinh et al. 2017, https://arxiv.org/abs/1605.08803).

    Args:
        shape: of the latent, (D,) with D >= 2.
        posterior: not used.
        num_flows: T, number of couplings; >= 0. T >= 2 moves every dimension.
        hidden: width of each hidden layer of each coupling's network.
        activation: name of a function in ``torch.nn.functional``.
    """

    loc: Tensor
    scale: Tensor

    def __init__(
        self,
        shape: Shape,
        posterior: Conditional | None = None,
        num_flows: int = 8,
        hidden: Sequence[int] = (128,),
        activation: str = "relu",
    ):
        super().__init__(shape)
        dim = check_flow_shape(shape, num_flows)
        if dim < 2:
            raise ValueError(f"a coupling splits the latent in two: latent_dim must be >= 2, got {dim}")
        check_widths("the flow's hidden", hidden)
        self.register_buffer("loc", torch.zeros(dim), persistent=False)
        self.register_buffer("scale", torch.ones(dim), persistent=False)
        couplings = (AffineCoupling(dim, hidden, activation, keep_first=t % 2 == 0) for t in range(num_flows))
        self.couplings: Iterable[AffineCoupling] = nn.ModuleList(couplings)  # type: ignore[assignment]

    @property
    def limits(self) -> dict[str, str]:
        return {"kl_per_dim": "a flow does not factorize over dimensions"} if list(self.couplings) else {}

    def forward(self, context: Tensor | None = None) -> Distribution:
        base = Independent(TorchNormal(self.loc, self.scale, validate_args=False), 1, validate_args=False)
        return make_flow(base, list(self.couplings))
