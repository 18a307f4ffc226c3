"""The files of an exported model: write them, and run them.

torch, onnx and onnxruntime have names for parts of their graphs in which there are paths of this machine: they are
removed, because such files are given to others.
"""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vaezoo.errors import ConfigError
from vaezoo.export.functions import BATCH, ExportedFunction

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "safetensors")
SUFFIXES = (".onnx", ".pt2")
WEIGHTS_FILES = ("model.safetensors", "model.json")
METADATA_FILE = "metadata.json"  # inside a .pt2 file
# ONNX has no expm1, and exp(x) - 1 loses the digits of small x. The sigmoid of onnxruntime has an absolute precision:
# of a value of 1e-4, three digits are right. These forms keep the digits of float32.
ACCURATE_FORMS = {
    torch.ops.aten.expm1.default: lambda x: (x.double().exp() - 1).to(x.dtype),
    torch.ops.aten.sigmoid.default: lambda x: 1 / (1 + (-x).exp()),
}


def check_packages() -> None:
    """Raise a ConfigError if a package that the export needs is missing."""
    missing = []
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ConfigError(
            f"task=export needs {', '.join(missing)}, which cannot be imported: pip install 'vaezoo[export]'"
        )


class UsedTensors(TorchFunctionMode):
    """Collects the ids of all tensors that are passed to functions of torch while it is active.

    Attributes:
        ids: the ids.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.add([*args, *kwargs.values()])
        return func(*args, **kwargs)

    def add(self, values: Sequence[Any]) -> None:
        """Collect the ids of tensors in a sequence, and in sequences in it."""
        for value in values:
            if isinstance(value, Tensor):
                self.ids.add(id(value))
            elif isinstance(value, list | tuple):
                self.add(value)


def trace(function: ExportedFunction, inputs: Mapping[str, Tensor]) -> torch.export.ExportedProgram:
    """Return the graph of a function, for any batch size, with the weights that it uses.

    Args:
        function: the function, in eval mode.
        inputs: example inputs by name, for at least two examples.
    """
    batch = torch.export.Dim(BATCH)
    shapes = {name: {0: batch} for name in inputs}

    smaller = copy.deepcopy(function)  # a program keeps all weights of its module
    with torch.no_grad(), without_messages():
        with UsedTensors() as used:
            smaller(**inputs)
        for name, child in list(smaller.model.named_children()):
            ids = {id(tensor) for tensor in chain(child.parameters(), child.buffers())}
            if ids and ids.isdisjoint(used.ids):
                delattr(smaller.model, name)
        program = torch.export.export(smaller, (), dict(inputs), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


def write_function(
    function: ExportedFunction, inputs: Mapping[str, Tensor], folder: Path, metadata: Mapping[str, Any]
) -> dict[Path, str | None]:
    """Write a function as ``NAME.onnx`` and ``NAME.pt2``.

    Args:
        function: the function, in eval mode.
        inputs: example inputs by name, for at least two examples.
        folder: the folder of the files.
        metadata: plain values that are written into the files; under ``outputs`` the names of the outputs.

    Returns:
        The files, each with the reason if it cannot be written, else None.
    """
    paths = [folder / f"{function.name}{suffix}" for suffix in SUFFIXES]
    try:
        program = trace(function, inputs)
    except Exception as error:  # torch raises errors of many classes for what it cannot trace
        return dict.fromkeys(paths, describe_failure(error))
    written: dict[Path, str | None] = {}
    for path, write in zip(paths, (write_onnx, write_pt2), strict=True):
        try:
            write(program, path, metadata)
            written[path] = None
        except Exception as error:  # as above
            written[path] = describe_failure(error)
    return written


def describe_failure(error: Exception) -> str:
    """Return the first line of an error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph as an ONNX file. Its ``metadata_props`` hold the metadata, each entry as JSON."""
    import onnx

    inputs, outputs = ([tensor["name"] for tensor in metadata[key]] for key in ("inputs", "outputs"))
    with without_messages():
        program = program.run_decompositions(ACCURATE_FORMS)
        exported = torch.onnx.export(program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False)
    assert exported is not None
    model = exported.model_proto
    (batch,) = {value.type.tensor_type.shape.dim[0].dim_param for value in model.graph.input}
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == batch:
                dim.dim_param = BATCH
    del model.graph.value_info[:]  # shapes of intermediate values, in terms of the old name
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        node.doc_string = ""
        del node.metadata_props[:]
    properties = {name: json.dumps(value, ensure_ascii=False) for name, value in metadata.items()}
    onnx.helper.set_model_props(model, properties)
    onnx.save(model, path)


def write_pt2(program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write a graph as a file of ``torch.export``. Its extra file ``metadata.json`` holds the metadata."""
    with without_messages():
        torch.export.save(program, path, extra_files={METADATA_FILE: json.dumps(metadata, ensure_ascii=False)})


def write_weights(model: torch.nn.Module, folder: Path, metadata: Mapping[str, Any]) -> list[Path]:
    """Write the weights as ``model.safetensors`` and the metadata as ``model.json``; return the paths."""
    from safetensors.torch import save

    weights = {name: value.detach().cpu().clone().contiguous() for name, value in model.state_dict().items()}
    paths = [folder / name for name in WEIGHTS_FILES]
    paths[0].write_bytes(save(weights))
    paths[1].write_text(json.dumps(metadata, indent=1, ensure_ascii=False), encoding="utf-8")
    return paths


def open_file(path: Path) -> Callable[..., Mapping[str, Tensor]]:
    """Return the function in a file: from inputs by name to outputs by name. onnxruntime runs ONNX files."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]

        def run(**inputs: Tensor) -> dict[str, Tensor]:
            values = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}

        return run
    with without_messages():
        return torch.no_grad()(torch.export.load(path).module())


@contextmanager
def without_messages() -> Iterator[None]:
    """Silence the warnings of torch's exporters: they are about their own code, or print a graph that has failed."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
