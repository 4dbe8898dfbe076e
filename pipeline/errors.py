"""The errors of the distributed stages. Each message says what to do."""

from foundation.errors import TesseraError


class PipelineError(TesseraError):
    """Base of every error that `pipeline` raises on purpose."""


class RunDirectoryError(PipelineError):
    """A run directory belongs to another run, or cannot be used."""


class RunFileError(RunDirectoryError):
    """A file of a run directory is missing, damaged or another one; it can be computed again.

    Attributes:
        folder: the run directory.
        name: of the file in it.
        reason: what is wrong.
    """

    def __init__(self, folder: str, name: str, reason: str) -> None:
        super().__init__(folder, name, reason)  # so that it can travel between processes
        self.folder, self.name, self.reason = folder, name, reason

    def __str__(self) -> str:
        return f"{self.folder}/{self.name}: {self.reason}; run the same command again to compute it again"


class ClusterError(PipelineError):
    """Ray cannot be reached or lost too many workers."""


class OverwritingError(PipelineError):
    """An output of a command is one of its inputs."""


class NoSurfaceError(PipelineError):
    """A reconstruction ended with a mesh that is no surface of its scan."""
