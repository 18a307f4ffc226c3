"""The tables of docs/uses/tables.md: errors of filled-in entries of a table with holes, against baselines.

    python tests/benchmarks/holes.py                   entries hidden at random, 3 masks
    python tests/benchmarks/holes.py --high            values above the mean are hidden in half of the columns
    python tests/benchmarks/holes.py missing_iwae --masks 1 --epochs 100

The table is scikit-learn's breast cancer. Errors are mean squares in units of each column's standard deviation, that of
the observed training entries (with ``--high``, of the complete columns), so 1 is about the error of the column's mean.
Every method is fitted to the observed entries of the training rows. The models choose their epoch by the bound of the
validation rows, which no baseline uses; nothing looks at a hidden entry. Errors are those of the training rows, as in
Mattei & Frellsen 2019, and those of the test rows, which no method has seen. Each mask has its own split.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import BayesianRidge

import vaezoo
from vaezoo.data import BundledTable
from vaezoo.inference.imputation import impute
from vaezoo.report.statistics import interval


class PPCA:
    """Probabilistic PCA fitted by EM to the observed entries, ``fit`` and ``transform`` as in scikit-learn.

    Tipping & Bishop 1999, Probabilistic Principal Component Analysis, appendix on missing data.
    """

    def __init__(self, num_components: int, steps: int = 200):
        self.num_components, self.steps = num_components, steps

    def fit(self, x: np.ndarray) -> "PPCA":
        dims, rng = x.shape[1], np.random.default_rng(0)
        self.mean, self.variance = np.nanmean(x, 0), 0.5
        self.weight = rng.normal(size=(dims, self.num_components)) / np.sqrt(dims)
        for _ in range(self.steps):
            z, second = self.codes(x)
            observed = ~np.isnan(x)
            ones = np.concatenate([z, np.ones((len(x), 1))], 1)
            moments = np.einsum("ni,nj->nij", ones, ones)
            moments[:, :-1, :-1] = second
            total = np.einsum("nd,nij->dij", observed, moments)
            right = np.einsum("nd,ni->di", np.nan_to_num(x), ones)
            both = np.linalg.solve(total + 1e-8 * np.eye(total.shape[-1]), right[..., None])[..., 0]
            self.weight, self.mean = both[:, :-1], both[:, -1]
            fitted = np.einsum("di,nij,dj->nd", both, moments, both)
            square = np.nan_to_num(x) ** 2 - 2 * np.nan_to_num(x) * (ones @ both.T) + fitted
            self.variance = square[observed].mean()
        return self

    def codes(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the second moment of z given the observed entries, (N, K) and (N, K, K)."""
        observed = ~np.isnan(x)
        precision = np.einsum("nd,di,dj->nij", observed, self.weight, self.weight) / self.variance
        covariance = np.linalg.inv(precision + np.eye(self.num_components))
        scores = np.where(observed, x - self.mean, 0) @ self.weight / self.variance
        z = np.einsum("nij,nj->ni", covariance, scores)
        return z, covariance + np.einsum("ni,nj->nij", z, z)

    def transform(self, x: np.ndarray) -> np.ndarray:
        return np.where(np.isnan(x), self.codes(x)[0] @ self.weight.T + self.mean, x)


BASELINES = {
    "mean": SimpleImputer,
    "5 nearest neighbours": lambda: KNNImputer(n_neighbors=5),
    "PPCA, 5 components": lambda: PPCA(5),
    "IterativeImputer(BayesianRidge)": lambda: IterativeImputer(BayesianRidge(), max_iter=30, tol=1e-2),
}
MODELS = ["missing_iwae"]


class Table(BundledTable):
    """The table with half of its entries hidden at random; a number decides on mask and split."""

    def __init__(self, number: int):
        super().__init__("breast_cancer", holes=0.5, split_seed=number, batch_size=64)

    def unit(self) -> np.ndarray:
        """Return the unit of errors, in units of x: the standard deviation of the observed training entries."""
        return np.ones(30)


class HighHoles(Table):
    """The table with holes that depend on their values: in every second column, values above the mean are hidden."""

    def hide(self, values: np.ndarray) -> np.ndarray:
        high = (values > values.mean(0)) & (np.arange(values.shape[1]) % 2 == 0)
        return np.where(high, np.nan, values)

    def unit(self) -> np.ndarray:
        """Return the standard deviation of the complete columns, since the observed values vary too little here."""
        return self.complete["train"].numpy().std(0)


def errors(filled: dict[str, np.ndarray], data: Table) -> dict[str, float]:
    """Return the mean squared error of the hidden entries of the training and of the test rows."""
    found = {}
    for name, x in filled.items():
        hidden = np.isnan(getattr(data, name).x.numpy())
        found[name] = float(np.square((x - data.complete[name].numpy()) / data.unit())[hidden].mean())
    return found


def show(values: list[float]) -> str:
    """Return the mean and the 95 % interval for the table."""
    found = interval(values)
    return f"{found.mean:.3f}" + (f" ± {found.half:.3f}" if found.num > 1 else "")


def fill(name: str, data: Table, options: dict) -> dict[str, np.ndarray]:
    """Return the training and the test rows, filled in by a model or a baseline."""
    data.setup()
    sets = {key: getattr(data, key).x for key in ("train", "test")}
    if name in BASELINES:
        method = BASELINES[name]().fit(sets["train"].numpy())
        return {key: method.transform(x.numpy()) for key, x in sets.items()}
    model = vaezoo.fit(data, name, verbose=False, **options).model
    return {key: impute(model, x, None, data.is_category, num_samples=1000).best.numpy() for key, x in sets.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models of conf/model, or baselines by their names in the table")
    parser.add_argument("--high", action="store_true", help="hide values above the mean in half of the columns")
    parser.add_argument("--masks", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--set", nargs="*", default=[], help="options of the models, such as latent_dim=5")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options: dict = {"max_epochs": arguments.epochs}
    for text in arguments.set:
        key, _, value = text.partition("=")
        options[key] = float(value) if "." in value or "e-" in value else int(value)
    print("| method | training rows | test rows | seconds |\n|---|---|---|---|")
    for name in arguments.names or [*BASELINES, *MODELS]:
        found, start = [], time.perf_counter()
        for mask in range(arguments.masks):
            data = (HighHoles if arguments.high else Table)(mask)
            found.append(errors(fill(name, data, options | {"seed": mask}), data))
        cells = [show([row[key] for row in found]) for key in ("train", "test")]
        print(f"| {name} | {' | '.join(cells)} | {(time.perf_counter() - start) / arguments.masks:.0f} |", flush=True)


if __name__ == "__main__":
    main()
