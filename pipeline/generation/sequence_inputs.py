"""Sequences from files: folders of images, of meshes of one topology or of tracked points, and NPZ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.generation.input_kinds import refuse
from pipeline.generation.inputs import Draw, Frame, ObjectInput, read_cloud, read_image, reads_as_mesh
from preprocessing.formats import IMAGE_SUFFIXES, MESH_SUFFIXES, SCAN_SUFFIXES
from preprocessing.meshes.files import Mesh, read_mesh
from preprocessing.numpy_archives import open_archive
from preprocessing.sources.prepared_shapes import load_arrays
from preprocessing.surface_sampling import place_samples, sample_faces


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


@dataclass(frozen=True)
class MovingInput:
    """A sequence whose points correspond.

    Attributes:
        vertices: (T, V, 3) world positions.
        faces: (F, 3) of all frames, or None of point clouds.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64] | None


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
    if reads_as_mesh(files[0]):
        meshes = [read_mesh(file, keeps_axes=True) for file in files]
        for file, mesh in zip(files, meshes, strict=True):
            if not correspond(mesh, meshes[0]):
                raise PipelineError(
                    f"{file}: has other faces than {files[0].name}, so their points do not correspond; "
                    "pass meshes of one topology"
                )
        return MovingInput(np.stack([mesh.vertices for mesh in meshes]), meshes[0].faces)
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
    return len(first.vertices) == len(second.vertices) and np.array_equal(first.faces, second.faces)


def _stored_sequence(path: Path) -> MovingInput:
    stored_arrays = load_arrays(path, ("vertices",))
    with open_archive(path) as stored:
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
    faces = stored_arrays["faces"].astype(np.int64)
    if (
        faces.ndim != 2
        or faces.shape[1] != 3
        or not len(faces)
        or not 0 <= faces.min() <= faces.max() < vertices.shape[1]
    ):
        raise PipelineError(f"{path}: faces must be (F, 3) rows of its vertices")
    return MovingInput(vertices, faces)


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
    if moving.faces is not None:
        chosen, weights = sample_faces(unit[0], moving.faces, draw.count, rng)
        points = np.stack([place_samples(now, moving.faces, chosen, weights)[0] for now in unit])
    else:
        points = unit[:, rng.permutation(unit.shape[1])[: draw.count]]
    points = points + draw.noise_of(moving.faces is not None) * rng.standard_normal(points.shape)
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
