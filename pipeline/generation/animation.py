"""Meshes that move: one animated GLB, or a GIF.

A moving mesh is one set of faces and vertices (T, V, 3) at T moments, vertex v being the same material point
throughout. Colors follow the points, so that correspondences can be seen.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from foundation.atomic_file import appearing
from preprocessing.errors import MeshError
from preprocessing.meshes import glb
from preprocessing.pictures.camera import Camera, orbit_camera
from preprocessing.pictures.render import MeshPictures
from preprocessing.ply_stream import writing_to

SHORTEST_FRAME_S = 0.02  # browsers show shorter ones five times as long


def correspondence_colors(vertices: NDArray[np.floating]) -> NDArray[np.uint8]:
    """A rainbow by position: colors (V, 3) that tell the points of a mesh (V, 3) apart.

    Hue runs from red to violet along the longest side, brightness along the second, saturation along the third.
    """
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    share = (vertices - low) / np.maximum(high - low, np.finfo(np.float64).tiny)
    longest, second, third = np.argsort(low - high, kind="stable")
    hue, saturation, value = (
        0.8 * share[:, longest],
        1 - 0.4 * share[:, third],
        0.65 + 0.35 * share[:, second],
    )
    shades = [colorsys.hsv_to_rgb(*row) for row in zip(hue, saturation, value, strict=True)]
    return np.asarray(np.round(255 * np.array(shades)), np.uint8).reshape(-1, 3)


def write_animation(
    path: Path,
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    colors: NDArray[np.uint8] | None = None,
    seconds: float = 2.0,
) -> None:
    """Write one animated binary glTF 2.0: the first moment as the mesh, every later one as a morph target.

    The moments are evenly spaced; between two, viewers interpolate linearly. The scene is z up and turned by a node
    to the y up that the format demands; positions are relative to a node at the middle of the first moment.

    Args:
        path: ends in `.glb`; appears when it is complete.
        vertices: (T, V, 3), T at least 2.
        faces: (F, 3).
        colors: (V, 3) or None.
        seconds: from the first moment to the last.

    Raises:
        MeshError: if there is nothing to animate, a position is not finite, the file would pass 4 GiB, or it cannot
            be written.
    """
    path = Path(path)
    _check_moving(path, vertices, faces, colors)
    if path.suffix.lower() != ".glb":
        raise MeshError(f"{path}: an animation is written as GLB; let the name end in .glb")
    if len(vertices) < 2 or not len(faces):
        raise MeshError(f"{path}: an animation needs faces and at least two moments")
    if not (np.isfinite(seconds) and seconds > 0):
        raise MeshError(f"{path}: an animation needs a positive duration, not {seconds} s")
    moments, count = vertices.shape[:2]
    # Positions and normals of each moment, faces, colors, one weight for each pair of moments.
    size = 24 * moments * count + 12 * len(faces) + 4 * count + 4 * moments * moments
    if size + 1024 * moments >= 2**32:  # the description takes a few hundred bytes for each moment
        raise MeshError(f"{path}: GLB cannot hold more than 4 GiB; simplify the mesh or pass fewer frames")
    with _writing(path) as partial:
        _write_glb(partial, vertices, faces, colors, seconds)


def camera_of_all(vertices: NDArray[np.floating], size: tuple[int, int]) -> Camera:
    """A camera above the front corner that sees all moments (T, V, 3) whole in pictures of a size, and little more."""
    camera = orbit_camera(vertices.min(axis=(0, 1)), vertices.max(axis=(0, 1)), -55, 25)
    reach = 0.0
    for moment in vertices:
        across, down, depth = ((moment - camera.eye) @ camera.axes().T).T
        reach = max(reach, float(np.max(np.abs(down) / depth)))
        reach = max(reach, float(np.max(np.abs(across) / depth)) * size[1] / size[0])
    return replace(camera, field_of_view_deg=2 * math.degrees(math.atan(1.08 * reach)))


def animation_frames(
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    colors: NDArray[np.uint8] | None = None,
    size: tuple[int, int] = (480, 360),
    camera: Camera | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Pictures (height, width, 3) of every moment, from one camera.

    Args:
        vertices, faces: as in `write_animation`.
        colors: (V, 3); None colors by `correspondence_colors` of the first moment.
        size: width and height in pixels.
        camera: None is `camera_of_all`.

    Raises:
        MeshError: if there is nothing to draw.
    """
    shades = correspondence_colors(vertices[0]) if colors is None and vertices.size else colors
    if camera is None and vertices.size:
        camera = camera_of_all(vertices, size)
    for moment in vertices:
        pictures = MeshPictures(moment.astype(np.float64), faces, shades)
        assert camera is not None, "a mesh with faces has vertices"
        yield pictures.picture(camera, *size)


def write_gif(path: Path, frames: Sequence[NDArray[np.uint8]], seconds: float = 2.0) -> None:
    """Write pictures as an endless GIF.

    All frames share 256 colors, so that what stands still keeps its own; dithering smooths what lies between them.

    Args:
        path: ends in `.gif`; appears when it is complete.
        frames: pictures (height, width, 3) uint8 of one size.
        seconds: of one round; a frame lasts at least 0.02 s.

    Raises:
        MeshError: if there are no frames, their sizes differ, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise MeshError(f"{path}: let the name end in .gif")
    if not len(frames) or len({frame.shape for frame in frames}) > 1:
        raise MeshError(f"{path}: a GIF needs frames, all of one size")
    stride = max(1, math.isqrt(len(frames)))  # about as many pixels as one frame has
    sample = np.concatenate([frame[::stride, ::stride] for frame in frames])
    palette = Image.fromarray(sample).quantize(256, Image.Quantize.MEDIANCUT)
    pictures = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
        for frame in frames
    ]
    lasts_s = max(seconds / len(frames), SHORTEST_FRAME_S)
    ends_cs = np.round(100 * lasts_s * np.arange(len(frames) + 1)).astype(np.int64)  # GIF counts hundredths
    durations_ms = (10 * np.diff(ends_cs)).tolist()
    with _writing(path) as partial:
        pictures[0].save(
            partial,
            "GIF",
            save_all=True,
            append_images=pictures[1:],
            duration=durations_ms,
            loop=0,
            optimize=False,
        )


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """A file that takes the place of `path` when the block ends without an error.

    Raises:
        MeshError: if the disk refuses.
    """
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with appearing(path) as partial:
            yield partial


def _check_moving(
    path: Path,
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    colors: NDArray[np.uint8] | None,
) -> None:
    if vertices.ndim != 3 or vertices.shape[2] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise ValueError(f"need vertices (T, V, 3) and faces (F, 3), got {vertices.shape}, {faces.shape}")
    if colors is not None and colors.shape != vertices.shape[1:]:
        raise ValueError(f"need a color for each of {vertices.shape[1]} vertices, got {colors.shape}")
    if len(faces) and (faces.min() < 0 or faces.max() >= vertices.shape[1]):
        raise ValueError("a triangle names a vertex that is not there")
    for number, moment in enumerate(vertices):
        if not np.isfinite(moment).all():
            raise MeshError(f"{path}: moment {number} has positions that are not finite")


class _Buffer:
    """The binary part: arrays one behind another, each with its own view and accessor."""

    def __init__(self) -> None:
        self.views: list[dict[str, int]] = []
        self.accessors: list[dict[str, Any]] = []
        self.arrays: list[NDArray[Any]] = []
        self.size = 0

    def add(
        self,
        values: NDArray[Any],
        kind: str,
        component: int = glb.FLOAT,
        target: int | None = None,
        has_bounds: bool = False,
    ) -> int:
        """Append an array whose rows are elements of `kind`; the number of its accessor."""
        assert values.nbytes % 4 == 0, "parts stay aligned"
        view = {"buffer": 0, "byteOffset": self.size, "byteLength": values.nbytes}
        self.views.append(view | ({} if target is None else {"target": target}))
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1, "componentType": component, "count": len(values), "type": kind,
        }  # fmt: skip
        if has_bounds:
            rows = values.reshape(len(values), -1)
            accessor |= {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        self.accessors.append(accessor)
        self.arrays.append(values)
        self.size += values.nbytes
        return len(self.accessors) - 1


def _write_glb(
    path: Path,
    vertices: NDArray[np.floating],
    faces: NDArray[np.integer],
    colors: NDArray[np.uint8] | None,
    seconds: float,
) -> None:
    buffer = _Buffer()
    first = vertices[0].astype(np.float64)
    origin = 0.5 * (first.min(axis=0) + first.max(axis=0))
    normals = _normals(first, faces)
    attributes = {
        "POSITION": buffer.add(
            (first - origin).astype("<f4"), "VEC3", target=glb.ARRAY_BUFFER, has_bounds=True
        ),
        "NORMAL": buffer.add(normals.astype("<f4"), "VEC3", target=glb.ARRAY_BUFFER),
    }
    if colors is not None:
        attributes["COLOR_0"] = buffer.add(glb.opaque(colors), "VEC4", glb.UNSIGNED_BYTE, glb.ARRAY_BUFFER)
        buffer.accessors[-1]["normalized"] = True
    indices = buffer.add(faces.astype("<u4").ravel(), "SCALAR", glb.UNSIGNED_INT, glb.ELEMENT_ARRAY_BUFFER)
    targets = []
    for moment in vertices[1:]:
        turned = _normals(moment.astype(np.float64), faces) - normals
        targets.append({
            "POSITION": buffer.add((moment - first).astype("<f4"), "VEC3", target=glb.ARRAY_BUFFER, has_bounds=True),
            "NORMAL": buffer.add(turned.astype("<f4"), "VEC3", target=glb.ARRAY_BUFFER),
        })  # fmt: skip
    # At moment t only target t - 1 counts; at the first, none.
    weights = np.eye(len(vertices), dtype="<f4")[:, 1:].ravel()
    times = buffer.add(np.linspace(0, seconds, len(vertices)).astype("<f4"), "SCALAR", has_bounds=True)
    sampler = {"input": times, "output": buffer.add(weights, "SCALAR"), "interpolation": "LINEAR"}
    primitive = {"attributes": attributes, "indices": indices, "targets": targets}
    content = glb.scene_at(origin.tolist()) | {
        "meshes": [{"primitives": [primitive], "weights": [0.0] * len(targets)}],
        "animations": [
            {"samplers": [sampler], "channels": [{"sampler": 0, "target": {"node": 1, "path": "weights"}}]}
        ],
        "accessors": buffer.accessors,
        "bufferViews": buffer.views,
        "buffers": [{"byteLength": buffer.size}],
    }
    with path.open("wb") as file:
        glb.write_head(file, content, buffer.size)
        for values in buffer.arrays:
            file.write(np.ascontiguousarray(values).data)


def _normals(vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """Area-weighted unit normals (V, 3); up where a vertex has none, as the format wants unit lengths."""
    normals = np.array(trimesh.Trimesh(vertices, faces, process=False).vertex_normals)
    normals[~(np.abs(np.linalg.norm(normals, axis=1) - 1) < 1e-3)] = (0.0, 0.0, 1.0)
    return normals
