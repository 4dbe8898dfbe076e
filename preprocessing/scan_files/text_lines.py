"""Lines of a text file in any of the usual encodings, in memory that a bound on the length of a line keeps small."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from preprocessing.errors import ScanError
from preprocessing.scan_files.source import head_of, open_bytes

LONGEST_LINE = 1 << 20  # characters; a COLMAP point seen in ten thousand pictures has 100,000
_BLOCK = 1 << 21
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_encoding(path: Path) -> str:
    """The encoding by the file's byte order mark, or by the zero bytes that UTF-16 has without one.

    Raises:
        ScanError: if the file is binary.
    """
    head = head_of(path, 4096)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    if b"\0" not in head:
        return "utf-8"
    odd, even = head[1::2], head[0::2]
    if odd.count(0) > 0.7 * len(odd) and 0 not in even:
        return "utf-16-le"
    if even.count(0) > 0.7 * len(even) and 0 not in odd:
        return "utf-16-be"
    raise ScanError(
        f"{path}: holds no points that can be read as text: it is a binary file; check its suffix"
    )


def open_lines(path: Path, encoding: str) -> TextIO:
    """A text file; bytes that are no letters are replaced, as a header in an old code page has them."""
    return io.TextIOWrapper(open_bytes(path), encoding=encoding, errors="replace")


def line_blocks(path: Path, file: TextIO, lines_at_once: int) -> Iterator[list[str]]:
    """The rest of a file, at most `lines_at_once` lines at a time, without their ends.

    Raises:
        ScanError: if a line is too long for a text point cloud.
    """
    waiting: list[str] = []
    rest = ""
    while text := file.read(min(_BLOCK, max(4096, 16 * lines_at_once))):
        lines = (rest + text).split("\n")
        rest = lines.pop()
        if len(rest) > LONGEST_LINE:
            raise ScanError(
                f"{path}: a line is longer than {LONGEST_LINE:,} characters; it is no text point cloud"
            )
        waiting += lines
        while len(waiting) >= lines_at_once:
            yield waiting[:lines_at_once]
            del waiting[:lines_at_once]
    if rest:
        waiting.append(rest)
    if waiting:
        yield waiting
