"""PCD (Point Cloud Library) files: ASCII, binary, and binary_compressed with its LZF coding."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import ScanError
from preprocessing.scan_files.chunks import (
    COLOR_NAMES,
    NORMAL_NAMES,
    ScanChunk,
    ScanReader,
    binary_rows,
    columns_to_chunk,
    text_rows,
    truncated,
)

_NAMES = {"normal_x": "nx", "normal_y": "ny", "normal_z": "nz"}
LONGEST_HEADER = 1 << 14
PACKED_COLORS, PACKED_BYTES = ("rgb", "rgba"), 4


@dataclass(frozen=True)
class _Header:
    """Parsed PCD header: fields as (name, numpy type, count)."""

    fields: list[tuple[str, str, int]]
    points: int
    data: str
    data_start: int

    @property
    def rows(self) -> np.dtype[np.void]:
        """Structured type of one point."""
        spec = [
            (f"{number}_{name}", kind, (count,)) for number, (name, kind, count) in enumerate(self.fields)
        ]
        return np.dtype(spec)


def _parse_header(path: Path) -> _Header:
    words: dict[str, list[str]] = {}
    with path.open("rb") as file:
        while "DATA" not in words:
            raw = file.readline(4096)
            if not raw or file.tell() > LONGEST_HEADER:
                raise ScanError(
                    f"{path}: the PCD header does not end; it is truncated or no PCD file, copy or export it again"
                )
            parts = raw.decode("latin-1").split()
            if parts and not parts[0].startswith("#"):
                words[parts[0].upper()] = parts[1:]
        start = file.tell()
    try:
        names = words["FIELDS"]
        counts = [int(value) for value in words.get("COUNT", ["1"] * len(names))]
        kinds = [
            "<" + {"F": "f", "I": "i", "U": "u"}[kind] + size
            for kind, size in zip(words["TYPE"], words["SIZE"], strict=True)
        ]
        points = (
            int(words["POINTS"][0]) if "POINTS" in words else int(words["WIDTH"][0]) * int(words["HEIGHT"][0])
        )
        fields = [
            (_NAMES.get(n, n), np.dtype(k).str, c) for n, k, c in zip(names, kinds, counts, strict=True)
        ]
        data = words["DATA"][0].lower()
        if points < 0 or min(counts) < 1:
            raise ValueError(f"{points} points, counts {counts}")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise ScanError(f"{path}: damaged PCD header ({error}); copy or export it again") from error
    if data not in ("ascii", "binary", "binary_compressed"):
        raise ScanError(
            f"{path}: unknown PCD data kind {data!r}; save it as ascii, binary or binary_compressed"
        )
    if any(axis not in names for axis in "xyz"):
        raise ScanError(f"{path}: the points have no x, y and z; export it as a plain point cloud")
    return _Header(fields, points, data, start)


def open_pcd(path: Path, chunk_points: int) -> ScanReader:
    """Open a PCD point cloud; see `open_scan`. Compressed ones are expanded whole, as their coding demands."""
    header = _parse_header(path)
    if header.data == "binary":
        present = (path.stat().st_size - header.data_start) // header.rows.itemsize
        if present < header.points:
            raise truncated(path, header.points, present)
    sizes = {name: np.dtype(kind).itemsize for name, kind, _ in header.fields}
    return ScanReader(
        path,
        "PCD",
        header.points,
        lambda: _chunks(path, header, chunk_points),
        has_normals=all(name in sizes for name in NORMAL_NAMES),
        has_colors=any(sizes.get(name) == PACKED_BYTES for name in PACKED_COLORS)
        or all(name in sizes for name in COLOR_NAMES),
    )


def _chunks(path: Path, header: _Header, chunk_points: int) -> Iterator[ScanChunk]:
    if header.data == "binary_compressed":
        columns = _compressed_columns(path, header)
        for start in range(0, header.points, chunk_points):
            yield _chunk(header, [column[start : start + chunk_points] for column in columns])
    elif header.data == "binary":
        for rows in binary_rows(path, header.data_start, header.rows, header.points, chunk_points):
            yield _chunk(header, [rows[name] for name in rows.dtype.names or ()])
    else:
        with path.open("rb") as file:
            file.seek(header.data_start)
            for rows in text_rows(path, file, header.rows, header.points, chunk_points):
                yield _chunk(header, [rows[name] for name in rows.dtype.names or ()])


def _compressed_columns(path: Path, header: _Header) -> list[NDArray[np.generic]]:
    raw = path.read_bytes()[header.data_start :]
    if len(raw) < 8:
        raise ScanError(f"{path}: is truncated before its data; copy or export it again")
    packed, size = struct.unpack("<II", raw[:8])
    if size != header.points * header.rows.itemsize:
        raise ScanError(f"{path}: the compressed data does not fit the header; copy or export it again")
    if len(raw) - 8 < packed:
        raise ScanError(
            f"{path}: is truncated: {len(raw) - 8:,} of {packed:,} bytes of data; copy or export it again"
        )
    try:
        data = lzf_decompress(raw[8 : 8 + packed], size)
    except ValueError as error:
        raise ScanError(
            f"{path}: the compressed data is damaged ({error}); copy or export it again"
        ) from error
    columns, offset = [], 0
    for _, kind, count in header.fields:  # all values of one field, then all of the next
        length = header.points * count * np.dtype(kind).itemsize
        columns.append(np.frombuffer(data, kind, header.points * count, offset).reshape(-1, count))
        offset += length
    return list(columns)


def lzf_decompress(data: bytes, size: int) -> bytes:
    """Expand LZF data (the coding of LibLZF that PCD uses).

    A control byte below 32 starts a run of that many literals plus one; any other holds a length in its
    upper three bits and the high bits of a distance back into the output.

    Raises:
        ValueError: if the data does not expand to exactly `size` bytes.
    """
    out = bytearray()
    at, end = 0, len(data)
    try:
        while at < end:
            control = data[at]
            at += 1
            if control < 32:
                if at + control + 1 > end:
                    raise ValueError("a literal run passes the end")
                out += data[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += data[at]
                at += 1
            distance = ((control & 31) << 8) + data[at] + 1
            at += 1
            start = len(out) - distance
            if start < 0:
                raise ValueError("a reference before the start")
            length += 2
            if distance >= length:
                out += out[start : start + length]
            else:
                pattern = bytes(out[start:])
                out += (pattern * (length // distance + 1))[:length]
    except IndexError as error:
        raise ValueError("it ends inside an instruction") from error
    if len(out) != size:
        raise ValueError(f"{len(out):,} bytes instead of {size:,}")
    return bytes(out)


def _chunk(header: _Header, columns: list[NDArray[np.generic]]) -> ScanChunk:
    named = {name: column[:, 0] for (name, _, _), column in zip(header.fields, columns, strict=True)}
    for packed in PACKED_COLORS:
        if packed in named and named[packed].dtype.itemsize == PACKED_BYTES:
            # Three bytes lie in the bits of a float or an integer.
            bits = np.ascontiguousarray(named[packed]).view(np.uint32)
            named |= {
                channel: ((bits >> shift) & 255).astype(np.uint8)
                for channel, shift in zip(COLOR_NAMES, (16, 8, 0), strict=True)
            }
    return columns_to_chunk(named)
