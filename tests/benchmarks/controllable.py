"""Samples of a class: whether they are of the class that was asked for, and how different they are.

    python tests/benchmarks/controllable.py digits --root FOLDER [--seeds 0 1 2] [--epochs 20] [--samples 1000]
    python tests/benchmarks/controllable.py topics [--seeds 0 1 2] [--epochs 20] [--samples 200]

``digits``: MNIST and cvae. The judge is the network of the sample metrics, which is trained on real images, binarized
and grey, and has never seen a sample. Diversity is the variance of a pixel within a class, the mean over pixels and
classes, of samples relative to test images of the same kind: 1 is that of real images, 0 one image for each class.

``topics``: the sentences of Python's help and text_cvae. The judge is a logistic regression on the counts of words and
of pairs of words, trained on the training sentences with classes of equal weight. Diversity is the number of different
pairs of words in the samples of a class, relative to that in as many training sentences of the class.

The accuracy of the judge on the real test set is the ceiling.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from kept_runs import fit_or_load
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from vaezoo.data import MNIST, Topics
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


def digits(args: argparse.Namespace) -> None:
    """Print the table of digits."""
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


def num_pairs(texts: list[str]) -> int:
    """Return the number of different pairs of neighboring words in texts."""
    return len({pair for text in texts for pair in pairwise(["<start>", *text.split()])})


def topics(args: argparse.Namespace) -> None:
    """Print the table of topics."""
    data = Topics(vocabulary_size=1400)
    data.setup()
    names = data.class_names
    real = {name: [data.decode_tokens(x) for x in getattr(data, name).x] for name in ("train", "test")}
    judge = make_pipeline(
        CountVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=1000, class_weight="balanced")
    )
    judge.fit(real["train"], data.train.y)
    right = judge.predict(real["test"]) == data.test.y.numpy()
    ceiling = [100 * right[data.test.y == label].mean() for label in range(len(names))]
    print(f"accuracy of the judge on {len(right)} test sentences: {100 * right.mean():.1f} %, of the most frequent "
          f"class: {100 * float((data.test.y == data.train.y.mode().values).double().mean()):.1f} %")  # fmt: skip
    agreement, diversity, all_right, elbos, seconds = [], [], [], [], []
    for seed in args.seeds:
        folder = Path(args.runs, str(seed)) if args.runs else None
        own = Topics(vocabulary_size=1400, batch_size=64)  # as conf/data/topics.yaml
        options = {"lr": 2e-3, "scheduler": "cosine", "threads": 1, "seed": seed, "max_epochs": args.epochs}
        model, test = fit_or_load(folder, own, "text_cvae", **options)
        seconds.append(test["seconds"])
        elbos.append(test["nats_per_token"])
        torch.manual_seed(seed)
        rows = []
        for label in range(len(names)):
            with torch.no_grad():
                x = model.sample(args.samples, context=torch.full((args.samples,), label)).sample()
            texts = [data.decode_tokens(row) for row in x]
            of_class = [text for text, y in zip(real["train"], data.train.y, strict=True) if y == label]
            num = min(len(of_class), args.samples)
            found = 100 * float((judge.predict(texts) == label).mean())
            rows.append([found, num_pairs(texts[:num]) / num_pairs(of_class[:num])])
            if seed == args.seeds[0]:
                print(f"{names[label]}: {texts[0]} | {texts[1]}", flush=True)
        agreement.append([row[0] for row in rows])
        diversity.append([row[1] for row in rows])
        all_right.append(float(np.mean(agreement[-1])))
    print("\n| class | samples of the class in % | real test sentences in % | diversity, real = 1 |\n|---|---|---|---|")
    for name, found, most, different in zip(
        [*names, "mean"],
        [*zip(*agreement, strict=True), all_right],
        [*ceiling, np.mean(ceiling)],
        [*zip(*diversity, strict=True), [float(np.mean(row)) for row in diversity]],
        strict=True,
    ):
        print(f"| {name} | {interval(found)} | {most:.1f} | {interval(different)} |")
    print(f"\nat most {interval(elbos)} nats per token; {np.mean(seconds):.0f} s of processor time each")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["digits", "topics"])
    parser.add_argument("--root", default="data", help="folder of MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, help="of each class; 1000 digits, 200 sentences if not given")
    parser.add_argument("--cache", default="~/.cache/vaezoo/features", help="folder of the judge of digits")
    parser.add_argument("--runs", help="folder of the runs, RUNS/SEED; runs that are there are not trained again")
    args = parser.parse_args()
    args.samples = args.samples or {"digits": 1000, "topics": 200}[args.data]
    torch.set_num_threads(1)
    {"digits": digits, "topics": topics}[args.data](args)


if __name__ == "__main__":
    main()
