"""Sounds: `audio_vae` beside probabilistic PCA on log spectra of speech, and the formants of synthesized vowels.

    python tests/benchmarks/sound.py speech FOLDER [--seeds 3] [--epochs 20]
    python tests/benchmarks/sound.py vowels [--seeds 3] [--epochs 20]

``speech``: log mel energies of all .wav files below FOLDER, 40 bands every 10 ms, in frames of 0.105 s (9 steps), and
the test ELBO in nats per frame. Whole files are divided into the sets. Real speech with a free licence is in the Debian
package asterisk-core-sounds-en-wav (568 files, 25 minutes, one speaker, 8 kHz; CC BY-SA 3.0):
``apt-get install asterisk-core-sounds-en-wav`` puts it below /usr/share/asterisk/sounds/en_US_f_Allison.

``vowels``: the controlled test. Vowels are synthesized from a pulse train of random pitch and three resonances, the
first two of random frequency (Klatt 1980, https://doi.org/10.1121/1.383940). R^2 of these formants by linear regression
from the codes of test sounds.
"""

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

import vaezoo
from vaezoo.data import AudioData
from vaezoo.data.mel import log_mel
from vaezoo.report.statistics import interval

RATE, SECONDS, MELS = 8000, 0.105, 40
NETS = {
    f"model.{part}.{key}": value
    for part in ("encoder", "decoder")
    for key, value in {"channels": [64, 128], "kernel": 3, "stride": 2, "hidden": 256}.items()
}


def fit(data: Any, latent_dim: int, seed: int, epochs: int, **more: Any) -> Any:
    """Train ``audio_vae`` with the default likelihood, a normal with one scale for all numbers, as PPCA has it."""
    options = {"latent_dim": latent_dim, "seed": seed, "max_epochs": epochs, "scheduler": "cosine", "threads": 1}
    return vaezoo.fit(data, "audio_vae", verbose=False, **options, **NETS, **more)


def speech(folder: str, seeds: int, epochs: int, latents: list[int]) -> None:
    """Print the table of log spectra of speech."""
    data = AudioData(folder, seconds=SECONDS, features="log_mel", mels=MELS)
    data.setup()
    train, test = (
        data.in_file_units(split.x).flatten(1).double().numpy()  # type: ignore[union-attr]
        for split in (data.train, data.test)
    )
    print(f"{len(train):,} training and {len(test):,} test frames of {train.shape[1]} numbers\n")
    print("| model | log p(x) or ELBO, nats per frame | processor time (s) |\n|---|---|---|")
    normal = -0.5 * np.log(2 * math.pi * train.var(0)) - 0.5 * (test - train.mean(0)) ** 2 / train.var(0)
    print(f"| independent normals | {normal.sum(1).mean():.1f} | |")
    for components in (5, 20, 80):
        print(f"| PPCA, {components} dimensions | {PCA(components).fit(train).score(test):.1f} | |", flush=True)
    for latent_dim in latents:
        start = time.process_time()
        runs = []
        for seed in range(seeds):
            own = AudioData(folder, seconds=SECONDS, features="log_mel", mels=MELS)
            runs.append(fit(own, latent_dim, seed, epochs).metrics["test"]["elbo"])
        seconds = (time.process_time() - start) / seeds
        print(f"| `audio_vae`, {latent_dim} dimensions | {interval(runs)} | {seconds:.0f} a seed |", flush=True)


def resonator(sound: NDArray, frequency: float, bandwidth: float) -> NDArray:
    """Return a sound after a digital resonator with this center frequency and bandwidth, in hertz."""
    radius = math.exp(-math.pi * bandwidth / RATE)
    feedback = [1, -2 * radius * math.cos(2 * math.pi * frequency / RATE), radius**2]
    filtered: NDArray = lfilter([sum(feedback)], feedback, sound)
    return filtered


def synthesize(num: int, seed: int = 0) -> tuple[torch.Tensor, NDArray]:
    """Return the log spectra of vowels (num, 1, 40, 9) and their pitch and first two formants in hertz (num, 3)."""
    rng = np.random.default_rng(seed)
    known = np.column_stack([rng.uniform(low, high, num) for low, high in ((90, 250), (250, 850), (900, 2400))])
    length, start = round(SECONDS * RATE), 400  # the resonances have settled after ``start`` samples
    waves = []
    for pitch, first, second in known:
        phase = pitch * np.arange(length + start) / RATE + rng.uniform()
        wave = np.diff(np.floor(phase), prepend=0.0) + 1e-3 * rng.normal(size=len(phase))
        for frequency, bandwidth in ((first, 60), (second, 90), (2900, 150)):
            wave = resonator(wave, frequency, bandwidth)
        waves.append(wave[start:] / np.abs(wave[start:]).max() * rng.uniform(0.1, 1))
    return log_mel(torch.from_numpy(np.array(waves)), RATE, MELS).unsqueeze(1), known


def vowels(seeds: int, epochs: int, num: int = 4000) -> None:
    """Print the table of the formants of synthesized vowels."""
    x, known = synthesize(num)
    train, test = slice(0, num * 3 // 4), slice(num * 3 // 4, num)

    def r_squared(codes: NDArray) -> list[float]:
        predicted = LinearRegression().fit(codes[train], known[train]).predict(codes[test])
        errors = ((predicted - known[test]) ** 2).mean(0)
        return list(1 - errors / known[test].var(0))

    print(f"{num} vowels of {x[0].numel()} numbers; linear regression on 3/4 of the codes, R^2 on the others\n")
    print("| codes | pitch | first formant | second formant |\n|---|---|---|---|")
    flat = x.flatten(1).double().numpy()
    rows: dict[str, list[list[float]]] = {"PCA, 8 dimensions": [r_squared(PCA(8).fit(flat[train]).transform(flat))]}
    # The labels of the regression's test set are not seen by the model: it is trained on the first 3/4.
    runs = [fit(x[train].numpy(), 8, seed, epochs, **{"data.kind": "real"}) for seed in range(seeds)]
    rows["`audio_vae`, 8 dimensions"] = [r_squared(run.model.encode(x).double().numpy()) for run in runs]
    for name, values in rows.items():
        cells = [" ± ".join(f"{v:.3f}" for v in interval(column)[:2] if v == v) for column in zip(*values, strict=True)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=["speech", "vowels"])
    parser.add_argument("folder", nargs="?", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--latents", type=int, nargs="*", default=[5, 20], help="sizes of the latent, for speech")
    arguments = parser.parse_args()
    if arguments.data == "speech":
        speech(arguments.folder, arguments.seeds, arguments.epochs, arguments.latents)
    else:
        vowels(arguments.seeds, arguments.epochs)


if __name__ == "__main__":
    main()
