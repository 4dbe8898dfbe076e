"""Sequences of moving bodies: recorded meshes of fixed topology, and procedural bodies.

Every sequence is cut into windows of T consecutive frames (17 in Niemeyer et al. 2019). A window has one location
and scale, so motion through space stays, and its points are in correspondence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from foundation.settings import check_at_least
from preprocessing.dataset import BLOCK, DatasetLayout, ShapeSamples, Views
from preprocessing.dataset.samples import Provenance
from preprocessing.errors import DatasetError, MeshError
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.mesh_samples import PADDED_SIDE, near_surface
from preprocessing.meshes.files import read_mesh, up_axis
from preprocessing.numpy_archives import open_archive
from preprocessing.occupancy_labels import label_solid
from preprocessing.pictures.views import render_views
from preprocessing.procedural.moving_bodies import KINDS, moving_body
from preprocessing.sources.folders import existing_folder, folders_below, is_clutter
from preprocessing.sources.prepared_sequences import CLOUDS, QUERIES, PreparedSequenceUnit, prepared_sizes
from preprocessing.sources.prepared_shapes import load_arrays
from preprocessing.sources.splits import name_seed, split_of_name, split_of_seed
from preprocessing.sources.unit import Collection, NamedUnit, fingerprint
from preprocessing.surface_sampling import place_samples, sample_faces
from preprocessing.watertight import make_watertight
from preprocessing.watertight.cleaning import edge_use, orient

FRAMES = 17
VIEWS = 4  # cameras around a sequence, as in the original's experiment on images
SHAPES_PER_SHARD = 4


@dataclass(frozen=True)
class BodiesConfig:
    """Which procedural bodies to prepare.

    Attributes:
        sequences: how many; articulated, bending, twisting and deforming in turn.
        frames: times of each, evenly spread over its motion.
        seed: of the first body; the same seed gives the same bytes.
        view_size: width and height of the pictures by 4 cameras in pixels; 0 for none.
    """

    sequences: int = 64
    frames: int = FRAMES
    seed: int = 0
    view_size: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, sequences=self.sequences)
        check_at_least(2, frames=self.frames)
        check_at_least(0, seed=self.seed, view_size=self.view_size)


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
        unit = NamedUnit("", self.names[0], self.kind, split_of_seed(self.seed))
        facts: Provenance = {"seed": self.seed, "method": "procedural"}
        views = None
        if layout.views:
            vertices, faces = body.meshes(times)
            views = _pictures((vertices - location) / scale, faces, layout, self.seed)
        return [_window(unit, layout, surface, (uniform, near), occupied, location, scale, facts, views)]


@dataclass(frozen=True)
class MeshSequenceUnit(NamedUnit):
    """A window of a recorded sequence of meshes with the same faces.

    Attributes:
        files: of the whole recording: its meshes, or the one .npz file.
        first: the window's first frame.
        up: the axis that points up; only pictures need it.
    """

    files: tuple[str, ...]
    first: int
    up: Literal["y", "z"]

    def make(self, layout: DatasetLayout) -> list[ShapeSamples]:
        """Points that keep their triangle and barycentric weights; labels from each frame's mesh."""
        vertices, faces = read_frames(self.files, self.first, layout.frames)
        low, high = vertices.min(axis=(0, 1)), vertices.max(axis=(0, 1))
        location, scale = 0.5 * (low + high), float((high - low).max())
        vertices = (vertices - location) / scale
        rng = np.random.default_rng([name_seed(self.name), 7])
        count = max(layout.points, layout.near_queries)
        chosen, weights = sample_faces(vertices[0], faces, count, rng)
        placed = [place_samples(frame, faces, chosen, weights) for frame in vertices]
        points, normals = (np.stack(part) for part in zip(*placed, strict=True))
        queries = _queries(points, layout, rng)
        occupied, method = label_frames(vertices, faces, np.concatenate(queries, axis=1))
        facts: Provenance = {"file": self.files[0], "first_frame": self.first, "method": method}
        views = None
        if layout.views:
            up = up_axis(Path(self.files[0]), self.up)
            views = _pictures(vertices, faces, layout, name_seed(self.name), up)
        return [_window(self, layout, (points, normals), queries, occupied, location, scale, facts, views)]


def bodies_collection(config: BodiesConfig) -> Collection:
    """Seeded procedural bodies."""
    units = tuple(BodyUnit(config.seed + number) for number in range(config.sequences))
    layout = _layout(len(units), KINDS, config.frames, config.view_size)
    provenance = {"source": "bodies", "sequences": config.sequences, "frames": config.frames}
    return Collection(units, layout, provenance | {"seed": config.seed})


def humans_collection(
    root: Path, frames: int = FRAMES, view_size: int = 0, up: Literal["y", "z"] = "z"
) -> Collection:
    """Every sequence below a folder, cut into windows of so many frames.

    Args:
        root: the folder.
        frames: of a window.
        view_size: width and height of the pictures by 4 cameras in pixels; 0 for none.
        up: the axis that points up in the files; only the pictures need it.

    A sequence is a folder of at least two mesh files of equal topology, in the order of their names (D-FAUST
    after extraction); an .npz file with `vertices` (T, V, 3) and `faces` (F, 3); or a folder with `pcl_seq` and
    `points_seq`. The first folder of its path is its category.

    Raises:
        DatasetError: if there is no sequence, or prepared ones, which have no meshes, are to be rendered.
        SettingError: if a window is to have fewer than 2 frames.
    """
    check_at_least(2, frames=frames)
    root = existing_folder(root)
    prepared = sorted(folder.parent for folder in root.rglob(CLOUDS) if folder.is_dir())
    if prepared and view_size:
        raise DatasetError(
            f"{prepared[0]}: holds points without meshes, which cannot be rendered; leave out --views, or pass a "
            "folder of the recorded meshes alone"
        )
    found: list[tuple[Path, tuple[str, ...], int]] = [
        (folder, (), len(list((folder / CLOUDS).glob("*.npz")))) for folder in prepared
    ]
    units: list[PreparedSequenceUnit | MeshSequenceUnit] = []
    for place, files, count in found or _recordings(root):
        name, category, split = _place(root, place)
        for first in _windows(count, frames):
            window = f"{name}/{first:06d}"
            if prepared:
                units.append(PreparedSequenceUnit(str(place), window, category, split, first))
            else:
                units.append(MeshSequenceUnit(str(place), window, category, split, files, first, up))
    if not units:
        raise DatasetError(
            f"{root}: holds no sequence: neither folders of meshes, .npz files with vertices and faces, "
            f"nor folders with {CLOUDS} and {QUERIES}"
        )
    categories = sorted({unit.category for unit in units})
    windows = fingerprint([unit.names for unit in units])
    provenance = {"source": "humans", "prepared": bool(prepared), "windows": windows, "frames": frames}
    if view_size:
        provenance["up"] = up
    sizes = (prepared_sizes(prepared[0]),) if prepared else ()
    return Collection(tuple(units), _layout(len(units), categories, frames, view_size, *sizes), provenance)


def read_frames(
    files: tuple[str, ...], first: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (T, V, 3) of consecutive frames and their common faces (F, 3), equal vertices merged.

    Raises:
        MeshError: if there are too few frames, or they differ in topology.
        DatasetError: if an .npz file lacks an array.
    """
    if len(files) == 1:
        stored = load_arrays(Path(files[0]), ("vertices", "faces"))
        vertices = stored["vertices"][first : first + count].astype(np.float64)
        faces = stored["faces"].astype(np.int64)
        if vertices.ndim != 3 or faces.ndim != 2 or faces.max(initial=0) >= vertices.shape[1]:
            raise MeshError(f"{files[0]}: vertices must be (T, V, 3) and faces (F, 3) rows of them")
    else:
        meshes = [read_mesh(Path(file)) for file in files[first : first + count]]
        for file, mesh in zip(files[first:], meshes, strict=False):
            if len(mesh.vertices) != len(meshes[0].vertices) or (mesh.faces != meshes[0].faces).any():
                raise MeshError(f"{file}: has another topology than {files[first]}: no correspondences")
        vertices, faces = np.stack([mesh.vertices for mesh in meshes]), meshes[0].faces
    if len(vertices) < count:
        raise MeshError(f"{files[0]}: {len(vertices)} frames are fewer than {count}; pass a smaller --frames")
    # Vertices that move as one are one: texture seams split them.
    tracks = np.moveaxis(vertices, 0, 1).reshape(vertices.shape[1], -1)
    merged, rows = np.unique(tracks, axis=0, return_inverse=True)
    faces = rows.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return np.moveaxis(merged.reshape(len(merged), len(vertices), 3), 1, 0), faces


def label_frames(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], queries: NDArray[np.float32]
) -> tuple[NDArray[np.bool_], str]:
    """Occupancy (T, N) of queries (T, N, 3) in each frame's mesh, and the method.

    A closed mesh is labeled as it is, self-crossings included; an open one is closed frame by frame.
    """
    asked = queries.astype(np.float64)
    turned = None if (edge_use(faces) != 2).any() else orient(vertices[0], faces)
    if turned is not None:
        return np.stack([label_solid(f, turned, q) for f, q in zip(vertices, asked, strict=True)]), "exact"
    occupied = []
    for frame, now in zip(vertices, asked, strict=True):
        solid = make_watertight(frame, faces)
        occupied.append(label_solid(solid.vertices, solid.faces, (now - solid.location) / solid.scale))
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
    views: Views | None,
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
        views=views,
        provenance=provenance,
    )


def _pictures(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    layout: DatasetLayout,
    seed: int,
    up: Literal["y", "z"] = "z",
) -> Views:
    """Pictures of a window's meshes (T, V, 3) in its unit cube; other samples do not depend on them."""
    return render_views(vertices, faces, layout.views, layout.view_size, np.random.default_rng([seed, 8]), up)


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
    categories: Sequence[str],
    frames: int,
    view_size: int,
    sizes: tuple[int, int, int] = (5 * BLOCK, 10 * BLOCK, 10 * BLOCK),
) -> DatasetLayout:
    return DatasetLayout(
        shapes,
        tuple(categories),
        *sizes,
        shapes_per_shard=SHAPES_PER_SHARD,
        frames=frames,
        views=VIEWS if view_size else 0,
        view_size=view_size,
    )


def _windows(count: int, frames: int) -> range:
    """First frames of the windows; a sequence that is too short keeps one, whose making tells so."""
    return range(0, max(1, count - frames + 1), frames)


def _place(root: Path, place: Path) -> tuple[str, str, str]:
    """Name, category and split of a sequence, by its path below the root."""
    name = place.relative_to(root).with_suffix("").as_posix() if place != root else root.name
    category = name.split("/")[0] if "/" in name else root.name
    return name, category, split_of_name(name)


def _recordings(root: Path) -> list[tuple[Path, tuple[str, ...], int]]:
    """Folders of meshes and .npz files with `vertices`: place, files and number of frames."""
    found: list[tuple[Path, tuple[str, ...], int]] = []
    for folder in sorted(folders_below(root)):
        files = sorted(
            str(path)
            for path in folder.iterdir()
            if path.suffix.lower() in MESH_SUFFIXES and not is_clutter(path.name)
        )
        if len(files) > 1:
            found.append((folder, tuple(files), len(files)))
        for path in sorted(folder.glob("*.npz")):
            with open_archive(path) as stored:
                if "vertices" in stored.files:
                    found.append((path, (str(path),), len(stored["vertices"])))
    return found
