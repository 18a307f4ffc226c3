"""DCI: disentanglement, completeness and informativeness.

Eastwood & Williams 2018, A Framework for the Quantitative Evaluation of Disentangled Representations,
https://openreview.net/forum?id=By-7dz-AZ. Shapes: N training and M test examples, D latent dimensions, F factors.
"""

import numpy as np
from scipy.special import entr
from sklearn.ensemble import RandomForestClassifier

from vaezoo.metrics.disentanglement.base import Array, Labels


def dci(importance: Array) -> tuple[float, float]:
    """Return disentanglement and completeness.

    With R scaled to sum 1, a joint distribution of dimensions and factors, these are the means of the paper's D_d and
    C_f, weighted by the share of each dimension and of each factor in the importance:

        disentanglement = 1 - H(factor | dimension) / ln F
        completeness    = 1 - H(dimension | factor) / ln D

    Both are 0 if all importances are 0.

    Args:
        importance: R (D, F) >= 0, the importance of dimension d for the prediction of factor f.

    >>> dci(np.eye(3))
    (1.0, 1.0)
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


def forest_importance(
    codes: Array, factors: Labels, test_codes: Array, test_factors: Labels, num_trees: int = 20, seed: int = 0
) -> tuple[Array, float]:
    """Return the importance of each dimension for each factor, and the informativeness.

    Each factor has a random forest that considers all dimensions at each split. The importance of a dimension is the
    share of the Gini impurity that its splits remove. Leaves have at least five examples, because smaller ones give
    importance to noise.

    The paper has random forests too. disentanglement_lib has boosted trees: scikit-learn's need a tree for each value
    in each round, which takes ten times as long on a fifth of the examples, and for perfect codes their importances are
    infinite. Where both could be computed, disentanglement and completeness differed by less than 0.06.

    Args:
        codes: codes to fit to, (N, D).
        factors: their factors, (N, F).
        test_codes: codes to score, (M, D).
        test_factors: their factors, (M, F).
        num_trees: trees of each forest.
        seed: seed of the forests.

    Returns:
        The importance (D, F), and the accuracy on the test codes, mean over factors.
    """
    trees = [
        RandomForestClassifier(num_trees, max_features=None, min_samples_leaf=5, random_state=seed).fit(codes, v)
        for v in factors.T
    ]
    accuracy = [tree.score(test_codes, v) for tree, v in zip(trees, test_factors.T, strict=True)]
    return np.stack([tree.feature_importances_ for tree in trees], axis=1), float(np.mean(accuracy))
