"""Pictures of every model for its page in docs/zoo: reconstructions, samples and traversals, side by side.

    python docs/gallery.py --root FOLDER_OF_MNIST [--runs FOLDER] [--models NAME ...]

Each model is trained for a few epochs, seed 0, by the command that its page then names, in RUNS/NAME; a run that is
there is not trained again. The pictures are those that the run itself has drawn at its end. They are joined to
docs/zoo/img/NAME.png, and the part of the page between the marks ``gallery`` is written anew. Models of counts,
sequences and sounds need files that are not bundled: --counts, --vowels and --sounds; they are left out without them.
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

from PIL import Image

REPO = Path(__file__).resolve().parent.parent
ZOO = REPO / "docs" / "zoo"
KINDS = ("reconstructions", "samples", "traversals")
HEIGHT, GAP, LARGEST = 300, 12, 100_000  # pixels, pixels, bytes
PAIRS = "data=digit_labels trainer.max_epochs=60 optimizer.lr=3e-3 model.latent_dim=16"
TABLE = "data=tables/breast_cancer data.holes=0.3 trainer.max_epochs=50"
COUNTS = "data=array data.path={counts} data.key=counts trainer.max_epochs=100"
FRAMES = (
    "data=sequences data.path={vowels} data.labels=speaker trainer.max_epochs=40 data.batch_size=64 optimizer.lr=6e-3"
)
TEXT = "data=topics data.vocabulary_size=1400 optimizer.lr=2e-3 scheduler=cosine trainer.max_epochs=20"
MNIST = "data=mnist trainer.max_epochs=5"
DATA = {
    **dict.fromkeys(("multimodal_vae", "mmvae", "mopoe_vae", "jmvae", "mvtcae"), PAIRS),
    **dict.fromkeys(("missing_iwae", "not_miwae", "hi_vae"), TABLE),
    **dict.fromkeys(("count_vae", "mult_vae", "prod_lda"), COUNTS),
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


def join(files: list[Path]) -> Image.Image:
    """Return pictures side by side, white behind them, scaled to one height."""
    pictures = []
    for file in files:
        with Image.open(file) as picture:
            # Rows of a table have their names beside them, which could not be read in the usual height.
            height = min(HEIGHT if picture.height <= 3 * HEIGHT else 2 * HEIGHT, picture.height * 2)
            size = (max(1, round(picture.width * height / picture.height)), height)
            resampling = Image.Resampling.LANCZOS if height < picture.height else Image.Resampling.NEAREST
            pictures.append(picture.convert("RGB").resize(size, resampling))
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    joined = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    x = 0
    for picture in pictures:
        joined.paste(picture, (x, 0))
        x += picture.width + GAP
    return joined


def save(picture: Image.Image, file: Path) -> None:
    """Write a .png below the largest size: with fewer colors, then smaller."""
    file.parent.mkdir(exist_ok=True)
    colors = 256
    while True:
        picture.quantize(colors, dither=Image.Dither.NONE).save(file, optimize=True)
        if file.stat().st_size <= LARGEST:
            return
        if colors > 16:
            colors //= 4
        else:
            picture = picture.resize((picture.width * 4 // 5, picture.height * 4 // 5), Image.Resampling.LANCZOS)


def newest(folder: Path, kind: str) -> list[Path]:
    """Return the last picture of a kind that a run has drawn, in a list; empty if there is none."""
    return sorted((folder / "panels").glob(f"{kind}-*.png"))[-1:]


def write_page(name: str, command: str, kinds: list[str], folder: Path) -> None:
    """Write the picture with its caption between the marks on the model's page."""
    summary = json.loads((folder / "summary.json").read_text())
    test, noun = summary["test"], summary["units"]["elbo"]["unit"] if "elbo" in summary["test"] else ""
    numbers = f"test ELBO {test['elbo']:.1f} {noun}, KL {test['kl']:.1f}" if "elbo" in test else ""
    figure = f"![{', '.join(kinds)}](img/{name}.png)"
    caption = f"*From left to right: {', '.join(kinds)}{'; ' + numbers if numbers else ''} (one seed).*"
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
            found = {kind: newest(folder, kind) for kind in KINDS}
            kinds = [kind for kind, pictures in found.items() if pictures]
            if not kinds:
                print(f"{name}: left out, examples of its data cannot be drawn", flush=True)
                continue
            save(join([found[kind][0] for kind in kinds]), ZOO / "img" / f"{name}.png")
            write_page(name, f"python run.py model={name} {shown} threads=1", kinds, folder)
            print(
                f"{name}: {', '.join(kinds)}, {(ZOO / 'img' / f'{name}.png').stat().st_size / 1000:.0f} kB", flush=True
            )


if __name__ == "__main__":
    main()
