"""The columns of the comparison and what their numbers depend on."""

from vaezoo.metrics.quantities import Quantity

# What every run has, beside what its summary's ``units`` tell.
QUANTITIES = {
    "elbo": Quantity("nats per image", "evidence lower bound of log p(x)", 1),
    "log_p": Quantity("nats per image", "importance-weighted lower bound of log p(x), tighter than the ELBO", 1),
    "bits_per_dim": Quantity("bits", "-ELBO / (dimensions ln 2) of 8-bit data", -1),
    "kl": Quantity("nats per image", "rate: KL(q(z | x), p(z))"),
    "log_px": Quantity("nats per image", "E_q[log p(x | z)]", 1),
    "distortion": Quantity("nats per image", "-E_q[log p(x | z)]"),
    "wall_seconds": Quantity("s", "wall-clock time of the whole run"),
    "train_images_per_second": Quantity("images/s", "speed of the training alone"),
    "parameters": Quantity("", "trainable numbers of the model"),
    "peak_memory_mb": Quantity("MiB", "most memory held by the process, or on its GPU where it has one"),
}
# What tables show first, in this order, where a run has it; and after that what it cost.
LEADING = (
    "elbo", "log_p", "inference_gap", "bits_per_dim", "kl", "distortion", "active_units", "codes_used", "linear_probe",
    "fid", "mig", "udr",
)  # fmt: skip
SAMPLE_METRICS = ("fid", "kid", "precision", "recall", "density", "coverage")
GENERATED = {"num_features": "{:,.0f} features", "num_real": "{:,.0f} real", "num_generated": "{:,.0f} generated"}
PROTOCOLS = {  # of a column, the numbers that say how its own were made: they stand in its head and are no columns
    "log_p": {"log_p_samples": "K = {:,.0f}", "log_p_images": "{:,.0f} images"},
    "udr": {"udr_models": "{:,.0f} seeds"},
    **dict.fromkeys(SAMPLE_METRICS, GENERATED),
}
# What may stand beside a column's name: a bound, or what real images get, which a model's may be better than.
BESIDE = {"_ceiling": "at best", "_reference": "training images:"}
COST = ("wall_seconds", "train_images_per_second", "parameters", "peak_memory_mb")
# Means over seeds without an interval: what a machine took, and what is one number of all seeds together.
BARE = (*COST, "udr")
