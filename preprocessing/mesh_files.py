"""Reading whole meshes, and writing meshes far larger than memory block by block.

A writer takes all vertices first, then all faces, and puts the finished file in place in one step: what
fails half way leaves the old file, or none.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import trimesh
from numpy.typing import NDArray

from preprocessing.errors import MeshError

MESH_SUFFIXES = (".ply", ".obj", ".off", ".glb", ".stl")
FLOAT32_TOLERANCE_M = 1e-4


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float64; triangles: (F, 3) int64.
        colors: (V, 3) uint8 or None.
    """

    vertices: NDArray[np.float64]
    triangles: NDArray[np.int64]
    colors: NDArray[np.uint8] | None = None


def read_mesh(path: Path) -> Mesh:
    """Read a mesh file as it is; the parts of a scene are joined in world coordinates.

    Raises:
        MeshError: if the file is missing, of another kind, damaged, or holds no triangles.
    """
    path = Path(path)
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    if path.suffix.lower() not in MESH_SUFFIXES:
        raise MeshError(f"{path}: not a mesh format; use one of {', '.join(MESH_SUFFIXES)}")
    try:
        loaded: Any = trimesh.load(path, process=False, force="mesh", skip_materials=True)
    except Exception as error:  # the readers of trimesh raise whatever their parsers do
        raise MeshError(f"{path}: cannot be read as a mesh ({type(error).__name__}: {error})") from error
    vertices = np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))), np.float64)
    triangles = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), np.int64)
    if not len(vertices) or not len(triangles):
        raise MeshError(f"{path}: holds no triangles")
    if not np.isfinite(vertices).all():
        raise MeshError(f"{path}: has vertices that are not finite; export it again")
    if triangles.min() < 0 or triangles.max() >= len(vertices):
        raise MeshError(f"{path}: has faces that name missing vertices; the file is damaged")
    colors = loaded.visual.vertex_colors[:, :3] if loaded.visual.kind == "vertex" else None
    return Mesh(vertices, triangles, None if colors is None else np.asarray(colors, np.uint8))


class MeshWriter:
    """Writes one mesh; see `open_mesh_writer`.

    The base class keeps the counts; each format writes a block of vertices or faces.
    """

    def __init__(
        self,
        file: BinaryIO,
        vertex_count: int,
        face_count: int,
        has_colors: bool,
        origin: NDArray[np.float64],
    ) -> None:
        self.file = file
        self.vertex_count, self.face_count = vertex_count, face_count
        self.has_colors, self.origin = has_colors, origin
        self.vertices_written = self.faces_written = 0

    def vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        """Write the next vertices: positions (N, 3), unit normals (N, 3), colours (N, 3) where declared."""
        assert not self.faces_written, "vertices come before faces"
        assert (colors is not None) == self.has_colors, "colours must be as declared"
        self._write_vertices(positions, normals, colors)
        self.vertices_written += len(positions)

    def faces(self, faces: NDArray[np.int64]) -> None:
        """Write the next faces (N, 3), as numbers of vertices."""
        assert self.vertices_written == self.vertex_count, "all vertices come before faces"
        self._write_faces(faces)
        self.faces_written += len(faces)

    def finish(self) -> None:
        """Check the counts and write what follows the faces."""
        assert self.vertices_written == self.vertex_count, "fewer vertices than declared"
        assert self.faces_written == self.face_count, "fewer faces than declared"

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        raise NotImplementedError

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        raise NotImplementedError


class _PlyWriter(MeshWriter):
    """Binary little-endian PLY: double positions, float normals, uchar colours."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        fields = [(name, "<f8") for name in "xyz"] + [(name, "<f4") for name in ("nx", "ny", "nz")]
        names = {"<f8": "double", "<f4": "float", "u1": "uchar"}
        if self.has_colors:
            fields += [(name, "u1") for name in ("red", "green", "blue")]
        self._vertex = np.dtype(fields)
        self._index = "<u4" if self.vertex_count > 2**31 - 1 else "<i4"
        header = ["ply", "format binary_little_endian 1.0", "comment made by Tessera, metres"]
        header += [f"element vertex {self.vertex_count}"]
        header += [f"property {names[kind]} {name}" for name, kind in fields]
        header += [f"element face {self.face_count}"]
        header += [
            f"property list uchar {'uint' if self._index == '<u4' else 'int'} vertex_indices",
            "end_header",
        ]
        self.file.write(("\n".join(header) + "\n").encode())

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        rows = np.empty(len(positions), self._vertex)
        for axis, name in enumerate("xyz"):
            rows[name], rows[f"n{name}"] = positions[:, axis], normals[:, axis]
        if colors is not None:
            for channel, name in enumerate(("red", "green", "blue")):
                rows[name] = colors[:, channel]
        self.file.write(rows.tobytes())

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", self._index, (3,))]))
        rows["count"], rows["corners"] = 3, faces
        self.file.write(rows.tobytes())


class _ObjWriter(MeshWriter):
    """Wavefront OBJ: full-precision positions (with colours behind them), normals, faces v//n."""

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        lines = []
        shades = None if colors is None else (colors / 255.0).tolist()
        for row, (x, y, z) in enumerate(positions.tolist()):
            tint = "" if shades is None else " {:.4g} {:.4g} {:.4g}".format(*shades[row])
            lines.append(f"v {x!r} {y!r} {z!r}{tint}\n")
        lines += [f"vn {x:.5f} {y:.5f} {z:.5f}\n" for x, y, z in normals.tolist()]
        self.file.write("".join(lines).encode())

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        self.file.write(
            "".join(f"f {a}//{a} {b}//{b} {c}//{c}\n" for a, b, c in (faces + 1).tolist()).encode()
        )


class _OffWriter(MeshWriter):
    """Text OFF: positions and faces only; the format's vertex normals (NOFF) are what few programs read."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.file.write(f"OFF\n{self.vertex_count} {self.face_count} 0\n".encode())

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        self.file.write("".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in positions.tolist()).encode())

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        self.file.write("".join(f"3 {a} {b} {c}\n" for a, b, c in faces.tolist()).encode())


class _StlWriter(MeshWriter):
    """Binary STL: each face with its own corners, so positions wait in a scratch file."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._scratch = Path(f"{self.file.name}.positions")
        self._positions = np.memmap(self._scratch, np.float64, "w+", shape=(max(1, self.vertex_count), 3))
        self.file.write(b"made by Tessera, metres".ljust(80) + struct.pack("<I", self.face_count))

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        if len(positions) and np.abs(positions).max() * 2.0**-24 > FLOAT32_TOLERANCE_M:
            raise MeshError(
                "STL holds single-precision coordinates and this scene lies too far from the origin for them; "
                "write PLY, OBJ or GLB"
            )
        self._positions[self.vertices_written : self.vertices_written + len(positions)] = positions

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        kind = np.dtype([("normal", "<f4", (3,)), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        rows = np.zeros(len(faces), kind)
        corners = self._positions[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        rows["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
        rows["corners"] = corners
        self.file.write(rows.tobytes())

    def release(self) -> None:
        """Remove the scratch file."""
        del self._positions
        self._scratch.unlink(missing_ok=True)


class _GlbWriter(MeshWriter):
    """Binary glTF 2.0: positions relative to a node, so that far-off scenes lose nothing; y up by a rotation.

    Attributes lie in separate parts of the buffer; they are written at their offsets, block by block.
    """

    HEADER_BYTES = 2048

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        count = self.vertex_count
        self._at_normals = 12 * count
        self._at_colors = self._at_normals + 12 * count
        self._at_faces = self._at_colors + (4 * count if self.has_colors else 0)
        self._low, self._high = np.full(3, np.inf), np.full(3, -np.inf)
        self._start = 12 + 8 + self.HEADER_BYTES + 8

    def _put(self, offset: int, values: NDArray[np.generic]) -> None:
        self.file.seek(self._start + offset)
        self.file.write(np.ascontiguousarray(values).tobytes())

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        local = (positions - self.origin).astype("<f4")
        if len(local):
            self._low, self._high = np.minimum(self._low, local.min(0)), np.maximum(self._high, local.max(0))
        first = self.vertices_written
        self._put(12 * first, local)
        self._put(self._at_normals + 12 * first, normals.astype("<f4"))
        if colors is not None:
            padded = np.full((len(colors), 4), 255, np.uint8)
            padded[:, :3] = colors
            self._put(self._at_colors + 4 * first, padded)

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        self._put(self._at_faces + 12 * self.faces_written, faces.astype("<u4"))

    def finish(self) -> None:
        """Write the JSON part, now that the bounds are known."""
        super().finish()
        size = self._at_faces + 12 * self.face_count
        if size + 4096 > 2**32:
            raise MeshError("GLB cannot hold more than 4 GiB; write PLY")
        attributes = {"POSITION": 0, "NORMAL": 1} | ({"COLOR_0": 2} if self.has_colors else {})
        views = [(0, 12 * self.vertex_count, 34962), (self._at_normals, 12 * self.vertex_count, 34962)]
        accessors: list[dict[str, object]] = [
            {"bufferView": 0, "componentType": 5126, "count": self.vertex_count, "type": "VEC3",
             "min": self._low.tolist(), "max": self._high.tolist()},
            {"bufferView": 1, "componentType": 5126, "count": self.vertex_count, "type": "VEC3"},
        ]  # fmt: skip
        if self.has_colors:
            views.append((self._at_colors, 4 * self.vertex_count, 34962))
            accessors.append(
                {
                    "bufferView": 2,
                    "componentType": 5121,
                    "normalized": True,
                    "count": self.vertex_count,
                    "type": "VEC4",
                }
            )
        accessors.append(
            {"bufferView": len(views), "componentType": 5125, "count": 3 * self.face_count, "type": "SCALAR"}
        )
        views.append((self._at_faces, 12 * self.face_count, 34963))
        half = 0.5**0.5
        scene = {
            "asset": {"version": "2.0", "generator": "Tessera"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [
                {"rotation": [-half, 0.0, 0.0, half], "children": [1]},
                {"translation": self.origin.tolist(), "mesh": 0},
            ],
            "meshes": [{"primitives": [{"attributes": attributes, "indices": len(accessors) - 1}]}],
            "accessors": accessors,
            "bufferViews": [
                {"buffer": 0, "byteOffset": offset, "byteLength": length, "target": target}
                for offset, length, target in views
            ],
            "buffers": [{"byteLength": size}],
        }
        text = json.dumps(scene, separators=(",", ":")).encode()
        assert len(text) <= self.HEADER_BYTES
        self.file.seek(0)
        self.file.write(struct.pack("<III", 0x46546C67, 2, self._start + size))
        self.file.write(struct.pack("<II", self.HEADER_BYTES, 0x4E4F534A) + text.ljust(self.HEADER_BYTES))
        self.file.write(struct.pack("<II", size, 0x004E4942))


_WRITERS: dict[str, type[MeshWriter]] = {
    ".ply": _PlyWriter,
    ".obj": _ObjWriter,
    ".off": _OffWriter,
    ".stl": _StlWriter,
    ".glb": _GlbWriter,
}


@contextmanager
def open_mesh_writer(
    path: Path, vertex_count: int, face_count: int, has_colors: bool, origin: Iterable[float]
) -> Iterator[MeshWriter]:
    """Write a mesh block by block; it appears at `path` when the block ends without an error.

    Args:
        path: PLY, OBJ, OFF, GLB or STL by its suffix.
        vertex_count, face_count: what will be written.
        has_colors: whether vertices carry colours (dropped by OFF and STL, which have none).
        origin: a point near the mesh, metres; GLB stores positions relative to it.

    Raises:
        MeshError: if the suffix is unknown, the format cannot hold the mesh, or the disk is full.
    """
    path = Path(path)
    if path.suffix.lower() not in _WRITERS:
        raise MeshError(f"{path}: not a mesh format; use one of {', '.join(MESH_SUFFIXES)}")
    partial = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex}")
    writer: MeshWriter | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            start = np.asarray(tuple(origin), np.float64)
            writer = _WRITERS[path.suffix.lower()](file, vertex_count, face_count, has_colors, start)
            yield writer
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise MeshError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another file"
        ) from error
    finally:
        if isinstance(writer, _StlWriter):
            writer.release()
        partial.unlink(missing_ok=True)


def write_mesh(
    path: Path,
    vertices: NDArray[np.float64],
    triangles: NDArray[np.int64],
    normals: NDArray[np.float64] | None = None,
    colors: NDArray[np.uint8] | None = None,
) -> None:
    """Write a mesh that is in memory; normals default to the area-weighted mean of the faces'.

    Raises:
        MeshError: as `open_mesh_writer`.
    """
    if normals is None:
        normals = np.asarray(trimesh.Trimesh(vertices, triangles, process=False).vertex_normals)
    origin = vertices.mean(axis=0) if len(vertices) else np.zeros(3)
    with open_mesh_writer(path, len(vertices), len(triangles), colors is not None, origin.tolist()) as writer:
        writer.vertices(vertices, normals.astype(np.float32), colors)
        writer.faces(triangles)
