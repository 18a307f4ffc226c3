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
    """The affine coupling layer y_a = z_a, y_b = z_b exp(s(z_a)) + t(z_a). log |det dy/dz| = sum s(z_a).

    One half of z is kept, the other half is scaled and shifted by functions of the first.

    Reference: Dinh et al. 2017, Density estimation using Real NVP, https://arxiv.org/abs/1605.08803, eq. 4 and 5.

    Args:
        dim: D; >= 2.
        hidden: width of each hidden layer of the network of s and t.
        activation: name of a function in ``torch.nn.functional``.
        keep_first: whether the first half of z is kept; otherwise the second half.
    """

    max_log_scale = 2.0  # bound of |s|: a layer scales by at most e^2

    def __init__(self, dim: int, hidden: Sequence[int], activation: str, keep_first: bool):
        super().__init__()
        self.sizes = [dim // 2, dim - dim // 2]
        self.kept = 0 if keep_first else 1
        self.net = MLP([self.sizes[self.kept]], [2 * self.sizes[1 - self.kept]], hidden, activation)
        # Near the identity at the start: stronger couplings would scramble z before the encoder has learned anything.
        nn.init.xavier_uniform_(self.net.layers[-1].get_parameter("weight"), gain=0.01)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return z_a, z_b, s(z_a) and t(z_a)."""
        halves = z.split(self.sizes, dim=-1)
        kept, other = halves[self.kept], halves[1 - self.kept]
        out = self.net(kept.reshape(-1, kept.shape[-1])).reshape(*kept.shape[:-1], -1)
        s, t = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, dim=-1)
        return kept, other, self.max_log_scale * torch.tanh(s / self.max_log_scale), t

    def join(self, kept: Tensor, moved: Tensor) -> Tensor:
        """Concatenate the two halves in their order."""
        return torch.cat([kept, moved] if self.kept == 0 else [moved, kept], dim=-1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept, other, s, t = self.split(z)
        return self.join(kept, other * s.exp() + t), s.sum(-1)

    def inverse(self, y: Tensor) -> tuple[Tensor, Tensor]:
        kept, moved, s, t = self.split(y)
        return self.join(kept, (moved - t) * torch.exp(-s)), s.sum(-1)


class FlowPrior(Prior):
    """The prior p(z) of a normalizing flow: a standard normal transformed by T affine couplings.

    The couplings keep the first and the second half in turn. A density and a sample both cost one pass.

    Reference: Dinh et al. 2017, Density estimation using Real NVP, https://arxiv.org/abs/1605.08803.

    Args:
        shape: shape of one z, (D,) with D >= 2.
        posterior: not used.
        num_flows: T, the number of couplings; >= 0. With T >= 2 every dimension is transformed.
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
            raise ValueError(f"a flow prior splits the latent in two: latent_dim must be >= 2, got {dim}")
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
