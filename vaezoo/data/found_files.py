"""Find the files of one kind below a folder, and the classes that its sub-folders are."""

import os
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaezoo.errors import ConfigError

NUM_SHOWN = 20  # bad files that an error names


class FoundFiles(NamedTuple):
    """The files of one kind below a folder, sorted by path.

    Args:
        root: the folder, as an absolute path without links.
        paths: paths of the files relative to ``root``.
        stamps: size in bytes and time of the last change in nanoseconds of each file, int64 (N, 2); the time is -1 if
            the file cannot be read.
        labels: class of each file, int64 (N,); -1 without a class.
        class_names: names of the sub-folders of ``root`` that hold such files; empty if there are fewer than two.
        ignored: number of other files by suffix.
        num_hidden: number of hidden files and folders and of folders ``__MACOSX``. They are ignored.
        num_links: number of links that are not followed: links to folders, and to files that are not below ``root``.
        noun: the word for the content of one file, for messages.
    """

    root: Path
    paths: list[str]
    stamps: NDArray[np.int64]
    labels: NDArray[np.int64]
    class_names: list[str]
    ignored: dict[str, int]
    num_hidden: int
    num_links: int
    noun: str


def find_files(root: str | Path, suffixes: Collection[str], noun: str) -> FoundFiles:
    """Find all files below a folder by their suffixes, in upper or lower case.

    If at least two sub-folders of ``root`` hold such files, each of them is a class.

    Args:
        root: the folder.
        suffixes: the suffixes, with a point and in lower case.
        noun: the word for the content of one file, for messages.

    Raises:
        ConfigError: there is no such folder, it has no such files, or a folder in it cannot be read.
    """
    if not os.path.isdir(root):
        problem = "is not a folder" if os.path.lexists(root) else "does not exist"
        raise ConfigError(f"data.root={show_path(root)} {problem}: give the folder of the {noun}s, data.root=FOLDER")
    top = os.path.realpath(root)
    files, ignored, num_hidden, num_links = [], Counter[str](), 0, 0
    for name, entry in walk(top):
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            num_hidden += 1
        elif entry.is_symlink() and not (os.path.isfile(entry.path) and is_below(entry.path, top)):
            num_links += 1
        elif suffix in suffixes and entry.is_file():
            stat = entry.stat()
            # A change of permissions does not change the time, but what can be read.
            files.append((name, stat.st_size, stat.st_mtime_ns if os.access(entry.path, os.R_OK) else -1))
        elif not entry.is_dir():
            ignored[suffix or "no suffix"] += 1
    if not files:
        counts = [f"{number:,} {suffix}" for suffix, number in ignored.most_common(5)]
        counts += [f"{num_hidden:,} hidden"] * bool(num_hidden) + [f"{num_links:,} links out of it"] * bool(num_links)
        raise ConfigError(
            f"data.root={show_path(root)} has no {noun} files ({', '.join(sorted(suffixes))}); "
            f"found: {', '.join(counts) or 'nothing'}"
        )
    files.sort()
    paths = [name for name, *_ in files]
    folders = [name.split("/")[0] if "/" in name else None for name in paths]
    class_names = sorted({folder for folder in folders if folder is not None})
    if len(class_names) < 2:
        class_names = []
    numbers = {name: number for number, name in enumerate(class_names)}
    return FoundFiles(
        root=Path(top),
        paths=paths,
        stamps=np.array([stamp for _, *stamp in files], np.int64),
        labels=np.array([-1 if folder is None else numbers.get(folder, -1) for folder in folders], np.int64),
        class_names=class_names,
        ignored=dict(sorted(ignored.items())),
        num_hidden=num_hidden,
        num_links=num_links,
        noun=noun,
    )


def walk(top: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield the entries of a folder and of all folders below it, each with its path relative to the folder.

    Hidden folders, ``__MACOSX`` and links are not entered.

    Raises:
        ConfigError: a folder cannot be read.
    """
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(os.path.join(top, folder)))
        except OSError as error:
            raise ConfigError(
                f"the folder {show_path(os.path.join(top, folder))} cannot be read ({error.strerror}): make it "
                f"readable, or move it out of data.root"
            ) from error
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".") and entry.name != "__MACOSX":
                folders.append(name)
            yield name, entry


def is_below(path: str, top: str) -> bool:
    """Return whether a path, with its links followed, is below a folder."""
    return os.path.realpath(path).startswith(os.path.join(top, ""))


def show_path(path: str | Path) -> str:
    """Return a path for a message: in quotes and with escapes if it has characters that cannot be printed."""
    text = os.fspath(path)
    return text if text.isprintable() else repr(text)


def bad_files_error(files: FoundFiles, bad: dict[int, str]) -> ConfigError:
    """Return the error for files that cannot be read. Of several files, the first ones are printed with their causes.

    Args:
        files: all files.
        bad: number and cause of each bad file, in order.
    """
    lines = [f"{show_path(files.paths[number])}: {cause}" for number, cause in list(bad.items())[:NUM_SHOWN]]
    listed = lines[0]
    if len(bad) > 1:
        more = [f"and {len(bad) - NUM_SHOWN:,} more"] if len(bad) > NUM_SHOWN else []
        print("\n".join(["files that cannot be read:", *(f"  {line}" for line in lines + more)]), file=sys.stderr)
        listed = "the output lists them"
    advice = "repair or remove them" if len(bad) > 1 else "repair or remove it"
    if len(bad) < len(files.paths):
        advice += f", or leave {'them' if len(bad) > 1 else 'it'} out with data.on_bad=skip"
    return ConfigError(
        f"{len(bad):,} of {len(files.paths):,} {files.noun} files in data.root={show_path(files.root)} cannot be read "
        f"({listed}): {advice}"
    )
