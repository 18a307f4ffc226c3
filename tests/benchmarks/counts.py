"""The table of docs/uses/counts.md: log p of test cells given their size, of models and of baselines.

    python tests/benchmarks/counts.py --data FOLDER/pbmc_counts.npz
    python tests/benchmarks/counts.py count_vae --data FOLDER/pbmc_counts.npz --seeds 1 --set latent_dim=5

All methods see the same training cells; the models choose their epoch by the bound of the validation cells, and the
baselines are fitted to training and validation cells. Values are nats per cell, the mean of the same test cells: of the
models the ELBO, and the bound of log p(x) of 1,000 importance samples. "Not given the size": the usual distribution of
each gene by itself, whose values are of another kind, because it has to say how large a cell is.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor

import vaezoo
from vaezoo.data import ArrayData
from vaezoo.families import Family, Multinomial, NegativeBinomial, Poisson, ScaledNegativeBinomial
from vaezoo.models import LatentVariableModel
from vaezoo.report.statistics import Interval, interval

MODELS = {
    "count_vae": {},
    "count_vae zero_inflated=true": {"zero_inflated": True},
    "mult_vae beta=1": {"beta": 1.0},
    "mult_vae": {},
    "prod_lda": {},
}


def baselines(num: int) -> dict[str, Family]:
    """Return the families that are fitted without a code, by their names in the table."""
    return {
        "Poisson of each gene, not given the size": Poisson(),
        "negative binomial of each gene, not given the size": NegativeBinomial(num_dims=num),
        "unigram: multinomial": Multinomial(),
        "negative binomial of each gene": ScaledNegativeBinomial(num),
    }


def fit(family: Family, x: Tensor, test: Tensor) -> float:
    """Return the mean log p of the test cells for the maximum-likelihood fit of a family without a code."""
    mean = x.double().mean(0).clamp(min=0.5 / len(x))
    raw = torch.cat(family.double().params_for_data(mean, x)).requires_grad_()

    def log_p(cells: Tensor) -> Tensor:
        found = family(*family.split(raw, x.shape[1:])).log_prob(cells)
        return (found.sum(1) if found.dim() == 2 else found).mean()

    search = torch.optim.LBFGS([raw, *family.parameters()], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        search.zero_grad()
        loss = -log_p(x)
        loss.backward()
        return loss

    if next(family.parameters(), None) is not None:  # the start of the others is their fit
        search.step(closure)
    return float(log_p(test).detach())


def show(values: list[float]) -> str:
    """Return the mean and the 95 % interval for the table."""
    found: Interval = interval(values)
    return f"{found.mean:.1f}" + (f" ± {found.half:.1f}" if found.num > 1 else "")


def show_samples(model: LatentVariableModel, names: np.ndarray, num: int) -> None:
    """Print the size and the largest counts of sampled cells, with the names of the genes."""
    torch.manual_seed(0)
    for cell in model.sample(num).sample().numpy() if num else ():
        largest = ", ".join(f"{names[gene]} {cell[gene]}" for gene in cell.argsort()[::-1][:8])
        print(f"size {cell.sum()}, {(cell > 0).sum()} genes: {largest}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="models of the table; none: all, and the baselines")
    parser.add_argument("--data", required=True, help="an .npz file with counts (N, D)")
    parser.add_argument("--key", default="counts", help="the array in the file")
    parser.add_argument("--labels-key", help="the labels in the file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--samples", type=int, default=0, help="print the largest counts of so many sampled cells")
    parser.add_argument("--set", nargs="*", default=[], help="options of the models, such as latent_dim=5")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options: dict = {"max_epochs": arguments.epochs}
    for text in arguments.set:
        key, _, value = text.partition("=")
        options[key] = float(value) if "." in value or "e-" in value else int(value)

    def read() -> ArrayData:
        data = ArrayData(arguments.data, key=arguments.key, labels_key=arguments.labels_key)
        data.setup()
        return data

    data = read()
    test = data.test.x
    x = torch.cat([data.train.x, data.val.x])
    print(
        f"{len(data.train.x)} training, {len(data.val.x)} validation and {len(test)} test cells of {x.shape[1]} genes"
    )
    print("| method | ELBO | log p(x), K = 1,000 | seconds |\n|---|---|---|---|")
    for name, family in baselines(x.shape[1]).items() if not arguments.names else ():
        start = time.perf_counter()
        print(f"| {name} | | {fit(family, x, test):.1f} | {time.perf_counter() - start:.0f} |", flush=True)
    for name in arguments.names or MODELS:
        elbos, log_ps, start = [], [], time.perf_counter()
        for seed in range(arguments.seeds):
            chosen = MODELS.get(name, {}) | options | {"seed": seed}
            run = vaezoo.fit(read(), name.split()[0], verbose=False, **chosen)
            elbos.append(run.metrics["test"]["elbo"])
            log_ps.append(float(run.model.log_marginal(test, num_samples=1000).mean()))
        seconds = (time.perf_counter() - start) / arguments.seeds
        print(f"| {name} | {show(elbos)} | {show(log_ps)} | {seconds:.0f} |", flush=True)
        show_samples(run.model, np.load(arguments.data)["gene"], arguments.samples)


if __name__ == "__main__":
    main()
