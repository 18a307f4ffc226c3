"""The group ``samplers``: samples from densities that are fitted to the codes after training."""

from typing import Any

import torch

from vaezoo import seeding
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import BATCH, CODES, EvaluationResult, EvaluationSettings
from vaezoo.evaluation.samples import get_sample_evaluator
from vaezoo.metrics.quantities import Quantity
from vaezoo.runs.trained import TrainedRun

SAMPLERS = {
    "gmm": Quantity("squared feature units", "FID, z from 10 normals fitted to the codes", -1, "FID GMM"),
    "flow": Quantity("squared feature units", "FID, z from a flow fitted to the codes", -1, "FID flow"),
    "two_stage": Quantity("squared feature units", "FID, z from a second VAE of the codes", -1, "FID two-stage"),
}


def samplers(run: TrainedRun, settings: EvaluationSettings) -> EvaluationResult:
    """Compute the FID of images from z of densities that are fitted to the codes.

    A lower FID than with z from the prior shows that the codes do not fill the prior.
    """
    from vaezoo.inference import ex_post_density as fits

    model = run.model
    if model.latent_kind != "vector" or model.conditional:
        raise DoesNotApply(f"{type(model).__name__}'s codes are not vectors of R^D that depend on x only")
    evaluator = get_sample_evaluator(run, settings.inception)
    with torch.no_grad(), seeding.isolated(model.device, model.seed, "codes"):
        batches = run.batches("train", CODES, "codes")
        codes = torch.cat([model(x, y, num_samples=1).latent.z[0].cpu() for x, y in batches])
    values, notes = {}, [evaluator.note]
    fitted: dict[str, Any] = {"gmm": fits.gmm_sampler, "flow": fits.flow_sampler, "two_stage": fits.two_stage_sampler}
    for name, fit in fitted.items():
        try:
            z = fit(codes, seed=model.seed).sample(evaluator.num_images, seed=model.seed)
        except ValueError as reason:
            notes.append(f"fid_{name} is left out: {reason}")
            continue
        with torch.no_grad(), seeding.isolated(model.device, model.seed, "samples"):
            images = (evaluator.to_images(model.decode(part.to(model.device))) for part in z.split(BATCH))
            features = torch.cat([evaluator.features(x) for x in images])
        values[f"fid_{name}"] = evaluator.metrics.fid(evaluator.real, features)
    quantities = {f"fid_{name}": quantity for name, quantity in SAMPLERS.items()}
    return EvaluationResult(values, quantities, "; ".join(notes))
