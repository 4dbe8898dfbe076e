"""One place that imports Open3D, whose wheel needs system libraries that pip cannot install."""

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
