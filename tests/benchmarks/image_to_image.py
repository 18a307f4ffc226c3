"""From an image to an image: the lower halves of MNIST's digits given the upper halves, log p(x | c) in nats per image.

    python tests/benchmarks/image_to_image.py --root FOLDER [--seeds 0 1 2] [--epochs 20] [--images 1000]

All methods see the same bits x (14 x 28, dynamically binarized) and grey upper halves c: independent pixels, whose
probabilities are the training mean; a network from c to the probabilities of all pixels, which are independent given c;
and conditional_prior_vae by K = 100 importance samples. The network has the hidden layers of the model's decoder with c
as input, and the epoch with the best validation. The second table has the squared error of one prediction, the mean
image, and of the best of 50 samples (means of p(x | z, c)), per pixel: what a choice among several completions brings.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from kept_runs import fit_or_load

from vaezoo.data import MNIST
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.nets import MLP
from vaezoo.report.statistics import interval

SETTINGS = {"lr": 1e-3, "condition": "upper", "scheduler": "cosine"}
NUM_SAMPLES, NUM_CHOICES = 100, 50


def spaced(data: MNIST, num: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return evenly spaced test examples and their conditions."""
    which = torch.arange(num) * len(data.test.x) // num
    x, c = zip(*data.batches(data.test.select(which), num), strict=True)
    return torch.cat(x), torch.cat(c)


def log_bernoulli(logits: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return log p(x) of independent bits, (N,)."""
    return -F.binary_cross_entropy_with_logits(logits.expand_as(x), x, reduction="none").flatten(1).sum(1)


def fit_network(data: MNIST, epochs: int, seed: int) -> partial:
    """Train the network from c to the logits of x, and return it at the epoch with the best validation."""
    torch.manual_seed(seed)
    net = MLP(data.context_shape, data.shape, hidden=[200, 200])
    torch.nn.init.zeros_(net.layers[-1].weight)
    mean = data.mean.clamp(1e-3, 1 - 1e-3).logit()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    best, state = -np.inf, net.state_dict()
    loader = data.train_dataloader()
    for _ in range(epochs):
        for x, c in loader:
            loss = -log_bernoulli(net(c) + mean, x).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            value = float(torch.cat([log_bernoulli(net(c) + mean, x) for x, c in data.val_dataloader()]).mean())
        if value > best:
            best, state = value, {name: tensor.clone() for name, tensor in net.state_dict().items()}
    net.load_state_dict(state)
    return partial(lambda c: net(c) + mean)


@torch.no_grad()
def best_error(model, x: torch.Tensor, c: torch.Tensor) -> float:
    """Return the squared error per pixel of the best of several samples for each condition, the mean over examples."""
    torch.manual_seed(0)
    means = model.sample(len(c) * NUM_CHOICES, context=c.repeat_interleave(NUM_CHOICES, 0)).mean
    errors = (means.unflatten(0, (len(c), NUM_CHOICES)) - x.unsqueeze(1)).square().flatten(2).mean(2)
    return float(errors.min(1).values.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--runs", help="folder of the runs, RUNS/SEED; runs that are there are not trained again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    nats: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    seconds = []
    for seed in args.seeds:
        folder = Path(args.runs, str(seed)) if args.runs else None
        options = SETTINGS | {"root": args.root, "seed": seed, "max_epochs": args.epochs}
        model, test = fit_or_load(folder, "mnist", "conditional_prior_vae", **options)
        seconds.append(test["seconds"])
        data = MNIST(root=args.root, condition="upper", seed=seed)
        data.setup()
        x, c = spaced(data, args.images)
        logits = fit_network(data, args.epochs, seed)(c).detach()
        found = estimate_log_marginal(model, x, c, NUM_SAMPLES)
        values = {
            "independent pixels": log_bernoulli(data.mean.clamp(1e-4, 1 - 1e-4).logit(), x).mean(),
            "network from c, pixels independent given c": log_bernoulli(logits, x).mean(),
            f"conditional_prior_vae, K = {NUM_SAMPLES}": found.log_p.mean(),
            "its ELBO, all test images": test["elbo"],
        }
        for name, value in values.items():
            nats.setdefault(name, []).append(float(value))
        for name, value in {
            "network from c, its mean": float((logits.sigmoid() - x)[:200].square().mean()),
            f"conditional_prior_vae, the best of {NUM_CHOICES}": best_error(model, x[:200], c[:200]),
        }.items():
            errors.setdefault(name, []).append(value)
        print(f"seed {seed}:", {name: round(found[-1], 4) for name, found in (nats | errors).items()}, flush=True)
    print(f"\n| method | log p(x given c), nats, {args.images} test images |\n|---|---|")
    print("\n".join(f"| {name} | {interval(values)} |" for name, values in nats.items()))
    print("\n| prediction | squared error per pixel, 200 test images |\n|---|---|")
    print("\n".join(f"| {name} | {np.mean(values):.4f} |" for name, values in errors.items()))
    print(f"\na training takes {np.mean(seconds):.0f} s of processor time")


if __name__ == "__main__":
    main()
