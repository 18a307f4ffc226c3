"""Disentanglement scores that fix a factor: IRS, the beta-VAE score and the FactorVAE score."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from vaezoo.metrics.disentanglement.base import MIN_STD, Array, Labels


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
            np.mean(
                [np.quantile(np.abs(part - part.mean(0)), 0.99, axis=0) for part in group_by_label(codes, v)], axis=0
            )
            for v in factors.T
        ],
        axis=1,
    )  # (D, F)
    return float((largest - shift.min(1)).sum() / largest.sum())


def group_by_label(codes: Array, labels: Labels) -> list[Array]:
    """The codes of each value that occurs."""
    order = np.argsort(labels, kind="stable")
    return np.split(codes[order], np.flatnonzero(np.diff(labels[order])) + 1)


def sample_same_label(rows: Labels, labels: Labels, generator: np.random.Generator) -> Labels:
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
            differences.append(np.abs(codes[one] - codes[sample_same_label(one, v, generator)]).mean(1))
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
    scaled = codes[:, spread >= MIN_STD] / spread[spread >= MIN_STD]
    num_active = scaled.shape[1]
    if num_active == 0:
        return 0.0

    def votes(num: int) -> Labels:
        """How often each dimension was the one for each factor, (F, D)."""
        table = []
        for v in factors.T:
            one = np.broadcast_to(generator.integers(len(codes), size=(num, 1)), (num, batch_size))
            variance = scaled[sample_same_label(one, v, generator)].var(1, ddof=1)
            table.append(np.bincount(variance.argmin(1), minlength=num_active))
        return np.stack(table)

    majority = votes(num_votes).argmax(0)
    judged = votes(num_votes // 2)
    return float(judged[majority, np.arange(num_active)].sum() / judged.sum())
