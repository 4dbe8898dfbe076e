"""Voxel grids of the unit cube: from a mesh, and from binvox files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError
from preprocessing.native import load_open3d
from preprocessing.occupancy_labels import label_solid


def voxelize(vertices: NDArray[np.float64], faces: NDArray[np.int64], side: int = 32) -> NDArray[np.bool_]:
    """Voxels of the unit cube that a watertight mesh fills or touches, as binvox makes them.

    Args:
        vertices, faces: a watertight mesh in the unit cube centered at 0.
        side: R, voxels along each axis.

    Returns:
        (R, R, R) bool indexed x, y, z; voxel (0, 0, 0) is centered at -0.5 + 0.5 / R.
    """
    centers = (np.arange(side) + 0.5) / side - 0.5
    grid = np.stack(np.meshgrid(centers, centers, centers, indexing="ij"), axis=-1)
    filled = label_solid(vertices, faces, grid.reshape(-1, 3)).reshape(side, side, side)
    o3d = load_open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(faces.astype(np.int32))
    )
    touched = o3d.geometry.VoxelGrid.create_from_triangle_mesh_within_bounds(
        mesh, 1.0 / side, np.full(3, -0.5), np.full(3, 0.5)
    )
    cells = np.array([voxel.grid_index for voxel in touched.get_voxels()], np.int64).reshape(-1, 3)
    cells = cells[((cells >= 0) & (cells < side)).all(axis=1)]
    filled[tuple(cells.T)] = True
    return filled


def read_binvox(path: Path) -> NDArray[np.bool_]:
    """Read a binvox file (run-length code, version 1; stored x, z, y) as (R, R, R) bool indexed x, y, z.

    Raises:
        MeshError: if the file is not binvox or is truncated.
    """
    data = Path(path).read_bytes()
    head, found, body = data.partition(b"\ndata\n")
    lines = head.decode("latin-1").splitlines()
    sides = [line.split()[1:] for line in lines if line.startswith("dim ")]
    is_binvox = bool(found) and lines[0].startswith("#binvox") and len(sides) == 1 and len(sides[0]) == 3
    if not is_binvox or not all(side.isdecimal() for side in sides[0]):
        raise MeshError(f"{path}: not a binvox file; copy it again")
    shape = tuple(int(side) for side in sides[0])
    runs = np.frombuffer(body[: len(body) // 2 * 2], np.uint8).reshape(-1, 2)
    values = np.repeat(runs[:, 0], runs[:, 1])
    if values.size != np.prod(shape):
        raise MeshError(f"{path}: is truncated: {values.size:,} of {np.prod(shape):,} voxels; copy it again")
    return values.reshape(shape).transpose(0, 2, 1).astype(np.bool_)
