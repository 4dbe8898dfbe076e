"""Pictures of sequences against closed forms: the exact inside of procedural bodies, and a moving sphere."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from preprocessing.dataset import BLOCK, DatasetLayout, ShapeSamples, Views
from preprocessing.errors import DatasetError
from preprocessing.meshes.files import write_mesh
from preprocessing.procedural.moving_bodies import KINDS, moving_body
from preprocessing.sources import BodiesConfig, bodies_collection, humans_collection
from preprocessing.sources.moving_shapes import BodyUnit
from tests.preprocessing.sources.test_moving_shapes import moving_ball

FRAMES, SIZE = 5, 48
SEEN = DatasetLayout(1, KINDS, BLOCK, BLOCK, BLOCK, frames=FRAMES, views=4, view_size=SIZE)
SEEN_BALLS = dataclasses.replace(SEEN, categories=("still", "rolling"))


def pixel_rays(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(SIZE, SIZE, 3) directions in the camera, z = 1, through the pixels' centers."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    return np.stack([columns, rows, np.ones_like(rows)], axis=-1) @ np.linalg.inv(matrix).T


def checked_views(samples: ShapeSamples) -> Views:
    views = samples.views
    assert views is not None
    assert views.rgb.shape == (FRAMES, 4, SIZE, SIZE, 3) and views.depth.shape == (FRAMES, 4, SIZE, SIZE)
    assert views.extrinsics.shape == (4, 3, 4) and views.intrinsics.shape == (4, 3, 3)
    return views


@pytest.mark.parametrize("seed", range(4))
def test_pixels_lead_back_to_the_exact_body_at_each_time(seed: int) -> None:
    (samples,) = BodyUnit(seed).make(SEEN)
    views, body = checked_views(samples), moving_body(seed, KINDS[seed])
    for frame in (0, 2, FRAMES - 1):
        time = frame / (FRAMES - 1)
        for view in range(4):
            rotation, translation = views.extrinsics[view, :, :3], views.extrinsics[view, :, 3]
            rays, depth = pixel_rays(views.intrinsics[view]), views.depth[frame, view]
            hit = depth > 0
            assert 0.01 < hit.mean() < 0.6

            def in_world(local: NDArray[np.float64]) -> NDArray[np.float64]:
                cube = (local - translation) @ rotation  # noqa: B023 (used in this turn of the loop alone)
                return cube * samples.scale + samples.location

            seen = in_world((rays * depth[..., None])[hit])
            gauge = np.min([part.gauge(seen, time) for part in body.parts], axis=0)
            # The facets lie within half a percent of the surface.
            np.testing.assert_allclose(gauge, 1, atol=0.005)
            for share in np.linspace(1.5, 3, 40):  # beside the silhouette there is nothing at any depth
                assert not body.occupancy(in_world(share * rays[~hit & ~beside(hit)]), time).any()


def beside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The mask and the pixels around it."""
    wide = np.pad(mask, 1)
    return np.max([wide[i : i + SIZE, j : j + SIZE] for i in range(3) for j in range(3)], axis=0)


def test_points_in_correspondence_land_on_the_body_in_the_pictures_of_their_time() -> None:
    (samples,) = BodyUnit(0).make(SEEN)
    views = checked_views(samples)
    wrong_time = []
    for frame in range(FRAMES):
        for view in range(4):
            local = samples.points[frame] @ views.extrinsics[view, :, :3].T + views.extrinsics[view, :, 3]
            pixel = local @ views.intrinsics[view].T
            columns, rows = np.floor(pixel[:, :2] / pixel[:, 2:]).astype(int).T
            dark = views.rgb[..., 0] < 255
            assert beside(dark[frame, view])[rows, columns].all()
            wrong_time.append(beside(dark[(frame + 2) % FRAMES, view])[rows, columns].mean())
    assert np.mean(wrong_time) < 0.95  # so that the right time matters


def record(folder: Path, speed: float) -> Path:
    """A recording of a ball that moves and grows, or stays as it is."""
    folder.mkdir(parents=True)
    meshes = [moving_ball(round(speed * frame)) for frame in range(FRAMES)]
    np.savez(
        folder / "ball.npz", vertices=np.stack([mesh.vertices for mesh in meshes]), faces=meshes[0].faces
    )
    return folder


def test_a_ball_that_stays_gives_equal_pictures_and_one_that_rolls_its_own_at_each_time(
    tmp_path: Path,
) -> None:
    still = humans_collection(record(tmp_path / "still", 0), FRAMES, SIZE).units[0].make(SEEN_BALLS)[0]
    views = checked_views(still)
    for name in ("rgb", "depth"):
        pictures = getattr(views, name)
        assert (pictures == pictures[:1]).all()

    rolling = humans_collection(record(tmp_path / "rolling", 1), FRAMES, SIZE).units[0].make(SEEN_BALLS)[0]
    views = checked_views(rolling)
    for frame in range(FRAMES):
        center = (np.array([0.2 * frame, 1.0, -2.0]) - rolling.location) / rolling.scale
        radius = 0.5 * 1.05**frame / rolling.scale
        for view in range(4):
            rays, depth = pixel_rays(views.intrinsics[view]), views.depth[frame, view]
            local = views.extrinsics[view, :, :3] @ center + views.extrinsics[view, :, 3]
            a, b, c = (rays**2).sum(-1), rays @ local, local @ local - radius**2
            with np.errstate(invalid="ignore"):
                expected = (b - np.sqrt(b * b - a * c)) / a
            facing = -((rays * expected[..., None] - local) * rays).sum(-1) / radius / np.sqrt(a) > 0.3
            assert facing.sum() > 50
            # Facets of the icosphere lie up to 0.6% of the radius inside, seen aslant.
            np.testing.assert_allclose(depth[facing], expected[facing], atol=0.02 * radius)
            assert (depth[np.isnan(expected)] == 0).all()


def test_the_axis_that_points_up_turns_the_cameras(tmp_path: Path) -> None:
    folder = record(tmp_path / "still", 0)
    for up, axis in (("y", 1), ("z", 2)):
        collection = humans_collection(folder, FRAMES, SIZE, up)  # type: ignore[arg-type]
        views = checked_views(collection.units[0].make(SEEN_BALLS)[0])
        places = -np.einsum("vji,vj->vi", views.extrinsics[:, :, :3], views.extrinsics[:, :, 3])
        elevation = np.degrees(np.arcsin(places[:, axis] / np.linalg.norm(places, axis=1)))
        assert ((elevation > 24.9) & (elevation < 30.1)).all()
        assert collection.provenance["up"] == up


def test_frames_that_are_upright_by_their_format_are_not_turned_again(tmp_path: Path) -> None:
    with np.load(record(tmp_path / "recorded", 0) / "ball.npz") as stored:
        vertices, faces = stored["vertices"], stored["faces"]
    found = []
    for suffix, up in ((".ply", "z"), (".glb", "z"), (".glb", "y")):
        folder = tmp_path / f"{suffix}{up}" / "still"
        for frame, moment in enumerate(vertices):
            write_mesh(folder / f"{frame}{suffix}", moment, faces)
        collection = humans_collection(folder, FRAMES, SIZE, up)  # type: ignore[arg-type]
        found.append(checked_views(collection.units[0].make(SEEN_BALLS)[0]))
    for views in found[1:]:
        np.testing.assert_array_equal(views.extrinsics, found[0].extrinsics)
        np.testing.assert_allclose(views.depth, found[0].depth, atol=1e-3)


def test_pictures_change_nothing_else(tmp_path: Path) -> None:
    plain = dataclasses.replace(SEEN, views=0, view_size=0)
    folder = record(tmp_path / "still", 0)
    for unit in (BodyUnit(2), humans_collection(folder, FRAMES).units[0]):
        categories = (*SEEN.categories, "still")
        seen, unseen = (
            unit.make(dataclasses.replace(layout, categories=categories))[0] for layout in (SEEN, plain)
        )
        assert unseen.views is None
        for name in ("points", "normals", "uniform_queries", "near_queries", "near_occupancy"):
            assert getattr(seen, name).tobytes() == getattr(unseen, name).tobytes()
    assert bodies_collection(BodiesConfig()).layout.views == 0
    layout = bodies_collection(BodiesConfig(view_size=SIZE)).layout
    assert (layout.views, layout.view_size) == (4, SIZE)


def test_prepared_sequences_cannot_be_rendered(tmp_path: Path) -> None:
    (tmp_path / "50002_hips" / "pcl_seq").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"50002_hips: holds points without meshes.*--views"):
        humans_collection(tmp_path, FRAMES, SIZE)
