"""The errors of networks and weights. Each message names the file and the cure."""

from __future__ import annotations

from foundation.errors import TesseraError


class NetworkError(TesseraError):
    """Base of every error that `convonet` raises on purpose."""


class WeightsError(NetworkError):
    """A weights file is missing, damaged or of another network."""


class FieldError(NetworkError, ValueError):
    """A network gave values that are not finite."""


class EntriesError(WeightsError):
    """A state dict has not the entries of a network.

    Attributes:
        differences: each missing, unexpected or wrongly shaped entry.
    """

    def __init__(self, message: str, differences: tuple[str, ...]) -> None:
        super().__init__(message)
        self.differences = differences

    def __reduce__(self) -> tuple[type[EntriesError], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.differences)
