"""Few labels: the test error of m2_vae beside classifiers that see the labelled images alone.

    python tests/benchmarks/few_labels.py digits [--seeds 0 1 2]                 50 labels of 1,257 images, 8x8
    python tests/benchmarks/few_labels.py mnist --root FOLDER [--seeds 0 1 2]    100 labels of 59,000 images

Each seed draws other labels, as many of each class, and trains anew. All methods get the same labels and the same test
images, and logistic regression also all pixels as grey values. The table has means over seeds with 95 % intervals.
"""

import argparse
from pathlib import Path

import numpy as np
from kept_runs import fit_or_load
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from vaezoo.data import MNIST, DataModule, Digits
from vaezoo.report.statistics import interval

# Grey values, since bits leave out most of an image of 8x8 pixels.
SMALL = {"binarize": "none", "likelihood": "discretized_logistic", "latent_dim": 10}
SMALL |= {f"model.{part}.hidden": [100] for part in ("encoder", "decoder")}
SETTINGS: dict[str, dict] = {
    "digits": {"num_labels": 50, "max_epochs": 25, "lr": 3e-3, "alpha": 5.0, **SMALL},
    "mnist": {"num_labels": 100, "max_epochs": 15, "lr": 1e-3, "alpha": 5.0},
}
BASELINES = {
    "logistic regression": lambda: LogisticRegression(max_iter=2000),
    "1 nearest neighbour": lambda: KNeighborsClassifier(1),
    "5 nearest neighbours": lambda: KNeighborsClassifier(5),
}


def grey_images(name: str, root: str, num_labels: int, split_seed: int) -> DataModule:
    """Return the data as grey values, with the same division and the same labels as the model gets."""
    settings = {"binarize": "none", "num_labels": num_labels, "split_seed": split_seed}
    data = Digits(val_size=180, **settings) if name == "digits" else MNIST(root=root, **settings)
    data.setup()
    return data


def baseline_errors(data: DataModule) -> dict[str, float]:
    """Return the test error of each baseline, fitted to the labelled training images."""

    def rows(split, which) -> tuple[np.ndarray, np.ndarray]:
        return split.x[which].flatten(1).numpy() / 255, split.y[which].numpy()

    train, test = rows(data.train, data.train.y >= 0), rows(data.test, slice(None))
    return {name: 1 - make().fit(*train).score(*test) for name, make in BASELINES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=SETTINGS)
    parser.add_argument("--root", default="data", help="folder of MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="in place of the usual number")
    parser.add_argument("--runs", help="folder of the runs, RUNS/SEED; runs that are there are not trained again")
    args = parser.parse_args()
    settings = SETTINGS[args.data] | ({} if args.epochs is None else {"max_epochs": args.epochs})
    errors: dict[str, list[float]] = {}
    elbos, seconds = [], []
    for seed in args.seeds:
        data = grey_images(args.data, args.root, settings["num_labels"], seed)
        folder = Path(args.runs, str(seed)) if args.runs else None
        _, test = fit_or_load(folder, args.data, "m2_vae", seed=seed, split_seed=seed, root=args.root, **settings)
        seconds.append(test["seconds"])
        elbos.append(test["elbo"])
        found = {"m2_vae": 1 - test["accuracy"], **baseline_errors(data)}
        print(f"seed {seed}: " + ", ".join(f"{name} {error:.2%}" for name, error in found.items()), flush=True)
        for name, error in found.items():
            errors.setdefault(name, []).append(100 * error)
    print(f"\n{args.data}, {settings}\n\n| method | test error in % |\n|---|---|")
    for name, values in errors.items():
        print(f"| {name} | {interval(values)} |")
    print(f"\nELBO of m2_vae: {interval(elbos)} nats per image; {np.mean(seconds):.0f} s of processor time each")


if __name__ == "__main__":
    main()
