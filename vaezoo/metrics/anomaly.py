"""Out-of-distribution detection: anomaly scores of images, and metrics of how well a score detects outliers.

``scores`` gives each image a score, larger for a more anomalous one; ``detection_metrics`` compares the scores of
outliers with those of inliers.
"""

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


REGRET_SAMPLES = 4  # samples for each gradient of the likelihood regret


@dataclass
class BatchScores:
    """The scores of a batch, (B,) and float64 each. Each score is computed when it is read.

    Args:
        model: any model of the package, in evaluation mode and without gradients (``evaluating``).
        x: examples (B, *data_shape).
        context: labels or whatever else the model is conditioned on, (B, ...), or None.
        start_index: index of x[0] in the whole data set.
        seed: seed of the random numbers of an example, together with its index.
        num_samples: number of samples K, as in ``scores``.
        num_steps: optimization steps of the likelihood regret, as in ``scores``.
        learning_rate: initial learning rate of the likelihood regret, as in ``scores``.
        entropy: mean of -log p(x) over training images, as in ``scores``.
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
        """Indices of the examples in the whole data set."""
        return range(self.start_index, self.start_index + len(self.x))

    @cached_property
    def bounds(self) -> Tensor:
        """The ELBO and the importance-weighted log p(x) from the same samples, (2, B)."""
        dtype = accumulation_dtype(self.x)
        values = []
        with seeding.isolated(self.x.device, self.seed, "bounds"):
            for i, number in enumerate(self.example_ids):  # each with random numbers of its own
                seeding.reseed(self.x.device, self.seed, "bounds", number)
                context = None if self.context is None else self.context[i : i + 1]
                trace = self.model(self.x[i : i + 1], context, num_samples=self.num_samples)
                log_p = trace.log_w.to(dtype).logsumexp(0) - math.log(len(trace.log_w))
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
        """-log p(x | z) at the code z = ``encode(x)``: the distortion without the posterior's variance."""
        px = self.model.decode(self.model.encode(self.x, self.context), self.context)
        return -px.log_prob(self.x).to(accumulation_dtype(self.x))

    @property
    def typicality(self) -> Tensor:
        """|-log p(x) - entropy|: the typicality test for one image.

        Nalisnick et al. 2019, Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality,
        https://arxiv.org/abs/1906.02994, eq. 5.
        """
        return (self.log_p - self.entropy).abs()

    @property
    def likelihood_regret(self) -> Tensor:
        """max over (loc, scale) of the ELBO with q = N(loc, diag scale^2), minus the ELBO with the encoder's q.

        Xiao et al. 2020, Likelihood Regret: An Out-of-Distribution Detection Score for Variational Auto-encoder,
        https://arxiv.org/abs/2003.02977, eq. 6. Differs from the paper in the optimization: the paper trains all
        weights of the encoder on the one image; here the parameters of q, the encoder's outputs, are optimized
        directly. The maximum is the same or larger, and all images of a batch are optimized together.

        Adam starts at the encoder's q, with new samples in each step and a learning rate that falls linearly to 0. Both
        ELBOs are then estimated from the same K samples, which were not used in the optimization. If the encoder's q
        has the larger one, it is the maximum, and the regret is 0.

        Raises:
            ValueError: the posterior is not a diagonal normal.
        """
        model, x = self.model, self.x
        with seeding.isolated(x.device, self.seed, "regret"):
            latent = model(x, self.context, num_samples=1).latent
        if not is_diagonal_normal(latent.q):
            q = latent.q.base_dist if isinstance(latent.q, Independent) else latent.q
            raise ValueError(
                f"likelihood_regret fits a diagonal normal, and the posterior of {type(model).__name__} is a "
                f"{type(q).__name__}: remove it from names"
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
    """Compute anomaly scores of images, in nats; a larger score means a more anomalous image.

    The random numbers of an image depend on (seed, its index), so the batch size changes rounding only. Two data sets
    that are scored in two calls share their random numbers, index by index.

    Args:
        model: any model of the package.
        batches: pairs of images (B, *data_shape), of a kind of data that the likelihood supports, and labels (B, ...)
            or whatever else the model is conditioned on, or None.
        names: names of scores in ``SCORES``.
        entropy: mean of -log p(x) over training images, which ``typicality`` needs:
            ``scores(model, training_batches, ["log_p"])["log_p"].mean()`` with the same num_samples.
        num_samples: samples K for the ELBO and log p(x), and for both ELBOs of the likelihood regret.
        num_steps: optimization steps of the likelihood regret.
        learning_rate: initial learning rate of the likelihood regret, in units of z.
        seed: seed of the random numbers. None: the seed of the model.

    Returns:
        The scores (N,), float64, by their names.

    Raises:
        ValueError: a name is unknown, ``typicality`` lacks ``entropy``, a number is out of range, the likelihood does
            not support the images, or the posterior is not the diagonal normal that ``likelihood_regret`` needs.
    """
    unknown = [name for name in names if name not in SCORES]
    if unknown:
        raise ValueError(f"{unknown[0]} is not a score: choose from {', '.join(SCORES)}")
    if "typicality" in names and entropy is None:
        raise ValueError("typicality needs entropy, the mean of the score log_p over training images")
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


def detection_metrics(score: Tensor, outlier: Tensor) -> dict[str, float]:
    """Measure how well a score detects outliers, which are the positives, among inliers.

    With the scores s of m outliers and t of n inliers:

        auroc = P(s > t) + P(s = t) / 2 over all m n pairs, the Mann-Whitney statistic
        aupr  = average precision, sum_k (R_k - R_{k-1}) P_k over the thresholds, as in scikit-learn
        fpr95 = share of t >= c, with c the largest threshold that at least 95 % of s reach

    ``auroc_error`` is the standard error over the images of both sets, (var(V)/m + var(W)/n)^1/2 with V the share of
    inliers below each outlier and W the share of outliers above each inlier (DeLong et al. 1988, Comparing the Areas
    under Two or More Correlated Receiver Operating Characteristic Curves, https://doi.org/10.2307/2531595). It is 0,
    which is too small, if the scores of the sets do not overlap.

    Outliers are the positives as in Hendrycks et al. 2019, Deep Anomaly Detection with Outlier Exposure,
    https://arxiv.org/abs/1812.04606. With inliers as the positives, aupr and fpr95 would differ, auroc would not.

    Args:
        score: scores (N,).
        outlier: 1 for an outlier, 0 for an inlier, (N,).

    Raises:
        ValueError: there are fewer than 2 outliers or 2 inliers, or a score is not finite.

    >>> detection_metrics(torch.tensor([3.0, 1.0, 2.0, 0.0]), torch.tensor([1, 1, 0, 0]))["auroc"]
    0.75
    """
    score, positive = score.cpu().double(), outlier.cpu().bool()
    outliers, inliers = score[positive].sort().values, score[~positive].sort().values
    m, n = len(outliers), len(inliers)
    if min(m, n) < 2:
        raise ValueError(f"at least 2 outliers and 2 inliers are needed, got {m} and {n}")
    if not score.isfinite().all():
        raise ValueError(f"scores must be finite, but {int((~score.isfinite()).sum())} of {m + n} are not")
    above, below = fraction_below(outliers, inliers), fraction_below(inliers, outliers)
    threshold = outliers[m - math.ceil(19 * m / 20)]
    return {
        "auroc": float(above.mean()),
        "auroc_error": math.sqrt(float(above.var()) / m + float(below.var()) / n),
        "aupr": float(average_precision_score(positive.numpy(), score.numpy())),
        "fpr95": float((inliers >= threshold).double().mean()),
    }


class Anomaly(BufferedMetric):
    """Collect scores for ``detection_metrics``.

    The arguments of ``update`` are ``score`` (B,) and ``outlier`` (B,), 1 for an outlier and 0 for an inlier.
    """

    buffer_names = ("score", "outlier")

    def compute(self) -> dict[str, float]:
        return detection_metrics(**self.buffered())


def fraction_below(scores: Tensor, others: Tensor) -> Tensor:
    """Return the fraction of ``others`` below each score; ties count half.

    Args:
        scores: scores (N,).
        others: scores (M,), sorted.

    >>> fraction_below(torch.tensor([1.0, 2.5]), torch.tensor([0.0, 1.0, 2.0]))
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    ranks = torch.searchsorted(others, scores) + torch.searchsorted(others, scores, right=True)
    return ranks.double() / (2 * len(others))
