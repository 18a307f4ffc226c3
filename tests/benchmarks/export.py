"""The table of docs/export.md: which models can be exported, and how far the files are from torch.

``python tests/benchmarks/export.py`` trains every model of conf/model for one epoch on the digits, and one model for
each further kind of data, network and likelihood. It exports them and prints the table; ``--write`` puts it into the
docs.
"""

import argparse
import contextlib
import io
import json
import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

import vaezoo.cli
from vaezoo.config_folder import config_folder

DOCS = Path(__file__).resolve().parents[2] / "docs" / "export.md"
FILES = {"ONNX": ("encoder.onnx", "decoder.onnx"), "torch.export": ("encoder.pt2", "decoder.pt2")}
SHORT = ["trainer.max_epochs=1", "logger=none", "callbacks.images=null", "trainer=cpu"]
FEW = [f"trainer.limit_{name}_batches=2" for name in ("train", "val", "test")]
MODELS = sorted(path.stem for path in Path(config_folder(), "model").glob("*.yaml"))
RGB = ["data=sprites", "data.colors=3", "data.size=32", "data.test_size=200", "data.binarize=none", *FEW]
SMALL = ["model.encoder.channels=[8,16]", "model.decoder.channels=[8,16]"]
HOLES = ["data=tables/wine", "data.holes=0.2"]
COUNTS = ["data=array", "data.path=FOLDER/counts.npy"]
# What is not trained on images of digits.
DATA = {
    "count_vae": COUNTS,
    "hi_vae": HOLES,
    "missing_iwae": HOLES,
    "mult_vae": COUNTS,
    "not_miwae": HOLES,
    "prod_lda": COUNTS,
}
# Further rows: what is exported, and the command that trains it.
OTHERS = {
    "`mlp_vae`, images as bytes, mixture of logistics": ["model/likelihood=mixture_of_discretized_logistics"],
    "`conv_vae`, RGB, mixture over all channels": ["model=conv_vae", "model/likelihood=auto", *RGB],
    "`conv_vae`, RGB, maps (`spatial`)": [
        "model=conv_vae", "model/encoder=spatial", "model/decoder=spatial", *SMALL, "model.latent_dim=[4,8,8]",
        "model/likelihood=auto", *RGB,
    ],
    "`mlp_vae`, `resnet`": ["model/encoder=resnet", "model/decoder=resnet", *SMALL],
    "`mlp_vae`, `burgess`": ["model/encoder=burgess", "model/decoder=burgess"],
    "`mlp_vae`, table of real columns with holes": ["data=tables/wine", "data.holes=0.2"],
    "`miwae`, table of mixed columns with holes": ["model=miwae", "data=tables/diabetes", "data.holes=0.2"],
    "`mlp_vae`, text": ["data=topics"],
    "`mlp_vae`, prior `label_normal`": ["model/prior=label_normal", "model.prior.num_classes=10"],
    **{
        f"`mlp_vae`, `{name}`": [f"model/likelihood={name}"]
        for name in (
            "categorical", "continuous_bernoulli", "discretized_logistic", "laplace", "normal", "normal_optimal",
            "normal_per_dimension", "normal_per_pixel", "normal_shared",
        )
    },
}  # fmt: skip


def call(words: list[str]) -> str:
    """Run a command in this process and return what went wrong; empty if nothing did."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        try:
            vaezoo.cli.main(words)
        except SystemExit as leave:
            lines = err.getvalue().strip().splitlines()
            return (lines[-1] if lines else f"exit code {leave.code}") if leave.code else ""
    return ""


def make_row(title: str, words: list[str], folder: Path) -> str:
    """Train and export one model, and return its line of the table."""
    run, out = folder / "run", folder / "run" / "export"
    np.save(folder / "counts.npy", np.random.default_rng(0).poisson(np.arange(12), (200, 12)))
    words = [word.replace("FOLDER", str(folder)) for word in words]
    if error := call([*words, *SHORT, f"hydra.run.dir={run}"]):
        return f"| {title} | | | not trained: {error} | |"
    error = call(["task=export", f"run={run}", f"hydra.run.dir={out}"])
    if not (out / "export.json").exists():
        return f"| {title} | | | not exported: {error} | |"
    files = json.loads((out / "export.json").read_text())["files"]
    functions = json.loads((out / "model.json").read_text())["functions"]
    outputs = [", ".join(tensor["name"] for tensor in functions[name]["outputs"]) for name in ("encoder", "decoder")]
    cells = []
    for names in FILES.values():
        wrong = {name: files[name] for name in names if not files[name]["works"]}
        broken = [f"{name}: {file['reason'] or format(file['difference'], '.0e')}" for name, file in wrong.items()]
        worst = max(files[name]["difference"] or 0.0 for name in names)
        cells.append("; ".join(broken) or ("equal" if worst == 0 else f"{worst:.0e}"))
    return f"| {title} | {' | '.join([*outputs, *cells])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table into docs/export.md")
    parser.add_argument("--only", default="", help="a regular expression: only rows whose title contains it")
    arguments = parser.parse_args()
    rows = {f"`{name}`": [f"model={name}", *DATA.get(name, [])] for name in MODELS} | OTHERS
    table = ["| model | encoder gives | decoder gives | ONNX | torch.export |", "|---|---|---|---|---|"]
    for title, words in rows.items():
        if re.search(arguments.only, title):
            with tempfile.TemporaryDirectory() as folder:
                table.append(make_row(title, words, Path(folder)))
            print(table[-1], flush=True)
    if arguments.write:
        text = DOCS.read_text(encoding="utf-8")
        marks = re.compile(r"(<!-- table: .*? -->\n).*?(<!-- end of the table -->)", re.DOTALL)
        text = marks.sub(lambda found: "\n".join([found[1] + table[0], *table[1:], found[2]]), text)
        DOCS.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
