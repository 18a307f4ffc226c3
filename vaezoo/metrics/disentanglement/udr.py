"""UDR: unsupervised disentanglement ranking, which compares runs."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vaezoo.metrics.disentanglement.base import MIN_KL, Array
from vaezoo.metrics.quantities import Quantity

UDR_CEILING = 0.9  # of the lasso: what models with the same uncorrelated dimensions reach
UDR = {
    "udr": Quantity(
        "fraction",
        "unsupervised disentanglement ranking: do other seeds find the same dimensions?",
        1,
        "UDR",
        3,
        "main",
        "{udr_models} seeds",
        interval=False,  # one number of all seeds together: its values share their pairs of models
    ),
    "udr_models": Quantity("models", "models compared with each other for the UDR", label="UDR models", column="run"),
}


def lasso(theirs: Array, ours: Array) -> Array:
    """|coefficients| of each of our dimensions on all of theirs, (theirs, ours), all of unit variance: the lasso
    of weight 0.1, which shrinks perfect agreement to 0.9.
    """
    model = Lasso(alpha=0.1).fit(StandardScaler().fit_transform(theirs), StandardScaler().fit_transform(ours))
    return np.abs(model.coef_.reshape(ours.shape[1], theirs.shape[1]).T)


def spearman(theirs: Array, ours: Array) -> Array:
    """|rank correlation| of each of their dimensions with each of ours, (theirs, ours)."""
    x, y = (StandardScaler().fit_transform(rankdata(z, axis=0)) for z in (theirs, ours))
    return np.abs(x.T @ y) / len(x)


def one_to_one(strength: Array) -> float:
    """Mean over rows of max^2 / sum, which is 0 for a row of zeros."""
    total = strength.sum(1)
    return float(np.mean(np.divide(strength.max(1) ** 2, total, out=np.zeros_like(total), where=total > 0)))


def udr(
    codes: Sequence[Tensor], kl_dims: Sequence[Tensor], relation: Callable[[Array, Array], Array] = lasso
) -> list[float]:
    """Unsupervised disentanglement ranking (Duan et al. 2020, https://arxiv.org/abs/1905.12614): a model whose
    dimensions others of its kind find again, one by one, is likely to be disentangled.

    With R_ab >= 0 how much dimension a of model j says of dimension b of model i,

        UDR_ij = 1/2 (mean_a max_b R_ab^2 / sum_b R_ab + mean_b max_a R_ab^2 / sum_a R_ab)

    over the dimensions with a KL above 0.01 nats, 0 where a model has none; the score of model i is the
    median of UDR_ij over j != i. The paper writes one mean over both kinds of dimensions, its code, as here,
    the mean of two: the same where the models have as many.

    Args:
        codes: of each model, (N, D_i), for the same N examples.
        kl_dims: of each model, the mean KL of each dimension in nats, (D_i,).
        relation: R, ``lasso`` or ``spearman``; identical models reach about 0.9 with one, 1 with the other,
            where their dimensions are uncorrelated.

    Raises:
        ValueError: fewer than two models, shapes that do not fit, or codes that are not finite.
    """
    shapes = [tuple(z.shape) for z in codes]
    fitting = [(shapes[0][0], len(kl)) for kl in kl_dims] if shapes else []
    if len(codes) < 2 or shapes != fitting:
        raise ValueError(
            f"the UDR compares two or more models on the same examples, got codes of shape {shapes} and KLs of "
            f"shape {[tuple(kl.shape) for kl in kl_dims]}"
        )
    if not all(z.isfinite().all() for z in codes):
        raise ValueError("codes must be finite: some are nan or inf")
    informative = [z[:, kl > MIN_KL].detach().cpu().double().numpy() for z, kl in zip(codes, kl_dims, strict=True)]

    def agreement(theirs: Array, ours: Array) -> float:
        if theirs.shape[1] == 0 or ours.shape[1] == 0:
            return 0.0
        strength = relation(theirs, ours)
        return (one_to_one(strength) + one_to_one(strength.T)) / 2

    return [
        float(np.median([agreement(theirs, ours) for j, theirs in enumerate(informative) if j != i]))
        for i, ours in enumerate(informative)
    ]
