"""PLY meshes: faces of any number of corners, with what stands beside them, and the triangle strips of old scans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError, ScanError
from preprocessing.scan_files import ScanChunk, ScanOptions, open_scan
from preprocessing.scan_files.chunks import join_chunks
from preprocessing.scan_files.ply import FACES, PlyElement, PlyHeader, read_ply_header
from preprocessing.scan_files.source import BLOCK_BYTES, GZIP_ERRORS, damaged_gzip, open_bytes
from preprocessing.scan_files.tables import Column, list_values, read_exactly, skip_rows

_INDICES = ("vertex_indices", "vertex_index", "vertex_indexes", "indices")
_STRIPS = ("tristrips", "tristrip")
FEWEST_ROWS, MOST_ROWS = 1024, 1 << 22  # read at once
SHORT_RUN = 16  # rows of one size; where runs are shorter, rows are walked one by one for a while


def read_ply(path: Path) -> tuple[ScanChunk, NDArray[np.int64]]:
    """The vertices of a PLY mesh, and its faces (F, 3); polygons become fans, strips their triangles.

    Raises:
        MeshError: if the file is damaged, truncated, or has no faces.
    """
    try:
        header = read_ply_header(path)
        element = header.element(*FACES)
        if element is None:
            return ScanChunk(np.zeros((0, 3))), np.zeros((0, 3), np.int64)
        lists = [number for number, column in enumerate(element.columns) if column.length_kind]
        named = [number for number in lists if element.columns[number].name.lower() in _INDICES]
        if not lists:
            raise ScanError(f"{path}: its faces name no vertices; export it again")
        which = (named or lists)[0]
        chunks = list(open_scan(path, options=ScanOptions(use_vertices=True)).chunks())
        rows = (
            _text_lists(path, header, element, which)
            if header.is_ascii
            else _binary_lists(path, header, element, which)
        )
        make = strips_to_faces if element.name in _STRIPS else _fans
        faces = [make(part) for part in rows]
    except ScanError as error:
        raise MeshError(str(error)) from error
    except GZIP_ERRORS as error:
        raise MeshError(str(damaged_gzip(path, error))) from error
    vertices = join_chunks(chunks) if chunks else ScanChunk(np.zeros((0, 3)))
    return vertices, np.concatenate([np.zeros((0, 3), np.int64), *faces])


def _fans(lists: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangles (T, 3) of polygons of one number of corners (P, K)."""
    corners = lists.shape[1]
    if corners < 3:
        return np.zeros((0, 3), np.int64)
    first = np.repeat(lists[:, :1], corners - 2, axis=1)
    return np.stack([first, lists[:, 1:-1], lists[:, 2:]], axis=2).reshape(-1, 3)


def strips_to_faces(strips: NDArray[np.int64]) -> NDArray[np.int64]:
    """Triangles (T, 3) of strips (S, K) that -1 may end early: each vertex after two makes one, every second turned."""
    faces = [np.zeros((0, 3), np.int64)]
    for row in np.atleast_2d(strips):
        for strip in np.split(row, np.flatnonzero(row == -1)):
            corners = strip[strip != -1]
            if len(corners) < 3:
                continue
            made = np.stack([corners[:-2], corners[1:-1], corners[2:]], axis=1)
            made[1::2] = made[1::2, [1, 0, 2]]
            faces.append(
                made[(made[:, 0] != made[:, 1]) & (made[:, 1] != made[:, 2]) & (made[:, 0] != made[:, 2])]
            )
    return np.concatenate(faces)


def _binary_lists(
    path: Path, header: PlyHeader, element: PlyElement, which: int
) -> Iterator[NDArray[np.int64]]:
    """The wanted list of each row, rows of one length together (R, K), in the file's order."""
    with open_bytes(path) as file:
        read_exactly(file, header.data_start)
        for before in header.elements[: header.elements.index(element)]:
            skip_rows(path, file, before.columns, before.rows)
        left, asked = element.rows, FEWEST_ROWS
        while left:
            # Most files have rows of one size: as long as they are like the next one, they are read at once.
            rows = _alike(path, file, element, which, min(left, asked))
            left -= len(rows)
            yield rows
            asked = min(2 * asked, MOST_ROWS)
            if len(rows) < SHORT_RUN:
                asked = FEWEST_ROWS
                walked = [_lists(path, file, element.columns)[which] for _ in range(min(left, FEWEST_ROWS))]
                left -= len(walked)
                for length in {len(row) for row in walked if len(row) >= 3}:
                    yield np.array([row for row in walked if len(row) == length], np.int64).reshape(
                        -1, length
                    )


def _alike(path: Path, file: BinaryIO, element: PlyElement, which: int, wanted: int) -> NDArray[np.int64]:
    """The wanted lists (R, K) of at most so many rows, as far as their lists are as long as those of the first."""
    place = file.tell()
    first = _lists(path, file, element.columns)
    fields: list[tuple[Any, ...]] = []
    for number, column in enumerate(element.columns):
        if column.length_kind is None:
            fields.append((f"v{number}", column.kind, (column.count,)))
        else:
            fields += [(f"n{number}", column.length_kind), (f"v{number}", column.kind, (len(first[number]),))]
    row = np.dtype(fields)
    file.seek(place)
    data = read_exactly(file, min(wanted, max(1, BLOCK_BYTES // row.itemsize)) * row.itemsize)
    table = np.frombuffer(data, row, len(data) // row.itemsize)
    alike = np.ones(len(table), np.bool_)
    for number, values in first.items():
        alike &= table[f"n{number}"] == len(values)
    count = len(table) if alike.all() else int(alike.argmin())
    if not count:
        raise ScanError(f"{path}: is truncated in its faces; copy or export it again")
    file.seek(place + count * row.itemsize)
    return table[f"v{which}"][:count].astype(np.int64).reshape(count, len(first[which]))


def _lists(path: Path, file: BinaryIO, columns: Sequence[Column]) -> dict[int, NDArray[Any]]:
    """The lists of the row that begins here, by the number of their column."""
    found: dict[int, NDArray[Any]] = {}
    for number, column in enumerate(columns):
        if column.length_kind is None:
            read_exactly(file, column.count * np.dtype(column.kind).itemsize)
            continue
        values = list_values(file, column)
        if values is None:
            raise ScanError(f"{path}: is truncated in its faces; copy or export it again")
        found[number] = values
    return found


def _text_lists(
    path: Path, header: PlyHeader, element: PlyElement, which: int
) -> Iterator[NDArray[np.int64]]:
    """As `_binary_lists`, of a text file."""
    with open_bytes(path) as file:
        read_exactly(file, header.data_start)
        lines = (line for line in file if line.strip())
        for before in header.elements[: header.elements.index(element)]:
            for _ in range(before.rows):
                if next(lines, None) is None:
                    raise ScanError(f"{path}: is truncated ahead of its faces; copy or export it again")
        waiting: list[list[int]] = []
        for number in range(element.rows):
            line = next(lines, None)
            if line is None:
                raise ScanError(
                    f"{path}: is truncated: {element.rows - number:,} of {element.rows:,} faces are missing; "
                    "export it again"
                )
            row = _text_row(path, line.split(), element.columns, which, number)
            if waiting and (len(waiting[0]) != len(row) or len(waiting) == 1 << 16):
                yield np.array(waiting, np.int64)
                waiting = []
            waiting.append(row)
        if waiting:
            yield np.array(waiting, np.int64)


def _text_row(path: Path, words: list[bytes], columns: Sequence[Column], which: int, row: int) -> list[int]:
    place, found = 0, list[int]()
    try:
        for number, column in enumerate(columns):
            count = column.count
            if column.length_kind:
                count, place = int(words[place]), place + 1
            values = words[place : place + count]
            if count < 0 or len(values) < count:
                raise ValueError(f"{len(values)} values instead of {count}")
            if number == which:
                found = [int(word) for word in values]
            place += count
    except (ValueError, IndexError) as error:
        raise ScanError(f"{path}: face {row + 1:,} is damaged ({error}); export it again") from error
    return found
