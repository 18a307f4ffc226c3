"""Disentanglement scores from mutual information: MIG and modularity.

Shapes: N examples, D latent dimensions, F factors. Factors are classes counted from 0.
"""

import numpy as np
from sklearn.metrics import mutual_info_score

from vaezoo.metrics.disentanglement.base import Array, Labels


def mutual_information(codes: Array, factors: Labels, bins: int = 20) -> Array:
    """Return I(z_d; v_f) in nats, (D, F), each dimension cut into bins of equal width over its range.

    This is the plug-in estimate: without any dependence it is about (bins - 1)(values - 1) / 2N, not 0.

    Args:
        codes: codes (N, D).
        factors: factors (N, F).
        bins: number of bins.
    """
    binned = [np.digitize(z, np.histogram_bin_edges(z, bins)[:-1]) for z in codes.T]
    return np.array([[mutual_info_score(v, z) for v in factors.T] for z in binned])


def top_two_gap(scores: Array) -> Array:
    """Return the difference between the best and the second best dimension of each factor.

    Args:
        scores: scores (D, F).

    Returns:
        Differences (F,).
    """
    ranked = np.sort(scores, axis=0)
    return ranked[-1] - ranked[-2]


def mig(information: Array, factors: Labels) -> float:
    """Return the mutual information gap, mean_f (I_1st - I_2nd) / H(v_f).

    Chen et al. 2018, Isolating Sources of Disentanglement in VAEs, https://arxiv.org/abs/1802.04942, section 4.1. The
    paper takes I(z; v) for z ~ q(z | x) without bins; this is the common estimate from binned means. If a factor has
    more values than there are bins, even perfect codes stay below 1: ln 20 / ln 40 = 0.81 for 20 bins and 40 values.

    Args:
        information: I(z_d; v_f), (D, F).
        factors: factors (N, F).
    """
    entropy = [mutual_info_score(v, v) for v in factors.T]
    return float(np.mean(top_two_gap(information) / entropy))


def modularity(information: Array) -> float:
    """Return the modularity, mean_d 1 - sum_{f != f*} I_df^2 / ((F - 1) I_df*^2), f* = argmax_f I_df.

    Ridgeway & Mozer 2018, Learning Deep Disentangled Embeddings with the F-Statistic Loss,
    https://arxiv.org/abs/1802.05312, section 3. A dimension without any information counts 0. A dimension of pure noise
    does not: the bias of I_df grows with the number of values of v_f, which looks modular (about 0.7 for factors with
    numbers of values as different as in dSprites).

    Args:
        information: I(z_d; v_f), (D, F).
    """
    squares = information**2
    own = squares.max(1)
    other = (squares.sum(1) - own) / (squares.shape[1] - 1)
    return float(np.mean(1 - np.divide(other, own, out=np.ones_like(own), where=own > 0)))
