"""NPZ archives of numbers: whatever is wrong with one, the error names the file, and never advises to open pickles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from preprocessing.errors import DatasetError


@contextmanager
def open_archive(path: Path) -> Iterator[NpzFile]:
    """Open an NPZ archive for the duration of a block that reads it; pickled objects are refused.

    Raises:
        DatasetError: if it is missing, none, or damaged, also where that shows in the block.
    """
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, NpzFile):
                raise ValueError("it is a single array")
            with stored:
                yield stored
    except DatasetError:
        raise
    except Exception as error:  # numpy raises what its parsers of zip and npy happen to raise
        raise DatasetError(f"{path}: cannot be read ({unreadable(error)}); copy it again") from error


def unreadable(error: Exception) -> str:
    """Why NumPy could not read a file, without its advice to load what may run code."""
    words = str(error) or type(error).__name__
    return "it holds no plain arrays, and pickles are never opened" if "allow_pickle" in words else words
