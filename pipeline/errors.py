"""The errors of the distributed stages. Each message says what to do."""


class PipelineError(Exception):
    """Base of every error that `pipeline` raises on purpose."""


class RunDirectoryError(PipelineError):
    """A run directory belongs to another run, or cannot be used."""


class ClusterError(PipelineError):
    """Ray cannot be reached or lost too many workers."""


class OverwritingError(PipelineError):
    """An output of a command is one of its inputs."""


class NoSurfaceError(PipelineError):
    """A reconstruction ended with a mesh that is no surface of its scan."""
