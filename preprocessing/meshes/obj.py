"""Wavefront OBJ as programs write it: any order, indices from the end, comments behind values, long lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError

_BLOCK = 1 << 22


@dataclass
class _Parts:
    """What has been read so far."""

    vertices: list[list[float]] = field(default_factory=list)
    shades: list[list[float]] = field(default_factory=list)
    normals: list[list[float]] = field(default_factory=list)
    corners: list[tuple[int, int, int]] = field(default_factory=list)
    normal_of: dict[int, int] = field(default_factory=dict)
    has_one_normal: bool = True


def read_obj(
    path: Path,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Vertices (V, 3), faces (F, 3), and normals and colors (0 to 1 or 0 to 255) of vertices where there are.

    Polygons become fans of triangles.
    Texture coordinates do not split vertices, so a seam leaves no gap. Lines, curves and materials are passed over.

    Raises:
        MeshError: if a line is damaged; names it.
    """
    parts = _Parts()
    for number, line in _lines(path):
        words = line.split()
        try:
            if words[0] == "v":
                _vertex(parts, [float(word) for word in words[1:]])
            elif words[0] == "vn":
                parts.normals.append([float(word) for word in words[1:4]])
            elif words[0] == "f":
                _face(parts, words[1:])
        except (ValueError, IndexError, OverflowError) as error:
            raise MeshError(
                f"{path}: line {number} is damaged ({error}): {line[:60]!r}; correct it or export the file again"
            ) from error
    vertices = np.array(parts.vertices, np.float64).reshape(-1, 3)
    faces = np.array(parts.corners, np.int64).reshape(-1, 3)
    has_shades = parts.vertices and len(parts.shades) == len(parts.vertices)
    shades = np.array(parts.shades, np.float64) if has_shades else None
    return vertices, faces, _normals(parts), shades


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines without comments, joined where a backslash ends them; with their numbers."""
    waiting, first = "", 0
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(iter(lambda: file.readline(_BLOCK), ""), 1):
            plain = line.split("#", 1)[0].strip()
            if plain.endswith("\\"):
                waiting, first = f"{waiting} {plain[:-1]}", first or number
                continue
            if waiting:
                plain = f"{waiting} {plain}".strip()
            if plain:
                yield first or number, plain
            waiting, first = "", 0
    if waiting.strip():
        yield first, waiting.strip()


def _vertex(parts: _Parts, values: list[float]) -> None:
    if len(values) < 3:
        raise ValueError("a vertex has fewer than three coordinates")
    parts.vertices.append(values[:3])
    if len(values) in (6, 7):  # x y z r g b, with an alpha or a weight
        parts.shades.append(values[-3:] if len(values) == 6 else values[3:6])


def _face(parts: _Parts, words: list[str]) -> None:
    if len(words) < 3:
        raise ValueError("a face has fewer than three corners")
    corners = []
    for word in words:
        fields = word.split("/")
        vertex = _index(fields[0], len(parts.vertices))
        corners.append(vertex)
        if len(fields) > 2 and fields[2]:
            normal = _index(fields[2], len(parts.normals))
            if parts.normal_of.setdefault(vertex, normal) != normal:
                parts.has_one_normal = False
        else:
            parts.has_one_normal = False
    parts.corners.extend((corners[0], corners[n], corners[n + 1]) for n in range(1, len(corners) - 1))


def _index(word: str, count: int) -> int:
    """A place from 1 on, or from the end where it is negative; those ahead of their vertices are allowed."""
    number = int(word)
    if number == 0 or number < -count:
        raise ValueError(f"no vertex {number}")
    return number - 1 if number > 0 else count + number


def _normals(parts: _Parts) -> NDArray[np.float64] | None:
    """One normal for each vertex, where the faces agree about it."""
    if not parts.normal_of or not parts.has_one_normal or len(parts.normal_of) != len(parts.vertices):
        return None
    places = [parts.normal_of[vertex] for vertex in range(len(parts.vertices))]
    if max(places) >= len(parts.normals) or any(len(normal) != 3 for normal in parts.normals):
        return None
    return np.array(parts.normals, np.float64)[places]
