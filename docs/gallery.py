"""Pictures of every model for its page in docs/zoo: reconstructions, samples and traversals, one below the other.

    python docs/gallery.py --root FOLDER_OF_MNIST [--runs FOLDER] [--models NAME ...]

Each model is trained for a few epochs, seed 0, by the command that its page then names, in RUNS/NAME; a run that is
there is not trained again. The pictures are drawn from its best checkpoint by the present code, so a change of their
look needs no training. They are joined to docs/zoo/img/NAME.png, and the part of the page between the marks ``gallery``
is written anew. Models of counts, sequences and sounds need files that are not bundled: --counts, --vowels and
--sounds; they are left out without them.
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vaezoo import pictures
from vaezoo.callbacks.images import describe_model
from vaezoo.callbacks.progress import describe_training
from vaezoo.runs.checkpoint import find_checkpoint, read_checkpoint
from vaezoo.runs.load import check_config
from vaezoo.runs.trained import TrainedRun, load_run
from vaezoo.seeding import isolated
from vaezoo.types import Batch

REPO = Path(__file__).resolve().parent.parent
ZOO = REPO / "docs" / "zoo"
CAPTIONS = {
    "reconstructions": "reconstructions: inputs, and below each the {point} of {density} at its code",
    "samples": "samples: z ~ p(z)",
    "traversals": "traversals: one dimension of z moves, in standard deviations of the {source}; "
    "{mark}: nearest to the code",
}
WIDTH, LARGEST = 800, 100_000  # pixels of a row of large images, such as texts; bytes of a file
NUM_ROWS, NUM_LARGE, LARGE_SIDE = 4, 6, 128  # rows of a table; images with a side above the last number, in pixels
NUM_EXAMPLES = 100  # of which the labels and the use of the dimensions are taken
PAIRS = "data=digit_labels trainer.max_epochs=60 optimizer.lr=3e-3 model.latent_dim=16"
TABLE = "data=tables/breast_cancer data.holes=0.3 trainer.max_epochs=50"
COUNTS = "data=array data.path={counts} data.key=counts trainer.max_epochs=100"
FRAMES = (
    "data=sequences data.path={vowels} data.labels=speaker trainer.max_epochs=40 data.batch_size=64 optimizer.lr=6e-3"
)
TEXT = "data=topics data.vocabulary_size=1400 optimizer.lr=2e-3 scheduler=cosine trainer.max_epochs=20"
MNIST = "data=mnist trainer.max_epochs=5"
BEST_LOSS = "callbacks.checkpoint_best.monitor=val/loss callbacks.checkpoint_best.mode=min"
DATA = {
    **dict.fromkeys(("multimodal_vae", "mmvae", "mopoe_vae", "jmvae", "mvtcae"), PAIRS),
    **dict.fromkeys(("missing_iwae", "not_miwae", "hi_vae"), TABLE),
    **dict.fromkeys(("count_vae", "mult_vae", "prod_lda"), COUNTS),
    **dict.fromkeys(("wae", "swae"), f"{MNIST} {BEST_LOSS}"),
    **dict.fromkeys(("vrnn", "deep_kalman"), FRAMES),
    **dict.fromkeys(("text_vae", "text_cvae"), TEXT),
    "conditional_prior_vae": f"{MNIST} data.condition=upper",
    "m2_vae": "data=digits data.num_labels=50 trainer.max_epochs=25 optimizer.lr=3e-3",
    "audio_vae": "data=audio data.root={sounds} data.seconds=0.105 data.features=log_mel trainer.max_epochs=10",
}


def train(words: list[str], folder: Path) -> None:
    """Run a command in a folder; nothing happens if it has completed there before."""
    command = [sys.executable, str(REPO / "run.py"), *words, "resume=auto", f"hydra.run.dir={folder}"]
    subprocess.run(command, env=os.environ | {"WANDB_MODE": "offline"}, check=True, stdout=subprocess.DEVNULL)


def draw(run: TrainedRun, subtitle: str) -> tuple[list[str], pictures.Picture]:
    """Return the kinds of pictures that a model allows, and the pictures one below the other with one heading.

    Args:
        run: the trained run.
        subtitle: model, data, seed and length of the training.
    """
    display = pictures.Display(run.data, max_width=WIDTH)
    loader = run.data.val_dataloader()
    batch = Batch(*map(torch.cat, zip(*pictures.first_batches(loader, NUM_EXAMPLES), strict=True)))
    if not display.can_draw(batch.x[:1]):
        return [], np.empty((0, 0, 3), np.uint8)
    is_table = display.to_cells is not None
    height, width = (0, 0) if is_table else display(batch.x[:1]).shape[2:]
    per_row = WIDTH // width if max(height, width) > LARGE_SIDE else pictures.NUM_COLUMNS
    num = NUM_ROWS if is_table else max(per_row, NUM_LARGE // per_row * per_row)
    num_samples = 20 if pictures.takes_labels(run.model) and not is_table else num
    is_small = num == num_samples == pictures.NUM_COLUMNS and height < LARGE_SIDE / 2 and height <= 2 * width
    num_samples *= 1 + is_small
    with torch.no_grad(), isolated(run.model.device, 0, "gallery"):
        found = {"reconstructions": pictures.reconstructions(run.model, batch, num, "", display)}
        found["samples"] = pictures.samples(run.model, batch, num_samples, "", display)
        axes = pictures.measure_latent_axes(run.model, batch)
        if axes is not None:
            rows = 1 if is_table else 3 if height > min(2 * width, LARGE_SIDE) else 6
            found["traversals"] = pictures.traversals(run.model, batch, axes, "", rows, display)
    names = {
        "point": display.points.removesuffix("s"),
        "density": pictures.describe_density(run.model),
        "mark": "*" if is_table else "framed",
        "source": axes.source if axes is not None else "",
    }
    parts = [
        pictures.add_caption(picture[pictures.heading_height(picture) :], CAPTIONS[kind].format(**names))
        for kind, picture in found.items()
    ]
    return list(found), pictures.add_heading(pictures.stack(parts), subtitle)


def open_run(folder: Path, root: str | None) -> tuple[TrainedRun, str]:
    """Return a trained run, and the words for it: model, data, seed and length of the training.

    Args:
        folder: the folder of the run.
        root: folder of the data set's files; None: the one of the training.
    """
    path = find_checkpoint(folder)
    checkpoint = read_checkpoint(path)
    config = check_config(checkpoint, path)
    if root is not None:
        config["data"]["root"] = root
    run = load_run(config, path, checkpoint)
    caption = describe_training(checkpoint["global_step"], checkpoint["vaezoo_state"]["epochs"])
    return run, describe_model(run.model, run.data, caption)


def save(picture: pictures.Picture, file: Path) -> None:
    """Write a .png below the largest size: if it is larger, with fewer colors, then smaller."""
    file.parent.mkdir(exist_ok=True)
    image, colors = Image.fromarray(picture), 512
    image.save(file, optimize=True)
    while file.stat().st_size > LARGEST:
        if colors > 32:
            colors //= 2
        else:
            image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
        image.quantize(colors, dither=Image.Dither.NONE).save(file, optimize=True)


def write_page(name: str, command: str, kinds: list[str], folder: Path) -> None:
    """Write the picture with its caption between the marks on the model's page."""
    summary = json.loads((folder / "summary.json").read_text())
    test, noun = summary["test"], summary["units"]["elbo"]["unit"] if "elbo" in summary["test"] else ""
    numbers = f"test ELBO {test['elbo']:.1f} {noun}, KL {test['kl']:.1f}" if "elbo" in test else ""
    figure = f"![{', '.join(kinds)}](img/{name}.png)"
    caption = f"*From top to bottom: {', '.join(kinds)}{'; ' + numbers if numbers else ''} (one seed).*"
    marks = f"<!-- gallery: {name} -->", "<!-- end of gallery -->"
    body = "\n\n".join([marks[0], figure, caption, f"```bash\n{command}\n```", marks[1]])
    page = ZOO / f"{name}.md"
    pattern = re.compile(f"{re.escape(marks[0])}(.*{re.escape(marks[1])})?", re.DOTALL)
    page.write_text(pattern.sub(lambda _: body, page.read_text(), count=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="folder of MNIST")
    parser.add_argument("--counts", help="pbmc_counts.npz")
    parser.add_argument("--vowels", help="japanese_vowels.npz")
    parser.add_argument("--sounds", help="a folder of .wav files")
    parser.add_argument("--runs", type=Path, help="folder of the runs; a temporary one if it is not given")
    parser.add_argument("--models", nargs="*", help="all if not given")
    arguments = parser.parse_args()
    files = {name: getattr(arguments, name) for name in ("counts", "vowels", "sounds")}
    with contextlib.ExitStack() as stack:
        runs = arguments.runs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in arguments.models or sorted(file.stem for file in (REPO / "conf" / "model").glob("*.yaml")):
            chosen = DATA.get(name, MNIST)
            missing = [key for key, value in files.items() if f"{{{key}}}" in chosen and value is None]
            if missing:
                print(f"{name}: left out, it needs --{missing[0]}")
                continue
            shown = chosen.format(counts="pbmc_counts.npz", vowels="japanese_vowels.npz", sounds="WAVS")
            own = [f"data.root={arguments.root}"] if "data=mnist" in chosen else []
            folder = runs.absolute() / name
            words = f"model={name} {chosen.format(**files)} threads=1".split()
            train([*words, *own, "callbacks.images.every_n_epochs=1000"], folder)
            kinds, picture = draw(*open_run(folder, arguments.root if own else None))
            if not kinds:
                print(f"{name}: left out, examples of its data cannot be drawn", flush=True)
                continue
            save(picture, ZOO / "img" / f"{name}.png")
            write_page(name, f"python run.py model={name} {shown} threads=1", kinds, folder)
            print(
                f"{name}: {', '.join(kinds)}, {(ZOO / 'img' / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True
            )


if __name__ == "__main__":
    main()
