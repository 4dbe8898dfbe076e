"""Files turned into what a network of single objects takes: an image, points, voxels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convonet.family import Sampling
from pipeline.errors import PipelineError
from pipeline.generation.input_kinds import refuse
from pipeline.scan_reading import scan_chunks
from preprocessing.errors import MeshError
from preprocessing.formats import IMAGE_SUFFIXES, MESH_SUFFIXES, SCAN_SUFFIXES
from preprocessing.meshes.files import holds_faces, read_mesh
from preprocessing.numpy_archives import unreadable
from preprocessing.surface_sampling import sample_surface
from preprocessing.voxel_grids import read_binvox, voxelize
from preprocessing.watertight import make_watertight

IMAGE_SIDE = 224
VOXEL_SIDE = 32


@dataclass(frozen=True)
class Frame:
    """Where the unit cube lies: world = scale * position + location."""

    location: NDArray[np.float64]
    scale: float

    @classmethod
    def around(cls, path: Path, points: NDArray[np.float64]) -> Frame:
        """The cube around points (..., 3): their box's middle and longest side."""
        flat = points.reshape(-1, 3)
        low, high = flat.min(axis=0), flat.max(axis=0)
        scale = float((high - low).max())
        if not (np.isfinite(scale) and scale > 0):
            raise PipelineError(f"{path}: all its points are one; an object with an extent is needed")
        return cls(0.5 * (low + high), scale)

    def to_unit(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """World to unit cube."""
        return (points - self.location) / self.scale

    def to_world(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unit cube to world."""
        return points * self.scale + self.location


UNIT_FRAME = Frame(np.zeros(3), 1.0)


@dataclass(frozen=True)
class ObjectInput:
    """What an encoder gets, for a batch of one, and where the object was.

    Attributes:
        values: as the encoder wants it.
        frame: the cube that the object was normalized from.
        notes: what the user should know of how the input was read.
    """

    values: Tensor
    frame: Frame = UNIT_FRAME
    notes: tuple[str, ...] = ()


# Images


def read_image(path: Path) -> Tensor:
    """An image as the originals show it: middle square, 224 x 224, (3, 224, 224) in [0, 1]; on white if transparent.

    Raises:
        PipelineError: if the file is no image, or damaged.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES or path.is_dir():
        raise refuse(path, "image")
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened).convert("RGBA")
    except UnidentifiedImageError as error:
        raise PipelineError(f"{path}: is no image that can be read; copy or export it again") from error
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise PipelineError(f"{path}: is damaged ({error}); copy or export it again") from error
    except OSError as error:
        if error.strerror:  # missing, or not permitted
            raise
        raise PipelineError(f"{path}: is damaged ({error}); copy or export it again") from error
    flat = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    side = min(flat.size)
    left, top = (flat.width - side) // 2, (flat.height - side) // 2
    square = flat.crop((left, top, left + side, top + side))
    small = square.resize((IMAGE_SIDE, IMAGE_SIDE), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1).contiguous()


# Points


@dataclass(frozen=True)
class Draw:
    """How points are drawn.

    Attributes:
        points: how many.
        noise: in unit cubes; None takes the paper's for meshes and none for measured points.
        seed: of the draw.
        paper: the network's own sampling; its noise is for points on meshes.
    """

    points: int | None
    noise: float | None
    seed: int
    paper: Sampling

    @property
    def count(self) -> int:
        """How many points to show."""
        return self.paper.points if self.points is None else self.points

    def noise_of(self, is_mesh: bool) -> float:
        """Standard deviation of the noise to add."""
        if self.noise is not None:
            return self.noise
        return self.paper.noise if is_mesh else 0.0

    def rng(self) -> np.random.Generator:
        """The only source of chance."""
        return np.random.default_rng([self.seed, 224])

    def shown(self, vertices: NDArray[np.float64], faces: NDArray[np.int64] | None) -> NDArray[np.float64]:
        """Points (N, 3) of a mesh or of a cloud in the unit cube, with the noise, as the network is shown them."""
        rng = self.rng()
        if faces is None:
            points = vertices[rng.permutation(len(vertices))[: self.count]]
        else:
            points, _ = sample_surface(vertices, faces, self.count, rng)
        return points + self.noise_of(faces is not None) * rng.standard_normal(points.shape)


def read_points(path: Path, draw: Draw) -> ObjectInput:
    """Points of a cloud, or on a mesh, in the unit cube: (1, N, 3).

    Raises:
        PipelineError, ScanError, MeshError: if the file is of another kind, damaged or empty.
    """
    notes: tuple[str, ...] = ()
    if reads_as_mesh(path):
        mesh = read_mesh(path, keeps_axes=True)
        frame = Frame.around(path, mesh.vertices[np.unique(mesh.faces)])
        points = draw.shown(frame.to_unit(mesh.vertices), mesh.faces)
    elif path.suffix.lower() in SCAN_SUFFIXES:
        cloud = read_cloud(path)
        frame = Frame.around(path, cloud)
        points = draw.shown(frame.to_unit(cloud), None)
        if len(cloud) < draw.count:
            notes = (f"{path}: has {len(cloud):,} points where the network saw {draw.count:,} in training",)
    else:
        raise refuse(path, "points")
    return ObjectInput(torch.from_numpy(points.astype(np.float32))[None], frame, notes)


def read_cloud(path: Path) -> NDArray[np.float64]:
    """All points (N, 3) of a point cloud.

    Raises:
        ScanError: if it cannot be read.
        PipelineError: if it is empty, or a point is not finite.
    """
    points = np.concatenate([np.zeros((0, 3)), *(chunk.points for chunk in scan_chunks(path))])
    if not len(points):
        raise PipelineError(f"{path}: holds no points")
    bad = int((~np.isfinite(points).all(axis=1)).sum())
    if bad:
        raise PipelineError(f"{path}: {bad:,} of {len(points):,} points are not finite; remove them first")
    return points


def reads_as_mesh(path: Path) -> bool:
    """Whether a file is to be read as a mesh; PLY and OBJ may be either, as their contents say."""
    suffix = path.suffix.lower()
    if suffix not in MESH_SUFFIXES or not path.is_file() or not path.stat().st_size:
        return suffix in MESH_SUFFIXES and suffix != ".ply"
    return holds_faces(path)


# Voxels


def read_voxels(path: Path, side: int | None) -> ObjectInput:
    """A grid of occupied voxels, or a mesh made one, as (1, R, R, R) indexed x, y, z.

    Args:
        path: binvox, NPY with (R, R, R) numbers (occupied above 0.5), or a mesh, which is closed if it is open.
        side: R that the network needs; None for any.

    Raises:
        PipelineError, MeshError: if the file is of another kind, damaged, empty or of another size.
    """
    suffix, frame = path.suffix.lower(), UNIT_FRAME
    if suffix == ".binvox":
        voxels = read_binvox(path)
        frame = _binvox_frame(path)
    elif suffix == ".npy":
        voxels = _load_grid(path)
    elif reads_as_mesh(path):
        mesh = read_mesh(path, keeps_axes=True)
        try:
            solid = make_watertight(mesh.vertices, mesh.faces)
        except MeshError as error:
            raise PipelineError(f"{path}: cannot be made voxels: {error}") from error
        frame = Frame(solid.location, solid.scale)
        voxels = voxelize(solid.vertices, solid.faces, side or VOXEL_SIDE)
    else:
        raise refuse(path, "voxels")
    if len(set(voxels.shape)) > 1 or (side is not None and voxels.shape[0] != side):
        asked = "a cube" if side is None else f"{side} x {side} x {side}"
        raise PipelineError(
            f"{path}: a grid of {' x '.join(map(str, voxels.shape))} voxels; this network takes {asked}"
        )
    if not voxels.any():
        raise PipelineError(f"{path}: none of its voxels is occupied")
    return ObjectInput(torch.from_numpy(voxels.astype(np.float32))[None], frame)


def _load_grid(path: Path) -> NDArray[np.bool_]:
    try:
        grid = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise PipelineError(
            f"{path}: cannot be read as an array ({unreadable(error)}); save it with np.save"
        ) from error
    if grid.ndim != 3 or grid.dtype.kind not in "biuf":
        raise PipelineError(f"{path}: {grid.dtype} {grid.shape} is no voxel grid; save numbers (R, R, R)")
    return np.asarray(grid > 0.5)


def _binvox_frame(path: Path) -> Frame:
    """The cube of a binvox file: its `translate` is the lowest corner and its `scale` the side."""
    head = path.read_bytes().partition(b"\ndata\n")[0].decode("latin-1")
    values = {words[0]: words[1:] for line in head.splitlines() if (words := line.split())}
    try:
        corner = np.array([float(word) for word in values["translate"]]).reshape(3)
        scale = float(values["scale"][0])
    except (KeyError, ValueError, IndexError):
        return UNIT_FRAME
    return Frame(corner + 0.5 * scale, scale) if np.isfinite(scale) and scale > 0 else UNIT_FRAME
