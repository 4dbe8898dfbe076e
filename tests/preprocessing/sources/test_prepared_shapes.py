"""The files of the Occupancy Networks papers, written here by hand in their layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.dataset import BLOCK
from preprocessing.errors import DatasetError
from preprocessing.sources import MeshOptions, shapenet_collection

RADIUS = 0.4
LOCATION, SCALE = np.array([0.2, -0.1, 0.3]), 1.7
CAMERA = np.array([[0.0, 1, 0, 0.1], [0, 0, -1, 0.2], [-1, 0, 0, 2.5]])
PINHOLE = np.array([[149.8, 0, 68.5], [0, 149.8, 68.5], [0, 0, 1]])


def write_model(folder: Path, is_packed: bool = True, dtype: type = np.float16) -> None:
    """A ball as `pointcloud.npz`, `points.npz`, two pictures with cameras and a binvox grid."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((3000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    facts = {"loc": LOCATION, "scale": SCALE}
    np.savez(
        folder / "pointcloud.npz",
        points=(RADIUS * directions).astype(dtype),
        normals=directions.astype(dtype),
        **facts,
    )
    queries = rng.uniform(-0.55, 0.55, (2500, 3)).astype(dtype)
    occupied = np.linalg.norm(queries.astype(np.float64), axis=1) < RADIUS
    np.savez(
        folder / "points.npz",
        points=queries,
        occupancies=np.packbits(occupied) if is_packed else occupied,
        **facts,
    )
    (folder / "img_choy2016").mkdir()
    cameras = {}
    for view in range(2):
        Image.new("RGB", (137, 137), (view * 100, 20, 30)).save(folder / "img_choy2016" / f"{view:03d}.jpg")
        cameras |= {f"world_mat_{view}": CAMERA, f"camera_mat_{view}": PINHOLE}
    np.savez(folder / "img_choy2016" / "cameras.npz", **cameras)
    grid = np.zeros((32, 32, 32), np.uint8)
    grid[3, 5, 7] = 1  # x 3, z 5, y 7: the file's order
    runs = b"".join(bytes([value, 1]) for value in grid.ravel())
    head = b"#binvox 1\ndim 32 32 32\ntranslate 0 0 0\nscale 1\ndata\n"
    (folder / "model.binvox").write_bytes(head + runs)


@pytest.mark.parametrize(("is_packed", "dtype"), [(True, np.float16), (False, np.float32)])
def test_prepared_models_are_taken_as_they_are(tmp_path: Path, is_packed: bool, dtype: type) -> None:
    write_model(tmp_path / "03001627" / "aaa", is_packed, dtype)
    collection = shapenet_collection(tmp_path, MeshOptions())
    layout = collection.layout
    assert (layout.points, layout.uniform_queries, layout.near_queries) == (2 * BLOCK, 2 * BLOCK, 0)
    assert (layout.voxel_side, layout.views, layout.view_size) == (32, 2, 137)
    (samples,) = collection.units[0].make(layout)
    samples.row(layout)
    assert len(samples.points) == 3000
    occupied = np.linalg.norm(samples.uniform_queries.astype(np.float64), axis=1) < RADIUS
    np.testing.assert_array_equal(samples.uniform_occupancy, occupied)
    np.testing.assert_array_equal(samples.uniform_queries[2500:], samples.uniform_queries[: 2 * BLOCK - 2500])
    assert samples.voxels is not None
    assert np.argwhere(samples.voxels).tolist() == [[3, 7, 5]]
    np.testing.assert_array_equal(samples.location, LOCATION)
    assert samples.scale == SCALE


def test_cameras_see_the_same_pixel_in_the_unit_cube_as_in_the_world(tmp_path: Path) -> None:
    write_model(tmp_path / "03001627" / "aaa")
    collection = shapenet_collection(tmp_path, MeshOptions())
    views = collection.units[0].make(collection.layout)[0].views
    assert views is not None
    point = np.array([0.1, 0.3, -0.2])
    world = PINHOLE @ (CAMERA[:, :3] @ (SCALE * point + LOCATION) + CAMERA[:, 3])
    ours = views.intrinsics[0] @ (views.extrinsics[0][:, :3] @ point + views.extrinsics[0][:, 3])
    np.testing.assert_allclose(ours[:2] / ours[2], world[:2] / world[2], atol=1e-9)


def test_an_incomplete_or_damaged_model_says_which_file(tmp_path: Path) -> None:
    for model in ("aaa", "bbb", "ccc", "ddd"):
        write_model(tmp_path / "03001627" / model)
    folder = tmp_path / "03001627"
    (folder / "bbb" / "points.npz").unlink()
    data = (folder / "ccc" / "points.npz").read_bytes()
    (folder / "ccc" / "points.npz").write_bytes(data[: len(data) // 2])
    np.savez(folder / "ddd" / "points.npz", points=np.full((5, 3), np.nan), occupancies=np.zeros(5, bool))
    collection = shapenet_collection(tmp_path, MeshOptions())
    made = {unit.names[0]: unit for unit in collection.units}
    for name, reason in (("bbb", "no such file"), ("ccc", "cannot be read"), ("ddd", "not finite")):
        with pytest.raises(DatasetError, match=rf"{name}.points\.npz.*{reason}"):
            made[f"03001627/{name}"].make(collection.layout)


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    write_model(tmp_path / "03001627" / "aaa")
    target = tmp_path / "03001627" / "aaa" / "points.npz"
    collection = shapenet_collection(tmp_path, MeshOptions())
    np.savez(target, points=np.array([{"a": 1}], dtype=object), occupancies=np.zeros(1))
    with pytest.raises(DatasetError, match=r"cannot be read .*pickle"):
        collection.units[0].make(collection.layout)
