"""Quantities: what a number in a summary is, and how tables show it."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

# Endings of numbers that belong to another number: the words before an upper bound, and before what training images
# get in place of generated ones, which a model may surpass. ``NAME_error`` is a standard error.
BOUNDS = {"_ceiling": "at best", "_reference": "training images:"}
# Heads of the groups on the terminal, in their order. The names are those of ``task.metrics``, and "counts" for how
# many examples or samples are behind other numbers.
GROUPS = {
    "likelihood": "likelihood and its terms",
    "latent": "latent space",
    "reconstruction": "reconstructions",
    "probes": "labels",
    "samples": "samples",
    "samplers": "samples, z from other densities than the prior",
    "disentanglement": "disentanglement",
    "anomaly": "anomalies",
    "counts": "counts behind these numbers",
}
KEY = re.compile(r"{(\w+)}")  # of a number, in a protocol


class Quantity(NamedTuple):
    """Describe a number: its unit, its meaning and how tables show it.

    A metric's function has its entry beside it. ``summary.json`` carries the entries under ``units``, and tables, page
    and terminal read them there.

    Args:
        unit: the unit, such as "nats per image".
        meaning: one line with the formula, in words or symbols.
        better: 1 if larger is better, -1 if smaller is better, 0 if neither.
        label: head of its column. If empty, the key with spaces.
        digits: digits after the decimal point. If None, they are chosen by the size of the values.
        column: "main" for a column of every table, "cost" for one after all others, "run" for a number that is
            shown with each run but is no column; None for a column of the page only, after the main ones.
        protocol: how the number was measured, for the head of its column, with other numbers by key, as in
            "K = {log_p_samples}".
        interval: whether a mean over seeds has a confidence interval.
        group: where the terminal shows it (``GROUPS``). ``task=evaluate`` sets it to the group of metrics that
            computes the number.
    """

    unit: str
    meaning: str
    better: int = 0
    label: str = ""
    digits: int | None = None
    column: Literal["main", "cost", "run"] | None = None
    protocol: str = ""
    interval: bool = True
    group: str = "likelihood"

    def title(self, key: str) -> str:
        """The label, or the key in words if there is none."""
        return self.label or key.replace("_", " ")

    def to_json(self) -> dict[str, Any]:
        """The fields that are not at their defaults."""
        defaults = self._field_defaults
        return {name: value for name, value in self._asdict().items() if value != defaults.get(name)}

    @classmethod
    def from_json(cls, value: Any, known: Quantity | None = None) -> Quantity:
        """Read an entry of ``units`` in a summary.

        Args:
            value: what ``to_json`` gives. In summaries of older versions it is unit, meaning and better, or one text.
            known: the package's own entry, which completes what an older version wrote.

        Raises:
            ValueError: no entry of any version.
        """
        if isinstance(value, dict):
            fields = {name: value[name] for name in cls._fields if name in value}
            read = cls(**({"unit": "", "meaning": ""} | fields))
        elif isinstance(value, list) and 1 < len(value) <= 3:
            read = (known or cls("", ""))._replace(**dict(zip(cls._fields, value, strict=False)))
        elif isinstance(value, str):
            read = known or cls("", value)
        else:
            raise ValueError(f"units: {value!r} describes no number")
        if type(read.digits) is not int and read.digits is not None:
            raise ValueError(f"units: digits must be an integer, got {read.digits!r}")
        return read


def use_noun(text: str, noun: str) -> str:
    """Return a text about images with the data's own word for an example.

    >>> use_noun("nats per image, over 3 images", "row")
    'nats per row, over 3 rows'
    """
    return re.sub(r"\bimage(s?)\b", rf"{noun}\1", text)


def with_noun(quantities: dict[str, Quantity], noun: str) -> dict[str, Quantity]:
    """Return quantities, which are written for images, with the data's own word for an example."""
    return {
        name: quantity._replace(
            unit=use_noun(quantity.unit, noun),
            meaning=use_noun(quantity.meaning, noun),
            label=use_noun(quantity.label, noun),
            protocol=use_noun(quantity.protocol, noun),
        )
        for name, quantity in quantities.items()
    }


def given_context(quantities: dict[str, Quantity]) -> dict[str, Quantity]:
    """Return quantities, which are written for p(x), for a model of p(x | y): one that is given labels or conditions.

    >>> given_context({"elbo": Quantity("nats", "a bound of log p(x)")})["elbo"].meaning
    'a bound of log p(x | y)'
    """
    return {name: q._replace(meaning=q.meaning.replace("log p(x)", "log p(x | y)")) for name, q in quantities.items()}


# The numbers that every run may have: those of each test (models, importance sampling) and its cost.
QUANTITIES: dict[str, Quantity] = {
    "elbo": Quantity("nats per image", "evidence lower bound of log p(x)", 1, "test ELBO", 2, "main"),
    "elbo_error": Quantity("nats", "standard error of elbo over the images"),
    "log_p": Quantity(
        "nats per image",
        "importance-weighted lower bound of log p(x), tighter than the ELBO",
        1,
        "log p(x)",
        2,
        "main",
        "K = {log_p_samples}, {log_p_examples} images",
    ),
    "log_p_samples": Quantity(
        "draws",
        "K, importance samples per image for log_p; the bound rises with K",
        label="K of log p(x)",
        column="run",
    ),
    "log_p_examples": Quantity(
        "images",
        "test images behind the mean log_p; the ELBO is the mean over all test images",
        label="images of log p(x)",
        column="run",
    ),
    "log_p_error": Quantity("nats", "standard error of log_p over the images"),
    "log_p_draw_error": Quantity(
        "nats", "Monte Carlo part of log_p_error, from the finite number of samples", label="log p(x) draw error"
    ),
    "inference_gap": Quantity(
        "nats per image",
        "log_p - ELBO of the same draws, about KL(q(z | x), p(z | x))",
        label="inference gap",
        digits=2,
        column="main",
    ),
    "log_p_annealed": Quantity(
        "nats per image", "lower bound of log p(x) by annealed importance sampling", 1, "log p(x) annealed"
    ),
    "annealed_gain": Quantity("nats per image", "log_p_annealed - log_p on the same images"),
    "annealed_gap": Quantity(
        "nats per image", "upper bound - lower bound of log p(x) by annealing, on images that the model generated", -1
    ),
    "bits_per_dim": Quantity(
        "bits per pixel and channel", "-elbo / (dimensions ln 2), for 8-bit data", -1, "bits/dim", 3, "main"
    ),
    "tokens": Quantity(
        "tokens per image", "mean number of tokens, <end> included and padding left out", group="counts"
    ),
    "nats_per_token": Quantity(
        "nats per token",
        "-elbo / tokens: an upper bound of the cross-entropy; <end> is counted, padding is not",
        -1,
        "nats/token, at most",
        3,
        "main",
    ),
    "perplexity_bound": Quantity(
        "tokens", "exp(-elbo / tokens): an upper bound of the perplexity", -1, "perplexity, at most", 1, "main"
    ),
    "frames": Quantity("frames per image", "mean number of frames, without what follows the end", group="counts"),
    "nats_per_frame": Quantity(
        "nats per frame",
        "elbo / frames: a lower bound of log p(x) for each frame",
        1,
        "nats/frame, at least",
        3,
        "main",
    ),
    "kl": Quantity("nats per image", "KL(q(z | x), p(z)): the rate", label="rate", digits=2, column="main"),
    "distortion": Quantity("nats per image", "-E_q[log p(x | z)]", digits=2, column="main"),
    "log_px": Quantity(  # minus the distortion, so no column of its own
        "nats per image", "E_q[log p(x | z)]; its negative is the distortion", 1, "log p(x | z)", 2, "run"
    ),
    # Losses of two objectives have no common scale, so it is no column.
    "loss": Quantity("nats per image", "the objective at its configured weights", -1, column="run"),
    "mi": Quantity("nats", "I(x; z), estimated within batches: a term of the objective", label="MI"),
    "tc": Quantity("nats", "total correlation, estimated within batches: a term of the objective", label="TC"),
    "dwkl": Quantity("nats", "dimension-wise KL, estimated within batches: a term of the objective", label="DWKL"),
    "active_units": Quantity(
        "dimensions",
        "latent dimensions with Var_x E_q[z_d | x] > 0.01",
        label="active units",
        digits=1,
        column="main",
        group="latent",
    ),
    "accuracy": Quantity(
        "share",
        "images whose class has the largest q(y | x), of those with a label",
        1,
        "accuracy",
        4,
        "main",
        group="probes",
    ),
    "accuracy_error": Quantity("share", "standard error of accuracy over the images"),
    "cross_entropy": Quantity(
        "nats per image",
        "-ln q(y | x), mean over the images of a batch with a label: a term of the objective",
        -1,
        group="probes",
    ),
    "codes_used": Quantity(
        "codes", "entries of the codebook that the images use", 1, "codes used", 1, "main", group="latent"
    ),
    "perplexity": Quantity(
        "codes", "exp(entropy of the use of the codes); equals codes_used if uniform", 1, group="latent"
    ),
    "kl_dim": Quantity("nats per image", "KL of each latent dimension", label="rate by dimension"),
    "wall_seconds": Quantity("s", "wall-clock time of the whole run", 0, "time", 0, "cost", interval=False),
    "train_examples_per_second": Quantity(
        "images/s", "speed of the training alone", 0, "speed", 0, "cost", interval=False
    ),
    "parameters": Quantity("", "trainable parameters of the model", 0, "parameters", 0, "cost", interval=False),
    "peak_memory_mb": Quantity(
        "MiB", "peak memory of the process, or of its GPU if it has one", 0, "memory", 0, "cost", interval=False
    ),
}
