"""One place that imports Open3D, whose wheel needs system libraries that pip cannot install."""

import os
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import GeometryError

SYSTEM_LIBRARIES = ("libusb-1.0-0", "libgl1", "libegl1", "libx11-6", "libgomp1")


@cache
def load_open3d() -> Any:
    """Import Open3D.

    Raises:
        GeometryError: if the wheel is absent or a system library is; the message is the command to run.
    """
    try:
        import open3d
    except (ImportError, OSError) as error:
        packages = " ".join(SYSTEM_LIBRARIES)
        raise GeometryError(
            f"Open3D cannot start ({error}); run: sudo apt-get install -y {packages} && pip install open3d"
        ) from error
    open3d.utility.set_verbosity_level(open3d.utility.VerbosityLevel.Error)
    return open3d


def ray_threads() -> int:
    """Threads of a ray query: as many as OMP_NUM_THREADS allows, 0 for all.

    Open3D's ray trees ignore that variable by themselves, so tasks that share a machine would disturb one another.
    """
    return int(os.environ.get("OMP_NUM_THREADS") or 0)


def ray_tree(meshes: Iterable[tuple[NDArray[np.floating], NDArray[np.integer]]]) -> Any:
    """Open3D's ray tree of meshes, each a geometry of its own: vertices (V, 3) and faces (F, 3).

    It works in single precision, so callers subtract the center of meshes that lie far off.

    Raises:
        GeometryError: if Open3D cannot start.
    """
    open3d = load_open3d()
    scene = open3d.t.geometry.RaycastingScene(nthreads=ray_threads())
    for vertices, faces in meshes:
        scene.add_triangles(tensor(vertices), open3d.core.Tensor(np.ascontiguousarray(faces, np.uint32)))
    return scene


def tensor(values: NDArray[np.floating]) -> Any:
    """Positions or rays as a ray tree takes them."""
    return load_open3d().core.Tensor(np.ascontiguousarray(values, np.float32))
