"""Out-of-distribution detection: how strange a model finds an image, and how well that tells outliers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor
from torch.distributions import Independent, Normal

from vaezoo import seeding
from vaezoo.distributions import is_diagonal_normal
from vaezoo.metrics.base import BufferedMetric
from vaezoo.metrics.quantities import Quantity
from vaezoo.trace import Latent, Trace, cached_property
from vaezoo.training.eval_mode import evaluating
from vaezoo.training.means import accumulation_dtype

if TYPE_CHECKING:
    from vaezoo.models import LatentVariableModel

SCORES = {
    "elbo": Quantity("nats per image", "-ELBO", label="ELBO"),
    "log_p": Quantity("nats per image", "-log p(x), importance-weighted", label="log p(x)"),
    "reconstruction": Quantity("nats per image", "-log p(x | z) at the posterior's mean z"),
    "typicality": Quantity("nats per image", "|-log p(x) - its mean over training images|"),
    "likelihood_regret": Quantity("nats per image", "gain of the ELBO if q is fitted to the image"),
}


QUANTITIES = {
    "auroc": Quantity("probability", "P(an outlier scores above an inlier), ties count half; chance: 0.5", 1, "AUROC"),
    "aupr": Quantity(
        "precision", "mean precision over recalled outliers; chance: their share of all images", 1, "AUPR"
    ),
    "fpr95": Quantity("share", "share of inliers at or above the score that 95 % of the outliers reach", -1, "FPR95"),
}


REGRET_SAMPLES = 4  # for each gradient of the regret's optimisation


@dataclass
class BatchScores:
    """A batch and its scores, each (B,) and in float64; what is not asked for is not computed.

    Args:
        model: any of the zoo, in evaluation mode and without gradients (``evaluating``).
        x: (B, *data_shape).
        context: what else is conditioned on, (B, ...).
        first: number of x[0] among all examples.
        seed: with an example's number, names its draws.
        num_samples, num_steps, learning_rate, entropy: as for ``scores``.
    """

    model: "LatentVariableModel"
    x: Tensor
    context: Tensor | None
    start_index: int
    seed: int
    num_samples: int
    num_steps: int
    learning_rate: float
    entropy: float

    @property
    def example_ids(self) -> range:
        """The examples' numbers."""
        return range(self.start_index, self.start_index + len(self.x))

    @cached_property
    def bounds(self) -> Tensor:
        """The ELBO and the importance-weighted log p(x), of the same draws, (2, B)."""
        dtype = accumulation_dtype(self.x)
        values = []
        with seeding.isolated(self.x.device, self.seed, "bounds"):
            for i, number in enumerate(self.example_ids):  # each by itself, so that its draws are its own
                seeding.reseed(self.x.device, self.seed, "bounds", number)
                context = None if self.context is None else self.context[i : i + 1]
                trace = self.model(self.x[i : i + 1], context, num_samples=self.num_samples)
                log_p = trace.log_w.to(dtype).logsumexp(0) - math.log(self.num_samples)
                values.append(torch.stack([trace.elbo.to(dtype), log_p]))
        return torch.cat(values, 1)

    @property
    def elbo(self) -> Tensor:
        """-ELBO."""
        return -self.bounds[0]

    @property
    def log_p(self) -> Tensor:
        """-log 1/K sum_k p(x, z_k) / q(z_k | x)."""
        return -self.bounds[1]

    @property
    def reconstruction(self) -> Tensor:
        """-log p(x | z) at the code z = ``encode(x)``: the distortion, without the posterior's width."""
        px = self.model.decode(self.model.encode(self.x, self.context), self.context)
        return -px.log_prob(self.x).to(accumulation_dtype(self.x))

    @property
    def typicality(self) -> Tensor:
        """|-log p(x) - entropy|: Nalisnick et al. 2019, https://arxiv.org/abs/1906.02994, eq. 5 for one image."""
        return (self.log_p - self.entropy).abs()

    @property
    def likelihood_regret(self) -> Tensor:
        """max over (loc, scale) of the ELBO with q = N(loc, diag scale^2), minus that with the encoder's q.

        Xiao et al. 2020, https://arxiv.org/abs/2003.02977, eq. 6, with another optimisation: they train all
        the encoder's weights on the one image, here it is the numbers that the encoder emits for it, of which
        the ELBO is a function. The maximum is the same or larger, and all images are optimised beside each
        other. Adam goes from the encoder's q with fresh draws for each step and a learning rate that falls to 0
        linearly. Both ELBOs are then estimated at the same K draws, which the optimisation has not seen; where
        it has not found better than the encoder's q, that is the maximum, and the regret is 0.
        """
        model, x = self.model, self.x
        with seeding.isolated(x.device, self.seed, "regret"):
            latent = model(x, self.context, num_samples=1).latent
        if not is_diagonal_normal(latent.q):
            q = latent.q.base_dist if isinstance(latent.q, Independent) else latent.q
            raise ValueError(
                f"likelihood_regret fits a diagonal normal, and the posterior of {type(model).__name__} is a "
                f"{type(q).__name__}: leave it out of the scores"
            )
        loc, log_scale = latent.q.base_dist.loc.clone(), latent.q.base_dist.scale.log()
        generators = [seeding.generator(self.seed, "regret", number, device=x.device) for number in self.example_ids]

        def draw(num: int) -> Tensor:
            shape = num, *loc.shape[1:]
            noise = (torch.randn(shape, generator=g, dtype=loc.dtype, device=x.device) for g in generators)
            return torch.stack(list(noise), 1)

        def elbo(eps: Tensor) -> Tensor:
            normal = Normal(loc, log_scale.exp(), validate_args=False)
            q = Independent(normal, loc.dim() - 1, validate_args=False)
            z = normal.loc + normal.scale * eps
            return Trace(x, model.decode(z, self.context), (Latent(q, latent.p, z),)).elbo

        held_out = draw(self.num_samples)
        before = elbo(held_out)
        optimizer = torch.optim.Adam([loc.requires_grad_(), log_scale.requires_grad_()])
        for step in range(self.num_steps):
            optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - step / self.num_steps)
            with torch.enable_grad():
                loss = -elbo(draw(REGRET_SAMPLES)).sum()
            optimizer.zero_grad()
            loss.backward(inputs=[loc, log_scale])
            optimizer.step()
        return (elbo(held_out) - before).to(accumulation_dtype(x)).clamp(min=0)


def scores(
    model: "LatentVariableModel",
    batches: Iterable[tuple[Tensor, Tensor | None]],
    names: Sequence[str] = tuple(SCORES),
    entropy: float | None = None,
    num_samples: int = 32,
    num_steps: int = 100,
    learning_rate: float = 0.05,
    seed: int | None = None,
) -> dict[str, Tensor]:
    """How strange each image is to the model: scores, in nats and larger for a stranger one.

    An image's draws are named by (seed, its number), so that the size of the batches changes rounding only. Two
    sets that are scored one after the other share their draws, number by number.

    Args:
        model: any of the zoo.
        batches: images (B, *data_shape), of the kind the likelihood scores, and what else is conditioned on, or None.
        names: of ``SCORES``.
        entropy: mean of -log p(x) over training images, which ``typicality`` needs:
            ``scores(model, training_batches, ["log_p"])["log_p"].mean()`` at the same num_samples.
        num_samples: K, draws for the ELBO and log p(x), and for the two ELBOs of the regret.
        num_steps: of the regret's optimisation.
        learning_rate: of the regret's optimisation, at its start, in units of z.
        seed: names the draws, the model's own seed where None.

    Returns:
        For each name (N,), float64.

    Raises:
        ValueError: a name is unknown or lacks its entropy, a number is out of range, the likelihood cannot score the
            images, or the posterior is not the diagonal normal that ``likelihood_regret`` fits.
    """
    unknown = [name for name in names if name not in SCORES]
    if unknown:
        raise ValueError(f"{unknown[0]} is not a score: choose from {', '.join(SCORES)}")
    if "typicality" in names and entropy is None:
        raise ValueError("typicality needs entropy, the mean of log_p's score over training images")
    if num_samples < 1 or num_steps < 1 or not 0 < learning_rate < math.inf:
        raise ValueError(
            f"num_samples and num_steps must be >= 1 and learning_rate finite and > 0, "
            f"got {num_samples}, {num_steps} and {learning_rate}"
        )
    seed, entropy = model.seed if seed is None else seed, math.nan if entropy is None else entropy
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    start_index = 0
    with evaluating(model):
        for x, context in batches:
            x, context = x.to(model.device), None if context is None else context.to(model.device)
            model.likelihood.check(x)
            batch = BatchScores(model, x, context, start_index, seed, num_samples, num_steps, learning_rate, entropy)
            for name in names:
                parts[name].append(getattr(batch, name))
            start_index += len(x)
    return {name: torch.cat(values) for name, values in parts.items()}


class Anomaly(BufferedMetric):
    """How well a score tells outliers (positives) from inliers.

    With scores s of m outliers and t of n inliers:

        auroc = P(s > t) + P(s = t) / 2 over all m n pairs, the Mann-Whitney statistic
        aupr  = average precision, sum_k (R_k - R_{k-1}) P_k over the thresholds (scikit-learn's)
        fpr95 = share of t >= c, where c is the largest threshold with at least 95 % of s >= c

    ``auroc_error`` is the standard error over the images of both sets (DeLong et al. 1988,
    https://doi.org/10.2307/2531595): (var(V)/m + var(W)/n)^1/2, V the share of inliers below each outlier, W that
    of outliers above each inlier. It is 0 for sets that do not overlap, of which it then says too little.

    That the outliers are the positives is as in Hendrycks et al. 2019 (https://arxiv.org/abs/1812.04606); where the
    inliers are, aupr and fpr95 are other numbers, and auroc is the same.

    ``update(score=(B,), outlier=(B,))``, with outlier 1 or 0.
    """

    buffer_names = ("score", "outlier")

    def compute(self) -> dict[str, float]:
        kept = self.buffered()
        score, positive = kept["score"].cpu().double(), kept["outlier"].cpu().bool()
        outliers, inliers = score[positive].sort().values, score[~positive].sort().values
        m, n = len(outliers), len(inliers)
        if min(m, n) < 2:
            raise ValueError(f"it takes two outliers and two inliers at least, got {m} and {n}")
        if not score.isfinite().all():
            raise ValueError(f"scores must be finite, and {int((~score.isfinite()).sum())} of {m + n} are not")
        above, below = fraction_below(outliers, inliers), fraction_below(inliers, outliers)
        threshold = outliers[m - math.ceil(19 * m / 20)]
        return {
            "auroc": float(above.mean()),
            "auroc_error": math.sqrt(float(above.var()) / m + float(below.var()) / n),
            "aupr": float(average_precision_score(positive.numpy(), score.numpy())),
            "fpr95": float((inliers >= threshold).double().mean()),
        }


def fraction_below(scores: Tensor, others: Tensor) -> Tensor:
    """The share of ``others``, which are sorted, below each of ``scores``; ties count half."""
    ranks = torch.searchsorted(others, scores) + torch.searchsorted(others, scores, right=True)
    return ranks.double() / (2 * len(others))
