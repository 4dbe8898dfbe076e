"""One mesh to one training shape: closed, scaled to the unit cube, sampled and labeled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import DatasetLayout, ShapeSamples
from preprocessing.occupancy_labels import label_solid, signed_distances
from preprocessing.pictures.views import render_views
from preprocessing.surface_sampling import sample_surface
from preprocessing.voxel_grids import voxelize
from preprocessing.watertight import WatertightConfig, make_watertight

PADDED_SIDE = 1.1  # queries reach 5% of the side beyond the unit cube on each side (Mescheder et al. 2019)
NEAR_SIGMAS = (0.004, 0.01, 0.02)  # of the unit cube


@dataclass(frozen=True)
class ShapeLabels:
    """What a source knows of a shape beside its geometry.

    Attributes:
        name, category, split: as the store keeps them.
        seed: of the samples.
        up: the axis that points up in its file.
        provenance: facts for the record.
    """

    name: str
    category: str
    split: str
    seed: int
    up: Literal["y", "z"] = "z"
    provenance: dict[str, object] = field(default_factory=dict)


def near_surface(around: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Surface points (N, 3) moved by Gaussian noise, each of a sigma drawn from `NEAR_SIGMAS`."""
    sigma = rng.choice(NEAR_SIGMAS, len(around))
    return np.asarray(around + rng.standard_normal(around.shape) * sigma[:, None])


def mesh_samples(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    labels: ShapeLabels,
    layout: DatasetLayout,
    watertight: WatertightConfig,
) -> ShapeSamples:
    """Everything the store keeps of a mesh.

    Args:
        vertices, faces: any triangle soup, in any unit.
        labels: name, category, split and the seed of the samples.
        layout: how many of what.
        watertight: how to close it.

    Raises:
        MeshError: if it cannot be closed within the bounds.
    """
    rng = np.random.default_rng([labels.seed, 3])
    solid = make_watertight(vertices, faces, watertight)
    mesh = solid.vertices, solid.faces
    points, normals = sample_surface(*mesh, layout.points, rng)
    uniform = rng.uniform(-PADDED_SIDE / 2, PADDED_SIDE / 2, (layout.uniform_queries, 3)).astype(np.float32)
    around, _ = sample_surface(*mesh, layout.near_queries, rng)
    near = near_surface(around, rng).astype(np.float32)
    # Labels belong to the positions that are stored, so those are rounded first.
    asked = np.concatenate([uniform, near]).astype(np.float64)
    occupied = label_solid(*mesh, asked)
    distances = signed_distances(*mesh, asked, occupied) if layout.has_distances else None
    return ShapeSamples(
        points=points.astype(np.float32),
        normals=normals.astype(np.float32),
        uniform_queries=uniform,
        uniform_occupancy=occupied[: len(uniform)],
        near_queries=near,
        near_occupancy=occupied[len(uniform) :],
        uniform_distances=None if distances is None else distances[: len(uniform)],
        near_distances=None if distances is None else distances[len(uniform) :],
        location=solid.location,
        scale=solid.scale,
        category=labels.category,
        split=labels.split,
        name=labels.name,
        voxels=voxelize(*mesh, layout.voxel_side) if layout.voxel_side else None,
        views=render_views(*mesh, layout.views, layout.view_size, rng, labels.up) if layout.views else None,
        provenance={
            **labels.provenance,
            "was_watertight": solid.method == "exact",
            "method": solid.method,
            "chamfer_l1": solid.chamfer_l1,
            "hausdorff": solid.hausdorff,
        },
    )
