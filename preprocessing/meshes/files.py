"""Reading whole meshes, and writing meshes far larger than memory block by block.

A writer takes all vertices first, then all faces, and puts the finished file in place in one step: what
fails half way leaves the old file, or none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from foundation.atomic_file import appearing
from foundation.local_paths import local_path
from preprocessing.errors import MeshError, NoFacesError
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.meshes import glb
from preprocessing.meshes.obj import read_obj
from preprocessing.meshes.ply import read_ply
from preprocessing.meshes.soups import STL_FACE, holds_off_faces, read_off, read_stl
from preprocessing.ply_stream import MeshWriter, PlyWriter, writing_to
from preprocessing.scan_files import scan_kind
from preprocessing.scan_files.ply import FACES, read_ply_header

FLOAT32_TOLERANCE_M = 1e-4
_CURES = {
    ".gz": "unpack it first, with gunzip",
    ".zip": "unpack it first",
    ".gltf": "save it as GLB",
    ".dae": "convert it to PLY, OBJ or GLB",
    ".fbx": "convert it to PLY, OBJ or GLB",
    ".blend": "export PLY, OBJ or GLB from Blender",
    ".3mf": "convert it to STL or PLY",
    ".step": "export STL or OBJ from the CAD program",
    ".stp": "export STL or OBJ from the CAD program",
}


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh.

    Attributes:
        vertices: (V, 3) float64; faces: (F, 3) int64.
        normals: (V, 3) float64, of the vertices, or None where the file has none.
        colors: (V, 3) uint8 or None.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    normals: NDArray[np.float64] | None = None
    colors: NDArray[np.uint8] | None = None


def read_mesh(path: Path, keeps_axes: bool = False) -> Mesh:
    """Read a mesh file; the parts of a scene are joined in world coordinates.

    GLB, which is y up by its format, is turned to z up, as everything else here is. Corners of STL faces at one
    position become one vertex. The first bytes decide where they contradict the suffix.

    Args:
        path: the file.
        keeps_axes: leave GLB as it is stored, for networks of objects, whose axes are those of their training.

    Raises:
        MeshError: if the file is missing, of another kind, damaged, holds no faces, or needs an extension
            that is not read (such as Draco).
    """
    path = local_path(path)
    if path.is_dir():
        raise MeshError(f"{path}: is a folder; name one mesh file")
    if not path.is_file():
        raise MeshError(f"{path}: no such file")
    if path.suffix.lower() not in MESH_SUFFIXES:
        cure = _CURES.get(path.suffix.lower(), f"use one of {', '.join(MESH_SUFFIXES)}")
        raise MeshError(f"{path}: not a mesh format; {cure}")
    if path.stat().st_size == 0:
        raise MeshError(f"{path}: is empty (0 bytes); copy or export it again")
    try:
        kind = _kind(path)
        mesh = _READERS[kind](path)
    except OSError as error:
        raise MeshError(
            f"{path}: cannot be read ({error.strerror or error}); check its permissions"
        ) from error
    if not len(mesh.vertices) or not len(mesh.faces):
        raise NoFacesError(f"{path}: holds no faces; if it is a point cloud, reconstruct it first")
    if not np.isfinite(mesh.vertices).all():
        raise MeshError(f"{path}: has vertices that are not finite; export it again")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise MeshError(f"{path}: has faces that name missing vertices; copy or export it again")
    if keeps_axes or kind != ".glb":
        return mesh
    normals = None if mesh.normals is None else glb.to_z_up(mesh.normals)
    return Mesh(glb.to_z_up(mesh.vertices), mesh.faces, normals, mesh.colors)


def up_axis(path: Path, declared: Literal["y", "z"]) -> Literal["y", "z"]:
    """The axis that points up in what `read_mesh` returns of a file in which `declared` does: it turns GLB upright."""
    return "z" if _kind(path) == ".glb" else declared


def holds_faces(path: Path) -> bool:
    """Whether an existing file is a mesh, not a point cloud: by its kind, or where that may be either, its faces.

    Raises:
        ScanError: if the file is empty, or a PLY file whose header is damaged.
    """
    kind = scan_kind(path)
    if kind == ".ply":
        return read_ply_header(path).element(*FACES) is not None
    if kind == ".obj":
        with path.open("rb") as file:
            return any(line.lstrip().startswith((b"f ", b"f\t")) for line in file)
    if kind == ".off":
        return holds_off_faces(path)
    return kind in MESH_SUFFIXES


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(5)
    if head.startswith(b"glTF"):
        return ".glb"
    if head[:3] == b"ply" and head[3:4] in b"\r\n ":
        return ".ply"
    return path.suffix.lower()


def _read_obj(path: Path) -> Mesh:
    vertices, faces, normals, shades = read_obj(path)
    return Mesh(vertices, faces, normals, _bytes(shades))


def _read_off(path: Path) -> Mesh:
    vertices, faces, shades = read_off(path)
    return Mesh(vertices, faces, None, _bytes(shades))


def _bytes(shades: NDArray[np.float64] | None) -> NDArray[np.uint8] | None:
    """Colors (V, 3) as bytes: fractions are scaled, others clipped."""
    if shades is None or not np.isfinite(shades).all():
        return None
    scaled = shades * (255.0 if shades.max(initial=0.0) <= 1.0 else 1.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _read_ply(path: Path) -> Mesh:
    vertices, faces = read_ply(path)
    normals = None if vertices.normals is None else vertices.normals.astype(np.float64)
    return Mesh(vertices.points, faces, normals, vertices.colors)


def _read_glb(path: Path) -> Mesh:
    import trimesh  # slow to import, and few commands read such a file

    glb.read_content(path)
    try:
        with path.open("rb") as file:
            loaded: Any = trimesh.load(
                file, file_type="glb", process=False, force="mesh", skip_materials=True
            )
        vertices = np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))), np.float64)
        faces = np.asarray(getattr(loaded, "faces", np.zeros((0, 3))), np.int64)
        if not len(vertices) or not len(faces):
            return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))
        colors = loaded.visual.vertex_colors[:, :3] if loaded.visual.kind == "vertex" else None
        # trimesh computes normals on demand; those in its cache already are the file's.
        normals = loaded._cache.cache.get("vertex_normals")
    except Exception as error:  # the readers of trimesh raise whatever their parsers do
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise MeshError(f"{path}: cannot be read as a mesh ({reason}); copy or export it again") from error
    return Mesh(
        vertices,
        faces,
        None if normals is None or len(normals) != len(vertices) else np.asarray(normals, np.float64),
        None if colors is None else np.asarray(colors, np.uint8),
    )


_READERS: dict[str, Callable[[Path], Mesh]] = {
    ".ply": _read_ply,
    ".obj": _read_obj,
    ".off": _read_off,
    ".stl": lambda path: Mesh(*read_stl(path)),
    ".glb": _read_glb,
}


class _ObjWriter(MeshWriter):
    """Wavefront OBJ: full-precision positions (with colors behind them), normals, faces v//n."""

    def _begin(self) -> None:
        if self.crs:
            self.file.write(f"# crs {self.crs}\n".encode())

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

    def _begin(self) -> None:
        self.file.write(f"OFF\n{self.vertex_count} {self.face_count} 0\n".encode())

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        self.file.write("".join(f"{x!r} {y!r} {z!r}\n" for x, y, z in positions.tolist()).encode())

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        self.file.write("".join(f"3 {a} {b} {c}\n" for a, b, c in faces.tolist()).encode())


class _StlWriter(MeshWriter):
    """Binary STL: each face with its own corners, so positions wait in a scratch file."""

    def _begin(self) -> None:
        if self.face_count >= 2**32:
            raise MeshError(
                f"{self.path}: STL holds at most 2^32 - 1 faces, not {self.face_count:,}; write PLY"
            )
        self._scratch = Path(f"{self.file.name}.positions")
        # Written like any file: a full disk is an error here, where a sparse map would be a fatal signal.
        self._waiting = self._scratch.open("wb")
        self._positions: NDArray[np.float64] | None = None
        self.file.write(b"made by Tessera, meters".ljust(80) + struct.pack("<I", self.face_count))

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        if len(positions) and np.abs(positions).max() * 2.0**-24 > FLOAT32_TOLERANCE_M:
            raise MeshError(
                f"{self.path}: STL holds single-precision coordinates and this scene lies too far from the "
                "origin for them; write PLY, OBJ or GLB"
            )
        self._waiting.write(np.ascontiguousarray(positions, np.float64).tobytes())

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        if not len(faces):
            return
        if self._positions is None:
            self._waiting.close()
            self._positions = np.memmap(self._scratch, np.float64, "r", shape=(self.vertex_count, 3))
        rows = np.zeros(len(faces), STL_FACE)
        corners = self._positions[faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        rows["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
        rows["corners"] = corners
        self.file.write(rows.tobytes())

    def release(self) -> None:
        """Remove the scratch file."""
        with suppress(OSError):  # what it could not write is of no more use
            self._waiting.close()
        self._positions = None
        self._scratch.unlink(missing_ok=True)


class _GlbWriter(MeshWriter):
    """Binary glTF 2.0: positions relative to a node, so that far-off scenes lose nothing; y up by a rotation.

    Attributes lie in separate parts of the buffer; they are written at their offsets, block by block.
    """

    JSON_BYTES = 2048

    def _begin(self) -> None:
        count = self.vertex_count
        if not count or not self.face_count:
            raise MeshError(f"{self.path}: GLB cannot hold an empty mesh; write PLY")
        self._at_normals = 12 * count
        self._at_colors = self._at_normals + 12 * count
        self._at_faces = self._at_colors + (4 * count if self.has_colors else 0)
        self._low, self._high = np.full(3, np.inf), np.full(3, -np.inf)
        self._start = glb.CONTAINER_BYTES + self.JSON_BYTES
        self._size = self._at_faces + 12 * self.face_count
        if self._start + self._size >= 2**32:  # known before hours of writing, so told before them
            raise MeshError(f"{self.path}: GLB cannot hold more than 4 GiB; write PLY")

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
            self._put(self._at_colors + 4 * first, glb.opaque(colors))

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        self._put(self._at_faces + 12 * self.faces_written, faces.astype("<u4"))

    def finish(self) -> None:
        """Write the JSON part, now that the bounds are known."""
        super().finish()
        count, places = (
            self.vertex_count,
            {"componentType": glb.FLOAT, "count": self.vertex_count, "type": "VEC3"},
        )
        bounds = {"min": self._low.tolist(), "max": self._high.tolist()}
        # Of each part of the buffer: where it begins, its size, what it is for, and what it holds.
        parts: list[tuple[int, int, int, dict[str, object]]] = [
            (0, 12 * count, glb.ARRAY_BUFFER, places | bounds),
            (self._at_normals, 12 * count, glb.ARRAY_BUFFER, places),
        ]
        if self.has_colors:
            colors = {"componentType": glb.UNSIGNED_BYTE, "normalized": True, "count": count, "type": "VEC4"}
            parts.append((self._at_colors, 4 * count, glb.ARRAY_BUFFER, colors))
        corners = {"componentType": glb.UNSIGNED_INT, "count": 3 * self.face_count, "type": "SCALAR"}
        parts.append((self._at_faces, 12 * self.face_count, glb.ELEMENT_ARRAY_BUFFER, corners))
        attributes = {"POSITION": 0, "NORMAL": 1} | ({"COLOR_0": 2} if self.has_colors else {})
        content = glb.scene_at(self.origin.tolist()) | {
            "meshes": [{"primitives": [{"attributes": attributes, "indices": len(parts) - 1}]}],
            "accessors": [{"bufferView": number, **held} for number, (_, _, _, held) in enumerate(parts)],
            "bufferViews": [
                {"buffer": 0, "byteOffset": offset, "byteLength": length, "target": target}
                for offset, length, target, _ in parts
            ],
            "buffers": [{"byteLength": self._size}],
        }
        if self.crs:
            content["asset"]["extras"] = {"crs": self.crs}
        self.file.seek(0)
        glb.write_head(self.file, content, self._size, self.JSON_BYTES)


_WRITERS: dict[str, type[MeshWriter]] = {
    ".ply": PlyWriter,
    ".obj": _ObjWriter,
    ".off": _OffWriter,
    ".stl": _StlWriter,
    ".glb": _GlbWriter,
}


@contextmanager
def open_mesh_writer(
    path: Path,
    vertex_count: int,
    face_count: int,
    has_colors: bool,
    origin: Iterable[float],
    has_confidence: bool = False,
    crs: str | None = None,
) -> Iterator[MeshWriter]:
    """Write a mesh block by block; it appears at `path` when the block ends without an error.

    Args:
        path: PLY, OBJ, OFF, GLB or STL by its suffix.
        vertex_count, face_count: what will be written.
        has_colors: whether vertices carry colors (dropped by OFF and STL, which have none).
        origin: a point near the mesh, meters; GLB stores positions relative to it.
        has_confidence: whether vertices carry a confidence (only PLY keeps it).
        crs: coordinate reference system, noted in PLY, OBJ and GLB.

    Raises:
        MeshError: if the suffix is unknown, the format cannot hold the mesh, or the disk is full.
    """
    path = local_path(path)
    if path.suffix.lower() not in _WRITERS:
        raise MeshError(f"{path}: not a mesh format; use one of {', '.join(MESH_SUFFIXES)}")
    with ExitStack() as stack:
        with writing_to(path):
            partial = stack.enter_context(appearing(path))
            file = partial.open("wb")
            stack.callback(_close, file)
            start = np.asarray(tuple(origin), np.float64)
            make = _WRITERS[path.suffix.lower()]
            writer = make(path, file, vertex_count, face_count, has_colors, start, has_confidence, crs)
            stack.callback(writer.release)
        yield writer  # the caller's own errors pass as they are
        with writing_to(path):
            writer.finish()
            file.close()
            stack.close()


def _close(file: BinaryIO) -> None:
    """Close a file that is given up or closed already; what it could not write is of no more use."""
    with suppress(OSError):
        file.close()


def write_mesh(
    path: Path,
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    normals: NDArray[np.floating] | None = None,
    colors: NDArray[np.uint8] | None = None,
) -> None:
    """Write a mesh that is in memory; normals default to the area-weighted mean of the faces'.

    Raises:
        MeshError: as `open_mesh_writer`.
    """
    if normals is None:
        import trimesh

        normals = np.asarray(trimesh.Trimesh(vertices, faces, process=False).vertex_normals)
    origin = vertices.mean(axis=0) if len(vertices) else np.zeros(3)
    with open_mesh_writer(path, len(vertices), len(faces), colors is not None, origin.tolist()) as writer:
        writer.vertices(vertices, normals.astype(np.float32), colors)
        writer.faces(faces)
