"""Scans of real rooms for evaluation: ScanNet (Dai et al. 2017) and Matterport3D (Chang et al. 2017), in meters."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.local_paths import local_path
from preprocessing.dataset import DatasetLayout, ShapeSamples
from preprocessing.errors import DatasetError
from preprocessing.meshes.files import read_mesh
from preprocessing.sources.folders import read_text
from preprocessing.sources.splits import name_seed, read_lists
from preprocessing.sources.unit import Collection, NamedUnit, fingerprint
from preprocessing.surface_sampling import sample_surface
from preprocessing.watertight.cleaning import clean_soup

SCANNET_FILES = ("_vh_clean.ply", "_vh_clean_2.ply")  # the full mesh, then the one with fewer faces


@dataclass(frozen=True)
class SceneUnit(NamedUnit):
    """One scanned scene: a mesh, and for ScanNet a file that says which way is up."""

    alignment: str | None = None

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Points sampled on the scan's surface; a scan has no inside, so there are no queries."""
        path = Path(self.path)
        mesh = read_mesh(path)
        vertices, faces = clean_soup(mesh.vertices, mesh.faces)
        if self.alignment is not None:
            matrix = axis_alignment(Path(self.alignment))
            vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
        rng = np.random.default_rng([name_seed(self.name), 5])
        points, normals = sample_surface(vertices, faces, layout.points, rng)
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        location, scale = 0.5 * (low + high), float((high - low).max())
        return [
            ShapeSamples(
                points=((points - location) / scale).astype(np.float32),
                normals=normals.astype(np.float32),
                location=location,
                scale=scale,
                category=self.category,
                split=self.split,
                name=self.name,
                has_scan_noise=True,
                provenance={
                    "file": self.path,
                    "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
                    "aligned": self.alignment is not None,
                },
            )
        ]


def axis_alignment(path: Path) -> NDArray[np.float64]:
    """The (4, 4) matrix of a ScanNet scene's text file, row by row after `axisAlignment =`.

    Raises:
        DatasetError: if the line is there but is no rigid motion.
    """
    for line in read_text(path).splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            try:
                matrix = np.array([float(number) for number in value.split()]).reshape(4, 4)
            except ValueError as error:
                raise DatasetError(f"{path}: axisAlignment is not 16 numbers") from error
            if not np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-3):
                raise DatasetError(f"{path}: axisAlignment is not a rotation and a shift")
            return matrix
    return np.eye(4)


def scannet_collection(root: Path) -> Collection:
    """Every scene folder with a `_vh_clean*.ply`; `scannetv2_train.txt` and so on give the splits, else test.

    Raises:
        DatasetError: if there is no scene.
    """
    root = local_path(root).absolute()
    scenes: dict[str, Path] = {}
    for suffix in reversed(SCANNET_FILES):
        scenes |= {path.parent.name: path for path in sorted(root.rglob(f"*{suffix}"))}
    splits = read_lists((split, root / f"scannetv2_{split}.txt") for split in ("train", "val", "test"))
    units = []
    for name, path in sorted(scenes.items()):
        text = path.with_name(f"{name}.txt")
        alignment = str(text) if text.is_file() else None
        units.append(SceneUnit(str(path), name, "scene", splits.get(name, "test"), alignment))
    return _scenes("scannet", root, units, f"scene folders with *{SCANNET_FILES[0]}")


def matterport_collection(root: Path) -> Collection:
    """Regions (`region*.ply`) of every house, or whole houses where a house's folder has no regions.

    Raises:
        DatasetError: if there is no PLY file.
    """
    root = local_path(root).absolute()
    houses = sorted(folder for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []
    units = []
    for house in [*houses, *([root] if root.is_dir() and list(root.glob("*.ply")) else [])]:
        files = sorted(house.rglob("*.ply") if house != root else house.glob("*.ply"))
        regions = [path for path in files if path.name.startswith("region")]
        for path in regions or files:
            name = f"{house.name}/{path.stem}"
            units.append(SceneUnit(str(path), name, "region" if regions else "house", "test"))
    return _scenes("matterport", root, units, "houses with *.ply")


def _scenes(source: str, root: Path, units: list[SceneUnit], wanted: str) -> Collection:
    if not units:
        raise DatasetError(f"{root}: holds no {wanted}")
    categories = tuple(sorted({unit.category for unit in units}))
    layout = DatasetLayout(len(units), categories, uniform_queries=0, near_queries=0)
    scenes = fingerprint([(unit.name, unit.split) for unit in units])
    return Collection(tuple(units), layout, {"source": source, "scenes": scenes})
