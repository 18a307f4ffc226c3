"""UDR: unsupervised disentanglement ranking, which compares models that differ in their seeds.

Duan et al. 2020, Unsupervised Model Selection for Variational Disentangled Representation Learning,
https://arxiv.org/abs/1905.12614.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from vaezoo.metrics.disentanglement.base import MIN_KL, Array
from vaezoo.metrics.quantities import Quantity

UDR_CEILING = 0.9  # with the lasso, for models with the same uncorrelated dimensions
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
    """Return |coefficients| of a lasso that predicts each dimension of one model from all of another.

    All dimensions are scaled to unit variance. The penalty has weight 0.1, which shrinks perfect agreement to 0.9.

    Args:
        theirs: codes of the model that predicts, (N, D_j).
        ours: codes of the model that is predicted, (N, D_i).

    Returns:
        Coefficients (D_j, D_i).
    """
    model = Lasso(alpha=0.1).fit(StandardScaler().fit_transform(theirs), StandardScaler().fit_transform(ours))
    return np.abs(model.coef_.reshape(ours.shape[1], theirs.shape[1]).T)


def spearman(theirs: Array, ours: Array) -> Array:
    """Return |rank correlation| between each dimension of one model and each of another.

    Args:
        theirs: codes of the first model, (N, D_j).
        ours: codes of the second model, (N, D_i).

    Returns:
        Correlations (D_j, D_i).
    """
    x, y = (StandardScaler().fit_transform(rankdata(z, axis=0)) for z in (theirs, ours))
    return np.abs(x.T @ y) / len(x)


def one_to_one(strength: Array) -> float:
    """Return the mean over rows of max^2 / sum, which is 0 for a row of zeros."""
    total = strength.sum(1)
    return float(np.mean(np.divide(strength.max(1) ** 2, total, out=np.zeros_like(total), where=total > 0)))


def udr(
    codes: Sequence[Tensor], kl_dims: Sequence[Tensor], relation: Callable[[Array, Array], Array] = lasso
) -> list[float]:
    """Return the unsupervised disentanglement ranking of each model.

    A model whose dimensions are found again, one by one, by models with other seeds is likely to be disentangled. With
    R_ab >= 0 the relation between dimension a of model j and dimension b of model i,

        UDR_ij = 1/2 (mean_a max_b R_ab^2 / sum_b R_ab + mean_b max_a R_ab^2 / sum_a R_ab)

    over the dimensions with a KL above 0.01 nats; 0 if a model has none. The score of model i is the median of UDR_ij
    over j != i. The paper has one mean over both kinds of dimensions, its code, as here, the mean of two means: the
    same if both models have equally many dimensions.

    Args:
        codes: codes of each model, (N, D_i), for the same N examples.
        kl_dims: mean KL of each dimension of each model in nats, (D_i,).
        relation: R, ``lasso`` or ``spearman``. Identical models with uncorrelated dimensions reach about 0.9 with
            ``lasso`` and 1 with ``spearman``.

    Raises:
        ValueError: there are fewer than two models, shapes do not fit, or codes are not finite.
    """
    shapes = [tuple(z.shape) for z in codes]
    fitting = [(shapes[0][0], len(kl)) for kl in kl_dims] if shapes else []
    if len(codes) < 2 or shapes != fitting:
        raise ValueError(
            f"the UDR needs at least 2 models and the same examples for all, got codes of shape {shapes} and KLs of "
            f"shape {[tuple(kl.shape) for kl in kl_dims]}"
        )
    if not all(z.isfinite().all() for z in codes):
        raise ValueError("codes must be finite, but some are NaN or infinite")
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
