"""Writing a mesh block by block: what every format's writer checks, and PLY, the format without limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what the disk refuses (full, read-only, no such folder) into one clear error.

    Raises:
        MeshError: in place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise MeshError(
            f"{path}: cannot be written ({error.strerror or error}); free space or choose another file"
        ) from error


LONGEST_LABEL = 200
_EPSG = re.compile(r"""(?:AUTHORITY|ID)\s*\[\s*"EPSG"\s*,\s*"?(\d+)"?\s*\]""", re.IGNORECASE)


def crs_label(crs: str) -> str:
    """A coordinate reference system in one short line: its EPSG code where its text ends with one."""
    codes = _EPSG.findall(crs)
    return f"EPSG:{codes[-1]}" if codes else " ".join(crs.split())[:LONGEST_LABEL]


@dataclass(eq=False)
class MeshWriter:
    """Writes one mesh; see `meshes.files.open_mesh_writer`.

    The base class keeps the counts; each format writes a block of vertices or faces.
    """

    path: Path
    file: BinaryIO
    vertex_count: int
    face_count: int
    has_colors: bool
    origin: NDArray[np.float64]
    has_confidence: bool = False
    crs: str | None = None

    def __post_init__(self) -> None:
        self.crs = None if self.crs is None else crs_label(self.crs)
        self.vertices_written = self.faces_written = 0
        self._confidence: NDArray[np.float32] | None = None
        self._begin()

    def vertices(
        self,
        positions: NDArray[np.float64],
        normals: NDArray[np.float32],
        colors: NDArray[np.uint8] | None,
        confidence: NDArray[np.float32] | None = None,
    ) -> None:
        """Write the next vertices: positions (N, 3), unit normals (N, 3), colors (N, 3) where declared.

        A confidence (N,) between 0 and 1, where declared, goes into formats that can hold it: PLY.

        Raises:
            MeshError: if the disk is full, or the format cannot hold the positions.
        """
        assert not self.faces_written, "vertices come before faces"
        assert (colors is not None) == self.has_colors, "colors must be as declared"
        assert self.vertices_written + len(positions) <= self.vertex_count, "more vertices than declared"
        assert (confidence is not None) == self.has_confidence, "confidence must be as declared"
        with writing_to(self.path):
            self._confidence = confidence
            self._write_vertices(positions, normals, colors)
        self.vertices_written += len(positions)

    def faces(self, faces: NDArray[np.int64]) -> None:
        """Write the next faces (N, 3), as numbers of vertices.

        Raises:
            MeshError: if the disk is full.
        """
        assert self.vertices_written == self.vertex_count, "all vertices come before faces"
        assert self.faces_written + len(faces) <= self.face_count, "more faces than declared"
        with writing_to(self.path):
            self._write_faces(faces)
        self.faces_written += len(faces)

    def finish(self) -> None:
        """Check the counts and write what follows the faces."""
        assert self.vertices_written == self.vertex_count, "fewer vertices than declared"
        assert self.faces_written == self.face_count, "fewer faces than declared"

    def release(self) -> None:
        """Remove what the writer keeps beside the file, finished or not."""

    def _begin(self) -> None:
        """Refuse what the format cannot hold; write what precedes the vertices."""

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        raise NotImplementedError

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        raise NotImplementedError


class PlyWriter(MeshWriter):
    """Binary little-endian PLY: double positions, float normals, uchar colors."""

    def _begin(self) -> None:
        if self.vertex_count > 2**32:
            raise MeshError(
                f"{self.path}: PLY numbers at most 2^32 vertices, not {self.vertex_count:,}; use a larger voxel size"
            )
        fields = [(name, "<f8") for name in "xyz"] + [(name, "<f4") for name in ("nx", "ny", "nz")]
        names = {"<f8": "double", "<f4": "float", "u1": "uchar"}
        if self.has_colors:
            fields += [(name, "u1") for name in ("red", "green", "blue")]
        if self.has_confidence:
            fields += [("confidence", "<f4")]
        self._vertex = np.dtype(fields)
        self._index, index_name = ("<u4", "uint") if self.vertex_count > 2**31 else ("<i4", "int")
        header = ["ply", "format binary_little_endian 1.0", "comment made by Tessera, meters"]
        header += [f"comment crs {self.crs}"] if self.crs else []
        header += [f"element vertex {self.vertex_count}"]
        header += [f"property {names[kind]} {name}" for name, kind in fields]
        header += [f"element face {self.face_count}"]
        header += [f"property list uchar {index_name} vertex_indices", "end_header", ""]
        self.file.write("\n".join(header).encode())

    def _write_vertices(
        self, positions: NDArray[np.float64], normals: NDArray[np.float32], colors: NDArray[np.uint8] | None
    ) -> None:
        rows = np.empty(len(positions), self._vertex)
        for axis, name in enumerate("xyz"):
            rows[name], rows[f"n{name}"] = positions[:, axis], normals[:, axis]
        if colors is not None:
            for channel, name in enumerate(("red", "green", "blue")):
                rows[name] = colors[:, channel]
        if self._confidence is not None:
            rows["confidence"] = self._confidence
        self.file.write(rows.tobytes())

    def _write_faces(self, faces: NDArray[np.int64]) -> None:
        rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", self._index, (3,))]))
        rows["count"], rows["corners"] = 3, faces
        self.file.write(rows.tobytes())
