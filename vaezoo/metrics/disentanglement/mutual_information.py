"""Disentanglement scores from mutual information: MIG and modularity."""

import numpy as np
from sklearn.metrics import mutual_info_score

from vaezoo.metrics.disentanglement.base import Array, Labels


def mutual_information(codes: Array, factors: Labels, bins: int = 20) -> Array:
    """I(z_d; v_f) in nats, (D, F), each dimension cut into ``bins`` of equal width over its range.

    The plug-in estimate: with nothing shared it is about (bins - 1)(values - 1) / 2N, not 0.
    """
    binned = [np.digitize(z, np.histogram_bin_edges(z, bins)[:-1]) for z in codes.T]
    return np.array([[mutual_info_score(v, z) for v in factors.T] for z in binned])


def top_two_gap(scores: Array) -> Array:
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
    return float(np.mean(top_two_gap(information) / entropy))


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
