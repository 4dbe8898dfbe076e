"""Damaged archives are one line with the file's name, and no advice to open pickles."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from preprocessing.errors import DatasetError
from preprocessing.numpy_archives import open_archive


def archive(path: Path, values: np.ndarray) -> bytes:
    np.savez(path, values=values)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["junk", "objects", "cut", "empty", "a single array"])
def test_damage_is_named_and_nothing_unsafe_advised(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    if kind == "junk":
        path.write_bytes(np.random.default_rng(0).bytes(5_000))
    elif kind == "objects":
        archive(path, np.array([{1: 2}], dtype=object))
    elif kind == "cut":
        path.write_bytes(archive(path, np.zeros(1_000))[:-100])
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        with path.open("wb") as file:
            np.save(file, np.zeros(5))
    with pytest.raises(DatasetError) as error, open_archive(path) as stored:
        stored["values"]
    words = str(error.value)
    assert words.startswith(f"{path}: cannot be read (")
    assert len(words.splitlines()) == 1
    assert not any(advice in words.lower() for advice in ("allow_pickle", "trust", "unsafe"))


def test_sound_arrays_are_read(tmp_path: Path) -> None:
    archive(tmp_path / "a.npz", np.arange(5))
    with open_archive(tmp_path / "a.npz") as stored:
        assert stored["values"].tolist() == [0, 1, 2, 3, 4]
