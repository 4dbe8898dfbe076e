"""Random blocks of a sharded Zarr array, read straight from the shard's file.

zarr-python spends about a millisecond on each small read, tensorstore a tenth of that; training reads millions of
blocks. A shard of Zarr v3 is a plain file: compressed inner chunks, then an index of their offsets and lengths
(sharding codec, version 1.0). The index is read once for each shard, and a block is one `pread` and one
decompression.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import zstd
from numpy.typing import NDArray

from preprocessing.dataset.layout import DatasetLayout
from preprocessing.dataset.store import ABSENT as NO_FILE
from preprocessing.dataset.store import CURE, read_record, record_path
from preprocessing.errors import DatasetError

INDEX_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
CHECKSUM_BYTES = 4  # crc32c behind the index
ABSENT = 2**64 - 1  # offset of a chunk that was never written, so holds zeros
MOST_OPEN_SHARDS = 512


class BlockReader:
    """Reads inner chunks of one array of a dataset; not shared between threads.

    Args:
        path: the store; layout: its layout; name: an array with inner chunks.

    Raises:
        DatasetError: if the array is not stored as this reader expects.
    """

    def __init__(self, path: Path, layout: DatasetLayout, name: str) -> None:
        spec = layout.arrays[name]
        self._path, self._name = path, name
        self._folder = path / name / "c"
        self._shapes_per_shard = layout.shapes_per_shard
        self._dtype = np.dtype(spec.dtype)
        self._chunk = spec.chunk
        self._blocks = tuple(side // step for side, step in zip(spec.tail, spec.chunk, strict=True))
        self._strides = [int(np.prod(self._blocks[axis + 1 :])) for axis in range(len(self._blocks))]
        self._open: dict[int, tuple[int, NDArray[Any]] | None] = {}
        codecs: list[str] = []
        with suppress(ValueError, KeyError, TypeError, IndexError):
            outer = json.loads((path / name / "zarr.json").read_text())["codecs"][0]
            codecs = [outer["name"], *(codec["name"] for codec in outer["configuration"]["codecs"])]
        if codecs != ["sharding_indexed", "bytes", "zstd"]:
            raise DatasetError(f"{path}: array {name} is not stored as Tessera writes it; preprocess again")

    def read(self, shape: int, *block: int) -> NDArray[Any]:
        """One inner chunk: of a still shape block number i of 2,048 rows, of a sequence time t and block i.

        Args:
            shape: number of the shape.
            block: index of the chunk along each axis of the array but the first; trailing zeros may be left out.

        Returns:
            the chunk, read-only, for instance (2048, 3) of points or (1, 2048, 3) of a sequence's.

        Raises:
            DatasetError: if the shard is damaged.
            IndexError: if there is no such block.
        """
        shard, row = divmod(shape, self._shapes_per_shard)
        if shard not in self._open:
            self._remember(shard)
        opened = self._open[shard]
        if opened is None:
            return np.zeros(self._chunk, self._dtype)
        file, index = opened
        number = sum(place * stride for place, stride in zip(block, self._strides, strict=False))
        if any(not 0 <= place < count for place, count in zip(block, self._blocks, strict=False)):
            raise IndexError(f"block {block} of {self._blocks}")
        offset, length = index[row, number].item()
        if offset == ABSENT:
            return np.zeros(self._chunk, self._dtype)
        try:
            data = zstd.decompress(os.pread(file, length, offset))
            return np.frombuffer(data, self._dtype).reshape(self._chunk)
        except (RuntimeError, ValueError) as error:
            raise DatasetError(f"{self._folder}: shard {shard} is damaged ({error}); {CURE}") from error

    def _remember(self, shard: int) -> None:
        """Open a shard and read its index; the oldest of too many is closed."""
        if len(self._open) >= MOST_OPEN_SHARDS:
            self._close(next(iter(self._open)))
        path = self._folder.joinpath(str(shard), *["0"] * len(self._blocks))
        if not path.exists():
            is_finished = record_path(self._path, shard).exists()
            if is_finished and read_record(self._path, shard).checksums[self._name] != NO_FILE:
                raise DatasetError(f"{path}: shard {shard} is missing; {CURE}")
            self._open[shard] = None
            return
        chunks = self._shapes_per_shard * int(np.prod(self._blocks))
        size = INDEX_ENTRY.itemsize * chunks
        file = os.open(path, os.O_RDONLY)
        end = os.fstat(file).st_size
        if end < size + CHECKSUM_BYTES:
            os.close(file)
            raise DatasetError(f"{path}: is truncated; delete its record and preprocess again")
        data = end - size - CHECKSUM_BYTES
        index = np.frombuffer(os.pread(file, size, data), INDEX_ENTRY)
        offset, length = index["offset"], index["length"]
        # Twice a file's size fits into 64 bits, so each is compared before their sum.
        inside = (offset <= data) & (length <= data) & (offset + length <= data)
        if not (inside | (offset == ABSENT)).all():
            os.close(file)
            raise DatasetError(f"{path}: is damaged or truncated; {CURE}")
        self._open[shard] = file, index.reshape(self._shapes_per_shard, -1)

    def _close(self, shard: int) -> None:
        opened = self._open.pop(shard)
        if opened is not None:
            os.close(opened[0])

    def __del__(self) -> None:
        for shard in list(getattr(self, "_open", ())):
            self._close(shard)
