"""Closed objects are closed solids at any size; what no point supports can be left out; crumbs are counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline import reconstruct
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.parts import PartSums, join_parts
from preprocessing.meshes.files import read_mesh

RNG = np.random.default_rng(11)


def unit_directions(count: int) -> np.ndarray:
    directions = RNG.standard_normal((count, 3))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def box_surface(count: int, sides: np.ndarray) -> np.ndarray:
    mesh = trimesh.creation.box(sides)
    return np.asarray(trimesh.sample.sample_surface(mesh, count, seed=1)[0])


def closed_mesh(path: Path | str) -> trimesh.Trimesh:
    found = read_mesh(Path(path))
    return trimesh.Trimesh(found.vertices, found.faces, process=False)


def test_a_box_seen_from_all_sides_is_one_solid_at_the_default_voxel(tmp_path: Path) -> None:
    sides = np.array([1.0, 0.6, 0.4])
    np.save(tmp_path / "box.npy", box_surface(30_000, sides))
    report = reconstruct(tmp_path / "box.npy", tmp_path / "run", show_progress=False)
    mesh = closed_mesh(report.mesh)
    assert report.is_watertight
    assert report.parts == 1
    assert mesh.volume == pytest.approx(sides.prod(), rel=0.03)
    queries = RNG.uniform(-0.6, 0.6, (4_000, 3))
    exact = (np.abs(queries) < sides / 2).all(axis=1)
    found = mesh.contains(queries)
    assert (exact & found).sum() / (exact | found).sum() > 0.95


def test_a_ball_larger_than_the_networks_sight_is_solid(tmp_path: Path) -> None:
    """60,000 points: 48 voxels across, where the network sees 20 far."""
    np.save(tmp_path / "ball.npy", unit_directions(60_000))
    report = reconstruct(tmp_path / "ball.npy", tmp_path / "run", show_progress=False)
    mesh = closed_mesh(report.mesh)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    assert report.parts == 1
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert np.sqrt(((radii - 1) ** 2).mean()) < 0.1 * report.voxel_size


def test_the_observed_surface_is_where_the_points_are_and_comes_from_the_same_run(tmp_path: Path) -> None:
    """A sheet seen from above: its other side is a guess."""
    flat = RNG.uniform(0, 3, (20_000, 3)) * [1, 1, 0]
    np.save(tmp_path / "sheet.npy", flat + RNG.normal(0, 0.002, flat.shape))
    config = ReconstructConfig(max_tile_voxels=32)
    closed = reconstruct(tmp_path / "sheet.npy", tmp_path / "run", config, show_progress=False)
    observed = reconstruct(
        tmp_path / "sheet.npy",
        tmp_path / "run",
        config,
        mesh=tmp_path / "observed.ply",
        show_progress=False,
        surface="observed",
    )
    assert closed.is_watertight
    assert observed.tiles_computed == 0
    assert not observed.is_watertight
    assert observed.open_edges > 0
    assert observed.bad_edges == 0
    mesh = closed_mesh(tmp_path / "observed.ply")
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)  # no vertex without a face
    assert mesh.is_winding_consistent
    assert np.abs(mesh.vertices[:, 2]).max() < 1.5 * closed.voxel_size + 0.01  # what the noise adds
    assert np.median(np.abs(mesh.vertices[:, 2])) < 0.05 * closed.voxel_size
    # The sheet's upper side, and around it the rim and its narrow side, each up to 1.5 voxels wide.
    assert 9 < mesh.area < 9 + 12 * 2 * 1.5 * closed.voxel_size
    assert closed.observed_area == pytest.approx(mesh.area, rel=0.02)
    assert closed.guessed_area > 0.5 * closed.observed_area
    plain = trimesh.load(closed.mesh, process=False)
    confidence = plain.metadata["_ply_raw"]["vertex"]["data"]["confidence"]
    near = np.abs(plain.vertices[:, 2]) < 0.2 * closed.voxel_size
    assert confidence[near].mean() > 0.7
    assert confidence[~near].mean() < confidence[near].mean() - 0.3
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    assert stored["guessed_area"] == closed.guessed_area


def test_floating_crumbs_are_left_out_and_counted_and_can_be_kept(tmp_path: Path) -> None:
    """A ball, and a handful of points far beside it."""
    crumb = np.array([3.0, 0, 0]) + RNG.normal(0, 0.03, (40, 3))
    np.save(tmp_path / "scan.npy", np.concatenate([unit_directions(20_000), crumb]))
    config = ReconstructConfig(voxel_size=0.1)
    cleaned = reconstruct(tmp_path / "scan.npy", tmp_path / "run", config, show_progress=False)
    kept = reconstruct(
        tmp_path / "scan.npy",
        tmp_path / "run",
        config,
        mesh=tmp_path / "kept.ply",
        show_progress=False,
        keep_parts=True,
    )
    assert cleaned.parts == 1
    assert cleaned.removed_parts >= 1
    assert kept.parts == cleaned.parts + cleaned.removed_parts
    assert closed_mesh(cleaned.mesh).bounds[1, 0] < 1.3
    assert closed_mesh(tmp_path / "kept.ply").bounds[1, 0] > 2.5
    assert kept.is_watertight
    assert cleaned.is_watertight


def test_parts_are_joined_across_tiles_and_the_largest_is_never_left_out() -> None:
    def tile(voxels: list[int]) -> PartSums:
        count = len(voxels)
        return PartSums(voxels, [7] * count, [4] * count, [1.0] * count, [0.5] * count)

    parts = [tile([10, 3]), tile([9, 2]), tile([1])]
    same = [((0, 0), (1, 0)), ((1, 1), (2, 0))]  # 10 + 9, 3, 2 + 1
    joined = join_parts([0, 1, 2], parts, same, fewest_voxels=4)
    assert {number: kept.tolist() for number, kept in joined.is_kept.items()} == {
        0: [True, False],
        1: [True, False],
        2: [False],
    }
    assert (joined.count, joined.removed) == (1, 2)
    assert (joined.observed_area, joined.guessed_area) == (2.0, 1.0)
    assert (joined.observed_faces, joined.guessed_faces) == (14, 8)
    assert join_parts([0, 1, 2], parts, same, fewest_voxels=100).count == 1
