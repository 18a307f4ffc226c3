"""Write samples, reconstructions and codes of a trained model to files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaezoo import seeding
from vaezoo.errors import ConfigError
from vaezoo.pictures import Display, Picture, cycle_classes
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import TrainedRun, open_run

SPLITS = ("train", "val", "test")


def sample(config: dict[str, Any], num: int) -> None:
    """Draw examples: write ``samples.npz`` with the means of p(x | z) for z ~ p(z), and ``samples.png``.

    Of tokens and categories, the modes take the place of the means. A conditional model gets the classes in turn. The
    same ``seed`` gives the same examples. The data module also writes them in a form for people, such as a text.

    Args:
        config: the resolved config.
        num: number of examples, at least 1.
    """
    run = load_run_for_examples(config, num)
    context = cycle_classes(run.data.test.y, num).to(run.model.device)
    with torch.no_grad(), seeding.isolated(run.model.device, config["seed"], "sample"):
        x = run.data.represent(run.model.sample(num, context)).cpu()
    display = Display(run.data)
    picture = display.grid(x, f"samples, seed {config['seed']}") if display.can_draw(x) else None
    labels = {"labels": context} if run.model.conditional else {}
    save(run, config, "samples", picture, {f"{run.data.noun}s": x} | labels, x)


def reconstruct(config: dict[str, Any], num: int, split: str = "test") -> None:
    """Reconstruct examples of a split: write ``reconstructions.npz`` with the examples and the means of
    p(x | z = encode(x)), and ``reconstructions.png``.

    Args:
        config: the resolved config.
        num: number of examples, evenly spaced over the split, at least 1.
        split: "train", "val" or "test".
    """
    run = load_run_for_examples(config, num)
    batches = list(run.batches(check_split(split), num))
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.no_grad():
        means = run.data.represent(run.model.decode(run.model.encode(x, y), y))
    display = Display(run.data)
    title = f"inputs over reconstructions, {split} set"
    picture = display.pairs(x, means, title) if display.can_draw(x) else None
    arrays = {f"{run.data.noun}s": x, "reconstructions": means, "labels": y}
    save(run, config, "reconstructions", picture, arrays, means)


def encode(config: dict[str, Any], split: str = "test") -> None:
    """Encode a split: write ``codes.npz`` with ``codes`` (N, *latent_shape) and ``labels`` (N, ...).

    The codes are point estimates, such as the mean of q(z | x), and not samples.

    Args:
        config: the resolved config.
        split: "train", "val" or "test".
    """
    run = open_run(config, ("split",))
    codes, labels = run.codes(check_split(split))
    save(run, config, "codes", None, {"codes": codes, "labels": labels})


def load_run_for_examples(config: dict[str, Any], num: int) -> TrainedRun:
    """Load the run of a task that takes a number of examples.

    Raises:
        ConfigError: the number is wrong, or the run cannot be loaded.
    """
    if type(num) is not int or num < 1:
        raise ConfigError(f"num={num} should be an integer >= 1")
    return open_run(config, ("num", "split", "seed"))


def check_split(split: str) -> str:
    """Return the name of a split.

    Raises:
        ConfigError: there is no such split.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split} is not one of {', '.join(SPLITS)}")
    return split


def save(
    run: TrainedRun,
    config: dict[str, Any],
    name: str,
    picture: Picture | None,
    arrays: dict[str, Tensor],
    examples: Tensor | None = None,
) -> None:
    """Write arrays as ``NAME.npz``, a picture as ``NAME.png`` and a summary into the task's folder; print their paths.

    Args:
        run: the trained run.
        config: the resolved config.
        name: the name of the files, without ending.
        picture: None: there is no picture.
        arrays: tensors by name.
        examples: examples that the data module writes in a form for people, if it has one.
    """
    folder = Path(config["run_dir"])
    contents: dict[str, Any] = {key: value.cpu().numpy() for key, value in arrays.items()}
    np.savez_compressed(folder / f"{name}.npz", **contents)
    shapes = ", ".join(f"{key} {tuple(value.shape)}" for key, value in arrays.items())
    files = [f"{folder / name}.npz: {shapes}"]
    if picture is not None:
        Image.fromarray(picture).save(folder / f"{name}.png")
        files.append(f"{folder / name}.png")
    if examples is not None:
        files += map(str, run.data.save_examples(examples.cpu(), folder / name))
    write_summary(run.config, task=name, checkpoint=str(run.path), files=files)
    print("\n".join([run.title(name), *files]))
