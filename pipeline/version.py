"""The version that stores and reports carry."""

from importlib.metadata import PackageNotFoundError, version

UNKNOWN = "unknown"


def software_version() -> str:
    """Version of the installed distribution, or `unknown` in a bare checkout (as a Ray job's folder is)."""
    try:
        return version("tessera-mesh")
    except PackageNotFoundError:
        return UNKNOWN
