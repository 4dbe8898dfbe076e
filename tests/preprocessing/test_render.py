"""Pictures show what is there, where it is."""

from pathlib import Path

import numpy as np
import trimesh
from PIL import Image

from preprocessing.render import MeshPictures, orbit_camera, point_picture, preview_sheet

BALL = trimesh.creation.icosphere(4, 1.0)


def is_object(picture: np.ndarray) -> np.ndarray:
    """Pixels that are not the bluish background."""
    return picture[..., 2].astype(int) <= picture[..., 0]


def test_a_ball_is_a_centred_disc_inside_the_frame() -> None:
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
