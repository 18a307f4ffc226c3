"""Disentanglement scores that fix a factor: IRS, the beta-VAE score and the FactorVAE score.

Shapes: N examples, D latent dimensions, F factors. Factors are classes counted from 0.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from vaezoo.metrics.disentanglement.base import MIN_STD, Array, Labels


def irs(codes: Array, factors: Labels) -> float:
    """Return the interventional robustness score:

        IRS_df = 1 - mean_v q99(|z_d - E[z_d | v_f = v]|) / max |z_d - E z_d|

    the largest over f, mean over dimensions weighted by max |z_d - E z_d|. Suter et al. 2019, Robustly Disentangled
    Causal Mechanisms, https://arxiv.org/abs/1811.00007. As in the authors' code, the 99 % quantile replaces the maximum
    of the paper, which depends on a single example. The score is 0 if all codes are constant. Noise has a score above
    0, because the maximum is larger than the quantile.

    Args:
        codes: codes (N, D).
        factors: factors (N, F).
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
    """Return the codes of each label that occurs, in the order of the labels."""
    order = np.argsort(labels, kind="stable")
    return np.split(codes[order], np.flatnonzero(np.diff(labels[order])) + 1)


def sample_same_label(rows: Labels, labels: Labels, generator: np.random.Generator) -> Labels:
    """For each row, draw a row with the same label.

    Args:
        rows: indices of examples, of any shape.
        labels: labels of all examples, (N,).
        generator: source of random numbers.
    """
    order = np.argsort(labels, kind="stable")
    count = np.bincount(labels)
    first = np.cumsum(count) - count
    own = labels[rows]
    return order[first[own] + generator.integers(count[own])]


def beta_vae(
    codes: Array, factors: Labels, generator: np.random.Generator, batch_size: int = 64, num_votes: int = 2000
) -> float:
    """Return the beta-VAE score: the accuracy of a linear classifier that finds the factor which pairs share.

    Its input is the mean of |z - z'| over ``batch_size`` pairs (Higgins et al. 2017, beta-VAE: Learning Basic Visual
    Concepts with a Constrained Variational Framework, https://openreview.net/forum?id=Sy2fzU9gl). Chance is 1 / F.

    Args:
        codes: codes (N, D).
        factors: factors (N, F).
        generator: source of random numbers for the pairs.
        batch_size: pairs per input of the classifier.
        num_votes: inputs per factor that the classifier is fitted to; it is scored on half as many others.
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
    """Return the FactorVAE score: the accuracy of a majority vote that finds the factor which a batch shares.

    A batch votes by the dimension of least variance, relative to its variance over all examples (Kim & Mnih 2018,
    Disentangling by Factorising, https://arxiv.org/abs/1802.05983, section 4). Chance is 1 / F. Dimensions with a
    standard deviation below 0.05 have no vote; the score is 0 if there are no others.

    Args:
        codes: codes (N, D).
        factors: factors (N, F).
        generator: source of random numbers for the batches.
        batch_size: examples per vote.
        num_votes: votes per factor that decide the majority; the score is the accuracy of half as many others.
    """
    spread = codes.std(0, ddof=1)
    scaled = codes[:, spread >= MIN_STD] / spread[spread >= MIN_STD]
    num_active = scaled.shape[1]
    if num_active == 0:
        return 0.0

    def votes(num: int) -> Labels:
        """Count how often each dimension had the least variance for each factor, (F, D)."""
        table = []
        for v in factors.T:
            one = np.broadcast_to(generator.integers(len(codes), size=(num, 1)), (num, batch_size))
            variance = scaled[sample_same_label(one, v, generator)].var(1, ddof=1)
            table.append(np.bincount(variance.argmin(1), minlength=num_active))
        return np.stack(table)

    majority = votes(num_votes).argmax(0)
    judged = votes(num_votes // 2)
    return float(judged[majority, np.arange(num_active)].sum() / judged.sum())
