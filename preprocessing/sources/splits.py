"""Which shapes train, validate and test: by published lists where there are any, else by the shape's own key."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from preprocessing.dataset import SPLITS
from preprocessing.sources.folders import read_text

VAL_SHARE, TEST_SHARE = 0.04, 0.04  # the rest trains


def split_of_seed(seed: int) -> str:
    """The split of a seed: decided by the seed alone, so adding shapes moves none."""
    draw = np.random.default_rng([seed, 977]).random()
    return "test" if draw < TEST_SHARE else "val" if draw < TEST_SHARE + VAL_SHARE else "train"


def split_of_name(name: str) -> str:
    """The split of a named shape, by the name alone."""
    return split_of_seed(name_seed(name))


def name_seed(name: str) -> int:
    """A number that follows from a name and from nothing else."""
    return zlib.crc32(os.fsencode(name))


def read_lists(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """Splits by name from (split, text file of one name a line); absent files are passed over."""
    splits: dict[str, str] = {}
    for split, path in files:
        if path.is_file():
            splits.update(dict.fromkeys(read_text(path).split(), split))
    return splits


def folder_lists(folder: Path) -> dict[str, str]:
    """Splits by name from the originals' `train.lst`, `val.lst` and `test.lst`."""
    return read_lists((split, folder / f"{split}.lst") for split in SPLITS)
