"""Rows that a header describes, in text or in binary, read a bounded block at a time."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.source import BLOCK_BYTES, rows_at_once, truncated

LONGEST_LINE = 1 << 20
LINES_AT_ONCE = 64  # read before their size is looked at
_WORDS_OF_NAN = {
    "nan",
    "-nan",
    "+nan",
    "null",
    "none",
    "na",
    "n/a",
    "#n/a",
    "",
    "-",
    "--",
    "nil",
    "missing",
    "\\n",
    "?",
    "<na>",
    "nodata",
    "undefined",
    "#nv",
    "#num!",
    "#value!",
    "#div/0!",
}
_BARE_EXPONENT = re.compile(r"([+-]?(?:\d+\.\d*|\.\d+))([+-]\d{2,3})")  # Fortran drops the E of 1.0-100


@dataclass(frozen=True)
class Column:
    """A property of a row.

    Attributes:
        name: as the file has it.
        kind: numpy type of its values, with byte order.
        count: values in a row; of a list (`length_kind` set), they are as many as its first value says.
        length_kind: numpy type of a list's length, or None for a plain value.
    """

    name: str
    kind: str
    count: int = 1
    length_kind: str | None = None


def row_bytes(columns: Sequence[Column]) -> int | None:
    """Size of a binary row; None where a list makes it vary."""
    if any(column.length_kind for column in columns):
        return None
    return sum(column.count * np.dtype(column.kind).itemsize for column in columns)


def number(word: str) -> float:
    """A number as programs write them: with D or nothing for the exponent, or any spelling of NaN and infinity.

    Raises:
        ValueError: if it is none.
    """
    plain = word.strip().strip("\"'").strip().lower()
    try:
        return float(plain)
    except ValueError:
        pass
    if plain in _WORDS_OF_NAN or plain.lstrip("+-").startswith(
        ("nan", "1.#qnan", "1.#ind", "1.#snan", "1.#nan")
    ):
        return float("nan")
    if not plain.strip("*"):  # what Fortran writes where a number does not fit its field
        return float("nan")
    if plain.lstrip("+-").startswith("1.#inf"):
        return float("-inf") if plain.startswith("-") else float("inf")
    if "d" in plain:
        return float(plain.replace("d", "e", 1))
    if bare := _BARE_EXPONENT.fullmatch(plain):
        return float(f"{bare[1]}e{bare[2]}")
    raise ValueError(f"{word.strip()[:40]!r} is no number")


def numbers(words: Sequence[str]) -> NDArray[np.float64]:
    """A column of words as numbers; quick where they are plain.

    Raises:
        ValueError: if one is no number.
    """
    try:
        return np.array(words, dtype=np.str_).astype(np.float64) if words else np.zeros(0)
    except ValueError:
        return np.array([number(word) for word in words], np.float64)


def _lines(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The filled lines of a text part that are no comments."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            raise ScanError(
                f"{path}: a line is longer than {LONGEST_LINE:,} bytes; it is no text point cloud"
            )
        plain = line.strip()
        if plain and not plain.startswith((b"#", b"comment ", b"//")):
            yield plain


def text_rows(
    path: Path, file: BinaryIO, columns: Sequence[Column], promised: int, chunk_points: int, skipped: int = 0
) -> Iterator[dict[int, NDArray[np.float64]]]:
    """The rows of a text part, a block at a time, as real numbers: a column's first value by its number.

    Whole-number columns may hold real numbers or NaN, as many writers leave them. Lists are passed over.

    Args:
        file: stands at the first row; blank lines and comments are skipped.
        skipped: rows of other elements ahead of the wanted ones.

    Raises:
        ScanError: if rows are missing or damaged; names the point.
    """
    lines = _lines(path, file)
    if sum(1 for _ in itertools.islice(lines, skipped)) < skipped:
        raise truncated(path, promised, 0)
    has_lists = any(column.length_kind for column in columns)
    starts = np.cumsum([0, *(column.count for column in columns)])
    done = 0
    while done < promised:
        wanted = min(rows_at_once(32 * int(starts[-1]), chunk_points), promised - done)
        block, is_last = _block(lines, wanted)
        if has_lists:
            rows = [
                _without_lists(path, line.split(), columns, done + n, promised)
                for n, line in enumerate(block)
            ]
            table = np.array(rows, np.float64).reshape(len(rows), -1)
            yield {n: table[:, n] for n, column in enumerate(columns) if not column.length_kind}
        elif block:
            table = _numbers_table(path, block, int(starts[-1]), done, promised)
            yield {n: table[:, start] for n, start in enumerate(starts[:-1])}
        done += len(block)
        if is_last and done < promised:
            raise truncated(path, promised, done)


def _block(lines: Iterator[bytes], wanted: int) -> tuple[list[str], bool]:
    """At most so many lines and `BLOCK_BYTES`, and whether they are the last ones."""
    block: list[str] = []
    size = 0
    while len(block) < wanted and size < BLOCK_BYTES:
        asked = min(wanted - len(block), LINES_AT_ONCE)
        part = list(itertools.islice(lines, asked))
        block += [line.decode("latin-1") for line in part]
        size += sum(map(len, part))
        if len(part) < asked:
            return block, True
    return block, False


def plain_table(
    lines: list[str], width: int | None, separator: str | None = None
) -> NDArray[np.float64] | None:
    """Lines of nothing but numbers (N, width), quickly; None where one holds something else."""
    try:
        table = np.asarray(np.loadtxt(lines, np.float64, comments=None, delimiter=separator, ndmin=2))
    except (ValueError, OverflowError):
        return None
    return table if table.shape[1] == width else None


def _numbers_table(path: Path, block: list[str], width: int, done: int, promised: int) -> NDArray[np.float64]:
    if (table := plain_table(block, width)) is not None:
        return table
    rows = []
    for row, line in enumerate(block):
        words = line.split()
        try:
            if len(words) != width:
                raise ValueError(f"{len(words)} values instead of {width}")
            rows.append([number(word) for word in words])
        except ValueError as error:
            raise _damaged_row(path, done + row, promised, error) from error
    return np.array(rows, np.float64).reshape(-1, width)


def _without_lists(
    path: Path, words: list[str], columns: Sequence[Column], at: int, promised: int
) -> list[float]:
    values, place = [], 0
    try:
        for column in columns:
            if column.length_kind:
                place += 1 + int(number(words[place]))
                values.append(0.0)
            else:
                values.append(number(words[place]))
                place += column.count
        if place != len(words):
            raise ValueError(f"{len(words)} values instead of {place}")
    except (ValueError, IndexError, OverflowError) as error:
        raise _damaged_row(path, at, promised, error) from error
    return values


def _damaged_row(path: Path, row: int, promised: int, error: Exception) -> ScanError:
    return ScanError(
        f"{path}: point {row + 1:,} of {promised:,} is damaged ({error}); correct that row or export the file again"
    )


def binary_rows(
    path: Path, file: BinaryIO, columns: Sequence[Column], promised: int, chunk_points: int
) -> Iterator[dict[int, NDArray[Any]]]:
    """The rows of a binary part, a block at a time: a column's values (N,), or (N, count), by its number.

    Args:
        file: stands at the first row.

    Raises:
        ScanError: if rows are missing, or a list claims more than the file holds.
    """
    if any(column.length_kind for column in columns):
        yield from _rows_with_lists(path, file, columns, promised, chunk_points)
        return
    rows = np.dtype([(str(n), column.kind, (column.count,)) for n, column in enumerate(columns)])
    done = 0
    while done < promised:
        wanted = min(rows_at_once(rows.itemsize, chunk_points), promised - done)
        data = read_exactly(file, wanted * rows.itemsize)
        table = np.frombuffer(data, rows, len(data) // rows.itemsize)
        done += len(table)
        if len(table) < wanted:
            raise truncated(path, promised, done)
        yield {
            n: table[str(n)] if column.count > 1 else table[str(n)][:, 0] for n, column in enumerate(columns)
        }


def read_exactly(file: IO[bytes], size: int) -> bytes:
    """Exactly `size` bytes, or what there is; gzipped files give them in pieces."""
    parts, left = [], size
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _rows_with_lists(
    path: Path, file: BinaryIO, columns: Sequence[Column], promised: int, chunk_points: int
) -> Iterator[dict[int, NDArray[Any]]]:
    """Rows of varying size, walked one by one."""
    plain = [n for n, column in enumerate(columns) if not column.length_kind]
    done = 0
    while done < promised:
        wanted = min(chunk_points, 1 << 16, promised - done)
        values: list[list[Any]] = []
        for _ in range(wanted):
            row = _walk(file, columns)
            if row is None:
                raise truncated(path, promised, done + len(values))
            values.append(row)
        done += wanted
        table = list(zip(*values, strict=True))
        yield {n: np.array(table[place], columns[n].kind) for place, n in enumerate(plain)}


def _walk(file: BinaryIO, columns: Sequence[Column]) -> list[Any] | None:
    """The plain values of the next row; None at the end of the file."""
    row = []
    for column in columns:
        if column.length_kind is None:
            size = np.dtype(column.kind).itemsize
            data = read_exactly(file, size * column.count)
            if len(data) < size * column.count:
                return None
            row.append(np.frombuffer(data, column.kind).item(0))
        elif list_values(file, column, keep=False) is None:
            return None
    return row


def list_values(file: BinaryIO, column: Column, keep: bool = True) -> NDArray[Any] | None:
    """The values of the list that begins here (passed over and empty unless `keep`); None at the end of the file."""
    assert column.length_kind is not None
    size = np.dtype(column.length_kind).itemsize
    data = read_exactly(file, size)
    if len(data) < size:
        return None
    left = np.frombuffer(data, column.length_kind).item()
    if left != left or left < 0 or left > 2**32:
        return None
    left = int(left) * np.dtype(column.kind).itemsize
    parts = []
    while left:
        part = file.read(min(left, 1 << 20))
        if not part:
            return None
        left -= len(part)
        if keep:
            parts.append(part)
    return np.frombuffer(b"".join(parts), column.kind)


def pass_over(file: IO[bytes], size: int) -> bool:
    """Read `size` bytes without keeping them; whether there were so many."""
    while size and (part := file.read(min(size, 1 << 16))):
        size -= len(part)
    return not size


def skip_rows(path: Path, file: BinaryIO, columns: Sequence[Column], rows: int) -> None:
    """Pass over the binary rows of an element ahead of the points.

    Raises:
        ScanError: if the file ends in them.
    """
    size = row_bytes(columns)
    if size is None:
        is_whole = all(_walk(file, columns) is not None for _ in range(rows))
    else:
        is_whole = pass_over(file, rows * size)
    if not is_whole:
        raise truncated(path, rows, 0)
