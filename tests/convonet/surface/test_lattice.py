"""Keys of lattice points and of surface vertices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convonet.surface.lattice import HALF_RANGE, Lattice, key_step, pack, unpack, unpack_vertex

coordinate = st.integers(-HALF_RANGE, HALF_RANGE - 1)
points = st.lists(st.tuples(coordinate, coordinate, coordinate), min_size=1, max_size=30)


@given(points)
def test_unpack_inverts_pack_and_keys_order_points_lexicographically(rows):
    ijk = np.array(rows, dtype=np.int64)
    keys = pack(ijk)
    assert keys.dtype == np.int64 and (keys >= 0).all()
    np.testing.assert_array_equal(unpack(keys), ijk)
    assert [tuple(p) for p in unpack(np.sort(keys))] == sorted(rows)


@given(points, st.integers(0, 3))
def test_vertex_keys_keep_point_and_axis(rows, axis):
    ijk = np.array(rows, dtype=np.int64)
    lower, axes = unpack_vertex((pack(ijk) << 2) | axis)
    np.testing.assert_array_equal(lower, ijk)
    assert (axes == axis).all()


@given(st.tuples(*[st.integers(-1000, 1000)] * 3), st.tuples(*[st.integers(-1000, 1000)] * 3))
def test_key_step_moves_a_key_by_an_offset(point, offset):
    moved = np.array([point]) + np.array([offset])
    assert pack(np.array([point]))[0] + key_step(offset) == pack(moved)[0]


@pytest.mark.parametrize("value", [HALF_RANGE, -HALF_RANGE - 1, 2**40])
def test_pack_refuses_points_out_of_range(value):
    with pytest.raises(ValueError, match="larger voxel size"):
        pack(np.array([[0, value, 0]]))


def test_pack_refuses_floats_and_wrong_shapes():
    with pytest.raises(ValueError, match="integers"):
        pack(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="shape"):
        pack(np.zeros(3, dtype=np.int64))


def test_pack_takes_no_points():
    assert pack(np.zeros((0, 3), dtype=np.int64)).shape == (0,)


def test_lattice_world_keeps_millimeters_at_map_coordinates():
    lattice = Lattice((652_000.123, 5_100_000.456, 210.0), 0.025)
    ijk = np.array([[0, 0, 0], [40, -80, 1], [400_000, 0, 0]])
    expected = [[652_000.123, 5_100_000.456, 210.0], [652_001.123, 5_099_998.456, 210.025]]
    np.testing.assert_allclose(lattice.world(ijk)[:2], expected, atol=1e-8, rtol=0)
    back = (lattice.world(ijk + 0.5) - lattice.origin) / lattice.spacing
    np.testing.assert_array_equal(np.floor(back), ijk)


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), float("inf")])
def test_lattice_refuses_a_bad_spacing(spacing):
    with pytest.raises(ValueError, match="spacing"):
        Lattice((0.0, 0.0, 0.0), spacing)
