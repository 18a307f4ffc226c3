"""Sentences in nats per token: ``python tests/benchmarks/text.py``.

It trains ``text_vae`` and, with the same decoder, language models without z, each with three seeds, and compares them
with two models of counts: the unigram, and the bigram of Kneser & Ney. All score the same test sentences with the same
vocabulary, ``<end>`` included. A value of a VAE is -ELBO / tokens, an upper bound; the others are exact.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import vaezoo.cli
from vaezoo.data import TextData, Topics
from vaezoo.models import TextVAE
from vaezoo.report.statistics import interval
from vaezoo.trace import Trace

SHORT = ["callbacks.images=null", "logger=none", "threads=1", "trainer=cpu"]
TRAINING = ["optimizer.lr=2e-3", "scheduler=cosine", "trainer.max_epochs=20"]


class LanguageModel(TextVAE):
    """The decoder of a text_vae alone: z is 0 in every pass, so the "ELBO" is the exact log p(x)."""

    def forward(self, x: Tensor, context: Tensor | None = None, num_samples: int | None = None) -> Trace:
        z = torch.zeros(num_samples or 1, len(x), *self.latent_shape, device=x.device)
        return Trace(x, self.decoder(z, context), (), context)


def unigram(train: list[list[int]], num_tokens: int) -> np.ndarray:
    """Return P(token), (V,), with half a token added to each count."""
    counts = np.bincount(np.concatenate(train), minlength=num_tokens) + 0.5
    return counts / counts.sum()


def kneser_ney(train: list[list[int]], num_tokens: int) -> np.ndarray:
    """Return P(token | previous token), (V + 1, V); the previous token of the first one is V.

        P(w | u) = max(c(u, w) - d, 0) / c(u) + d N(u, .) / c(u) P(w),  P(w) likewise from N(., w), the numbers of
        different tokens before w, and the uniform distribution;  d = n_1 / (n_1 + 2 n_2)

    Chen & Goodman 1999, An Empirical Study of Smoothing Techniques for Language Modeling,
    https://doi.org/10.1006/csla.1999.0128, interpolated, with one discount for each order.
    """
    counts = np.zeros((num_tokens + 1, num_tokens))
    for row in train:
        np.add.at(counts, ([num_tokens, *row[:-1]], row), 1)

    def smooth(counts: np.ndarray, lower: np.ndarray) -> np.ndarray:
        discount = (counts == 1).sum() / ((counts == 1).sum() + 2 * (counts == 2).sum())
        total = counts.sum(-1, keepdims=True)
        spare = np.where(total > 0, discount * (counts > 0).sum(-1, keepdims=True), 1)
        return (np.maximum(counts - discount, 0) + spare * lower) / np.maximum(total, 1)

    continuation = smooth((counts > 0).sum(0), np.full(num_tokens, 1 / num_tokens))
    return smooth(counts, continuation)


def rows(x: Tensor) -> list[list[int]]:
    """Return the tokens of each sentence, without padding."""
    return [row[row >= 0].tolist() for row in x]


def count_models(data: TextData) -> dict[str, float]:
    """Return nats per token of the models of counts on the test sentences."""
    num_tokens, train, test = len(data.vocabulary), rows(data.train.x[:]), rows(data.test.x[:])
    one, two = unigram(train, num_tokens), kneser_ney(train, num_tokens)
    tokens = np.concatenate(test)
    before = np.concatenate([[num_tokens, *row[:-1]] for row in test])
    return {"unigram": -np.log(one[tokens]).mean(), "Kneser-Ney bigram": -np.log(two[before, tokens]).mean()}


def train(words: list[str], seed: int) -> dict[str, float]:
    """Train a model from the command line; return its test numbers and the seconds of processor time."""
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        vaezoo.cli.main([*words, *SHORT, f"seed={seed}", f"hydra.run.dir={folder}/run"])
        test = json.loads(Path(folder, "run", "summary.json").read_text())["test"]
    return test | {"seconds": time.process_time() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--vocabulary-size", type=int, default=1400)
    parser.add_argument("words", nargs="*", help="further words of every command")
    arguments = parser.parse_args()
    data = Topics(val_size=0.1, test_size=0.1, vocabulary_size=arguments.vocabulary_size)
    data.setup()
    print("| model | nats/token | KL | active units | seconds |\n|---|---|---|---|---|")
    for name, value in count_models(data).items():
        print(f"| {name} | {value:.3f} | | | |", flush=True)
    size = f"data.vocabulary_size={arguments.vocabulary_size}"
    shared = ["model=text_vae", "data=topics", size, *TRAINING, *arguments.words]
    language = ["model._target_=text.LanguageModel", "allow_packages=[text]", "model.free_bits=0"]
    contenders = {
        "language model, no word dropout": [*shared, *language, "model.likelihood.word_dropout=0"],
        "language model, word dropout as `text_vae`": [*shared, *language],
        "`text_vae`": shared,
    }
    for name, words in contenders.items():
        found = [train(words, seed) for seed in range(arguments.seeds)]
        names = ("nats_per_token", "kl", "active_units", "seconds")
        nats, kl, active, seconds = (interval([run.get(key, 0.0) for run in found]) for key in names)
        cells = [f"{nats.mean:.3f} ± {nats.half:.3f}", f"{kl}", f"{active}", f"{seconds.mean:.0f}"]
        print(f"| {' | '.join([name, *cells])} |", flush=True)


if __name__ == "__main__":
    import text  # so that the class has a name that a config can give

    text.main()
