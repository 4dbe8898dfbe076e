"""Rest shapes and smooth motions that have an exact inverse: swell, twist, bend, placement.

A shape at rest is a superellipsoid with its axis along z. A motion carries rest positions to where they are
at a time from 0 to 1, and back in closed form. Every motion keeps volumes where it is one to one: swelling,
twisting and placing keep that of every piece, bending that of a solid symmetric about its axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from preprocessing.procedural.solids import rotation_about

Floats: TypeAlias = NDArray[np.float64]
Triple: TypeAlias = tuple[float, float, float]

# Margins of invertibility: least local stretch, and most angle of a bent axis to either side of its middle.
LEAST_STRETCH = 0.1
MOST_BEND = 0.95 * np.pi
NEWTON_STEPS = 100


@dataclass(frozen=True)
class Swing:
    """A number that changes smoothly: middle + drift * time + amplitude * sin(2 pi (rate * time + phase))."""

    middle: float = 0.0
    amplitude: float = 0.0
    rate: float = 0.0
    phase: float = 0.0
    drift: float = 0.0

    def at(self, time: float) -> float:
        """The number at a time."""
        wave = np.sin(2 * np.pi * (self.rate * time + self.phase))
        return float(self.middle + self.drift * time + self.amplitude * wave)


STILL = Swing()


@dataclass(frozen=True)
class Superellipsoid:
    """The solid where the gauge ((|x/a|^p + |y/b|^p)^(q/p) + |z/c|^q)^(1/q) is at most 1.

    Attributes:
        axes: half sizes a, b, c.
        section: the exponent p of sections across z, 2 for ellipses, more for rounded boxes.
        profile: the exponent q along z, 2 for an ellipsoid's profile, more for a rounded cylinder's.
    """

    axes: Triple
    section: float = 2.0
    profile: float = 2.0

    def __post_init__(self) -> None:
        if min(self.axes) <= 0 or min(self.section, self.profile) < 2:
            raise ValueError(f"a smooth superellipsoid needs axes above 0 and exponents from 2: {self}")

    def gauge(self, points: Floats) -> Floats:
        """(N,) by how much the shape must be scaled to have each point (N, 3) on its surface."""
        x, y, z = np.abs(points / self.axes).T
        across = (x**self.section + y**self.section) ** (1 / self.section)
        gauge: Floats = (across**self.profile + z**self.profile) ** (1 / self.profile)
        return gauge

    def contains(self, points: Floats) -> NDArray[np.bool_]:
        """Whether each point (N, 3) is inside."""
        inside: NDArray[np.bool_] = np.all(np.abs(points) <= self.axes, axis=1)
        inside[inside] = self.gauge(points[inside]) <= 1
        return inside

    def gradient(self, points: Floats) -> Floats:
        """(N, 3) gradients of the gauge at points (N, 3) other than 0."""
        x, y, z = np.abs(points / self.axes).T
        p, q = self.section, self.profile
        across = (x**p + y**p) ** (1 / p)
        whole = (across**q + z**q) ** (1 / q)
        safe = np.where(across > 0, across, 1.0)
        slopes = np.stack([(x / safe) ** (p - 1), (y / safe) ** (p - 1), np.ones_like(z)], axis=1)
        slopes[:, :2] *= ((across / whole) ** (q - 1))[:, None]
        slopes[:, 2] *= (z / whole) ** (q - 1)
        gradient: Floats = slopes * np.sign(points) / self.axes
        return gradient

    def along(self, directions: Floats) -> tuple[Floats, Floats]:
        """The surface seen from the center of the shape scaled to axes 1.

        Args:
            directions: (N, 3) unit vectors.

        Returns:
            (N, 3) surface points, and (N,) areas of surface per solid angle over the length of `gradient`.
        """
        scaled = directions * self.axes
        gauge = self.gauge(scaled)
        return scaled / gauge[:, None], np.prod(self.axes) / gauge**3


class Motion(Protocol):
    """A smooth map of space that changes with time and has a closed-form inverse."""

    def forward(self, points: Floats, time: float) -> Floats:
        """Where the motion carries points (N, 3)."""

    def inverse(self, points: Floats, time: float) -> Floats:
        """Which points (N, 3) the motion carries to the given ones."""

    def jacobian(self, points: Floats, time: float) -> Floats:
        """(N, 3, 3) derivatives of `forward` at points (N, 3)."""

    def is_one_to_one(self, points: Floats, time: float) -> bool:
        """Whether a solid with surface points (N, 3) is carried without folding or meeting itself; so by default."""
        return True


@dataclass(frozen=True)
class Bulge:
    """Matter drawn together around a height: sections grow, or with a negative `swelling` shrink, there."""

    height: Swing
    width: float
    swelling: Swing


@dataclass(frozen=True)
class Swell(Motion):
    """Stretch along z with bulges that may travel, every piece keeping its volume.

    The height z' after the motion fixes that before it, z = h(z'), with
    h'(z') = 1 / stretch + sum of swelling / cosh((z' - height) / width)^2; sections grow by sqrt(h').
    """

    stretch: Swing
    bulges: tuple[Bulge, ...] = ()

    def _bulges(self, heights: Floats, time: float) -> list[tuple[float, float, Floats]]:
        return [
            (b.swelling.at(time), b.width, np.tanh((heights - b.height.at(time)) / b.width))
            for b in self.bulges
        ]

    def _source(self, heights: Floats, time: float) -> Floats:
        flat: Floats = heights / self.stretch.at(time)
        return flat + sum(swelling * width * wave for swelling, width, wave in self._bulges(heights, time))

    def _slopes(self, heights: Floats, time: float) -> tuple[Floats, Floats]:
        """First and second derivative of h at heights (N,)."""
        first, second = np.full_like(heights, 1 / self.stretch.at(time)), np.zeros_like(heights)
        for swelling, width, wave in self._bulges(heights, time):
            first += swelling * (1 - wave**2)
            second -= swelling * 2 / width * wave * (1 - wave**2)
        return first, second

    def _heights(self, sources: Floats, time: float) -> Floats:
        """The inverse of h by Newton's method, which a shrinking bracket keeps from overshooting."""
        stretch = self.stretch.at(time)
        slack = sum(abs(b.swelling.at(time)) * b.width for b in self.bulges)
        low, high = stretch * (sources - slack), stretch * (sources + slack)
        heights = 0.5 * (low + high)
        for _ in range(NEWTON_STEPS):
            excess = self._source(heights, time) - sources
            low, high = np.where(excess < 0, heights, low), np.where(excess > 0, heights, high)
            nearer = heights - excess / self._slopes(heights, time)[0]
            nearer = np.where((nearer >= low) & (nearer <= high), nearer, 0.5 * (low + high))
            change = np.abs(nearer - heights).max(initial=0)
            heights = nearer
            if change < 1e-15:
                break
        return heights

    def forward(self, points: Floats, time: float) -> Floats:
        heights = self._heights(points[:, 2], time)
        growth = np.sqrt(self._slopes(heights, time)[0])
        return np.stack([points[:, 0] * growth, points[:, 1] * growth, heights], axis=1)

    def inverse(self, points: Floats, time: float) -> Floats:
        x, y, heights = points.T
        growth = np.sqrt(self._slopes(heights, time)[0])
        return np.stack([x / growth, y / growth, self._source(heights, time)], axis=1)

    def jacobian(self, points: Floats, time: float) -> Floats:
        first, second = self._slopes(self._heights(points[:, 2], time), time)
        growth = np.sqrt(first)
        jacobian = np.zeros((len(points), 3, 3))
        jacobian[:, 0, 0] = jacobian[:, 1, 1] = growth
        jacobian[:, :2, 2] = points[:, :2] * (second / (2 * growth**3))[:, None]
        jacobian[:, 2, 2] = 1 / first
        return jacobian

    def is_one_to_one(self, points: Floats, time: float) -> bool:
        """Whether h increases everywhere."""
        shrinking = sum(min(b.swelling.at(time), 0.0) for b in self.bulges)
        return self.stretch.at(time) > 0 and 1 / self.stretch.at(time) + shrinking > LEAST_STRETCH


@dataclass(frozen=True)
class Twist(Motion):
    """Turns sections about z by `rate` (radians a meter) times their height."""

    rate: Swing

    def _turned(self, points: Floats, rate: float) -> Floats:
        x, y, z = points.T
        cosine, sine = np.cos(rate * z), np.sin(rate * z)
        return np.stack([cosine * x - sine * y, sine * x + cosine * y, z], axis=1)

    def forward(self, points: Floats, time: float) -> Floats:
        return self._turned(points, self.rate.at(time))

    def inverse(self, points: Floats, time: float) -> Floats:
        return self._turned(points, -self.rate.at(time))

    def jacobian(self, points: Floats, time: float) -> Floats:
        rate, turned = self.rate.at(time), self.forward(points, time)
        cosine, sine = np.cos(rate * points[:, 2]), np.sin(rate * points[:, 2])
        jacobian = np.zeros((len(points), 3, 3))
        jacobian[:, 0, 0], jacobian[:, 0, 1], jacobian[:, 0, 2] = cosine, -sine, -rate * turned[:, 1]
        jacobian[:, 1, 0], jacobian[:, 1, 1], jacobian[:, 1, 2] = sine, cosine, rate * turned[:, 0]
        jacobian[:, 2, 2] = 1
        return jacobian


@dataclass(frozen=True)
class Bend(Motion):
    """Bends the z axis to an arc in the x, z plane, sections staying flat and across it.

    Attributes:
        curvature: of the arc, radians a meter; the axis turns to +x where it is positive.
    """

    curvature: Swing

    def forward(self, points: Floats, time: float) -> Floats:
        curvature = self.curvature.at(time)
        x, y, z = points.T
        angle = curvature * z
        # Written so that nothing is lost as the curvature goes through 0; np.sinc(s) is sin(pi s) / (pi s).
        rise = z * np.sinc(angle / np.pi)
        sag = z * np.sin(angle / 2) * np.sinc(angle / (2 * np.pi))
        return np.stack([x * np.cos(angle) + sag, y, (1 - curvature * x) * rise], axis=1)

    def inverse(self, points: Floats, time: float) -> Floats:
        curvature = self.curvature.at(time)
        x, y, z = points.T
        sine, cosine = curvature * z, 1 - curvature * x
        radius = np.hypot(sine, cosine)  # over that of the arc
        height = np.arctan2(sine, cosine) / curvature if curvature else z
        return np.stack([(2 * x - curvature * (x**2 + z**2)) / (1 + radius), y, height], axis=1)

    def jacobian(self, points: Floats, time: float) -> Floats:
        curvature = self.curvature.at(time)
        angle, stretch = curvature * points[:, 2], 1 - curvature * points[:, 0]
        jacobian = np.zeros((len(points), 3, 3))
        jacobian[:, 0, 0], jacobian[:, 0, 2] = np.cos(angle), stretch * np.sin(angle)
        jacobian[:, 2, 0], jacobian[:, 2, 2] = -np.sin(angle), stretch * np.cos(angle)
        jacobian[:, 1, 1] = 1
        return jacobian

    def is_one_to_one(self, points: Floats, time: float) -> bool:
        """Whether the arc's center is outside the solid and its ends do not meet."""
        curvature = self.curvature.at(time)
        stretch = 1 - curvature * points[:, 0]
        return bool((stretch > LEAST_STRETCH).all() and (np.abs(curvature * points[:, 2]) < MOST_BEND).all())


@dataclass(frozen=True)
class Placement(Motion):
    """Turns about an axis through the origin, then moves the origin."""

    axis: Triple = (0.0, 0.0, 1.0)
    angle: Swing = STILL
    position: tuple[Swing, Swing, Swing] = (STILL, STILL, STILL)

    def _pose(self, time: float) -> tuple[Floats, Floats]:
        rotation = rotation_about(self.axis, self.angle.at(time))
        return rotation, np.array([swing.at(time) for swing in self.position])

    def forward(self, points: Floats, time: float) -> Floats:
        rotation, position = self._pose(time)
        return points @ rotation.T + position

    def inverse(self, points: Floats, time: float) -> Floats:
        rotation, position = self._pose(time)
        return (points - position) @ rotation

    def jacobian(self, points: Floats, time: float) -> Floats:
        return np.broadcast_to(self._pose(time)[0], (len(points), 3, 3))
