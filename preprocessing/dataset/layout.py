"""The arrays of a training store: names, shapes, number types and chunks, all from one small description."""

from __future__ import annotations

from dataclasses import dataclass

from foundation.errors import SettingError

FORMAT_VERSION = 4
SPLITS = ("train", "val", "test")
BLOCK = 2048  # rows of an inner chunk: the unit of random access


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store, without its first axis, which counts shapes.

    Attributes:
        tail: the other axes.
        dtype: as zarr and numpy name it.
        chunk: the inner chunk along `tail`; a shard holds whole shapes. Empty for arrays of a value or vector
            for each shape, whose chunk is a whole shard.
    """

    tail: tuple[int, ...]
    dtype: str
    chunk: tuple[int, ...] = ()


@dataclass(frozen=True)
class DatasetLayout:
    """Sizes of a dataset.

    Attributes:
        shapes: number of shapes.
        categories: category names; the store holds their index.
        points: surface points kept for a shape, at most; a multiple of 2,048.
        uniform_queries: queries drawn uniformly in the padded cube; a multiple of 2,048, 0 for scans.
        near_queries: queries drawn near the surface; a multiple of 2,048, 0 for scans.
        shapes_per_shard: shapes that one task writes.
        frames: 0 for still shapes; for sequences the number of times, with points in correspondence.
        voxel_side: side of the voxel grid of each shape, a multiple of 8; 0 for none.
        views: cameras around each shape, which stand still in a sequence; 0 for no pictures.
        view_size: width and height of their pictures in pixels.
        has_distances: whether every query carries its signed distance beside its occupancy.
    """

    shapes: int
    categories: tuple[str, ...]
    points: int = 49 * BLOCK
    uniform_queries: int = 49 * BLOCK
    near_queries: int = 49 * BLOCK
    shapes_per_shard: int = 8
    frames: int = 0
    voxel_side: int = 0
    views: int = 0
    view_size: int = 0
    has_distances: bool = False

    def __post_init__(self) -> None:
        if self.shapes < 1 or self.shapes_per_shard < 1:
            raise SettingError("a dataset needs at least one shape, and one shape in a shard")
        if self.points < BLOCK or self.points % BLOCK:
            raise SettingError(f"points must be a positive multiple of {BLOCK}, not {self.points}")
        for name in ("uniform_queries", "near_queries"):
            if getattr(self, name) < 0 or getattr(self, name) % BLOCK:
                raise SettingError(f"{name} must be a multiple of {BLOCK}, not {getattr(self, name)}")
        if self.voxel_side % 8 or self.voxel_side < 0:
            raise SettingError(f"voxel_side must be a multiple of 8, not {self.voxel_side}")
        if min(self.frames, self.views, self.view_size) < 0 or (self.views > 0) != (self.view_size > 0):
            raise SettingError("frames, views and view_size are not negative; views need a view_size")
        if self.has_distances and self.frames:
            raise SettingError("sequences carry no signed distances")

    @property
    def shards(self) -> int:
        """Number of shards; the last may hold fewer shapes."""
        return -(-self.shapes // self.shapes_per_shard)

    def shard_shapes(self, shard: int) -> range:
        """The shape numbers of one shard."""
        start = shard * self.shapes_per_shard
        return range(start, min(start + self.shapes_per_shard, self.shapes))

    @property
    def arrays(self) -> dict[str, ArraySpec]:
        """Every array of the store by name; docs/data.md explains them."""
        time = (self.frames,) if self.frames else ()
        each = (1,) * len(time)
        arrays = {
            "points": ArraySpec((*time, self.points, 3), "float32", (*each, BLOCK, 3)),
            "normals": ArraySpec((*time, self.points, 3), "int8", (*each, BLOCK, 3)),
        }
        for kind in ("uniform", "near"):
            count = getattr(self, f"{kind}_queries")
            if count:
                arrays[f"{kind}_queries"] = ArraySpec((*time, count, 3), "float32", (*each, BLOCK, 3))
                arrays[f"{kind}_occupancy"] = ArraySpec((*time, count // 8), "uint8", (*each, BLOCK // 8))
                if self.has_distances:
                    arrays[f"{kind}_distances"] = ArraySpec((count,), "float16", (BLOCK,))
        if self.frames:
            arrays["times"] = ArraySpec((self.frames,), "float32")
        if self.voxel_side:
            packed = (self.voxel_side, self.voxel_side, self.voxel_side // 8)
            arrays["voxels"] = ArraySpec((*time, *packed), "uint8", (*each, *packed))
        if self.views:
            size = (self.view_size, self.view_size)
            # Of a sequence, a chunk holds what one camera sees at all times.
            arrays["view_rgb"] = ArraySpec((*time, self.views, *size, 3), "uint8", (*time, 1, *size, 3))
            arrays["view_depth"] = ArraySpec((*time, self.views, *size), "float32", (*time, 1, *size))
            arrays["view_extrinsics"] = ArraySpec((self.views, 3, 4), "float64")
            arrays["view_intrinsics"] = ArraySpec((self.views, 3, 3), "float64")
        return arrays | {
            "point_count": ArraySpec((), "int32"),
            "has_scan_noise": ArraySpec((), "bool"),
            "is_window": ArraySpec((), "bool"),
            "valid": ArraySpec((), "bool"),
            "category": ArraySpec((), "uint16"),
            "split": ArraySpec((), "uint8"),
            "location": ArraySpec((3,), "float64"),
            "scale": ArraySpec((), "float64"),
        }
