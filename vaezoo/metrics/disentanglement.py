"""Disentanglement: does each latent dimension follow one factor of the data, and each factor one dimension?

Shapes: N examples, D latent dimensions, F factors. Codes (N, D) are posterior means in float64; factors
(N, F) are classes counted from 0. The definitions are those of Locatello et al. 2019
(https://arxiv.org/abs/1811.12359) and their disentanglement_lib, on whose numbers papers stand, unless a
docstring says where not. There a renderer draws new images for each metric. Here all of them share the examples
that there are, so that any set with labels will do.
"""

from collections.abc import Callable, Sequence
from statistics import stdev

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from scipy.stats import rankdata
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.metrics import mutual_info_score, roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

from vaezoo import seeding
from vaezoo.metrics.gathered import Gathered
from vaezoo.metrics.quantities import Quantity

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

MIN_EXAMPLES = 10  # of each value of each factor, so that both parts of a split hold some and spreads mean something
ACTIVE_SD = 0.05  # below it a dimension has no vote in the FactorVAE score
INFORMATIVE = 0.01  # nats: with less KL a dimension does not count in the UDR
UDR_CEILING = 0.9  # of the lasso: what models with the same uncorrelated dimensions reach
UDR = {
    "udr": Quantity("fraction", "unsupervised disentanglement ranking: do other seeds find the same dimensions?", 1),
    "udr_models": Quantity("models", "that were compared with each other for it"),
}

QUANTITIES = {
    "beta_vae": Quantity("accuracy", "which factor a set of pairs shares, told from their mean |z - z'|", 1),
    "factor_vae": Quantity("accuracy", "which factor a batch shares, told from its dimension of least variance", 1),
    "mig": Quantity("fraction", "mutual information gap: (I(z_1st; v) - I(z_2nd; v)) / H(v), mean over factors v", 1),
    "dci_disentanglement": Quantity("fraction", "1 - H(factor | dimension) / ln F, by importance for prediction", 1),
    "dci_completeness": Quantity("fraction", "1 - H(dimension | factor) / ln D, by importance for prediction", 1),
    "dci_informativeness": Quantity("accuracy", "of a random forest from all dimensions, mean over factors", 1),
    "sap": Quantity("accuracy", "best less second best dimension, each with a linear SVM, mean over factors", 1),
    "modularity": Quantity("fraction", "1 - sum of I(z; other v)^2 / ((F - 1) I(z; its v)^2), mean over dimensions", 1),
    "explicitness": Quantity("AUROC", "one value against the rest, logistic regression, mean over values, factors", 1),
    "irs": Quantity("fraction", "interventional robustness: 1 - largest shift at a fixed v / largest shift", 1),
}


def mutual_information(codes: Array, factors: Labels, bins: int = 20) -> Array:
    """I(z_d; v_f) in nats, (D, F), each dimension cut into ``bins`` of equal width over its range.

    The plug-in estimate: with nothing shared it is about (bins - 1)(values - 1) / 2N, not 0.
    """
    binned = [np.digitize(z, np.histogram_bin_edges(z, bins)[:-1]) for z in codes.T]
    return np.array([[mutual_info_score(v, z) for v in factors.T] for z in binned])


def gap(scores: Array) -> Array:
    """By how much the best dimension is ahead of the next, for each factor: (D, F) -> (F,)."""
    ranked = np.sort(scores, axis=0)
    return ranked[-1] - ranked[-2]


def mig(information: Array, factors: Labels) -> float:
    """Mutual information gap, mean_f (I_1st - I_2nd) / H(v_f) (Chen et al. 2018,
    https://arxiv.org/abs/1802.04942, section 4.1).

    They take I(z; v) for z ~ q(z | x) without bins; this is the popular estimate from means in bins. Where a
    factor has more values than there are bins, even perfect codes stay below 1: with 20 bins at
    ln 20 / ln 40 = 0.81 for 40 values.

    Args:
        information: I(z_d; v_f), (D, F).
        factors: (N, F).
    """
    entropy = [mutual_info_score(v, v) for v in factors.T]
    return float(np.mean(gap(information) / entropy))


def modularity(information: Array) -> float:
    """mean_d 1 - sum_{f != f*} I_df^2 / ((F - 1) I_df*^2), f* = argmax_f I_df (Ridgeway & Mozer 2018,
    https://arxiv.org/abs/1802.05312, section 3).

    A dimension without any information counts 0. One of pure noise does not: the bias of I_df grows with
    the values of v_f, which looks modular (about 0.7 for factors as unlike as those of dSprites).

    Args:
        information: I(z_d; v_f), (D, F).
    """
    squares = information**2
    own = squares.max(1)
    other = (squares.sum(1) - own) / (squares.shape[1] - 1)
    return float(np.mean(1 - np.divide(other, own, out=np.ones_like(own), where=own > 0)))


def dci(importance: Array) -> tuple[float, float]:
    """Disentanglement and completeness (Eastwood & Williams 2018, https://openreview.net/forum?id=By-7dz-AZ).

    With R scaled to add up to 1, a joint distribution of dimensions and factors, the means of the paper's D_d
    and C_f weighted by what each dimension and each factor has of the importance are

        disentanglement = 1 - H(factor | dimension) / ln F
        completeness    = 1 - H(dimension | factor) / ln D

    and both are 0 where nothing is important.

    Args:
        importance: R (D, F) >= 0, of dimension d in the prediction of factor f.
    """
    total = importance.sum()
    if total == 0:
        return 0.0, 0.0
    joint = importance / total
    entropy = entr(joint).sum()
    num_dims, num_factors = joint.shape
    disentanglement = 1 - (entropy - entr(joint.sum(1)).sum()) / np.log(num_factors)
    completeness = 1 - (entropy - entr(joint.sum(0)).sum()) / np.log(num_dims)
    return float(disentanglement), float(completeness)


def forests(
    codes: Array, factors: Labels, test_codes: Array, test_factors: Labels, num_trees: int = 20, seed: int = 0
) -> tuple[Array, float]:
    """What ``dci`` stands on: the importance of each dimension for each factor, and the informativeness.

    Random forests with all dimensions at each split, one for each factor; a dimension's importance is the
    share of the Gini impurity that its splits take away. The paper has forests too, disentanglement_lib
    boosted trees: scikit-learn's need a tree for every value in every round, ten times as long on a fifth of
    the examples, and at perfect codes their importances are infinite. Where both could be had, disentanglement
    and completeness were within 0.06 of each other. Leaves hold five examples or more: smaller ones give
    importance to noise.

    Returns:
        importance (D, F), and the accuracy on the test part, mean over factors.
    """
    trees = [
        RandomForestClassifier(num_trees, max_features=None, min_samples_leaf=5, random_state=seed).fit(codes, v)
        for v in factors.T
    ]
    accuracy = [tree.score(test_codes, v) for tree, v in zip(trees, test_factors.T, strict=True)]
    return np.stack([tree.feature_importances_ for tree in trees], axis=1), float(np.mean(accuracy))


def sap(codes: Array, factors: Labels, test_codes: Array, test_factors: Labels) -> float:
    """Separated attribute predictability: mean over factors of the gap between the two dimensions from which
    a linear SVM tells the factor best (Kumar et al. 2018, https://arxiv.org/abs/1711.00848, section 3).

    One against the rest on one dimension, a line cannot single out a value in the middle: perfect codes
    reach about 0.24 for the factors of dSprites. C = 0.01 makes the score depend on the codes' scale.
    """
    accuracy = np.empty((codes.shape[1], factors.shape[1]))
    for d, f in np.ndindex(accuracy.shape):
        svm = LinearSVC(C=0.01, class_weight="balanced").fit(codes[:, [d]], factors[:, f])
        accuracy[d, f] = svm.score(test_codes[:, [d]], test_factors[:, f])
    return float(gap(accuracy).mean())


def explicitness(codes: Array, factors: Labels, test_codes: Array, test_factors: Labels) -> float:
    """Area under the ROC curve of each value of a factor against the rest, by logistic regression on
    standardised codes, mean over values and then factors (Ridgeway & Mozer 2018,
    https://arxiv.org/abs/1802.05312, section 3). Chance is 0.5.
    """
    scale = StandardScaler().fit(codes)

    def area(v: Labels, test_v: Labels) -> float:
        model = LogisticRegression(max_iter=1000).fit(scale.transform(codes), v)
        scores = model.predict_proba(scale.transform(test_codes))
        hits = test_v[:, None] == model.classes_
        judged = hits.any(0)  # a rare value may be missing from the test part
        return np.mean([roc_auc_score(hit, score) for hit, score in zip(hits.T[judged], scores.T[judged], strict=True)])

    return float(np.mean([area(v, test_v) for v, test_v in zip(factors.T, test_factors.T, strict=True)]))


def irs(codes: Array, factors: Labels) -> float:
    """Interventional robustness (Suter et al. 2019, https://arxiv.org/abs/1811.00007).

        IRS_df = 1 - mean_v q99(|z_d - E[z_d | v_f = v]|) / max |z_d - E z_d|

    the largest over f, mean over dimensions weighted by max |z_d - E z_d|. The 99 % quantile, as in the
    authors' code, stands for the paper's maximum, which one example decides. 0 where all codes are constant.
    Noise does not get 0: tails are further out than the quantile.
    """
    largest = np.abs(codes - codes.mean(0)).max(0)  # (D,)
    if not largest.any():
        return 0.0
    shift = np.stack(
        [
            np.mean([np.quantile(np.abs(part - part.mean(0)), 0.99, axis=0) for part in groups(codes, v)], axis=0)
            for v in factors.T
        ],
        axis=1,
    )  # (D, F)
    return float((largest - shift.min(1)).sum() / largest.sum())


def groups(codes: Array, labels: Labels) -> list[Array]:
    """The codes of each value that occurs."""
    order = np.argsort(labels, kind="stable")
    return np.split(codes[order], np.flatnonzero(np.diff(labels[order])) + 1)


def mates(rows: Labels, labels: Labels, generator: np.random.Generator) -> Labels:
    """For each of the rows, any shape, one drawn from those with the same label."""
    order = np.argsort(labels, kind="stable")
    count = np.bincount(labels)
    first = np.cumsum(count) - count
    own = labels[rows]
    return order[first[own] + generator.integers(count[own])]


def beta_vae(
    codes: Array, factors: Labels, generator: np.random.Generator, batch_size: int = 64, num_votes: int = 2000
) -> float:
    """The accuracy of a linear classifier that tells from mean |z - z'| over ``batch_size`` pairs of examples,
    which factor z and z' of each pair share (Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl).
    Chance is 1 / F.

    Args:
        codes: (N, D).
        factors: (N, F).
        generator: draws the pairs.
        batch_size: pairs behind one point.
        num_votes: points of each factor to fit the classifier to; it is judged on half as many more.
    """

    def points(num: int) -> tuple[Array, Labels]:
        differences = []
        for v in factors.T:
            one = generator.integers(len(codes), size=(num, batch_size))
            differences.append(np.abs(codes[one] - codes[mates(one, v, generator)]).mean(1))
        return np.concatenate(differences), np.repeat(np.arange(factors.shape[1]), num)

    classifier = LogisticRegression(max_iter=1000).fit(*points(num_votes))
    return float(classifier.score(*points(num_votes // 2)))


def factor_vae(
    codes: Array, factors: Labels, generator: np.random.Generator, batch_size: int = 64, num_votes: int = 2000
) -> float:
    """The accuracy of a majority vote that tells which factor a batch shares from the dimension whose variance
    in it, as a fraction of that in all examples, is least (Kim & Mnih 2018,
    https://arxiv.org/abs/1802.05983, section 4). Chance is 1 / F.

    Dimensions with a standard deviation below 0.05 do not vote; 0 where none is above.

    Args:
        codes: (N, D).
        factors: (N, F).
        generator: draws the batches.
        batch_size: examples behind one vote.
        num_votes: votes of each factor to find the majority; it is judged on half as many more.
    """
    spread = codes.std(0, ddof=1)
    scaled = codes[:, spread >= ACTIVE_SD] / spread[spread >= ACTIVE_SD]
    num_active = scaled.shape[1]
    if num_active == 0:
        return 0.0

    def votes(num: int) -> Labels:
        """How often each dimension was the one for each factor, (F, D)."""
        table = []
        for v in factors.T:
            one = np.broadcast_to(generator.integers(len(codes), size=(num, 1)), (num, batch_size))
            variance = scaled[mates(one, v, generator)].var(1, ddof=1)
            table.append(np.bincount(variance.argmin(1), minlength=num_active))
        return np.stack(table)

    majority = votes(num_votes).argmax(0)
    judged = votes(num_votes // 2)
    return float(judged[majority, np.arange(num_active)].sum() / judged.sum())


class Disentanglement(Gathered):
    """All scores of this module from codes and known factors; larger is better, 1 is the most that any could be.

    ``NAME_ceiling`` is what perfect codes get: each factor a dimension of its own, its class number scaled
    to unit variance. ``NAME_error`` is the standard error over samples of such examples and the draws from them, by
    the bootstrap. The scores of classifiers that are judged on held-out examples (DCI, SAP, explicitness)
    have none.

    ``update(code=(B, ...), factors=(B, F))``. Factors with one value are left out. Results are a function
    of the examples, their order and the seed.

    Args:
        num_examples: so many at most are drawn from all; a third of them is held out to judge classifiers.
        num_votes: points and votes of each factor in the beta-VAE and FactorVAE scores.
        batch_size: examples behind each.
        bins: of each dimension, for mutual information.
        num_trees: of each forest.
        num_resamples: of the bootstrap.
        seed: names the draws.

    Raises:
        ValueError: in ``compute``, for codes that are not finite or of one dimension, fewer than two factors that vary,
            or fewer than ten examples of a value.
    """

    keeps = ("code", "factors")

    def __init__(
        self,
        num_examples: int = 10_000,
        num_votes: int = 2000,
        batch_size: int = 64,
        bins: int = 20,
        num_trees: int = 20,
        num_resamples: int = 20,
        seed: int = 0,
    ):
        super().__init__()
        counts = {"num_votes": num_votes, "batch_size": batch_size, "bins": bins, "num_resamples": num_resamples}
        for name, value in counts.items():
            if value < 2:
                raise ValueError(f"{name} must be >= 2, got {value}")
        for name, value in {"num_examples": num_examples, "num_trees": num_trees}.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.num_examples, self.num_trees, self.num_resamples = num_examples, num_trees, num_resamples
        self.bins, self.seed = bins, seed
        self.draws = {"batch_size": batch_size, "num_votes": num_votes}

    def compute(self) -> dict[str, float]:
        codes, factors = self.examples()
        result = self.on_all(codes, factors) | self.held_out(codes, factors)
        perfect = StandardScaler().fit_transform(factors)
        ceiling = self.on_all(perfect, factors) | self.held_out(perfect, factors)
        rows = self.generator("bootstrap").integers(len(codes), size=(self.num_resamples, len(codes)))
        resampled = [self.on_all(codes[row], factors[row]) for row in rows]
        error = {name: stdev(scores[name] for scores in resampled) for name in resampled[0]}
        return (
            {name: result[name] for name in QUANTITIES}
            | {f"{name}_error": value for name, value in error.items()}
            | {f"{name}_ceiling": ceiling[name] for name in QUANTITIES}
        )

    def generator(self, name: str) -> np.random.Generator:
        """A stream of draws of its own for each purpose."""
        return np.random.default_rng(seeding.derive(self.seed, "disentanglement", name))

    def examples(self) -> tuple[Array, Labels]:
        """Codes (N, D) and the factors that vary (N, F), checked."""
        values = self.gathered()
        codes = values["code"].flatten(1).cpu().double().numpy()
        factors = values["factors"].cpu().numpy()
        if factors.ndim != 2:
            raise ValueError(f"factors must be (N, F), got shape {factors.shape}")
        if codes.shape[1] < 2:
            raise ValueError("disentanglement compares latent dimensions: codes have one alone")
        if bad := int((~np.isfinite(codes).all(1)).sum()):
            raise ValueError(f"codes must be finite: {bad} of {len(codes)} examples have nan or inf")
        rows = self.generator("examples").permutation(len(codes))[: self.num_examples]
        codes, factors = codes[rows], factors[rows]
        classes = [np.unique(v, return_inverse=True)[1] for v in factors.T]
        classes = [v for v in classes if v.max() > 0]
        if len(classes) < 2:
            raise ValueError(
                f"disentanglement needs two factors that vary: of {factors.shape[1]}, {len(classes)} has two values"
            )
        if (least := min(np.bincount(v).min() for v in classes)) < MIN_EXAMPLES:
            raise ValueError(
                f"disentanglement needs {MIN_EXAMPLES} examples of each value of each factor, one has {least}: "
                f"{len(codes)} examples are too few"
            )
        return codes, np.stack(classes, axis=1)

    def on_all(self, codes: Array, factors: Labels) -> dict[str, float]:
        """The scores that take all examples at once."""
        information = mutual_information(codes, factors, self.bins)
        return {
            "beta_vae": beta_vae(codes, factors, self.generator("beta_vae"), **self.draws),
            "factor_vae": factor_vae(codes, factors, self.generator("factor_vae"), **self.draws),
            "mig": mig(information, factors),
            "modularity": modularity(information),
            "irs": irs(codes, factors),
        }

    def held_out(self, codes: Array, factors: Labels) -> dict[str, float]:
        """The scores of classifiers, fitted to two thirds of the examples and judged on the rest."""
        split = [len(codes) * 2 // 3]  # of rows in an order drawn at random
        (train, test), (train_factors, test_factors) = np.split(codes, split), np.split(factors, split)
        parts = train, train_factors, test, test_factors
        seed = seeding.derive(self.seed, "disentanglement", "forests") % 2**32
        importance, informativeness = forests(*parts, num_trees=self.num_trees, seed=seed)
        disentanglement, completeness = dci(importance)
        return {
            "dci_disentanglement": disentanglement,
            "dci_completeness": completeness,
            "dci_informativeness": informativeness,
            "sap": sap(*parts),
            "explicitness": explicitness(*parts),
        }


def lasso(theirs: Array, ours: Array) -> Array:
    """|coefficients| of each of our dimensions on all of theirs, (theirs, ours), all of unit variance: the lasso
    of weight 0.1, which shrinks perfect agreement to 0.9.
    """
    model = Lasso(alpha=0.1).fit(StandardScaler().fit_transform(theirs), StandardScaler().fit_transform(ours))
    return np.abs(model.coef_.reshape(ours.shape[1], theirs.shape[1]).T)


def spearman(theirs: Array, ours: Array) -> Array:
    """|rank correlation| of each of their dimensions with each of ours, (theirs, ours)."""
    x, y = (StandardScaler().fit_transform(rankdata(z, axis=0)) for z in (theirs, ours))
    return np.abs(x.T @ y) / len(x)


def one_to_one(strength: Array) -> float:
    """Mean over rows of max^2 / sum, which is 0 for a row of zeros."""
    total = strength.sum(1)
    return float(np.mean(np.divide(strength.max(1) ** 2, total, out=np.zeros_like(total), where=total > 0)))


def udr(
    codes: Sequence[Tensor], kl_dims: Sequence[Tensor], relation: Callable[[Array, Array], Array] = lasso
) -> list[float]:
    """Unsupervised disentanglement ranking (Duan et al. 2020, https://arxiv.org/abs/1905.12614): a model whose
    dimensions others of its kind find again, one by one, is likely to be disentangled.

    With R_ab >= 0 how much dimension a of model j says of dimension b of model i,

        UDR_ij = 1/2 (mean_a max_b R_ab^2 / sum_b R_ab + mean_b max_a R_ab^2 / sum_a R_ab)

    over the dimensions with a KL above 0.01 nats, 0 where a model has none; the score of model i is the
    median of UDR_ij over j != i. The paper writes one mean over both kinds of dimensions, its code, as here,
    the mean of two: the same where the models have as many.

    Args:
        codes: of each model, (N, D_i), for the same N examples.
        kl_dims: of each model, the mean KL of each dimension in nats, (D_i,).
        relation: R, ``lasso`` or ``spearman``; identical models reach about 0.9 with one, 1 with the other,
            where their dimensions are uncorrelated.

    Raises:
        ValueError: fewer than two models, shapes that do not fit, or codes that are not finite.
    """
    shapes = [tuple(z.shape) for z in codes]
    fitting = [(shapes[0][0], len(kl)) for kl in kl_dims] if shapes else []
    if len(codes) < 2 or shapes != fitting:
        raise ValueError(
            f"the UDR compares two or more models on the same examples, got codes of shape {shapes} and KLs of "
            f"shape {[tuple(kl.shape) for kl in kl_dims]}"
        )
    if not all(z.isfinite().all() for z in codes):
        raise ValueError("codes must be finite: some are nan or inf")
    informative = [z[:, kl > INFORMATIVE].detach().cpu().double().numpy() for z, kl in zip(codes, kl_dims, strict=True)]

    def agreement(theirs: Array, ours: Array) -> float:
        if theirs.shape[1] == 0 or ours.shape[1] == 0:
            return 0.0
        strength = relation(theirs, ours)
        return (one_to_one(strength) + one_to_one(strength.T)) / 2

    return [
        float(np.median([agreement(theirs, ours) for j, theirs in enumerate(informative) if j != i]))
        for i, ours in enumerate(informative)
    ]
