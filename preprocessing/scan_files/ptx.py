"""PTX: scans of several stations as organized text, each with its pose; (0, 0, 0) stands where nothing came back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk, directions_to
from preprocessing.scan_files.colors import SAMPLE_ROWS, ColorScale, decide_scale
from preprocessing.scan_files.names import AXES, COLOR_NAMES
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import truncated
from preprocessing.scan_files.tables import numbers, plain_table
from preprocessing.scan_files.text_lines import open_lines, text_encoding

HEADER_LINES = 10
LONGEST_LINE = 1 << 10  # characters; what is longer is no row of seven numbers
LARGEST_SCAN = 1 << 40


@dataclass(frozen=True)
class _Head:
    """The ten lines ahead of a scan: its size, and the (4, 4) matrix that acts on rows (x, y, z, 1).

    Attributes:
        blank_lines: ahead of them, where some writers separate scans.
    """

    blank_lines: int
    points: int
    matrix: NDArray[np.float64]

    @property
    def station(self) -> NDArray[np.float64]:
        return self.matrix[3, :3]


def open_ptx(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open a PTX point cloud; see `open_scan`. Points come in the common frame, each with its direction."""
    encoding = text_encoding(path)
    with open_lines(path, encoding) as file:
        first = _read_head(path, file, 0)
        assert first is not None
        rows = [file.readline(LONGEST_LINE).split() for _ in range(min(first.points, SAMPLE_ROWS))]
    widths = {len(row) for row in rows if row}
    width = widths.pop() if len(widths) == 1 else 0
    if rows and width not in (3, 4, 6, 7):
        raise ScanError(
            f"{path}: line 11 is not x y z intensity r g b: {' '.join(rows[0])[:60]!r}; export it again"
        )
    heads = _heads(path, encoding)
    scale = _color_scale(path, encoding, width) if width >= 6 else None

    return ScanReader(
        path,
        "PTX",
        sum(head.points for head in heads),
        lambda: _chunks(path, encoding, max(width, 3), scale, chunk_points),
        has_colors=scale is not None,
        has_directions=True,
        columns={axis: f"column {number + 1}" for number, axis in enumerate(AXES)},
        stations=tuple((float(x), float(y), float(z)) for x, y, z in (head.station for head in heads)),
    )


def _read_head(path: Path, file: TextIO, before: int) -> _Head | None:
    """The head of the next scan; None at the end of the file."""
    blank_lines = 0
    while (first := file.readline(LONGEST_LINE)) and not first.strip():
        blank_lines += 1
    if not first and before:
        return None
    before += blank_lines
    rest = itertools.islice(iter(lambda: file.readline(LONGEST_LINE), ""), HEADER_LINES - 1)
    lines = [first, *rest]
    try:
        sizes = [int(line) for line in lines[:2]]
        values = [[float(word) for word in line.split()] for line in lines[2:]]
        if [len(row) for row in values] != [3] * 4 + [4] * 4 or min(sizes) < 0:
            raise ValueError("a PTX scan begins with columns, rows, position, axes and a 4 x 4 matrix")
        matrix = np.array(values[4:])
        if not np.isfinite(matrix).all() or sizes[0] * sizes[1] > LARGEST_SCAN:
            raise ValueError("the matrix is not finite or the scan too large")
    except (ValueError, IndexError) as error:
        raise ScanError(
            f"{path}: lines {before + 1:,} to {before + 10:,} are no PTX header ({error}); export it again"
        ) from error
    return _Head(blank_lines, sizes[0] * sizes[1], matrix)


def _blocks(path: Path, encoding: str, rows: int) -> Iterator[tuple[_Head, list[str]]]:
    """Every scan's head with its lines, some at a time; a scan without points comes with none."""
    before = 0
    with open_lines(path, encoding) as file:
        while (head := _read_head(path, file, before)) is not None:
            before += head.blank_lines + HEADER_LINES
            left = head.points
            if not left:
                yield head, []
            while left:
                lines = list(itertools.islice(iter(lambda: file.readline(LONGEST_LINE), ""), min(left, rows)))
                if len(lines) < min(left, rows):
                    raise truncated(path, head.points, head.points - left + len(lines))
                left -= len(lines)
                before += len(lines)
                yield head, lines


def _heads(path: Path, encoding: str) -> list[_Head]:
    """The heads of all scans, by one pass over the lines."""
    found: list[_Head] = []
    for head, _ in _blocks(path, encoding, SAMPLE_ROWS):
        if not found or found[-1] is not head:
            found.append(head)
    return found


def _values(path: Path, lines: list[str], width: int) -> NDArray[np.float64]:
    table = plain_table(lines, width)
    if table is not None and len(table) == len(lines):
        return table
    for line in lines:
        try:
            if len(numbers(line.split())) == width:
                continue
            reason = f"has not {width} values"
        except ValueError as error:
            reason = str(error)
        raise ScanError(f"{path}: the line {line.strip()[:60]!r} {reason}; export it again")
    return np.stack([numbers(line.split()) for line in lines])


def _color_scale(path: Path, encoding: str, width: int) -> ColorScale | None:
    shades = [
        _values(path, lines, width)[:, -3:]
        for _, lines in itertools.islice(_blocks(path, encoding, SAMPLE_ROWS), 64)
        if lines
    ]
    return decide_scale(list(np.concatenate(shades).T)) if shades else None


def _chunks(
    path: Path, encoding: str, width: int, scale: ColorScale | None, chunk_points: int
) -> Iterator[ScanChunk]:
    for head, lines in _blocks(path, encoding, min(chunk_points, 200_000)):
        if not lines:
            continue
        table = _values(path, lines, width)
        local = table[:, :3]
        world = local @ head.matrix[:3, :3] + head.station
        columns = dict(zip(AXES, world.T, strict=True))
        columns |= dict(zip(COLOR_NAMES, table[:, -3:].T, strict=True))
        chunk = columns_to_chunk(columns, scale)
        directions = directions_to(chunk.points, head.station[None])
        chunk = ScanChunk(chunk.points, None, chunk.colors, directions)
        yield chunk.only(np.asarray(local.any(axis=1)), "without a return, (0, 0, 0)")
