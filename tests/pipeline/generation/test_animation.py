"""An animated GLB read back byte by byte gives the moments; numbered files and GIFs hold what was drawn."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.generation.animation import (
    animation_frames,
    camera_of_all,
    correspondence_colors,
    write_animation,
    write_gif,
)
from pipeline.generation.results import MovingShape, write_moving
from preprocessing.errors import MeshError
from preprocessing.meshes.checks import check_mesh
from preprocessing.meshes.files import read_mesh
from preprocessing.pictures.camera import orbit_camera

FLOATS, BYTES, UINTS = 5126, 5121, 5125
TYPES = {FLOATS: np.dtype("<f4"), BYTES: np.dtype("u1"), UINTS: np.dtype("<u4")}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def bending_ball(moments=5, offset=(0.0, 0.0, 0.0)):
    """A ball that stretches, bends and moves: (T, V, 3) and its faces."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.4)
    time = np.linspace(0, 1, moments)[:, None]
    x, y, z = ball.vertices.T
    moved = np.stack([x * (1 + time), y + 0.5 * time**2 * z, z + 0.3 * np.sin(3 * time)], axis=-1)
    return moved + np.array(offset), np.array(ball.faces, np.int64)


class Glb:
    """A reader of binary glTF that checks what the specification demands of what it meets."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", data)
        assert (magic, version, length) == (b"glTF", 2, len(data))
        json_length, json_kind = struct.unpack_from("<I4s", data, 12)
        assert json_kind == b"JSON"
        assert json_length % 4 == 0
        self.json: dict[str, Any] = json.loads(data[20 : 20 + json_length])
        start = 20 + json_length
        bin_length, bin_kind = struct.unpack_from("<I4s", data, start)
        assert bin_kind == b"BIN\0"
        assert bin_length % 4 == 0
        assert start + 8 + bin_length == len(data)
        self.binary = data[start + 8 :]
        assert self.json["asset"]["version"] == "2.0"
        assert [part["byteLength"] for part in self.json["buffers"]] == [bin_length]
        covered = np.zeros(bin_length, int)
        for view in self.json["bufferViews"]:
            assert view["byteOffset"] + view["byteLength"] <= bin_length
            covered[view["byteOffset"] : view["byteOffset"] + view["byteLength"]] += 1
        assert (covered == 1).all(), "parts of the buffer overlap or are not used"

    def array(self, number: int) -> np.ndarray:
        accessor = self.json["accessors"][number]
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind, width = TYPES[accessor["componentType"]], WIDTHS[accessor["type"]]
        assert view["byteOffset"] % kind.itemsize == 0
        assert accessor["count"] * kind.itemsize * width == view["byteLength"]
        values = np.frombuffer(self.binary, kind, accessor["count"] * width, view["byteOffset"])
        rows = values.reshape(accessor["count"], width)
        if "min" in accessor:
            assert accessor["min"] == rows.min(axis=0).tolist()
            assert accessor["max"] == rows.max(axis=0).tolist()
        return rows if width > 1 else values

    @property
    def primitive(self) -> dict[str, Any]:
        return self.json["meshes"][0]["primitives"][0]

    def shown(self, second: float, attribute: str = "POSITION") -> np.ndarray:
        """World values of an attribute as a viewer shows them at a time."""
        (animation,) = self.json["animations"]
        (channel,) = animation["channels"]
        sampler = animation["samplers"][channel["sampler"]]
        assert (channel["target"]["path"], sampler["interpolation"]) == ("weights", "LINEAR")
        times, targets = self.array(sampler["input"]), self.primitive["targets"]
        assert "min" in self.json["accessors"][sampler["input"]]
        assert (np.diff(times) > 0).all()
        assert times[0] == 0
        keys = self.array(sampler["output"]).reshape(len(times), len(targets))
        weights = [np.interp(second, times, keys[:, target]) for target in range(len(targets))]
        values = self.array(self.primitive["attributes"][attribute]).astype(np.float64)
        for weight, target in zip(weights, targets, strict=True):
            values = values + weight * self.array(target[attribute])
        return self._to_world(values, channel["target"]["node"], attribute == "POSITION")

    def _to_world(self, values: np.ndarray, mesh_node: int, is_moved: bool) -> np.ndarray:
        (root,) = self.json["scenes"][self.json["scene"]]["nodes"]
        outer, inner = self.json["nodes"][root], self.json["nodes"][mesh_node]
        assert outer["children"] == [mesh_node]
        assert inner["mesh"] == 0
        x, y, z, w = outer["rotation"]
        turn = trimesh.transformations.quaternion_matrix([w, x, y, z])[:3, :3]
        return (values + np.array(inner["translation"]) * is_moved) @ turn.T


def y_up(points):
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


@pytest.mark.parametrize("has_colors", [True, False])
def test_a_viewer_of_the_glb_shows_every_moment(tmp_path, has_colors):
    vertices, faces = bending_ball(6, offset=(3.0, -2.0, 1.0))
    colors = correspondence_colors(vertices[0]) if has_colors else None
    write_animation(tmp_path / "a.glb", vertices, faces, colors, seconds=2.5)
    glb = Glb(tmp_path / "a.glb")
    for moment, second in zip(vertices, np.linspace(0, 2.5, 6), strict=True):
        np.testing.assert_allclose(glb.shown(second), y_up(moment), atol=1e-6)
        normals = trimesh.Trimesh(moment, faces, process=False).vertex_normals
        np.testing.assert_allclose(glb.shown(second, "NORMAL"), y_up(normals), atol=1e-5)
    np.testing.assert_allclose(glb.shown(0.25), y_up(0.5 * (vertices[0] + vertices[1])), atol=1e-6)
    np.testing.assert_array_equal(glb.array(glb.primitive["indices"]).reshape(-1, 3), faces)
    assert glb.json["bufferViews"][glb.primitive["indices"]]["target"] == 34963
    for target in glb.primitive["targets"]:
        assert set(target) <= set(glb.primitive["attributes"])
        assert "min" in glb.json["accessors"][target["POSITION"]]
    assert len(glb.json["meshes"][0]["weights"]) == len(glb.primitive["targets"]) == 5
    if has_colors:
        accessor = glb.json["accessors"][glb.primitive["attributes"]["COLOR_0"]]
        assert accessor["normalized"] is True
        stored = glb.array(glb.primitive["attributes"]["COLOR_0"])
        np.testing.assert_array_equal(stored[:, :3], colors)
        assert (stored[:, 3] == 255).all()
    else:
        assert "COLOR_0" not in glb.primitive["attributes"]


def test_another_reader_finds_the_first_moment(tmp_path):
    vertices, faces = bending_ball(3)
    colors = correspondence_colors(vertices[0])
    write_animation(tmp_path / "a.glb", vertices, faces, colors)
    mesh = read_mesh(tmp_path / "a.glb")
    np.testing.assert_allclose(mesh.vertices, vertices[0], atol=1e-6)  # turned back to z up
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_array_equal(mesh.colors, colors)
    assert check_mesh(mesh.vertices, mesh.faces).is_watertight


def test_far_off_scenes_keep_their_detail(tmp_path):
    vertices, faces = bending_ball(3, offset=(4.5e5, 5.4e6, 100.0))
    write_animation(tmp_path / "a.glb", vertices, faces, seconds=1)
    np.testing.assert_allclose(Glb(tmp_path / "a.glb").shown(1.0), y_up(vertices[2]), rtol=0, atol=1e-6)


def test_a_vertex_without_faces_gets_a_unit_normal(tmp_path):
    vertices, faces = bending_ball(2)
    stray = np.concatenate([vertices, np.zeros((2, 1, 3))], axis=1)
    write_animation(tmp_path / "a.glb", stray, faces)
    normals = Glb(tmp_path / "a.glb").shown(0, "NORMAL")
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)


def test_numbered_files_hold_the_moments(tmp_path):
    vertices, faces = bending_ball(4)
    colors = correspondence_colors(vertices[0])
    *paths, animation, picture = write_moving(tmp_path / "body.ply", MovingShape(vertices, faces), "z")
    assert [path.name for path in paths] == [f"body_000{n}.ply" for n in range(4)]
    assert (animation.name, picture.name) == ("body.glb", "body.gif")
    assert sorted(tmp_path.iterdir()) == sorted([*paths, animation, picture])
    for path, moment in zip(paths, vertices, strict=True):
        mesh = read_mesh(path)
        np.testing.assert_array_equal(mesh.vertices, moment)
        np.testing.assert_array_equal(mesh.faces, faces)
        np.testing.assert_array_equal(mesh.colors, colors)


def test_correspondence_colors_tell_points_apart_and_run_along_the_longest_side():
    points = np.random.default_rng(0).uniform(0, 1, (3000, 3)) * (1, 5, 2)
    colors = correspondence_colors(points).astype(int)
    assert colors.shape == (3000, 3)
    order = np.argsort(points[:, 1])
    red, green, blue = colors[order[:50]].mean(axis=0)
    assert red > 1.5 * max(green, blue)
    violet = colors[order[-50:]].mean(axis=0)
    assert violet[2] > 1.5 * violet[1]
    assert len(np.unique(colors, axis=0)) > 2500
    assert (correspondence_colors(np.ones((4, 3))) == correspondence_colors(np.ones((1, 3)))).all()


def test_all_frames_come_from_one_camera():
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.1)
    centers = np.array([[-0.5, 0, 0], [0, 0.3, 0.2], [0.5, -0.2, 0.4]])
    vertices = np.array(ball.vertices)[None] + centers[:, None]
    faces = np.array(ball.faces, np.int64)
    frames = list(animation_frames(vertices, faces, np.full((len(ball.vertices), 3), (255, 0, 0), np.uint8)))
    camera = camera_of_all(vertices, (480, 360))
    places, _, is_seen = camera.project(centers, 480, 360)
    assert is_seen.all()
    for frame, place in zip(frames, places, strict=True):
        assert frame.shape == (360, 480, 3)
        rows, columns = np.nonzero(frame[..., 0].astype(int) - frame[..., 1] > 60)
        assert len(rows) > 200
        np.testing.assert_allclose([columns.mean(), rows.mean()], place, atol=2.5)


@pytest.mark.parametrize("size", [(480, 360), (200, 400), (900, 100)])
def test_the_camera_sees_all_moments_and_little_more(size):
    vertices, _ = bending_ball(5, offset=(70.0, -3.0, 2.0))
    camera = camera_of_all(vertices, size)
    places, _, is_seen = camera.project(vertices.reshape(-1, 3), *size)
    assert is_seen.all()
    reach = np.abs(places + 0.5 - np.array(size) / 2).max(axis=0) / (np.array(size) / 2)
    assert 0.88 < reach.max() < 0.96


def test_colors_stay_with_their_points():
    """A ball turned by half a turn shows, from the other side, the colors it had."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.4)
    first = np.array(ball.vertices)
    camera = orbit_camera(first.min(0), first.max(0), 0, 10)
    frames = list(
        animation_frames(
            np.stack([first, first * (-1, -1, 1)]), np.array(ball.faces, np.int64), None, (160, 120), camera
        )
    )
    hidden = orbit_camera(first.min(0), first.max(0), 180, 10)
    (behind,) = animation_frames(first[None], np.array(ball.faces, np.int64), None, (160, 120), hidden)

    def chroma(frame):  # lights do not turn with the ball, so compare hues
        return frame / np.maximum(frame.sum(axis=2, keepdims=True), 1)

    middle = np.s_[40:80, 60:100]
    assert np.abs(chroma(frames[1]) - chroma(behind))[middle].mean() < 0.02
    assert np.abs(chroma(frames[1]) - chroma(frames[0]))[middle].mean() > 0.05


def test_a_gif_holds_the_frames_their_colors_and_the_time(tmp_path):
    vertices, faces = bending_ball(6)
    frames = list(animation_frames(vertices, faces, None, (120, 90)))
    write_gif(tmp_path / "a.gif", frames, seconds=0.6)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 6
        assert gif.size == (120, 90)
        assert gif.info["loop"] == 0
        for number, frame in enumerate(frames):
            gif.seek(number)
            assert gif.info["duration"] == 100
            shown = np.asarray(gif.convert("RGB")).astype(int)
            assert np.abs(shown - frame).mean() < 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


def test_a_gif_is_no_faster_than_browsers_show(tmp_path):
    frames = [np.full((8, 8, 3), 20 * number, np.uint8) for number in range(10)]
    write_gif(tmp_path / "a.gif", frames, seconds=0.01)
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 10
        assert gif.info["duration"] == 20


def test_a_round_of_the_gif_takes_the_time_asked_for(tmp_path):
    frames = [np.full((8, 8, 3), 8 * number, np.uint8) for number in range(30)]
    write_gif(tmp_path / "a.gif", frames, seconds=1.0)  # 3.33 hundredths each
    with Image.open(tmp_path / "a.gif") as gif:
        total_ms = 0
        for number in range(gif.n_frames):
            gif.seek(number)
            total_ms += gif.info["duration"]
    assert total_ms == 1000


def test_what_cannot_be_animated_is_refused_and_leaves_no_file(tmp_path):
    vertices, faces = bending_ball(3)
    nan = vertices.copy()
    nan[2, 5, 1] = np.nan
    with pytest.raises(MeshError, match="moment 2"):
        write_animation(tmp_path / "a.glb", nan, faces)
    with pytest.raises(MeshError, match="two moments"):
        write_animation(tmp_path / "a.glb", vertices[:1], faces)
    with pytest.raises(MeshError, match="faces"):
        write_animation(tmp_path / "a.glb", np.zeros((3, 0, 3)), np.zeros((0, 3), np.int64))
    with pytest.raises(MeshError, match=r"\.glb"):
        write_animation(tmp_path / "a.gltf", vertices, faces)
    with pytest.raises(MeshError, match="duration"):
        write_animation(tmp_path / "a.glb", vertices, faces, seconds=0)
    with pytest.raises(ValueError, match="color"):
        write_animation(tmp_path / "a.glb", vertices, faces, np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="not there"):
        write_animation(tmp_path / "a.glb", vertices[:, :10], faces)
    with pytest.raises(MeshError, match="frames"):
        write_gif(tmp_path / "a.gif", [])
    with pytest.raises(MeshError, match="one size"):
        write_gif(tmp_path / "a.gif", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)])
    with pytest.raises(MeshError, match="no faces"):
        list(animation_frames(vertices, np.zeros((0, 3), np.int64)))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    vertices, faces = bending_ball(2)
    with pytest.raises(MeshError, match="cannot be written"):
        write_animation(tmp_path / "file" / "a.glb", vertices, faces)
    with pytest.raises(MeshError, match="cannot be written"):
        write_gif(tmp_path / "file" / "a.gif", [np.zeros((4, 4, 3), np.uint8)])


def test_more_than_the_format_holds_is_refused_before_writing(tmp_path):
    moments = np.broadcast_to(np.zeros((1, 1, 3), np.float32), (400, 500_000, 3))
    with pytest.raises(MeshError, match="4 GiB"):
        write_animation(tmp_path / "a.glb", moments, np.array([[0, 1, 2]]))
