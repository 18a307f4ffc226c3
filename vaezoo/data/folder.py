"""A folder of picture files of any kind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.byte_cache import ByteCache, cache_folder
from vaezoo.data.found_files import FoundFiles, bad_files_error, show_path
from vaezoo.data.images import ImageData
from vaezoo.data.memory import available_memory, check_memory
from vaezoo.data.options import are_integers, is_range, require
from vaezoo.data.own import OwnData
from vaezoo.data.picture_cache import PictureOptions, load_pictures
from vaezoo.data.picture_files import PictureSettings, find_pictures
from vaezoo.data.splits import LazyExamples, Split, count_labels


class FolderData(OwnData, ImageData):
    """Provide the pictures below a folder: png, jpeg, webp, bmp, tiff and gif files of any mode.

    They are decoded once, in a process on each core, into a cache of bytes below ``~/.cache/vaezoo/pictures`` (or
    ``$XDG_CACHE_HOME``). The cache is read from the disk if it is large for the memory. If at least two sub-folders
    hold pictures, their names are the classes; the label of a picture outside of them is -1.

    EXIF rotations are applied; ICC profiles are not. Of an animation or a file with several pages, the first one is
    read. Pictures are scaled with antialiasing.

    Attributes:
        files: the files and their classes; known after ``inspect`` or ``setup``.
        cache: the decoded pictures and what is known of them; known after ``inspect`` or ``setup``.

    Args:
        root: the folder.
        size: height and width of all pictures, [H, W] or one number for both. None: the size of the files, which must
            be the same for all.
        channels: 1 (grey) or 3 (color). None: 1 if the files and ``background`` are grey by their mode, else 3.
        fit: ``crop``: scale a picture until it covers the size, and cut out the center; ``pad``: scale it until it fits
            into the size, and fill the rest with ``background``.
        background: color behind transparent pixels and at the sides of ``pad``: a grey level from 0 to 255, or
            [red, green, blue].
        value_range: values of black and white, [LOW, HIGH], in grey files with more than 8 bits per pixel. None: [0,
            65535] for 16 bits and [0, 4095] for 12 bits; files with floats or 32 bits cannot be read.
        on_bad: what happens if files cannot be read. ``error``: the first 20 are named in an error; ``skip``: they are
            left out.
        in_memory: whether all pictures are held in memory. None: they are if they take less than a quarter of the free
            memory.
        binarize: as in ``ImageData``; ``auto`` without a likelihood: ``none``, or ``dynamic`` if all pixels of all
            pictures are 0 or 255, so that nothing is drawn.
        **kwargs: arguments of ``OwnData`` and ``DataModule``.

    Raises:
        ConfigError: an option has no possible value.
    """

    files: FoundFiles
    cache: ByteCache
    label_place = "data.root has a sub-folder for each class"

    def __init__(
        self,
        root: str = "data",
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        fit: str = "crop",
        background: int | Sequence[int] = 255,
        value_range: Sequence[float] | None = None,
        on_bad: str = "error",
        in_memory: bool | None = None,
        binarize: str = "auto",
        **kwargs: Any,
    ):
        super().__init__(root=root, binarize=binarize, **kwargs)
        sizes = (size, size) if isinstance(size, int) else size
        colors = (background,) * 3 if isinstance(background, int) else background
        require(sizes is None or are_integers(sizes, 2, 1, 2**16), "size", size, "64 or [HEIGHT,WIDTH]")
        require(channels in (None, 1, 3), "channels", channels, "1, 3 or null")
        require(fit in ("crop", "pad"), "fit", fit, "crop or pad")
        require(are_integers(colors, 3, 0, 255), "background", background, "a level from 0 to 255 or [RED,GREEN,BLUE]")
        require(value_range is None or is_range(value_range), "value_range", value_range, "[LOW,HIGH] or null")
        require(on_bad in ("error", "skip"), "on_bad", on_bad, "error or skip")
        self.options = PictureOptions(
            size=None if sizes is None else (sizes[0], sizes[1]),
            channels=channels,
            fit=fit,
            background=(colors[0], colors[1], colors[2]),
            value_range=None if value_range is None else (float(value_range[0]), float(value_range[1])),
        )
        self.on_bad, self.in_memory = on_bad, in_memory
        self.class_names = []

    def fits(self, description: Mapping[str, Any]) -> bool:
        return len(description["shape"]) == 3 and "features" not in description

    def use_description(self, description: Mapping[str, Any]) -> None:
        channels, *size = description["shape"]
        self.options = self.options._replace(
            size=self.options.size or (size[0], size[1]), channels=self.options.channels or channels
        )

    def read_all(self) -> tuple[Split, np.ndarray]:
        files = self.files = find_pictures(self.root)
        cache = self.cache = load_pictures(files, self.options, cache_folder("pictures"))
        if bad := dict(cache.record["bad"]):
            if self.on_bad == "error":
                raise bad_files_error(files, bad)
            print(f"{len(bad):,} of {len(files.paths):,} picture files cannot be read and are left out")
        self.class_names = files.class_names
        self.binary = cache.record["is_binary"]
        self.default_binarize = "dynamic" if self.binary else "none"
        rows = torch.from_numpy(cache.arrays["rows"])
        return Split(self.load_rows(cache, rows), torch.from_numpy(files.labels)[rows]), cache.arrays["digests"]

    def load_rows(self, cache: ByteCache, rows: Tensor) -> Tensor | LazyExamples:
        """Return rows of the cache, in memory or read from the disk when they are indexed."""
        needed, free = len(rows) * cache.nbytes // len(cache.rows), available_memory()
        if self.in_memory or (self.in_memory is None and needed < free / 4):
            check_memory(f"data.root={show_path(self.root)}", needed, "use data.in_memory=false")
            return cache.read(rows)
        print(f"the pictures ({needed / 1e6:,.0f} MB) are read from the disk: {free / 1e6:,.0f} MB of memory are free")
        return LazyExamples(cache.read, rows)

    def picture_settings(self) -> PictureSettings:
        _size, _channels, fit, background, value_range = self.options
        return super().picture_settings()._replace(fit=fit, background=background, value_range=value_range)

    def check_options(self) -> None:
        self.inspect()  # the files decide whether all pixels are 0 or 255
        self.resolve_binarize(None)

    def all_keys(self) -> dict[str, np.ndarray]:
        """Return the path of each picture, relative to ``root``."""
        return {"file": np.array(self.files.paths, dtype=object)[self.cache.arrays["rows"]]}

    def describe(self) -> dict[str, Any]:
        options = {"fit": self.options.fit, "background": list(self.options.background)}
        value_range = self.options.value_range and list(self.options.value_range)
        layout = "NHW" if self.known_shape and self.known_shape[0] == 1 else "NHWC"  # of pictures as arrays of NumPy
        found = {"value_range": value_range, "class_names": self.class_names, "layout": layout}
        return super().describe() | options | found

    def report(self) -> dict[str, Any]:
        files, record, arrays = self.files, self.cache.record, self.cache.arrays
        labels = torch.from_numpy(files.labels[arrays["rows"]])
        sizes, counts = np.unique(arrays["sizes"], axis=0, return_counts=True)
        frequent = np.argsort(-counts, kind="stable")[:5]
        return {
            "picture files": len(files.paths),
            "bad files": {show_path(files.paths[number]): cause for number, cause in record["bad"]},
            "ignored files": files.ignored,
            "hidden files and folders": files.num_hidden,
            "links not followed": files.num_links,
            "classes": count_labels(labels, files.class_names),
            "pictures outside of the class folders": int((labels < 0).sum()) if files.class_names else 0,
            "files with several frames": record["animated"],
            "duplicate files": len(arrays["digests"]) - len(np.unique(arrays["digests"])),
            "modes": record["modes"],
            "sizes of the files": {"x".join(map(str, sizes[i].tolist())): int(counts[i]) for i in frequent},
            "different sizes": len(counts),
            "cache": str(self.cache.path),
            "cache in bytes": self.cache.nbytes,
        }
