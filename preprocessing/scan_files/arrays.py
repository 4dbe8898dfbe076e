"""NumPy files: NPZ with `points` (and `normals`, `colors`), NPY with (N, 3) or more columns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader


def open_arrays(path: Path, chunk_points: int) -> ScanReader:
    """Open an NPZ or NPY point cloud; see `open_scan`. Pickled content is never loaded."""
    arrays = _load(path)
    return ScanReader(path, "NumPy", len(arrays["points"]), lambda: _chunks(arrays, chunk_points))


def _load(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            arrays = {"points": stored}
        else:
            arrays = {name: stored[name] for name in ("points", "normals", "colors") if name in stored.files}
            names = ", ".join(stored.files)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ScanError(
            f"{path}: cannot be read as NumPy arrays ({error}); copy or export it again"
        ) from error
    if "points" not in arrays:
        raise ScanError(f"{path}: has no array 'points' (it has: {names}); save it with np.savez(points=...)")
    points = arrays["points"]
    if points.ndim != 2 or points.shape[1] < 3 or points.dtype.kind not in "fiu":
        raise ScanError(
            f"{path}: 'points' must be numbers of shape (N, 3), not {points.dtype} {points.shape}"
        )
    for name in ("normals", "colors"):
        if name in arrays and arrays[name].shape != (len(points), 3):
            raise ScanError(f"{path}: '{name}' must have shape ({len(points)}, 3), not {arrays[name].shape}")
    return arrays


def _chunks(arrays: dict[str, NDArray[np.generic]], chunk_points: int) -> Iterator[ScanChunk]:
    for start in range(0, len(arrays["points"]), chunk_points):
        part = {name: values[start : start + chunk_points] for name, values in arrays.items()}
        colors: NDArray[Any] | None = part.get("colors")
        if colors is not None:
            scaled = colors.astype(np.float64) * 255 if colors.dtype.kind == "f" else colors
            colors = np.clip(scaled, 0, 255).astype(np.uint8)
        normals = part["normals"].astype(np.float32) if "normals" in part else None
        yield ScanChunk(part["points"][:, :3].astype(np.float64), normals, colors)
