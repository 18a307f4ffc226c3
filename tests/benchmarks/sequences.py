"""Japanese vowels: models of sequences beside linear baselines, log p of the published test set in nats per frame.

    python tests/benchmarks/sequences.py FILE.npz [--models vrnn deep_kalman] [--seeds 3] [--epochs 120] [--samples 100]

FILE.npz holds {train,test}_frames, _lengths and _speaker (Kudo, Toyama & Shimbo 1999, UCI Machine Learning Repository):
640 utterances of 7 to 29 frames of 12 cepstra by 9 speakers, 270 for training and 370 for the test. All rows are on the
same test frames and in the same unit. The last column is that of frames divided by the training frames' standard
deviations, which is smaller by a constant. log p(x) of a model is its importance-weighted lower bound.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import vaezoo
from vaezoo.data import SequenceData
from vaezoo.report.statistics import interval

Rows = list[NDArray[np.float64]]
TRAINING = {"lr": 6e-3, "scheduler": "cosine", "threads": 1}


def read(path: str, prefix: str) -> tuple[Rows, NDArray]:
    """Return the sequences of a set and their speakers."""
    with np.load(path) as file:
        frames, lengths = file[f"{prefix}_frames"].astype(float), file[f"{prefix}_lengths"]
        return np.split(frames, np.cumsum(lengths)[:-1]), file[f"{prefix}_speaker"]


def log_normal(values: NDArray, errors: NDArray) -> float:
    """Return the sum of log N(values; 0, S) with the covariance S of the errors around 0."""
    return float(multivariate_normal(cov=errors.T @ errors / len(errors)).logpdf(values).sum())


def independent_frames(train: Rows, test: Rows) -> float:
    """Return log p of all test frames by one normal with a full covariance."""
    frames = np.concatenate(train)
    return log_normal(np.concatenate(test) - frames.mean(0), frames - frames.mean(0))


def autoregression(train: Rows, test: Rows) -> float:
    """Return log p of all test frames by x_t = A x_{t-1} + b + e; the first frame has a normal of its own."""

    def pairs(rows: Rows) -> tuple[NDArray, NDArray]:
        before = np.concatenate([row[:-1] for row in rows])
        return np.column_stack([before, np.ones(len(before))]), np.concatenate([row[1:] for row in rows])

    first = np.stack([row[0] for row in train])
    inputs, outputs = pairs(train)
    weights = np.linalg.lstsq(inputs, outputs, rcond=None)[0]
    test_inputs, test_outputs = pairs(test)
    start = log_normal(np.stack([row[0] for row in test]) - first.mean(0), first - first.mean(0))
    return start + log_normal(test_outputs - test_inputs @ weights, outputs - inputs @ weights)


def moments(rows: Rows) -> NDArray:
    """Return the means and the standard deviations over the frames of each sequence."""
    return np.stack([np.concatenate([row.mean(0), row.std(0)]) for row in rows])


def accuracy(train: NDArray, train_labels: NDArray, test: NDArray, test_labels: NDArray) -> float:
    """Return the share of test sequences whose speaker logistic regression finds."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return float(classifier.fit(train, train_labels).score(test, test_labels))


def codes(run: Any, name: str) -> Rows:
    """Return the codes of the frames of each sequence of a set, without those after its end."""
    split = getattr(run.data, name)
    here = ~split.x.isnan().all(-1)
    return [z[mask].double().numpy() for z, mask in zip(run.model.encode(split.x), here, strict=True)]


def train(model: str, path: str, seed: int, epochs: int, samples: int) -> dict[str, float]:
    """Train a model, and return its numbers on the test set: sums in nats, and the accuracy of the speaker."""
    data = SequenceData(path, labels="speaker", batch_size=64, batches_per_step=8)
    run = vaezoo.fit(data, model, seed=seed, max_epochs=epochs, verbose=False, **TRAINING)
    test = run.data.test.x
    log_p = run.model.log_marginal(test, num_samples=samples, seed=seed) if samples else torch.full((1,), torch.nan)
    labels = [np.asarray(getattr(run.data, name).y) for name in ("train", "test")]
    found = accuracy(moments(codes(run, "train")), labels[0], moments(codes(run, "test")), labels[1])
    return {"elbo": run.metrics["test"]["elbo"] * len(test), "log_p": float(log_p.sum()), "accuracy": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--models", nargs="*", default=["vrnn", "deep_kalman"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--samples", type=int, default=100, help="importance samples of log p(x); 0: no log p(x)")
    arguments = parser.parse_args()
    (train_rows, train_labels), (test_rows, test_labels) = (read(arguments.file, name) for name in ("train", "test"))
    num, constant = sum(map(len, test_rows)), float(np.log(np.concatenate(train_rows).std(0)).sum())
    print(f"{len(train_rows)} training and {len(test_rows)} test sequences, {num:,} test frames")
    print(
        "| model | ELBO | log p(x) | the same, standardized | speaker | processor time (s) |\n|---|---|---|---|---|---|"
    )

    def row(name: str, elbo: list[float], log_p: list[float], correct: list[float], seconds: str) -> None:
        cells = [str(interval([value / num for value in values])) if values else "" for values in (elbo, log_p)]
        cells.append(str(interval([value / num + constant for value in log_p])))
        cells.append(" ± ".join(f"{value:.3f}" for value in interval(correct)[:2] if value == value) if correct else "")
        print(f"| {name} | {' | '.join(cells)} | {seconds} |", flush=True)

    by_moments = accuracy(moments(train_rows), train_labels, moments(test_rows), test_labels)
    baselines: dict[str, Callable[[Rows, Rows], float]] = {
        "independent frames, full covariance": independent_frames,
        "autoregression of order 1": autoregression,
    }
    for name, function in baselines.items():
        row(name, [], [function(train_rows, test_rows)], [], "")
    print(f"| mean and standard deviation of the cepstra, logistic regression | | | | {by_moments:.3f} | |")
    for name in arguments.models:
        start = time.process_time()
        results = [
            train(name, arguments.file, seed, arguments.epochs, arguments.samples) for seed in range(arguments.seeds)
        ]
        seconds = (time.process_time() - start) / arguments.seeds
        columns = {key: [result[key] for result in results] for key in results[0]}
        row(f"`{name}`", columns["elbo"], columns["log_p"], columns["accuracy"], f"{seconds:.0f} a seed")


if __name__ == "__main__":
    main()
