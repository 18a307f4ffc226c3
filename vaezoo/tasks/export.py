"""The task ``export``: write a trained model to files that run without vaezoo."""

from pathlib import Path
from typing import Any

import torch

from vaezoo.errors import ConfigError
from vaezoo.export import FileReport, check_packages, export_model
from vaezoo.export.comparison import DEFINITION, LIMIT
from vaezoo.export.files import WEIGHTS_FILES
from vaezoo.export.model import BATCH_SIZES
from vaezoo.runs.summary import write_summary
from vaezoo.runs.trained import open_run


def export(config: dict[str, Any], num: int) -> None:
    """Write encoder and decoder as ONNX and ``torch.export`` files, the weights as safetensors, and a comparison.

    Args:
        config: the resolved config.
        num: number of test examples on which the files are compared with the model, evenly spaced, at least 7.

    Raises:
        ConfigError: a package is missing, the run cannot be loaded, or a file does not give the numbers of the model.
    """
    if type(num) is not int or num < max(BATCH_SIZES):
        raise ConfigError(f"num={num} should be an integer >= {max(BATCH_SIZES)}")
    check_packages()
    run = open_run(config, ("num",))
    folder, model = Path(config["run_dir"]), run.model.cpu()
    x, y = (torch.cat(parts) for parts in zip(*run.batches("test", num), strict=True))
    reports = export_model(model, run.data.describe(), folder, x, y, run.config["data"].get("binarize"))
    files = [report.path for report in reports if report.reason is None]
    files += [folder / name for name in (*WEIGHTS_FILES, "export.json")]
    print("\n".join([run.title("export"), *format_reports(reports), *map(str, files)]))
    if broken := [report for report in reports if not report.works]:
        report = broken[0]
        fault = report.reason or f"it differs from the model by {report.difference:.1e}, more than {LIMIT:.0e}"
        raise ConfigError(f"{report.path} cannot be used: {fault}")
    write_summary(run.config, noun=run.data.noun, task="export", checkpoint=str(run.path), files=list(map(str, files)))


def format_reports(reports: list[FileReport]) -> list[str]:
    """Return the lines of the comparison: each file with its largest difference, and the output that has it."""
    lines = [f"differences from torch: {DEFINITION}, at most {LIMIT:.0e}"]
    for report in reports:
        worst = max(report.differences, key=lambda name: report.differences[name], default="")
        result = f"{report.difference:.1e} ({worst})" if report.differences else f"failed: {report.reason}"
        lines.append(f"  {report.path.name:<13} {result}")
    return lines
