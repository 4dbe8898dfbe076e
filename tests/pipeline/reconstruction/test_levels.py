"""The pyramid: trust, coarse blocks, what coarse levels tell finer ones, and the points of each level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt

from pipeline.errors import RunFileError
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.blending import OUTSIDE
from pipeline.reconstruction.coarse_field import (
    CoarseBlock,
    LevelFacts,
    grid_box,
    is_believable,
    read_block,
    sample_grid,
    tiles_below,
    write_level_tile,
)
from pipeline.reconstruction.crop_field import thin_points
from pipeline.reconstruction.plan import COARSEST_VOXELS, ScenePlan, make_pyramid
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.trust import Trust

CONFIG = ReconstructConfig(max_tile_voxels=32)
NOTHING = LevelFacts([], 0, 0)


def pyramid(side: float = 20.0, origin: float = 0.0) -> tuple[ScenePlan, ...]:
    """Plans of a cube's levels, voxel 0.2."""
    low = np.full(3, origin)
    return make_pyramid(low, low + side, 0.2, CONFIG, receptive_radius=20, pooling_factor=4, name="cube")


@pytest.mark.parametrize("origin", [0.0, 3.37, 5e6 + 0.123])
def test_all_levels_lie_on_one_grid_of_the_world(origin: float) -> None:
    plans = pyramid(origin=origin)
    assert [plan.level for plan in plans] == list(range(len(plans)))
    for plan in plans:
        whole = np.asarray(plan.origin) / plan.voxel_size
        np.testing.assert_allclose(whole, plan.start, rtol=0, atol=1e-4)
        assert plan.voxel_size == pytest.approx(0.2 * 2**plan.level)
    assert 20.0 / plans[-1].voxel_size <= COARSEST_VOXELS < 20.0 / plans[-2].voxel_size


def test_trust_is_whole_near_the_points_and_none_far_from_them() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(8, 24, (30, 3))
    trust = Trust(points, (32, 32, 32))
    occupied = np.zeros((32, 32, 32), bool)
    occupied[tuple(np.floor(points).astype(int).T)] = True
    away = distance_transform_edt(~occupied)  # between the middles of voxels, Euclidean
    cells = np.argwhere(np.ones_like(occupied))
    weights = trust.at(cells + 0.5)
    distances = away[tuple(cells.T)]
    assert (weights[distances <= 1.5] == 1).all()
    assert (weights[distances >= 6] == 0).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    shift = np.array([3, -2, 5])
    moved = Trust(points + shift, (40, 40, 40)).at(cells + 0.5 + shift)
    np.testing.assert_array_equal(moved, weights)


def test_trilinear_reading_is_exact_for_a_linear_field() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(side) for side in (5, 6, 7)], indexing="ij"), axis=-1)
    slope = np.array([1.5, -0.5, 2.0])
    positions = np.random.default_rng(0).uniform(0, [4, 5, 6], (200, 3))
    found = sample_grid((grid @ slope).astype(np.float32), positions)
    np.testing.assert_allclose(found, positions @ slope, atol=1e-4)


@pytest.mark.parametrize("origin", [0.0, 0.9, -7.3])
def test_a_block_read_from_tiles_is_the_field_that_was_written(tmp_path: Path, origin: float) -> None:
    """A field linear in the world, over many tiles with their blending bands, at any offset of the levels."""
    fine, coarse = pyramid(origin=origin)[:2]
    assert coarse.tile_count > 1
    store = RunStore(str(tmp_path))
    slope = np.array([0.05, -0.02, 0.03])
    for tile in range(coarse.tile_count):
        first, last = grid_box(coarse, tile)
        axes = [np.arange(a, b + 1) for a, b in zip(first, last, strict=True)]
        corners = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        world = np.asarray(coarse.origin) + coarse.voxel_size * corners
        write_level_tile(store, coarse, tile, (world @ slope).astype(np.float32), NOTHING, 0.0)
    for tile in (0, fine.tile_count // 2, fine.tile_count - 1):
        block = read_block(store, coarse, set(range(coarse.tile_count)), fine, tile)
        low = np.asarray(fine.crop_low(tile))
        places = np.random.default_rng(tile).uniform(
            low + 26, low + np.asarray(fine.crop_shape[::-1]) - 26, (300, 3)
        )
        inside = ((places > 1) & (places < np.asarray(fine.grid) * fine.tile_voxels - 1)).all(axis=1)
        world = np.asarray(fine.origin) + fine.voxel_size * places
        # Values are kept as float16: 0.05 of a logit at the largest.
        np.testing.assert_allclose(block.at(places)[inside], (world @ slope)[inside], atol=2e-3)


def test_what_no_tile_holds_is_free(tmp_path: Path) -> None:
    fine, coarse = pyramid()[:2]
    store = RunStore(str(tmp_path))
    block = read_block(store, coarse, set(), fine, 0)
    places = np.random.default_rng(0).uniform(0, 30, (50, 3))
    np.testing.assert_allclose(block.at(places), OUTSIDE, rtol=1e-6)
    with pytest.raises(
        RunFileError, match="is missing"
    ):  # a tile that was finished is not free for being lost
        read_block(store, coarse, {0}, fine, 0)


def plane_block(thickness: float) -> CoarseBlock:
    """Logits of a slab of some thickness in coarse voxels about x = 10, slope 4 a voxel."""
    x = np.arange(21.0)
    values = -4 * (np.abs(x - 10) - thickness / 2)
    return CoarseBlock(
        np.broadcast_to(values[:, None, None], (21, 21, 21)).astype(np.float32),
        np.zeros(3, int),
        0.5,
        np.zeros(3),
    )


def test_a_level_tells_the_free_side_of_what_it_resolves_and_of_nothing_thinner() -> None:
    points = np.random.default_rng(0).uniform(12, 28, (100, 3))
    points[:, 0] = 2 * (10 + 2)  # the slab's upper face, in voxels of the finer level
    directions = plane_block(4.0).directions(points)
    np.testing.assert_allclose(directions, np.tile([1, 0, 0], (100, 1)), atol=1e-3)
    points[:, 0] = 2 * (10 + 0.25)
    assert not plane_block(0.5).directions(points).any()


def test_a_level_with_points_inside_its_solids_is_not_believed() -> None:
    assert is_believable([LevelFacts([], 1000, 5), LevelFacts([], 500, 0)])
    assert not is_believable([LevelFacts([], 1000, 5), LevelFacts([], 500, 20)])
    assert is_believable([])


def test_no_tile_that_holds_solid_is_missed_below() -> None:
    rng = np.random.default_rng(3)
    fine, coarse = pyramid(origin=1.3)[:2]
    for tile in range(coarse.tile_count):
        first, last = grid_box(coarse, tile)
        values = np.full(tuple(last - first + 1), -1.0, np.float32)
        solid = rng.integers(0, last - first + 1, (3, 3))
        values[tuple(solid.T)] = 1.0
        world = np.asarray(coarse.origin) + coarse.voxel_size * (solid + first)
        expected = {int(number) for number in fine.tile_of_points(world) if number >= 0}
        places = np.floor(fine.voxel_position(world) / fine.tile_voxels)
        inside = ((places >= 0) & (places < fine.grid)).all(axis=1)
        expected = {int(number) for number in fine.tile_of_points(world[inside])}
        assert expected <= set(tiles_below(fine, coarse, tile, values))


def test_thinning_keeps_the_first_of_each_cell() -> None:
    points = np.random.default_rng(1).uniform(0, 3, (600, 3))
    kept = thin_points(points)
    cells = np.floor(points).astype(int)
    for cell in np.unique(cells, axis=0):
        rows = np.flatnonzero((cells == cell).all(axis=1))
        assert set(rows[:4]) <= set(kept)
        assert len(set(rows) & set(kept)) == min(4, len(rows))
