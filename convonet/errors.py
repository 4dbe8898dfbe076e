"""The errors of networks and weights. Each message names the file and the cure."""


class NetworkError(Exception):
    """Base of every error that `convonet` raises on purpose."""


class WeightsError(NetworkError):
    """A weights file is missing, damaged or of another network."""
