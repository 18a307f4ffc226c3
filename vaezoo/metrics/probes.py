"""Are the labels in the code? Simple classifiers and a clustering, on codes that the model never saw labels with.

Shapes: N examples, D code dimensions.
"""

import math

from vaezoo.metrics.base import BufferedMetric
from vaezoo.metrics.quantities import Quantity

NUM_NEIGHBORS = 5
QUANTITIES = {
    "linear_probe": Quantity("accuracy", "logistic regression on the standardised code", 1, "linear probe", 3, "main"),
    "knn": Quantity("accuracy", "majority vote of the 5 nearest neighbours of the code", 1, "kNN"),
    "chance": Quantity("accuracy", "most frequent class of the training codes"),
    "nmi": Quantity(
        "in [0, 1]", "mutual information of k-means clusters and labels / the mean of their entropies", 1, "NMI"
    ),
    "ari": Quantity("in [-0.5, 1]", "Rand index of k-means clusters and labels, adjusted: 0 by chance", 1, "ARI"),
}


class Probes(BufferedMetric):
    """How well simple classifiers and a clustering find the labels in a code; all are scikit-learn's.

    Fitted on the fit split, accuracies on the score split, with the binomial standard error
    sqrt(a (1 - a) / number scored) if more than one is scored:

        linear_probe: multinomial logistic regression with its default L2 penalty (C = 1), on codes with mean 0
            and variance 1 in the fit split.
        knn: the vote of the 5 nearest codes (of all, where the fit split has fewer).
        chance: always the most frequent class of the fit split; what the other two must beat.

    On the score split alone, without labels:

        nmi, ari: of k-means (best of 10 seeded starts) with as many clusters as the split has classes.

    Neighbours and clusters take the code as it is: to standardise would blow unused dimensions, which are noise, up
    to the size of the others.

    ``update`` takes

        code: (N, *event), a deterministic code such as the posterior mean.
        y: (N,) integer labels; of several factors, one at a time.
        split: (N,), 0 to fit, 1 to score.

    Args:
        seed: of k-means.
    """

    buffer_names = ("code", "y", "split")

    def __init__(self, seed: int = 0):
        super().__init__()
        self.seed = seed

    def compute(self) -> dict[str, float]:
        # A second of import that training need not pay.
        from sklearn.cluster import KMeans
        from sklearn.dummy import DummyClassifier
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        code, y, split = (value.cpu() for value in self.buffered().values())
        if y.dim() != 1 or y.is_floating_point():
            raise ValueError(f"y must be (N,) integers, one label for each code, got {y.dtype} {tuple(y.shape)}")
        if bad := int((~code.isfinite()).flatten(1).any(1).sum()):
            raise ValueError(f"{bad} of {len(code)} codes are nan or infinite: the model has diverged")
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
        clusters = KMeans(len(set(truth.tolist())), n_init=10, random_state=self.seed).fit_predict(x[score])
        return {
            **values,
            "nmi": float(normalized_mutual_info_score(truth, clusters)),
            "ari": float(adjusted_rand_score(truth, clusters)),
        }
