"""What a network of single objects takes, and files turned into it: images, points, voxels, sequences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from convonet.conv_onet import ConvOnetConfig
from convonet.oflow import OccupancyFlowConfig, OccupancyNetwork4DConfig
from convonet.onet import OccupancyNetworkConfig
from convonet.registry import NetworkConfig
from pipeline.errors import PipelineError
from pipeline.scan_reading import scan_chunks
from preprocessing.errors import MeshError
from preprocessing.mesh_files import MESH_SUFFIXES, Mesh, read_mesh
from preprocessing.scan_files import SCAN_SUFFIXES
from preprocessing.sources.prepared_shapes import load_arrays
from preprocessing.surface_sampling import place_samples, sample_surface, sample_triangles
from preprocessing.voxel_grids import read_binvox, voxelise
from preprocessing.watertight import make_watertight

InputKind = Literal[
    "image", "points", "voxels", "shape", "tracks", "images", "pair", "crops", "scan", "nothing"
]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
IMAGE_SIDE = 224
VOXEL_SIDE = 32
WANTED: dict[InputKind, str] = {
    "image": "an image (PNG, JPG)",
    "points": "a point cloud or a mesh",
    "voxels": "a voxel grid (binvox, NPY) or a mesh",
    "shape": "the number of a training shape",
    "tracks": "a sequence: a folder of meshes or point clouds in correspondence, or NPZ with vertices (T, V, 3)",
    "images": "a folder of images",
    "pair": "two meshes (--interpolate A B), or a folder of meshes to pass through",
    "crops": "a scan in crops",
    "scan": "a scan",
    "nothing": "nothing",
}

BRIEF: dict[InputKind, str] = {
    "image": "image",
    "points": "points",
    "voxels": "voxels",
    "shape": "number of a training shape",
    "tracks": "moving points",
    "images": "moving pictures",
    "pair": "two meshes",
    "crops": "scan in crops",
    "scan": "scan",
    "nothing": "nothing",
}


def input_kind(config: NetworkConfig) -> InputKind:
    """What a network of a configuration is conditioned on."""
    match config:
        case ConvOnetConfig():
            kinds: dict[str, InputKind] = {"voxels": "voxels", "crops": "crops"}
            return kinds.get(config.family, "points")
        case OccupancyNetworkConfig():
            if config.encoder.startswith("pointnet"):
                return "points"
            others: dict[str, InputKind] = {"voxel_simple": "voxels", "resnet18": "image", "index": "shape"}
            return others.get(config.encoder, "nothing")
        case OccupancyFlowConfig():
            if config.temporal_encoder == "pointnet_pair":
                return "pair"
            if config.spatial_encoder == "resnet18" or config.temporal_encoder == "conv3d":
                return "images"
            return "tracks" if config.spatial_encoder or config.temporal_encoder else "nothing"
        case OccupancyNetwork4DConfig():
            return "images" if config.temporal_encoder == "conv3d" else "tracks"
    return "scan"


@dataclass(frozen=True)
class Sampling:
    """How many points a network is shown, and with what noise: the test protocol of its paper.

    Attributes:
        points: how many.
        noise: standard deviation in unit cubes; added to points sampled on meshes, not to measured ones.
    """

    points: int
    noise: float


def paper_sampling(config: NetworkConfig, preset: str = "") -> Sampling:
    """The points that a network was tested with; `preset` tells rooms from objects where the sizes do not."""
    match config:
        case ConvOnetConfig():
            is_room = preset.startswith(("room", "crop")) if preset else config.plane_resolution > 64
            return Sampling(10_000 if is_room else 3_000, 0.005)
        case OccupancyFlowConfig() if config.temporal_encoder == "pointnet_pair":
            return Sampling(10_000, 0.0)
        case OccupancyFlowConfig() if config.latent_size:
            return Sampling(4_000, 0.0)
        case OccupancyFlowConfig() | OccupancyNetwork4DConfig():
            return Sampling(300, 0.001)
    return Sampling(300, 0.005)


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
        frame: the cube that the object was normalised from.
        notes: what the user should know of how the input was read.
    """

    values: Tensor
    frame: Frame = UNIT_FRAME
    notes: tuple[str, ...] = ()


def refuse(path: Path, wanted: InputKind) -> PipelineError:
    """The error of an input of another kind than the network takes."""
    return PipelineError(f"{path}: is not what this network takes, which is {WANTED[wanted]}")


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


def read_images(path: Path, frames: int) -> ObjectInput:
    """A folder of images in the order of their names as (1, frames, 3, 224, 224).

    Raises:
        PipelineError: if there are none, or one is damaged.
    """
    files = _folder_files(path, IMAGE_SUFFIXES, "images")
    notes: tuple[str, ...] = ()
    if len(files) != frames:
        rows = np.rint(np.linspace(0, len(files) - 1, frames)).astype(int)
        notes = (f"{len(files)} images: the {frames} that the network takes were chosen evenly",)
        files = [files[row] for row in rows]
    return ObjectInput(torch.stack([read_image(file) for file in files])[None], notes=notes)


# Points


@dataclass(frozen=True)
class Draw:
    """How points are drawn.

    Attributes:
        points: how many.
        noise: in unit cubes; None takes the paper's for meshes and none for measured points.
        seed: of the draw.
        paper: the network's own sampling.
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


def read_points(path: Path, draw: Draw) -> ObjectInput:
    """Points of a cloud, or on a mesh, in the unit cube: (1, N, 3).

    Raises:
        PipelineError, ScanError, MeshError: if the file is of another kind, damaged or empty.
    """
    rng = draw.rng()
    notes: tuple[str, ...] = ()
    if holds_triangles(path):
        mesh = read_mesh(path)
        frame = Frame.around(path, mesh.vertices[np.unique(mesh.triangles)])
        points, _ = sample_surface(frame.to_unit(mesh.vertices), mesh.triangles, draw.count, rng)
        noise = draw.noise_of(is_mesh=True)
    elif path.suffix.lower() in SCAN_SUFFIXES:
        cloud = read_cloud(path)
        frame = Frame.around(path, cloud)
        points = frame.to_unit(cloud)[rng.permutation(len(cloud))[: draw.count]]
        noise = draw.noise_of(is_mesh=False)
        if len(cloud) < draw.count:
            notes = (f"{path}: has {len(cloud):,} points where the network saw {draw.count:,} in training",)
    else:
        raise refuse(path, "points")
    points = points + noise * rng.standard_normal(points.shape)
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


def holds_triangles(path: Path) -> bool:
    """Whether a file is to be read as a mesh; PLY may be either, as its header says."""
    suffix = path.suffix.lower()
    if suffix != ".ply" or not path.is_file():
        return suffix in MESH_SUFFIXES and suffix != ".ply"
    with path.open("rb") as file:
        header = file.read(1 << 16).partition(b"end_header")[0]
    found = re.search(rb"^element (?:face|tristrips) (\d+)", header, re.MULTILINE)
    return found is not None and int(found[1]) > 0


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
    elif holds_triangles(path):
        mesh = read_mesh(path)
        try:
            solid = make_watertight(mesh.vertices, mesh.triangles)
        except MeshError as error:
            raise PipelineError(f"{path}: cannot be made voxels: {error}") from error
        frame = Frame(solid.location, solid.scale)
        voxels = voxelise(solid.vertices, solid.triangles, side or VOXEL_SIDE)
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
        raise PipelineError(f"{path}: cannot be read as an array ({error}); save it with np.save") from error
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


# Sequences


@dataclass(frozen=True)
class MovingInput:
    """A sequence whose points correspond.

    Attributes:
        vertices: (T, V, 3) world positions.
        triangles: (F, 3) of all frames, or None of point clouds.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64] | None


def read_sequence(path: Path) -> MovingInput:
    """A folder of meshes with common faces or of clouds with common points, or NPZ with `vertices` (T, V, 3).

    Raises:
        PipelineError: if it is neither, or its frames do not correspond.
        MeshError, ScanError, DatasetError: if a file is damaged.
    """
    if path.suffix.lower() == ".npz" and path.is_file():
        return _stored_sequence(path)
    if not path.is_dir():
        raise refuse(path, "tracks")
    files = _folder_files(path, (*MESH_SUFFIXES, *SCAN_SUFFIXES), "meshes or point clouds")
    if len(files) < 2:
        raise PipelineError(f"{path}: holds one frame; a sequence has at least two")
    if holds_triangles(files[0]):
        meshes = [read_mesh(file) for file in files]
        for file, mesh in zip(files, meshes, strict=True):
            if not correspond(mesh, meshes[0]):
                raise PipelineError(
                    f"{file}: has other faces than {files[0].name}, so their points do not correspond; "
                    "pass meshes of one topology"
                )
        return MovingInput(np.stack([mesh.vertices for mesh in meshes]), meshes[0].triangles)
    clouds = [read_cloud(file) for file in files]
    for file, cloud in zip(files, clouds, strict=True):
        if len(cloud) != len(clouds[0]):
            raise PipelineError(
                f"{file}: has {len(cloud):,} points and {files[0].name} {len(clouds[0]):,}, so they do not "
                "correspond; pass the same points in every frame"
            )
    return MovingInput(np.stack(clouds), None)


def correspond(first: Mesh, second: Mesh) -> bool:
    """Whether two meshes have the same faces."""
    return len(first.vertices) == len(second.vertices) and np.array_equal(first.triangles, second.triangles)


def _stored_sequence(path: Path) -> MovingInput:
    stored_arrays = load_arrays(path, ("vertices",))
    with np.load(path, allow_pickle=False) as stored:
        has_faces = "faces" in stored.files
    if has_faces:
        stored_arrays |= load_arrays(path, ("faces",))
    vertices = stored_arrays["vertices"].astype(np.float64)
    if vertices.ndim != 3 or vertices.shape[2] != 3 or len(vertices) < 2 or not vertices.shape[1]:
        raise PipelineError(
            f"{path}: vertices must be (T, V, 3) with at least two frames, not {vertices.shape}"
        )
    if not has_faces:
        return MovingInput(vertices, None)
    triangles = stored_arrays["faces"].astype(np.int64)
    if (
        triangles.ndim != 2
        or triangles.shape[1] != 3
        or not len(triangles)
        or not 0 <= triangles.min() <= triangles.max() < vertices.shape[1]
    ):
        raise PipelineError(f"{path}: faces must be (F, 3) rows of its vertices")
    return MovingInput(vertices, triangles)


def draw_tracks(path: Path, moving: MovingInput, frames: int, draw: Draw, by_first: bool) -> ObjectInput:
    """Points followed through a sequence, as (1, frames, N, 3) in the unit cube.

    Args:
        path: for messages.
        moving: the sequence; it is resampled in time where it has another number of frames.
        frames: L, that the network takes.
        draw: how points are drawn; the same places in every frame.
        by_first: the unit cube is that of the first frame, as in the original, or else of the whole sequence.
    """
    rng, notes = draw.rng(), []
    vertices = moving.vertices
    if len(vertices) != frames:
        notes.append(f"{len(vertices)} frames were resampled to the {frames} that the network takes")
        vertices = resample(vertices, frames)
    frame = Frame.around(path, vertices[0] if by_first else vertices)
    unit = frame.to_unit(vertices)
    if moving.triangles is not None:
        chosen, weights = sample_triangles(unit[0], moving.triangles, draw.count, rng)
        points = np.stack([place_samples(now, moving.triangles, chosen, weights)[0] for now in unit])
    else:
        points = unit[:, rng.permutation(unit.shape[1])[: draw.count]]
    points = points + draw.noise_of(moving.triangles is not None) * rng.standard_normal(points.shape)
    return ObjectInput(torch.from_numpy(points.astype(np.float32))[None], frame, tuple(notes))


def resample(vertices: NDArray[np.float64], frames: int) -> NDArray[np.float64]:
    """Positions (T, V, 3) at evenly spaced moments (frames, V, 3), linear between the given ones."""
    places = np.linspace(0, len(vertices) - 1, frames)
    before = np.minimum(places.astype(int), len(vertices) - 2)
    share = (places - before)[:, None, None]
    return np.asarray((1 - share) * vertices[before] + share * vertices[before + 1])


def _folder_files(path: Path, suffixes: Sequence[str], what: str) -> list[Path]:
    if not path.exists():
        raise PipelineError(f"{path}: no such folder")
    if not path.is_dir():
        raise PipelineError(f"{path}: is a file; this network takes a folder of {what}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise PipelineError(f"{path}: holds no {what} ({', '.join(suffixes)})")
    return files
