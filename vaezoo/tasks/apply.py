"""Write samples, reconstructions, interpolations and codes of a trained model to files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaezoo import seeding
from vaezoo.errors import ConfigError, count_noun, name_some
from vaezoo.inference.interpolation import mix_codes
from vaezoo.inference.per_example import bound_values
from vaezoo.pictures import (
    Display,
    Picture,
    class_heads,
    cycle_classes,
    describe_classes,
    describe_density,
    takes_labels,
    title_reconstructions,
)
from vaezoo.runs.folder import describe_files
from vaezoo.runs.rows import check_format, join_columns, write_rows
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import TrainedRun, open_run

SPLITS = {"train": "training", "val": "validation"}  # in titles of pictures
MAX_HEADS = 20  # classes with a column of their own in the picture of samples


def sample(config: dict[str, Any], num: int, draw: bool | None = None, label: Any = None) -> None:
    """Draw z ~ p(z) and write what represents p(x | z) as ``samples.npz``, and ``samples.png``.

    A model that takes labels gets the classes in turn; one that takes images, conditions of the test set, each several
    times. The same ``seed`` gives the same examples. The data module also writes them in a form for people, such as a
    text or a table, with their classes.

    Args:
        config: the resolved config.
        num: number of examples, at least 1.
        draw: true: x ~ p(x | z); false: the mean of p(x | z), or the mode of tokens and categories. None: false, but
            true for the rows of a table and counts, whose means are no possible values, and for sentences: the most
            probable words after a z are shorter and more common than those of the model's distribution.
        label: the class of the examples, by its name or its number, or a list of classes, which are taken in turn, in
            the order of their numbers.

    Raises:
        ConfigError: the model is given no labels, or there is no such class.
    """
    run = load_run_for_examples(config, num, "test")
    known = run.data.test.y if label is None else find_classes(run, label)
    context = cycle_classes(known, num).to(run.model.device)
    draw = run.data.shows_draws if draw is None else draw
    with torch.no_grad(), seeding.isolated(run.model.device, config["seed"], "sample"):
        px = run.model.sample(num, context)
        x = (px.sample() if draw else run.data.represent(px)).cpu()
    display = Display(run.data)
    density = describe_density(run.model)
    what = f"draws x ~ {density}" if draw else f"{display.points} of {density}"
    heads = class_heads(known, num, display.class_names) if takes_labels(run.model) else []
    heads = heads if len(heads) <= MAX_HEADS else []
    title = f"{what} for z ~ p(z){describe_classes(heads)}"
    subtitle = f"{describe_run(run)}, seed of z: {config['seed']}"
    picture = display.grid(x, title, (), context.cpu(), subtitle, heads) if display.can_draw(x) else None
    name = "conditions" if context.dim() == 4 else "labels"
    labels = {name: context} if run.model.conditional or run.model.uses_labels else {}
    files = save_arrays(config, "samples", {f"{run.data.noun}s": x} | labels)
    files += save_picture(config, "samples", picture)
    has_classes = bool(labels) and context.dim() == 1
    path = Path(config["run_dir"], "samples")
    files += run.data.save_labelled(x, context.cpu(), path) if has_classes else run.data.save_examples(x, path)
    files += save_topics(run, Path(config["run_dir"], "topics.txt"))
    finish(run, config, "samples", files)


def find_classes(run: TrainedRun, label: Any) -> Tensor:
    """Return classes as numbers, (N,), one or more.

    Args:
        run: the trained run.
        label: the name or the number of a class, or a list of them. A name that is also a number is taken as a name.

    Raises:
        ConfigError: the model is given no labels, or there is no such class.
    """
    model, names = run.model, run.data.class_names or []
    if run.data.test.y.dim() != 1 or not (model.conditional or model.uses_labels):
        raise ConfigError(
            f"label={label}: the model of {run.path} is given no labels; those of model=cvae and model=text_cvae are"
        )
    total = len(names) or getattr(model, "num_classes", 0) or int(run.data.test.y.max()) + 1
    numbers = {str(number): number for number in range(total)} | {name: i for i, name in enumerate(names)}
    wanted = [str(item) for item in (label if isinstance(label, list) else [label])]
    if unknown := [item for item in wanted if item not in numbers]:
        known = f"{name_some(names)}, or their numbers from 0" if names else f"0 to {total - 1}"
        raise ConfigError(f"label={unknown[0]} is no class of the model, whose classes are {known}")
    if not wanted:
        raise ConfigError(f"label={label} names no class: leave it out for all")
    return torch.tensor([numbers[item] for item in wanted])


def save_topics(run: TrainedRun, file: Path) -> list[Path]:
    """Write the words of each topic of a topic model as a line, and return the file in a list; empty without words."""
    topic_words = getattr(run.model, "topic_words", None)  # of a topic model
    if topic_words is None or (names := run.data.entry_names) is None:
        return []
    lines = [f"topic {i}: {', '.join(words)}\n" for i, words in enumerate(topic_words(names), 1)]
    file.write_text("".join(lines), encoding="utf-8")
    return [file]


def reconstruct(config: dict[str, Any], num: int | None, split: str | None = None, format: str = "csv") -> None:
    """Reconstruct examples: write what represents p(x | z = encode(x)) as ``reconstructions.npz``, with the examples,
    as ``reconstructions.png``, and in a table with a row for each example: its key, its label and -log p(x | z),
    ``distortion_at_code``.

    If examples can be shown in a table, such as rows and sentences, their reconstructions are in it. Otherwise the data
    module writes inputs and reconstructions in a form for people, such as sounds.

    Args:
        config: the resolved config.
        num: number of examples, evenly spaced over the set, at least 1; None: all.
        split: the set, as in ``open_run``.
        format: format of the table (``runs.rows``).
    """
    check_format(format)
    run = load_run_for_examples(config, num, split)
    examples, means, errors = [], [], []
    with torch.no_grad():
        for x, y in run.batches(run.chosen, num, "reconstruct"):
            px = run.model.autoencode(x, y)
            examples.append((x.cpu(), y.cpu()))
            means.append(run.data.represent(px).cpu())
            errors.append(-px.log_prob(x).cpu())
    x, y = (torch.cat(parts) for parts in zip(*examples, strict=True))
    reconstructions = torch.cat(means)
    display, shown = Display(run.data), slice(64)
    title = title_reconstructions(run.model, display, SPLITS.get(run.chosen, run.chosen))
    subtitle, keys = f"{describe_run(run)}, {describe_set(run)}", run.keys(num)
    picture = None
    if display.can_draw(x):
        picture = display.pairs(x[shown], reconstructions[shown], title, subtitle, keys=first_column(keys)[shown])
    arrays = {f"{run.data.noun}s": x, "reconstructions": reconstructions, "labels": y}
    shown_columns = run.data.to_columns(reconstructions)
    results = run.data.label_columns(y) | {"distortion_at_code": torch.cat(errors)} | shown_columns
    path = Path(config["run_dir"], "reconstructions")
    files = [write_rows(path, join_columns(keys, results), format)]
    arrays_path = path.with_name("reconstruction_arrays") if format == "npz" else path
    files += [write_rows(arrays_path, join_columns(keys, arrays), "npz")]
    files += save_picture(config, "reconstructions", picture)
    if not shown_columns:
        files += run.data.save_examples(x, path.with_name("inputs"))
        files += run.data.save_examples(reconstructions, path)
    finish(run, config, "reconstructions", files)


def encode(config: dict[str, Any], split: str | None = None, format: str = "csv") -> None:
    """Encode a set: write a table ``codes`` with a row for each example: its key, label, ELBO, distortion, rate and
    code z.

    The codes are point estimates, such as the mean of q(z | x), and not samples. The ELBO is estimated from a sample,
    with the noise of a test: its mean over the test set is the test's ELBO.

    Args:
        config: the resolved config.
        split: the set, as in ``open_run``.
        format: format of the table (``runs.rows``).
    """
    check_format(format)
    run = open_run(config, ("split", "format"), split)
    codes, labels = run.codes(run.chosen)
    values = bound_values(run.model, run.batches(run.chosen, what="ELBO"))
    columns = join_columns(run.keys(), run.data.label_columns(labels) | values | {"z": codes.float()})
    finish(run, config, "codes", [write_rows(Path(config["run_dir"], "codes"), columns, format)])


def interpolate(config: dict[str, Any], num: int, steps: int, split: str | None = None) -> None:
    """Walk from one example to another in the latent space: write what represents p(x | z) on the way.

        z(a) = (1 - a) z_1 + a z_2,  a = 0, ..., 1,  z_1 and z_2 the codes of two examples

    Each pair becomes a row of ``interpolations.png``, and the data module writes it in a form for people, such as a
    text ``interpolation_1.txt``: the first example, ``steps`` points from a = 0 to a = 1, and the second example. A
    conditional model gets the label of the first one. Codes on a sphere go along it.

    Bowman et al. 2016, Generating Sentences from a Continuous Space, https://arxiv.org/abs/1511.06349, section 5.2.

    Args:
        config: the resolved config.
        num: number of pairs, evenly spaced over the set, at least 1.
        steps: number of points, at least 2.
        split: the set, as in ``open_run``.

    Raises:
        ConfigError: a number is too small, the set has too few examples, or codes cannot be mixed.
    """
    if type(steps) is not int or steps < 2:
        raise ConfigError(f"steps={steps} should be an integer >= 2: the two codes")
    run = load_run_for_examples(config, num, split)
    if run.model.latent_kind == "codes":
        raise ConfigError("task=interpolate mixes codes, and those of this model come from a codebook: use task=sample")
    parts = list(run.batches(run.chosen, 2 * num, "interpolate"))
    x, y = (torch.cat([part[i] for part in parts]) for i in (0, 1))
    num = len(x) // 2
    if num == 0:
        raise ConfigError(f"task=interpolate needs two {run.data.noun}s, and the set has {len(x)}: use split=all")
    pairs, labels = x[: 2 * num].unflatten(0, (num, 2)), y[: 2 * num : 2].repeat_interleave(steps, 0)
    with torch.no_grad():
        z = torch.cat([run.model.encode(part.x, part.y) for part in parts])[: 2 * num].unflatten(0, (num, 2))
        path = mix_codes(z[:, 0], z[:, 1], steps, on_sphere=run.model.latent_kind == "sphere")
        way = run.data.represent(run.model.decode(path.flatten(0, 1), labels)).unflatten(0, (num, steps))
    rows = torch.cat([pairs[:, :1], way.to(pairs.dtype), pairs[:, 1:]], 1).cpu()
    display, subtitle = Display(run.data), f"{describe_run(run)}, {describe_set(run)}"
    title = f"from one example to another: {display.points} of {describe_density(run.model)} for z between their codes"
    picture = display.rows(rows, title, subtitle) if display.can_draw(rows[0]) else None
    files = save_picture(config, "interpolations", picture)
    files += save_arrays(config, "interpolations", {"x": rows, "z": path})
    for i, row in enumerate(rows, 1):
        files += run.data.save_examples(row, Path(config["run_dir"], f"interpolation_{i}"))
    finish(run, config, "interpolations", files)


def load_run_for_examples(config: dict[str, Any], num: int | None, split: str | None) -> TrainedRun:
    """Load the run of a task that takes a number of examples.

    Raises:
        ConfigError: the number is wrong, or the run cannot be loaded.
    """
    check_num(num)
    return open_run(config, ("num", "split", "seed", "draw", "label", "format", "steps"), split)


def check_num(num: int | None) -> None:
    """Raise a ConfigError if this is no number of examples; None stands for all of them."""
    if num is not None and (type(num) is not int or num < 1):
        raise ConfigError(f"num={num} should be an integer >= 1")


def describe_set(run: TrainedRun) -> str:
    """Return the words for the set that a task is applied to."""
    size = len(run.split(run.chosen).y)
    return f"all {count_noun(size, run.data.noun)}" if run.chosen == "all" else f"{run.chosen} set"


def describe_run(run: TrainedRun) -> str:
    """Return the words for the run in the heading of a picture: model, data and seed."""
    return f"{run.config['name']} on {type(run.data).__name__}, seed {run.config['seed']}"


def first_column(keys: dict[str, np.ndarray]) -> list[str]:
    """Return which examples those of a set are, by the first column of their keys: file, row, line or index."""
    return [str(key) for key in next(iter(keys.values()))]


def save_arrays(config: dict[str, Any], name: str, arrays: dict[str, Tensor]) -> list[Path]:
    """Write arrays as ``NAME.npz`` into the task's folder, and return the file in a list."""
    file = Path(config["run_dir"], f"{name}.npz")
    contents: dict[str, Any] = {key: value.cpu().numpy() for key, value in arrays.items()}
    np.savez_compressed(file, **contents)
    return [file]


def save_picture(config: dict[str, Any], name: str, picture: Picture | None) -> list[Path]:
    """Write a picture as ``NAME.png`` into the task's folder, if there is one; return the file in a list."""
    if picture is None:
        return []
    file = Path(config["run_dir"], f"{name}.png")
    Image.fromarray(picture).save(file)
    return [file]


def finish(run: TrainedRun, config: dict[str, Any], name: str, files: list[Path], **found: Any) -> None:
    """Write the summary of the task and print the files.

    Args:
        run: the trained run.
        config: the resolved config.
        name: what was made, for the title and as ``task`` in the summary.
        files: the files that were written, the most important one first.
        **found: further entries of the summary.
    """
    paths = [str(file) for file in files]
    found |= {"task": name, "checkpoint": str(run.path), "set": run.chosen, "files": paths}
    write_summary(run.config, noun=run.data.noun, **found)
    title = f"{run.title(name)} of {describe_set(run)}" if name != "samples" else run.title(name)
    print("\n".join([title, *describe_files(files)]))
