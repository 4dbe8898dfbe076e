"""Learned occupancy fields: networks, training and surface extraction, in plain torch and numpy."""

DEFAULT_MODEL = "volume-default"
"""Name of the packaged weights that reconstruct scans where no others are named."""
