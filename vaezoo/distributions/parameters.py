"""The tensors that a posterior is made of.

Metrics and estimators need q(z | x) at other points than its own samples: with the parameters of all examples stacked,
or detached from the graph. A posterior distribution says here which tensors it is made of; no other file has to know
its class.
"""

from collections.abc import Callable
from functools import singledispatch
from typing import TypeGuard

from torch import Tensor
from torch.distributions import Distribution, Independent, Normal


@singledispatch
def get_parameters(q: Distribution) -> dict[str, Tensor]:
    """Return the tensors that q is made of, by the names of its constructor's arguments.

    A new posterior distribution registers itself in its own file::

        @get_parameters.register
        def _(q: MyDistribution) -> dict[str, Tensor]:
            return {"loc": q.loc, "concentration": q.concentration}

    Args:
        q: the distribution, or an ``Independent`` of one.

    Raises:
        NotImplementedError: q is not made of tensors alone, as a flow is not, whose layers hold networks.
    """
    raise NotImplementedError(f"a {type(q).__name__} is not made of tensors alone, so it cannot be made anew")


@get_parameters.register
def _(q: Normal) -> dict[str, Tensor]:
    return {"loc": q.loc, "scale": q.scale}


@get_parameters.register
def _(q: Independent) -> dict[str, Tensor]:
    return get_parameters(q.base_dist)


def with_parameters(q: Distribution, **parameters: Tensor) -> Distribution:
    """Return a distribution of q's class with other parameters.

    >>> import torch
    >>> q = Independent(Normal(torch.zeros(3, 2), torch.ones(3, 2)), 1)
    >>> first = {name: value[:1] for name, value in get_parameters(q).items()}
    >>> with_parameters(q, **first)
    Independent(Normal(loc: torch.Size([1, 2]), scale: torch.Size([1, 2])), 1)

    Args:
        q: a distribution that ``get_parameters`` knows.
        **parameters: all of its parameters.
    """
    if isinstance(q, Independent):
        return Independent(with_parameters(q.base_dist, **parameters), q.reinterpreted_batch_ndims)
    make: Callable[..., Distribution] = type(q)
    return make(**parameters)


def is_diagonal_normal(q: Distribution) -> TypeGuard[Independent]:
    """Return whether q is N(loc, diag scale^2): its ``base_dist`` is then torch's ``Normal``."""
    return isinstance(q, Independent) and type(q.base_dist) is Normal
