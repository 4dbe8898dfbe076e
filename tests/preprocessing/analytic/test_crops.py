"""Analytic training crops: decided by (seed, step, rank), labeled by the rule, made by numpy alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from preprocessing.analytic import AnalyticConfig, AnalyticCrops
from preprocessing.analytic.scenes import FAMILIES, Seen, random_scene, sheets
from preprocessing.batches.seen_labels import SHEET_VOXELS, SeenVoxels

ROOT = Path(__file__).resolve().parents[3]
SMALL = AnalyticConfig(grid=32, queries=1024, dense_points=4_000)


def test_a_batch_depends_on_seed_step_and_rank_alone() -> None:
    one, other = AnalyticCrops(SMALL, seed=4), AnalyticCrops(SMALL, seed=4)
    one.batch(0, 2)
    first, again = one.batch(7, 2, rank=1), other.batch(7, 2, rank=1)
    for name in ("points", "directions", "sheets", "queries", "distances"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert not np.array_equal(first.queries[:99], other.batch(8, 2, rank=1).queries[:99])
    assert not np.array_equal(first.queries[:99], other.batch(7, 2, rank=0).queries[:99])


def test_crops_are_sound() -> None:
    source = AnalyticCrops(SMALL, seed=1)
    for step in range(10):
        batch = source.batch(step, 2)
        assert ((batch.points >= 0) & (batch.points < 32)).all()
        assert ((batch.queries > 0) & (batch.queries < 32)).all()
        assert np.isfinite(batch.distances).all()
        lengths = np.linalg.norm(batch.directions, axis=1)
        assert (np.isclose(lengths, 1, atol=1e-4) | (lengths == 0)).all()
        assert ((batch.sheets > 0) & (batch.sheets <= SHEET_VOXELS)).all()


@pytest.mark.parametrize("seed", range(6))
def test_labels_of_scenes_follow_the_rule(seed: int) -> None:
    """Seen from all sides all is solid; from one side the solid ends after the thickness of a sheet."""
    rng = np.random.default_rng(seed)
    queries = rng.uniform(-16, 16, (4_000, 3)).astype(np.float32)
    scene = sheets(np.random.default_rng(seed))
    depth = -scene.solid.distance(queries)
    labeled = scene.label.distance(queries) < 0
    assert not labeled[depth < 0].any()
    plain = ~np.asarray([depth > 0]).ravel() | (depth > 0)
    deep = plain & (depth > scene.sheet + 9)  # below whatever stands on it, too
    assert not labeled[deep].any()
    everywhere = random_scene(np.random.default_rng(seed + 100))
    if everywhere.seen is Seen.ALL:
        np.testing.assert_array_equal(
            everywhere.label.distance(queries) < 0, everywhere.solid.distance(queries) < 0
        )


def test_every_family_makes_scenes_and_the_shares_add_up() -> None:
    assert sum(share for share, _ in FAMILIES) == pytest.approx(1)
    for _, family in FAMILIES:
        scene = family(np.random.default_rng(2))
        assert np.isfinite(scene.label.distance(np.zeros((5, 3), np.float32))).all()


def test_what_no_point_is_near_is_free_and_what_one_is_near_keeps_its_distance() -> None:
    points = np.array([[8.5, 8.5, 8.5]], np.float32)
    seen = SeenVoxels.of_points(points, 24)
    queries = np.array(
        [[8.5, 8.5, 7.0], [8.5, 8.5, 5.6], [8.5, 8.5, 1.0], [20, 20, 20], [8, 8, 4.0]], np.float32
    )
    labels, certain = seen.labels(queries, np.array([-1.5, -2.9, -7.0, 5.0, -4.5], np.float32))
    assert labels[:2].tolist() == pytest.approx([-1.5, -2.9])
    assert labels[2] > SHEET_VOXELS
    assert labels[3] >= 5.0
    assert certain.tolist() == [True, True, True, True, False]


def test_crops_are_made_without_ray_zarr_open3d_or_scipy() -> None:
    program = (
        "import sys\n"
        "for name in ('ray', 'zarr', 'pyarrow', 'open3d', 'scipy', 'torch', 'pipeline'): sys.modules[name] = None\n"
        "from preprocessing.analytic import AnalyticConfig, AnalyticCrops\n"
        "AnalyticCrops(AnalyticConfig(grid=24, queries=64, dense_points=500), 0).batch(0, 1)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)
