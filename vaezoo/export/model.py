"""Export a model: all files, and their comparison with the model."""

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import vaezoo
from vaezoo.export.comparison import DEFINITION, LIMIT, FileReport, compare_file
from vaezoo.export.files import write_function, write_weights
from vaezoo.export.functions import Decoder, Encoder
from vaezoo.export.preprocessing import Preprocessing
from vaezoo.models import LatentVariableModel

NUM_TRACED = 2  # examples in the batch with which the graph is recorded; the files take any number
BATCH_SIZES = (1, 3, 7)  # in the comparison, besides that of all examples


def export_model(
    model: LatentVariableModel,
    description: Mapping[str, Any],
    folder: Path,
    x: Tensor,
    labels: Tensor,
    binarize: str | None = None,
) -> list[FileReport]:
    """Write encoder, decoder and weights of a model into a folder, and compare the files with the model.

    The files are ``encoder.onnx``, ``decoder.onnx``, ``encoder.pt2``, ``decoder.pt2``, ``model.safetensors`` with
    ``model.json``, and ``export.json`` with the comparison.

    Args:
        model: the model, on the CPU and in eval mode.
        description: what ``DataModule.describe`` returned for the data of the training.
        folder: the folder of the files, which exists.
        x: examples for the comparison, as the model sees them, (N, *data_shape) with N >= 7.
        labels: their labels, (N, ...).
        binarize: the mode of ``ImageData``, if the data are images.

    Returns:
        The comparison of each ONNX and .pt2 file with the model.
    """
    preprocessing = Preprocessing(description, binarize)
    metadata = {
        "model": {"class": type(model).__name__, "latent_kind": model.latent_kind, "prior": describe_prior(model)},
        "data": {**description, **preprocessing.describe()},
        "versions": {"vaezoo": vaezoo.__version__, "python": platform.python_version(), "torch": torch.__version__},
    }
    sizes = sorted({min(size, len(x)) for size in (*BATCH_SIZES, len(x))})
    batches = [(x[:size], labels[:size]) for size in sizes]
    reports, functions = [], {}
    for make in (Encoder, Decoder):
        function = make(model, preprocessing).eval()
        with torch.no_grad():
            inputs = function.example_inputs(x[:NUM_TRACED], labels[:NUM_TRACED])
            functions[function.name] = function.describe(inputs, function(**inputs))
        for path, reason in write_function(function, inputs, folder, functions[function.name] | metadata).items():
            reports.append(compare_file(path, function, batches, reason))
    config = {key: value for key, value in (model.config or {}).items() if key in ("name", "seed", "model")}
    write_weights(model, folder, {"config": config, "functions": functions} | metadata)
    comparison = {
        "definition": DEFINITION,
        "limit": LIMIT,
        "batch_sizes": sizes,
        "traced_batch_size": NUM_TRACED,
        "files": {report.path.name: report.describe() for report in reports},
    }
    (folder / "export.json").write_text(json.dumps(comparison, indent=1), encoding="utf-8")
    return reports


def describe_prior(model: LatentVariableModel) -> str:
    """Return the class of the prior p(z), from which z is drawn to make new examples."""
    prior = getattr(model, "prior", None)
    return type(prior).__name__ if isinstance(prior, torch.nn.Module) else "the model's own"
