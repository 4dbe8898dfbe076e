"""Meshes read in a process of their own, as a damaged file could crash a library or fill the memory."""

from __future__ import annotations

from pathlib import Path

from foundation.local_paths import local_path
from pipeline.isolation import CallCrashedError, CallFailedError, CallLimits, IsolatedProcess
from preprocessing.errors import MeshError
from preprocessing.meshes.files import Mesh, read_mesh

TIMEOUT_S = 3600.0
BASE_BYTES, BYTES_EACH = 2 * 2**30, 40  # memory of the libraries, and for each byte of the file


def mesh_limits(path: Path, timeout_s: float = TIMEOUT_S) -> CallLimits:
    """What reading a mesh file whole may take, by its size."""
    size = path.stat().st_size if path.is_file() else 0
    return CallLimits(timeout_s, BASE_BYTES + BYTES_EACH * size)


def read_mesh_safely(path: Path) -> Mesh:
    """Read a mesh file; see `read_mesh`.

    Raises:
        MeshError: as `read_mesh`, and where the file makes its reader crash, hang or take too much memory.
    """
    path = local_path(path)
    process = IsolatedProcess(mesh_limits(path))
    try:
        answer = process.call(_read, path)
    except (CallCrashedError, CallFailedError) as error:
        raise MeshError(
            f"{path}: its reader {error}; the file may be damaged: copy or export it again"
        ) from error
    finally:
        process.close()
    if isinstance(answer, MeshError):
        raise answer
    return answer


def _read(path: Path) -> Mesh | MeshError:
    """Runs in the isolated process; what is wrong with the mesh comes in its own words."""
    try:
        return read_mesh(path)
    except MeshError as error:
        return error
