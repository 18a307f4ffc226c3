"""What the numbers in the tables mean."""

from typing import NamedTuple


class Quantity(NamedTuple):
    """What a number in a table means.

    Args:
        unit: nats per image, accuracy, ...
        meaning: one line: the formula, in words or symbols.
        better: 1 where larger is better, -1 where smaller is, 0 where neither is.
    """

    unit: str
    meaning: str
    better: int = 0


QUANTITIES: dict[str, Quantity] = {
    # What every test gives: models/base.py, evidence.py.
    "elbo": Quantity("nats per image", "a lower bound of log p(x)", 1),
    "elbo_error": Quantity("nats", "the standard error of elbo over the images"),
    "log_p": Quantity("nats per image", "importance-weighted lower bound of log p(x), tighter than the ELBO", 1),
    "log_p_samples": Quantity("draws", "K, importance samples of each image for log_p: the bound rises with it"),
    "log_p_images": Quantity("images", "test images that log_p is the mean of: the ELBO is of all"),
    "log_p_error": Quantity("nats", "the standard error of log_p over the images"),
    "log_p_draw_error": Quantity("nats", "that part of it which the draws make"),
    "inference_gap": Quantity("nats per image", "log_p - ELBO of the same draws, about KL(q(z | x), p(z | x))"),
    "log_p_annealed": Quantity("nats per image", "lower bound of log p(x) by annealed importance sampling", 1),
    "annealed_gain": Quantity("nats per image", "log_p_annealed - log_p on the same images"),
    "annealed_gap": Quantity("nats per image", "between its bounds from both sides, on images of the model's own", -1),
    "log_px": Quantity("nats per image", "E_q[log p(x | z)]; its negative is the distortion", 1),
    "kl": Quantity("nats per image", "KL(q(z | x), p(z)): the rate"),
    "loss": Quantity("nats per image", "the objective at its configured weights", -1),
    "mi": Quantity("nats", "I(x; z), estimated within batches: a term of the objective"),
    "tc": Quantity("nats", "total correlation, estimated within batches: a term of the objective"),
    "dwkl": Quantity("nats", "dimension-wise KL, estimated within batches: a term of the objective"),
    "active_units": Quantity("dimensions", "latent dimensions whose posterior mean has variance > 0.01"),
    "codes_used": Quantity("codes", "of the codebook, that the images use", 1),
    "perplexity": Quantity("codes", "exp of the entropy of their use: as many, if all were used alike", 1),
    "kl_dim": Quantity("nats per image", "KL of each latent dimension"),
    "bits_per_dim": Quantity("bits per pixel and channel", "of 8-bit data: -elbo / (dimensions ln 2)", -1),
}
