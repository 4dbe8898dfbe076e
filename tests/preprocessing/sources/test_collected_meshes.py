"""Collections of meshes: what is found where, its category and split, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

from preprocessing.dataset import DatasetLayout
from preprocessing.errors import DatasetError, MeshError
from preprocessing.sources import MeshOptions, meshes_collection, shapenet_collection
from preprocessing.sources.collected_meshes import MeshUnit
from preprocessing.watertight import WatertightConfig

SMALL = DatasetLayout(1, ("ball",), 2048, 2048, 2048)


def ball(path: Path, radius: float = 2.0, at: tuple[float, float, float] = (0, 0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    mesh.apply_translation(at)
    mesh.export(path)
    return path


def test_every_format_is_found_and_the_first_folder_is_the_category(tmp_path: Path) -> None:
    for name in ("chairs/a.obj", "chairs/deep/b.off", "lamps/c.ply", "lamps/d.stl", "e.glb"):
        ball(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a mesh")
    collection = meshes_collection(tmp_path, MeshOptions())
    found = {unit.names[0]: unit.category for unit in collection.units}
    assert found == {
        "chairs/a.obj": "chairs", "chairs/deep/b.off": "chairs", "lamps/c.ply": "lamps", "lamps/d.stl": "lamps",
        "e.glb": tmp_path.name,
    }  # fmt: skip
    assert collection.layout.categories == tuple(sorted({"chairs", "lamps", tmp_path.name}))
    assert collection.layout.shapes == 5


def test_lists_beside_the_meshes_decide_the_split(tmp_path: Path) -> None:
    for number in range(6):
        ball(tmp_path / "balls" / f"{number}.obj")
    (tmp_path / "balls" / "test.lst").write_text("1\n3\n")
    (tmp_path / "balls" / "val.lst").write_text("5\n")
    splits = {unit.names[0]: unit.split for unit in meshes_collection(tmp_path, MeshOptions()).units}
    assert splits["balls/1.obj"] == splits["balls/3.obj"] == "test"
    assert splits["balls/5.obj"] == "val"


def test_samples_of_a_ball_are_those_of_the_ball(tmp_path: Path) -> None:
    """Radius 2 at (10, -4, 7): half a unit in the cube; a 1,280-face ball lies within 0.6% of the sphere."""
    unit = MeshUnit(
        str(ball(tmp_path / "ball.obj", 2.0, (10, -4, 7))), "ball", "ball", "train", MeshOptions()
    )
    (samples,) = unit.make(SMALL)
    np.testing.assert_allclose(samples.location, (10, -4, 7), atol=1e-6)
    assert samples.scale == pytest.approx(4.0, rel=1e-6)
    radius = np.linalg.norm(samples.points, axis=1)
    assert radius.min() > 0.494
    assert radius.max() <= 0.5 + 1e-6
    assert ((samples.normals * samples.points).sum(axis=1) > 0.49).all()
    for queries, occupied in (
        (samples.uniform_queries, samples.uniform_occupancy),
        (samples.near_queries, samples.near_occupancy),
    ):
        distance = np.linalg.norm(queries, axis=1)
        clear = np.abs(distance - 0.5) > 0.006
        np.testing.assert_array_equal(occupied[clear], distance[clear] < 0.5)
    assert np.abs(samples.uniform_queries).max() <= 0.55
    assert samples.uniform_occupancy.mean() == pytest.approx(np.pi / 6 / 1.1**3, abs=0.04)
    assert samples.provenance["method"] == "exact"
    assert len(samples.provenance["sha256"]) == 64


def test_the_same_file_gives_the_same_samples(tmp_path: Path) -> None:
    unit = MeshUnit(str(ball(tmp_path / "ball.obj")), "ball", "ball", "train", MeshOptions())
    (one,), (two,) = unit.make(SMALL), unit.make(SMALL)
    assert one.points.tobytes() == two.points.tobytes()
    assert one.near_occupancy.tobytes() == two.near_occupancy.tobytes()


def test_exact_refuses_an_open_mesh(tmp_path: Path) -> None:
    path = tmp_path / "open.ply"
    mesh = trimesh.creation.icosphere(subdivisions=2)
    mesh.update_faces(np.arange(len(mesh.faces)) > 3)
    mesh.export(path)
    options = MeshOptions(WatertightConfig("exact"))
    with pytest.raises(MeshError, match="not a closed surface"):
        MeshUnit(str(path), "open", "ball", "train", options).make(SMALL)


@pytest.mark.parametrize("version", ["model.obj", "models/model_normalized.obj"])
def test_shapenet_versions_classes_and_lists(tmp_path: Path, version: str) -> None:
    for synset in ("03001627", "02691156", "04999999"):
        for model in ("aaa", "bbb"):
            ball(tmp_path / synset / model / version)
        (tmp_path / synset / "test.lst").write_text("bbb\n")
    (tmp_path / "taxonomy.json").write_text(json.dumps([{"synsetId": "04999999", "name": "gadget,thing"}]))
    every = shapenet_collection(tmp_path, MeshOptions(up="y"))
    assert every.layout.categories == ("airplane", "chair", "gadget")
    assert {unit.names[0]: unit.split for unit in every.units}["03001627/bbb"] == "test"
    chosen = shapenet_collection(tmp_path, MeshOptions(), classes=("chair", "04999999"))
    assert [unit.names[0] for unit in chosen.units] == [
        "03001627/aaa", "03001627/bbb", "04999999/aaa", "04999999/bbb",
    ]  # fmt: skip
    assert len(chosen.units[0].make(SMALL.__class__(1, ("chair",), 2048, 2048, 2048))) == 1
    with pytest.raises(DatasetError, match="no class sofa"):
        shapenet_collection(tmp_path, MeshOptions(), classes=("sofa",))


def test_a_model_without_its_file_is_told_when_it_is_made(tmp_path: Path) -> None:
    (tmp_path / "03001627" / "aaa").mkdir(parents=True)
    (unit,) = shapenet_collection(tmp_path, MeshOptions()).units
    with pytest.raises(MeshError, match="no such file"):
        unit.make(SMALL)


def test_folders_without_anything_usable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        meshes_collection(tmp_path / "nowhere", MeshOptions())
    with pytest.raises(DatasetError, match="holds no mesh files"):
        meshes_collection(tmp_path, MeshOptions())
    with pytest.raises(DatasetError, match="no synset folders"):
        shapenet_collection(tmp_path, MeshOptions())


def test_links_are_followed_once_and_clutter_is_passed_over(tmp_path: Path) -> None:
    root = tmp_path / "root"
    ball(root / "chairs" / "a.obj")
    ball(tmp_path / "elsewhere" / "b.ply")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "loop").symlink_to(root)
    (root / "chairs" / "again.obj").symlink_to(root / "chairs" / "a.obj")
    (root / "chairs" / "._a.obj").write_bytes(b"\x00\x05\x16\x07")
    (root / "__MACOSX").mkdir()
    (root / "__MACOSX" / "c.obj").write_bytes(b"\x00\x05\x16\x07")
    names = {unit.names[0] for unit in meshes_collection(root, MeshOptions()).units}
    assert names == {"chairs/a.obj", "chairs/again.obj", "linked/b.ply"}


def test_glb_is_upright_whatever_up_says_of_the_others(tmp_path: Path) -> None:
    """A tall box: z in our labels, y in the file, as glTF has it."""
    box = trimesh.creation.box(extents=(1, 4, 2))
    box.export(tmp_path / "box.glb")
    for up in ("y", "z"):
        (unit,) = meshes_collection(tmp_path, MeshOptions(up=up)).units
        (samples,) = unit.make(SMALL)
        sides = np.ptp(samples.points, axis=0)
        np.testing.assert_allclose(sides, (0.25, 0.5, 1.0), atol=0.02)
