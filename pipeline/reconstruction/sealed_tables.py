"""Parquet files that carry the identity of their run, their own name and a checksum of every byte.

A sealed file is an ordinary Parquet file: the seal lies between the last row group and the footer, where readers
of Parquet never look. It names the run and the file, cuts all bytes before it into spans (one for each row group)
and holds the CRC-32 of each span, of the footer, and of itself. Bytes are verified before anything interprets them.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foundation.storage import OpenedFile
from pipeline.errors import RunFileError

Columns = Mapping[str, NDArray[Any]]

FACTS = b"tessera"  # key of the JSON facts in the footer
MAGIC = b"TSEAL001"
_TAIL = struct.Struct("<II8s")  # length and checksum of the seal's JSON, magic
_END = struct.Struct("<I4s")  # of every Parquet file: length of the footer, magic
_PARQUET = b"PAR1"
_KINDS = {pa.from_numpy_dtype(kind): np.dtype(kind) for kind in ("u1", "i1", "i4", "i8", "f2", "f4", "f8")}


def sealed(groups: Sequence[Columns], facts: dict[str, Any], identity: str, name: str) -> bytes:
    """The bytes of a sealed file.

    Args:
        groups: row groups of the same columns, at least one; each holds one-dimensional arrays of one length.
        facts: JSON for the footer.
        identity: of the run.
        name: of the file in the run directory.
    """
    tables = [_to_arrow(columns) for columns in groups]
    schema = tables[0].schema.with_metadata({FACTS: json.dumps(facts)})
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(
        buffer, schema, compression="zstd", compression_level=1, use_dictionary=False
    ) as writer:
        for table in tables:
            writer.write_table(
                table.replace_schema_metadata(schema.metadata), row_group_size=max(1, table.num_rows)
            )
    plain: bytes = buffer.getvalue().to_pybytes()
    footer_at = len(plain) - _END.size - _END.unpack(plain[-_END.size :])[0]
    metadata = pq.read_metadata(pa.BufferReader(plain))
    cuts = [0]
    for number in range(metadata.num_row_groups - 1):
        cuts.append(max(cuts[-1], _last_byte(metadata.row_group(number))))
    cuts.append(footer_at)
    seal = json.dumps(
        {
            "identity": identity,
            "name": name,
            "cuts": cuts,
            "checksums": [zlib.crc32(plain[start:stop]) for start, stop in pairwise(cuts)],
            "footer": zlib.crc32(plain[footer_at:]),
        }
    ).encode()
    tail = _TAIL.pack(len(seal), zlib.crc32(seal), MAGIC)
    return plain[:footer_at] + seal + tail + plain[footer_at:]


def _last_byte(group: pq.RowGroupMetaData) -> int:
    """Where a row group ends; 0 where it is empty."""
    ends = [0]
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        ends.append(start + column.total_compressed_size)
    return max(ends)


def _to_arrow(columns: Columns) -> pa.Table:
    """A table of arrays. Arrow's own conversion would import pandas, which takes as long as a small scene."""
    arrays = {}
    for name, values in columns.items():
        is_bool = values.dtype == np.bool_
        data = np.packbits(values, bitorder="little") if is_bool else np.ascontiguousarray(values)
        kind = pa.from_numpy_dtype(values.dtype)
        arrays[name] = pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])
    return pa.table(arrays)


def _to_numpy(table: pa.Table) -> dict[str, NDArray[Any]]:
    """The columns of a table, which may share its memory."""
    return {
        name: np.concatenate([_values(chunk) for chunk in column.chunks])
        if column.num_chunks != 1
        else _values(column.chunk(0))
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _values(array: pa.Array) -> NDArray[Any]:
    data = array.buffers()[1]
    start, stop = array.offset, array.offset + len(array)
    if pa.types.is_boolean(array.type):
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little") if stop else np.zeros(0)
        return bits[start:stop].astype(np.bool_)
    kind = _KINDS[array.type]
    return np.frombuffer(data, kind, count=stop)[start:] if stop else np.zeros(0, kind)


class SealedTable:
    """An open sealed file; what is read from it has been verified. Use it as a context manager.

    Args:
        file: random access to its bytes.
        folder, name: where it is, for messages; the name must be the one it was written under.
        identity: of the run that it must belong to.

    Raises:
        RunFileError: if it is damaged, or another file than its name says.
    """

    def __init__(self, file: OpenedFile, folder: str, name: str, identity: str) -> None:
        self._folder, self._name = folder, name
        size = file.size()
        end = file.read_at(_END.size, max(0, size - _END.size))
        if len(end) < _END.size or end[4:] != _PARQUET:
            raise self._damaged("is cut short or no table")
        footer_at = size - _END.size - _END.unpack(end)[0]
        if footer_at < _TAIL.size:
            raise self._damaged("its end is damaged")
        length, checksum, magic = _TAIL.unpack(file.read_at(_TAIL.size, footer_at - _TAIL.size))
        seal_at = footer_at - _TAIL.size - length
        if magic != MAGIC or seal_at < 0:
            raise self._damaged("has no seal, or a damaged one")
        written = file.read_at(length, seal_at)
        if zlib.crc32(written) != checksum:
            raise self._damaged("its seal is damaged")
        seal = json.loads(written)
        footer = file.read_at(size - footer_at, footer_at)
        if zlib.crc32(footer) != seal["footer"] or seal["cuts"][-1] != seal_at:
            raise self._damaged("its footer is damaged")
        if seal["identity"] != identity:
            raise self._damaged("belongs to another run")
        if seal["name"] != name:
            raise self._damaged(f"is the file {seal['name']} under another name")
        self._spans = _Spans(file, seal["cuts"], seal["checksums"], self._damaged)
        metadata = pq.read_metadata(pa.BufferReader(_PARQUET + footer))
        self.facts: dict[str, Any] = json.loads(metadata.metadata[FACTS])
        # Buffering ahead would also read what lies between the row groups that are asked for.
        source = pa.PythonFile(self._spans, mode="r")
        self._table = pq.ParquetFile(source, metadata=metadata, pre_buffer=False)

    def _damaged(self, reason: str) -> RunFileError:
        return RunFileError(self._folder, self._name, reason)

    @property
    def row_groups(self) -> int:
        """How many there are."""
        return int(self._table.num_row_groups)

    def read(
        self, groups: Sequence[int] | None = None, columns: list[str] | None = None
    ) -> dict[str, NDArray[Any]]:
        """The columns of some row groups, by default of all; some columns, by default all. Arrays may be read-only.

        Raises:
            RunFileError: if they differ from their checksum.
        """
        wanted = range(self.row_groups) if groups is None else groups
        self._spans.verify(wanted)  # here, since an error inside a call of Arrow's would lose its type
        return _to_numpy(self._table.read_row_groups(list(wanted), columns=columns))

    def verify(self) -> None:
        """Compare every byte with its checksum.

        Raises:
            RunFileError: if one differs.
        """
        for number in range(self._spans.count):
            self._spans.verify([number])
            self._spans.forget()

    def __enter__(self) -> SealedTable:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()
        self._spans.close()


class _Spans(io.RawIOBase):
    """The verified bytes of a file, as a file: what was not verified cannot be read."""

    def __init__(self, file: OpenedFile, cuts: list[int], checksums: list[int], damaged: Any) -> None:
        self._file, self._cuts, self._checksums, self._damaged = file, cuts, checksums, damaged
        self._held: dict[int, bytes] = {}
        self._place = 0
        self.count = len(checksums)

    def verify(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            if number in self._held:
                continue
            start, stop = self._cuts[number], self._cuts[number + 1]
            held = self._file.read_at(stop - start, start)
            if zlib.crc32(held) != self._checksums[number]:
                raise self._damaged(f"differs from its checksum between bytes {start} and {stop}")
            self._held[number] = held

    def forget(self) -> None:
        self._held.clear()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._cuts[-1]}[whence]
        self._place = base + offset
        return self._place

    def read(self, size: int = -1) -> bytes:
        stop = self._cuts[-1] if size < 0 else min(self._place + size, self._cuts[-1])
        pieces = []
        for number, held in sorted(self._held.items()):
            start = self._cuts[number]
            if start < stop and self._place < start + len(held):
                pieces.append(held[max(0, self._place - start) : stop - start])
        found = b"".join(pieces)
        assert len(found) == max(0, stop - self._place), "bytes asked for that were not verified"
        self._place = max(self._place, stop)
        return found

    def close(self) -> None:
        self.forget()
        self._file.close()
        super().close()
