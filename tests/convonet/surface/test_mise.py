"""Sparse refinement finds what a dense grid finds, asks for each point once, and gives each one value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convonet.surface.cell_cases import CORNERS
from convonet.surface.lattice import HALF_RANGE, pack, unpack
from convonet.surface.marching_cubes import extract_blocks
from convonet.surface.mise import MiseConfig, refine
from tests.references import fields
from tests.references.dense_marching_cubes import (
    assert_closed_manifold,
    extract_cells,
    extract_dense,
    grid_points,
)
from tests.references.naive_mise import naive_refine

ORIGIN = np.zeros(3, np.int64)
NO_SEEDS = np.zeros((0, 3), np.int64)
ALL_STEPS = [(8, 4, 1), (8, 4, 2, 1), (8, 1), (4, 1), (8, 2, 1), (6, 3, 1), (2, 1)]


def tabulated(values, low=ORIGIN):
    """A field that reads a dense array of the closed box at `low`."""
    return lambda points: values[tuple((points - low).T)]


def noise(seed, size, smooth):
    """Random values of a closed box of `size` cells; averaging `smooth` times joins neighbors."""
    values = np.random.default_rng(seed).normal(size=[size + 1 + smooth] * 3)
    for _ in range(smooth):
        values = values[1:, 1:, 1:] + values[:-1, :-1, :-1] + values[1:, :-1, 1:] + values[:-1, 1:, :-1]
    return values.astype(np.float32)[: size + 1, : size + 1, : size + 1]


def crossed_cells(field, low, high):
    """All lattice cells of a box whose corners disagree: a scan with a point in every surface cell."""
    cells = grid_points(low, high)
    inside = np.stack([field(cells + np.array(c)) > 0 for c in CORNERS], axis=1)
    return cells[inside.any(axis=1) & ~inside.all(axis=1)]


def assert_same_surface(a, b):
    np.testing.assert_array_equal(a.vertex_keys, b.vertex_keys)
    np.testing.assert_array_equal(a.faces, b.faces)
    np.testing.assert_array_equal(a.positions, b.positions)


def face_rows(surfaces):
    return sorted(map(tuple, np.concatenate([s.faces for s in surfaces]).tolist()))


@pytest.mark.parametrize("steps", ALL_STEPS)
@pytest.mark.parametrize(("smooth", "shift"), [(0, 2.5), (2, 9.0), (6, 0.0), (12, 0.0)])
def test_refined_cells_are_the_smallest_set_that_satisfies_the_rule(steps, smooth, shift):
    size = 24
    for seed in range(3):
        values = noise(seed, size, smooth) - np.float32(shift)
        seeds = np.random.default_rng(seed).integers(0, size, (seed, 3))  # none, one, two
        counted = fields.Counted(tabulated(values))
        sampled = refine(counted, ORIGIN, ORIGIN + size, seeds, MiseConfig(steps))
        refined, evaluated = naive_refine(values, steps, seeds)
        for level, cells in enumerate(refined):
            assert set(map(tuple, np.argwhere(sampled.refined[level]).tolist())) == cells, f"seed {seed}"
        np.testing.assert_array_equal(unpack(sampled.keys), np.argwhere(evaluated))
        np.testing.assert_array_equal(sampled.values, values[evaluated])
        assert len(np.unique(pack(counted.points))) == len(counted.points), "a point was asked for twice"


ANALYTIC = {
    "spheres": fields.spheres([(20.3, 21.1, 19.7), (44.0, 40.2, 38.9)], [13.0, 9.5]),
    "box": fields.box((9.2, 12.7, 8.1), (50.5, 44.3, 30.9)),
    "spheres and box": fields.union(
        fields.spheres([(20.3, 21.1, 19.7)], [14.0]), fields.box((20.0, 20.0, 20.0), (55.0, 41.0, 33.0))
    ),
    "gyroid": fields.gyroid(period=40),
    "waves": fields.waves(seed=4, wavelength=40),
}


@pytest.mark.parametrize("steps", [(8, 4, 1), (8, 4, 2, 1), (8, 1), (4, 2, 1)])
@pytest.mark.parametrize("name", ANALYTIC)
def test_the_surface_equals_that_of_a_dense_grid(name, steps):
    field, high = ANALYTIC[name], np.array([64, 56, 48])
    # Smooth shapes wider than a coarse cell are found without seeds.
    sampled = refine(field, ORIGIN, high, NO_SEEDS, MiseConfig(steps))
    assert_same_surface(extract_blocks(*sampled.blocks()), extract_dense(field, ORIGIN, high))


@pytest.mark.parametrize("offset", np.arange(40) * 0.2)
def test_a_lone_wall_thinner_than_a_cell_is_found_by_its_scan(offset):
    low, high = ORIGIN - 8, ORIGIN + 40
    wall = fields.box((8 + offset, -2.3, -1.7), (8 + offset + 0.3 * 8, 33.1, 30.6))
    everywhere = crossed_cells(wall, low, high)
    seeds = everywhere[:: max(1, len(everywhere) // 3)]  # a few scan points
    sampled = refine(wall, low, high, seeds)
    surface = extract_blocks(*sampled.blocks())
    assert_same_surface(surface, extract_dense(wall, low, high))
    assert_closed_manifold(surface.faces)


def test_a_thin_sheet_attached_to_a_found_surface_is_followed_to_its_end():
    # The ball is found by its corners; the sheet, 2.4 cells thick, lies between coarse points.
    sheet = fields.box((9.3, 9.0, 8.6), (11.7, 60.0, 61.0))
    field = fields.union(fields.spheres([(10.5, 10.0, 10.0)], [7.0]), sheet)
    high = ORIGIN + 64
    sampled = refine(field, ORIGIN, high, NO_SEEDS)
    coarse = refine(sheet, ORIGIN, high, NO_SEEDS)
    assert not coarse.refined[0].any(), "the sheet alone must be invisible to coarse corners"
    assert_same_surface(extract_blocks(*sampled.blocks()), extract_dense(field, ORIGIN, high))


@settings(max_examples=12, deadline=None)
@given(
    offset=st.tuples(*[st.integers(-(HALF_RANGE // 8) + 8, HALF_RANGE // 8 - 16)] * 3),
    kind=st.sampled_from(["gyroid", "waves"]),
    seed=st.integers(0, 100),
)
def test_the_surface_does_not_depend_on_the_tiling(offset, kind, seed):
    low = np.array(offset) * 8
    high, half = low + 32, 16
    origin = tuple(low.tolist())
    field = fields.gyroid(25.0, origin) if kind == "gyroid" else fields.waves(seed, 20.0, origin)
    seeds = crossed_cells(field, low, high)
    whole = extract_blocks(*refine(field, low, high, seeds).blocks())
    tiles = []
    for corner in np.array(CORNERS) * half:
        a, b = low + corner, low + corner + half
        mine = seeds[((seeds >= a) & (seeds < b)).all(axis=1)]
        tiles.append(extract_blocks(*refine(field, a, b, mine).blocks()))
    keys = np.unique(np.concatenate([t.vertex_keys for t in tiles]))
    np.testing.assert_array_equal(keys, whole.vertex_keys)
    assert face_rows(tiles) == face_rows([whole])
    place = {k: p for t in tiles for k, p in zip(t.vertex_keys.tolist(), t.positions, strict=True)}
    np.testing.assert_array_equal(np.array([place[k] for k in keys.tolist()]), whole.positions)


@pytest.mark.parametrize("steps", ALL_STEPS)
def test_the_sampled_field_is_one_field_whose_surface_lies_in_the_dense_leaves(steps):
    # Signs agree between levels: reading the whole box point by point gives the mesh of the leaves alone.
    low, size = np.array([-24, 48, -120]), 24
    values = noise(5, size, 6)
    values[[0, -1]] = values[:, [0, -1]] = values[:, :, [0, -1]] = -1  # outside on the box's faces
    sampled = refine(tabulated(values, low), low, low + size, NO_SEEDS, MiseConfig(steps))
    leaves = extract_blocks(*sampled.blocks())
    assert len(leaves.faces) > 100
    assert_closed_manifold(leaves.faces)
    assert_same_surface(leaves, extract_dense(sampled.value_at, low, low + size))


def test_value_at_reads_evaluated_points_and_interpolates_the_owner_cell():
    field, high = ANALYTIC["spheres"], np.array([64, 56, 48])
    sampled = refine(field, ORIGIN, high, NO_SEEDS)
    points = unpack(sampled.keys)
    np.testing.assert_array_equal(sampled.value_at(points), field(points))
    evaluated = set(sampled.keys.tolist())
    rng = np.random.default_rng(0)
    others = rng.integers(ORIGIN, high + 1, (3000, 3))
    others[:300, 0] = high[0]  # the upper face belongs to the last cell
    others = others[[k not in evaluated for k in pack(others).tolist()]]
    expected = np.empty(len(others))
    for row, point in enumerate(others):
        for level, step in enumerate(sampled.config.steps):
            cell = np.minimum(point, high - 1) // step
            if not sampled.refined[level][tuple(cell)]:
                break
        t = point / step - cell
        corners = field(cell * step + np.array(CORNERS) * step).astype(np.float64).reshape(2, 2, 2)
        for axis in range(3):
            corners = corners[0] * (1 - t[axis]) + corners[1] * t[axis]
        expected[row] = corners
    assert len(others) > 1000
    np.testing.assert_allclose(sampled.value_at(others), expected, rtol=1e-6)  # float32 result
    order = rng.permutation(len(others))
    np.testing.assert_array_equal(sampled.value_at(others[order]), sampled.value_at(others)[order])


def test_points_asked_for_follow_the_surface_not_the_volume():
    counts = []
    for size in (64, 128, 256):
        ball = fields.spheres([(0.5 * size + 0.3,) * 3], [0.3 * size])
        counts.append(len(refine(ball, ORIGIN, ORIGIN + size, NO_SEEDS).keys) - (size // 8 + 1) ** 3)
    # Four times as many for twice the resolution; eight times would be the volume.
    assert counts[1] / counts[0] < 5 and counts[2] / counts[1] < 4.5


def test_no_batch_is_larger_than_asked_for():
    counted = fields.Counted(ANALYTIC["spheres"])
    small = refine(counted, ORIGIN, ORIGIN + 48, NO_SEEDS, max_batch=1000)
    assert max(len(points) for points in counted.asked) <= 1000
    large = refine(ANALYTIC["spheres"], ORIGIN, ORIGIN + 48, NO_SEEDS)
    np.testing.assert_array_equal(small.keys, large.keys)
    np.testing.assert_array_equal(small.values, large.values)


def test_a_box_without_surface_has_no_blocks():
    sampled = refine(lambda p: np.full(len(p), -1, np.float32), ORIGIN, ORIGIN + 16, NO_SEEDS)
    origins, values = sampled.blocks()
    assert origins.shape == (0, 3) and values.shape == (0, 5, 5, 5)
    assert len(sampled.keys) == 27
    assert len(extract_blocks(origins, values).faces) == 0


def test_blocks_hold_the_values_of_their_points():
    field = ANALYTIC["gyroid"]
    origins, values = refine(field, ORIGIN, ORIGIN + 24, NO_SEEDS).blocks()
    offsets = grid_points(ORIGIN, ORIGIN + 5)
    np.testing.assert_array_equal(
        values.reshape(-1), field((origins[:, None] + offsets).reshape(-1, 3)).reshape(-1)
    )
    cells = (origins[:, None] + grid_points(ORIGIN, ORIGIN + 4)).reshape(-1, 3)
    corners = np.stack([field(cells + np.array(c)) for c in CORNERS], axis=1)
    assert_same_surface(extract_blocks(origins, values), extract_cells(cells, corners))


def test_bad_requests_are_refused():
    field = ANALYTIC["spheres"]
    with pytest.raises(ValueError, match="multiples of 8"):
        refine(field, ORIGIN, ORIGIN + 12, NO_SEEDS)
    with pytest.raises(ValueError, match="multiples of 8"):
        refine(field, ORIGIN, ORIGIN, NO_SEEDS)
    with pytest.raises(ValueError, match="seed"):
        refine(field, ORIGIN, ORIGIN + 16, np.array([[0, 0, 16]]))
    with pytest.raises(ValueError, match="not finite at lattice point"):
        refine(lambda p: np.full(len(p), np.nan, np.float32), ORIGIN, ORIGIN + 8, NO_SEEDS)
    for steps in [(8,), (8, 3, 1), (1, 1), (4, 8, 1), (8, 4, 2)]:
        with pytest.raises(ValueError, match="divide one another"):
            MiseConfig(steps)
