"""What the store keeps of one shape or one sequence, and how it becomes rows of the arrays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset.layout import SPLITS, DatasetLayout
from preprocessing.errors import DatasetError

NORMAL_STEPS = 127  # normals are kept as signed bytes

Provenance = dict[str, Any]  # JSON: source file, its hash, how it was made watertight, distances


@dataclass(frozen=True)
class Views:
    """Pictures of one shape, or of a sequence at each of its T times by cameras that stand still.

    Attributes:
        rgb: ([T,] V, H, W, 3) uint8.
        depth: ([T,] V, H, W) float32 along the camera's axis, in the unit cube's length; 0 where nothing is hit.
        extrinsics: (V, 3, 4) float64: camera = R x + t of a position x in the unit cube; x right, y down,
            z forward.
        intrinsics: (V, 3, 3) float64, in pixels; pixel (0, 0) is centered at (0.5, 0.5).
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    extrinsics: NDArray[np.float64]
    intrinsics: NDArray[np.float64]


@dataclass(frozen=True)
class ShapeSamples:
    """Everything the store keeps of one shape, normalized to the unit cube centered at 0.

    World position = `scale` * position + `location`, in meters. A sequence has the same arrays with an axis of T
    times in front of the points and queries, and its points are in correspondence: row i is the same point of
    the body at every time.

    Attributes:
        points: ([T,] P, 3) float32 surface or scan points, shuffled; P at most the layout's `points`.
        normals: ([T,] P, 3) float32 unit outward normals of the surface they come from.
        uniform_queries, near_queries: ([T,] U, 3), ([T,] K, 3) float32, shuffled; None where the layout has none.
        uniform_occupancy, near_occupancy: ([T,] U), ([T,] K) bool.
        uniform_distances, near_distances: (U,), (K,) float32 signed distance to the surface in the unit cube's
            length, negative inside; None where the layout has none.
        location: (3,) float64.
        scale: meters along the side of the unit cube.
        category, split, name: labels.
        has_scan_noise: whether the points carry a scanner's noise already.
        is_window: whether the shape is cut out of something larger, so that nothing is known beyond the cube.
        times: (T,) float32 in [0, 1] of a sequence.
        voxels: ([T,] R, R, R) bool, indexed x, y, z, over the unit cube; None where the layout has none.
        views: None where the layout has none.
        provenance: JSON facts that go into the shard's record.
    """

    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    location: NDArray[np.float64]
    scale: float
    category: str
    split: str
    name: str
    uniform_queries: NDArray[np.float32] | None = None
    uniform_occupancy: NDArray[np.bool_] | None = None
    near_queries: NDArray[np.float32] | None = None
    near_occupancy: NDArray[np.bool_] | None = None
    has_scan_noise: bool = False
    is_window: bool = False
    times: NDArray[np.float32] | None = None
    uniform_distances: NDArray[np.float32] | None = None
    near_distances: NDArray[np.float32] | None = None
    voxels: NDArray[np.bool_] | None = None
    views: Views | None = None
    provenance: Provenance = field(default_factory=dict)

    def row(self, layout: DatasetLayout) -> ShapeRow:
        """This shape as the store keeps it.

        Raises:
            DatasetError: if the samples do not fit the layout.
        """
        count = self.points.shape[-2]
        if count > layout.points:
            raise DatasetError(f"{self.name}: {count} points exceed the layout's {layout.points}")
        room = [(0, 0)] * (self.points.ndim - 2) + [(0, layout.points - count), (0, 0)]
        values: dict[str, Any] = {
            "points": np.pad(self.points, room),
            "normals": np.pad(np.rint(self.normals * NORMAL_STEPS).astype(np.int8), room),
            "point_count": count,
            "has_scan_noise": self.has_scan_noise,
            "is_window": self.is_window,
            "valid": True,
            "category": layout.categories.index(self.category),
            "split": SPLITS.index(self.split),
            "location": self.location,
            "scale": self.scale,
        }
        for name in ("uniform_queries", "near_queries", "uniform_distances", "near_distances", "times"):
            values[name] = getattr(self, name)
        for name in ("uniform_occupancy", "near_occupancy", "voxels"):
            bits = getattr(self, name)
            values[name] = None if bits is None else np.packbits(bits, axis=-1)
        for name in ("rgb", "depth", "extrinsics", "intrinsics"):
            values[f"view_{name}"] = getattr(self.views, name, None)
        arrays = {}
        for name, spec in layout.arrays.items():
            if values[name] is None:
                raise DatasetError(
                    f"{self.name}: the layout asks for {name}, which this source does not have"
                )
            arrays[name] = np.asarray(values[name], spec.dtype)
            if arrays[name].shape != spec.tail:
                raise DatasetError(
                    f"{self.name}: {name} has shape {arrays[name].shape}, the layout {spec.tail}"
                )
        return ShapeRow(self.name, arrays, self.provenance)


@dataclass(frozen=True)
class ShapeRow:
    """A shape that fits its layout.

    Attributes:
        name: of the shape.
        arrays: its row of every array of the layout, of the array's type and shape.
        provenance: JSON facts that go into the shard's record.
    """

    name: str
    arrays: dict[str, NDArray[Any]]
    provenance: Provenance


@dataclass(frozen=True)
class RejectedShape:
    """A shape that could not be prepared, with the reason in the user's words."""

    shape: int
    name: str
    reason: str
