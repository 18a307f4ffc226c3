"""Tables of results with one row for each example: ``.csv``, ``.parquet`` or ``.npz``."""

import zipfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
from torch import Tensor

from vaezoo.errors import ConfigError

FORMATS = ("csv", "parquet", "npz")


def check_format(file_format: str) -> None:
    """Raise a ConfigError if there is no such format."""
    if file_format not in FORMATS:
        raise ConfigError(f"format={file_format} is not one of {', '.join(FORMATS)}")


def join_columns(keys: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray | Tensor]) -> dict[str, np.ndarray]:
    """Return the columns of a table: what the examples are called, then the results.

    A key whose head is that of a result, such as a column ``elbo`` of the user's table, gets the ending ``_in_data``.

    Args:
        keys: the columns that name the examples, (N,) each.
        results: numbers or texts of the examples, (N, ...) each.
    """
    named = {f"{head}_in_data" if head in results else head: column for head, column in keys.items()}
    return named | {
        head: value.cpu().numpy() if isinstance(value, Tensor) else value for head, value in results.items()
    }


def flatten_columns(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return columns (N,) only: an array ``z`` (N, D) becomes z0 ... z{D-1}, an array (N, D, E) z0_0, z0_1 and so on.

    >>> list(flatten_columns({"elbo": np.zeros(5), "z": np.zeros((5, 1, 2))}))
    ['elbo', 'z0_0', 'z0_1']
    """
    flat: dict[str, np.ndarray] = {}
    for head, values in columns.items():
        places = product(*map(range, values.shape[1:]))
        for place, column in zip(places, values.reshape(len(values), -1).T, strict=True):
            flat[head + "_".join(map(str, place))] = column
    return flat


def write_rows(path: Path, columns: Mapping[str, np.ndarray], file_format: str) -> Path:
    """Write a table with one row for each example, and return its file.

    Args:
        path: the file without suffix.
        columns: arrays (N, ...) by their heads. Their order is that of the columns.
        file_format: ``csv`` (UTF-8, with all digits), ``parquet`` or ``npz``, which holds the arrays as they are.
    """
    import pandas

    file = path.with_name(f"{path.name}.{file_format}")
    if file_format == "npz":  # texts as fixed-width strings: arrays of objects could not be loaded without pickle
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:  # np.savez takes no array of the name "file"
            for head, values in columns.items():
                with archive.open(f"{head}.npy", "w", force_zip64=True) as part:
                    array = values.astype(str) if values.dtype == object else np.asarray(values)
                    np.lib.format.write_array(part, array, allow_pickle=False)
        return file
    frame = pandas.DataFrame(flatten_columns(columns))
    if file_format == "parquet":
        frame.to_parquet(file, index=False)
    else:
        frame.to_csv(file, index=False)
    return file
