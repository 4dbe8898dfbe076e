"""One place that imports Open3D, whose wheel needs system libraries that pip cannot install."""

import os
from functools import cache
from typing import Any

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
