"""DCI: disentanglement, completeness and informativeness."""

import numpy as np
from scipy.special import entr
from sklearn.ensemble import RandomForestClassifier

from vaezoo.metrics.disentanglement.base import Array, Labels


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


def forest_importance(
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
