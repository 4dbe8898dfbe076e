"""The bytes of a scan file, plain or gzipped, and the bounds that keep a small file from asking for much memory."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from preprocessing.errors import ScanError

GZIP = b"\x1f\x8b"
LARGEST_ROW = 1 << 20  # bytes of one point; real ones have tens or hundreds
BLOCK_BYTES = 1 << 26  # of rows read at once
GZIP_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile)  # what damage in a gzipped file raises


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked.

    Raises:
        ScanError: if the file is gzipped and damaged from the start.
    """
    try:
        with open_bytes(path) as file:
            return file.read(size)
    except GZIP_ERRORS as error:
        raise damaged_gzip(path, error) from error


def is_gzipped(path: Path) -> bool:
    """Whether a file is gzip data, whatever its name."""
    with path.open("rb") as file:
        return file.read(2) == GZIP


def open_bytes(path: Path) -> BinaryIO:
    """A file's content, unpacked on the way if it is gzipped; memory stays bounded."""
    if is_gzipped(path):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def size_in_bytes(path: Path) -> int | None:
    """Size of the content; None where only reading tells, because it is gzipped."""
    return None if is_gzipped(path) else path.stat().st_size


def rows_at_once(row_bytes: int, chunk_points: int) -> int:
    """How many rows to read at once, so that a block stays small however wide its rows are."""
    return max(1, min(chunk_points, BLOCK_BYTES // max(1, row_bytes)))


def check_row(path: Path, row_bytes: int) -> None:
    """Refuse points of an absurd size before anything is reserved for them.

    Raises:
        ScanError: if one point would take more than a megabyte.
    """
    if row_bytes > LARGEST_ROW:
        raise ScanError(
            f"{path}: its header claims {row_bytes:,} bytes for each point; the header is damaged, export it again"
        )


def damaged_gzip(path: Path, error: Exception) -> ScanError:
    """The error of gzip data that does not unpack."""
    return ScanError(f"{path}: its gzip data is truncated or damaged ({error}); copy it again")


def truncated(path: Path, promised: int, present: int) -> ScanError:
    """The error of a file with fewer points than its header promises."""
    return ScanError(
        f"{path}: is truncated: the header promises {promised:,} points, the file holds {present:,}; "
        "copy or export it again"
    )
