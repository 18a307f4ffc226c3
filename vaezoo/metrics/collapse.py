"""The rule by which a test's KL alone shows posterior collapse, without torch: the tables of sweeps use it, too."""

LEAST_INFORMATION = 0.1  # nats; our choice. The answer to one fair yes-or-no question has ln 2 = 0.69 nats
IGNORED_CODE = (
    "decoder ignores z; try callbacks/anneal=linear, model.free_bits=0.1, a smaller model.beta or a weaker decoder"
)


def is_collapsed(kl: float | None) -> bool:
    """Return whether a KL alone shows that the posterior has collapsed, because I(x; z) <= KL.

    Args:
        kl: the mean of KL(q(z | x), p(z)) over test examples, in nats; None if the model has none.
    """
    return kl is not None and kl < LEAST_INFORMATION


def collapse_footnote(where: str = "") -> str:
    """Return the sentence below a table in which collapsed runs have a star.

    Args:
        where: which runs they are.
    """
    return f"* posterior collapse{where}, the KL is below {LEAST_INFORMATION} nats: the {IGNORED_CODE}"
