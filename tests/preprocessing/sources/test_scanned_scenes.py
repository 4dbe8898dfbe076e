"""ScanNet and Matterport3D folders, written here by hand: units, alignment, splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from preprocessing.errors import DatasetError
from preprocessing.sources import matterport_collection, scannet_collection

SIZE = np.array([4.0, 3.0, 2.5])  # meters


def write_room(path: Path, shift: tuple[float, float, float] = (0, 0, 0), turn: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = trimesh.creation.box(SIZE)
    mesh.apply_transform(trimesh.transformations.rotation_matrix(turn, [0, 0, 1]))
    mesh.apply_translation(shift)
    mesh.export(path)


def test_a_scannet_scene_is_upright_aligned_and_in_meters(tmp_path: Path) -> None:
    """The room stands turned by 0.7 rad at (3, 1, 0); its alignment turns and shifts it back."""
    scene = tmp_path / "scans" / "scene0001_00"
    write_room(scene / "scene0001_00_vh_clean.ply", (3, 1, 0), 0.7)
    write_room(scene / "scene0001_00_vh_clean_2.ply", (99, 99, 99))
    matrix = np.linalg.inv(
        trimesh.transformations.translation_matrix([3, 1, 0])
        @ trimesh.transformations.rotation_matrix(0.7, [0, 0, 1])
    )
    numbers = " ".join(f"{value:.6f}" for value in matrix.ravel())
    (scene / "scene0001_00.txt").write_text(f"axisAlignment = {numbers} \nnumColorFrames = 5\n")
    (tmp_path / "scannetv2_val.txt").write_text("scene0001_00\n")
    collection = scannet_collection(tmp_path)
    (samples,) = collection.units[0].make(collection.layout)
    samples.row(collection.layout)
    world = samples.points.astype(np.float64) * samples.scale + samples.location
    np.testing.assert_allclose(world.min(axis=0), -SIZE / 2, atol=1e-3)
    np.testing.assert_allclose(world.max(axis=0), SIZE / 2, atol=1e-3)
    assert (samples.split, samples.category, samples.has_scan_noise) == ("val", "scene", True)
    assert collection.layout.uniform_queries == 0


def test_without_the_full_mesh_the_reduced_one_is_taken(tmp_path: Path) -> None:
    write_room(tmp_path / "scene0002_01" / "scene0002_01_vh_clean_2.ply")
    write_room(tmp_path / "scene0002_01" / "scene0002_01_vh_clean_2.labels.ply")
    collection = scannet_collection(tmp_path)
    assert [unit.path.rsplit("/", 1)[1] for unit in collection.units] == ["scene0002_01_vh_clean_2.ply"]
    assert collection.units[0].split == "test"


def test_an_alignment_that_is_no_motion_is_refused(tmp_path: Path) -> None:
    scene = tmp_path / "scene0003_00"
    write_room(scene / "scene0003_00_vh_clean.ply")
    (scene / "scene0003_00.txt").write_text("axisAlignment = " + "1 " * 16)
    collection = scannet_collection(tmp_path)
    with pytest.raises(DatasetError, match="not a rotation and a shift"):
        collection.units[0].make(collection.layout)


def test_matterport_regions_go_before_the_whole_house(tmp_path: Path) -> None:
    write_room(tmp_path / "17DR" / "region_segmentations" / "region0.ply")
    write_room(tmp_path / "17DR" / "region_segmentations" / "region1.ply")
    write_room(tmp_path / "17DR" / "house_segmentations" / "17DR.ply")
    write_room(tmp_path / "2azQ" / "house_segmentations" / "2azQ.ply")
    collection = matterport_collection(tmp_path)
    assert {unit.names[0]: unit.category for unit in collection.units} == {
        "17DR/region0": "region", "17DR/region1": "region", "2azQ/2azQ": "house",
    }  # fmt: skip


@pytest.mark.parametrize("collect", [scannet_collection, matterport_collection])
def test_folders_without_scenes_are_refused(collect: object, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no"):
        collect(tmp_path)  # type: ignore[operator]
