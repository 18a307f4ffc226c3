"""Scores that tell outliers from the test set."""

from dataclasses import replace

import torch

from vaezoo import seeding
from vaezoo.data import ImageData
from vaezoo.distributions import is_diagonal_normal
from vaezoo.errors import ConfigError, DoesNotApply
from vaezoo.evaluation.base import Found, Settings, data_config
from vaezoo.instantiate import build
from vaezoo.runs.trained import TrainedRun


def anomaly(run: TrainedRun, settings: Settings) -> Found:
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
    fits = len(latents) == 1 and is_diagonal_normal(latents[0].q)
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
        note += (
            "; likelihood regret is left out: it fits one layer with a diagonal normal posterior, which is not "
            f"what {type(run.model).__name__} has"
        )
    return Found(values, quantities, note)


def other_data(run: TrainedRun, name: str) -> ImageData:
    """Another data set, as the run's own is seen: binarised alike, found in the same folder."""
    config = data_config(name)
    own = run.config["data"]
    config |= {key: own[key] for key in ("binarize", "root") if key in own and key in config}
    data: ImageData = build(config, "data", tuple(run.config["allow_packages"]), seed=run.config["seed"])
    data.prepare_data()
    data.setup()
    if data.shape != run.model.data_shape or data.data_kind != run.data.data_kind:
        raise ConfigError(
            f"task.outliers={name}: its images are {data.shape}, {data.data_kind}, and the model's "
            f"{run.model.data_shape}, {run.data.data_kind}"
        )
    return data
