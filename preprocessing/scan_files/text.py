"""Text point clouds: x y z and more, under any of the usual headers, separators and encodings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import ScanChunk, ScanReader, columns_to_chunk, decided_roles
from preprocessing.scan_files.colors import SAMPLE_BLOCKS, SAMPLE_ROWS, ColorScale
from preprocessing.scan_files.names import AXES, NORMAL_NAMES
from preprocessing.scan_files.options import ScanOptions
from preprocessing.scan_files.source import is_gzipped, truncated
from preprocessing.scan_files.tables import number, numbers, plain_table
from preprocessing.scan_files.text_layout import (
    COMMENTS,
    HEADER_LINES,
    SAMPLE_LINES,
    TextLayout,
    find_layout,
    is_comment,
    is_number,
)
from preprocessing.scan_files.text_lines import LONGEST_LINE, line_blocks, open_lines, text_encoding

LINES_AT_ONCE = 200_000


def open_text(path: Path, chunk_points: int, options: ScanOptions) -> ScanReader:
    """Open a text point cloud; see `open_scan`.

    A line of names ahead of the points decides which columns are x, y, z, colors and normals; `options.columns`
    replaces it. Without either, the first three columns are x y z if the rest fits: three columns of unit
    length behind them are normals, three of whole numbers from 16 up to 255 or of fractions at the end are colors.

    Raises:
        ScanError: if a header names no x, y and z, or the columns cannot be told.
    """
    encoding = text_encoding(path)
    with open_lines(path, encoding) as file:
        first = iter(lambda: file.readline(LONGEST_LINE), "")
        lines = list(islice(first, HEADER_LINES + SAMPLE_LINES))
    layout = find_layout(path, lines, options.columns)
    sample = _sample(path, layout, encoding)
    roles, scale = decided_roles(layout.roles, sample)
    layout = replace(layout, roles=roles, labels={role: layout.labels[role] for role in roles})
    return ScanReader(
        path,
        "text",
        layout.count,
        lambda: _chunks(path, layout, scale, encoding, chunk_points),
        has_normals=NORMAL_NAMES[0] in roles,
        has_colors=scale is not None,
        columns=layout.labels,
    )


def _sample(path: Path, layout: TextLayout, encoding: str) -> dict[str, NDArray[np.float64]]:
    """Colors and normals from all over the file; from the beginning of a large compressed one."""
    wanted = [role for role in layout.roles if role not in AXES]
    if not wanted:
        return {}
    parts: list[dict[str, NDArray[np.float64]]] = []
    size = 0 if is_gzipped(path) else path.stat().st_size
    with open_lines(path, encoding) as file:
        lines = line_blocks(path, file, SAMPLE_ROWS)
        skipped = layout.lines_before
        for block in islice(lines, SAMPLE_BLOCKS):
            parts.append(_columns_of(layout, block[skipped:], wanted))
            skipped = 0
        has_more = next(lines, None) is not None
    if has_more and size and encoding in ("utf-8", "utf-8-sig"):
        with path.open("rb") as raw:
            for place in np.linspace(0, size, SAMPLE_BLOCKS + 2).astype(int)[1:-1]:
                raw.seek(int(place))
                text = raw.read(1 << 16).decode(encoding, "replace").replace("\r", "\n").split("\n")
                parts.append(_columns_of(layout, text[1:-1], wanted))
    return {role: np.concatenate([part[role] for part in parts]) for role in wanted}


def _columns_of(
    layout: TextLayout, lines: Sequence[str], wanted: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Some columns of the lines that hold them; what is damaged is told when it is read in its turn."""
    if layout.is_plain and (quick := _quick(layout, list(lines))) is not None:
        return {role: quick[role] for role in wanted}
    rows = [layout.dialect.split(line) for line in lines if line.strip() and not is_comment(line)]
    last = max(layout.roles[role] for role in wanted)
    rows = [row for row in rows if len(row) > last and layout.width in (None, len(row))]
    try:
        return {role: numbers([row[layout.roles[role]] for row in rows]) for role in wanted}
    except ValueError:
        rows = [row for row in rows if all(is_number(row[layout.roles[role]]) for role in wanted)]
        return {role: numbers([row[layout.roles[role]] for row in rows]) for role in wanted}


def _chunks(
    path: Path, layout: TextLayout, scale: ColorScale | None, encoding: str, chunk_points: int
) -> Iterator[ScanChunk]:
    points, done = 0, layout.lines_before
    promised = layout.count
    with open_lines(path, encoding) as file:
        for _ in range(layout.lines_before):
            file.readline(LONGEST_LINE)
        for lines in line_blocks(path, file, min(chunk_points, LINES_AT_ONCE)):
            if promised is not None:
                # Files of several scans repeat the count ahead of each.
                more = [line for line in lines if line.strip().isdigit()]
                promised += sum(map(int, more))
                if more:
                    lines = ["#" if line.strip().isdigit() else line for line in lines]
            columns = _table(path, layout, lines, done)
            done += len(lines)
            points += len(columns["x"])
            if len(columns["x"]):
                yield columns_to_chunk(columns, scale)
    if promised is not None and points < promised:
        raise truncated(path, promised, points)


def _table(path: Path, layout: TextLayout, lines: list[str], done: int) -> dict[str, NDArray[np.float64]]:
    """The columns that are used of a block of lines."""
    if layout.is_plain and (columns := _quick(layout, lines)) is not None:
        return columns
    kept = [(n, line) for n, line in enumerate(lines) if line.strip() and not is_comment(line)]
    rows = [layout.dialect.split(line) for _, line in kept]
    needed = max(layout.roles.values()) + 1
    for (n, line), row in zip(kept, rows, strict=True):
        if (layout.width is not None and len(row) != layout.width) or len(row) < needed:
            raise _damaged(path, layout, done + n, line)
        if not layout.is_named and "" in row[:needed]:
            raise _damaged(path, layout, done + n, line, " (one is missing)")
    try:
        return {role: numbers([row[place] for row in rows]) for role, place in layout.roles.items()}
    except ValueError:
        for (n, line), row in zip(kept, rows, strict=True):
            for role, place in layout.roles.items():
                try:
                    number(row[place])
                except ValueError as error:
                    raise _damaged(path, layout, done + n, line, f" ({error}, for {role})") from error
        raise


def _damaged(path: Path, layout: TextLayout, line: int, text: str, reason: str = "") -> ScanError:
    wanted = layout.width or max(layout.roles.values()) + 1
    what = "numbers" if layout.is_plain or not layout.is_named else "values"
    return ScanError(
        f"{path}: line {line + 1} has not {wanted} {what}{reason}: {text.strip()[:60]!r}; correct that line or export "
        "the file again"
    )


def _quick(layout: TextLayout, lines: list[str]) -> dict[str, NDArray[np.float64]] | None:
    """The columns of lines that are nothing but numbers; None where one is not."""
    text = "\n".join(lines)
    if any(mark in text for mark in COMMENTS):
        text = "\n".join(line for line in lines if not is_comment(line))
    separator = layout.dialect.separator
    if layout.dialect.has_decimal_commas:
        text = text.replace(",", ".")
    elif separator == "mixed":
        text = text.replace(",", " ").replace(";", " ").replace("|", " ")
    kept = text.split("\n")
    if not text.strip():
        return {role: np.zeros(0) for role in layout.roles}
    table = plain_table(kept, layout.width, None if separator in ("", "mixed") else separator)
    return None if table is None else {role: table[:, place] for role, place in layout.roles.items()}
