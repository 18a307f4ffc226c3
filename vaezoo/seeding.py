"""Random numbers as a function of a seed and keys, without hidden state.

The noise of a run is computed from ``(seed, epoch, batch)``. So a run can stop anywhere and resume with the same bits,
and pictures or metrics that draw random numbers in between do not change it.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *keys: str | int) -> int:
    """Return a 63-bit seed for these keys. It is the same on every machine and in every process.

    >>> derive(0, "order", 3) == derive(0, "order", 3) != derive(0, "order", 4)
    True
    """
    digest = hashlib.blake2b(repr((seed, *keys)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(seed: int, *keys: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator with the seed ``derive(seed, *keys)``."""
    return torch.Generator(device).manual_seed(derive(seed, *keys))


def reseed(device: torch.device, seed: int, *keys: str | int) -> None:
    """Seed the default generator of a device with ``derive(seed, *keys)``.

    ``torch.manual_seed`` would do it too, but it seeds every backend, which takes a visible part of a small model's
    training step.
    """
    value = derive(seed, *keys)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(value)
    elif device.type == "cpu":
        torch.default_generator.manual_seed(value)
    else:
        torch.manual_seed(value)


@contextmanager
def isolated(device: torch.device, seed: int, *keys: str | int) -> Iterator[None]:
    """Run a block with default generators that are seeded for it, and restore their states afterwards.

    Args:
        device: the device that the block draws on; the CPU's generator is always restored too.
        seed: the seed.
        *keys: names of the draws.
    """
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        reseed(device, seed, *keys)
        yield
