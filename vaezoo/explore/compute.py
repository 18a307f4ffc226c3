"""The computations of the explorer: codes, the order of their dimensions, and p(x | z) anywhere in the latent space."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.callbacks.progress import describe_training
from vaezoo.data import Split, TextData
from vaezoo.errors import ConfigError, count_noun
from vaezoo.explore.planes import Plane, axis_plane, pca_plane
from vaezoo.inference.interpolation import mix_codes
from vaezoo.models.vae import VAE
from vaezoo.pictures import LatentAxes, measure_latent_axes
from vaezoo.runs.checkpoint import read_checkpoint
from vaezoo.runs.trained import TrainedRun
from vaezoo.types import Batch

Part = TypeVar("Part")


class Explorer:
    """A trained run with some of its examples, their codes, and p(x | z) at any code.

    A code is handled as ``model.encode`` returns it, (1, *latent_shape) on the model's device.

    Attributes:
        x, y: the examples as the model sees them, and their labels or other conditions, (N, ...).
        codes: their codes, (N, *latent_shape).
        axes: use, center and scale of the latent dimensions; None if there are no sliders.
        order: the latent dimensions, the most used one first; empty if there are no sliders.
        no_sliders: why there are no sliders; empty if there are.
        planes: the planes of the map, the first one is shown first.
        can_mix: whether any point of the latent space can be decoded, and not only codes of a codebook.

    Args:
        run: the run.
        num: number of examples of the chosen set, evenly spaced; None: all.
    """

    def __init__(self, run: TrainedRun, num: int | None):
        self.run, self.model, self.data = run, run.model, run.data
        with torch.no_grad():
            parts = list(run.batches(run.chosen, num, "encode"))
            self.codes = torch.cat([self.model.encode(*part) for part in parts])
        self.x, self.y = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        self.can_mix = self.model.latent_kind != "codes"
        self.axes = measure_axes(run, parts, self.codes)
        self.order = [] if self.axes is None else self.axes.usage.argsort(descending=True).tolist()
        self.no_sliders = "" if self.axes else f"no sliders: {describe_latent(run)}"
        self.planes = self.find_planes()
        self.num_draws = 0

    def find_planes(self) -> list[Plane]:
        """Return the plane of the two most used dimensions, if dimensions are ranked, and that of a PCA."""
        codes = self.codes.flatten(1).double().cpu()
        planes = [axis_plane(codes.mean(0), *(*self.order, None)[:2])] if self.order else []
        return planes + ([pca_plane(codes)] if min(codes.shape) >= 2 else [])

    @property
    def title(self) -> str:
        """The model and its data."""
        return f"{self.run.config['name']} on {type(self.data).__name__}"

    def describe(self) -> str:
        """Return what is shown: the run, its seed, the length of its training and the examples, in one line."""
        checkpoint, run = read_checkpoint(self.run.path), self.run
        epochs = checkpoint.get("vaezoo_state", {}).get("epochs", checkpoint.get("epoch", 0))
        training = describe_training(checkpoint.get("global_step", 0), epochs)
        shown, size = len(self.codes), len(run.split(run.chosen).y)
        examples = f"{shown:,} of the {count_noun(size, self.data.noun)} of the {run.chosen} set"
        return f"{run.path} · seed {run.config['seed']} · {training} · {examples}"

    def example(self, number: int) -> Batch:
        """Return an example, with a batch size of 1."""
        return Batch(self.x[number : number + 1], self.y[number : number + 1])

    def encode(self, example: Batch) -> Tensor:
        """Return the code of an example."""
        return self.model.encode(*example)

    def to_code(self, values: Tensor) -> Tensor:
        """Return entries (N, L) as codes (N, *latent_shape); those of a sphere are moved to it."""
        z = values.to(self.codes).reshape(-1, *self.model.latent_shape)
        return z / z.norm(dim=-1, keepdim=True) if self.model.latent_kind == "sphere" else z

    def decode(self, z: Tensor, example: Batch) -> Distribution:
        """Return p(x | z), given the label of the example and what the likelihood takes from x itself."""
        num = len(z)
        x, y = (part.expand(num, *part.shape[1:]) for part in example)
        return self.model.likelihood.given(self.model.decode(z, y), x)

    def show(self, px: Distribution, draw: bool = False) -> Tensor:
        """Return what represents p(x | z), its mean or mode; or a draw of it. Each draw is another one."""
        if not draw:
            return self.data.represent(px)
        with self.drawing():
            return px.sample()

    def reconstruct(self, batch_size: int = 100) -> Tensor:
        """Return what represents p(x | z) at the code of each example, (N, *shape), on the CPU."""
        pairs = list(zip(self.x.split(batch_size), self.y.split(batch_size), strict=True))
        shown = progress(pairs, "reconstruct")
        return torch.cat([self.data.represent(self.model.autoencode(*pair)).cpu() for pair in shown])

    # Sliders.

    def steps(self, z: Tensor) -> list[float]:
        """Return the entries of a code in standard deviations from the center, the most used dimension first."""
        assert self.axes is not None
        values = (z[0] - self.axes.center) / self.axes.scale
        return [float(values[d]) for d in self.order]

    def move(self, z: Tensor, number: int, step: float) -> Tensor:
        """Return a code in which one dimension is ``step`` standard deviations from the center.

        Args:
            z: the code.
            number: place of the dimension in ``order``.
            step: the number of standard deviations.
        """
        assert self.axes is not None
        d, moved = self.order[number], z.clone()
        moved[:, d] = self.axes.center[d] + step * self.axes.scale[d]
        return self.to_code(moved)

    def traverse(self, z: Tensor, number: int, steps: list[float]) -> Tensor:
        """Return the codes, (len(steps), D), in which one dimension takes several values (``move``)."""
        return torch.cat([self.move(z, number, step) for step in steps])

    # Examples that are not in the set.

    def prepare(self, x: Tensor, y: Tensor) -> Batch:
        """Return a stored example (1, *shape) as the model sees it, with a label or another condition (1, ...)."""
        split = self.data.prepare_split(Split(x, y.cpu()), "all")
        x, y = next(iter(self.data.batches(split, 1)))
        return Batch(x.to(self.model.device), y.to(self.model.device))

    def read_file(self, name: str, content: bytes, y: Tensor) -> Batch:
        """Return the example in a file, prepared as those of the training (``DataModule.read_example``).

        Args:
            name: the name of the file; nothing but its suffix is used.
            content: its bytes.
            y: label or another condition, (1, ...).

        Raises:
            ConfigError: it is no file of an example, or it is broken.
        """
        suffix, suffixes = Path(name).suffix.lower(), sorted(self.data.file_suffixes)
        if suffix not in suffixes:
            raise ConfigError(f"{name} cannot be read as one {self.data.noun}: use a file {', '.join(suffixes)}")
        with TemporaryDirectory() as folder:
            path = Path(folder, f"example{suffix}")
            path.write_bytes(content)
            return self.prepare(self.data.read_example(path), y)

    def read_line(self, text: str, y: Tensor) -> Batch:
        """Return a sentence, prepared as those of the training, with a label or another condition (1, ...)."""
        assert isinstance(self.data, TextData)
        return self.prepare(self.data.encode_line(text)[None], y)

    # Draws and ways.

    def draw_code(self, example: Batch, temperature: float = 1.0) -> Tensor | None:
        """Draw z ~ p(z) with its standard deviation times the temperature: mean + temperature (z - mean).

        A conditional prior gets the label of the example. None: the model draws no single code, but layers of them.
        """
        if not isinstance(self.model, VAE):
            return None
        center = self.center(example)
        with self.drawing(), torch.no_grad():
            z = self.model.prior.sample(1, example.y)
        return self.to_code(center + temperature * (z - center))

    def center(self, example: Batch) -> Tensor:
        """Return the mean of the prior, given the label of an example; if it is not known, that of the codes."""
        assert isinstance(self.model, VAE)
        try:
            with torch.no_grad():
                return self.model.prior(example.y).mean
        except NotImplementedError:
            return self.codes.mean(0)

    def draw_example(self, example: Batch) -> Distribution:
        """Return p(x | z) at a draw from the prior of a model of any kind."""
        with self.drawing():
            return self.model.sample(1, example.y)

    def drawing(self) -> AbstractContextManager[None]:
        """Return the context of a draw: each one has a seed of its own."""
        self.num_draws += 1
        return seeding.isolated(self.model.device, self.run.config["seed"], "explore", self.num_draws)

    def interpolate(self, first: Batch, last: Batch, steps: int = 9) -> Distribution:
        """Return p(x | z) on the way from the code of one example to that of another, given the label of the first."""
        ends = self.encode(first), self.encode(last)
        path = mix_codes(*ends, steps, on_sphere=self.model.latent_kind == "sphere")[0]
        return self.decode(path, first)

    def nearest(self, plane: Plane, point: Tensor) -> int:
        """Return the number of the example whose code is nearest to a point (1, 2) of a plane."""
        return int((plane.project(self.codes) - point).square().sum(1).argmin())


def progress(parts: Iterable[Part], what: str) -> Iterable[Part]:
    """Yield parts of work, with a progress bar on a terminal if they take more than a second."""
    return tqdm(parts, desc=what, disable=None, delay=1, leave=False)


def measure_axes(run: TrainedRun, parts: list[Batch], codes: Tensor) -> LatentAxes | None:
    """Return the latent dimensions of a run with their use on examples; None if there is no flat latent to slide in.

    Args:
        run: the run.
        parts: the examples in batches.
        codes: their codes, (N, *latent_shape).
    """
    with torch.no_grad(), seeding.isolated(run.model.device, run.config["seed"], "explore"):
        found = [measure_latent_axes(run.model, part) for part in parts]
    axes = found[0]
    if axes is None or run.model.latent_kind not in ("vector", "sphere"):
        return None
    if axes.source == "codes":
        variance, mean = codes.var(0), codes.mean(0)
        return axes._replace(usage=variance, center=mean, scale=variance.sqrt().clamp(min=1e-6))
    sums = torch.stack([len(part.x) * each.usage.double() for part, each in zip(parts, found, strict=True) if each])
    return axes._replace(usage=sums.sum(0) / len(codes))


def describe_latent(run: TrainedRun) -> str:
    """Return why the code of a model has no dimensions to slide in."""
    shape = "x".join(map(str, run.model.latent_shape))
    return {
        "codes": f"a code of this model is {shape} numbers from a codebook, which have no values in between",
        "map": f"a code of this model is an array of {shape} numbers, and not a vector",
        "layers": "this model has several latent variables, which depend on each other",
    }.get(run.model.latent_kind, "this model does not have one latent vector")
