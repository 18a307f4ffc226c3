"""Image to caption and caption to image: the multimodal VAEs and what a reader would try first, on one test set.

    python tests/benchmarks/modalities.py glyph_names --epochs 20 --seeds 3
    python tests/benchmarks/modalities.py digit_labels --epochs 60 --lr 3e-3

Each row is the mean of the seeds with its 95 % interval (Student's t). All log p(x) are in nats per pair, of the test
pairs, by importance sampling. The columns:

* joint, image, text: log p of the pair, of the image alone, of the text alone;
* text given image: the share of the test pairs whose text, filled in from the image, is exactly right;
* image given text: the share of the images, drawn given the text, that the judge recognizes as that text. The judge is
  a classifier of real training images; its share of the real test images is the ceiling, and the baseline of the other
  direction.
"""

import argparse
import ast
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import vaezoo
from vaezoo.config_folder import config_folder
from vaezoo.data import DigitLabels, GlyphNames, SpriteCaptions
from vaezoo.data.pairs import ImagePairs
from vaezoo.inference.importance_sampling import estimate_log_marginal
from vaezoo.inference.imputation import impute
from vaezoo.report.statistics import interval

DATA = {"glyph_names": GlyphNames, "sprite_captions": SpriteCaptions, "digit_labels": DigitLabels}
MODELS = ("multimodal_vae", "mmvae", "mopoe_vae", "jmvae", "mvtcae")
COLUMNS = ("elbo", "joint", "image", "text", "text given image", "image given text", "seconds")


def properties(text: str) -> tuple[str, str]:
    """Return the two properties of a text that the judge tells apart, of which combinations are held out."""
    for word in (" with ", " at the "):
        if word in text:
            first, _, second = text.partition(word)
            return first, second
    return text, ""


class Judge:
    """A classifier of real images: a multi-layer perceptron with a softmax for each of the two properties."""

    def __init__(self, data: ImagePairs, seed: int, epochs: int = 15):
        torch.manual_seed(seed)
        texts = [properties(text) for text in data.keys("train")[data.part]]
        self.values = [sorted({pair[i] for pair in texts}) for i in (0, 1)]
        targets = self.targets(texts)
        size = data.mask("image").sum()
        sizes = [len(values) for values in self.values]
        self.net = nn.Sequential(
            nn.Linear(size, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, sum(sizes))
        )
        self.sizes, self.size = sizes, size
        optimizer = torch.optim.AdamW(self.net.parameters(), 1e-3, weight_decay=1e-2)
        for _ in range(epochs):
            x = torch.cat([batch.x for batch in data.batches(data.train, 500, train=True)])[:, :size]
            for rows in torch.randperm(len(x)).split(128):
                loss = sum(
                    F.cross_entropy(part, t) for part, t in zip(self.logits(x[rows]), targets[rows].T, strict=True)
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    def targets(self, texts: list[tuple[str, str]]) -> Tensor:
        """Return the numbers of the properties, (N, 2); -1: the training images do not have it."""
        numbers = [{value: i for i, value in enumerate(values)} for values in self.values]
        return torch.tensor([[numbers[i].get(pair[i], -1) for i in (0, 1)] for pair in texts])

    def logits(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.net(image).split(self.sizes, -1)

    @torch.no_grad()
    def accuracy(self, image: Tensor, texts: list[str]) -> float:
        """Return the share of flat images whose two properties are those of their texts."""
        found = torch.stack([part.argmax(-1) for part in self.logits(image)], 1)
        return float((found == self.targets([properties(text) for text in texts])).all(1).double().mean())


def nearest(data: ImagePairs, image: Tensor, texts: list[str]) -> float:
    """Return the share of test images whose nearest training image has the same text."""
    train = torch.cat([batch.x for batch in data.batches(data.train, 500, train=True)])
    closest = torch.cdist(image, train[:, : image.shape[1]]).argmin(1)
    found = data.keys("train")[data.part][closest.numpy()]
    return float(np.mean(found == np.array(texts, dtype=object)))


def measure(
    model: vaezoo.models.LatentVariableModel, data: ImagePairs, x: Tensor, texts: list[str], judge: Judge
) -> dict:
    """Return the numbers of a trained model on test pairs x, (N, D), all of them in their parts."""
    found = {}
    for name, hidden in (("joint", None), ("image", data.part), ("text", "image")):
        found[name] = estimate_log_marginal(model, data.hidden(x, hidden), None, num_samples=SAMPLES).mean
    groups = data.grouped_entries
    filled = impute(model, data.hidden(x, data.part), None, data.is_category, DRAWS, 1, 0, 0, groups)
    found["text given image"] = float(np.mean([a == b for a, b in zip(data.texts(filled.best), texts, strict=True)]))
    drawn = impute(model, data.hidden(x, "image"), None, data.is_category, DRAWS, 1, 0, 0, groups).draws[0]
    found["image given text"] = judge.accuracy(drawn[:, : judge.size], texts)
    return found


SAMPLES, DRAWS = 500, 50  # importance samples of log p(x), and of what is filled in


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=DATA)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--latent", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200, help="test pairs of the measurements, evenly spaced")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--options", nargs="*", default=[], help="further options, KEY=LITERAL, such as free_bits=0.1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{arguments.data}, torch {torch.__version__}, configs of {config_folder()}", flush=True)
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in range(arguments.seeds):
        data = DATA[arguments.data](split_seed=0, seed=seed, val_size=0.05)
        data.setup()
        all_x, all_texts = (
            torch.cat([batch.x for batch in data.test_dataloader()]),
            data.keys("test")[data.part].tolist(),
        )
        which = torch.arange(min(arguments.pairs, len(all_x))) * len(all_x) // min(arguments.pairs, len(all_x))
        x, texts = all_x[which], [all_texts[i] for i in which.tolist()]
        start = time.process_time()
        judge = Judge(data, seed)
        size = judge.size
        own = {
            "text given image": judge.accuracy(x[:, :size], texts),
            "image given text": judge.accuracy(x[:, :size], texts),
        }
        rows.setdefault("classifier of images", []).append(own | {"seconds": time.process_time() - start})
        rows.setdefault("nearest image", []).append({"text given image": nearest(data, x[:, :size], texts)})
        for name in arguments.models:
            start = time.process_time()
            words = {key: ast.literal_eval(value) for key, value in (text.split("=", 1) for text in arguments.options)}
            options = {"data.val_size": 0.05, **words}
            run = vaezoo.fit(
                arguments.data, name, verbose=False, seed=seed, threads=1, lr=arguments.lr,
                max_epochs=arguments.epochs, latent_dim=arguments.latent, **options,
            )  # fmt: skip
            values = {"elbo": run.metrics["test"]["elbo"], "seconds": time.process_time() - start}
            rows.setdefault(name, []).append(values | measure(run.model, data, x, texts, judge))
            print(seed, name, {key: round(value, 3) for key, value in rows[name][-1].items()}, flush=True)
    print(f"\n| model | {' | '.join(COLUMNS)} |\n|---{'|---' * len(COLUMNS)}|")
    for name, values in rows.items():
        cells = [str(interval([row[c] for row in values])) if c in values[0] else "" for c in COLUMNS]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
