"""Voxel grids against winding numbers and clipped faces; binvox files written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.voxel_grids import read_binvox, voxelize
from tests.references.winding_number import winding_numbers

SIDE = 12


def arrays(mesh: trimesh.Trimesh) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def tilted(mesh: trimesh.Trimesh, seed: int) -> trimesh.Trimesh:
    """Turned at random, in the unit cube, so that no face lies on a voxel's."""
    rng = np.random.default_rng(seed)
    mesh = mesh.copy().apply_transform(trimesh.transformations.random_rotation_matrix(rng.random(3)))
    mesh.apply_translation(-mesh.bounds.mean(axis=0))
    return mesh.apply_scale(0.97 / mesh.extents.max())


MESHES = {
    "ball": tilted(trimesh.creation.icosphere(1), 1),
    "torus": tilted(trimesh.creation.torus(1, 0.3, major_sections=16, minor_sections=8), 2),
    "plate": tilted(trimesh.creation.box((1, 0.8, 0.01)), 3),
    "crossing": tilted(
        trimesh.util.concatenate(
            [trimesh.creation.box((1, 0.4, 0.4)), trimesh.creation.box((0.3, 0.9, 0.5))]
        ),
        4,
    ),
}


def centers(side: int) -> NDArray[np.float64]:
    """(side, side, side, 3) of the voxels of the unit cube."""
    axis = np.linspace(-0.5, 0.5, side, endpoint=False) + 0.5 / side
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def reaches_into(corners: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
    """Whether anything of a triangle is left after clipping it by the six sides of a box (Sutherland and Hodgman)."""
    polygon = [*corners]
    for axis in range(3):
        for sign, limit in ((1, low[axis]), (-1, -high[axis])):
            kept = []
            for start, end in zip(polygon, polygon[1:] + polygon[:1], strict=True):
                at_start, at_end = sign * start[axis] - limit, sign * end[axis] - limit
                if at_start >= 0:
                    kept.append(start)
                if (at_start >= 0) != (at_end >= 0):
                    kept.append(start + (end - start) * at_start / (at_start - at_end))
            polygon = kept
            if not polygon:
                return False
    return True


def touched(mesh: trimesh.Trimesh, side: int) -> NDArray[np.bool_]:
    result = np.zeros((side,) * 3, np.bool_)
    for corners in mesh.triangles:
        first = np.clip(np.floor((corners.min(axis=0) + 0.5) * side).astype(int), 0, side - 1)
        last = np.clip(np.floor((corners.max(axis=0) + 0.5) * side).astype(int), 0, side - 1)
        for cell in np.ndindex(*(last - first + 1)):
            low = (first + cell) / side - 0.5
            if not result[tuple(first + cell)]:
                result[tuple(first + cell)] = reaches_into(corners, low, low + 1 / side)
    return result


@pytest.mark.parametrize("name", MESHES)
def test_voxels_are_those_that_are_filled_or_touched(name: str) -> None:
    mesh = MESHES[name]
    vertices, faces = arrays(mesh)
    inside = winding_numbers(vertices, faces, centers(SIDE).reshape(-1, 3)).round() > 0
    expected = inside.reshape((SIDE,) * 3) | touched(mesh, SIDE)
    voxels = voxelize(vertices, faces, SIDE)
    assert voxels.dtype == np.bool_
    assert 0 < voxels.sum() < voxels.size
    np.testing.assert_array_equal(voxels, expected)


@pytest.mark.parametrize("name", MESHES)
def test_every_sample_of_the_surface_lies_in_a_voxel(name: str) -> None:
    mesh = MESHES[name]
    samples = trimesh.sample.sample_surface(mesh, 100_000, seed=1)[0]
    cells = np.floor((samples + 0.5) * 32).astype(int)
    assert voxelize(*arrays(mesh))[tuple(cells.T)].all()


@pytest.mark.parametrize("side", [8, 32])
def test_a_full_cube_fills_every_voxel(side: int) -> None:
    assert voxelize(*arrays(trimesh.creation.box()), side).all()


def test_axes_are_x_y_z() -> None:
    low, high = np.array([-0.4, 0.1, -0.3]), np.array([0.4, 0.3, 0.2])
    voxels = voxelize(*arrays(trimesh.creation.box(bounds=[low, high])), 16)
    cells = centers(16)
    reach = 0.5 / 16
    expected = ((cells + reach > low) & (cells - reach < high)).all(axis=-1)
    np.testing.assert_array_equal(voxels, expected)


def write_binvox(path: Path, voxels: NDArray[np.bool_]) -> bytes:
    """As the format's author describes it: y runs fastest, then z, then x; runs of at most 255."""
    sides = voxels.shape
    flat = [int(voxels[x, y, z]) for x in range(sides[0]) for z in range(sides[2]) for y in range(sides[1])]
    body = bytearray()
    while flat:
        run = 1
        while run < min(255, len(flat)) and flat[run] == flat[0]:
            run += 1
        body += bytes([flat[0], run])
        flat = flat[run:]
    header = f"#binvox 1\ndim {sides[0]} {sides[2]} {sides[1]}\ntranslate -0.5 -0.5 -0.5\nscale 1\ndata\n"
    path.write_bytes(header.encode() + body)
    return bytes(body)


@pytest.mark.parametrize("shape", [(8, 8, 8), (4, 6, 5), (1, 1, 700)])
def test_a_binvox_file_is_read_as_written(shape: tuple[int, int, int], tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).random(shape) < 0.3
    voxels[0] = True
    write_binvox(tmp_path / "a.binvox", voxels)
    np.testing.assert_array_equal(read_binvox(tmp_path / "a.binvox"), voxels)


def test_a_binvox_file_of_eight_voxels_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "a.binvox").write_bytes(b"#binvox 1\ndim 2 2 2\ndata\n\x00\x01\x01\x02\x00\x05")
    expected = np.zeros((2, 2, 2), np.bool_)
    expected[0, 1, 0] = expected[0, 0, 1] = True  # the second and third of y fastest, then z
    np.testing.assert_array_equal(read_binvox(tmp_path / "a.binvox"), expected)


@pytest.mark.parametrize("lost", [1, 2, 7])
def test_a_truncated_binvox_file_is_refused(lost: int, tmp_path: Path) -> None:
    write_binvox(tmp_path / "a.binvox", np.random.default_rng(0).random((8, 8, 8)) < 0.5)
    data = (tmp_path / "a.binvox").read_bytes()
    (tmp_path / "a.binvox").write_bytes(data[:-lost])
    with pytest.raises(MeshError, match=r"a\.binvox: is truncated: \d+ of 512 voxels"):
        read_binvox(tmp_path / "a.binvox")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ply\nformat ascii 1.0\n",
        b"#binvox 1\ndim 2 2\ndata\n\x00\x08",
        b"#binvox 1\ndim 2 2 two\ndata\n\x00\x08",
        b"#binvox 1\ndim 2 2 2\n",
        b"hello\ndim 2 2 2\ndata\n\x00\x08",
    ],
)
def test_what_is_not_binvox_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.binvox").write_bytes(data)
    with pytest.raises(MeshError, match="not a binvox file"):
        read_binvox(tmp_path / "a.binvox")
