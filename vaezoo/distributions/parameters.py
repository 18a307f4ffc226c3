"""The parameters of a distribution, and how to rebuild it from other values of them.

Metrics rebuild q(z | x) from the stacked parameters of many examples. A posterior distribution registers its parameters
here, in its own file; no other file has to know its class.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import TypeGuard

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal


@singledispatch
def get_parameters(q: Distribution) -> dict[str, Tensor]:
    """Return the parameters of a distribution: all tensors that its constructor takes, with the argument names.

    A new posterior distribution is registered in its own file::

        @get_parameters.register
        def _(q: MyDistribution) -> dict[str, Tensor]:
            return {"loc": q.loc, "concentration": q.concentration}

    Args:
        q: the distribution, or an ``Independent`` of it.

    Raises:
        NotImplementedError: q is not registered, because it cannot be rebuilt from tensors. An example is a flow, whose
            layers contain networks.
    """
    raise NotImplementedError(f"a {type(q).__name__} cannot be rebuilt from its parameters")


@get_parameters.register
def _(q: Normal) -> dict[str, Tensor]:
    return {"loc": q.loc, "scale": q.scale}


@get_parameters.register
def _(q: Independent) -> dict[str, Tensor]:
    return get_parameters(q.base_dist)


def with_parameters(q: Distribution, **parameters: Tensor) -> Distribution:
    """Return a distribution of the same class as q, with other parameters.

    >>> import torch
    >>> q = Independent(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    >>> first = {name: value[:1] for name, value in get_parameters(q).items()}
    >>> with_parameters(q, **first)
    Independent(Normal(loc: torch.Size([1, 2]), scale: torch.Size([1, 2])), 1)

    Args:
        q: a distribution that is registered for ``get_parameters``.
        **parameters: values for all of its parameters.
    """
    if isinstance(q, Independent):
        return Independent(with_parameters(q.base_dist, **parameters), q.reinterpreted_batch_ndims)
    make: Callable[..., Distribution] = type(q)
    return make(**parameters)


def is_diagonal_normal(q: Distribution) -> TypeGuard[Independent]:
    """Return whether q is N(loc, diag scale^2), an ``Independent`` whose ``base_dist`` is torch's ``Normal``."""
    return isinstance(q, Independent) and type(q.base_dist) is Normal
