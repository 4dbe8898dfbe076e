"""PLY point clouds: ASCII and binary of either byte order, by one structured type for the vertex rows."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import (
    COLOR_NAMES,
    NORMAL_NAMES,
    ScanChunk,
    ScanReader,
    binary_rows,
    columns_to_chunk,
    text_rows,
    truncated,
)

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_NAMES = {"normal_x": "nx", "normal_y": "ny", "normal_z": "nz", "r": "red", "g": "green", "b": "blue",
          "diffuse_red": "red", "diffuse_green": "green", "diffuse_blue": "blue"}  # fmt: skip
LONGEST_HEADER = 1 << 16


@dataclass(frozen=True)
class _Header:
    """What precedes the vertex rows."""

    is_ascii: bool
    vertices: int
    rows: np.dtype[np.void]
    data_start: int


def _parse_header(path: Path) -> _Header:
    with path.open("rb") as file:
        if file.readline(16).strip() != b"ply":
            raise ScanError(f"{path}: is not a PLY file (it does not start with 'ply'); check its suffix")
        layout = ""
        elements: list[tuple[str, int]] = []
        properties: dict[str, list[tuple[str, ...]]] = {}
        while True:
            raw = file.readline(4096)
            if not raw or file.tell() > LONGEST_HEADER:
                raise ScanError(
                    f"{path}: the PLY header does not end; the file is truncated or damaged, copy or export it again"
                )
            words = raw.decode("latin-1").split()
            if not words or words[0] in ("comment", "obj_info"):
                continue
            if words[0] == "end_header":
                break
            try:
                if words[0] == "format":
                    layout = words[1]
                elif words[0] == "element":
                    elements.append((words[1], int(words[2])))
                    properties[words[1]] = []
                elif words[0] == "property":
                    properties[elements[-1][0]].append(tuple(words[1:]))
                else:
                    raise ValueError(words[0])
            except (ValueError, IndexError) as error:
                raise ScanError(
                    f"{path}: damaged PLY header at {raw[:60]!r}; copy or export it again"
                ) from error
        start = file.tell()
    counts = dict(elements)
    if layout not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ScanError(f"{path}: unknown PLY format {layout!r}; export it as binary or ascii PLY 1.0")
    if counts.get("face", 0) or counts.get("tristrips", 0):
        faces = counts.get("face", 0) or counts["tristrips"]
        raise ScanError(
            f"{path}: is a mesh with {faces:,} faces, not a point cloud; sample points on it first, or use the scan"
        )
    if not elements or elements[0][0] != "vertex" or counts["vertex"] < 0:
        raise ScanError(
            f"{path}: the PLY file does not start with vertices; export it as a plain point cloud"
        )
    order = ">" if layout == "binary_big_endian" else "<"
    fields = []
    for kind, *rest in properties["vertex"]:
        if kind not in _TYPES or len(rest) != 1:
            raise ScanError(
                f"{path}: vertex property {' '.join([kind, *rest])!r} cannot be read; export plain numbers"
            )
        fields.append((_NAMES.get(rest[0], rest[0]), order + _TYPES[kind]))
    names = [name for name, _ in fields]
    if len(set(names)) != len(names) or any(axis not in names for axis in "xyz"):
        raise ScanError(
            f"{path}: the vertices have no x, y and z (once each); export it as a plain point cloud"
        )
    return _Header(layout == "ascii", counts["vertex"], np.dtype(fields), start)


def open_ply(path: Path, chunk_points: int) -> ScanReader:
    """Open a PLY point cloud; see `open_scan`."""
    header = _parse_header(path)
    if not header.is_ascii:
        present = (path.stat().st_size - header.data_start) // header.rows.itemsize
        if present < header.vertices:
            raise truncated(path, header.vertices, present)
    names = header.rows.names or ()
    return ScanReader(
        path,
        "PLY",
        header.vertices,
        lambda: _chunks(path, header, chunk_points),
        has_normals=all(name in names for name in NORMAL_NAMES),
        has_colors=all(name in names for name in COLOR_NAMES),
    )


def _chunks(path: Path, header: _Header, chunk_points: int) -> Iterator[ScanChunk]:
    if header.is_ascii:
        with path.open("rb") as file:
            file.seek(header.data_start)
            yield from map(_chunk, text_rows(path, file, header.rows, header.vertices, chunk_points))
    else:
        tables = binary_rows(path, header.data_start, header.rows, header.vertices, chunk_points)
        yield from map(_chunk, tables)


def _chunk(rows: NDArray[np.void]) -> ScanChunk:
    return columns_to_chunk({name: rows[name] for name in rows.dtype.names or ()})


def write_scan_ply(
    path: Path,
    points: NDArray[np.float64],
    normals: NDArray[np.floating] | None = None,
    colors: NDArray[np.uint8] | None = None,
) -> None:
    """Write a binary PLY point cloud in double precision; it appears whole or not at all.

    Args:
        path: the file.
        points: (N, 3); normals: (N, 3) or None; colors: (N, 3) uint8 or None.

    Raises:
        ScanError: if the disk is full or the place cannot be written.
    """
    fields = [(axis, "<f8") for axis in "xyz"]
    parts: dict[str, NDArray[Any]] = {axis: points[:, number] for number, axis in enumerate("xyz")}
    if normals is not None:
        fields += [(name, "<f4") for name in ("nx", "ny", "nz")]
        parts |= {name: normals[:, number] for number, name in enumerate(("nx", "ny", "nz"))}
    if colors is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        parts |= {name: colors[:, number] for number, name in enumerate(("red", "green", "blue"))}
    rows = np.empty(len(points), np.dtype(fields))
    for name, values in parts.items():
        rows[name] = values
    kinds = {"<f8": "double", "<f4": "float", "u1": "uchar"}
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    lines += [f"property {kinds[kind]} {name}" for name, kind in fields] + ["end_header", ""]
    partial = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write("\n".join(lines).encode())
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise ScanError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another file"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
