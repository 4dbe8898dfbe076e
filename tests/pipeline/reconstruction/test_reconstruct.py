"""A scan to a mesh, through the real stages on a real Ray."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
import trimesh
from scipy.spatial import cKDTree

from pipeline import reconstruct
from pipeline.errors import RunDirectoryError
from pipeline.reconstruction import ReconstructConfig
from pipeline.reconstruction.manifest import read_manifest, write_manifest
from pipeline.reconstruction.store import RunStore
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.meshes.checks import check_mesh
from preprocessing.meshes.files import read_mesh
from preprocessing.metrics import nearest_on_surface
from preprocessing.occupancy_labels import Solid
from preprocessing.scan_files import write_scan_ply
from tests.references.solid_scene import scan_points

pytestmark = pytest.mark.usefixtures("ray_here")
VOXEL = 0.125


def config(tile: int = 112) -> ReconstructConfig:
    return ReconstructConfig(voxel_size=VOXEL, max_tile_voxels=tile)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory, scene_points: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("scan") / "scene.ply"
    write_scan_ply(path, scene_points)
    return path


@pytest.fixture(scope="module")
def run(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    reconstruct(scan, out, config(), show_progress=False)
    return out


def test_the_mesh_is_watertight_oriented_outwards_and_near_the_scan(
    run: Path, scene_points: np.ndarray
) -> None:
    mesh = read_mesh(run / "mesh.ply")
    assert check_mesh(mesh.vertices, mesh.faces).is_clean
    loaded = trimesh.load(run / "mesh.ply", process=False)
    assert loaded.is_watertight
    assert loaded.is_winding_consistent
    assert loaded.volume > 0
    report = json.loads((run / "report.json").read_text())
    assert report["is_watertight"] is True
    assert (report["vertices"], report["faces"]) == (len(mesh.vertices), len(mesh.faces))
    distance, _ = nearest_on_surface(mesh.vertices, mesh.faces, scene_points)
    assert np.quantile(distance, 0.9) < VOXEL
    inside = Solid(mesh.vertices, mesh.faces).occupancy(np.array([[3.0, 2.5, 0.25], [1.2, 4.5, 3.5]]))
    assert inside.tolist() == [True, False]  # in the floor slab; in the open
    drawn = o3d.io.read_triangle_mesh(str(run / "mesh.ply"))
    stored, faces = np.asarray(drawn.vertex_normals), mesh.vertices[mesh.faces]
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
    normals = np.cross(faces[:, 1] - faces[:, 0], faces[:, 2] - faces[:, 0])
    assert ((normals * stored[mesh.faces[:, 0]]).sum(axis=1) > 0).mean() > 0.98


def test_27_tiles_give_the_surface_of_one(run: Path, scan: Path, tmp_path: Path) -> None:
    report = reconstruct(scan, tmp_path / "tiled", config(tile=24), show_progress=False)
    plan = json.loads((tmp_path / "tiled" / "manifest.json").read_text())["plans"][0]
    assert np.prod(plan["grid"]) >= 27
    assert report.is_watertight
    assert (report.open_edges, report.bad_edges) == (0, 0)
    one, many = read_mesh(run / "mesh.ply"), read_mesh(tmp_path / "tiled" / "mesh.ply")
    for start, end in ((one, many), (many, one)):
        distance, _ = cKDTree(start.vertices).query(end.vertices)
        surface, _ = nearest_on_surface(start.vertices, start.faces, end.vertices)
        assert np.quantile(np.minimum(distance, surface), 0.99) < 0.25 * report.spacing


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_every_mesh_format_holds_the_same_surface(suffix: str, run: Path, scan: Path) -> None:
    target = run.parent / f"mesh{suffix}"
    report = reconstruct(scan, run, config(), mesh=target, show_progress=False)
    assert report.tiles_computed == 0
    loaded = trimesh.load(target, force="mesh", process=suffix == ".stl")
    truth = read_mesh(run / "mesh.ply")
    assert len(loaded.faces) == len(truth.faces)
    if suffix == ".glb":  # y is up there: turn it back
        loaded.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    assert loaded.volume == pytest.approx(trimesh.load(run / "mesh.ply", process=False).volume, rel=1e-4)


def test_five_thousand_kilometers_away_the_mesh_is_the_same(
    run: Path, scene_points: np.ndarray, tmp_path: Path
) -> None:
    offset = np.array([5_000_000.0, 4_000_000.0, 100.0])  # whole voxels, so that the lattices coincide
    write_scan_ply(tmp_path / "far.ply", scene_points + offset)
    reconstruct(tmp_path / "far.ply", tmp_path / "run", config(), show_progress=False)
    here, there = read_mesh(run / "mesh.ply"), read_mesh(tmp_path / "run" / "mesh.ply")
    back = there.vertices - offset
    distance, _ = cKDTree(here.vertices).query(back)
    assert np.quantile(distance, 0.999) < 1e-3
    assert check_mesh(there.vertices, there.faces).is_clean


def test_colors_come_from_the_nearest_points(scene_points: np.ndarray, tmp_path: Path) -> None:
    colors = np.zeros((len(scene_points), 3), np.uint8)
    colors[scene_points[:, 0] < 3] = (255, 0, 0)
    colors[scene_points[:, 0] >= 3] = (0, 0, 255)
    write_scan_ply(tmp_path / "c.ply", scene_points, colors=colors)
    reconstruct(tmp_path / "c.ply", tmp_path / "run", config(tile=32), show_progress=False)
    mesh = read_mesh(tmp_path / "run" / "mesh.ply")
    assert mesh.colors is not None
    left, right = mesh.vertices[:, 0] < 2.8, mesh.vertices[:, 0] > 3.2
    assert (mesh.colors[left] == (255, 0, 0)).all(axis=1).mean() > 0.99
    assert (mesh.colors[right] == (0, 0, 255)).all(axis=1).mean() > 0.99


def test_a_run_of_another_setting_is_refused(run: Path, scan: Path) -> None:
    other = ReconstructConfig(voxel_size=0.2)
    with pytest.raises(RunDirectoryError, match="another scan, model or setting"):
        reconstruct(scan, run, other, show_progress=False)


def test_a_run_that_another_version_has_begun_is_refused_unless_all_is_there(
    run: Path, scan: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    store = RunStore(str(tmp_path / "run"))
    write_manifest(store, replace(read_manifest(store), software="0.0.1"))
    reconstruct(scan, tmp_path / "run", config(), show_progress=False)
    assert (tmp_path / "run" / "mesh.ply").read_bytes() == (run / "mesh.ply").read_bytes()
    next((tmp_path / "run" / "tiles").glob("*.vertices.parquet")).unlink()
    with pytest.raises(RunDirectoryError, match=r"was begun by tessera 0\.0\.1, and this is .*another --out"):
        reconstruct(scan, tmp_path / "run", config(), show_progress=False)


def test_the_voxel_size_follows_the_spacing(tmp_path: Path) -> None:
    write_scan_ply(tmp_path / "s.ply", scan_points(seed=1, count=8_000))
    report = reconstruct(tmp_path / "s.ply", tmp_path / "run", ReconstructConfig(), show_progress=False)
    area = 2 * (6 * 5 + 5.5 * 0.5 * 2) + 2 * (5 * 4 + 0.6 * 4 + 3) + 30  # about 150 m2
    expected = 1.8 * np.sqrt(area / 8_000)
    assert report.voxel_size == pytest.approx(expected, rel=0.25)
    assert RunStore(str(tmp_path / "run")).names("fields") == []
