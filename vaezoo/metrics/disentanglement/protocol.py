"""The protocol of the disentanglement scores: examples, held-out part, bootstrap errors and ceilings.

The definitions follow Locatello et al. 2019, Challenging Common Assumptions in the Unsupervised Learning of
Disentangled Representations, https://arxiv.org/abs/1811.12359, and its disentanglement_lib, which most papers use; each
difference is named in a docstring. disentanglement_lib renders new images for each score. Here all scores share the
available examples, so any data set with labels can be used.

Shapes: N examples, D latent dimensions, F factors. Codes (N, D) are posterior means in float64; factors (N, F) are
classes counted from 0.
"""

from statistics import stdev

import numpy as np
from sklearn.preprocessing import StandardScaler

from vaezoo import seeding
from vaezoo.metrics.base import BufferedMetric
from vaezoo.metrics.disentanglement.base import MIN_EXAMPLES, Array, Labels
from vaezoo.metrics.disentanglement.classifiers import explicitness, sap
from vaezoo.metrics.disentanglement.dci import dci, forest_importance
from vaezoo.metrics.disentanglement.interventions import beta_vae, factor_vae, irs
from vaezoo.metrics.disentanglement.mutual_information import mig, modularity, mutual_information
from vaezoo.metrics.quantities import Quantity

QUANTITIES = {
    "beta_vae": Quantity(
        "accuracy", "predict from mean |z - z'| which factor a set of pairs shares", 1, "beta-VAE score"
    ),
    "factor_vae": Quantity(
        "accuracy", "predict from the dimension of least variance which factor a batch shares", 1, "FactorVAE score"
    ),
    "mig": Quantity(
        "fraction",
        "mutual information gap: (I(z_1st; v) - I(z_2nd; v)) / H(v), mean over factors v",
        1,
        "MIG",
        3,
        "main",
    ),
    "dci_disentanglement": Quantity(
        "fraction", "1 - H(factor | dimension) / ln F, by importance for prediction", 1, "DCI disentanglement"
    ),
    "dci_completeness": Quantity(
        "fraction", "1 - H(dimension | factor) / ln D, by importance for prediction", 1, "DCI completeness"
    ),
    "dci_informativeness": Quantity(
        "accuracy", "random forest on all dimensions, mean over factors", 1, "DCI informativeness"
    ),
    "sap": Quantity(
        "accuracy", "best minus second best dimension, each with a linear SVM, mean over factors", 1, "SAP"
    ),
    "modularity": Quantity("fraction", "1 - sum of I(z; other v)^2 / ((F - 1) I(z; its v)^2), mean over dimensions", 1),
    "explicitness": Quantity(
        "AUROC", "logistic regression of one value against the rest, mean over values and factors", 1
    ),
    "irs": Quantity("fraction", "interventional robustness: 1 - largest shift at a fixed v / largest shift", 1, "IRS"),
}


class Disentanglement(BufferedMetric):
    """All disentanglement scores of codes and known factors; larger is better, the maximum is 1.

    ``NAME_ceiling`` is the score of perfect codes: each factor is a dimension, its class number scaled to unit
    variance. ``NAME_error`` is the standard error over examples and the random numbers of the score, by the bootstrap.
    The scores of classifiers that are scored on held-out examples (DCI, SAP, explicitness) have none.

    The arguments of ``update`` are ``code`` (B, ...) and ``factors`` (B, F). Factors with a single value are ignored.
    The result is a function of the examples, their order and the seed.

    Args:
        num_examples: largest number of examples, drawn from all; a third of them is held out for the classifiers'
            scores.
        num_votes: inputs and votes per factor in the beta-VAE and FactorVAE scores.
        batch_size: examples or pairs per input and vote.
        bins: bins of each dimension for mutual information.
        num_trees: trees of each forest.
        num_resamples: resamples of the bootstrap.
        seed: seed of all random numbers.

    Raises:
        ValueError: in ``compute``, if codes are not finite or have a single dimension, fewer than two factors vary, or
            a value has fewer than ten examples.
    """

    buffer_names = ("code", "factors")

    def __init__(
        self,
        num_examples: int = 10_000,
        num_votes: int = 2000,
        batch_size: int = 64,
        bins: int = 20,
        num_trees: int = 20,
        num_resamples: int = 20,
        seed: int = 0,
    ):
        super().__init__()
        counts = {"num_votes": num_votes, "batch_size": batch_size, "bins": bins, "num_resamples": num_resamples}
        for name, value in counts.items():
            if value < 2:
                raise ValueError(f"{name} must be >= 2, got {value}")
        for name, value in {"num_examples": num_examples, "num_trees": num_trees}.items():
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.num_examples, self.num_trees, self.num_resamples = num_examples, num_trees, num_resamples
        self.bins, self.seed = bins, seed
        self.draws = {"batch_size": batch_size, "num_votes": num_votes}

    def compute(self) -> dict[str, float]:
        codes, factors = self.examples()
        result = self.scores_on_all(codes, factors) | self.scores_on_held_out(codes, factors)
        perfect = StandardScaler().fit_transform(factors)
        ceiling = self.scores_on_all(perfect, factors) | self.scores_on_held_out(perfect, factors)
        rows = self.generator("bootstrap").integers(len(codes), size=(self.num_resamples, len(codes)))
        resampled = [self.scores_on_all(codes[row], factors[row]) for row in rows]
        error = {name: stdev(scores[name] for scores in resampled) for name in resampled[0]}
        return (
            {name: result[name] for name in QUANTITIES}
            | {f"{name}_error": value for name, value in error.items()}
            | {f"{name}_ceiling": ceiling[name] for name in QUANTITIES}
        )

    def generator(self, name: str) -> np.random.Generator:
        """Return a random generator for one purpose."""
        return np.random.default_rng(seeding.derive(self.seed, "disentanglement", name))

    def examples(self) -> tuple[Array, Labels]:
        """Return codes (N, D) and the factors that vary (N, F), checked."""
        values = self.buffered()
        codes = values["code"].flatten(1).cpu().double().numpy()
        factors = values["factors"].cpu().numpy()
        if factors.ndim != 2:
            raise ValueError(f"factors must be (N, F), got shape {factors.shape}")
        if codes.shape[1] < 2:
            raise ValueError("disentanglement compares latent dimensions, but the codes have only one")
        if bad := int((~np.isfinite(codes).all(1)).sum()):
            raise ValueError(f"codes must be finite: {bad} of {len(codes)} examples have NaN or infinity")
        rows = self.generator("examples").permutation(len(codes))[: self.num_examples]
        codes, factors = codes[rows], factors[rows]
        classes = [np.unique(v, return_inverse=True)[1] for v in factors.T]
        classes = [v for v in classes if v.max() > 0]
        if len(classes) < 2:
            raise ValueError(
                f"disentanglement needs at least 2 factors that vary, but {len(classes)} of {factors.shape[1]} factors "
                f"have two or more values"
            )
        if (least := min(np.bincount(v).min() for v in classes)) < MIN_EXAMPLES:
            raise ValueError(
                f"disentanglement needs {MIN_EXAMPLES} examples of each value of a factor, but one value has {least}: "
                f"{len(codes)} examples are too few"
            )
        return codes, np.stack(classes, axis=1)

    def scores_on_all(self, codes: Array, factors: Labels) -> dict[str, float]:
        """Return the scores that use all examples at once."""
        information = mutual_information(codes, factors, self.bins)
        return {
            "beta_vae": beta_vae(codes, factors, self.generator("beta_vae"), **self.draws),
            "factor_vae": factor_vae(codes, factors, self.generator("factor_vae"), **self.draws),
            "mig": mig(information, factors),
            "modularity": modularity(information),
            "irs": irs(codes, factors),
        }

    def scores_on_held_out(self, codes: Array, factors: Labels) -> dict[str, float]:
        """Return the scores of classifiers that are fitted to two thirds of the examples and scored on the rest."""
        split = [len(codes) * 2 // 3]  # the rows are in random order
        (train, test), (train_factors, test_factors) = np.split(codes, split), np.split(factors, split)
        parts = train, train_factors, test, test_factors
        seed = seeding.derive(self.seed, "disentanglement", "forests") % 2**32
        importance, informativeness = forest_importance(*parts, num_trees=self.num_trees, seed=seed)
        disentanglement, completeness = dci(importance)
        return {
            "dci_disentanglement": disentanglement,
            "dci_completeness": completeness,
            "dci_informativeness": informativeness,
            "sap": sap(*parts),
            "explicitness": explicitness(*parts),
        }
