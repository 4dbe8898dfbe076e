"""Metrics against closed forms and brute force."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocessing.errors import MeshError
from preprocessing.metrics import evaluate_mesh, occupancy_iou
from preprocessing.occupancy_labels import Solid

INNER, OUTER = trimesh.creation.icosphere(5, 1.0), trimesh.creation.icosphere(5, 1.1)
SAMPLES = 30_000


def arrays(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def measure(mesh: trimesh.Trimesh, reference: trimesh.Trimesh, **options: object) -> object:
    return evaluate_mesh(
        *arrays(mesh), *arrays(reference), sample_count=SAMPLES, volume_queries=SAMPLES, **options
    )  # type: ignore[arg-type]


def test_concentric_spheres() -> None:
    metrics = measure(INNER, OUTER, thresholds_m=(0.05, 0.2))
    assert metrics.iou == pytest.approx((1 / 1.1) ** 3, abs=4 * metrics.iou_standard_error)
    assert metrics.accuracy == pytest.approx(0.1, abs=1e-3)
    assert metrics.completeness == pytest.approx(0.1, abs=1e-3)
    assert metrics.chamfer_l1 == pytest.approx(0.1, abs=1e-3)
    assert metrics.normal_consistency == pytest.approx(1, abs=2e-3)
    assert [score.f_score for score in metrics.thresholds[1:]] == [0.0, 1.0]
    assert metrics.thresholds[0].threshold_m == pytest.approx(0.01 * 2.2, rel=1e-3)


def test_a_shifted_box() -> None:
    box, moved = trimesh.creation.box(), trimesh.creation.box()
    moved.apply_translation([0.25, 0, 0])
    metrics = measure(box, moved)
    assert metrics.iou == pytest.approx(0.75 / 1.25, abs=4 * metrics.iou_standard_error)


def test_flipped_faces_keep_the_consistency_and_negate_the_signed_one() -> None:
    flipped = INNER.copy()
    flipped.invert()
    metrics = measure(flipped, INNER)
    assert metrics.normal_consistency == pytest.approx(1, abs=2e-3)
    assert metrics.normal_consistency_signed == pytest.approx(-1, abs=2e-3)


def test_the_consistency_does_not_let_opposite_faces_cancel() -> None:
    left, right = INNER.copy(), INNER.copy()
    right.invert()
    right.apply_translation([3, 0, 0])
    truth = INNER.copy()
    truth.apply_translation([3, 0, 0])
    metrics = measure(left + right, INNER + truth)
    assert metrics.normal_consistency == pytest.approx(1, abs=2e-3)
    assert metrics.normal_consistency_signed == pytest.approx(0, abs=0.05)


def test_half_of_a_surface_is_precise_and_of_half_the_recall() -> None:
    half = INNER.submesh([INNER.triangles_center[:, 2] > 0], append=True)
    score = measure(half, INNER).thresholds[0]
    assert score.precision == 1
    # A band of 2% of the radius beside the half is near enough.
    assert score.recall == pytest.approx(0.5 + 0.02 / 2, abs=0.01)
    assert score.f_score == pytest.approx(2 * score.recall / (1 + score.recall))


def test_overlapping_reference_parts_count_as_their_union() -> None:
    a, b = trimesh.creation.box(), trimesh.creation.box()
    b.apply_translation([0.5, 0.3, 0.2])
    union = trimesh.boolean.union([a, b], engine="manifold")
    metrics = measure(union, trimesh.util.concatenate([a, b]))
    assert metrics.iou > 0.999
    assert metrics.chamfer_l1 < 1e-4  # buried faces would add centimeters
    assert metrics.f_score == 1.0


@settings(max_examples=15, deadline=None)
@given(
    boxes=st.lists(
        st.tuples(st.tuples(*[st.integers(0, 6)] * 3), st.tuples(*[st.integers(1, 4)] * 3)),
        min_size=1,
        max_size=8,
    ),
    seed=st.integers(0, 2**32 - 1),
)
def test_boxes_that_overlap_touch_or_share_planes_are_their_union(boxes: list, seed: int) -> None:
    """Corners on integers make faces coincide, where a ray meets two walls at one distance."""
    lows = np.array([low for low, _ in boxes], np.float64)
    highs = lows + np.array([size for _, size in boxes])
    parts = [trimesh.creation.box(bounds=pair) for pair in zip(lows, highs, strict=True)]
    queries = np.random.default_rng(seed).uniform(-1, 11, (2000, 3))
    # Closer than 1e-4 to a wall single precision may take the other side.
    walls = np.concatenate([lows, highs])
    queries = queries[(np.abs(queries[:, None] - walls) > 1e-4).all(axis=(1, 2))]
    exact = ((queries[:, None] > lows) & (queries[:, None] < highs)).all(axis=2).any(axis=1)
    occupancy = Solid(*arrays(trimesh.util.concatenate(parts))).occupancy(queries)
    np.testing.assert_array_equal(occupancy, exact)


def test_touching_reference_parts_score_as_the_whole() -> None:
    left, right = trimesh.creation.box(), trimesh.creation.box()
    right.apply_translation([1, 0, 0])
    whole = trimesh.creation.box((2, 1, 1))
    whole.apply_translation([0.5, 0, 0])
    metrics = measure(whole, trimesh.util.concatenate([left, right]))
    assert metrics.iou == 1.0
    assert metrics.chamfer_l1 < 1e-6  # the shared wall is not surface


@pytest.mark.parametrize("turned", ["mesh", "reference", "both"])
def test_a_mesh_that_is_inside_out_keeps_its_iou(turned: str) -> None:
    mesh, reference = INNER.copy(), OUTER.copy()
    if turned in ("mesh", "both"):
        mesh.invert()
    if turned in ("reference", "both"):
        reference.invert()
    metrics = measure(mesh, reference)
    assert metrics.iou == pytest.approx((1 / 1.1) ** 3, abs=4 * metrics.iou_standard_error)


def test_f_scores_of_two_hinged_sheets_have_a_closed_form() -> None:
    sheet = trimesh.Trimesh(
        [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False
    )
    tilted = sheet.copy()
    tilted.apply_transform(trimesh.transformations.rotation_matrix(0.3, [0, 1, 0]))
    metrics = measure(tilted, sheet, thresholds_m=(0.05, 0.1, 0.2))
    # They meet along x = 0 at 0.3 rad: a point x along one is x sin 0.3 from the other, its foot at x cos 0.3.
    for score in metrics.thresholds[1:]:
        share = score.threshold_m / np.sin(0.3)
        assert score.precision == pytest.approx(share, abs=4 * np.sqrt(0.25 / SAMPLES))
        assert score.recall == pytest.approx(share, abs=4 * np.sqrt(0.25 / SAMPLES))
        harmonic = 2 * score.precision * score.recall / (score.precision + score.recall)
        assert score.f_score == pytest.approx(harmonic)
    assert metrics.normal_consistency == pytest.approx(np.cos(0.3), abs=1e-5)
    assert metrics.iou is None


def test_a_mesh_without_area_scores_worst_and_an_empty_reference_is_refused() -> None:
    flat = evaluate_mesh(np.zeros((3, 3)), np.array([[0, 1, 2]]), *arrays(INNER))
    assert (flat.iou, flat.f_score, flat.chamfer_l1) == (0.0, 0.0, float("inf"))
    with pytest.raises(MeshError, match="reference has no faces"):
        evaluate_mesh(*arrays(INNER), np.zeros((0, 3)), np.zeros((0, 3), np.int64))


def test_a_shell_turned_inwards_is_a_cavity() -> None:
    cavity = trimesh.creation.icosphere(4, 0.5)
    cavity.invert()
    solid = Solid(*arrays(trimesh.util.concatenate([INNER, cavity])))
    queries = np.array([[0, 0, 0], [0.75, 0, 0], [0, 0.2, -0.2], [2, 0, 0]], np.float64)
    assert solid.occupancy(queries).tolist() == [False, True, False, False]


def test_occupancy_equals_trimeshs_ray_test() -> None:
    torus = trimesh.creation.torus(1.0, 0.4)
    queries = np.random.default_rng(0).uniform(-1.5, 1.5, (4000, 3))
    assert (Solid(*arrays(torus)).occupancy(queries) == torus.contains(queries)).mean() > 0.999


def test_far_from_the_origin_nothing_changes() -> None:
    near = measure(INNER, OUTER)
    a, b = INNER.copy(), OUTER.copy()
    for mesh in (a, b):
        mesh.apply_translation([5_000_000, 4_000_000, 0])
    far = measure(a, b)
    for field in dataclasses.fields(near):
        if field.name not in ("thresholds", "samples"):
            assert getattr(far, field.name) == pytest.approx(getattr(near, field.name), abs=1e-3), field.name


def test_open_meshes_have_no_iou_and_empty_ones_score_worst() -> None:
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    options = {"sample_count": 1000, "volume_queries": 1000}
    assert evaluate_mesh(*arrays(sheet), *arrays(INNER), **options).iou is None
    empty = evaluate_mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), *arrays(INNER))
    assert (empty.iou, empty.f_score, empty.chamfer_l1) == (0.0, 0.0, float("inf"))


def test_the_papers_protocol_against_brute_force() -> None:
    metrics = evaluate_mesh(*arrays(INNER), *arrays(OUTER), sample_count=500, volume_queries=100, seed=3)
    from preprocessing.surface_sampling import sample_surface

    rng = np.random.default_rng(3)
    points, _ = sample_surface(*arrays(INNER), 500, rng)
    truth, _ = sample_surface(*arrays(OUTER), 500, rng)
    distances = np.linalg.norm(points[:, None] - truth[None], axis=2)
    expected = 0.5 * (distances.min(axis=1).mean() + distances.min(axis=0).mean()) / 2.2
    assert metrics.sampled_chamfer_l1_unit == pytest.approx(expected, rel=1e-3)


def test_the_same_seed_gives_the_same_figures() -> None:
    assert measure(INNER, OUTER, seed=5) == measure(INNER, OUTER, seed=5)


def test_iou_of_labels() -> None:
    share, error = occupancy_iou(np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool))
    assert share == pytest.approx(1 / 3)
    assert error > 0
