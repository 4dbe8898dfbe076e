"""Closed solids whose surface is known exactly: collected meshes made watertight, and procedural ones."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from preprocessing.formats import MESH_SUFFIXES
from preprocessing.meshes.files import read_mesh, write_mesh
from preprocessing.watertight import make_watertight

Floats = NDArray[np.float64]
Faces = NDArray[np.int64]

BLOB_CELLS = 160  # of the lattice along a blob's longest side
Y_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # to z up
Y_UP_FOLDERS = ("objects_kaykit",)


@dataclass(frozen=True)
class ClosedSolid:
    """A watertight surface, facing out, z up.

    Attributes:
        name: unique.
        vertices: (V, 3) float64, centered at 0, in the unit of its source.
        faces: (F, 3) int64.
    """

    name: str
    vertices: Floats
    faces: Faces

    @property
    def longest_side(self) -> float:
        """Of the box around it."""
        return float(np.ptp(self.vertices, axis=0).max())

    def scaled(self, factor: float) -> ClosedSolid:
        """The same shape at another size."""
        return ClosedSolid(self.name, self.vertices * factor, self.faces)


def collected_solids(root: Path, cache: Path, limit: int | None = None) -> list[ClosedSolid]:
    """The meshes below a folder, closed as `tessera preprocess meshes` closes them.

    Args:
        root: folder of mesh files.
        cache: folder for the closed meshes, which take up to half a minute each.
        limit: take so many, spread over all.
    """
    files = sorted(path for path in root.rglob("*") if path.suffix.lower() in MESH_SUFFIXES)
    if limit is not None and limit < len(files):
        files = [files[row] for row in np.linspace(0, len(files) - 1, limit).round().astype(int)]
    return [collected_solid(path, cache) for path in files]


def collected_solid(path: Path, cache: Path) -> ClosedSolid:
    """One mesh file, closed; see `collected_solids`."""
    stored = cache / f"{path.parent.name}-{path.stem}.ply"
    if not stored.exists():
        print(f"closing {path.name} ...", file=sys.stderr, flush=True)
        soup = read_mesh(path)
        solid = make_watertight(soup.vertices, soup.faces)
        vertices = solid.vertices * solid.scale
        if path.parent.name in Y_UP_FOLDERS:
            vertices = vertices @ Y_UP.T
        write_mesh(stored, vertices, solid.faces)
    mesh = read_mesh(stored)
    return ClosedSolid(path.stem, mesh.vertices, mesh.faces)


def procedural_solids(blobs: int, seed: int = 0) -> list[ClosedSolid]:
    """A box, a sphere, a torus, and organic blobs with a body, a head, ears, feet and a tail."""
    shapes = {
        "box": trimesh.creation.box((1.0, 0.6, 0.4)),
        "sphere": trimesh.creation.icosphere(subdivisions=5, radius=0.5),
        "torus": trimesh.creation.torus(0.35, 0.15, major_sections=256, minor_sections=128),
    }
    solids = [
        ClosedSolid(name, np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))
        for name, mesh in shapes.items()
    ]
    return solids + [_blob(seed + number) for number in range(blobs)]


def _blob(seed: int) -> ClosedSolid:
    """A smooth union of balls and limbs in the proportions of a sitting rabbit, each animal another."""
    rng = np.random.default_rng([seed, 77])
    head = np.array([0.30, 0.0, 0.30]) + rng.normal(0, 0.03, 3) * (1, 0, 1)
    radius = rng.uniform(0.14, 0.19)
    limbs = [  # start, end, radius
        (np.array([-0.12, 0.0, 0.0]), np.array([0.12, 0.0, 0.08]), rng.uniform(0.24, 0.30)),
        (head, head + np.array([0.06, 0.0, -0.02]), radius),
        (np.array([-0.38, 0.0, 0.02]), np.array([-0.40, 0.0, 0.04]), rng.uniform(0.06, 0.09)),
    ]
    length, thin = rng.uniform(0.22, 0.36), rng.uniform(0.035, 0.06)
    for side in (-1.0, 1.0):
        foot = np.array([0.0, side * rng.uniform(0.14, 0.2), -0.24])
        ear = head + np.array([-0.05, side * 0.08, 0.12])
        lean = np.array([rng.uniform(-0.9, 0.1), side * rng.uniform(0.1, 0.5), 1.0])
        limbs.append((ear, ear + length * lean / np.linalg.norm(lean), thin))
        for start, end, low, high in ((-0.2, 0.02, 0.06, 0.09), (0.22, 0.3, 0.045, 0.07)):
            ahead = np.array([1.0, 0.0, 0.0])
            limbs.append((foot + start * ahead, foot + end * ahead, rng.uniform(low, high)))
    ends = np.array([[start, end] for start, end, _ in limbs])
    radii = np.array([radius for *_, radius in limbs])
    low, high = (
        (ends.min(axis=1) - radii[:, None]).min(axis=0),
        (ends.max(axis=1) + radii[:, None]).max(axis=0),
    )
    spacing = float((high - low).max()) / BLOB_CELLS
    axes = [np.arange(a - 4 * spacing, b + 4 * spacing, spacing) for a, b in zip(low, high, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    blended = np.zeros(places.shape[:3])
    for (start, end), thickness in zip(ends, radii, strict=True):
        along = end - start
        share = np.clip((places - start) @ along / (along @ along), 0, 1)
        distance = np.linalg.norm(places - start - share[..., None] * along, axis=-1) - thickness
        blended += np.exp(-distance / 0.02)  # log-sum-exp: a smooth minimum of the distances
    vertices, faces, _, _ = marching_cubes(  # type: ignore[no-untyped-call]
        -0.02 * np.log(blended), 0.0, spacing=(spacing,) * 3
    )
    body = max(
        trimesh.Trimesh(vertices, faces).split(only_watertight=True), key=lambda part: float(part.volume)
    )
    points = np.asarray(body.vertices, np.float64)
    points -= (points.min(axis=0) + points.max(axis=0)) / 2
    return ClosedSolid(f"blob-{seed}", points, np.asarray(body.faces, np.int64))
