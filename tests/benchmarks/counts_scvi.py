"""scVI by scvi-tools on the cells of ``counts.py``, in the same unit: nats per cell given its size.

    pip install scvi-tools
    python tests/benchmarks/counts_scvi.py --data FOLDER/pbmc_counts.npz [--seeds 3]

scVI is given the observed size of each cell and a negative binomial, as ``count_vae``; the other options are the
defaults of scvi-tools, with early stopping by the ELBO of the validation cells and the same division of the cells.
scvi-tools is no dependency of vaezoo.
"""

import argparse
import time

import anndata
import numpy as np
import scvi

from vaezoo.data import ArrayData
from vaezoo.report.statistics import interval


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="an .npz file with counts (N, D)")
    parser.add_argument("--key", default="counts", help="the array in the file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=400)
    arguments = parser.parse_args()
    data = ArrayData(arguments.data, key=arguments.key)
    data.setup()
    rows = [data.rows[name].numpy() for name in ("train", "val", "test")]
    cells = anndata.AnnData(np.load(arguments.data)[arguments.key].astype(np.float32))
    elbos, log_ps, start = [], [], time.process_time()
    for seed in range(arguments.seeds):
        scvi.settings.seed = seed
        scvi.model.SCVI.setup_anndata(cells)
        model = scvi.model.SCVI(cells, gene_likelihood="nb", use_observed_lib_size=True)
        model.train(
            max_epochs=arguments.epochs, early_stopping=True, accelerator="cpu", enable_progress_bar=False,
            datasplitter_kwargs={"external_indexing": rows}, logger=None,
        )  # fmt: skip
        elbos.append(float(model.get_elbo(indices=rows[2])))
        log_ps.append(float(model.get_marginal_ll(indices=rows[2], n_mc_samples=1000)))
        print(seed, elbos[-1], log_ps[-1], len(model.history["elbo_validation"]), "epochs", flush=True)
    seconds = (time.process_time() - start) / arguments.seeds
    print(f"| scVI by scvi-tools {scvi.__version__} | {interval(elbos)} | {interval(log_ps)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
