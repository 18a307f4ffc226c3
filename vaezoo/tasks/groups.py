"""The groups of metrics that ``task=evaluate`` measures: each passes the run's data through its model once more.

A group is a function of a trained run and the settings. It gives its numbers, what they mean, and a sentence on how
they came about; or it raises ``DoesNotApply`` with the reason. What only a group needs is imported in it: training
and ``--help`` need not pay for it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from tqdm import tqdm

from vaezoo import seeding
from vaezoo.build import ConfigError, build, suggest
from vaezoo.callbacks.panels import in_turn
from vaezoo.data import FactorData, ImageData
from vaezoo.evidence import Evidence, estimate
from vaezoo.metrics.quantities import QUANTITIES, Quantity
from vaezoo.models import VAE
from vaezoo.models.training import Batch
from vaezoo.posteriors import TriangularNormal
from vaezoo.spherical import VonMisesFisherDistribution
from vaezoo.tasks.trained import Trained

CPU = torch.device("cpu")
CODES = 10_000  # training images whose codes samplers and probes are fitted to
BATCH = 500  # images made at a time
SAMPLERS = {
    "gmm": "10 normals fitted to the codes",
    "flow": "a flow fitted to the codes",
    "two_stage": "a second VAE of the codes",
}
JOINT: dict[type, tuple[str, ...]] = {  # posteriors that do not factorise, by their parameters
    TriangularNormal: ("loc", "scale_tril"),
    VonMisesFisherDistribution: ("loc", "concentration"),
}


class DoesNotApply(ValueError):
    """Why a group of metrics cannot be had of this model on this data."""


class Settings(NamedTuple):
    """What the command line says of an evaluation: see ``tasks.evaluate.evaluate``."""

    num_samples: int
    num_images: int | None
    annealed: int = 0
    outliers: str | None = None
    inception: str | None = None
    compiled: bool = False

    def check(self) -> "Settings":
        """Itself, if it makes sense."""
        for name, least in {"num_samples": 0, "num_images": 2, "annealed": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"task.{name} must be >= {least}, got {value}")
        if self.outliers is not None:
            data_config(self.outliers)
        if self.inception is not None:
            from vaezoo.metrics.inception import Inception

            try:
                Inception(self.inception)
            except (ValueError, OSError, ImportError) as error:
                raise ConfigError(f"task.inception={self.inception}: {error}") from error
        return self


class Found(NamedTuple):
    """What a group found: its numbers by name, what each name means, and a sentence, or none."""

    values: dict[str, float]
    quantities: dict[str, Quantity]
    note: str = ""


def likelihood(run: Trained, settings: Settings) -> Found:
    """log p(x) by importance sampling, with its error."""
    if not settings.num_samples:
        raise DoesNotApply("task.num_samples=0")
    found = log_p(run, settings)
    values = average("log_p", found.log_px)
    values |= {"log_p_samples": float(settings.num_samples), "log_p_images": float(len(found.log_px))}
    draws = ""
    if settings.num_samples > 1:
        values["log_p_draw_error"] = found.draw_error
        if found.draw_error:  # else all draws are one, as a VQ-VAE's, and tell of no other code
            values |= average("inference_gap", found.log_px - found.elbo)
        draws = (
            f" ({found.draw_error:.3f} of it from the draws, of which {found.ess.median():,.0f} count in the median "
            f"image and {found.ess.min():,.0f} in the worst)"
        )
    num = len(found.log_px)
    error = f" ± {found.error:.2f} nats, the standard error over {num:,} images{draws}" if num > 1 else ""
    return Found(
        values,
        QUANTITIES,
        f"log p(x) by {settings.num_samples:,} importance sample{'s' * (settings.num_samples > 1)}: "
        f"{found.mean:.2f}{error or ' nats, of one image'}",
    )


def log_p(run: Trained, settings: Settings) -> Evidence:
    """The importance-weighted bound of log p(x) for each test image, with a bar."""
    parts: list[Evidence] = []
    with tqdm(total=len(run.split("test", settings.num_images).images), desc="log p(x)", disable=None) as bar:

        def progress(images: range) -> Iterator[int]:
            for image in images:
                yield image
                bar.update()

        for first, x, y in numbered(run.batches("test", settings.num_images)):
            found = estimate(
                run.model, x, y, settings.num_samples, first=first, compile=settings.compiled, progress=progress
            )
            parts.append(found)
    return Evidence.joined(parts)


def numbered(batches: Iterable[Batch]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Batches, each with the number of its first example."""
    first = 0
    for x, y in batches:
        yield first, x, y
        first += len(x)


def average(name: str, values: Tensor) -> dict[str, float]:
    """The mean over images with, of more than one, its standard error."""
    mean = {name: float(values.mean())}
    return mean | {f"{name}_error": float(values.std()) / len(values) ** 0.5} if len(values) > 1 else mean


def annealed(run: Trained, settings: Settings) -> Found:
    """log p(x) of a few images by annealed importance sampling, what it gains over importance sampling, and on images
    of the model's own how far its bounds from both sides are apart.
    """
    if not settings.annealed:
        raise DoesNotApply("ask for it with task.annealed=12 images")
    from vaezoo.annealed import anneal, simulate

    def steps(count: range) -> Iterator[int]:
        return iter(tqdm(count, "annealing", disable=None, leave=False))

    parts = []
    for first, x, y in numbered(run.batches("test", settings.annealed)):
        own, z = simulate(run.model, len(x), y, seed=seeding.derive(run.model.seed, "own", first))
        at = partial(anneal, run.model, context=y, start="posterior", first=first, progress=steps)
        sampled = estimate(run.model, x, y, max(1, settings.num_samples), first=first)
        parts.append((at(x), sampled, at(own), at(own, z=z)))
    found, sampled, below, above = map(Evidence.joined, zip(*parts, strict=True))
    values = average("log_p_annealed", found.log_px) | average("annealed_gap", above.log_px - below.log_px)
    if settings.num_samples:
        values |= average("annealed_gain", found.log_px - sampled.log_px)
    num = len(found.log_px)
    return Found(values, QUANTITIES, f"annealed importance sampling: {num} images, 16 chains, 1,000 steps")


def latent(run: Trained, settings: Settings) -> Found:
    """Active units, how the rate splits over the test set, and a verdict in words."""
    from vaezoo.metrics import latent as metrics

    if run.model.conditional:
        raise DoesNotApply("q(z | x, y) is given the labels: what it tells is not of x alone")
    q, p, kl_dim = posteriors(run)
    with seeding.isolated(CPU, run.model.seed, "latent"):
        z = q.sample()  # all in one draw, so that the batch size changes nothing
    with torch.no_grad():
        log_prior = p.log_prob(z.to(run.model.device, torch.float32)).cpu()
    names = parameters_of(q)
    given = {name: getattr(q.base_dist if isinstance(q, Independent) else q, name) for name in names}
    if isinstance(q, Independent):
        metric: Any = metrics.LatentMetrics()
        metric.update(**given, z=z, log_prior=log_prior, kl_dim=kl_dim)
        values = metric.compute()
        return Found(values, metrics.QUANTITIES, metrics.verdict(values))
    metric = metrics.JointLatentMetrics(type(q), names)
    metric.update(**given, z=z, log_prior=log_prior)
    return Found(metric.compute(), metrics.QUANTITIES)


def parameters_of(q: Distribution) -> tuple[str, ...]:
    """The names of the parameters that make a posterior anew."""
    q = q.base_dist if isinstance(q, Independent) else q
    if isinstance(q, Normal):
        return ("loc", "scale")
    if (names := JOINT.get(type(q))) is None:
        raise DoesNotApply(f"the density of a {type(q).__name__} at other images' codes is not known")
    return names


def posteriors(run: Trained) -> tuple[Distribution, Distribution, Tensor]:
    """q(z | x) of the whole test set as one distribution, batch shape (N,), on the CPU; p(z) as the model has it; and
    the KL of each dimension (N, D), or (N, 0) where there is none.
    """
    parts: dict[str, list[Tensor]] = {}
    kls = []
    with torch.no_grad(), seeding.isolated(run.model.device, run.model.seed, "posterior"):
        for x, y in run.batches("test", what="latent space"):
            layers = run.model(x, y, num_samples=1).latents
            if len(layers) != 1 or layers[0].p.batch_shape:
                raise DoesNotApply(f"{type(run.model).__name__} has not one stochastic layer with one prior for all x")
            q, kl = layers[0].q, layers[0].kl_per_dim
            own = q.base_dist if isinstance(q, Independent) else q
            for name in parameters_of(q):
                parts.setdefault(name, []).append(getattr(own, name).cpu())
            kls.append((x.new_zeros(len(x), 0) if kl is None else kl.flatten(1)).cpu())
    whole: Any = type(own)(**{name: torch.cat(part) for name, part in parts.items()})
    joined = Independent(whole, q.reinterpreted_batch_ndims) if isinstance(q, Independent) else whole
    return joined, layers[0].p, torch.cat(kls)


def probes(run: Trained, settings: Settings) -> Found:
    """Whether labels are in the code."""
    from vaezoo.metrics import probes as metrics

    if run.model.conditional:
        raise DoesNotApply(f"{type(run.model).__name__}'s encoder is given the labels that a probe would look for")
    if run.data.test.labels.dim() != 1:
        raise DoesNotApply("the data has factors in place of labels: see disentanglement")
    if len(run.data.test.labels.unique()) < 2:
        raise DoesNotApply("the test set has fewer than two classes")
    metric = metrics.Probes()
    for judged, (name, num) in enumerate((("train", CODES), ("test", None))):
        codes, labels = run.codes(name, num)
        metric.update(code=codes, y=labels, split=torch.full((len(labels),), judged))
    return Found(metric.compute(), metrics.QUANTITIES)


def reconstruction(run: Trained, settings: Settings) -> Found:
    """How like the test images are to the means of p(x | z = encode(x))."""
    from vaezoo.metrics import samples as metrics

    metric = metrics.ReconstructionMetrics()
    with torch.no_grad():
        for x, y in run.batches("test", what="reconstruction"):
            metric.update(x.cpu(), run.model.decode(run.model.encode(x, y), y).mean.cpu())
    values = metric.compute()
    missing = [name for name in ("ssim", "ms_ssim") if name not in values]
    notes = []
    if missing:
        size = "x".join(map(str, run.model.data_shape[1:]))
        notes.append(f"images of {size} are too small for {' and '.join(missing)}")
    if exact := metric.num_exact:
        equal = "equals its image" if exact == 1 else "equal their images"
        num = int(metric.count)
        notes.append(f"psnr is left out: {exact} of {num} reconstructions {equal} exactly (infinite PSNR)")
    return Found(values, metrics.QUANTITIES, "; ".join(notes))


def samples(run: Trained, settings: Settings) -> Found:
    """Images of the model against as many of the test set, by the features of a network."""
    judge = judge_of(run, settings.inception)
    context = in_turn(judge.labels, judge.num).to(run.model.device)
    with torch.no_grad(), seeding.isolated(run.model.device, run.model.seed, "samples"):
        images = [judge.drawn(run.model.sample(len(y), y)) for y in context.split(BATCH)]
    bar = tqdm(images, "features of samples", disable=None, delay=1, leave=False)
    values = judge.scores(torch.cat([judge.of(x) for x in bar]))
    missing = "" if "recall" in values else f"; {judge.num} images are too few for precision, recall and their like"
    return Found(values | judge.references(), judge.metrics.QUANTITIES, judge.note + missing)


def samplers(run: Trained, settings: Settings) -> Found:
    """The FID of images from z of densities fitted to the codes, beside that from the prior: the prior's hole."""
    from vaezoo import samplers as fits

    model = run.model
    if not isinstance(model, VAE) or model.prior.space != "real" or model.conditional:
        raise DoesNotApply(f"{type(model).__name__}'s codes are not vectors of R^D that x alone decides")
    judge = judge_of(run, settings.inception)
    with torch.no_grad(), seeding.isolated(model.device, model.seed, "codes"):
        passes = run.batches("train", CODES, "codes")
        codes = torch.cat([model(x, y, num_samples=1).latent.z[0].cpu() for x, y in passes])
    values, quantities, notes = {}, {}, [judge.note]
    fitted: dict[str, Any] = {"gmm": fits.gmm, "flow": fits.flow, "two_stage": fits.two_stage}
    for name, fit in fitted.items():
        try:
            z = fit(codes, seed=model.seed).sample(judge.num, seed=model.seed)
        except ValueError as reason:
            notes.append(f"fid_{name} is left out: {reason}")
            continue
        with torch.no_grad(), seeding.isolated(model.device, model.seed, "samples"):
            features = [judge.of(judge.drawn(model.decode(part.to(model.device)))) for part in z.split(BATCH)]
        values[f"fid_{name}"] = judge.metrics.fid(judge.real, torch.cat(features))
        quantities[f"fid_{name}"] = judge.metrics.QUANTITIES["fid"]._replace(meaning=f"FID, z from {SAMPLERS[name]}")
    return Found(values, quantities, "; ".join(notes))


@lru_cache(maxsize=1)
def judge_of(run: Trained, inception: str | None) -> "Judge":
    """The run's judge, made once for the groups that need it."""
    return Judge(run, inception)


class Judge:
    """The test set's features, by Inception where its weights are given, and what generated images are to be like.

    Bits are compared with bits: where a model scores bits, they are drawn from its p(x | z); else the mean is taken,
    since a density's noise is not in the picture that one means.
    """

    def __init__(self, run: Trained, inception: str | None):
        from vaezoo.metrics import samples

        data = run.data
        self.metrics = samples
        self.run, self.labels, self.num = run, data.test.labels, len(data.test.images)
        self.bits = data.support == "binary"
        self.net = network(run, inception)
        kind = "drawn from p(x | z)" if self.bits else "means of p(x | z)"
        self.note = f"samples are {kind}, judged by {self.net.describe()}; training images: what as many of them get"
        self.real = self.features("test")

    def features(self, split: str) -> Tensor:
        """Of as many of a split's images as the test set has, as the model sees them, (N, 64)."""
        return torch.cat([self.of(x) for x, _ in self.run.batches(split, self.num, "features")])

    def of(self, x: Tensor) -> Tensor:
        """The features of images, on the CPU."""
        return self.net(x.to(next(self.net.parameters()).device)).cpu()

    def drawn(self, px: Distribution) -> Tensor:
        """The images that stand for p(x | z)."""
        return (px.sample() if self.bits else px.mean).cpu()

    def scores(self, fake: Tensor) -> dict[str, float]:
        """All metrics of generated images' features."""
        metric = self.metrics.SampleMetrics()
        metric.update(real=self.real, fake=fake)
        return metric.compute()

    def references(self) -> dict[str, float]:
        """What as many training images get."""
        return self.metrics.references(self.scores(self.features("train")))


def network(run: Trained, inception: str | None) -> Any:
    """Inception where its weights are given, on the run's device; else the one that is trained here."""
    if inception is not None:
        from vaezoo.metrics.inception import Inception

        return Inception(inception).to(run.model.device)
    from vaezoo.metrics.features import features_for

    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vaezoo" / "features"
    return features_for(run.data, cache)


def disentanglement(run: Trained, settings: Settings) -> Found:
    """Whether dimensions follow factors, where they are known."""
    from vaezoo.metrics import disentanglement as metrics

    if not isinstance(run.data, FactorData):
        raise DoesNotApply(f"the factors of {type(run.data).__name__} are not known")
    codes, labels = run.codes("test")
    metric = metrics.Disentanglement()
    metric.update(code=codes, factors=labels)
    return Found(metric.compute(), metrics.QUANTITIES)


def anomaly(run: Trained, settings: Settings) -> Found:
    """How well scores tell other images from those of the test set."""
    from vaezoo.metrics import anomaly as metrics

    if settings.outliers is None:
        raise DoesNotApply("ask for it with other data, as in task.outliers=fashion_mnist")
    if run.model.conditional:
        raise DoesNotApply("other images have no labels of this model's kind")
    num = settings.num_images
    strange = replace(run, data=other_data(run, settings.outliers))
    training = run.batches("train", num, "log p(x)")
    entropy = float(metrics.scores(run.model, training, ["log_p"])["log_p"].mean())
    with seeding.isolated(run.model.device, run.model.seed, "posterior"):
        latents = run.model(*next(run.batches("test", 1))).latents
    fits = len(latents) == 1 and isinstance(latents[0].q, Independent) and type(latents[0].q.base_dist) is Normal
    names = [name for name in metrics.SCORES if name != "likelihood_regret" or fits]
    scored = [
        metrics.scores(run.model, of.batches("test", num, f"scores of {type(of.data).__name__}"), names, entropy)
        for of in (run, strange)
    ]
    values: dict[str, float] = {}
    quantities = {}
    for name in names:
        metric = metrics.Anomaly()
        for outlier, found in enumerate(scored):
            metric.update(score=found[name], outlier=torch.full_like(found[name], outlier))
        for key, value in metric.compute().items():
            base, *error = key.split("_")
            values["_".join([base, name, *error])] = value
        for key, quantity in metrics.QUANTITIES.items():
            meaning = f"{quantity.meaning}; by {metrics.SCORES[name].meaning}"
            quantities[f"{key}_{name}"] = quantity._replace(meaning=meaning)
    ours, theirs = (f"{len(of.split('test', num).images):,} of {type(of.data).__name__}" for of in (run, strange))
    note = f"{theirs} told from {ours}: an AUROC below 0.5 takes the others for the likelier"
    if not fits:
        note += "; likelihood regret is left out: it fits one layer with a diagonal normal posterior, which is not " \
            f"what {type(run.model).__name__} has"
    return Found(values, quantities, note)


def data_config(name: str) -> dict[str, Any]:
    """The config of conf/data with this name."""
    from hydra import compose
    from hydra.errors import MissingConfigException
    from omegaconf import OmegaConf

    try:
        composed = compose("config", [f"data={name}"])
    except MissingConfigException as error:
        raise ConfigError(f"task.outliers={name} is not a choice, {suggest(name, error.options or [])}") from error
    config: Any = OmegaConf.to_container(composed.data, resolve=True)
    return config


def other_data(run: Trained, name: str) -> ImageData:
    """Another data set, as the run's own is seen: binarised alike, found in the same folder."""
    config = data_config(name)
    own = run.config["data"]
    config |= {key: own[key] for key in ("binarize", "root") if key in own and key in config}
    data: ImageData = build(config, "data", tuple(run.config["trust"]), seed=run.config["seed"])
    data.prepare_data()
    data.setup()
    if data.shape != run.model.data_shape or data.support != run.data.support:
        raise ConfigError(
            f"task.outliers={name}: its images are {data.shape}, {data.support}, and the model's "
            f"{run.model.data_shape}, {run.data.support}"
        )
    return data


GROUPS: dict[str, Callable[[Trained, Settings], Found]] = {
    group.__name__: group
    for group in (likelihood, annealed, latent, probes, reconstruction, samples, samplers, disentanglement, anomaly)
}


def named(metrics: str | list) -> list[str]:
    """The names of the groups that ``metrics`` asks for."""
    names = list(GROUPS) if metrics == "all" else [metrics] if isinstance(metrics, str) else metrics
    if set(names) - set(GROUPS):
        raise ConfigError(f"task.metrics={metrics} should be all, or a list of {', '.join(GROUPS)}")
    return names
