"""What every reader gives: chunks of points, with normals, colors and directions where the file has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from preprocessing.scan_files.colors import ColorScale, decide_scale
from preprocessing.scan_files.names import AXES, COLOR_NAMES, NORMAL_NAMES

_ARRAYS = ("points", "normals", "colors", "directions", "classes")  # of a chunk, one row for each point

Place = TypeVar("Place")


@dataclass(frozen=True)
class ScanChunk:
    """Some points of a scan, in file order.

    Attributes:
        points: (N, 3) float64; from `open_scan` in meters, z up, else in the file's own unit and axes.
        normals: (N, 3) float32 or None.
        colors: (N, 3) uint8 or None.
        directions: (N, 3) float32 unit vectors from the point toward the scanner that saw it, or None.
        classes: (N,) uint8 classes of a LAS file, or None.
        left_out: how many points were left out on the way, by reason.
    """

    points: NDArray[np.float64]
    normals: NDArray[np.float32] | None = None
    colors: NDArray[np.uint8] | None = None
    directions: NDArray[np.float32] | None = None
    classes: NDArray[np.uint8] | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def only(self, kept: NDArray[np.bool_], reason: str) -> ScanChunk:
        """The points where `kept` (N,) is true; the others are counted under `reason`."""
        lost = int(len(kept) - kept.sum())
        if not lost:
            return self

        parts = {name: getattr(self, name) for name in _ARRAYS}
        parts = {name: None if values is None else values[kept] for name, values in parts.items()}
        return ScanChunk(**parts, left_out=add_counts(self.left_out, {reason: lost}))


@dataclass(frozen=True)
class ScanReader:
    """An opened scan.

    Attributes:
        path: the file.
        format: its format's name.
        count: number of points, or None where only reading tells.
        chunks: starts reading from the beginning; memory is bounded by a chunk.
        has_normals, has_colors, has_directions: whether the chunks carry them.
        columns: for each role (x, y, z, red, ...) what the file calls the column it was taken from.
        stations: (S, 3) positions of the scanner that the file tells, in the chunks' frame.
        crs: the coordinate reference system as the file has it (WKT or EPSG code), or None.
        crs_unit: the unit of its coordinates by that system, or None where it does not say.
    """

    path: Path
    format: str
    count: int | None
    chunks: Callable[[], Iterator[ScanChunk]]
    has_normals: bool = False
    has_colors: bool = False
    has_directions: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    stations: tuple[tuple[float, float, float], ...] = ()
    crs: str | None = None
    crs_unit: str | None = None


def columns_to_chunk(columns: Mapping[str, NDArray[Any]], scale: ColorScale | None) -> ScanChunk:
    """Columns named x, y, z, nx, ny, nz, red, green, blue (others are ignored) to a chunk.

    Args:
        columns: (N,) numbers each.
        scale: of the colors; None for none.
    """
    points = np.stack([columns[axis].astype(np.float64) for axis in AXES], axis=1)
    normals = colors = None
    if all(name in columns for name in NORMAL_NAMES):
        normals = np.stack([columns[name].astype(np.float32) for name in NORMAL_NAMES], axis=1)
    if scale is not None:
        colors = scale.apply([columns[name] for name in COLOR_NAMES])
    return ScanChunk(points, normals, colors)


def are_normals(columns: Mapping[str, NDArray[Any]]) -> bool:
    """Whether sampled columns hold normals; writers without any often store zeros."""
    return all(name in columns for name in NORMAL_NAMES) and any(
        bool(np.nan_to_num(np.asarray(columns[name], np.float64)).any()) for name in NORMAL_NAMES
    )


def decided_roles(
    roles: Mapping[str, Place], sample: Mapping[str, NDArray[Any]], declared: str | None = None
) -> tuple[dict[str, Place], ColorScale | None]:
    """Roles without normals and colors that are none by a sample of their values, and the scale of the colors.

    Args:
        declared: what the type of the colors says; see `decide_scale`.
    """
    dropped: tuple[str, ...] = () if are_normals(sample) else NORMAL_NAMES
    scale = None
    if COLOR_NAMES[0] in sample:
        scale = decide_scale([sample[name] for name in COLOR_NAMES], declared)
    if scale is None:
        dropped += COLOR_NAMES
    return {role: place for role, place in roles.items() if role not in dropped}, scale


def directions_to(points: NDArray[np.float64], stations: NDArray[np.float64]) -> NDArray[np.float32]:
    """Unit vectors (N, 3) from points toward the nearest of (S, 3) stations; 0 where a point lies on it."""
    nearest = stations[0]
    if len(stations) > 1:
        distances = np.stack([((points - place) ** 2).sum(axis=1) for place in stations])
        nearest = stations[distances.argmin(axis=0)]
    towards = nearest - points
    lengths = np.linalg.norm(towards, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(towards / np.where(lengths > 0, lengths, 1.0), np.float32)


def join_chunks(chunks: Sequence[ScanChunk]) -> ScanChunk:
    """Chunks of one scan as one; they all have the same columns."""
    joined: dict[str, Any] = {}
    for name in _ARRAYS:
        parts = [getattr(chunk, name) for chunk in chunks]
        joined[name] = None if any(part is None for part in parts) else np.concatenate(parts)
    counts: Mapping[str, int] = {}
    for chunk in chunks:
        counts = add_counts(counts, chunk.left_out)
    return ScanChunk(**joined, left_out=counts)


def add_counts(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Two counts by reason, added."""
    return {reason: first.get(reason, 0) + second.get(reason, 0) for reason in [*first, *second]}
