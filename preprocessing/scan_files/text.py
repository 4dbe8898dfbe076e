"""Text point clouds: x y z and more, with any of the usual separators, comments and headers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk

_COMMENTS = ("#", "//", ";")
_NAMES = {"r": "red", "g": "green", "b": "blue", "normal_x": "nx", "normal_y": "ny", "normal_z": "nz"}
_SEPARATORS = re.compile(r"[,;\t ]+")


@dataclass(frozen=True)
class _Layout:
    """Columns of a text cloud: how many, and which name each has ('' for unused)."""

    names: tuple[str, ...]
    lines_before: int


def open_text(path: Path, chunk_points: int) -> ScanReader:
    """Open a text point cloud; see `open_scan`.

    Columns are x y z, then by their number: 6 as colours (0 to 255 whole numbers) or normals, 7 with an
    intensity in the fourth, 9 as colours and normals; a header line with names decides instead.
    """
    layout = _find_layout(path)
    return ScanReader(path, "text", None, lambda: _chunks(path, layout, chunk_points))


def _words(line: str) -> list[str]:
    return [word for word in _SEPARATORS.split(line.strip()) if word]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _find_layout(path: Path) -> _Layout:
    header: list[str] = []
    with _open(path) as file:
        for number, line in enumerate(file):
            stripped = line.strip()
            words = _words(stripped.lstrip("#/; "))
            if stripped.startswith(_COMMENTS) or (words and not _is_number(words[0])):
                names = [_NAMES.get(word.lower().strip('"'), word.lower().strip('"')) for word in words]
                if all(axis in names for axis in "xyz"):
                    header = names
                if number > 100:
                    break
                continue
            if len(words) == 1 and number == 0 and words[0].isdigit():
                continue  # a PTS file starts with its number of points
            if not words:
                continue
            if len(words) < 3 or not all(_is_number(word) for word in words):
                raise ScanError(f"{path}: line {number + 1} is not x y z: {stripped[:60]!r}")
            rows = [words] + [_words(more) for more in itertools.islice(file, 200)]
            names_found = tuple(header) if len(header) == len(words) else _guess(rows)
            return _Layout(names_found, number)
    raise ScanError(f"{path}: holds no points; check that the export finished")


def _guess(rows: list[list[str]]) -> tuple[str, ...]:
    count = len(rows[0])
    colors, normals = ("red", "green", "blue"), ("nx", "ny", "nz")

    def are_colors(start: int) -> bool:
        values = [word for row in rows if len(row) == count for word in row[start : start + 3]]
        return all(word.isdigit() and int(word) <= 255 for word in values)

    xyz = ("x", "y", "z")
    if count == 6:
        return xyz + (colors if are_colors(3) else normals)
    if count == 7:
        return (*xyz, "", *(colors if are_colors(4) else ("", "", "")))
    if count == 9:
        return xyz + ((colors + normals) if are_colors(3) else (normals + colors))
    return xyz + ("",) * (count - 3)


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8", errors="replace")


def _chunks(path: Path, layout: _Layout, chunk_points: int) -> Iterator[ScanChunk]:
    with _open(path) as file:
        data = itertools.islice(file, layout.lines_before, None)
        done = layout.lines_before
        while True:
            lines = list(itertools.islice(data, chunk_points))
            if not lines:
                return
            kept = [line for line in lines if line.strip() and not line.lstrip().startswith(_COMMENTS)]
            if kept:
                yield _parse(path, layout, kept, lines, done)
            done += len(lines)


def _parse(path: Path, layout: _Layout, kept: list[str], lines: list[str], done: int) -> ScanChunk:
    count = len(layout.names)
    text = " ".join(kept).replace(",", " ").replace(";", " ")
    try:
        values: NDArray[np.float64] = np.array(text.split(), np.float64)
        if len(values) != count * len(kept):
            raise ValueError("ragged")
        table = values.reshape(len(kept), count)
        if any(len(_words(line)) != count for line in kept[-1:]):
            raise ValueError("ragged")
    except ValueError as error:
        for number, line in enumerate(lines):
            words = _words(line)
            is_data = bool(words) and not line.lstrip().startswith(_COMMENTS)
            if is_data and (len(words) != count or not all(_is_number(word) for word in words)):
                raise ScanError(
                    f"{path}: line {done + number + 1} has not {count} numbers: {line.strip()[:60]!r}; "
                    "the file is truncated or damaged"
                ) from error
        raise
    columns: dict[str, NDArray[np.generic]] = {}
    for number, name in enumerate(layout.names):
        if name in ("red", "green", "blue") and table[:, 3:].max() > 1:
            columns[name] = np.clip(table[:, number], 0, 255).astype(np.uint8)
        elif name:
            columns[name] = table[:, number]
    return columns_to_chunk(columns)
