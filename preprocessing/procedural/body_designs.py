"""Random designs of moving bodies: what shapes, carried by what motions.

A design is a list of solids, each a rest shape with the chain of motions that carries it, the first motion
first. Solids that bend, twist or deform are upright bars; articulated ones are figures of a trunk, limbs and
a head, or chains.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from preprocessing.procedural.body_motions import (
    Bend,
    Bulge,
    Motion,
    Placement,
    Superellipsoid,
    Swell,
    Swing,
    Triple,
    Twist,
)

Design: TypeAlias = list[tuple[Superellipsoid, tuple[Motion, ...]]]
Rng: TypeAlias = np.random.Generator

X, Y, Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def _between(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _swing(rng: Rng, low: float, high: float, middle: float = 0.0) -> Swing:
    """A swing about `middle` of an amplitude from low to high, over at least half a period."""
    return Swing(middle, _between(rng, low, high), _between(rng, 0.5, 1.0), _between(rng, 0, 1))


def _wandering(rng: Rng, most_tilt: float) -> tuple[Placement, ...]:
    """A tilt and a heading, a turn that swings and a path."""
    sway_x, sway_y, sway_z = rng.normal(size=3)
    x, y = (
        replace(_swing(rng, 0.0, 0.05, _between(rng, -0.1, 0.1)), drift=_between(rng, -0.2, 0.2))
        for _ in range(2)
    )
    return (
        Placement(Z, Swing(_between(rng, 0, 2 * np.pi))),
        Placement(X, Swing(_between(rng, -most_tilt, most_tilt))),
        Placement(Z, Swing(_between(rng, 0, 2 * np.pi))),
        Placement((sway_x, sway_y, sway_z + 2), _swing(rng, 0.1, 0.4), (x, y, _swing(rng, 0.0, 0.06))),
    )


def _bar(rng: Rng, scale: float = 1.0) -> Superellipsoid:
    """An upright solid wider along y than along x, so that twists show and bends have room."""
    height, width = scale * _between(rng, 0.35, 0.65), _between(rng, 0.22, 0.34)
    axes = (height * width * _between(rng, 0.45, 0.75), height * width, height)
    return Superellipsoid(axes, _between(rng, 2.2, 4.5), _between(rng, 2.5, 5.0))


def _waist(rng: Rng, half: float) -> Bulge:
    """A bulge or a waist that stays."""
    place, swelling = Swing(_between(rng, -0.6, 0.6) * half), Swing(_between(rng, -0.35, 0.5))
    return Bulge(place, _between(rng, 0.2, 0.4) * half, swelling)


def _traveling(rng: Rng, half: float) -> Bulge:
    """A bulge that runs along most of the body, or there and back."""
    path = _swing(rng, 0.5 * half, 0.8 * half)
    swelling = Swing(_between(rng, 0.8, 1.6), _between(rng, 0.0, 0.4), 1.0, _between(rng, 0, 1))
    return Bulge(path, _between(rng, 0.18, 0.3) * half, swelling)


def _bending(rng: Rng) -> Design:
    shape = _bar(rng)
    half = shape.axes[2]
    swell = Swell(Swing(1.0), (_waist(rng, half),))
    twist = Twist(_swing(rng, 0.0, 0.3 / half, _between(rng, -0.4, 0.4) / half))
    bend = Bend(_swing(rng, 1.0 / half, 1.7 / half, _between(rng, -0.3, 0.3) / half))
    return [(shape, (swell, twist, bend, *_wandering(rng, 0.6)))]


def _twisting(rng: Rng) -> Design:
    shape = _bar(rng)
    half = shape.axes[2]
    swell = Swell(Swing(1.0), (_waist(rng, half),))
    twist = Twist(_swing(rng, 1.2 / half, 2.4 / half))
    bend = Bend(_swing(rng, 0.0, 0.3 / half, _between(rng, -0.4, 0.4) / half))
    return [(shape, (swell, twist, bend, *_wandering(rng, 0.6)))]


def _deforming(rng: Rng) -> Design:
    shape = _bar(rng, 1.4)  # bulges draw it together
    half = shape.axes[2]
    bulges = [_traveling(rng, half) for _ in range(rng.integers(1, 3))]
    swell = Swell(_swing(rng, 0.12, 0.3, 1.1), (*bulges, _waist(rng, half)))
    bend = Bend(_swing(rng, 0.1 / half, 0.4 / half, _between(rng, -0.3, 0.3) / half))
    return [(shape, (swell, bend, *_wandering(rng, 0.6)))]


def _at(place: Triple) -> tuple[Swing, Swing, Swing]:
    return Swing(place[0]), Swing(place[1]), Swing(place[2])


def _limb(
    rng: Rng, length: float, radius: float, joint: Placement, aim: Placement, carrier: tuple[Motion, ...]
) -> tuple[Superellipsoid, tuple[Motion, ...]]:
    """A limb from a little behind its joint, aimed from z, turned by the joint, then carried by its parent."""
    axes = (radius * _between(rng, 0.8, 1.0), radius, length / 2 + radius / 2)
    shape = Superellipsoid(axes, _between(rng, 2.0, 2.6), _between(rng, 2.6, 4.0))
    return shape, (Placement(position=_at((0.0, 0.0, length / 2 - radius / 2))), aim, joint, *carrier)


def _figure(rng: Rng) -> Design:
    """A trunk, one or two pairs of limbs, which may have a second link, and perhaps a head: 3 to 6 solids."""
    carrier = _wandering(rng, 0.3)
    wide, deep, tall = _between(rng, 0.16, 0.22), _between(rng, 0.11, 0.15), _between(rng, 0.26, 0.34)
    trunk = Superellipsoid((wide, deep, tall), _between(rng, 2.2, 3.2), _between(rng, 2.4, 3.6))
    design: Design = [(trunk, carrier)]
    pairs = [["arms"], ["legs"], ["arms", "legs"], ["long arms"], ["long legs"]][rng.integers(5)]
    rate = _between(rng, 0.6, 1.1)
    for pair in pairs:
        is_leg = pair.endswith("legs")
        length = _between(rng, 0.4, 0.55) * (1.15 if is_leg else 1.0)
        radius = _between(rng, 0.065, 0.085) * (1.15 if is_leg else 1.0)
        spread = _between(rng, 0.1, 0.35) if is_leg else _between(rng, 0.5, 1.4)
        amplitude, phase = _between(rng, 0.5, 0.9), _between(rng, 0, 1)
        for side in (-1, 1):
            place = (
                (side * 0.5 * wide, 0.0, -0.85 * tall) if is_leg else (side * 0.85 * wide, 0.0, 0.6 * tall)
            )
            # Sides swing against each other, about an axis that is nearly the one across the body.
            axis = (1.0, side * _between(rng, -0.3, 0.3), _between(rng, -0.3, 0.3))
            swing = Swing(0.0, amplitude, rate, phase + side / 4)
            joint = Placement(axis, swing, _at(place))
            aim = Placement(Y, Swing(side * (np.pi - spread)))
            if not pair.startswith("long"):
                design.append(_limb(rng, length, radius, joint, aim, carrier))
                continue
            length *= 0.62
            upper = _limb(rng, length, radius, joint, aim, carrier)
            bow = Swing(0.7 if is_leg else -0.7, _between(rng, 0.4, 0.6), rate, phase + side / 4 + 0.15)
            hinge = Placement(X, bow, _at((0.0, 0.0, length - radius / 2)))
            lower = _limb(rng, length, 0.85 * radius, hinge, Placement(), (aim, joint, *carrier))
            design += [upper, lower]
    if len(design) == 5 or (len(design) == 3 and rng.random() < 0.5):
        size = _between(rng, 0.11, 0.14)
        neck = Placement(
            (1.0, _between(rng, -1, 1), 0.0), _swing(rng, 0.15, 0.4), _at((0.0, 0.0, 0.9 * tall))
        )
        head = Superellipsoid((0.8 * size, 0.9 * size, size), 2.0, 2.3)
        design.append((head, (Placement(position=_at((0.0, 0.0, 0.8 * size))), neck, *carrier)))
    return design


def _chain(rng: Rng) -> Design:
    """3 to 6 links, each hinged to the one before; a wave of bending runs along them."""
    carrier: tuple[Motion, ...] = _wandering(rng, 1.2)
    count = int(rng.integers(3, 7))
    length = _between(rng, 1.0, 1.6) / count
    radius = length * _between(rng, 0.22, 0.32)
    amplitude, rate = _between(rng, 1.2, 2.2) / count, _between(rng, 0.6, 1.0)
    phase, delay = _between(rng, 0, 1), _between(rng, 0.05, 0.25)
    middle = -0.5 * length * count
    design: Design = []
    for link in range(count):
        axis = (1.0, _between(rng, -0.4, 0.4), _between(rng, -0.2, 0.2))
        swing = Swing(0.0, amplitude, rate, phase - delay * link)
        joint = Placement(axis, swing, _at((0.0, 0.0, length - radius / 2 if link else middle)))
        design.append(_limb(rng, length, radius, joint, Placement(), carrier))
        carrier = (joint, *carrier)
    return design


def _articulated(rng: Rng) -> Design:
    return _chain(rng) if rng.random() < 0.35 else _figure(rng)


DESIGNS: dict[str, Callable[[Rng], Design]] = {
    "articulated": _articulated,
    "bending": _bending,
    "twisting": _twisting,
    "deforming": _deforming,
}
