"""Few labels: the test error of m2_vae beside classifiers that see the labelled images alone.

    python tests/benchmarks/few_labels.py digits [--seeds 3]                 50 labels of 1,257 images, 8x8
    python tests/benchmarks/few_labels.py mnist --root FOLDER [--seeds 3]    100 labels of 59,000 images

Each seed draws other labels, as many of each class, and trains anew. All methods get the same labels and the same test
images, and logistic regression also all pixels as grey values. The table has means over seeds with 95 % intervals.
"""

import argparse
import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

import vaezoo
from vaezoo.data import MNIST, DataModule, Digits
from vaezoo.report.statistics import interval

SETTINGS = {
    "digits": {"num_labels": 50, "max_epochs": 100, "lr": 2e-3, "alpha": 10.0},
    "mnist": {"num_labels": 100, "max_epochs": 15, "lr": 1e-3, "alpha": 50.0},
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="in place of the usual number")
    args = parser.parse_args()
    settings = SETTINGS[args.data] | ({} if args.epochs is None else {"max_epochs": args.epochs})
    errors: dict[str, list[float]] = {}
    elbos, seconds = [], []
    for seed in range(args.seeds):
        data = grey_images(args.data, args.root, settings["num_labels"], seed)
        start = time.process_time()
        run = vaezoo.fit(args.data, "m2_vae", seed=seed, split_seed=seed, root=args.root, verbose=False, **settings)
        seconds.append(time.process_time() - start)
        test = run.metrics["test"]
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
