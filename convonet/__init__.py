"""Learned occupancy fields: networks, training and surface extraction, in plain torch and numpy."""
