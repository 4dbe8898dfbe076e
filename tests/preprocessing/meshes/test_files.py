"""Streaming mesh writers, read back by other libraries."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import open3d as o3d
import pytest
import trimesh

from preprocessing.errors import MeshError
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.meshes.files import open_mesh_writer, read_mesh, write_mesh

BALL = trimesh.creation.icosphere(3, 2.0)
VERTICES, FACES = np.asarray(BALL.vertices), np.asarray(BALL.faces)
COLORS = np.random.default_rng(0).integers(0, 256, VERTICES.shape).astype(np.uint8)


def write_in_blocks(path: Path, vertices: np.ndarray, has_colors: bool = False) -> None:
    normals = (vertices - vertices.mean(axis=0)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    with open_mesh_writer(path, len(vertices), len(FACES), has_colors, vertices.mean(axis=0)) as writer:
        for part in np.array_split(np.arange(len(vertices)), 5):
            writer.vertices(vertices[part], normals[part], COLORS[part] if has_colors else None)
        for faces in np.array_split(FACES, 3):
            writer.faces(faces)


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_trimesh_and_open3d_read_the_same_surface(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    write_in_blocks(path, VERTICES, has_colors=suffix in (".ply", ".obj", ".glb"))
    ours = read_mesh(path)
    assert len(ours.faces) == len(FACES)
    theirs = o3d.io.read_triangle_mesh(str(path))
    assert len(theirs.triangles) == len(FACES)
    for vertices in (ours.vertices, np.asarray(theirs.vertices)):
        np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 2.0, atol=1e-5)
    if suffix != ".stl":  # its vertices come in the order of the faces' corners
        np.testing.assert_allclose(ours.vertices, VERTICES, atol=1e-6 if suffix == ".glb" else 1e-12)
        np.testing.assert_array_equal(ours.faces, FACES)
    assert len(ours.vertices) == len(VERTICES)
    if suffix in (".ply", ".obj"):
        stored = np.asarray(theirs.vertex_normals)
        np.testing.assert_allclose(stored, np.asarray(theirs.vertices) / 2.0, atol=1e-4)
        np.testing.assert_array_equal(ours.colors, COLORS)


def test_glb_is_upright_and_exact_far_from_the_origin(tmp_path: Path) -> None:
    offset = np.array([5_000_000.25, 4_000_000.5, 300.125])
    write_in_blocks(tmp_path / "a.glb", VERTICES + offset)
    raw = trimesh.load(tmp_path / "a.glb", process=False, force="mesh").vertices
    back = np.stack([raw[:, 0], -raw[:, 2], raw[:, 1]], axis=1)  # y up to z up
    np.testing.assert_allclose(back - offset, VERTICES, atol=1e-6)
    np.testing.assert_allclose(read_mesh(tmp_path / "a.glb").vertices - offset, VERTICES, atol=1e-6)


def test_stl_refuses_what_single_precision_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(MeshError, match="single-precision"):
        write_in_blocks(tmp_path / "a.stl", VERTICES + 5_000_000.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_failure_half_way_leaves_nothing_and_keeps_the_old_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("old")
    with (
        pytest.raises(RuntimeError, match="interrupted"),
        open_mesh_writer(path, len(VERTICES), len(FACES), False, (0, 0, 0)) as writer,
    ):
        writer.vertices(VERTICES, VERTICES.astype(np.float32), None)
        raise RuntimeError("interrupted")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "old"


@pytest.mark.parametrize("suffix", MESH_SUFFIXES)
def test_a_full_disk_is_one_clear_error(suffix: str, tmp_path: Path) -> None:
    # A limit on file size stands for the full disk: writing fails in the same place, by the same kind of error.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(MeshError, match=rf"a\{suffix}: cannot be written"):
            write_in_blocks(tmp_path / f"a{suffix}", VERTICES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_the_callers_own_errors_pass_as_they_are(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="a tile"),
        open_mesh_writer(tmp_path / "a.ply", 1, 1, False, (0, 0, 0)),
    ):
        raise FileNotFoundError("a tile")
    assert list(tmp_path.iterdir()) == []


def test_fewer_faces_than_declared_is_a_bug_that_shows(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="fewer faces"),
        open_mesh_writer(tmp_path / "a.ply", len(VERTICES), len(FACES), False, (0, 0, 0)) as writer,
    ):
        writer.vertices(VERTICES, VERTICES.astype(np.float32), None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", None, "no such file"),
        ("a.txt", b"x", "not a mesh format"),
        ("a.ply.gz", b"x", "not a mesh format; unpack it first, with gunzip"),
        ("a.gltf", b"{}", "not a mesh format; save it as GLB"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\n", "no faces|cannot be read"),
        ("a.glb", b"garbage", "cannot be read"),
        ("a.off", b"OFF\n1 1 0\n0 0 0\n3 0 1 2\n", "missing vertices|cannot be read"),
    ],
)
def test_what_is_no_mesh_says_why(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MeshError, match=message) as error:
        read_mesh(tmp_path / name)
    assert name in str(error.value)


def test_write_mesh_gives_outward_normals(tmp_path: Path) -> None:
    write_mesh(tmp_path / "a.ply", VERTICES, FACES)
    normals = np.asarray(o3d.io.read_triangle_mesh(str(tmp_path / "a.ply")).vertex_normals)
    assert ((normals * VERTICES).sum(axis=1) > 0).all()
