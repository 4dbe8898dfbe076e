"""The one camera of all pictures: rays through its pixels, and the pixels that points fall on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Up = Literal["y", "z"]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        eye, target: positions.
        field_of_view_deg: vertical.
        up: the axis that points up in the picture.
    """

    eye: NDArray[np.float64]
    target: NDArray[np.float64]
    field_of_view_deg: float = 35.0
    up: Up = "z"

    def axes(self) -> NDArray[np.float64]:
        """Unit vectors right, down and forward, the rows of a (3, 3) array."""
        forward = (self.target - self.eye) / np.linalg.norm(self.target - self.eye)
        upright = np.eye(3)["xyz".index(self.up)]
        if abs(forward @ upright) > 0.99999:  # from straight above: another axis
            upright = np.roll(upright, -1)
        right = np.cross(forward, upright)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(forward, right), forward])

    def pose(self) -> NDArray[np.float64]:
        """(3, 4) matrix from the world to the camera, in which x goes right, y down and z forward."""
        axes = self.axes()
        return np.column_stack([axes, -axes @ self.eye])

    def pinhole(self, width: int, height: int) -> NDArray[np.float64]:
        """(3, 3) matrix from the camera to pixels; pixel (0, 0) is centered at (0.5, 0.5)."""
        focal = height / 2 / self.reach
        return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])

    @property
    def reach(self) -> float:
        """Half the picture's height, at distance 1."""
        return float(np.tan(np.radians(self.field_of_view_deg) / 2))

    def rays(self, width: int, height: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Origins and unit directions (height * width, 3), row by row."""
        right, down, forward = self.axes()
        x = (np.arange(width) + 0.5 - width / 2) / (height / 2) * self.reach
        y = (np.arange(height) + 0.5 - height / 2) / (height / 2) * self.reach
        directions = forward + (x[None, :, None] * right + y[:, None, None] * down).reshape(-1, 3)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return np.broadcast_to(self.eye, directions.shape), directions

    def project(
        self, points: NDArray[np.float64], width: int, height: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Columns and rows (N, 2) of points (N, 3), their depths (N,), and which are in the picture (N,)."""
        local = (points - self.eye) @ self.axes().T
        depth = local[:, 2]
        is_seen = depth > 0
        scale = height / 2 / self.reach / np.where(is_seen, depth, 1.0)
        place = local[:, :2] * scale[:, None] + np.array([width / 2, height / 2])
        is_seen &= ((place >= 0) & (place < (width, height))).all(axis=1)
        return np.floor(np.where(is_seen[:, None], place, 0)).astype(np.int64), depth, is_seen


def direction(azimuth: float, elevation: float, up: Up = "z") -> NDArray[np.float64]:
    """Unit vector (3,) towards a place on a ball; angles in radians, azimuth from the axis after `up`."""
    flat = np.cos(elevation)
    towards = np.array([np.cos(azimuth) * flat, np.sin(azimuth) * flat, np.sin(elevation)])
    return np.roll(towards, "xyz".index(up) - 2)


def orbit_camera(
    low: NDArray[np.float64], high: NDArray[np.float64], azimuth_deg: float, elevation_deg: float
) -> Camera:
    """A camera that sees a whole bounding box from a direction."""
    center, radius = 0.5 * (low + high), 0.5 * float(np.linalg.norm(high - low))
    distance = radius / np.sin(np.radians(Camera.field_of_view_deg) / 2)
    towards = direction(np.radians(azimuth_deg), np.radians(elevation_deg))
    return Camera(center + towards * distance, center)
