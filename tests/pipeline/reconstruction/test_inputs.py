"""From users' files to a mesh: several files, notes in the report, the cover of the scan, and what is no success."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.cli import main
from pipeline.errors import NoSurfaceError
from pipeline.reconstruction import ReconstructConfig, reconstruct
from pipeline.reconstruction import coverage as coverage_module
from pipeline.reconstruction.coverage import measure_coverage
from pipeline.reconstruction.ingest import BucketContents, bucket_points
from pipeline.reconstruction.merge import FEWEST_VOXELS, SurfaceChoice, TileReader, write_tile
from pipeline.reconstruction.parts import PartSums, TileParts
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.support import VertexSupport
from pipeline.reconstruction.tile_surface import TileSurface
from pipeline.scan_reading import scan_set
from preprocessing.errors import ScanError
from preprocessing.meshes.files import read_mesh
from preprocessing.scan_files import ScanOptions, write_scan_ply
from tests.references.solid_scene import scan_points

MAP = np.array([694_386.0, 5_155_487.0, 381.0])
QUIET = {"show_progress": False, "device": "cpu", "address": "local"}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scene at map coordinates in two files, one with colors and an empty return."""
    folder = tmp_path_factory.mktemp("parts")
    points = scan_points(seed=5, count=4_000) + MAP
    colors = np.full((2_000, 3), 200, np.uint8)
    write_scan_ply(folder / "a.ply", np.r_[points[:2_000], [[0.0, 0, 0]]], colors=np.r_[colors, colors[:1]])
    np.savetxt(
        folder / "b.csv",
        points[2_000:],
        delimiter=",",
        header="Easting,Northing,Height",
        comments="",
        fmt="%.6f",
    )
    return folder


def test_several_files_become_one_mesh_with_notes(parts: Path, tmp_path: Path) -> None:
    threads, before = torch.get_num_threads(), {child.pid for child in psutil.Process().children()}
    report = reconstruct([parts / "*.ply", parts / "b.csv"], tmp_path / "run", **QUIET)
    assert report.points == len(scan_points(seed=5, count=4_000))
    assert report.is_watertight
    assert report.coverage > 0.8
    assert report.notes[:2] == (
        "1 points left out: exactly at (0, 0, 0), where nothing came back",
        "colors are left out: not all files have them",
    )
    mesh = read_mesh(Path(report.mesh))
    assert (np.abs(mesh.vertices.mean(axis=0) - MAP) < 10).all()
    stored = json.loads((tmp_path / "run" / "report.json").read_text())
    assert stored["coverage"] == report.coverage
    assert stored["notes"] == list(report.notes)
    # One tile needs no Ray, and leaves the program as it was.
    assert {child.pid for child in psutil.Process().children()} <= before
    assert torch.get_num_threads() == threads


def test_the_same_files_in_millimeters_make_the_same_mesh_in_meters(parts: Path, tmp_path: Path) -> None:
    points = scan_points(seed=5, count=4_000)
    np.savetxt(tmp_path / "a.xyz", points)
    np.savetxt(tmp_path / "b.xyz", points * 1000)
    first = reconstruct(tmp_path / "a.xyz", tmp_path / "one", **QUIET)
    settings = ReconstructConfig(reading=ScanOptions(unit="mm"))
    second = reconstruct(tmp_path / "b.xyz", tmp_path / "two", settings, **QUIET)
    assert first.voxel_size == second.voxel_size
    a, b = (read_mesh(Path(report.mesh)) for report in (first, second))
    assert len(a.vertices) == pytest.approx(len(b.vertices), rel=0.01)
    np.testing.assert_allclose(a.vertices.min(axis=0), b.vertices.min(axis=0), atol=first.spacing)


def test_a_mesh_that_leaves_the_scan_alone_is_no_success(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(coverage_module, "NEAR_VOXELS", 1e-9)
    with pytest.raises(NoSurfaceError, match="passes by only 0% of the scan's points"):
        reconstruct(parts / "b.csv", tmp_path / "run", **QUIET)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["coverage"] == 0
    assert any("NO GOOD SURFACE" in note for note in report["notes"])
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", str(parts / "b.csv"), "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert stop.value.code == 1
    assert "NO GOOD SURFACE" in capsys.readouterr().err


def test_files_too_far_apart_are_named(parts: Path, tmp_path: Path) -> None:
    np.savetxt(tmp_path / "local.xyz", scan_points(seed=5, count=2_000))
    with pytest.raises(ScanError, match=r"too much for a voxel.*local\.xyz lies .* m from the other files"):
        reconstruct([parts / "b.csv", tmp_path / "local.xyz"], tmp_path / "run", **QUIET)
    assert not (tmp_path / "run").exists()


PLAN = ScenePlan(
    origin=(0.0, 0.0, 0.0),
    voxel_size=1.0,
    cells_per_voxel=2,
    tile_voxels=(32, 32, 32),
    grid=(2, 1, 1),
    halo_voxels=24,
    blend_voxels=4,
)


def test_coverage_is_the_share_of_points_near_a_vertex(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    covered, bare = rng.uniform(4, 28, (300, 3)), rng.uniform(4, 28, (100, 3))
    bare[:, 0] += 32
    np.save(tmp_path / "a.npy", np.concatenate([covered, bare]))
    store = RunStore(str(tmp_path / "run"))
    bucket_points(scan_set(tmp_path / "a.npy"), (PLAN,), store, BucketContents(False))
    choice = SurfaceChoice("closed", 1.5, FEWEST_VOXELS)
    assert measure_coverage(TileReader(store, PLAN, [], choice)) == 0.0
    keys = np.arange(300)
    nothing = np.zeros((0, 3), np.int64)
    surface = TileSurface(keys, 2 * covered + 0.5, np.ones((300, 3)), 0, 300, nothing, 0)
    support = VertexSupport(np.zeros(300, np.float32), np.ones(300, np.float32), None)
    sums = PartSums([300], [500], [0], [300.0], [0.0])
    tile_parts = TileParts(np.zeros(300, np.int32), np.ones(300, np.bool_), sums)
    write_tile(store, 0, surface, support, tile_parts, {})
    assert measure_coverage(TileReader(store, PLAN, [0], choice)) == pytest.approx(0.75)
    # Half of the vertices in a crumb: it is left out of the mesh, and what it passes by is not covered.
    crumb = (covered[:, 0] > 16).astype(np.int32)
    sums = PartSums([300, 5], [500, 9], [0, 0], [300.0, 5.0], [0.0, 0.0])
    write_tile(store, 0, surface, support, TileParts(crumb, np.ones(300, np.bool_), sums), {})
    distances = np.linalg.norm(covered[:, None] - covered[crumb == 0][None], axis=2).min(axis=1)
    expected = float((distances <= 2).sum()) / 400
    assert 0.3 < expected < 0.6
    assert measure_coverage(TileReader(store, PLAN, [0], choice)) == pytest.approx(expected)
    assert measure_coverage(TileReader(store, PLAN, [0], replace(choice, fewest_voxels=0))) == pytest.approx(
        0.75
    )


def test_the_report_tells_whether_a_given_voxel_suits_the_noise(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    floor = np.column_stack([rng.uniform(0, 24, 20_000), rng.uniform(0, 24, 20_000), np.full(20_000, 9.3)])
    floor[:, 2] += rng.normal(0, 0.5, len(floor))
    np.save(tmp_path / "a.npy", floor)
    reports = [
        reconstruct(tmp_path / "a.npy", tmp_path / f"run{size}", ReconstructConfig(voxel_size=size), **QUIET)
        for size in (1.0, 2.0)
    ]
    for report in reports:
        assert report.noise == pytest.approx(0.5, rel=0.1)
    warned = ["finer than the scan supports" in " ".join(report.notes) for report in reports]
    assert warned == [True, False]
