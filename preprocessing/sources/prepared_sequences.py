"""Sequences as the authors of Occupancy Flow prepared them: tracked points and labeled queries, frame by frame.

Format: Niemeyer et al. 2019, data set of D-FAUST. Their pictures were never published, and there are no meshes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import BLOCK, DatasetLayout, ShapeSamples
from preprocessing.errors import DatasetError
from preprocessing.sources.prepared_shapes import load_arrays, unpack, whole_blocks
from preprocessing.sources.unit import NamedUnit

CLOUDS, QUERIES = "pcl_seq", "points_seq"


@dataclass(frozen=True)
class PreparedSequenceUnit(NamedUnit):
    """A window, from frame `first`, of a sequence as the authors of Occupancy Flow prepared it."""

    first: int

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Every frame moved to the first one's location and scale; these files have no normals."""
        window = slice(self.first, self.first + layout.frames)
        clouds = sorted((Path(self.path) / CLOUDS).glob("*.npz"))[window]
        asked = sorted((Path(self.path) / QUERIES).glob("*.npz"))[window]
        if len(asked) < layout.frames:
            raise DatasetError(f"{self.path}: {QUERIES} has fewer frames than {CLOUDS}")
        first = load_arrays(clouds[0], ("loc", "scale"))
        location, scale = first["loc"].astype(np.float64).reshape(3), float(first["scale"])

        def to_first(frame: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
            world = frame["loc"].astype(np.float64).reshape(3) + float(frame["scale"]) * frame[
                "points"
            ].astype(np.float64)
            return np.asarray((world - location) / scale, np.float32)

        points = [to_first(load_arrays(path, ("points", "loc", "scale"))) for path in clouds]
        if len({len(frame) for frame in points}) != 1:
            raise DatasetError(
                f"{self.path}: its frames have different numbers of points, so no correspondences"
            )
        queries, occupied = [], []
        for path in asked:
            frame = load_arrays(path, ("points", "occupancies", "loc", "scale"))
            own = to_first(frame)
            fill = np.arange(layout.uniform_queries) % len(own)
            queries.append(own[fill])
            occupied.append(unpack(frame["occupancies"], len(own))[fill])
        kept = np.stack(points)[:, : layout.points]
        return [
            ShapeSamples(
                points=kept,
                normals=np.zeros_like(kept),
                uniform_queries=np.stack(queries),
                uniform_occupancy=np.stack(occupied),
                location=location,
                scale=scale,
                category=self.category,
                split=self.split,
                name=self.name,
                times=np.linspace(0, 1, layout.frames, dtype=np.float32),
                provenance={"file": self.path, "first_frame": self.first, "method": "prepared"},
            )
        ]


def prepared_sizes(folder: Path) -> tuple[int, int, int]:
    """Points, uniform and near-surface queries of the frames of a sequence, in whole blocks."""
    clouds, asked = (sorted((folder / name).glob("*.npz")) for name in (CLOUDS, QUERIES))
    points = len(load_arrays(clouds[0], ("points",))["points"])
    queries = len(load_arrays(asked[0], ("points",))["points"]) if asked else BLOCK
    return whole_blocks(points), whole_blocks(queries), 0
