"""Sequences of moving bodies: recorded meshes of fixed topology, the originals' files, and procedural bodies.

Every sequence is cut into windows of T consecutive frames (17 in Niemeyer et al. 2019). A window has one location
and scale, so motion through space stays, and its points are in correspondence.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.dataset import BLOCK, DatasetLayout, ShapeSamples
from preprocessing.dataset.samples import Provenance
from preprocessing.errors import DatasetError, MeshError
from preprocessing.mesh_files import MESH_SUFFIXES, read_mesh
from preprocessing.mesh_samples import PADDED_SIDE, near_surface
from preprocessing.moving_bodies import KINDS, moving_body
from preprocessing.occupancy_labels import label_solid
from preprocessing.sources.prepared_shapes import load_arrays, unpack, whole_blocks
from preprocessing.sources.splits import SplitShares, name_seed
from preprocessing.sources.unit import Collection, NamedUnit, Unit
from preprocessing.surface_sampling import place_samples, sample_triangles
from preprocessing.watertight import make_watertight
from preprocessing.watertight.cleaning import edge_use, orient

FRAMES = 17
SHAPES_PER_SHARD = 4
CLOUDS, QUERIES = "pcl_seq", "points_seq"


@dataclass(frozen=True)
class BodiesConfig:
    """Which procedural bodies to prepare.

    Attributes:
        sequences: how many; articulated, bending, twisting and deforming in turn.
        frames: times of each, evenly spread over its motion.
        seed: of the first body; the same seed gives the same bytes.
    """

    sequences: int = 64
    frames: int = FRAMES
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sequences < 1 or self.frames < 2:
            raise ValueError("ask for at least one sequence of two frames")


@dataclass(frozen=True)
class BodyUnit:
    """One procedural body."""

    seed: int

    @property
    def kind(self) -> str:
        """How it moves: the kinds take turns."""
        return KINDS[self.seed % len(KINDS)]

    @property
    def names(self) -> tuple[str, ...]:
        """Kind and seed."""
        return (f"{self.kind}-{self.seed:08d}",)

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Exact correspondences, and exact occupancy at every time."""
        body = moving_body(self.seed, self.kind)
        rng = np.random.default_rng([self.seed, 6])
        times = np.linspace(0, 1, layout.frames)
        points, normals = body.surface(max(layout.points, layout.near_queries), times, rng)
        low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
        location, scale = 0.5 * (low + high), float((high - low).max())
        uniform, near = _queries((points - location) / scale, layout, rng)
        asked = np.concatenate([uniform, near], axis=1).astype(np.float64) * scale + location
        occupied = np.stack([body.occupancy(now, time) for now, time in zip(asked, times, strict=True)])
        surface = (points - location) / scale, normals
        unit = NamedUnit("", self.names[0], self.kind, SplitShares().of(self.seed))
        facts: Provenance = {"seed": self.seed, "method": "procedural"}
        return [_window(unit, layout, surface, (uniform, near), occupied, location, scale, facts)]


@dataclass(frozen=True)
class MeshSequenceUnit(NamedUnit):
    """A window of a recorded sequence of meshes with the same faces.

    Attributes:
        files: of the whole recording: its meshes, or the one .npz file.
        first: the window's first frame.
    """

    files: tuple[str, ...]
    first: int

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Points that keep their triangle and barycentric weights; labels from each frame's mesh."""
        vertices, triangles = read_frames(self.files, self.first, layout.frames)
        low, high = vertices.min(axis=(0, 1)), vertices.max(axis=(0, 1))
        location, scale = 0.5 * (low + high), float((high - low).max())
        vertices = (vertices - location) / scale
        rng = np.random.default_rng([name_seed(self.name), 7])
        count = max(layout.points, layout.near_queries)
        chosen, weights = sample_triangles(vertices[0], triangles, count, rng)
        placed = [place_samples(frame, triangles, chosen, weights) for frame in vertices]
        points, normals = (np.stack(part) for part in zip(*placed, strict=True))
        queries = _queries(points, layout, rng)
        occupied, method = label_frames(vertices, triangles, np.concatenate(queries, axis=1))
        facts: Provenance = {"file": self.files[0], "first_frame": self.first, "method": method}
        return [_window(self, layout, (points, normals), queries, occupied, location, scale, facts)]


@dataclass(frozen=True)
class PreparedSequenceUnit(NamedUnit):
    """A window, from frame `first`, of a sequence as the authors of Occupancy Flow prepared it."""

    first: int

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Every frame moved to the first one's location and scale; these files have no normals."""
        window = slice(self.first, self.first + layout.frames)
        clouds = sorted((Path(self.path) / CLOUDS).glob("*.npz"))[window]
        asked = sorted((Path(self.path) / QUERIES).glob("*.npz"))[window]
        if len(asked) < layout.frames:
            raise DatasetError(f"{self.path}: {QUERIES} has fewer frames than {CLOUDS}")
        first = load_arrays(clouds[0], ("loc", "scale"))
        location, scale = first["loc"].astype(np.float64).reshape(3), float(first["scale"])

        def to_first(frame: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
            world = frame["loc"].astype(np.float64).reshape(3) + float(frame["scale"]) * frame[
                "points"
            ].astype(np.float64)
            return np.asarray((world - location) / scale, np.float32)

        points = [to_first(load_arrays(path, ("points", "loc", "scale"))) for path in clouds]
        if len({len(frame) for frame in points}) != 1:
            raise DatasetError(
                f"{self.path}: its frames have different numbers of points, so no correspondences"
            )
        queries, occupied = [], []
        for path in asked:
            frame = load_arrays(path, ("points", "occupancies", "loc", "scale"))
            own = to_first(frame)
            fill = np.arange(layout.uniform_queries) % len(own)
            queries.append(own[fill])
            occupied.append(unpack(frame["occupancies"], len(own))[fill])
        kept = np.stack(points)[:, : layout.points]
        frames = layout.frames
        return [
            ShapeSamples(
                points=kept,
                normals=np.zeros_like(kept),
                uniform_queries=np.stack(queries),
                uniform_occupancy=np.stack(occupied),
                near_queries=np.zeros((frames, 0, 3), np.float32),
                near_occupancy=np.zeros((frames, 0), np.bool_),
                location=location,
                scale=scale,
                category=self.category,
                split=self.split,
                name=self.name,
                times=np.linspace(0, 1, frames, dtype=np.float32),
                provenance={"file": self.path, "first_frame": self.first, "method": "prepared"},
            )
        ]


def bodies_collection(config: BodiesConfig) -> Collection:
    """Seeded procedural bodies."""
    units = tuple(BodyUnit(config.seed + number) for number in range(config.sequences))
    layout = _layout(len(units), KINDS, config.frames)
    provenance = {"source": "bodies", "sequences": config.sequences, "frames": config.frames}
    return Collection(units, layout, provenance | {"seed": config.seed})


def humans_collection(root: Path, frames: int = FRAMES) -> Collection:
    """Every sequence below a folder, cut into windows of so many frames.

    A sequence is a folder of at least two mesh files of equal topology, in the order of their names (D-FAUST
    after extraction); an .npz file with `vertices` (T, V, 3) and `faces` (F, 3); or a folder with `pcl_seq` and
    `points_seq`. The first folder of its path is its category.

    Raises:
        DatasetError: if there is no sequence.
    """
    root = Path(root).absolute()
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder")
    prepared = sorted(folder.parent for folder in root.rglob(CLOUDS) if folder.is_dir())
    units: list[Unit] = []
    if prepared:
        for folder in prepared:
            count = len(list((folder / CLOUDS).glob("*.npz")))
            name, category, split = _place(root, folder)
            for first in _windows(count, frames):
                window = f"{name}/{first:06d}"
                units.append(PreparedSequenceUnit(str(folder), window, category, split, first))
        points = len(
            load_arrays(next(iter(sorted((prepared[0] / CLOUDS).glob("*.npz")))), ("points",))["points"]
        )
        first_queries = sorted((prepared[0] / QUERIES).glob("*.npz"))
        queries = len(load_arrays(first_queries[0], ("points",))["points"]) if first_queries else BLOCK
        sizes = whole_blocks(points), whole_blocks(queries), 0
    else:
        for place, files, count in _recordings(root):
            name, category, split = _place(root, place)
            for first in _windows(count, frames):
                window = f"{name}/{first:06d}"
                units.append(MeshSequenceUnit(str(place), window, category, split, files, first))
        sizes = 5 * BLOCK, 10 * BLOCK, 10 * BLOCK
    if not units:
        raise DatasetError(
            f"{root}: holds no sequence: neither folders of meshes, .npz files with vertices and faces, "
            f"nor folders with {CLOUDS} and {QUERIES}"
        )
    categories = sorted({getattr(unit, "category") for unit in units})  # noqa: B009 (units of two kinds)
    text = json.dumps([unit.names for unit in units])
    windows = {"count": len(units), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    provenance = {"source": "humans", "prepared": bool(prepared), "windows": windows, "frames": frames}
    return Collection(tuple(units), _layout(len(units), categories, frames, *sizes), provenance)


def read_frames(
    files: tuple[str, ...], first: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (T, V, 3) of consecutive frames and their common triangles (F, 3), equal vertices merged.

    Raises:
        MeshError: if there are too few frames, or they differ in topology.
        DatasetError: if an .npz file lacks an array.
    """
    if len(files) == 1:
        stored = load_arrays(Path(files[0]), ("vertices", "faces"))
        vertices = stored["vertices"][first : first + count].astype(np.float64)
        triangles = stored["faces"].astype(np.int64)
        if vertices.ndim != 3 or triangles.ndim != 2 or triangles.max(initial=0) >= vertices.shape[1]:
            raise MeshError(f"{files[0]}: vertices must be (T, V, 3) and faces (F, 3) rows of them")
    else:
        meshes = [read_mesh(Path(file)) for file in files[first : first + count]]
        for file, mesh in zip(files[first:], meshes, strict=False):
            if len(mesh.vertices) != len(meshes[0].vertices) or (mesh.triangles != meshes[0].triangles).any():
                raise MeshError(f"{file}: has another topology than {files[first]}: no correspondences")
        vertices, triangles = np.stack([mesh.vertices for mesh in meshes]), meshes[0].triangles
    if len(vertices) < count:
        raise MeshError(f"{files[0]}: {len(vertices)} frames are fewer than {count}; pass a smaller --frames")
    # Vertices that move as one are one: texture seams split them.
    tracks = np.moveaxis(vertices, 0, 1).reshape(vertices.shape[1], -1)
    merged, rows = np.unique(tracks, axis=0, return_inverse=True)
    faces = rows.reshape(-1)[triangles]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return np.moveaxis(merged.reshape(len(merged), len(vertices), 3), 1, 0), faces


def label_frames(
    vertices: NDArray[np.float64], triangles: NDArray[np.int64], queries: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], str]:
    """Occupancy (T, N) of queries (T, N, 3) in each frame's mesh, and the method.

    A closed mesh is labelled as it is, self-crossings included; an open one is closed frame by frame.
    """
    asked = queries.astype(np.float64)
    turned = None if (edge_use(triangles) != 2).any() else orient(vertices[0], triangles)
    if turned is not None:
        return np.stack([label_solid(f, turned, q) for f, q in zip(vertices, asked, strict=True)]), "exact"
    occupied = []
    for frame, now in zip(vertices, asked, strict=True):
        solid = make_watertight(frame, triangles)
        occupied.append(label_solid(solid.vertices, solid.triangles, (now - solid.location) / solid.scale))
    return np.stack(occupied), "visibility"


def _window(
    unit: NamedUnit,
    layout: DatasetLayout,
    surface: tuple[NDArray[np.float64], NDArray[np.float64]],
    queries: tuple[NDArray[np.float32], NDArray[np.float32]],
    occupied: NDArray[np.bool_],
    location: NDArray[np.float64],
    scale: float,
    provenance: Provenance,
) -> ShapeSamples:
    """A sequence from its surface points and normals (T, N, 3), queries of both kinds and all labels (T, U + K)."""
    return ShapeSamples(
        points=surface[0][:, : layout.points].astype(np.float32),
        normals=surface[1][:, : layout.points].astype(np.float32),
        uniform_queries=queries[0],
        uniform_occupancy=occupied[:, : layout.uniform_queries],
        near_queries=queries[1],
        near_occupancy=occupied[:, layout.uniform_queries :],
        location=location,
        scale=scale,
        category=unit.category,
        split=unit.split,
        name=unit.name,
        times=np.linspace(0, 1, layout.frames, dtype=np.float32),
        provenance=provenance,
    )


def _queries(
    surface: NDArray[np.float64], layout: DatasetLayout, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Uniform and near-surface queries of every frame, in the unit cube."""
    shape = (layout.frames, layout.uniform_queries, 3)
    uniform = rng.uniform(-PADDED_SIDE / 2, PADDED_SIDE / 2, shape)
    near = np.stack(
        [near_surface(frame[rng.permutation(len(frame))[: layout.near_queries]], rng) for frame in surface]
    )
    return uniform.astype(np.float32), near.astype(np.float32)


def _layout(
    shapes: int,
    categories: tuple[str, ...] | list[str],
    frames: int,
    points: int = 5 * BLOCK,
    uniform: int = 10 * BLOCK,
    near: int = 10 * BLOCK,
) -> DatasetLayout:
    return DatasetLayout(
        shapes, tuple(categories), points, uniform, near, shapes_per_shard=SHAPES_PER_SHARD, frames=frames
    )


def _windows(count: int, frames: int) -> range:
    """First frames of the windows; a sequence that is too short keeps one, whose making tells so."""
    return range(0, max(1, count - frames + 1), frames)


def _place(root: Path, place: Path) -> tuple[str, str, str]:
    """Name, category and split of a sequence, by its path below the root."""
    name = place.relative_to(root).with_suffix("").as_posix() if place != root else root.name
    category = name.split("/")[0] if "/" in name else root.name
    return name, category, SplitShares().of_name(name)


def _recordings(root: Path) -> list[tuple[Path, tuple[str, ...], int]]:
    """Folders of meshes and .npz files with `vertices`: place, files and number of frames."""
    found: list[tuple[Path, tuple[str, ...], int]] = []
    for folder in [root, *sorted(path for path in root.rglob("*") if path.is_dir())]:
        files = sorted(str(path) for path in folder.iterdir() if path.suffix.lower() in MESH_SUFFIXES)
        if len(files) > 1:
            found.append((folder, tuple(files), len(files)))
        for path in sorted(folder.glob("*.npz")):
            with np.load(path, allow_pickle=False) as stored:
                if "vertices" in stored.files:
                    found.append((path, (str(path),), len(stored["vertices"])))
    return found
