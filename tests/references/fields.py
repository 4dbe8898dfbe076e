"""Analytic fields on lattice points for surface tests: positive inside, float32, any int64 offset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Field = Callable[[NDArray[np.int64]], NDArray[np.float32]]


def spheres(centers: list[tuple[float, float, float]], radii: list[float]) -> Field:
    """Union of balls; the value is the signed distance to the nearest of them."""

    def value(points: NDArray[np.int64]) -> NDArray[np.float32]:
        distances = [
            r - np.linalg.norm(points - np.array(c), axis=1) for c, r in zip(centers, radii, strict=True)
        ]
        return np.max(distances, axis=0).astype(np.float32)

    return value


def box(low: tuple[float, float, float], high: tuple[float, float, float]) -> Field:
    """Axis-aligned box; the value is the smallest distance to a side."""

    def value(points: NDArray[np.int64]) -> NDArray[np.float32]:
        inner = np.minimum(points - np.array(low), np.array(high) - points)
        return inner.min(axis=1).astype(np.float32)

    return value


def union(*fields: Field) -> Field:
    """The largest of several fields at each point."""

    def value(points: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.max([part(points) for part in fields], axis=0)

    return value


def gyroid(period: float, origin: tuple[int, int, int] = (0, 0, 0)) -> Field:
    """Triply periodic surface of high genus; `origin` keeps the phase exact at large offsets."""

    def value(points: NDArray[np.int64]) -> NDArray[np.float32]:
        x, y, z = (2 * np.pi / period * (points - np.array(origin))).T
        return (np.sin(x) * np.cos(y) + np.sin(y) * np.cos(z) + np.sin(z) * np.cos(x)).astype(np.float32)

    return value


def waves(seed: int, wavelength: float, origin: tuple[int, int, int] = (0, 0, 0)) -> Field:
    """Smooth random field: a sum of 12 plane waves no shorter than `wavelength`."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(12, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    numbers = 2 * np.pi / wavelength * directions * rng.uniform(0.3, 1.0, (12, 1))
    phases = rng.uniform(0, 2 * np.pi, 12)

    def value(points: NDArray[np.int64]) -> NDArray[np.float32]:
        local = (points - np.array(origin)).astype(np.float64)
        return np.sin(local @ numbers.T + phases).sum(axis=1).astype(np.float32)

    return value


@dataclass
class Counted:
    """A field that remembers which points it was asked for."""

    inner: Field
    asked: list[NDArray[np.int64]] = field(default_factory=list)

    def __call__(self, points: NDArray[np.int64]) -> NDArray[np.float32]:
        self.asked.append(points.copy())
        return self.inner(points)

    @property
    def points(self) -> NDArray[np.int64]:
        return np.concatenate(self.asked) if self.asked else np.zeros((0, 3), np.int64)
