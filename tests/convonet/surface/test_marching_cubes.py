"""The surface is a closed oriented manifold for any values, and depends on nothing but the values."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import marching_cubes as skimage_marching_cubes

from convonet.surface import cell_cases as cases_module
from convonet.surface.cell_cases import CORNERS, EDGES, case_loops, cell_cases, face_cycles, faces_of_edge
from convonet.surface.lattice import HALF_RANGE, pack
from convonet.surface.marching_cubes import MIN_FRACTION, extract_blocks, index_faces
from tests.references import fields
from tests.references.dense_marching_cubes import (
    assert_closed_manifold,
    edges_not_shared_by_two,
    extract_cells,
    extract_dense,
    grid_points,
)

LOW = np.array([-10, -10, -10])
HIGH = np.array([11, 12, 13])


def padded(values):
    """One block: values with a layer of outside around them, so that the surface closes."""
    return np.array([[-1, -1, -1]]), np.pad(values, 1, constant_values=-1).astype(np.float32)[None]


def random_field(kind, seed, side):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(side, side, side))
    return {
        "noise": noise,
        "signs": np.where(noise > 0, 1.0, -1.0),
        "integers": rng.integers(-2, 3, noise.shape),
        "mostly inside": noise + 1,
        "mostly outside": noise - 1,
    }[kind]


@pytest.mark.parametrize("case", range(256))
def test_each_case_crosses_every_cut_edge_once_and_stays_off_the_cell_faces(case):
    tables = cell_cases()
    faces = tables.triangles[tables.triangle_start[case] : tables.triangle_start[case + 1]]
    cut = {e for e, (c, axis) in enumerate(EDGES) if (case >> c & 1) != (case >> (c + (4, 2, 1)[axis]) & 1)}
    assert set(faces.ravel().tolist()) == cut == set(np.flatnonzero(tables.cut_edges[case]).tolist())
    loops = case_loops(case)
    assert sorted(e for loop in loops for e in loop) == sorted(cut)
    directed = Counter((int(t[i]), int(t[(i + 1) % 3])) for t in faces for i in range(3))
    rim = {(a, b) for loop in loops for a, b in zip(loop, loop[1:] + loop[:1], strict=True)}
    assert max(directed.values(), default=1) == 1
    for a, b in directed:
        on_face = bool(faces_of_edge(a) & faces_of_edge(b))
        assert on_face == ((a, b) in rim), "an edge on a cell face must be a segment of it"
        assert ((b, a) in directed) == (not on_face), "an inner edge has two faces, a segment one"
    assert rim <= set(directed)


def test_both_cells_at_a_face_draw_the_same_segments_in_opposite_directions():
    # Cells A and B share A's face x = 1; the segments there depend on its four signs alone.
    def segments(case, side):
        result = set()
        for loop in case_loops(case):
            for a, b in zip(loop, loop[1:] + loop[:1], strict=True):
                if (0, side) in faces_of_edge(a) & faces_of_edge(b):
                    ends = []
                    for edge in (a, b):
                        corner, axis = EDGES[edge]
                        ends.append((CORNERS[corner][1:], axis))
                    result.add(tuple(ends))
        return result

    for a in range(256):
        for b in range(256):
            if a >> 4 == b & 15:
                assert segments(a, 1) == {(q, p) for p, q in segments(b, 0)}


def test_face_cycles_turn_counter_clockwise_seen_from_outside():
    for cycle in face_cycles():
        corners = np.array([CORNERS[c] for c in cycle])
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[1])
        assert normal @ (corners.mean(axis=0) - 0.5) > 0


def test_a_loop_without_a_manifold_triangulation_is_refused():
    # Four edges of one face: both diagonals lie in it.
    face = tuple(e for e in range(12) if (0, 0) in faces_of_edge(e))
    with pytest.raises(ValueError, match="no manifold"):
        cases_module.triangulate(face)


@pytest.mark.parametrize("kind", ["noise", "signs", "integers", "mostly inside", "mostly outside"])
def test_any_values_give_a_closed_oriented_manifold(kind):
    surface = extract_blocks(*padded(random_field(kind, seed=3, side=14)))
    assert len(surface.faces) > 1000
    assert_closed_manifold(surface.faces)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_any_signs_of_4x4x4_points_give_a_closed_manifold(bits):
    signs = np.array([1.0 if bits >> i & 1 else -1.0 for i in range(64)]).reshape(4, 4, 4)
    assert_closed_manifold(extract_blocks(*padded(signs)).faces)


def test_where_values_tie_lewiner_is_not_a_manifold_and_ours_is():
    # The reason for our own tables; see docs/decisions/001-own-marching-cubes.md.
    origin, values = padded(random_field("signs", seed=0, side=40))
    _, theirs, _, _ = skimage_marching_cubes(values[0], 0.0)
    assert edges_not_shared_by_two(theirs) > 100
    assert edges_not_shared_by_two(extract_blocks(origin, values).faces) == 0


def test_no_triangle_is_degenerate_even_on_exact_zeros():
    surface = extract_blocks(*padded(random_field("integers", seed=1, side=20)))
    a, b, c = (surface.positions[surface.indexed_faces()[:, i]] for i in range(3))
    areas = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    # Smallest possible: corner cut at MIN_FRACTION on all three edges, sqrt(3) / 2 MIN_FRACTION^2.
    assert areas.min() > 0.99 * np.sqrt(3) / 2 * MIN_FRACTION**2
    assert len(np.unique(surface.positions, axis=0)) == len(surface.positions)


def test_sphere_has_its_volume_and_area_and_outward_normals():
    surface = extract_dense(fields.spheres([(0.3, 0.2, 0.1)], [8.0]), LOW, HIGH)
    a, b, c = (surface.positions[surface.indexed_faces()[:, i]] for i in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2
    # Chords cut at most h^2 / 8r = 0.016 cell off the radius: 0.6% of the volume, 0.4% of the area.
    assert volume == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.01)
    assert area == pytest.approx(4 * np.pi * 8**2, rel=0.01)
    assert np.all(np.einsum("ij,ij->i", np.cross(b - a, c - a), a - [0.3, 0.2, 0.1]) > 0)


def test_vertices_agree_with_scikit_image_on_a_smooth_field():
    field = fields.waves(seed=5, wavelength=12)
    surface = extract_dense(field, LOW, HIGH)
    shape = tuple(HIGH - LOW + 1)
    values = field(grid_points(LOW, HIGH + 1)).reshape(shape)
    vertices, _, _, _ = skimage_marching_cubes(values, 0.0)
    ours = surface.positions[np.lexsort(np.round(surface.positions, 3).T)]
    theirs = vertices + LOW
    assert len(ours) == len(theirs)
    # float32 vertices of scikit-image, and our clamp moves a vertex by at most MIN_FRACTION.
    from scipy.spatial import cKDTree

    assert cKDTree(theirs).query(ours)[0].max() < 2 * MIN_FRACTION


@pytest.mark.parametrize("seed", range(3))
def test_the_surface_does_not_depend_on_the_order_of_the_cells(seed):
    rng = np.random.default_rng(seed)
    cells = grid_points(LOW, HIGH)
    field = fields.waves(seed, wavelength=9)
    values = np.stack([field(cells + np.array(c)) for c in CORNERS], axis=1)
    straight, order = extract_cells(cells, values), rng.permutation(len(cells))
    shuffled = extract_cells(cells[order], values[order])
    for a, b in zip(vars(straight).values(), vars(shuffled).values(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_vertices_are_the_same_bytes_from_any_group_of_cells():
    cells = grid_points(LOW, HIGH)
    field = fields.waves(2, wavelength=9)
    values = np.stack([field(cells + np.array(c)) for c in CORNERS], axis=1)
    whole = extract_cells(cells, values)
    where = dict(zip(whole.vertex_keys.tolist(), whole.positions, strict=True))
    group = np.random.default_rng(0).integers(0, 5, len(cells))
    faces, keys = [], set()
    for g in range(5):
        part = extract_cells(cells[group == g], values[group == g])
        faces.append(part.faces)
        keys |= set(part.vertex_keys.tolist())
        for key, position in zip(part.vertex_keys.tolist(), part.positions, strict=True):
            assert where[key].tobytes() == position.tobytes()
    assert keys == set(where)
    assert sorted(map(tuple, np.concatenate(faces).tolist())) == sorted(map(tuple, whole.faces.tolist()))


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_blocks_equal_cells(side, monkeypatch):
    monkeypatch.setattr("convonet.surface.marching_cubes.CHUNK_VALUES", 1000)  # several chunks
    field = fields.gyroid(period=11)
    origins = grid_points(np.array([-1, -1, -1]), np.array([2, 2, 1])) * side
    local = grid_points(np.array([0, 0, 0]), np.array([side + 1] * 3))
    values = field((origins[:, None] + local).reshape(-1, 3)).reshape(len(origins), *[side + 1] * 3)
    order = np.random.default_rng(0).permutation(len(origins))
    blocks = extract_blocks(origins[order], values[order])
    cells = extract_dense(field, np.array([-1, -1, -1]) * side, np.array([2, 2, 1]) * side)
    for a, b in zip(vars(blocks).values(), vars(cells).values(), strict=True):
        assert a.tobytes() == b.tobytes()


def test_zero_counts_as_outside_and_the_vertex_stays_off_the_point():
    values = np.full((1, 8), -1.0)
    values[0, 0] = 1.0
    values[0, 1:] = 0.0
    surface = extract_cells(np.array([[5, 6, 7]]), values)
    assert surface.vertex_keys.tolist() == [(pack(np.array([[5, 6, 7]]))[0] << 2) + a for a in range(3)]
    np.testing.assert_allclose(surface.positions - [5, 6, 7], np.eye(3) * (1 - MIN_FRACTION), atol=1e-12)


def test_far_away_cells_keep_their_fractions():
    far = np.array([[-HALF_RANGE, HALF_RANGE - 2, -HALF_RANGE]])
    values = -np.ones((1, 8))
    values[0, 0] = 3.0
    surface = extract_cells(far, values)
    np.testing.assert_array_equal(surface.positions - far, np.eye(3) * 0.75)


def test_nothing_in_nothing_out():
    for surface in (
        extract_cells(np.zeros((0, 3), np.int64), np.zeros((0, 8))),
        extract_blocks(np.zeros((0, 3), np.int64), np.zeros((0, 5, 5, 5))),
        extract_cells(np.zeros((1, 3), np.int64), -np.ones((1, 8))),
    ):
        assert surface.vertex_keys.shape == (0,)
        assert surface.positions.shape == (0, 3)
        assert surface.faces.shape == surface.indexed_faces().shape == (0, 3)


def test_bad_input_is_refused():
    cells, values = np.zeros((2, 3), np.int64), np.tile([1.0, *[-1.0] * 7], (2, 1))
    with pytest.raises(ValueError, match="twice"):
        extract_cells(cells, values)
    with pytest.raises(ValueError, match="not finite"):
        extract_cells(cells[:1], np.array([[1.0, np.nan, *[-1.0] * 6]]))
    with pytest.raises(ValueError, match="block origins"):
        extract_cells(cells, values[:1])
    with pytest.raises(ValueError, match="block origins"):
        extract_blocks(cells, np.zeros((2, 3, 4, 3)))
    with pytest.raises(ValueError, match="not among"):
        index_faces(np.array([1, 2, 4]), np.array([[1, 2, 3]]))
