"""STL and OFF: the plain formats, with the quirks of their writers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError

_HEAD = struct.Struct("<80xI")
STL_FACE = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_CORNER = re.compile(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)")


def read_stl(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (V, 3) and faces (F, 3) of an STL file, text or binary; corners at one position are one vertex.

    A binary file may begin with `solid` and may have bytes behind its faces.

    Raises:
        MeshError: if the file ends before its faces do.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
    count = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
    is_text = head.lstrip()[:5].lower() == b"solid" and b"\0" not in head
    if (
        len(head) == _HEAD.size
        and size >= _HEAD.size + count * STL_FACE.itemsize
        and not (is_text and _has_facets(path))
    ):
        rows = np.fromfile(path, STL_FACE, count, offset=_HEAD.size)
        corners = rows["corners"].reshape(-1, 3).astype(np.float64)
    elif is_text:
        try:
            corners = (
                np.array(_CORNER.findall(path.read_bytes().lower()), dtype="S")
                .astype(np.float64)
                .reshape(-1, 3)
            )
        except ValueError as error:
            raise MeshError(f"{path}: a corner is damaged ({error}); export it again") from error
        if len(corners) % 3:
            raise MeshError(
                f"{path}: is truncated: its last face has not three corners; copy or export it again"
            )
    else:
        raise MeshError(
            f"{path}: is truncated: it promises {count:,} faces and holds "
            f"{max(0, size - _HEAD.size) // STL_FACE.itemsize:,}; copy or export it again"
        )
    vertices, place = merge_equal(corners)
    return vertices, place.reshape(-1, 3)


def _has_facets(path: Path) -> bool:
    with path.open("rb") as file:
        return b"facet" in file.read(4096).lower()


def merge_equal(positions: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct ones of positions (N, 3), in order of appearance, and the place of each (N,) among them."""
    if not len(positions):
        return positions.reshape(0, 3), np.zeros(0, np.int64)
    plain = np.ascontiguousarray(positions + 0.0)  # + 0.0: one zero instead of two
    _, first, place = np.unique(plain.view("V24").ravel(), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return positions[first[order]], rank[place.ravel()]


def holds_off_faces(path: Path) -> bool:
    """Whether an OFF file counts faces; one that cannot be understood counts as a mesh, whose reader says why."""
    with path.open("rb") as file:
        head = re.sub(rb"#[^\n]*", b"", file.read(1 << 16)).lstrip()
    counts = re.match(rb"[A-Za-z4]*\s*(\d+)\s+(\d+)", head)
    return counts is None or int(counts[2]) > 0


def read_off(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64] | None]:
    """Vertices (V, 3), faces (F, 3) and colors (V, 3), or None, of a text OFF file; polygons become fans.

    Raises:
        MeshError: if the file is truncated, damaged, or of a kind that is not read (binary, 4D).
    """
    data = re.sub(rb"#[^\n]*", b"", path.read_bytes())
    first = data.lstrip().split(None, 1)[0] if data.strip() else b""
    kind = re.match(rb"(ST)?(C)?(N)?(4)?(n)?OFF", first)
    if kind is None and not first.isdigit():
        raise MeshError(f"{path}: is not an OFF file (it does not start with OFF); check its suffix")
    body = data.lstrip()[kind.end() if kind else 0 :]
    if (kind and (kind[4] or kind[5])) or body[:20].strip().upper().startswith(b"BINARY"):
        raise MeshError(f"{path}: is a binary or four-dimensional OFF file; save it as text OFF or as PLY")
    lines = [line for line in body.split(b"\n") if line.strip()]
    try:
        counts = [int(word) for word in lines[0].split()]
        vertex_count, face_count = counts[0], counts[1]
        present = max(0, len(lines) - 1 - vertex_count)
        if vertex_count < 0 or face_count < 0:
            raise ValueError("negative counts")
        if len(lines) - 1 < vertex_count or present < face_count:
            raise MeshError(
                f"{path}: is truncated: it promises {vertex_count:,} vertices and {face_count:,} faces and holds "
                f"{min(vertex_count, len(lines) - 1):,} and {present:,}; copy or export it again"
            )
        rows = [[float(word) for word in line.split()] for line in lines[1 : 1 + vertex_count]]
        if any(len(row) < 3 for row in rows):
            raise ValueError("a vertex has fewer than three coordinates")
        vertices = np.array([row[:3] for row in rows], np.float64).reshape(-1, 3)
        faces = []
        for line in lines[1 + vertex_count : 1 + vertex_count + face_count]:
            words = line.split()
            corners = [int(word) for word in words[1 : 1 + int(words[0])]]
            if len(corners) < int(words[0]):
                raise ValueError(f"a face with {words[0].decode()} corners names {len(corners)}")
            faces += [(corners[0], corners[n], corners[n + 1]) for n in range(1, len(corners) - 1)]
    except (ValueError, IndexError, OverflowError, UnicodeDecodeError) as error:
        raise MeshError(f"{path}: is damaged ({error}); export it again") from error
    colors = None
    if kind and kind[2] and rows and {len(row) for row in rows} <= {6, 7, 9, 10}:
        start = 6 if kind[3] else 3
        colors = np.array([row[start : start + 3] for row in rows], np.float64)
    return vertices, np.array(faces, np.int64).reshape(-1, 3), colors
