"""Files below a folder, as people keep them: through links, and without what macOS leaves beside them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from foundation.local_paths import local_path
from preprocessing.errors import DatasetError


def read_text(path: Path) -> str:
    """A text file that comes with a collection.

    Raises:
        DatasetError: if it is no text.
    """
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not text; copy it again") from error


def existing_folder(root: Path) -> Path:
    """A folder that the user names, by its full path.

    Raises:
        DatasetError: if there is none.
    """
    root = local_path(root).absolute()
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    return root


def is_clutter(name: str) -> bool:
    """Whether a file or folder is no one's data: `._*` and `__MACOSX` of macOS archives."""
    return name.startswith("._") or name == "__MACOSX"


def folders_below(root: Path) -> Iterator[Path]:
    """A folder and all below it, also through links, each real folder once."""
    seen: set[str] = set()
    for place, folders, _ in os.walk(root, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not is_clutter(name))
        yield Path(place)


def files_below(root: Path, suffixes: Sequence[str]) -> list[Path]:
    """The files with one of these suffixes (in any case) below a folder, sorted."""
    return sorted(
        path
        for folder in folders_below(root)
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not is_clutter(path.name) and path.is_file()
    )
