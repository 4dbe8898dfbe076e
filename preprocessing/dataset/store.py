"""The Zarr store of training data: its arrays, and how tasks write and samplers read it.

Arrays are few and large, with one row for each shape; a shard holds whole shapes and belongs to exactly
one task, because two writers in one shard lose data silently. A shard counts as written when its record
(a small JSON file beside the arrays) exists; the record appears last and atomically.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray

from foundation.atomic_file import PARTIAL
from foundation.local_paths import local_path
from foundation.storage import LocalStorage
from preprocessing.dataset.layout import FORMAT_VERSION, DatasetLayout
from preprocessing.dataset.samples import Provenance, RejectedShape, ShapeRow
from preprocessing.errors import DatasetError

ABSENT = "absent"
LITTER_AGE_S = 600.0
CURE = "run the `tessera preprocess` command that made it again: it makes what is missing or damaged"


@dataclass(frozen=True)
class ShardRecord:
    """What one finished shard holds.

    Attributes:
        shard: its number.
        names: of its shapes, in order.
        rejected: those that are not there, and why.
        provenance: facts of each shape, in order; empty for a rejected one.
        checksums: SHA-256 of the shard's file of each array; 'absent' where zarr keeps none, as all is zero.
    """

    shard: int
    names: tuple[str, ...]
    rejected: tuple[RejectedShape, ...]
    provenance: tuple[Provenance, ...]
    checksums: dict[str, str]


def create_dataset(path: Path, layout: DatasetLayout, provenance: dict[str, Any]) -> None:
    """Create an empty store, or accept an existing one of exactly this layout and provenance.

    Raises:
        DatasetError: if `path` holds something else.
    """
    path = local_path(path)
    description = {"version": FORMAT_VERSION, "layout": asdict(layout), "provenance": provenance}
    description = json.loads(json.dumps(description))
    if path.exists() and any(path.iterdir()):
        try:
            existing = _description(path)
        except (KeyError, FileNotFoundError, TypeError, ValueError) as error:
            raise DatasetError(
                f"{path}: exists and is not a Tessera dataset, or a damaged one; choose another --out or delete it"
            ) from error
        if existing != description:
            raise DatasetError(
                f"{path}: holds a dataset made with other settings; choose another --out or delete it"
            )
        for left in path.parent.glob(f".{path.name}.creating-*"):
            _remove_if_old(left)
        for name in _wrong_arrays(path, layout):  # what was lost says nothing that the layout does not
            (path / name / "zarr.json").unlink(missing_ok=True)
            _create_array(zarr.open_group(str(path), mode="r+", use_consolidated=False), layout, name)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.creating-{uuid.uuid4().hex}")
    group = zarr.create_group(str(building))
    for name in layout.arrays:
        _create_array(group, layout, name)
    group.attrs["tessera"] = description | {"checksum": _checksum(description)}
    (building / "records").mkdir()
    try:
        building.replace(path)
    except OSError:  # another command was faster
        shutil.rmtree(building)
        if not path.is_dir():
            raise
        create_dataset(path, layout, provenance)


def _create_array(group: zarr.Group, layout: DatasetLayout, name: str) -> zarr.Array[Any]:
    """An array of the layout, without values."""
    spec, shard = layout.arrays[name], layout.shapes_per_shard
    sharding: dict[str, Any] = {"chunks": (shard, *spec.tail)}
    if spec.chunk:
        sharding = {
            "chunks": (1, *spec.chunk),
            "shards": (shard, *spec.tail),
            "compressors": zarr.codecs.ZstdCodec(level=1, checksum=True),
        }
    return group.create_array(name, shape=(layout.shapes, *spec.tail), dtype=spec.dtype, **sharding)


def _wrong_arrays(path: Path, layout: DatasetLayout) -> list[str]:
    """Names of the arrays whose description is missing, or not that of the layout."""
    expected = zarr.create_group(zarr.storage.MemoryStore())
    group = zarr.open_group(str(path), mode="r")
    wrong = []
    for name in layout.arrays:
        try:
            right = _create_array(expected, layout, name).metadata
            found = zarr.open_array(str(path / name), mode="r"), group[name]
            is_right = all(array.metadata == right for array in found)  # its own, and the consolidated copy
        except Exception:  # whatever zarr makes of damaged JSON
            is_right = False
        if not is_right:
            wrong.append(name)
    return wrong


def _description(path: Path) -> dict[str, Any]:
    """What the store's root says of it; KeyError, TypeError or ValueError where it is none or damaged."""
    description = zarr.open_group(str(path), mode="r").attrs["tessera"]
    assert isinstance(description, dict)
    if "checksum" in description:  # which the first versions lack
        checksum = description.pop("checksum")
        if checksum != _checksum(description):
            raise ValueError("differs from its checksum")
    return description


def _checksum(contents: Any) -> str:
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _remove_if_old(left: Path) -> None:
    """Remove what a killed command has left half made, unless it may still be at work."""
    with suppress(OSError):  # another command may be removing it too
        if time.time() - left.stat().st_mtime > LITTER_AGE_S:
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def read_layout(path: Path) -> tuple[DatasetLayout, dict[str, Any]]:
    """Layout and provenance of a store.

    Raises:
        DatasetError: if `path` is not a Tessera dataset of this version.
    """
    path = local_path(path)
    try:
        description = _description(path)
    except (KeyError, FileNotFoundError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{path}: not a Tessera dataset, or a damaged one; make one with `tessera preprocess`"
        ) from error
    if description["version"] != FORMAT_VERSION:
        raise DatasetError(
            f"{path}: dataset version {description['version']}, this program reads {FORMAT_VERSION}; preprocess again"
        )
    layout = dict(description["layout"])
    layout["categories"] = tuple(layout["categories"])
    return DatasetLayout(**layout), description["provenance"]


def rows(group: zarr.Group, name: str) -> NDArray[Any]:
    """All of one of the store's small arrays (one value or vector for each shape)."""
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])


def record_path(path: Path, shard: int) -> Path:
    """The file whose presence says that a shard is finished."""
    return path / _record_name(shard)


def _record_name(shard: int) -> str:
    return f"records/shard-{shard:06d}.json"


def finished_shards(path: Path, layout: DatasetLayout) -> list[int]:
    """Numbers of the shards that are completely written: they have a record, and the files that it lists."""
    recorded = recorded_shards(path, layout)
    lost = _lost_files(path, layout, recorded)
    return [shard for shard in recorded if shard not in lost]


def check_complete(path: Path, layout: DatasetLayout) -> None:
    """Refuse a store that has lost files, before their values are taken for zeros.

    Raises:
        DatasetError: if an array's description is missing or wrong, or a shard that its record lists is missing.
    """
    for name in _wrong_arrays(path, layout):
        raise DatasetError(f"{path}: {name}/zarr.json is missing or damaged; {CURE}")
    for shard, file in _lost_files(path, layout, recorded_shards(path, layout)).items():
        raise DatasetError(f"{path}: {file} of shard {shard} is missing; {CURE}")


def recorded_shards(path: Path, layout: DatasetLayout) -> list[int]:
    """Numbers of the shards that have a record."""
    storage = LocalStorage(path)
    return [shard for shard in range(layout.shards) if storage.exists(_record_name(shard))]


def _lost_files(path: Path, layout: DatasetLayout, shards: Sequence[int]) -> dict[int, str]:
    """The name of a missing file of each of these shards that has lost some."""
    storage, lost = LocalStorage(path), {}
    for shard in shards:
        for name, checksum in read_record(path, shard).checksums.items():
            file = _shard_file(name, shard, 1 + len(layout.arrays[name].tail))
            if checksum != ABSENT and not storage.exists(file):
                lost[shard] = file
                break
    return lost


def damaged_shards(path: Path, layout: DatasetLayout) -> dict[int, str]:
    """What is wrong with each finished shard whose files are not those that were written; reads all of them."""
    found = {}
    for shard in recorded_shards(path, layout):
        try:
            if names := check_shard(path, shard):
                found[shard] = f"{', '.join(names)}: missing or damaged"
        except DatasetError:
            found[shard] = "its record is damaged"
    return found


def read_record(path: Path, shard: int) -> ShardRecord:
    """The record of a finished shard.

    Raises:
        DatasetError: if it is damaged.
    """
    try:
        raw = json.loads(LocalStorage(path).get(_record_name(shard)))
        if raw.pop("checksum") != _checksum(raw):
            raise ValueError("differs from its checksum")
        rejected = tuple(RejectedShape(**entry) for entry in raw["rejected"])
        return ShardRecord(
            raw["shard"], tuple(raw["names"]), rejected, tuple(raw["provenance"]), raw["checksums"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{record_path(path, shard)}: is damaged; {CURE}") from error


def write_shard(path: Path, shard: int, shapes: Sequence[ShapeRow | RejectedShape]) -> ShardRecord:
    """Write one shard's arrays, then its record. Writing a shard again gives the same bytes.

    Each file appears whole, in place of one of the same content if there is any, so that a writer that comes late harms
    nobody.

    Raises:
        DatasetError: if these are not as many shapes as the shard holds.
    """
    layout, _ = read_layout(path)
    rows = layout.shard_shapes(shard)
    if len(shapes) != len(rows):
        raise DatasetError(f"{path}: shard {shard} takes {len(rows)} shapes, got {len(shapes)}")
    storage, checksums = LocalStorage(path), {}
    for name, spec in layout.arrays.items():
        value = np.zeros((len(rows), *spec.tail), spec.dtype)
        for row, shape in enumerate(shapes):
            if not isinstance(shape, RejectedShape):
                value[row] = shape.arrays[name]
        data = _encode_shard(layout, name, shard, value)
        file = _shard_file(name, shard, value.ndim)
        if data is None:
            storage.delete(file)
            checksums[name] = ABSENT
        else:
            _put(storage, file, data)
            checksums[name] = hashlib.sha256(data).hexdigest()
    rejected = tuple(shape for shape in shapes if isinstance(shape, RejectedShape))
    provenance = tuple({} if isinstance(shape, RejectedShape) else shape.provenance for shape in shapes)
    record = ShardRecord(shard, tuple(shape.name for shape in shapes), rejected, provenance, checksums)
    sealed = asdict(record) | {"checksum": _checksum(asdict(record))}
    _put(storage, _record_name(shard), json.dumps(sealed, indent=1).encode())
    return record


def _encode_shard(layout: DatasetLayout, name: str, shard: int, value: NDArray[Any]) -> bytes | None:
    """The bytes that zarr keeps of one shard of an array; None where all values are zero and it keeps nothing."""
    memory = zarr.storage.MemoryStore()
    array = _create_array(zarr.create_group(memory), layout, name)
    start = layout.shard_shapes(shard).start
    array[start : start + len(value)] = value
    buffer = memory._store_dict.get(_shard_file(name, shard, value.ndim))
    return None if buffer is None else buffer.to_bytes()


def _put(storage: LocalStorage, name: str, data: bytes) -> None:
    """Write a file that appears whole or not at all; what killed writers of it have left goes."""
    target = storage.root / name
    for left in target.parent.glob(f".{target.name}{PARTIAL}*"):
        _remove_if_old(left)
    storage.put(name, data)


def check_shard(path: Path, shard: int) -> list[str]:
    """Names of the arrays whose bytes differ from the shard's record: empty when all is well.

    Raises:
        DatasetError: if the record is damaged.
    """
    record, arrays = read_record(path, shard), read_layout(path)[0].arrays
    return [
        name
        for name, checksum in record.checksums.items()
        if _shard_checksum(path, name, shard, 1 + len(arrays[name].tail)) != checksum
    ]


def finish_dataset(path: Path) -> None:
    """Consolidate the metadata, once, after the last shard."""
    with warnings.catch_warnings():  # zarr warns of its own format's draft state and of the records folder
        warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(str(path))


def _shard_file(name: str, shard: int, ndim: int) -> str:
    """The name of a shard's file; there is none where all values are the fill value."""
    return "/".join([name, "c", str(shard), *["0"] * (ndim - 1)])


def _shard_checksum(path: Path, name: str, shard: int, ndim: int) -> str:
    """SHA-256 of a shard's file, or 'absent'."""
    try:
        return hashlib.sha256(LocalStorage(path).get(_shard_file(name, shard, ndim))).hexdigest()
    except FileNotFoundError:
        return ABSENT
