"""What a model's latent space does on a test set: which dimensions it uses, and how KL(q(z | x), p(z)) splits.

With N test examples, the aggregate posterior q(z) = 1/N sum_n q(z | x_n), its marginals q(z_d) and
I(x; z) = E[log q(z | x) - log q(z)],

    E_n KL(q(z | x_n), p(z)) = I(x; z) + KL(q(z), p(z))
                KL(q(z), p(z)) = TC + sum_d KL(q(z_d), p(z_d)),     TC = KL(q(z), prod_d q(z_d))

(Hoffman & Johnson 2016, http://approximateinference.org/2016/accepted/HoffmanJohnson2016.pdf; Chen et al. 2018,
https://arxiv.org/abs/1802.04942, eq. 2). All N posteriors are in q(z), so that unlike in training, where a
minibatch stands for them, the integrands are exact; their expectations are means over draws z_m ~ q(z | x_m).
At the same draws the terms telescope: they add up to the mean of log q(z_m | x_m) - log p(z_m) to rounding.

q(z) is of these N examples, not of all that could be. Their I(x; z) is at most log N, and in expectation at most
that of the population (Poole et al. 2019, https://arxiv.org/abs/1905.06922, the bound for a known
encoder); what it lacks, KL(q(z), p(z)) has too much, most of it as TC. Near log N the posteriors are N separate
spikes: compare such numbers at one N alone.

Shapes: N examples, M draws, D latent dimensions. Everything is computed in float64 on the CPU: the same digits
whatever the model ran on.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal

from vaezoo.metrics.base import BufferedMetric
from vaezoo.metrics.quantities import QUANTITIES as RUN_QUANTITIES
from vaezoo.metrics.quantities import Quantity

MIN_VARIANCE = 0.01  # Burda et al. 2016, https://arxiv.org/abs/1509.00519, section 5.1
# A dimension is (EPSILON, DELTA)-collapsed: Lucas et al. 2019, https://arxiv.org/abs/1911.02469.
COLLAPSE_EPSILON, COLLAPSE_DELTA = 0.01, 0.01
LEAST_INFORMATION = 0.1  # nats; ours: the answer to one fair yes-or-no question is ln 2 = 0.69
FEW = 0.25  # ours: half of a latent unused is common in good models, of which Burda et al. 2016 use 19 to 25 of 50
MAX_PAIRS = 2**17  # densities q(z_m | x_n) at a time: 1 MB, which a processor's cache holds
QUANTITIES = {
    "active_units": RUN_QUANTITIES["active_units"],  # which each test gives too
    "active_units_kl": Quantity(
        "dimensions", "latent dimensions with mean KL(q(z_d | x), p(z_d)) > 0.01 nats", label="active units by KL"
    ),
    "collapsed_units": Quantity(
        "dimensions", "latent dimensions with KL(q(z_d | x), p(z_d)) < 0.01 nats for 99 % of x"
    ),
    "mutual_information": Quantity("nats", "I(x; z) = E[log q(z | x) - log q(z)], at most log N"),
    "aggregate_kl": Quantity("nats", "KL(q(z), p(z)) = total_correlation + dimension_wise_kl", -1, "aggregate KL"),
    "total_correlation": Quantity("nats", "KL(q(z), prod_d q(z_d)): the dependence between dimensions"),
    "dimension_wise_kl": Quantity("nats", "sum_d KL(q(z_d), p(z_d)), if p(z) factorises", -1, "dimension-wise KL"),
}


def check_finite(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float64 on the CPU.

    Raises:
        ValueError: one holds nan or infinity.
    """
    for name, value in values.items():
        if bad := int((~value.isfinite()).sum()):
            raise ValueError(
                f"{name} holds {bad} values of {value.numel()} that are nan or infinite: the model has diverged, "
                f"evaluate an earlier checkpoint"
            )
    return {name: value.cpu().double() for name, value in values.items()}


def evenly_spaced(num: int, draws: int) -> Tensor:
    """The numbers of ``draws`` of ``num`` examples, evenly spaced, or of all where there are fewer.

    Not the first ones: test sets come sorted, MNIST's by its two sources, of which the first is the easier.
    """
    return torch.arange(min(num, draws)) * num // min(num, draws)


def log_aggregate_posterior(factors: Sequence[Distribution], draws: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """log q(z_m) and sum_g log q(z_mg), of q(z) = 1/N sum_n prod_g q_g(z_g | x_n), both (M,).

    Args:
        factors: q_g(z_g | x_n), with batch shape (N,), of each group g of dimensions that are independent given
            x: single dimensions, or the whole latent as one.
        draws: z_g (M, *event) of each.
    """
    num = factors[0].batch_shape[0]
    rows = max(1, MAX_PAIRS // (num * math.prod(factors[0].event_shape)))
    parts = []
    for zs in zip(*(z.unsqueeze(1).split(rows) for z in draws), strict=True):  # each (rows, 1, *event)
        joint = marginals = torch.zeros(())
        for factor, z in zip(factors, zs, strict=True):
            pairs = factor.log_prob(z)  # (rows, N): log q_g(z_mg | x_n)
            joint = joint + pairs
            marginals = marginals + (pairs.logsumexp(1) - math.log(num))
        parts.append(torch.stack([joint.logsumexp(1) - math.log(num), marginals]))
    log_qz, log_qz_groups = torch.cat(parts, 1)
    return log_qz, log_qz_groups


def mean_and_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean of (M,) draws and, if there are several, its standard error.

    Each draw has an example of its own, so the error is that of other examples and other draws from their posteriors.
    That q(z) is of these examples too adds nothing to first order: a change d of q(z) moves E[log q(z)] by
    int d(z) dz = 0.
    """
    found = {name: float(values.mean())}
    return found | {f"{name}_error": float(values.std()) / math.sqrt(len(values))} if len(values) > 1 else found


def information_metrics(log_q: Tensor, log_qz: Tensor, log_prior: Tensor, num: int) -> dict[str, float]:
    """``mutual_information`` with its ceiling log N, and ``aggregate_kl``, from densities at the draws, (M,)."""
    return {
        **mean_and_error("mutual_information", log_q - log_qz),
        "mutual_information_ceiling": math.log(num),
        **mean_and_error("aggregate_kl", log_qz - log_prior),
    }


def check_num_draws(num_draws: int) -> int:
    if num_draws < 1:
        raise ValueError(f"num_draws must be >= 1, got {num_draws}")
    return num_draws


class LatentMetrics(BufferedMetric):
    """The latent space of a posterior N(loc, diag scale^2), for any prior.

    Gives ``active_units`` (ceiling: D), ``active_units_kl`` and ``collapsed_units`` where there is a KL for each
    dimension, ``mutual_information`` (ceiling: log N), ``aggregate_kl``, ``total_correlation`` and
    ``dimension_wise_kl``; the last four with their standard errors, those of other examples and draws from their
    posteriors (``expectation``).

    ``update`` takes

        loc, scale: of q(z | x_n), (N, *event).
        z: one draw from each, (N, *event).
        log_prior: log p(z) at the draws, nats, (N,).
        kl_dim: KL(q(z_d | x_n), p(z_d)), nats, (N, *event); (N, 0) where the prior does not factorise.

    A prior that does not factorise has no KL for each dimension: ``dimension_wise_kl`` is then
    E_q(z)[sum_d log q(z_d) - log p(z)], which is no divergence and may be negative.

    Args:
        num_draws: M, most draws z_m that expectations are taken over, evenly spaced among the N. The time goes
            with M N D: about 6 s at 2,000 x 10,000 x 50 on one core.
    """

    buffer_names = ("loc", "scale", "z", "log_prior", "kl_dim")

    def __init__(self, num_draws: int = 2000):
        super().__init__()
        self.num_draws = check_num_draws(num_draws)

    def compute(self) -> dict[str, float]:
        values = check_finite(self.buffered())
        loc, scale, z, kl_dim = (values[name].flatten(1) for name in ("loc", "scale", "z", "kl_dim"))
        which = evenly_spaced(len(z), self.num_draws)
        factors = [Normal(*parameters) for parameters in zip(loc.unbind(1), scale.unbind(1), strict=True)]
        log_q = Normal(loc[which], scale[which]).log_prob(z[which]).sum(1)
        log_qz, log_qz_dims = log_aggregate_posterior(factors, z[which].unbind(1))
        log_prior = values["log_prior"][which]
        found = {
            "active_units": float((loc.var(0, correction=0) > MIN_VARIANCE).sum()),
            "active_units_ceiling": float(len(factors)),
        }
        if kl_dim.shape[1]:
            collapsed = (kl_dim < COLLAPSE_EPSILON).double().mean(0) >= 1 - COLLAPSE_DELTA
            found["active_units_kl"] = float((kl_dim.mean(0) > COLLAPSE_EPSILON).sum())
            found["collapsed_units"] = float(collapsed.sum())
        return {
            **found,
            **information_metrics(log_q, log_qz, log_prior, len(z)),
            **mean_and_error("total_correlation", log_qz - log_qz_dims),
            **mean_and_error("dimension_wise_kl", log_qz_dims - log_prior),
        }


class JointLatentMetrics(BufferedMetric):
    """``mutual_information`` and ``aggregate_kl`` of a posterior whose dimensions depend on each other.

    ``JointLatentMetrics(VonMisesFisherDistribution, ("loc", "concentration"))`` has
    ``update(loc=q.loc, concentration=q.concentration, z=z, log_prior=...)``: the posterior's parameters (N, ...)
    by their names, one draw z (N, D) from each, and log p(z) there, (N,).

    Args:
        posterior: makes q(z | x_n), batch shape (N,), from its parameters; its ``log_prob`` broadcasts.
        names: those of the parameters.
        num_draws: M, as for ``LatentMetrics``.
    """

    def __init__(self, posterior: Callable[..., Distribution], names: Sequence[str], num_draws: int = 2000):
        self.names = tuple(names)
        self.buffer_names = (*self.names, "z", "log_prior")
        super().__init__()
        self.posterior = posterior
        self.num_draws = check_num_draws(num_draws)

    def compute(self) -> dict[str, float]:
        values = check_finite(self.buffered())
        num = len(values["z"])
        drawn = {name: value[evenly_spaced(num, self.num_draws)] for name, value in values.items()}
        q, q_own = (self.posterior(**{name: of[name] for name in self.names}) for of in (values, drawn))
        log_qz, _ = log_aggregate_posterior([q], [drawn["z"]])
        return information_metrics(q_own.log_prob(drawn["z"]), log_qz, drawn["log_prior"], num)


class Verdict(NamedTuple):
    """Say whether a model uses its latent dimensions.

    Args:
        collapsed: whether the posterior has collapsed: the decoder ignores z.
        mostly_unused: whether more than three quarters of the dimensions are unused.
        unused: number of unused dimensions.
        text: the same in words, with the remedy.
    """

    collapsed: bool
    mostly_unused: bool
    unused: int
    text: str


def verdict(values: dict[str, float]) -> Verdict:
    """Judge what ``LatentMetrics`` computed.

    A dimension is unused if it is collapsed after Lucas et al. 2019, P_x(KL_d < 0.01) >= 0.99, or, if the prior has no
    KL for each dimension, if it is not active after Burda et al. 2016. Then

        posterior collapse: all are unused, or I(x; z) < 0.1 nats;
        mostly unused: more than three quarters are;
        no collapse: otherwise. The best model may have unused dimensions too: those which would cost more nats than
            they gain (in the linear VAE of Lucas et al. 2019: eigenvalues below the noise's).

    Args:
        values: the result of ``LatentMetrics.compute``.
    """
    total = int(values["active_units_ceiling"])
    unused = int(values.get("collapsed_units", total - values["active_units"]))
    mutual_information = values["mutual_information"]
    kl = mutual_information + values["aggregate_kl"]
    collapsed = unused == total or mutual_information < LEAST_INFORMATION
    mostly_unused = total - unused < FEW * total
    if collapsed:
        text = (
            f"posterior collapse: KL {kl:z.2f} nats, mutual information I(x; z) {mutual_information:z.2f} nats: the "
            f"decoder ignores z; try callbacks/anneal=linear, model.free_bits=0.1, a smaller model.beta or a weaker "
            f"decoder"
        )
    elif mostly_unused:
        text = (
            f"{unused} of {total} dimensions are unused, the others carry at least {mutual_information:.1f} nats of "
            f"x: no harm if reconstructions are good, model.latent_dim={total - unused} would do as well; if not, try "
            f"callbacks/anneal=linear, model.free_bits=0.1 or a smaller model.beta"
        )
    else:
        text = (
            f"no collapse: {total - unused} of {total} dimensions are active, they carry at least "
            f"{mutual_information:.1f} nats of x"
        )
    return Verdict(collapsed, mostly_unused, unused, text)
