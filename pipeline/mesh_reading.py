"""Meshes read in a process of their own, as a damaged file could crash a library or fill the memory."""

from __future__ import annotations

from pathlib import Path

from pipeline.isolation import CallCrashedError, CallFailedError, CallLimits, IsolatedProcess
from preprocessing.errors import MeshError
from preprocessing.mesh_files import Mesh, read_mesh

LIMITS = CallLimits(timeout_s=3600.0, memory_bytes=32 * 2**30)


def read_mesh_safely(path: Path, limits: CallLimits = LIMITS) -> Mesh:
    """Read a mesh file; see `read_mesh`.

    Raises:
        MeshError: as `read_mesh`, and where the file makes its reader crash, hang or take too much memory.
    """
    process = IsolatedProcess(limits)
    try:
        answer = process.call(_read, Path(path))
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
