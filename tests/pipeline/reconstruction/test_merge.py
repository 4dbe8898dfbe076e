"""The merged mesh does not depend on the tiling: vertices, normals and the border of what was observed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.reconstruction.merge import (
    Surface,
    SurfaceChoice,
    TileReader,
    merge_tiles,
    write_tile,
)
from pipeline.reconstruction.parts import tile_parts
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.report import MeshSummary
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.support import VertexSupport
from pipeline.reconstruction.tile_surface import TileSurface, owner_of
from preprocessing.meshes.files import Mesh, read_mesh
from tests.references.fields import Field, spheres, union
from tests.references.tiled_scene import WHOLE, sample_fields, surfaces, tiled

Distances = Callable[[TileSurface], NDArray[np.float64]]
TRIM = 1.5
SLANTED = np.array([0.3, 0.5, 0.8])
# A ball across the tiles' borders, and a crumb in one of them.
BALL = spheres([(47.3, 48.9, 46.1)], [30.2])
BALLS = union(BALL, spheres([(84.2, 84.9, 84.4)], [2.1]))


def below_a_plane(part: TileSurface) -> NDArray[np.float64]:
    """Distances from the points, of a scan of all that lies below a slanted plane."""
    return np.maximum(part.positions @ SLANTED / 2 - 38.0, 0)


def scattered(part: TileSurface) -> NDArray[np.float64]:
    """Distances of which every fifth or so is too large, here and there: every way that faces can meet at a border."""
    return (part.keys * 2_654_435_761 % 1_000_003) % 19 / 10


def supported(part: TileSurface, distances: Distances) -> VertexSupport:
    """What a scan at these distances says of a tile's vertices."""
    away = distances(part).astype(np.float32)
    return VertexSupport(away, np.ones_like(away), None)


def merged(
    plan: ScenePlan, field: Field, folder: Path, choice: SurfaceChoice, distances: Distances = below_a_plane
) -> tuple[MeshSummary, Mesh]:
    """The mesh of a field of which some was observed."""
    store = RunStore(str(folder / "run"))
    for tile, part in surfaces(plan, sample_fields(plan, field)).items():
        support = supported(part, distances)
        write_tile(store, tile, part, support, tile_parts(part, support, plan.cells_per_voxel, TRIM), {})
    summary = merge_tiles(TileReader(store, plan, range(plan.tile_count), choice), folder / "mesh.ply", False)
    return summary, read_mesh(folder / "mesh.ply")


@pytest.mark.parametrize("surface", ["closed", "observed"])
@pytest.mark.parametrize(("fewest", "distances"), [(0, below_a_plane), (24, below_a_plane), (24, scattered)])
def test_eight_tiles_give_the_mesh_of_one(
    surface: Surface, fewest: int, distances: Distances, tmp_path: Path
) -> None:
    choice = SurfaceChoice(surface, TRIM, fewest)
    (one, expected), (many, found) = (
        merged(plan, BALLS, tmp_path / str(number), choice, distances)
        for number, plan in enumerate((WHOLE, tiled((2, 2, 2))))
    )
    assert (many.vertices, many.faces, many.parts) == (one.vertices, one.faces, one.parts)
    assert (many.open_edges, many.is_watertight) == (one.open_edges, one.is_watertight)
    assert one.is_watertight == (surface == "closed")
    assert many.observed_area == pytest.approx(one.observed_area)
    assert many.guessed_area == pytest.approx(one.guessed_area)
    assert len(np.unique(found.faces)) == len(found.vertices)
    here, there = (np.lexsort(np.round(mesh.vertices, 4).T) for mesh in (expected, found))
    np.testing.assert_allclose(found.vertices[there], expected.vertices[here], rtol=0, atol=1e-5)
    assert expected.normals is not None
    assert found.normals is not None
    np.testing.assert_allclose(found.normals[there], expected.normals[here], rtol=0, atol=1e-4)


def test_areas_are_those_of_the_ball_and_of_its_cap(tmp_path: Path) -> None:
    summary, mesh = merged(
        tiled((2, 2, 2)), spheres([(48.0, 48.0, 48.0)], [30.0]), tmp_path, SurfaceChoice("closed", TRIM, 0)
    )
    radius = 30.0 / 2 * WHOLE.voxel_size
    whole = 4 * np.pi * radius**2
    assert summary.observed_area + summary.guessed_area == pytest.approx(whole, rel=0.01)
    to_plane = (38.0 + TRIM - 24.0 * SLANTED.sum()) / np.linalg.norm(SLANTED) * WHOLE.voxel_size
    assert summary.guessed_area == pytest.approx(2 * np.pi * radius * (radius - to_plane), rel=0.05)
    assert mesh.normals is not None
    outwards = mesh.vertices - (np.array(WHOLE.origin) + 24.0 * WHOLE.voxel_size)
    cosines = (outwards * mesh.normals).sum(axis=1) / np.linalg.norm(outwards, axis=1)
    assert cosines.min() > 0.99


def test_a_voxel_counts_for_each_tile_that_owns_an_observed_vertex_in_it() -> None:
    plan = tiled((2, 2, 2))
    (one,) = surfaces(WHOLE, sample_fields(WHOLE, BALL)).values()
    observed = scattered(one) <= TRIM
    voxels = np.floor(one.positions / plan.cells_per_voxel)
    expected = np.unique(np.column_stack([voxels, owner_of(one.keys, plan)])[observed], axis=0)
    counted = 0
    for part in surfaces(plan, sample_fields(plan, BALL)).values():
        counted += sum(
            tile_parts(part, supported(part, scattered), plan.cells_per_voxel, TRIM).sums.observed_voxels
        )
    assert counted == len(expected)
