"""The group ``anomaly``: scores that separate outliers from the test set."""

from dataclasses import replace

import torch

from vaezoo import seeding
from vaezoo.data import DataModule, FashionMNIST, ImageData
from vaezoo.distributions import is_diagonal_normal
from vaezoo.errors import ConfigError, DoesNotApply
from vaezoo.evaluation.base import EvaluationResult, EvaluationSettings, compose_data_config, context_noun
from vaezoo.instantiate import build
from vaezoo.models.checks import are_close
from vaezoo.runs.trained import TrainedRun


def anomaly(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Measure how well scores separate the images of another data set from those of the test set."""
    from vaezoo.metrics import anomaly as metrics

    if settings.outliers is None:
        raise DoesNotApply(f"ask for it with other data, {suggest_outliers(run.data)}")
    if run.model.conditional:
        raise DoesNotApply(f"other images have no {context_noun(run.data)} of this model's kind")
    num = settings.num_images
    outlier_run = replace(run, data=other_data(run, settings.outliers))
    training = run.batches("train", num, "log p(x)")
    entropy = float(metrics.scores(run.model, training, ["log_p"])["log_p"].mean())
    with seeding.isolated(run.model.device, run.model.seed, "posterior"):
        latents = run.model(*next(run.batches("test", 1))).latents
    is_normal = len(latents) == 1 and is_diagonal_normal(latents[0].q)
    names = [name for name in metrics.SCORES if name != "likelihood_regret" or is_normal]
    scores = [
        metrics.scores(part.model, part.batches("test", num, f"scores of {type(part.data).__name__}"), names, entropy)
        for part in (run, outlier_run)
    ]
    values: dict[str, float] = {}
    quantities = {}
    for name in names:
        metric = metrics.Anomaly()
        for is_outlier, found in enumerate(scores):
            metric.update(score=found[name], outlier=torch.full_like(found[name], is_outlier))
        for key, value in metric.compute().items():
            base, *error = key.split("_")
            values["_".join([base, name, *error])] = value
        score = metrics.SCORES[name]
        for key, quantity in metrics.QUANTITIES.items():
            quantities[f"{key}_{name}"] = quantity._replace(
                meaning=f"{quantity.meaning}; by {score.meaning}", label=f"{quantity.title(key)} {score.title(name)}"
            )
    num_inliers, num_outliers = (len(part.split("test", num).x) for part in (run, outlier_run))
    note = (
        f"outliers: {num_outliers:,} images of {type(outlier_run.data).__name__}; inliers: {num_inliers:,} of "
        f"{type(run.data).__name__}; AUROC < 0.5: the model finds the outliers more likely"
    )
    if not is_normal:
        note += (
            "; likelihood regret is left out: it fits one layer with a diagonal normal posterior, which "
            f"{type(run.model).__name__} does not have"
        )
    return EvaluationResult(values, quantities, note)


def suggest_outliers(data: DataModule) -> str:
    """Return how to choose outliers that have the shape and the kind of values of a run's own data."""
    if isinstance(data, ImageData) and data.shape == (1, 28, 28):
        return f"as in task.outliers={'mnist' if isinstance(data, FashionMNIST) else 'fashion_mnist'}"
    shape = "x".join(map(str, data.shape or ()))
    return f"task.outliers=NAME: a config of conf/data with {data.noun}s of shape {shape} and {data.data_kind} values"


def other_data(run: TrainedRun, name: str) -> DataModule:
    """Load another data set with the run's binarization and data folder.

    Raises:
        ConfigError: its images have another shape, or another kind of values, or its numbers mean something else.
    """
    config = compose_data_config(name)
    own = run.config["data"]
    config |= {key: own[key] for key in ("binarize", "root") if key in own and key in config}
    data: DataModule = build(config, "data", tuple(run.config["allow_packages"]), seed=run.config["seed"])
    data.prepare_data()
    data.setup()
    if data.shape != run.model.data_shape or data.data_kind != run.data.data_kind:
        raise ConfigError(
            f"task.outliers={name}: its {data.noun}s have shape {data.shape} and {data.data_kind} values, the model "
            f"needs {run.model.data_shape} and {run.data.data_kind}; choose another data set"
        )
    own_encoding, encoding = (part.encoding(part.describe()) for part in (run.data, data))
    if not are_close(own_encoding, encoding):
        raise ConfigError(
            f"task.outliers={name}: its scales, categories or tokens are not those of {type(run.data).__name__}, so "
            f"the numbers in x mean something else: choose another data set"
        )
    return data
