"""Shapes as the papers' authors prepared them: `pointcloud.npz`, `points.npz`, pictures and voxels of a model.

Formats: Mescheder et al. 2019 and Peng et al. 2020, data sets of Occupancy Networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from preprocessing.dataset import BLOCK, DatasetLayout, ShapeSamples, Views
from preprocessing.errors import DatasetError
from preprocessing.numpy_archives import open_archive
from preprocessing.sources.unit import NamedUnit
from preprocessing.voxel_grids import read_binvox

POINTS, CLOUD, VOXELS, PICTURES = "points.npz", "pointcloud.npz", "model.binvox", "img_choy2016"


@dataclass(frozen=True)
class PreparedUnit(NamedUnit):
    """One model's folder; its name is synset and model."""

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Read the files; queries are repeated from the first one up to a whole number of blocks."""
        folder = Path(self.path)
        cloud = load_arrays(folder / CLOUD, ("points", "normals", "loc", "scale"))
        asked = load_arrays(folder / POINTS, ("points", "occupancies"))
        queries = asked["points"].astype(np.float32)
        occupied = unpack(asked["occupancies"], len(queries))
        fill = np.arange(layout.uniform_queries) % len(queries)
        points = cloud["points"].astype(np.float32)[: layout.points]
        return [
            ShapeSamples(
                points=points,
                normals=cloud["normals"].astype(np.float32)[: layout.points],
                uniform_queries=queries[fill],
                uniform_occupancy=occupied[fill],
                location=cloud["loc"].astype(np.float64).reshape(3),
                scale=float(cloud["scale"]),
                category=self.category,
                split=self.split,
                name=self.name,
                voxels=read_binvox(folder / VOXELS) if layout.voxel_side else None,
                views=_views(folder / PICTURES, layout, cloud) if layout.views else None,
                provenance={"file": self.path, "method": "prepared", "own_queries": len(queries)},
            )
        ]


def is_prepared(model: Path) -> bool:
    """Whether a model's folder holds prepared samples."""
    return (model / POINTS).is_file() or (model / CLOUD).is_file()


def prepared_layout(model: Path, shapes: int, categories: list[str]) -> DatasetLayout:
    """The layout that holds models like this one."""
    cloud = load_arrays(model / CLOUD, ("points",))["points"]
    asked = load_arrays(model / POINTS, ("points",))["points"]
    pictures = sorted((model / PICTURES).glob("*.jpg"))
    size = Image.open(pictures[0]).width if pictures else 0
    return DatasetLayout(
        shapes,
        tuple(categories),
        points=whole_blocks(len(cloud)),
        uniform_queries=whole_blocks(len(asked)),
        near_queries=0,
        voxel_side=read_binvox(model / VOXELS).shape[0] if (model / VOXELS).is_file() else 0,
        views=len(pictures),
        view_size=size,
    )


def whole_blocks(count: int) -> int:
    """A number of rows rounded up to whole blocks."""
    return max(1, -(-count // BLOCK)) * BLOCK


def unpack(occupancies: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Occupancies as the originals keep them, packed in bits or not, as (count,) bool."""
    if occupancies.dtype == np.uint8 and len(occupancies) < count:
        return np.unpackbits(occupancies)[:count].astype(np.bool_)
    return occupancies.astype(np.bool_)


def load_arrays(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Named arrays of an .npz file; pickled objects are refused.

    Raises:
        DatasetError: if the file or an array is missing, damaged or not finite.
    """
    if not path.is_file():
        raise DatasetError(f"{path}: no such file; this model was not prepared completely")
    with open_archive(path) as stored:
        missing = [name for name in names if name not in stored.files]
        if missing:
            raise DatasetError(f"{path}: lacks {', '.join(missing)}; it has {', '.join(stored.files)}")
        arrays = {name: np.asarray(stored[name]) for name in names}
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise DatasetError(f"{path}: {name} has values that are not finite")
    return arrays


def _views(folder: Path, layout: DatasetLayout, cloud: dict[str, NDArray[Any]]) -> Views:
    """The renderings of Choy et al. 2016; they have no depth."""
    names = tuple(f"{kind}_{view}" for view in range(layout.views) for kind in ("world_mat", "camera_mat"))
    cameras = load_arrays(folder / "cameras.npz", names)
    size = layout.view_size
    rgb = np.empty((layout.views, size, size, 3), np.uint8)
    extrinsics = np.empty((layout.views, 3, 4))
    intrinsics = np.empty((layout.views, 3, 3))
    location, scale = cloud["loc"].astype(np.float64).reshape(3), float(cloud["scale"])
    for view in range(layout.views):
        rgb[view] = np.asarray(Image.open(folder / f"{view:03d}.jpg").convert("RGB"))
        world = cameras[f"world_mat_{view}"].astype(np.float64)[:3, :4]
        # camera = R (scale p + location) + t, divided by the scale: a projection is the same.
        extrinsics[view, :, :3] = world[:, :3]
        extrinsics[view, :, 3] = (world[:, :3] @ location + world[:, 3]) / scale
        intrinsics[view] = cameras[f"camera_mat_{view}"].astype(np.float64)[:3, :3]
    return Views(rgb, np.zeros((layout.views, size, size), np.float32), extrinsics, intrinsics)
