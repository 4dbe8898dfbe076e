"""Files of generated shapes: a mesh with its picture, a mesh that moves, or a series of meshes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foundation.atomic_file import appearing
from pipeline.errors import PipelineError
from pipeline.generation.animation import (
    animation_frames,
    camera_of_all,
    correspondence_colors,
    write_animation,
    write_gif,
)
from pipeline.generation.config import Up
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.meshes.files import write_mesh
from preprocessing.pictures.render import MeshPictures
from preprocessing.ply_stream import writing_to

PICTURE_SIZE = (640, 480)
GIF_SIZE = (480, 360)


@dataclass(frozen=True)
class Shape:
    """A triangle mesh: vertices (V, 3) float64, faces (F, 3) int64 and normals (V, 3) float32.

    Normals are the field's; without any, files get the area-weighted mean of the faces'.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    normals: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class MovingShape:
    """One set of faces (F, 3) int64 and its vertices (T, V, 3) float64 at T moments."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]

    @property
    def first(self) -> Shape:
        """The shape at the first moment."""
        return Shape(self.vertices[0], self.faces)


@dataclass(frozen=True)
class Series:
    """Shapes that follow one another without corresponding."""

    shapes: list[Shape]


def check_target(out: Path) -> None:
    """Refuse a name that no mesh can be written to, before anything is computed.

    Raises:
        PipelineError: with the suffixes to choose from.
    """
    if out.suffix.lower() not in MESH_SUFFIXES:
        raise PipelineError(f"{out}: name a mesh file; let the name end in one of {', '.join(MESH_SUFFIXES)}")
    if out.is_dir():
        raise PipelineError(f"{out}: is a folder; name a mesh file in it")


def possible_files(out: Path) -> list[Path]:
    """Every file that a result named `out` may be written to: itself, its pictures, its moments that exist already."""
    names = re.compile(rf"{re.escape(out.stem)}_\d+\.\w+")
    moments = (
        [path for path in out.parent.glob("*") if names.fullmatch(path.name)] if out.parent.is_dir() else []
    )
    return [out, *(out.with_suffix(suffix) for suffix in (".png", ".gif", ".glb")), *moments]


def numbered(out: Path, count: int) -> list[Path]:
    """Names `NAME_0000.ply` and so on beside `out`; `out` itself where there is one."""
    if count == 1:
        return [out]
    digits = max(4, len(str(count - 1)))
    return [out.with_name(f"{out.stem}_{number:0{digits}d}{out.suffix}") for number in range(count)]


def write_still(out: Path, shape: Shape, up: Up) -> list[Path]:
    """A mesh, and its picture beside it."""
    write_mesh(out, shape.vertices, shape.faces, shape.normals)
    placed = upright(shape.vertices, up)
    pictures = MeshPictures(placed, shape.faces)
    image = pictures.picture(camera_of_all(placed[None], PICTURE_SIZE), *PICTURE_SIZE)
    picture = out.with_suffix(".png")
    with writing_to(picture), appearing(picture) as partial:
        Image.fromarray(image).save(partial, "PNG")
    return [out, picture]


def write_moving(out: Path, moving: MovingShape, up: Up) -> list[Path]:
    """A mesh for each moment, all of one topology and colored alike, an animated GLB and a GIF."""
    colors = correspondence_colors(moving.vertices[0])
    paths = numbered(_of_one_moment(out), len(moving.vertices))
    for path, vertices in zip(paths, moving.vertices, strict=True):
        write_mesh(path, vertices, moving.faces, None, colors)
    animation, picture = out.with_suffix(".glb"), out.with_suffix(".gif")
    write_animation(animation, moving.vertices, moving.faces, colors)
    placed = upright(moving.vertices, up)
    write_gif(picture, list(animation_frames(placed, moving.faces, colors, GIF_SIZE)))
    return [*paths, animation, picture]


def write_series(out: Path, shapes: Sequence[Shape], up: Up) -> list[Path]:
    """A mesh for each shape, each of its own topology, and a GIF of them all."""
    paths = numbered(_of_one_moment(out), len(shapes))
    placed = [upright(shape.vertices, up) for shape in shapes]
    camera = camera_of_all(np.concatenate(placed)[None], GIF_SIZE)
    frames = []
    for path, vertices, shape in zip(paths, placed, shapes, strict=True):
        write_mesh(path, shape.vertices, shape.faces, shape.normals)
        frames.append(MeshPictures(vertices, shape.faces).picture(camera, *GIF_SIZE))
    picture = out.with_suffix(".gif")
    write_gif(picture, frames)
    return [*paths, picture]


def upright(vertices: NDArray[np.float64], up: Up) -> NDArray[np.float64]:
    """Positions (..., 3) turned so that `up` points along z, as pictures show it."""
    if up == "z":
        return vertices
    return np.stack([vertices[..., 0], -vertices[..., 2], vertices[..., 1]], axis=-1)


def _of_one_moment(out: Path) -> Path:
    """The name that moments are numbered from: a GLB is the animation itself."""
    return out.with_suffix(".ply") if out.suffix.lower() == ".glb" else out
