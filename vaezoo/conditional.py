"""Conditional distributions: a network followed by a family of distributions."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vaezoo.families import Family, require_tensor
from vaezoo.missing import fill_missing, is_observed, to_float
from vaezoo.types import NetFactory, Shape


class Network(nn.Module):
    """A network that takes any number of leading batch dimensions and checks the shape of its inputs.

    Args:
        in_shape: shape of one input.
        out_shape: shape of one output.
        net: makes the network, as ``net(in_shape, out_shape)``. The forward method of the network,
            ``forward(inputs, context)``, maps (N, *in_shape) to (N, *out_shape). Integer inputs are converted to
            floats, in which NaN marks a missing entry, unless the network has an attribute ``takes_integers = True``.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory):
        super().__init__()
        self.in_shape = tuple(in_shape)
        self.net = net(self.in_shape, out_shape)

    def raw_outputs(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Apply the network: (*batch, *in_shape) -> (*batch, *out_shape), in float32 at least.

        Args:
            inputs: (*batch, *in_shape), with any number of batch dimensions.
            context: labels or another condition, (B, *shape), for the last batch dimension. Networks that are not
                conditional ignore it.

        Raises:
            ValueError: the inputs have another shape, or an argument is not a tensor.
        """
        require_tensor(inputs)
        if context is not None:
            require_tensor(context)
        batch = inputs.shape[: inputs.dim() - len(self.in_shape)]
        if len(batch) == 0 or inputs.shape[len(batch) :] != self.in_shape:
            raise ValueError(f"expected a batch of shape (*batch, {str(self.in_shape)[1:]}, got {tuple(inputs.shape)}")
        if context is not None and len(batch) > 1:
            context = context.expand(*batch, *context.shape[1:]).flatten(0, len(batch) - 1)
        inputs = inputs.reshape(prod(batch), *self.in_shape)
        if inputs.is_floating_point() or not getattr(self.net, "takes_integers", False):
            inputs = to_float(inputs, next(self.parameters(), inputs).dtype)
        outputs = self.net(inputs, context)
        # Densities and their sums need float32 at least, also under autocast.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return outputs.reshape(*batch, *outputs.shape[1:])

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Any:
        """Return the raw outputs, or in a subclass, a distribution made from them."""
        return self.raw_outputs(inputs, context)


class Conditional(Network):
    """p(y | c) = family(net(c) + offset): the encoder q(z | x) and the decoder p(x | z) are both of this class.

    The offset is 0 until ``init_mean`` or ``init_from_data`` is called.

    >>> from vaezoo.families import Bernoulli
    >>> from vaezoo.nets import MLP
    >>> decoder = Conditional(in_shape=(8,), out_shape=(1, 28, 28), net=MLP, family=Bernoulli())
    >>> px = decoder(torch.zeros(3, 5, 8))  # any number of batch dimensions
    >>> px.batch_shape, px.event_shape
    (torch.Size([3, 5]), torch.Size([1, 28, 28]))

    Args:
        in_shape: shape of one c.
        out_shape: shape of one y.
        net: makes the network from c to the raw outputs of the family.
        family: makes the distribution of y from the raw outputs.
    """

    offset: Tensor

    def __init__(self, in_shape: Shape, out_shape: Shape, net: NetFactory, family: Family):
        self.out_shape = tuple(out_shape)
        raw_shape = tuple(family.raw_shape(self.out_shape))
        super().__init__(in_shape, raw_shape, net)
        self.family = family
        self.register_buffer("offset", torch.zeros(raw_shape))

    def init_mean(self, mean: Tensor) -> None:
        """Set the offset so that a network with output 0 gives a distribution with this mean.

        Burda et al. 2016 (https://arxiv.org/abs/1509.00519) set the bias of the last layer to the logit of the mean
        image; an offset does the same for any network. Without it, a short training on MNIST ends many nats lower.

        Args:
            mean: the mean of y, shape ``out_shape``.
        """
        self.offset.copy_(torch.cat(self.family.params_for_mean(mean.to(self.offset))))

    def init_from_data(self, mean: Tensor, x: Tensor) -> None:
        """Set the offset so that a network with output 0 gives a distribution that fits the data, as ``init_mean``.

        Args:
            mean: the mean of y, shape ``out_shape``.
            x: examples of y, (N, *out_shape), for families that need more than the mean.
        """
        x = x.to(self.offset.device)
        self.offset.copy_(torch.cat(self.family.params_for_data(mean.to(self.offset), x)))

    def params(self, inputs: Tensor, context: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the raw parameters of the family (``Family.split``). Arguments as in ``raw_outputs``."""
        return self.family.split(self.raw_outputs(inputs, context) + self.offset, self.out_shape)

    def forward(self, inputs: Tensor, context: Tensor | None = None) -> Distribution:
        """Return p(y | inputs), batch shape (*batch,). Arguments as in ``raw_outputs``."""
        distribution = self.family(*self.params(inputs, context))
        elementwise = len(self.out_shape) - len(distribution.event_shape)
        return Independent(distribution, elementwise, validate_args=False) if elementwise else distribution

    def point_estimate(self, inputs: Tensor, context: Tensor | None = None) -> Tensor:
        """Return one point that represents p(y | inputs), (*batch, *out_shape): the mean, if the family has one."""
        return self.family.point_estimate(*self.params(inputs, context))


class FrameConditional(Conditional):
    """p(y_t | c_t), the same for all frames t of a sequence: training starts at the mean of all frames.

    Arguments are those of ``Conditional``, for one frame.
    """

    def init_from_data(self, mean: Tensor, x: Tensor) -> None:
        """Set the offset so that a network with output 0 gives a distribution that fits the frames.

        Args:
            mean: ignored, the mean of each frame.
            x: sequences, (N, T, *out_shape). Frames without an observed entry are left out.
        """
        frames = x.flatten(0, 1)
        observed = is_observed(frames)
        mean = fill_missing(frames).sum(0) / observed.sum(0).clamp(min=1)
        super().init_from_data(mean, frames[observed.flatten(1).any(1)])
