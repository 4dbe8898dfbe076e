"""The Zarr store of training data: its arrays, and how tasks write and samplers read it.

Arrays are few and large, with one row for each shape; a shard holds whole shapes and belongs to exactly
one task, because two writers in one shard lose data silently. A shard counts as written when its record
(a small JSON file beside the arrays) exists; the record appears last and atomically.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
from numpy.typing import NDArray

from preprocessing.errors import DatasetError

FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
BLOCK = 2048  # rows of an inner chunk: the unit of random access


@dataclass(frozen=True)
class DatasetLayout:
    """Sizes of a dataset.

    Attributes:
        shapes: number of shapes.
        points: surface points kept for a shape, at most; a multiple of 2,048.
        uniform_queries: queries drawn uniformly in the padded cube; a multiple of 2,048.
        near_queries: queries drawn near the surface; a multiple of 2,048.
        shapes_per_shard: shapes that one task writes.
        categories: category names; the store holds their index.
    """

    shapes: int
    categories: tuple[str, ...]
    points: int = 98_304
    uniform_queries: int = 65_536
    near_queries: int = 65_536
    shapes_per_shard: int = 8

    def __post_init__(self) -> None:
        if self.shapes < 1 or self.shapes_per_shard < 1:
            raise ValueError("a dataset needs at least one shape, and one shape in a shard")
        for name in ("points", "uniform_queries", "near_queries"):
            if getattr(self, name) < BLOCK or getattr(self, name) % BLOCK:
                raise ValueError(f"{name} must be a positive multiple of {BLOCK}, not {getattr(self, name)}")

    @property
    def shards(self) -> int:
        """Number of shards; the last may hold fewer shapes."""
        return -(-self.shapes // self.shapes_per_shard)

    def shard_shapes(self, shard: int) -> range:
        """The shape numbers of one shard."""
        start = shard * self.shapes_per_shard
        return range(start, min(start + self.shapes_per_shard, self.shapes))


@dataclass(frozen=True)
class ShapeSamples:
    """Everything the store keeps of one shape, normalised to the unit cube centred at 0.

    World position = `scale` * position + `location`, in metres.

    Attributes:
        points: (P, 3) float32 surface or scan points, shuffled; P at most the layout's `points`.
        normals: (P, 3) float32 unit outward normals of the surface they come from.
        has_scan_noise: whether the points carry a scanner's noise already.
        uniform_queries, near_queries: (U, 3), (K, 3) float32, shuffled.
        uniform_occupancy, near_occupancy: (U,), (K,) bool.
        location: (3,) float64.
        scale: metres along the side of the unit cube.
        category, split, name: labels; the name also tells the seed.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    has_scan_noise: bool
    uniform_queries: NDArray[np.float32]
    uniform_occupancy: NDArray[np.bool_]
    near_queries: NDArray[np.float32]
    near_occupancy: NDArray[np.bool_]
    location: NDArray[np.float64]
    scale: float
    category: str
    split: str
    name: str


@dataclass(frozen=True)
class RejectedShape:
    """A shape that could not be prepared, with the reason in the user's words."""

    shape: int
    name: str
    reason: str


@dataclass(frozen=True)
class ShardRecord:
    """What one finished shard holds."""

    shard: int
    names: tuple[str, ...]
    rejected: tuple[RejectedShape, ...]
    checksums: dict[str, str]


def create_dataset(path: Path, layout: DatasetLayout, provenance: dict[str, Any]) -> None:
    """Create an empty store, or accept an existing one of exactly this layout and provenance.

    Raises:
        DatasetError: if `path` holds something else.
    """
    description = {"version": FORMAT_VERSION, "layout": asdict(layout), "provenance": provenance}
    description = json.loads(json.dumps(description))
    if path.exists() and any(path.iterdir()):
        try:
            existing = zarr.open_group(str(path), mode="r").attrs["tessera"]
        except (KeyError, FileNotFoundError, ValueError) as error:
            raise DatasetError(
                f"{path}: exists and is not a Tessera dataset; choose another --out"
            ) from error
        if existing != description:
            raise DatasetError(
                f"{path}: holds a dataset made with other settings; choose another --out or delete it"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}.creating-{os.getpid()}")
    group = zarr.create_group(str(building), overwrite=True)
    rows, shard = layout.shapes, layout.shapes_per_shard
    compressor = zarr.codecs.ZstdCodec(level=1)
    for name, width, tail, dtype in (
        ("points", layout.points, (3,), "float32"),
        ("normals", layout.points, (3,), "int8"),
        ("uniform_queries", layout.uniform_queries, (3,), "float32"),
        ("near_queries", layout.near_queries, (3,), "float32"),
        ("uniform_occupancy", layout.uniform_queries // 8, (), "uint8"),
        ("near_occupancy", layout.near_queries // 8, (), "uint8"),
    ):
        block = BLOCK // 8 if name.endswith("occupancy") else BLOCK
        group.create_array(
            name,
            shape=(rows, width, *tail),
            dtype=dtype,
            chunks=(1, block, *tail),
            shards=(shard, width, *tail),
            compressors=compressor,
        )
    for name, tail, dtype in (
        ("point_count", (), "int32"),
        ("has_scan_noise", (), "bool"),
        ("valid", (), "bool"),
        ("category", (), "uint8"),
        ("split", (), "uint8"),
        ("location", (3,), "float64"),
        ("scale", (), "float64"),
    ):
        group.create_array(name, shape=(rows, *tail), dtype=dtype, chunks=(shard, *tail))
    group.attrs["tessera"] = description
    (building / "records").mkdir()
    building.replace(path)


def read_layout(path: Path) -> tuple[DatasetLayout, dict[str, Any]]:
    """Layout and provenance of a store.

    Raises:
        DatasetError: if `path` is not a Tessera dataset of this version.
    """
    try:
        description = zarr.open_group(str(path), mode="r").attrs["tessera"]
    except (KeyError, FileNotFoundError, ValueError) as error:
        raise DatasetError(f"{path}: not a Tessera dataset; make one with `tessera preprocess`") from error
    assert isinstance(description, dict)
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
    return path / "records" / f"shard-{shard:06d}.json"


def finished_shards(path: Path, layout: DatasetLayout) -> list[int]:
    """Numbers of the shards that are completely written."""
    return [shard for shard in range(layout.shards) if record_path(path, shard).exists()]


def read_record(path: Path, shard: int) -> ShardRecord:
    """The record of a finished shard."""
    raw = json.loads(record_path(path, shard).read_text())
    rejected = tuple(RejectedShape(**entry) for entry in raw["rejected"])
    return ShardRecord(raw["shard"], tuple(raw["names"]), rejected, raw["checksums"])


def write_shard(path: Path, shard: int, shapes: Sequence[ShapeSamples | RejectedShape]) -> ShardRecord:
    """Write one shard's arrays, then its record. Writing a shard again gives the same bytes.

    Raises:
        DatasetError: if the samples do not fit the layout.
    """
    layout, _ = read_layout(path)
    rows = layout.shard_shapes(shard)
    if len(shapes) != len(rows):
        raise DatasetError(f"{path}: shard {shard} takes {len(rows)} shapes, got {len(shapes)}")
    arrays: dict[str, NDArray[Any]] = {
        "points": np.zeros((len(rows), layout.points, 3), np.float32),
        "normals": np.zeros((len(rows), layout.points, 3), np.int8),
        "uniform_queries": np.zeros((len(rows), layout.uniform_queries, 3), np.float32),
        "near_queries": np.zeros((len(rows), layout.near_queries, 3), np.float32),
        "uniform_occupancy": np.zeros((len(rows), layout.uniform_queries // 8), np.uint8),
        "near_occupancy": np.zeros((len(rows), layout.near_queries // 8), np.uint8),
        "point_count": np.zeros(len(rows), np.int32),
        "has_scan_noise": np.zeros(len(rows), np.bool_),
        "valid": np.zeros(len(rows), np.bool_),
        "category": np.zeros(len(rows), np.uint8),
        "split": np.zeros(len(rows), np.uint8),
        "location": np.zeros((len(rows), 3), np.float64),
        "scale": np.zeros(len(rows), np.float64),
    }
    for row, shape in enumerate(shapes):
        if isinstance(shape, RejectedShape):
            continue
        count = len(shape.points)
        if count > layout.points:
            raise DatasetError(f"{shape.name}: {count} points exceed the layout's {layout.points}")
        arrays["points"][row, :count] = shape.points
        arrays["normals"][row, :count] = np.rint(shape.normals * 127)
        arrays["uniform_queries"][row] = shape.uniform_queries
        arrays["near_queries"][row] = shape.near_queries
        arrays["uniform_occupancy"][row] = np.packbits(shape.uniform_occupancy)
        arrays["near_occupancy"][row] = np.packbits(shape.near_occupancy)
        arrays["point_count"][row] = count
        arrays["has_scan_noise"][row] = shape.has_scan_noise
        arrays["valid"][row] = True
        arrays["category"][row] = layout.categories.index(shape.category)
        arrays["split"][row] = SPLITS.index(shape.split)
        arrays["location"][row] = shape.location
        arrays["scale"][row] = shape.scale
    group = zarr.open_group(str(path), mode="r+", use_consolidated=False)
    checksums = {}
    for name, values in arrays.items():
        group[name][rows.start : rows.stop] = values  # type: ignore[index]
        checksums[name] = _shard_checksum(path, name, shard, values.ndim)
    rejected = tuple(shape for shape in shapes if isinstance(shape, RejectedShape))
    record = ShardRecord(shard, tuple(shape.name for shape in shapes), rejected, checksums)
    target = record_path(path, shard)
    temporary = target.with_suffix(f".tmp-{os.getpid()}")
    temporary.write_text(json.dumps(asdict(record), indent=1))
    temporary.replace(target)
    return record


def check_shard(path: Path, shard: int) -> list[str]:
    """Names of the arrays whose bytes differ from the shard's record: empty when all is well."""
    record = read_record(path, shard)
    group = zarr.open_group(str(path), mode="r")
    return [
        name
        for name, checksum in record.checksums.items()
        if _shard_checksum(path, name, shard, group[name].ndim) != checksum  # type: ignore[union-attr]
    ]


def finish_dataset(path: Path) -> None:
    """Consolidate the metadata, once, after the last shard."""
    with warnings.catch_warnings():  # zarr warns of its own format's draft state and of the records folder
        warnings.simplefilter("ignore", category=zarr.errors.ZarrUserWarning)
        zarr.consolidate_metadata(str(path))


def _shard_checksum(path: Path, name: str, shard: int, ndim: int) -> str:
    """SHA-256 of a shard's file; 'absent' where all values are the fill value and no file is kept."""
    file = path.joinpath(name, "c", str(shard), *["0"] * (ndim - 1))
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "absent"
