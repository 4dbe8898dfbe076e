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
from preprocessing.scan_files.chunks import (
    COLOR_NAMES,
    NORMAL_NAMES,
    ScanChunk,
    ScanReader,
    columns_to_chunk,
    truncated,
)

_COMMENTS = ("#", "//", ";")
_NAMES = {"r": "red", "g": "green", "b": "blue", "rf": "red", "gf": "green", "bf": "blue"} | {
    f"{start}{axis}": f"n{axis}" for start in ("normal_", "normal") for axis in "xyz"
}
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_SAMPLE_LINES, _HEADER_LINES, _LONGEST_LINE = 200, 1000, 1 << 16


@dataclass(frozen=True)
class _Layout:
    """How the lines of a text cloud are to be read.

    Attributes:
        names: of the columns ('' for an unused one).
        lines_before: lines ahead of the first point.
        has_decimal_commas: 1,5 stands for 1.5.
        color_scale: brings the file's colours to 0..255.
        count: number of points that the file declares, or None.
    """

    names: tuple[str, ...]
    lines_before: int
    has_decimal_commas: bool
    color_scale: float
    count: int | None

    def words(self, line: str) -> list[str]:
        """The numbers of a line, still as text."""
        return _words(line, self.has_decimal_commas)


def open_text(path: Path, chunk_points: int) -> ScanReader:
    """Open a text point cloud; see `open_scan`.

    Numbers are separated by blanks, tabs, commas or semicolons (a comma is the decimal sign where blanks or
    semicolons separate). A line of names decides the columns. Without one they are x y z, and the first 200
    points tell the rest: three columns of unit length are normals, three of whole numbers up to 255 are
    colours, so are columns 4 to 6 of six if they are fractions; a seventh stands before the colours
    (x y z intensity r g b).
    """
    layout = _find_layout(path)
    return ScanReader(
        path,
        "text",
        layout.count,
        lambda: _chunks(path, layout, chunk_points),
        has_normals=all(name in layout.names for name in NORMAL_NAMES),
        has_colors=all(name in layout.names for name in COLOR_NAMES),
    )


def _words(line: str, has_decimal_commas: bool) -> list[str]:
    if has_decimal_commas:
        return line.replace(";", " ").replace(",", ".").split()
    return line.replace(";", " ").replace(",", " ").split()


def _uses_decimal_commas(line: str) -> bool:
    fields = line.replace(";", " ").split()
    return len(fields) >= 3 and all(_DECIMAL_COMMA.fullmatch(field) for field in fields[:3])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _find_layout(path: Path) -> _Layout:
    header: list[str] = []
    count: int | None = None
    with _open(path) as file:
        for number in range(_HEADER_LINES):
            line = file.readline(_LONGEST_LINE)
            if not line:
                break
            stripped = line.strip()
            is_comment = stripped.startswith(_COMMENTS)
            has_decimal_commas = _uses_decimal_commas(stripped)
            words = _words(stripped.lstrip("#/; "), has_decimal_commas)
            if is_comment or (words and not any(_is_number(word) for word in words)):
                names = [word.lower().strip('"') for word in words]
                names = [_NAMES.get(name, name) for name in names]
                if all(axis in names for axis in "xyz"):
                    header = names
                elif not is_comment and len(words) < 3:
                    raise _not_points(path, number, stripped)
            elif len(words) == 1 and number == 0 and words[0].isdigit():
                count = int(words[0])  # a PTS file starts with its number of points
            elif words:
                if len(words) < 3 or not all(_is_number(word) for word in words):
                    raise _not_points(path, number, stripped)
                more = (file.readline(_LONGEST_LINE) for _ in range(_SAMPLE_LINES))
                rows = [words] + [
                    _words(text, has_decimal_commas)
                    for text in more
                    if not text.lstrip().startswith(_COMMENTS)
                ]
                alike = [row for row in rows if len(row) == len(words) and all(map(_is_number, row))]
                found = tuple(header) if len(header) == len(words) else _guess(alike)
                return _Layout(found, number, has_decimal_commas, _color_scale(alike, found), count)
    raise ScanError(f"{path}: holds no points; check that it is a point cloud and that the export finished")


def _not_points(path: Path, number: int, line: str) -> ScanError:
    return ScanError(
        f"{path}: line {number + 1} is not x y z: {line[:60]!r}; mark lines that are no points with '#'"
    )


def _guess(rows: list[list[str]]) -> tuple[str, ...]:
    count = len(rows[0])
    values = np.array(rows, np.float64)
    is_whole = np.array([[word.isdigit() for word in row] for row in rows]).all(axis=0)
    is_byte = is_whole & (values.max(axis=0) <= 255)

    def kind(start: int) -> tuple[str, ...]:
        part = values[:, start : start + 3]
        if (np.abs(np.linalg.norm(part, axis=1) - 1) < 0.02).all():
            return NORMAL_NAMES
        if is_byte[start : start + 3].all():
            return COLOR_NAMES
        is_fraction = ((part >= 0) & (part <= 1)).all() and part.any()
        return COLOR_NAMES if is_fraction and count == 6 else ()

    names = [*"xyz"] + [""] * (count - 3)
    at = 4 if count == 7 and kind(4) else 3
    while at + 3 <= count:
        found = kind(at)
        if found and found[0] not in names:
            names[at : at + 3] = found
            at += 3
        else:
            at += 1
    return tuple(names)


def _color_scale(rows: list[list[str]], names: tuple[str, ...]) -> float:
    """1 for bytes, 255 for fractions, 1/256 for 16 bits; told by the first points for the whole file."""
    if not all(name in names for name in COLOR_NAMES):
        return 1.0
    words = [row[names.index(name)] for row in rows for name in COLOR_NAMES]
    brightest = max(map(float, words))
    if brightest > 255:
        return 1.0 / 256.0
    return 255.0 if 0 < brightest <= 1 and not all(word.isdigit() for word in words) else 1.0


def _open(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", errors="replace")


def _chunks(path: Path, layout: _Layout, chunk_points: int) -> Iterator[ScanChunk]:
    points = 0
    with _open(path) as file:
        data = itertools.islice(file, layout.lines_before, None)
        done = layout.lines_before
        while lines := list(itertools.islice(data, chunk_points)):
            table = _table(path, layout, lines, done)
            done += len(lines)
            points += len(table)
            if len(table):
                yield _chunk(layout, table)
    if layout.count is not None and points < layout.count:
        raise truncated(path, layout.count, points)


def _table(path: Path, layout: _Layout, lines: list[str], done: int) -> NDArray[np.float64]:
    count = len(layout.names)
    text = "".join(lines)
    if any(mark in text for mark in _COMMENTS):
        text = "".join(line for line in lines if not line.lstrip().startswith(_COMMENTS))
    if layout.has_decimal_commas:
        text = text.replace(",", ".")
    kept = text.replace(",", " ").replace(";", " ").split("\n")
    if not any(line.strip() for line in kept):
        return np.empty((0, count))
    try:
        table = np.loadtxt(kept, np.float64, comments=None, ndmin=2)
    except ValueError as error:
        raise _damaged(path, layout, lines, done) from error
    if table.shape[1] != count:
        raise _damaged(path, layout, lines, done)
    return table


def _damaged(path: Path, layout: _Layout, lines: list[str], done: int) -> ScanError:
    """The error that names the first line that is no point."""
    count = len(layout.names)
    for number, line in enumerate(lines):
        words = layout.words(line)
        is_data = bool(words) and not line.lstrip().startswith(_COMMENTS)
        if is_data and (len(words) != count or not all(_is_number(word) for word in words)):
            return ScanError(
                f"{path}: line {done + number + 1} has not {count} numbers: {line.strip()[:60]!r}; "
                "the file is truncated or damaged"
            )
    return ScanError(
        f"{path}: lines {done + 1:,} to {done + len(lines):,} are damaged; export the file again"
    )


def _chunk(layout: _Layout, table: NDArray[np.float64]) -> ScanChunk:
    columns: dict[str, NDArray[np.generic]] = {}
    for name, values in zip(layout.names, table.T, strict=True):
        if name in COLOR_NAMES:
            scaled = np.nan_to_num(values * layout.color_scale)
            whole = np.floor(scaled) if layout.color_scale < 1 else np.rint(scaled)
            columns[name] = np.clip(whole, 0, 255).astype(np.uint8)
        elif name:
            columns[name] = values
    return columns_to_chunk(columns)
