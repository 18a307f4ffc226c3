"""Disentanglement scores from classifiers on held-out examples: SAP and explicitness.

Shapes: N training and M test examples, D latent dimensions, F factors. Factors are classes counted from 0.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from vaezoo.metrics.disentanglement.base import Array, Labels
from vaezoo.metrics.disentanglement.mutual_information import top_two_gap


def sap(codes: Array, factors: Labels, test_codes: Array, test_factors: Labels) -> float:
    """Return the separated attribute predictability (SAP).

    It is the mean over factors of the gap between the two best dimensions, by the accuracy of a linear SVM that
    predicts the factor from the dimension alone.

    Kumar et al. 2018, Variational Inference of Disentangled Latent Concepts from Unlabeled Observations,
    https://arxiv.org/abs/1711.00848, section 3. A linear classifier of one dimension, one class against the rest,
    cannot single out a value in the middle: perfect codes reach about 0.24 for the factors of dSprites. With C = 0.01
    the score depends on the scale of the codes.

    Args:
        codes: codes to fit to, (N, D).
        factors: their factors, (N, F).
        test_codes: codes to score, (M, D).
        test_factors: their factors, (M, F).
    """
    accuracy = np.empty((codes.shape[1], factors.shape[1]))
    for d, f in np.ndindex(accuracy.shape):
        svm = LinearSVC(C=0.01, class_weight="balanced").fit(codes[:, [d]], factors[:, f])
        accuracy[d, f] = svm.score(test_codes[:, [d]], test_factors[:, f])
    return float(top_two_gap(accuracy).mean())


def explicitness(codes: Array, factors: Labels, test_codes: Array, test_factors: Labels) -> float:
    """Return the AUROC of each value of a factor against the rest, mean over values and then over factors.

    Ridgeway & Mozer 2018, Learning Deep Disentangled Embeddings with the F-Statistic Loss,
    https://arxiv.org/abs/1802.05312, section 3. The classifier is a logistic regression on standardized codes. Chance
    is 0.5.

    Args:
        codes: codes to fit to, (N, D).
        factors: their factors, (N, F).
        test_codes: codes to score, (M, D).
        test_factors: their factors, (M, F).
    """
    scale = StandardScaler().fit(codes)

    def area(v: Labels, test_v: Labels) -> float:
        model = LogisticRegression(max_iter=1000).fit(scale.transform(codes), v)
        scores = model.predict_proba(scale.transform(test_codes))
        hits = test_v[:, None] == model.classes_
        judged = hits.any(0)  # a rare value may be missing in the test part
        return np.mean([roc_auc_score(hit, score) for hit, score in zip(hits.T[judged], scores.T[judged], strict=True)])

    return float(np.mean([area(v, test_v) for v, test_v in zip(factors.T, test_factors.T, strict=True)]))
