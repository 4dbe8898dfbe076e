"""Pictures show what is there, where it is."""

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from preprocessing.errors import MeshError
from preprocessing.pictures.camera import Camera, orbit_camera
from preprocessing.pictures.render import MeshPictures, point_picture, preview_sheet

BALL = trimesh.creation.icosphere(4, 1.0)


def is_object(picture: np.ndarray) -> np.ndarray:
    """Pixels that are not the bluish background."""
    return picture[..., 2].astype(int) <= picture[..., 0]


def test_a_ball_is_a_centered_disc_inside_the_frame() -> None:
    pictures = MeshPictures(np.asarray(BALL.vertices), np.asarray(BALL.faces))
    picture = pictures.picture(orbit_camera(pictures.low, pictures.high, 30, 20), 120, 100)
    assert picture.shape == (100, 120, 3)
    assert picture.dtype == np.uint8
    seen = is_object(picture)
    rows, columns = np.nonzero(seen)
    assert abs(rows.mean() - 49.5) < 1.5
    assert abs(columns.mean() - 59.5) < 1.5
    assert not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())
    radius = np.sqrt(seen.sum() / np.pi)
    assert abs(radius - (rows.max() - rows.min() + 1) / 2) < 1.5


def test_a_cut_shows_the_inside_in_red() -> None:
    pictures = MeshPictures(np.asarray(BALL.vertices), np.asarray(BALL.faces))
    camera = orbit_camera(pictures.low, pictures.high, 0, 60)
    whole, cut = pictures.picture(camera, 80, 80), pictures.picture(camera, 80, 80, cut_above=0.0)
    red = (cut[..., 0].astype(int) - cut[..., 2]) > 80
    assert red[35:60, 35:45].mean() > 0.9
    assert not ((whole[..., 0].astype(int) - whole[..., 2]) > 80).any()


@pytest.mark.parametrize("height", [-0.8, 0.0, 0.8])
def test_nothing_above_a_cut_is_drawn_from_any_side(height: float) -> None:
    pictures = MeshPictures(np.asarray(BALL.vertices), np.asarray(BALL.faces))
    camera = Camera(np.array([5.0, 0, height]), np.array([0.0, 0, height]))
    seen = is_object(pictures.picture(camera, 60, 60, cut_above=0.0))
    # The cut's highest pixel: its far rim (depth 6) for an eye above the plane, its near rim (4) from below.
    highest = 30 + 30 / np.tan(np.radians(17.5)) * height / (6.0 if height > 0 else 4.0)
    assert seen.any()
    assert not seen[: max(0, int(highest) - 1)].any()


@pytest.mark.parametrize("direction", [(90, 0), (30, 40), (0, 90), (0, -90)])
def test_points_fall_on_the_rays_of_their_pixels(direction: tuple[int, int]) -> None:
    camera = orbit_camera(np.full(3, -1.0), np.full(3, 1.0), *direction)
    origins, directions = camera.rays(16, 12)
    distance = np.random.default_rng(0).uniform(1, 9, (len(origins), 1))
    places, _, is_seen = camera.project(origins + distance * directions, 16, 12)
    assert is_seen.all()
    np.testing.assert_array_equal(places[:, 1] * 16 + places[:, 0], np.arange(16 * 12))


def test_points_beside_or_behind_the_eye_are_left_out() -> None:
    camera = Camera(np.array([4.0, 0, 0]), np.zeros(3))
    with np.errstate(all="raise"):
        picture = point_picture(np.array([[4.0, 0, 0], [4.0, 1, 0], [8.0, 0, 0]]), camera, 20, 20)
    assert (picture == 250).all()
    assert (point_picture(np.zeros((0, 3)), camera, 20, 20) == 250).all()


def test_a_mesh_without_faces_is_refused() -> None:
    with pytest.raises(MeshError, match="no faces"):
        MeshPictures(np.zeros((0, 3)), np.zeros((0, 3), np.int64))


def test_stray_parts_do_not_shrink_the_object() -> None:
    corners = np.array([[60, 0, 0], [60.01, 0, 0], [60, 0.01, 0], [60, 0, 0.01]])
    stray = trimesh.Trimesh(corners, [[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], process=False)
    both = trimesh.util.concatenate([trimesh.creation.icosphere(5, 1.0), stray])
    pictures = MeshPictures(np.asarray(both.vertices), np.asarray(both.faces))
    assert (pictures.high - pictures.low).max() < 3


def test_the_nearest_point_is_in_front() -> None:
    camera = orbit_camera(np.full(3, -1.0), np.full(3, 1.0), 0, 0)
    points = np.array([[0.5, 0, 0], [-0.5, 0, 0]])
    colors = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    picture = point_picture(points, camera, 21, 21, colors)
    assert (picture == (255, 0, 0)).all(axis=2).sum() == 1
    assert not (picture == (0, 0, 255)).all(axis=2).any()


def test_the_sheet_is_a_png_of_six_panels(tmp_path: Path) -> None:
    preview_sheet(
        np.asarray(BALL.vertices),
        np.asarray(BALL.faces),
        tmp_path / "sheet.png",
        points=np.asarray(BALL.vertices),
        title="ball",
        size=(60, 50),
    )
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (180, 2 * 80 + 30)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
