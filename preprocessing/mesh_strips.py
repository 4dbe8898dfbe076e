"""Triangle strips of old PLY scans, as the scanners of the nineties wrote them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError, ScanError
from preprocessing.scan_files import ScanOptions, open_scan
from preprocessing.scan_files.ply import PlyHeader, read_ply_header
from preprocessing.scan_files.source import open_bytes
from preprocessing.scan_files.tables import list_values, skip_rows

_NAMES = ("tristrips", "tristrip")


def strip_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
    """Vertices (V, 3) and faces (F, 3) of a PLY file whose faces are strips; None if it has none.

    Raises:
        MeshError: if the file is damaged.
    """
    try:
        header = read_ply_header(path)
        if header.element("face", "faces") or not header.element(*_NAMES):
            return None
        chunks = open_scan(path, options=ScanOptions(use_vertices=True)).chunks()
        vertices = np.concatenate([np.zeros((0, 3)), *(chunk.points for chunk in chunks)])
        strips = _text_strips(path, header) if header.is_ascii else _binary_strips(path, header)
    except ScanError as error:
        raise MeshError(str(error)) from error
    return vertices, strips_to_faces(strips)


def strips_to_faces(strips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Faces (F, 3) of strips that -1 ends: each vertex after two makes a face, every second one turned."""
    faces = []
    for strip in np.split(strips, np.flatnonzero(strips == -1)):
        corners = strip[strip != -1]
        if len(corners) < 3:
            continue
        made = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
        made[1::2] = made[1::2, [1, 0, 2]]
        faces.append(
            made[(made[:, 0] != made[:, 1]) & (made[:, 1] != made[:, 2]) & (made[:, 0] != made[:, 2])]
        )
    return np.concatenate(faces) if faces else np.zeros((0, 3), np.int64)


def _binary_strips(path: Path, header: PlyHeader) -> NDArray[np.int64]:
    found = [np.zeros(0, np.int64)]
    with open_bytes(path) as file:
        file.read(header.data_start)
        for element in header.elements:
            if element.name not in _NAMES:
                skip_rows(path, file, element.columns, element.rows)
                continue
            if len(element.columns) != 1 or not element.columns[0].length_kind:
                raise ScanError(f"{path}: its tristrips are no lists; export it with faces")
            for _ in range(element.rows):
                values = list_values(file, element.columns[0])
                if values is None:
                    raise ScanError(f"{path}: is truncated in its tristrips; copy or export it again")
                found += [values.astype(np.int64), np.array([-1])]
            break
    return np.concatenate(found)


def _text_strips(path: Path, header: PlyHeader) -> NDArray[np.int64]:
    found = [np.zeros(0, np.int64)]
    with open_bytes(path) as file:
        file.read(header.data_start)
        lines = (line for line in file if line.strip())
        for element in header.elements:
            for _ in range(element.rows):
                line = next(lines, None)
                if line is None:
                    raise ScanError(f"{path}: is truncated; copy or export it again")
                if element.name in _NAMES:
                    try:
                        words = [int(word) for word in line.split()]
                    except ValueError as error:
                        raise ScanError(
                            f"{path}: a tristrip is damaged ({error}); export it again"
                        ) from error
                    found += [np.array(words[1 : 1 + words[0]], np.int64), np.array([-1])]
    return np.concatenate(found)
