"""Digits on demand: whether the samples of a cvae are of the class that was asked for, and how different they are.

    python tests/benchmarks/controllable.py --root FOLDER [--seeds 0 1 2] [--epochs 20] [--samples 1000]

The judge is the network of the sample metrics, which is trained on real images, binarized and grey, and has never seen
a sample. Its accuracy on real test images of the same kind is the ceiling. Diversity is the variance of a pixel within
a class, the mean over pixels and classes, of samples relative to test images of the same kind: 1 is that of real
images, 0 one image for each class.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from kept_runs import fit_or_load

from vaezoo.data import MNIST
from vaezoo.evaluation.features import FeatureNet, features_for
from vaezoo.report.statistics import interval

NUM_CLASSES = 10


def predict(judge: FeatureNet, x: torch.Tensor) -> torch.Tensor:
    """Return the most probable class of each image, (N,)."""
    with torch.no_grad():
        return torch.cat([judge.logits(part)[0].argmax(1) for part in x.split(1000)])


def diversity(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the variance of a pixel within a class, the mean over pixels and classes."""
    return float(torch.stack([x[y == label].var(0).mean() for label in range(NUM_CLASSES)]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000, help="of each class")
    parser.add_argument("--cache", default="~/.cache/vaezoo/features", help="folder of the judge")
    parser.add_argument("--runs", help="folder of the runs, RUNS/SEED; runs that are there are not trained again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data, bits = MNIST(root=args.root, binarize="none"), MNIST(root=args.root)
    data.setup()
    bits.setup()
    judge = features_for(data, Path(args.cache).expanduser())
    y = data.test.y
    real = {"bits": bits.test.x.float(), "grey": data.test.x.float() / 255}
    ceiling = {kind: float((predict(judge, x) == y).double().mean()) for kind, x in real.items()}
    spread = {kind: diversity(x, y) for kind, x in real.items()}
    rows: dict[str, list[float]] = {}
    elbos, seconds = [], []
    for seed in args.seeds:
        folder = Path(args.runs, str(seed)) if args.runs else None
        model, test = fit_or_load(folder, "mnist", "cvae", root=args.root, seed=seed, max_epochs=args.epochs)
        seconds.append(test["seconds"])
        elbos.append(test["elbo"])
        labels = torch.arange(NUM_CLASSES).repeat(args.samples)
        torch.manual_seed(seed)
        with torch.no_grad():
            px = [model.sample(len(part), context=part) for part in labels.split(1000)]
        made = {"bits": torch.cat([p.sample() for p in px]), "grey": torch.cat([p.mean for p in px])}
        for kind, x in made.items():
            rows.setdefault(f"{kind}: of the class", []).append(
                100 * float((predict(judge, x) == labels).double().mean())
            )
            rows.setdefault(f"{kind}: diversity", []).append(diversity(x, labels) / spread[kind])
        print(f"seed {seed}:", {name: round(values[-1], 3) for name, values in rows.items()}, flush=True)
    print("\n| images | samples of the class in % | real test images in % | diversity, real = 1 |\n|---|---|---|---|")
    for kind, words in {"bits": "bits drawn from p(x given z, y)", "grey": "means of p(x given z, y)"}.items():
        found = [interval(rows[f"{kind}: {name}"]) for name in ("of the class", "diversity")]
        print(f"| {words} | {found[0]} | {100 * ceiling[kind]:.2f} | {found[1]} |")
    print(f"\nELBO {interval(elbos)} nats per image; {np.mean(seconds):.0f} s of processor time each")


if __name__ == "__main__":
    main()
