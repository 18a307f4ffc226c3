"""Posteriors that are normalizing flows: planar and inverse autoregressive."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaezoo.distributions import FlowDistribution
from vaezoo.distributions.flow import FlowLayer, IAFLayer, PlanarLayer, check_flow_shape, make_flow
from vaezoo.families.normal import Normal
from vaezoo.families.posterior import Posterior
from vaezoo.nets import MADE
from vaezoo.nets.mlp import check_widths
from vaezoo.types import Shape


class FlowPosterior(Posterior):
    """N(mu(x), diag sigma(x)^2) pushed through T layers; T = 0 is the diagonal normal.

    Args:
        shape: of the latent, (D,).
        num_flows: T, number of layers; >= 0.
    """

    def __init__(self, shape: Shape, num_flows: int):
        super().__init__()
        self.dim, self.num_flows = check_flow_shape(shape, num_flows), num_flows
        self.base = Normal()

    @property
    def limits(self) -> dict[str, str]:
        if self.num_flows == 0:
            return {}
        return {
            "kl_per_dim": "a flow does not factorize over dimensions",
            "active_units": "the mean of a flow has no closed form",
        }

    def layers(self, *params: Tensor) -> list[FlowLayer]:
        """f_1, ..., f_T from the planes beyond mu and log sigma, each (*batch, D)."""
        raise NotImplementedError

    def forward(self, *params: Tensor) -> Distribution:
        loc, log_scale, *rest = params
        return make_flow(Independent(self.base(loc, log_scale), 1, validate_args=False), self.layers(*rest))

    def point_estimate(self, *params: Tensor) -> Tensor:
        """Where the layers take mu: what they make of the mean has no closed form."""
        q = self(*params)
        return q.forward(q.base.mean)[0] if isinstance(q, FlowDistribution) else q.mean


class PlanarPosterior(FlowPosterior):
    """Planar flows whose every parameter comes from the encoder.

    Args:
        shape: of the latent, (D,).
        num_flows: T, number of layers; >= 0.
    """

    def __init__(self, shape: Shape, num_flows: int = 10):
        super().__init__(shape, num_flows)
        self.num_outputs = 2 + 2 * num_flows + math.ceil(num_flows / self.dim)  # mu, sigma, w and u, b packed

    def layers(self, *params: Tensor) -> list[FlowLayer]:
        T = self.num_flows
        if T == 0:
            return []
        offsets = torch.cat(params[2 * T :], dim=-1).unbind(-1)  # a plane holds D of the scalars
        return [PlanarLayer(w, u, b) for w, u, b in zip(params[:T], params[T : 2 * T], offsets[:T], strict=True)]


class IAFPosterior(FlowPosterior):
    """Inverse autoregressive flows: networks of their own, which the encoder gives a context.

    The order of the dimensions is reversed from each layer to the next.

    Args:
        shape: of the latent, (D,).
        num_flows: T, number of layers; >= 0.
        hidden: width of each hidden layer of each network.
        activation: name of a function in ``torch.nn.functional``.
        context_planes: size of the encoder's context h, in multiples of D; >= 1.
    """

    def __init__(
        self,
        shape: Shape,
        num_flows: int = 4,
        hidden: Sequence[int] = (320,),
        activation: str = "elu",
        context_planes: int = 1,
    ):
        super().__init__(shape, num_flows)
        if context_planes < 1:
            raise ValueError(f"context_planes must be >= 1, got {context_planes}")
        check_widths("the flow's hidden", hidden)
        self.num_outputs = 2 + (context_planes if num_flows else 0)
        sizes = self.dim, context_planes * self.dim
        mades = (MADE(*sizes, hidden, activation, reverse=t % 2 == 1) for t in range(num_flows))
        self.mades: Iterable[MADE] = nn.ModuleList(mades)  # type: ignore[assignment]  # which forgets of what

    def layers(self, *params: Tensor) -> list[FlowLayer]:
        return [IAFLayer(made, torch.cat(params, dim=-1)) for made in self.mades]
