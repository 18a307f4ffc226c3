"""Tables that are part of scikit-learn."""

from typing import Any

from vaezoo.data.table import TableData
from vaezoo.data.table_files import TableFile, to_typed_frame
from vaezoo.errors import ConfigError, suggest

NAMES = ("breast_cancer", "diabetes", "wine")
NUMBERS = ("breast_cancer", "wine")  # measurements only: also those that happen to be whole are real


class BundledTable(TableData):
    """A table that is part of scikit-learn, no download.

    * ``breast_cancer``: 569 tumors with 30 measurements, 2 classes (Wolberg et al. 1995,
      https://doi.org/10.24432/C5DW2B);
    * ``wine``: 178 wines with 13 measurements, 3 classes (Aeberhard & Forina 1992, https://doi.org/10.24432/C5PC7J);
    * ``diabetes``: 442 patients with age, sex and 8 measurements, no classes (Efron et al. 2004,
      https://doi.org/10.1214/009053604000000067).

    Args:
        name: ``breast_cancer``, ``wine`` or ``diabetes``.
        **kwargs: arguments of ``TableData``, except for ``path`` and the options of reading a file.

    Raises:
        ConfigError: there is no such table.
    """

    def __init__(self, name: str, **kwargs: Any):
        if name not in NAMES:
            raise ConfigError(f"data.name={name} is no bundled table, {suggest(name, NAMES)}")
        super().__init__(label=None if name == "diabetes" else "class", **kwargs)
        self.name = name

    def read_file(self) -> TableFile:
        from sklearn import datasets  # imported here, since it takes a second

        options = {"scaled": False} if self.name == "diabetes" else {}
        data = getattr(datasets, f"load_{self.name}")(as_frame=True, **options)
        frame = data.data.astype(float)
        if self.label is not None:
            frame["class"] = data.target_names[data.target]
        if self.name in NUMBERS:
            self.types = dict.fromkeys(data.data.columns, "real") | dict(self.types or {})
        return TableFile(to_typed_frame(frame, []), {"table": self.name}, lambda row: f"{self.name} row {row + 1}")
