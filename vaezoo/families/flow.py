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
    """The base class of flow posteriors: N(mu(x), diag sigma(x)^2) transformed by T layers.

    With T = 0 it is the diagonal normal. A subclass defines ``layers``. KL(q, p) has no closed form: it is estimated
    at the samples.

    >>> posterior = PlanarPosterior((3,), num_flows=2)
    >>> q = posterior(*torch.randn(posterior.num_outputs, 5, 3))
    >>> z = q.rsample((4,))
    >>> z.shape, q.log_prob(z).shape
    (torch.Size([4, 5, 3]), torch.Size([4, 5]))

    Args:
        shape: shape of the latent, (D,).
        num_flows: T, the number of layers; >= 0.
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
        """Return f_1, ..., f_T.

        Args:
            *params: the raw outputs after mu and log sigma, each (*batch, D).
        """
        raise NotImplementedError

    def forward(self, *params: Tensor) -> Distribution:
        loc, log_scale, *rest = params
        return make_flow(Independent(self.base(loc, log_scale), 1, validate_args=False), self.layers(*rest))

    def point_estimate(self, *params: Tensor) -> Tensor:
        """Return f_T(... f_1(mu)), (*batch, D). The mean of q has no closed form."""
        q = self(*params)
        return q.forward(q.base.mean)[0] if isinstance(q, FlowDistribution) else q.mean


class PlanarPosterior(FlowPosterior):
    """A posterior of T planar layers (``PlanarLayer``). The encoder emits all parameters of the layers.

    Reference: Rezende & Mohamed 2015, Variational Inference with Normalizing Flows, https://arxiv.org/abs/1505.05770.

    Args:
        shape: shape of the latent, (D,).
        num_flows: T, the number of layers; >= 0.
    """

    def __init__(self, shape: Shape, num_flows: int = 10):
        super().__init__(shape, num_flows)
        # mu and log sigma, a w and a u for each layer, and the b of all layers, D in each raw output.
        self.num_outputs = 2 + 2 * num_flows + math.ceil(num_flows / self.dim)

    def layers(self, *params: Tensor) -> list[FlowLayer]:
        T = self.num_flows
        if T == 0:
            return []
        offsets = torch.cat(params[2 * T :], dim=-1).unbind(-1)
        return [PlanarLayer(w, u, b) for w, u, b in zip(params[:T], params[T : 2 * T], offsets[:T], strict=True)]


class IAFPosterior(FlowPosterior):
    """A posterior of T inverse autoregressive layers (``IAFLayer``), each with its own network (``MADE``).

    The encoder emits a context h, which all networks use. The order of the dimensions is reversed from each layer to
    the next.

    Reference: Kingma et al. 2016, Improved Variational Inference with Inverse Autoregressive Flow,
    https://arxiv.org/abs/1606.04934.

    Args:
        shape: shape of the latent, (D,).
        num_flows: T, the number of layers; >= 0.
        hidden: width of each hidden layer of each network.
        activation: name of a function in ``torch.nn.functional``.
        context_planes: size of the context h, in multiples of D; >= 1.
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
        self.mades: Iterable[MADE] = nn.ModuleList(mades)  # type: ignore[assignment]  # its items have no type

    def layers(self, *params: Tensor) -> list[FlowLayer]:
        return [IAFLayer(made, torch.cat(params, dim=-1)) for made in self.mades]
