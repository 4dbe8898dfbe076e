"""Moving bodies against meshes of them, finite differences, integrated curves and rigid fits."""

import pickle

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sampled_from
from scipy.integrate import solve_ivp
from scipy.ndimage import label

from preprocessing.native import load_open3d
from preprocessing.occupancy_labels import label_mesh
from preprocessing.procedural.body_designs import DESIGNS
from preprocessing.procedural.body_motions import Bend, Bulge, Placement, Superellipsoid, Swell, Swing, Twist
from preprocessing.procedural.moving_bodies import KINDS, BodyPart, MovingBody, moving_body

TIMES = np.linspace(0, 1, 5)
SOLID_KINDS = ("bending", "twisting", "deforming")
# A chain, a figure with a head, one with two-link limbs: 3 to 6 parts.
CASES = [("articulated", seed) for seed in (2, 4, 5)] + [
    (kind, seed) for kind in SOLID_KINDS for seed in (1, 2)
]
MOTIONS = {
    "swell": Swell(
        Swing(1.1, 0.2, 0.7, 0.1),
        (
            Bulge(Swing(0.0, 0.3, 0.8), 0.15, Swing(1.2, 0.4, 1.0)),
            Bulge(Swing(-0.2), 0.2, Swing(-0.3)),
        ),
    ),
    "twist": Twist(Swing(0.3, 3.0, 0.6, 0.2)),
    "bend": Bend(Swing(0.2, 2.0, 0.5, 0.9)),
    "bend through straight": Bend(Swing(0.0, 2.0, 0.5)),
    "placement": Placement(
        (1.0, 2.0, -0.5), Swing(0.4, 1.0, 0.8), (Swing(0.1, 0.3, 0.7), Swing(), Swing(2.0))
    ),
}


def finite_differences(function, points, step=1e-6):
    """(N, 3, 3) central differences of a map of points (N, 3)."""
    columns = [
        (function(points + step * axis) - function(points - step * axis)) / (2 * step) for axis in np.eye(3)
    ]
    return np.stack(columns, axis=2)


def points_in_box(count, seed=0):
    return np.random.default_rng(seed).uniform((-0.25, -0.4, -0.6), (0.25, 0.4, 0.6), (count, 3))


def carried_by(body, points, time):
    """Where the matter at points (N, 3) at time 0 is: each goes with the part that it is deepest in, or nearest to."""
    owner = np.argmin([part.gauge(points, 0.0) for part in body.parts], axis=0)
    carried = np.empty_like(points)
    for number, part in enumerate(body.parts):
        rows = owner == number
        carried[rows] = part.forward(part.inverse(points[rows], 0.0), time)
    return carried


def part_meshes(body, time, subdivisions=5):
    """Each part's surface carried to a time, as (vertices, faces)."""
    sphere = trimesh.creation.icosphere(subdivisions)
    meshes = []
    for part in body.parts:
        # Rest points by scaling directions until the gauge, whose degree is 1, is 1.
        rest = sphere.vertices * part.shape.axes
        rest = rest / part.shape.gauge(rest)[:, None]
        meshes.append((part.forward(rest, time), sphere.faces))
    return meshes


def distance_to(meshes, queries):
    """Unsigned distance to the nearest of the faces."""
    o3d = load_open3d()
    scene = o3d.t.geometry.RaycastingScene()
    for vertices, faces in meshes:
        scene.add_triangles(
            o3d.core.Tensor(vertices.astype(np.float32)), o3d.core.Tensor(faces.astype(np.uint32))
        )
    return scene.compute_distance(o3d.core.Tensor(queries.astype(np.float32))).numpy()


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("time", [0.0, 0.37, 1.0])
def test_a_motion_is_undone_by_its_inverse(name, time):
    motion, points = MOTIONS[name], points_in_box(2000)
    assert np.allclose(motion.inverse(motion.forward(points, time), time), points, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", MOTIONS)
@pytest.mark.parametrize("time", [0.0, 0.37, 1.0])
def test_a_jacobian_equals_finite_differences(name, time):
    motion, points = MOTIONS[name], points_in_box(500)
    truth = finite_differences(lambda moved: motion.forward(moved, time), points)
    assert np.allclose(motion.jacobian(points, time), truth, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["swell", "twist", "placement"])
def test_swelling_twisting_and_placing_keep_the_volume_of_every_piece(name):
    determinants = np.linalg.det(MOTIONS[name].jacobian(points_in_box(500), 0.6))
    assert np.allclose(determinants, 1, rtol=0, atol=1e-13)


def test_a_bent_axis_is_the_integral_of_its_direction():
    curvature = 1.7
    heights = np.linspace(0, 0.7, 15)

    def slope(_, state):
        return [np.sin(state[2]), np.cos(state[2]), curvature]

    curve = solve_ivp(slope, (0, 0.7), [0, 0, 0], t_eval=heights, rtol=1e-11, atol=1e-12).y
    axis = np.stack([np.zeros(15), np.zeros(15), heights], axis=1)
    bent = Bend(Swing(curvature)).forward(axis, 0.0)
    assert np.allclose(bent[:, [0, 2]].T, curve[:2], rtol=0, atol=1e-9)
    # Sections stay rigid and across the axis.
    aside = Bend(Swing(curvature)).forward(axis + np.array([0.2, 0.1, 0.0]), 0.0) - bent
    across = np.stack([np.cos(curve[2]), np.zeros(15), -np.sin(curve[2])], axis=1)
    assert np.allclose(aside, 0.2 * across + (0, 0.1, 0), rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(curvature=floats(-3e-6, 3e-6), z=floats(-1, 1), x=floats(-0.3, 0.3))
def test_bending_loses_nothing_as_the_axis_becomes_straight(curvature, z, x):
    bend, point = Bend(Swing(curvature)), np.array([[x, 0.1, z]])
    moved = bend.forward(point, 0.0)
    assert np.abs(moved - point).max() <= 2 * abs(curvature)
    assert np.allclose(bend.inverse(moved, 0.0), point, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_points_lie_on_the_surface_and_normals_point_out_of_it(kind, seed):
    body = moving_body(seed, kind)
    points, normals = body.surface(1500, TIMES, np.random.default_rng(0))
    assert points.shape == normals.shape == (5, 1500, 3)
    assert np.allclose(np.linalg.norm(normals, axis=2), 1, rtol=0, atol=1e-12)
    for time, place, normal in zip(TIMES, points, normals, strict=True):
        assert body.occupancy(place - 1e-6 * normal, time).all()
        # Just outside, a point may be in another part only where two parts meet.
        outside = ~body.occupancy(place + 1e-6 * normal, time)
        assert outside.all() if len(body.parts) == 1 else outside.mean() > 0.999


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_normals_equal_the_gradient_of_the_gauge(kind, seed):
    body = moving_body(seed, kind)
    points, normals = body.surface(300, TIMES, np.random.default_rng(1))
    for time, place, normal in zip(TIMES, points, normals, strict=True):
        gauges = np.stack([part.gauge(place, time) for part in body.parts])
        owner = np.abs(gauges - 1).argmin(axis=0)
        for number, part in enumerate(body.parts):
            mine = place[owner == number]
            steps = 1e-6 * np.eye(3)
            slope = np.stack([part.gauge(mine + s, time) - part.gauge(mine - s, time) for s in steps], axis=1)
            slope /= np.linalg.norm(slope, axis=1, keepdims=True)
            assert np.allclose(normal[owner == number], slope, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_carrying_the_surface_of_time_0_gives_the_surface_of_every_time(kind, seed):
    body = moving_body(seed, kind)
    points, _ = body.surface(1000, TIMES, np.random.default_rng(2))
    for time, place in zip(TIMES, points, strict=True):
        assert np.allclose(carried_by(body, points[0], time), place, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_matter_inside_stays_inside(kind, seed):
    body = moving_body(seed, kind)
    queries = np.random.default_rng(3).uniform(*body.bounds(TIMES[:1]), (4000, 3))
    inside = body.occupancy(queries, 0.0)
    for time in TIMES:
        carried = carried_by(body, queries[inside], time)
        assert body.occupancy(carried, time).all()
        if len(body.parts) == 1:  # with one part space is carried as a whole
            near = body.parts[0].gauge(queries, 0.0) < 1.1
            assert not body.occupancy(carried_by(body, queries[near & ~inside], time), time).any()


@pytest.mark.parametrize(("kind", "seed"), CASES)
def test_occupancy_equals_that_of_a_fine_mesh(kind, seed):
    body = moving_body(seed, kind)
    rng = np.random.default_rng(4)
    for time in (0.0, 0.6):
        meshes = part_meshes(body, time)
        low, high = body.bounds(np.array([time]))
        near = np.concatenate([vertices for vertices, _ in meshes])
        near = rng.choice(near, 5000) + rng.normal(scale=0.01, size=(5000, 3))
        queries = np.concatenate([rng.uniform(low - 0.1, high + 0.1, (5000, 3)), near])
        truth = np.any([label_mesh(*mesh, queries) for mesh in meshes], axis=0)
        clear = distance_to(meshes, queries) > 1e-3
        assert clear.mean() > 0.9 and 0.05 < truth.mean() < 0.95
        assert (body.occupancy(queries, time) == truth)[clear].mean() >= 0.999


@pytest.mark.parametrize("kind", SOLID_KINDS)
def test_a_single_solid_keeps_its_volume(kind):
    for seed in (1, 2, 3):
        body = moving_body(seed, kind)
        volumes = [trimesh.Trimesh(*part_meshes(body, time)[0], process=False).volume for time in TIMES]
        assert np.allclose(volumes, volumes[0], rtol=1e-3)
        assert np.ptp(volumes) > 0  # the mesh did move


def test_links_are_rigid():
    body = moving_body(2, "articulated")
    points, _ = body.surface(600, TIMES, np.random.default_rng(5))
    owner = np.abs([part.gauge(points[0], 0.0) - 1 for part in body.parts]).argmin(axis=0)
    apart = 0.0
    for number in range(len(body.parts)):
        mine = points[:, owner == number]
        gaps = np.linalg.norm(mine - mine[:, :1], axis=2)
        assert np.allclose(gaps, gaps[0], rtol=0, atol=1e-12)
        rest = points[:, owner != number] - points[:, owner == number][:, :1]
        apart = max(apart, np.ptp(np.linalg.norm(rest, axis=2), axis=0).max())
    assert apart > 0.1


@pytest.mark.parametrize("seed", range(8))
def test_an_articulated_body_hangs_together(seed):
    body = moving_body(seed, "articulated")
    assert 3 <= len(body.parts) <= 6
    for time in (0.0, 0.5, 1.0):
        low, high = body.bounds(np.array([time]))
        axes = [np.arange(a, b, 0.025) for a, b in zip(low, high, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        inside = body.occupancy(grid.reshape(-1, 3), time).reshape(grid.shape[:3])
        assert label(inside)[1] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_points_are_uniform_by_area_at_time_0(kind):
    body = moving_body(4, kind)
    points, _ = body.surface(40_000, TIMES[:1], np.random.default_rng(6))
    # Expected shares: the exposed faces of a fine mesh, binned as the points are.
    corners = np.concatenate(
        [vertices[faces] for vertices, faces in part_meshes(body, 0.0, 5 if len(body.parts) > 1 else 6)]
    )
    part = np.repeat(np.arange(len(body.parts)), len(corners) // len(body.parts))
    area = 0.5 * np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )
    centers = corners.mean(axis=1)
    for number, other in enumerate(body.parts):
        area[(part != number) & (other.gauge(centers, 0.0) < 1)] = 0
    _, rotation = np.linalg.eigh(np.cov(points[0].T))
    cells = [(np.floor(place @ rotation / 0.12) @ (1, 1000, 1_000_000)) for place in (points[0], centers)]
    names = np.unique(np.concatenate(cells))
    found = np.bincount(np.searchsorted(names, cells[0]), minlength=len(names))
    expected = np.bincount(np.searchsorted(names, cells[1]), area, minlength=len(names))
    expected *= len(points[0]) / expected.sum()
    large = expected > 50
    assert large.sum() >= 20 and expected[large].sum() > 0.9 * len(points[0])
    chi2 = ((found - expected)[large] ** 2 / expected[large]).sum()
    # 4 standard deviations, and what the mesh's faces blur at the edges of cells.
    assert chi2 < 1.15 * large.sum() + 4 * np.sqrt(2 * large.sum())


def test_matter_that_is_ever_buried_is_not_drawn():
    body = moving_body(5, "articulated")
    points, normals = body.surface(3000, TIMES, np.random.default_rng(7))
    for time, place, normal in zip(TIMES, points, normals, strict=True):
        assert (np.sum([part.gauge(place, time) < 1 - 1e-9 for part in body.parts], axis=0) == 0).all()
        assert body.occupancy(place - 1e-6 * normal, time).all()
    # Something is hidden at some time that shows at time 0.
    first, _ = body.surface(3000, TIMES[:1], np.random.default_rng(7))
    hidden = [
        np.sum([part.gauge(carried_by(body, first[0], time), time) < 1 - 1e-9 for part in body.parts], axis=0)
        > 0
        for time in TIMES
    ]
    assert not hidden[0].any() and np.any(hidden)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(seed=integers(0, 2**40), kind=sampled_from(KINDS))
def test_any_body_moves_visibly_and_changes_shape(seed, kind):
    body = moving_body(seed, kind)
    low, high = body.bounds(TIMES[:1])
    size = (high - low).max()
    assert 0.45 < size < 2.05
    points, _ = body.surface(400, TIMES, np.random.default_rng(0))
    assert np.linalg.norm(points - points[0], axis=2).mean(axis=1).max() > 0.05 * size
    # What the best rigid motion leaves (Kabsch).
    left = []
    first = points[0] - points[0].mean(axis=0)
    for place in points - points.mean(axis=1, keepdims=True):
        u, _, v = np.linalg.svd(first.T @ place)
        rotation = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
        left.append(np.linalg.norm(first @ rotation - place, axis=1).mean())
    assert max(left) > 0.01 * size


@pytest.mark.parametrize("kind", KINDS)
def test_motion_is_smooth(kind):
    body = moving_body(3, kind)
    times = np.linspace(0, 1, 201)
    points, _ = body.surface(50, times, np.random.default_rng(0))
    speed = np.linalg.norm(np.diff(points, axis=0), axis=2) * 200
    change = np.linalg.norm(np.diff(points, 2, axis=0), axis=2) * 200
    assert speed.max() < 30  # meters in the whole time: nothing jumps
    assert change.max() < 0.1 * speed.max()  # nor does a velocity


@pytest.mark.parametrize("kind", KINDS)
def test_bounds_hold_the_body_tightly(kind):
    for seed in (1, 2):
        body = moving_body(seed, kind)
        low, high = body.bounds(TIMES)
        seen = np.concatenate([v for time in TIMES for v, _ in part_meshes(body, time, 6)])
        slack = np.concatenate([seen.min(axis=0) - low, high - seen.max(axis=0)]) / (high - low).max()
        assert slack.min() > 0 and slack.max() < 0.01


@pytest.mark.parametrize("kind", [*KINDS, None])
def test_the_same_seed_gives_the_same_bytes(kind):
    first, second = moving_body(11, kind), moving_body(11, kind)
    assert first == second and pickle.dumps(first) == pickle.dumps(second)
    assert first == moving_body(11, first.kind)
    runs = [
        body.surface(200, TIMES, np.random.default_rng(1))
        for body in (first, pickle.loads(pickle.dumps(second)))
    ]
    assert runs[0][0].tobytes() == runs[1][0].tobytes() and runs[0][1].tobytes() == runs[1][1].tobytes()
    assert first.parts != moving_body(12, first.kind).parts


def test_seeds_draw_every_kind():
    assert {moving_body(seed).kind for seed in range(30)} == set(KINDS) == set(DESIGNS)


def test_a_body_that_folds_is_refused():
    shape = Superellipsoid((0.2, 0.3, 0.7))
    with pytest.raises(ValueError, match="folds"):
        MovingBody("bending", 0, (BodyPart(shape, (Bend(Swing(5.5)),)),))  # the arc's center is inside
    with pytest.raises(ValueError, match="folds"):
        MovingBody(
            "bending", 0, (BodyPart(Superellipsoid((0.05, 0.05, 0.7)), (Bend(Swing(0.0, 5.0, 0.25)),)),)
        )
    with pytest.raises(ValueError, match="folds"):
        swell = Swell(Swing(1.0), (Bulge(Swing(), 0.1, Swing(-1.2)),))
        MovingBody("deforming", 0, (BodyPart(shape, (swell,)),))


def test_wrong_arguments_are_refused():
    body = moving_body(0, "bending")
    rng = np.random.default_rng(0)
    for times in ([], [0.5, 1.2], [np.nan], [[0.0]]):
        with pytest.raises(ValueError, match="time"):
            body.surface(10, np.array(times), rng)
    with pytest.raises(ValueError, match="time"):
        body.occupancy(np.zeros((1, 3)), -0.1)
    with pytest.raises(ValueError, match="kind"):
        moving_body(0, "dancing")
    with pytest.raises(ValueError, match="seed"):
        moving_body(-1)
    with pytest.raises(ValueError, match="axes"):
        Superellipsoid((0.1, 0.0, 0.2))
    assert body.surface(0, TIMES, rng)[0].shape == (5, 0, 3)
    assert body.occupancy(np.empty((0, 3)), 0.5).shape == (0,)
