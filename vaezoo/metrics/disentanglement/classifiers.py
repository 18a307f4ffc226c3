"""Disentanglement scores from classifiers: SAP and explicitness."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vaezoo.metrics.disentanglement.base import Array, Labels
from vaezoo.metrics.disentanglement.mutual_information import top_two_gap


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
    return float(top_two_gap(accuracy).mean())


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
