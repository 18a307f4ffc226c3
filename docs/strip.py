"""The pictures at the top of the README: one row for each of four models, from trained runs.

    python docs/strip.py --root FOLDER_OF_MNIST_AND_FASHIONMNIST [--runs FOLDER]

Each model is trained by the command in ``ROWS``, in RUNS/NAME; a run that is there is not trained again. The picture is
``.github/strip.png``.
"""

import argparse
import contextlib
import tempfile
from pathlib import Path

import numpy as np
import torch
from gallery import REPO, open_run, save, train
from torch import Tensor

from vaezoo import pictures
from vaezoo.runs.trained import TrainedRun
from vaezoo.seeding import isolated
from vaezoo.types import Batch

COLUMNS, TEXTS, SIDE = 14, 3, 56  # images and sentences in a row; pixels of an image
ROWS = {
    "clothes": (
        "model=conv_vae data=fashion_mnist data.binarize=none model/likelihood=normal_optimal trainer.max_epochs=6",
        "FashionMNIST, conv_vae: validation images, and below each the mean of p(x | z) at its code",
    ),
    "digits": (
        "model=conv_vae data=mnist trainer.max_epochs=5",
        "MNIST, conv_vae: means of p(x | z) for z drawn from the prior",
    ),
    "sprites": (
        "model=beta_tc_vae model/encoder=burgess model/decoder=burgess model.latent_dim=10 data=sprites "
        "data.batch_size=64 trainer.max_epochs=1 trainer.max_steps=5000",
        "sprites, beta_tc_vae: three dimensions of one code move from -2 to 2 standard deviations of the prior",
    ),
    "text": (
        "model=text_vae data=topics data.vocabulary_size=1400 optimizer.lr=2e-3 scheduler=cosine trainer.max_epochs=20",
        "sentences of Python's help, text_vae: draws x ~ p(x | z) for z drawn from the prior",
    ),
}  # fmt: skip


def examples(run: TrainedRun, num: int) -> Batch:
    """Return the first examples of the validation set."""
    batches = pictures.first_batches(run.data.val_dataloader(), num)
    return Batch(*(torch.cat(parts)[:num] for parts in zip(*batches, strict=True)))


def images_of(run: TrainedRun, name: str) -> Tensor:
    """Return the images of a row, (N, C, H, W): as many as there are columns, or a multiple."""
    model, data = run.model, run.data
    if name == "clothes":
        x, y = examples(run, COLUMNS)
        return torch.cat([data.to_images(x), data.to_images(data.represent(model.autoencode(x, y)))])
    if name == "digits":
        return data.to_images(data.represent(model.sample(COLUMNS)))
    if name == "text":
        return data.to_images(model.sample(TEXTS).sample())
    batch = examples(run, 100)
    axes = pictures.measure_latent_axes(model, batch)
    assert axes is not None
    z = model.encode(batch.x[:1]).repeat(3, COLUMNS, 1)
    for row, d in enumerate(axes.usage.argsort(descending=True)[:3].tolist()):
        z[row, :, d] = axes.center[d] + torch.linspace(-2, 2, COLUMNS) * axes.scale[d]
    return data.to_images(data.represent(model.decode(z.flatten(0, 1))))


def draw(run: TrainedRun, name: str, caption: str) -> pictures.Picture:
    """Return a row with its caption."""
    with torch.no_grad(), isolated(run.model.device, 1, "strip"):
        images = pictures.to_rgb(images_of(run, name))
    if name != "text" and images.shape[1] < SIDE:
        factor = SIDE // images.shape[1]
        images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    grid = pictures.make_grid(images, TEXTS if name == "text" else COLUMNS)
    return pictures.add_caption(grid, caption)


def main() -> None:
    """Train, draw and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST and FashionMNIST")
    parser.add_argument("--runs", type=Path, help="folder of the runs; a temporary one if it is not given")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        runs = arguments.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = []
        for name, (words, caption) in ROWS.items():
            own = [f"data.root={arguments.root}"] * ("mnist" in words)
            train([*words.split(), "threads=1", *own, "callbacks.images=null"], runs.absolute() / name)
            run, _ = open_run(runs / name, arguments.root if own else None)
            rows.append(draw(run, name, caption))
        save(pictures.stack([np.asarray(row) for row in rows]), REPO / ".github" / "strip.png")


if __name__ == "__main__":
    main()
