"""The errors of geometry and files. Each message names the file and the cure."""

from foundation.errors import TesseraError


class GeometryError(TesseraError):
    """Base of every error that `preprocessing` raises on purpose."""


class ScanError(GeometryError):
    """A point cloud cannot be read or cannot be reconstructed."""


class MeshError(GeometryError):
    """A mesh cannot be read, written or measured."""


class NoFacesError(MeshError):
    """A mesh file holds no faces."""


class DatasetError(GeometryError):
    """A training data store is missing, incomplete or of another version."""
