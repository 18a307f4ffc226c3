"""The speed of log p(x): K samples for each of 10,000 images, MLP 784-400-20-400-784, on one core.

    python tests/benchmarks/log_marginal.py [--images 40] [--samples 5000] [--rounds 3] [--json FILE]

Contenders run in turn, ``rounds`` times, on a few images, and their CPU time is scaled to 10,000: one
core's seconds, which other work on the machine moves little. Only ratios hold from machine to machine;
each is within a round, and the median is printed. The peaks are those of the decoder's own matrix product
and of a large one, in the same run.
"""

import argparse
import json
import math
import statistics
import time
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.models import VAE
from vaezoo.nets import MLP

LATENT, HIDDEN, PIXELS, IMAGES = 20, 400, 784, 10_000
FLOPS = 2 * (LATENT * HIDDEN + HIDDEN * PIXELS)  # of the decoder, for a sample


def build() -> VAE:
    """The model, with fresh weights: speed does not depend on them."""
    torch.manual_seed(0)
    net = partial(MLP, hidden=[HIDDEN], activation="relu")
    return VAE((1, 28, 28), latent_dim=LATENT, encoder=net, decoder=net).eval()


def weigh(logits: Tensor, x: Tensor, z: Tensor, q: torch.distributions.Normal) -> Tensor:
    """log w by hand."""
    log_px = -F.binary_cross_entropy_with_logits(logits, x.expand_as(logits), reduction="none").sum(-1)
    log_pz = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    return log_px + log_pz - q.log_prob(z).sum(-1)


def per_image(model: VAE, x: Tensor, num_samples: int, rows: int = 100) -> Tensor:
    """As the well-known zoo does: each image is repeated, encoded and decoded 100 rows at a time."""
    out = []
    for image in x:
        parts = []
        for _ in range(num_samples // rows):
            batch = image.expand(rows, *image.shape)
            q = model.encoder(batch).base_dist
            z = q.rsample()
            parts.append(weigh(model.decoder.params(z)[0].flatten(1), batch.flatten(1), z, q))
        out.append(torch.cat(parts).logsumexp(0) - math.log(num_samples))
    return torch.stack(out)


def plain(model: VAE, x: Tensor, num_samples: int) -> Tensor:
    """The plain batched loop: each image is encoded once, and all its samples are one batch."""
    out = []
    for image in x:
        q = model.encoder(image[None]).base_dist
        z = q.rsample(torch.Size([num_samples]))[:, 0]
        log_w = weigh(model.decoder.params(z)[0].flatten(1), image.flatten(), z, q)
        out.append(log_w.logsumexp(0) - math.log(num_samples))
    return torch.stack(out)


def whole_batch(model: VAE, x: Tensor, num_samples: int, chunk: int = 100) -> Tensor:
    """All images at once, 100 samples of each at a time."""
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    for _ in range(num_samples // chunk):
        total = torch.logaddexp(total, model(x, num_samples=chunk).log_w.double().logsumexp(0))
    return total - math.log(num_samples)


def ours(model: VAE, x: Tensor, num_samples: int, compile: bool = False, bf16: bool = False) -> Tensor:
    """vaezoo.inference.importance_sampling.estimate."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        return estimate_log_marginal(model, x, num_samples=num_samples, compile=compile).log_p


CONTENDERS = {
    "image by image, 100 rows": per_image,
    "whole batch, chunks of 100": whole_batch,
    "plain batched loop": plain,
    "vaezoo": ours,
    "vaezoo, compiled": partial(ours, compile=True),
    "vaezoo, compiled, bf16": partial(ours, compile=True, bf16=True),
}


def seconds(function, *args) -> float:
    """CPU time of a call."""
    start = time.process_time()
    function(*args)
    return time.process_time() - start


def peaks() -> dict[str, float]:
    """GFLOP/s of matrix products, the best of ten."""
    values = {}
    for name, (rows, inner, columns) in {"decoder": (1000, HIDDEN, PIXELS), "large": (2048, 2048, 2048)}.items():
        x, weight, bias = torch.randn(rows, inner), torch.randn(columns, inner), torch.randn(columns)
        best = min(seconds(F.linear, x, weight, bias) for _ in range(10))
        values[name] = 2 * rows * inner * columns / best / 1e9
    return values


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = build()
    x = torch.rand(args.images, 1, 28, 28).round()
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for function in CONTENDERS.values():
        function(model, x[:2], args.samples)  # compiles, and warms up
    for _ in range(args.rounds):
        for name, function in CONTENDERS.items():
            times[name].append(seconds(function, model, x, args.samples) / args.images * IMAGES)
    rows = {}
    print(f"{args.samples} samples x {IMAGES} images, one core, from {args.images} images x {args.rounds} rounds")
    print(f"{'':28} {'median s':>9} {'least s':>8} {'x plain':>8} {'GFLOP/s':>8}")
    for name, values in times.items():
        ratio = statistics.median(t / own for t, own in zip(times["plain batched loop"], values, strict=True))
        rate = FLOPS * args.samples * IMAGES / min(values) / 1e9
        rows[name] = {"median_s": statistics.median(values), "least_s": min(values), "ratio": ratio, "gflops": rate}
        print(f"{name:28} {statistics.median(values):9.0f} {min(values):8.0f} {ratio:8.2f} {rate:8.0f}")
    matmul = peaks()
    print("matrix products, GFLOP/s: " + "; ".join(f"{name} {value:.0f}" for name, value in matmul.items()))
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"contenders": rows, "matmul_gflops": matmul, "torch": torch.__version__}, file, indent=1)


if __name__ == "__main__":
    main()
