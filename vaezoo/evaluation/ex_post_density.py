"""Samples from densities that are fitted to the codes."""

from typing import Any

import torch

from vaezoo import seeding
from vaezoo.errors import DoesNotApply
from vaezoo.evaluation.base import BATCH, CODES, Found, Settings
from vaezoo.evaluation.samples import judge_of
from vaezoo.runs.trained import TrainedRun

SAMPLERS = {
    "gmm": "10 normals fitted to the codes",
    "flow": "a flow fitted to the codes",
    "two_stage": "a second VAE of the codes",
}


def samplers(run: TrainedRun, settings: Settings) -> Found:
    """The FID of images from z of densities fitted to the codes, beside that from the prior: the prior's hole."""
    from vaezoo.inference import ex_post_density as fits

    model = run.model
    if model.latent_kind != "vector" or model.conditional:
        raise DoesNotApply(f"{type(model).__name__}'s codes are not vectors of R^D that x alone decides")
    judge = judge_of(run, settings.inception)
    with torch.no_grad(), seeding.isolated(model.device, model.seed, "codes"):
        passes = run.batches("train", CODES, "codes")
        codes = torch.cat([model(x, y, num_samples=1).latent.z[0].cpu() for x, y in passes])
    values, quantities, notes = {}, {}, [judge.note]
    fitted: dict[str, Any] = {"gmm": fits.gmm_sampler, "flow": fits.flow_sampler, "two_stage": fits.two_stage_sampler}
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
