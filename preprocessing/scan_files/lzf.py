"""LZF, the compression of LibLZF that PCD files use, expanded as a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

FARTHEST = 1 << 13  # bytes back that a reference reaches
LARGEST_RATIO = 90  # three bytes stand for at most 264
_PIECE = 1 << 16


def lzf_stream(file: BinaryIO, packed: int, size: int) -> Iterator[bytes]:
    """Expand LZF data piece by piece, in memory of a few megabytes.

    A control byte below 32 starts a run of that many literals plus one; any other holds a length in its
    upper three bits and the high bits of a distance back into the output.

    Args:
        file: stands at the data, which takes `packed` bytes.
        size: bytes that it expands to.

    Raises:
        ValueError: if it does not expand to exactly that.
    """
    out = bytearray()
    given = 0
    data, at = b"", 0
    left = packed
    while True:
        if len(data) - at < 34 and left:  # an instruction takes at most 33 bytes
            more = file.read(min(_PIECE, left))
            if not more:
                raise ValueError("it ends early")
            left -= len(more)
            data, at = data[at:] + more, 0
        if at >= len(data):
            break
        try:
            at = _instruction(data, at, out)
        except IndexError as error:
            raise ValueError("it ends inside an instruction") from error
        if given + len(out) > size:
            raise ValueError(f"more than {size:,} bytes")
        if len(out) > _PIECE + FARTHEST:
            yield bytes(out[:-FARTHEST])
            given += len(out) - FARTHEST
            del out[:-FARTHEST]
    if given + len(out) != size:
        raise ValueError(f"{given + len(out):,} bytes instead of {size:,}")
    yield bytes(out)


def _instruction(data: bytes, at: int, out: bytearray) -> int:
    """Carry out the instruction at a place; the place of the next."""
    control = data[at]
    at += 1
    if control < 32:
        if at + control + 1 > len(data):
            raise ValueError("a literal run passes the end")
        out += data[at : at + control + 1]
        return at + control + 1
    length = control >> 5
    if length == 7:
        length += data[at]
        at += 1
    distance = ((control & 31) << 8) + data[at] + 1
    start = len(out) - distance
    if start < 0:
        raise ValueError("a reference before the start")
    length += 2
    if distance >= length:
        out += out[start : start + length]
    else:
        pattern = bytes(out[start:])
        out += (pattern * (length // distance + 1))[:length]
    return at + 1
