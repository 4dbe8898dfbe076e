"""The surface does not depend on the tiling: analytic fields in 1, 8, 27 and unequal tiles."""

from dataclasses import replace

import numpy as np
import pytest

from convonet.surface.mise import SampledField
from pipeline.reconstruction.blending import axis_ramp, tile_weight
from pipeline.reconstruction.merge import cancel_opposites
from pipeline.reconstruction.tile_surface import owner_of
from tests.references.dense_marching_cubes import assert_closed_manifold, grid_points
from tests.references.fields import Field, box, gyroid, spheres, union, waves
from tests.references.tiled_scene import WHOLE, Joined, join, sample_field, sample_fields, surfaces, tiled

TILINGS = [(2, 2, 2), (3, 3, 3), (1, 2, 3), (3, 1, 2)]
FIELDS: dict[str, Field] = {
    "spheres": spheres([(30.3, 40.1, 45.7), (66.2, 50.4, 48.9), (48.0, 20.2, 70.6)], [17.3, 21.7, 12.2]),
    "boxes": union(
        box((10.3, 12.4, 9.6), (80.2, 14.1, 70.7)),  # a wall less than two cells thick
        box((10.3, 12.4, 9.6), (13.9, 80.2, 60.3)),
        box((31.5, 31.5, 31.5), (48.5, 64.5, 47.5)),
    ),
    "gyroid": gyroid(37.0),
    "waves": waves(4, 26.0),
}


@pytest.fixture(scope="module")
def whole() -> dict[str, Joined]:
    return {name: join(surfaces(WHOLE, sample_fields(WHOLE, field))) for name, field in FIELDS.items()}


@pytest.mark.parametrize("grid", TILINGS, ids=str)
@pytest.mark.parametrize("name", list(FIELDS))
def test_every_tiling_gives_the_same_vertices_and_faces(
    name: str,
    grid: tuple[int, int, int],
    whole: dict[str, Joined],
) -> None:
    plan = tiled(grid)
    found = join(surfaces(plan, sample_fields(plan, FIELDS[name])))
    np.testing.assert_array_equal(found.keys, whole[name].keys)
    np.testing.assert_array_equal(found.faces, whole[name].faces)
    np.testing.assert_allclose(found.positions, whole[name].positions, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(FIELDS))
def test_the_joined_mesh_is_a_closed_manifold(name: str, whole: dict[str, Joined]) -> None:
    assert_closed_manifold(whole[name].faces)


@pytest.mark.parametrize(("blend_voxels", "grid"), [(4, (3, 3, 3)), (0, (3, 2, 1))])
def test_crops_that_disagree_still_join_into_a_closed_manifold(
    blend_voxels: int, grid: tuple[int, int, int]
) -> None:
    """Each crop sees its own field, as planes or global normalization would make it; some see nothing."""
    plan = replace(tiled(grid), blend_voxels=blend_voxels)
    fields: dict[int, SampledField] = {}
    for tile in range(plan.tile_count):
        if tile % 5 != 4:
            fields[tile] = sample_field(plan, tile, waves(tile, 30.0), is_seeded=False)
    parts = surfaces(plan, fields)
    faces = join(parts).faces
    assert len(faces) > 1000
    assert_closed_manifold(faces)
    remaining = np.zeros((0, 2), np.int64)
    for part in parts.values():
        assert part.bad_edges == 0
        edges = [part.faces[:, [0, 1]], part.faces[:, [1, 2]], part.faces[:, [2, 0]]]
        remaining = cancel_opposites(remaining, np.concatenate(edges))
    assert not len(remaining)


@pytest.mark.parametrize("blend_voxels", [4, 0])
def test_the_weights_are_a_partition_of_unity(blend_voxels: int) -> None:
    plan = replace(tiled((3, 2, 1)), blend_voxels=blend_voxels)
    points = grid_points(np.zeros(3, np.int64), np.array(plan.scene_cells) + 1)[::7]
    total = sum(tile_weight(points, plan, tile) for tile in range(plan.tile_count))
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-15)
    for tile in range(plan.tile_count):
        region = plan.region_box(tile)
        beyond = ((points < region.low) | (points > region.high)).any(axis=1)
        assert not tile_weight(points, plan, tile)[beyond].any()


def test_every_vertex_has_exactly_one_owner_and_the_owner_has_it() -> None:
    plan = tiled((2, 2, 2))
    parts = surfaces(plan, sample_fields(plan, FIELDS["gyroid"]))
    owned = np.concatenate([part.keys[: part.owned] for part in parts.values()])
    every = np.unique(np.concatenate([part.keys for part in parts.values()]))
    assert len(np.unique(owned)) == len(owned)
    assert np.array_equal(np.sort(owned), every)
    for tile, part in parts.items():
        assert (owner_of(part.keys[: part.owned], plan) == tile).all()
        foreign = part.keys[part.owned :]
        for owner in np.unique(owner_of(foreign, plan)):
            mine = foreign[owner_of(foreign, plan) == owner]
            assert np.isin(mine, parts[int(owner)].keys[: parts[int(owner)].owned_border]).all()


def test_the_ramp_rises_smoothly_across_the_whole_band() -> None:
    face, band = 5000, 1000
    places = np.arange(face - 2 * band, face + 2 * band + 1)
    ramp = axis_ramp(places, face, band)
    assert (ramp[places <= face - band] == 0).all()
    assert (ramp[places >= face + band] == 1).all()
    np.testing.assert_allclose(ramp + ramp[::-1], 1, rtol=0, atol=1e-15)
    slope = np.gradient(ramp)
    assert (slope[np.abs(places - face) < band] > 0).all()
    assert slope.max() == pytest.approx(slope[places == face][0])
    assert slope.max() < 1 / band  # a straight ramp has half of this, one over half of the band all of it
    assert np.abs(np.diff(slope)).max() < 6 / (2 * band) ** 2  # no kink, also where the band begins and ends


def test_the_tiles_shares_of_normals_add_up_and_point_outwards() -> None:
    ball = spheres([(47.3, 48.9, 46.1)], [30.2])
    (one,) = surfaces(WHOLE, sample_fields(WHOLE, ball)).values()
    plan = tiled((2, 2, 2))
    sums = {key: np.zeros(3) for key in one.keys.tolist()}
    for part in surfaces(plan, sample_fields(plan, ball)).values():
        for key, share in zip(part.keys.tolist(), part.normal_sums, strict=True):
            sums[key] += share
    np.testing.assert_allclose([sums[key] for key in one.keys.tolist()], one.normal_sums, rtol=0, atol=1e-5)
    outwards = one.positions - (47.3, 48.9, 46.1)
    cosines = (outwards * one.normal_sums).sum(axis=1)
    cosines /= np.linalg.norm(outwards, axis=1) * np.linalg.norm(one.normal_sums, axis=1)
    assert cosines.min() > 0.99
