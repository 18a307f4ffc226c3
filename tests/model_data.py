"""The data of models that do not take plain images with labels, as words of the command line.

The tests of all models leave these out (``test_contract.MODELS``); their own test files have the same contract on their
data.
"""

from pathlib import Path

import numpy as np

COUNTS = ["data=array", "data.path=FOLDER/counts.npy"]
SEQUENCES = ["data=sequences", "data.path=FOLDER/sequences.npz"]
HOLES = ["data=tables/wine", "data.holes=0.3"]
PAIRS = ["data=digit_labels"]
WORDS: dict[str, list[str]] = {
    "conditional_prior_vae": ["data.condition=upper"],
    "count_vae": COUNTS,
    "deep_kalman": SEQUENCES,
    "jmvae": PAIRS,
    "mmvae": PAIRS,
    "mopoe_vae": PAIRS,
    "mult_vae": COUNTS,
    "multimodal_vae": PAIRS,
    "mvtcae": PAIRS,
    "not_miwae": HOLES,
    "prod_lda": COUNTS,
    "text_cvae": ["data=topics"],
    "text_vae": ["data=topics"],
    "vrnn": SEQUENCES,
}


def write_files(folder: Path) -> None:
    """Write the files that ``WORDS`` names in FOLDER."""
    rng = np.random.default_rng(0)
    np.save(folder / "counts.npy", rng.poisson(np.arange(12), (200, 12)))
    lengths = rng.integers(3, 8, 100)
    np.savez(folder / "sequences.npz", frames=rng.normal(size=(lengths.sum(), 3)).astype(np.float32), lengths=lengths)


def words(name: str, folder: Path) -> list[str]:
    """Return the words that choose a model and its data; none of the data if it takes images of digits.

    Args:
        name: a config in conf/model.
        folder: the folder of ``write_files``.
    """
    return [f"model={name}", *(word.replace("FOLDER", str(folder)) for word in WORDS.get(name, []))]
