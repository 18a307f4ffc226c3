"""Probes: simple classifiers and a clustering that look for the labels in the codes of a model.

The model was trained without labels. Shapes: N examples, D code dimensions.
"""

import math

from torch import Tensor

from vaezoo.metrics.base import BufferedMetric
from vaezoo.metrics.quantities import Quantity

NUM_NEIGHBORS = 5
QUANTITIES = {
    "linear_probe": Quantity("accuracy", "logistic regression on the standardized code", 1, "linear probe", 3, "main"),
    "knn": Quantity("accuracy", "majority vote of the 5 nearest neighbours of the code", 1, "kNN"),
    "chance": Quantity("accuracy", "most frequent class of the training codes"),
    "nmi": Quantity(
        "in [0, 1]", "mutual information of k-means clusters and labels / the mean of their entropies", 1, "NMI"
    ),
    "ari": Quantity("in [-0.5, 1]", "Rand index of k-means clusters and labels, adjusted: 0 by chance", 1, "ARI"),
}


def probe_metrics(code: Tensor, y: Tensor, split: Tensor, seed: int = 0) -> dict[str, float]:
    """Measure how well simple classifiers and a clustering find the labels in codes; all are scikit-learn's.

    The classifiers are fitted on the fit split. Returned are their accuracies a on the score split, with the
    binomial standard error sqrt(a (1 - a) / number of scored examples) if more than one example is scored:

    * ``linear_probe``: multinomial logistic regression with its default L2 penalty (C = 1), on codes that are
      standardized to mean 0 and variance 1 on the fit split;
    * ``knn``: vote of the 5 nearest codes, or of all if the fit split has fewer;
    * ``chance``: always the most frequent class of the fit split, which the other two must exceed.

    On the score split only, without labels:

    * ``nmi`` and ``ari``: k-means (best of 10 seeded starts) with as many clusters as the split has classes.

    Nearest neighbors and clusters use codes that are not standardized: standardizing would scale unused dimensions,
    which are noise, to the size of the others.

    Args:
        code: deterministic codes such as posterior means, (N, *event).
        y: integer labels, (N,); a single factor if there are several.
        split: 0 for the fit split, 1 for the score split, (N,).
        seed: seed of k-means.

    Raises:
        ValueError: the labels are not integers (N,), codes are not finite, or the splits are too small.
    """
    # Imported here, since it takes a second.
    from sklearn.cluster import KMeans
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    code, y, split = code.cpu(), y.cpu(), split.cpu()
    if y.dim() != 1 or y.is_floating_point():
        raise ValueError(f"y must be (N,) integers, one label for each code, got {y.dtype} {tuple(y.shape)}")
    if bad := int((~code.isfinite()).flatten(1).any(1).sum()):
        raise ValueError(
            f"{bad} of {len(code)} codes are NaN or infinite: the model has diverged, evaluate an earlier checkpoint"
        )
    x, labels = code.flatten(1).double().numpy(), y.numpy()
    fit, score = (split == 0).numpy(), (split == 1).numpy()
    classes, scored = set(labels[fit].tolist()), int(score.sum())
    if len(classes) < 2 or scored == 0:
        raise ValueError(
            f"probes need two classes to fit and examples to score, got {len(classes)} classes among "
            f"{fit.sum()} examples to fit (split 0) and {scored} examples to score (split 1)"
        )
    classifiers = {
        "linear_probe": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "knn": KNeighborsClassifier(min(NUM_NEIGHBORS, int(fit.sum()))),
        "chance": DummyClassifier(strategy="most_frequent"),
    }
    values: dict[str, float] = {}
    for name, classifier in classifiers.items():
        accuracy = float(classifier.fit(x[fit], labels[fit]).score(x[score], labels[score]))
        values[name] = accuracy
        if scored > 1:
            values[f"{name}_error"] = math.sqrt(accuracy * (1 - accuracy) / scored)
    truth = labels[score]
    clusters = KMeans(len(set(truth.tolist())), n_init=10, random_state=seed).fit_predict(x[score])
    return {
        **values,
        "nmi": float(normalized_mutual_info_score(truth, clusters)),
        "ari": float(adjusted_rand_score(truth, clusters)),
    }


class Probes(BufferedMetric):
    """Collect codes for ``probe_metrics``, which names the arguments of ``update``.

    Args:
        seed: seed of k-means.
    """

    buffer_names = ("code", "y", "split")

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed

    def compute(self) -> dict[str, float]:
        return probe_metrics(**self.buffered(), seed=self.seed)
