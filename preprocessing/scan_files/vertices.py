"""Vertices of OBJ, OFF, STL and GLB files as points: clouds in OBJ's clothes, and meshes where the user says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError, NoFacesError, ScanError
from preprocessing.meshes.soups import read_off
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk
from preprocessing.scan_files.colors import SAMPLE_ROWS, ColorScale, decide_scale
from preprocessing.scan_files.names import AXES, COLOR_NAMES
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.tables import numbers
from preprocessing.scan_files.text_lines import line_blocks, open_lines, text_encoding

LINES_AT_ONCE, LINES_LOOKED_AT = 200_000, 1024


def open_obj(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open the vertices of an OBJ file; see `open_scan`. One with faces is a mesh, and needs `use_vertices`."""
    encoding = text_encoding(path)
    count = faces = 0
    widths: set[int] = set()
    shades = []
    with open_lines(path, encoding) as file:
        for lines in line_blocks(path, file, LINES_LOOKED_AT):
            rows = _vertex_rows(lines)
            count += len(rows)
            widths |= {len(row) for row in rows}
            faces += sum(line.lstrip().startswith(("f ", "f\t")) for line in lines)
            if rows and widths <= {6, 7}:
                shades.append(_numbers(path, rows[:SAMPLE_ROWS])[:, 3:6])
    if faces and not options.use_vertices:
        raise _no_cloud(path, f"is a mesh with {faces:,} faces")
    if not count:
        raise ScanError(f"{path}: holds no vertices; check that the export finished")
    if min(widths) < 3:
        raise ScanError(f"{path}: a vertex has fewer than three coordinates; export it again")
    scale = decide_scale(list(np.concatenate(shades).T)) if shades and widths <= {6, 7} else None

    def chunks() -> Iterator[ScanChunk]:
        with open_lines(path, encoding) as file:
            for lines in line_blocks(path, file, min(chunk_points, LINES_AT_ONCE)):
                rows = _vertex_rows(lines)
                if rows:
                    yield _chunk(_numbers(path, rows), scale)

    return ScanReader(
        path,
        "OBJ",
        count,
        chunks,
        has_colors=scale is not None,
        columns={axis: f"value {number + 1} of v" for number, axis in enumerate(AXES)},
    )


def _vertex_rows(lines: list[str]) -> list[list[str]]:
    return [line.split("#", 1)[0].split()[1:] for line in lines if line.lstrip().startswith(("v ", "v\t"))]


def _numbers(path: Path, rows: list[list[str]]) -> NDArray[np.float64]:
    least = min(map(len, rows))
    try:
        return np.stack([numbers([row[column] for row in rows]) for column in range(least)], axis=1)
    except ValueError as error:
        raise ScanError(f"{path}: a vertex is damaged ({error}); export it again") from error


def _chunk(table: NDArray[np.float64], scale: ColorScale | None) -> ScanChunk:
    columns = dict(zip(AXES, table.T[:3], strict=True))
    if scale is not None:
        columns |= dict(zip(COLOR_NAMES, table.T[3:6], strict=True))
    return columns_to_chunk(columns, scale)


def open_off(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open the vertices of an OFF file; see `open_scan`. One with faces is a mesh, and needs `use_vertices`."""
    try:
        vertices, faces, shades = read_off(path)
    except MeshError as error:
        raise ScanError(str(error)) from error
    if len(faces) and not options.use_vertices:
        raise _no_cloud(path, f"is a mesh with {len(faces):,} faces")
    scale = None if shades is None else decide_scale(list(shades.T))

    table = vertices if shades is None else np.hstack([vertices, shades])

    def chunks() -> Iterator[ScanChunk]:
        for start in range(0, len(table), chunk_points):
            yield _chunk(table[start : start + chunk_points], scale)

    return ScanReader(path, "OFF", len(vertices), chunks, has_colors=scale is not None)


def _no_cloud(path: Path, fact: str) -> ScanError:
    return ScanError(
        f"{path}: {fact}, not a point cloud; pass --use-vertices to take its vertices as points, or sample "
        "points on it first"
    )


def open_mesh_vertices(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open the vertices of an STL or GLB file; see `open_scan`. Read whole, as any mesh."""
    if not options.use_vertices:
        raise _no_cloud(path, f"is of a mesh format, {path.suffix.lower()}")
    from preprocessing.meshes.files import read_mesh

    try:
        # GLB comes upright by its format, unless the user says which of the file's own axes points up.
        mesh = read_mesh(path, keeps_axes=options.up != "z")
    except NoFacesError as error:
        raise ScanError(
            f"{path}: holds no faces, and points of this format are not read; save them as PLY"
        ) from error
    except MeshError as error:
        raise ScanError(str(error)) from error

    def chunks() -> Iterator[ScanChunk]:
        for start in range(0, len(mesh.vertices), chunk_points):
            part = slice(start, start + chunk_points)
            yield ScanChunk(mesh.vertices[part], None, None if mesh.colors is None else mesh.colors[part])

    return ScanReader(path, "mesh", len(mesh.vertices), chunks, has_colors=mesh.colors is not None)
