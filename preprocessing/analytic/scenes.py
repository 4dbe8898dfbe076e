"""Families of analytic scenes, in voxels about the origin: closed solids, walls, vaults, sheets, thin things, houses.

What nobody can know follows one rule, in these labels as in results: behind a surface seen from one side the solid
ends after `SHEET_VOXELS`; space enclosed by seen surfaces is solid; everything else unseen is free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike

from preprocessing.analytic.solids import (
    Blob,
    Box,
    Capsule,
    Carved,
    Cylinder,
    Floats,
    HalfSpace,
    Hull,
    Placed,
    Sheet,
    Shell,
    Solid,
    Sphere,
    Terrain,
    Torus,
    Union,
)
from preprocessing.batches.seen_labels import SHEET_VOXELS
from preprocessing.rotations import log_uniform, random_rotation

# The free side of a sheet that nothing tells: mostly above, and one fixed side of every wall.
TIE_BREAK = np.array([0.26, 0.15, 0.954], np.float32)
Z_TO_X = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]], np.float32)


class Seen(Enum):
    """How much of a scene's surface is scanned, which decides its labels."""

    ALL = "all"  # from all sides: closed solids are solid throughout
    OUTSIDE = "outside"  # one side of everything: the label is a sheet
    FROM_STATIONS = "from stations"  # what is in sight of them


@dataclass(frozen=True)
class AnalyticScene:
    """One scene, in voxels.

    Attributes:
        solid: what is there; its surface is what is scanned.
        label: what the scan can tell of it; the same for `Seen.ALL`.
        seen: how much of the surface is scanned.
        stations: (S, 3) scanner positions; empty for `Seen.ALL` and `Seen.OUTSIDE`.
        is_cut: whether it may go on beyond a crop, whose border then lacks context.
        needs_directions: whether the side of its surfaces cannot be told from the points.
        up: (3,) a normal of the free side, where the scene has one: for the tie between the sides of a sheet.
        turns_freely: whether any rotation gives an equally likely scene.
        sheet: voxels after which the solid behind a surface seen from one side ends.
    """

    solid: Solid
    label: Solid
    seen: Seen = Seen.ALL
    stations: Floats = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    is_cut: bool = False
    needs_directions: bool = False
    up: Floats | None = None
    turns_freely: bool = True
    sheet: float = SHEET_VOXELS

    def placed(self, rotation: Floats, translation: Floats) -> AnalyticScene:
        """The scene turned, then moved."""
        return replace(
            self,
            solid=Placed(self.solid, rotation, translation),
            label=Placed(self.label, rotation, translation),
            stations=(self.stations @ rotation.T + translation).astype(np.float32),
            up=None if self.up is None else (self.up @ rotation.T).astype(np.float32),
        )


def random_sheet(rng: np.random.Generator) -> float:
    """Thickness of sheets, in voxels: that of a level of the pyramid, most often the finest."""
    level = int(rng.choice(5, p=[0.6, 0.14, 0.1, 0.08, 0.08]))
    return SHEET_VOXELS / 2.0**level


def _at(solid: Solid, position: ArrayLike, rotation: Floats | None = None) -> Placed:
    turn = np.eye(3, dtype=np.float32) if rotation is None else rotation
    return Placed(solid, turn, np.asarray(position, np.float32))


def primitive(rng: np.random.Generator, size: float) -> Solid:
    """A random closed solid about `size` voxels wide, as the generator of all families' parts."""
    half = size / 2
    kind = int(rng.integers(9))
    if kind <= 1:
        sides = half * rng.uniform(0.25, 1, 3)
        return Box(sides, rounding=float(min(sides) * rng.uniform(0, 0.8)) if rng.random() < 0.3 else 0.0)
    if kind == 2:
        return Sphere(half)
    if kind == 3:
        return Cylinder(half * rng.uniform(0.3, 1), half * rng.uniform(0.3, 1))
    if kind == 4:
        return Cylinder(half, half * rng.uniform(0.4, 1), top=half * rng.uniform(0, 0.8))
    if kind == 5:
        tube = half * rng.uniform(0.2, 0.4)
        return Torus(half - tube, tube)
    if kind == 6:
        normals = rng.standard_normal((int(rng.integers(6, 18)), 3))
        normals = np.concatenate([normals, -normals[:3], np.eye(3), -np.eye(3)])
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        return Hull(normals.astype(np.float32), (half * rng.uniform(0.5, 1, len(normals))).astype(np.float32))
    if kind == 7:
        count = int(rng.integers(2, 7))
        centers = rng.uniform(-0.55, 0.55, (count, 3)) * half
        return Blob(
            centers.astype(np.float32),
            (half * rng.uniform(0.25, 0.6, count)).astype(np.float32),
            max(0.05 * size, 0.6),
        )
    wall = max(0.8, size * rng.uniform(0.04, 0.15))
    hollow = Shell(Sphere(half - wall) if rng.random() < 0.5 else Cylinder(half * 0.6, half), wall)
    return Carved(hollow, _at(Box((size, size, half)), (0, 0, half * rng.uniform(1.0, 1.8))))


def closed_object(rng: np.random.Generator) -> AnalyticScene:
    """One to five overlapping solids, seen from all around; solid inside whatever their size."""
    size = log_uniform(rng, 2.0, 70.0)
    parts: list[Solid] = [primitive(rng, size)]
    for _ in range(int(rng.integers(1, 5)) if rng.random() < 0.5 else 0):
        part = primitive(rng, size * rng.uniform(0.2, 0.8))
        parts.append(_at(part, rng.normal(0, size * 0.25, 3), random_rotation(rng)))
    solid = Union(parts)
    is_large = size > 26
    shift = rng.normal(0, size * 0.3, 3) if is_large else rng.uniform(-1, 1, 3) * max(0.0, (36 - size) / 2)
    if is_large and rng.random() < 0.5:  # look at its surface rather than into it
        direction = rng.standard_normal(3)
        shift = -direction / np.linalg.norm(direction) * size * 0.45
    # Wider than the network's sight, a face of it cannot be told from a sheet without directions.
    return AnalyticScene(
        moved := _at(solid, shift), moved, is_cut=is_large, needs_directions=is_large and size > 32
    )


def walls(rng: np.random.Generator) -> AnalyticScene:
    """One to four slabs at any angle, seen from both sides: the walls, floors and boards of buildings."""
    parts: list[Solid] = []
    base = random_rotation(rng) if rng.random() < 0.6 else np.eye(3, dtype=np.float32)
    thickness = log_uniform(rng, 0.5, 7.0)
    for _ in range(int(rng.integers(1, 5))):
        width, height = rng.uniform(6, 40, 2)
        half = width, height, thickness / 2 * (1 if rng.random() < 0.5 else rng.uniform(0.5, 1.5))
        turn = base[:, rng.permutation(3)] if rng.random() < 0.7 else random_rotation(rng)
        parts.append(_at(Box(half), rng.uniform(-14, 14, 3), turn))
    solid: Solid = Union(parts)
    if rng.random() < 0.4:
        hole = Box(rng.uniform(2, 8, 3))
        solid = Carved(solid, _at(hole, rng.uniform(-10, 10, 3), base))
    return AnalyticScene(solid, solid, is_cut=True)


def round_things(rng: np.random.Generator) -> AnalyticScene:
    """A column, pipe, dome or vault through the crop, at any angle; of hollow ones both sides are seen."""
    radius = log_uniform(rng, 3.0, 60.0)
    is_ball = rng.random() < 0.4
    body: Solid = Sphere(radius) if is_ball else Cylinder(radius, 90.0)
    if radius > 16 or rng.random() < 0.5:
        body = Shell(body, min(log_uniform(rng, 0.6, 6.0), 0.8 * radius))
    turn = random_rotation(rng)
    outwards = np.array([1, 0, 0], np.float32)  # across the axis, where the crop looks at the wall
    shift = turn @ outwards * -radius + rng.normal(0, 4, 3) if radius > 10 else rng.normal(0, 6, 3)
    moved = _at(body, shift, turn)
    return AnalyticScene(moved, moved, is_cut=True)


def sheets(rng: np.random.Generator) -> AnalyticScene:
    """Ground, a facade, a vault or a bank, seen from one side only, sometimes with things standing on it."""
    kind, sheet = int(rng.integers(4)), random_sheet(rng)
    solid: Solid
    if kind == 0:
        waves = np.stack([*rng.normal(0, 0.18, (2, 5)), rng.uniform(0, 6.3, 5), rng.uniform(0, 1, 5)], axis=1)
        waves[:, 3] *= log_uniform(rng, 0.05, 3)
        solid = Terrain(waves.astype(np.float32))
    elif kind == 1:
        radius = log_uniform(rng, 12, 120)
        body: Solid = Sphere(radius)
        if rng.random() < 0.5:
            body = _at(Cylinder(radius, 200.0), (0, 0, 0), Z_TO_X)
        solid = _at(body, (0, 0, -radius))
    elif kind == 2:
        steps = [
            _at(Box((60, rng.uniform(2, 10), rng.uniform(2, 6))), (0, rng.uniform(-18, 18), 0))
            for _ in range(3)
        ]
        solid = Union([HalfSpace(), *steps])
    else:
        solid = HalfSpace()
    if rng.random() < 0.5:
        things = [
            _at(primitive(rng, log_uniform(rng, 3, 16)), (*rng.uniform(-14, 14, 2), rng.uniform(0, 3)))
            for _ in range(int(rng.integers(1, 4)))
        ]
        label = Union([Sheet(solid, sheet), *[Carved(thing, solid) for thing in things]])
        solid = Union([solid, *things])
    else:
        label = Union([Sheet(solid, sheet)])
    shift = np.array([0, 0, rng.uniform(-8, 8)], np.float32)
    return AnalyticScene(
        _at(solid, shift),
        _at(label, shift),
        seen=Seen.OUTSIDE,
        is_cut=True,
        needs_directions=True,
        up=np.array([0, 0, 1], np.float32),
        turns_freely=False,
        sheet=sheet,
    )


def thin_things(rng: np.random.Generator) -> AnalyticScene:
    """Cables, railings, poles, bars and thin boards in the air or on a floor seen from both sides."""
    radius = log_uniform(rng, 0.3, 1.6)
    parts: list[Solid] = []
    along = random_rotation(rng)
    kind = int(rng.integers(3))
    if kind == 0:
        pitch = rng.uniform(3, 8)
        parts += [
            _at(Capsule(radius, rng.uniform(5, 14)), along @ np.array([pitch * n, 0, 0], np.float32), along)
            for n in range(-3, 4)
        ]
        place = along @ np.array([0, 0, 8], np.float32)
        parts.append(_at(Capsule(radius * 1.3, 4 * pitch), place, along @ Z_TO_X))
    else:
        thing: Solid
        for _ in range(int(rng.integers(1, 5))):
            if kind == 1:
                thing = Capsule(radius * rng.uniform(0.6, 1.5), rng.uniform(8, 40))
            else:
                thing = Box((rng.uniform(4, 16), rng.uniform(4, 16), radius / 2))
            parts.append(_at(thing, rng.uniform(-12, 12, 3), random_rotation(rng)))
    if rng.random() < 0.5:
        floor = Box((40.0, 40.0, log_uniform(rng, 0.6, 4.0)))
        parts.append(_at(floor, along @ np.array([0, 0, -12], np.float32), along))
    solid = Union(parts)
    return AnalyticScene(solid, solid, is_cut=True)


def house(rng: np.random.Generator) -> AnalyticScene:
    """Rooms with doors and furniture, scanned from stations in some of them and sometimes from outside.

    From large rooms, of which a crop holds a corner, to whole buildings of a few voxels a room, as the coarse levels
    of the pyramid see them.
    """
    room = log_uniform(rng, 5, 60)
    height = room * rng.uniform(0.5, 0.9)
    wall = min(max(room * log_uniform(rng, 0.02, 0.15), 0.3), 5.0)
    counts = rng.integers(1, 4, 2)
    edges = [np.cumsum(np.r_[0, room * rng.uniform(0.7, 1.4, count) + wall]) for count in counts]
    middle = np.array([edges[0][-1] / 2, edges[1][-1] / 2, height / 2])
    rooms: list[Solid] = []
    furniture: list[Solid] = []
    stations: list[Floats] = []
    for i in range(counts[0]):
        for j in range(counts[1]):
            low = np.array([edges[0][i], edges[1][j], 0.0])
            high = np.array([edges[0][i + 1] - wall, edges[1][j + 1] - wall, height])
            center, half = (low + high) / 2 - middle, (high - low) / 2
            rooms.append(_at(Box(half), center))
            for axis in range(2):  # a door or a window in the wall behind
                if rng.random() < 0.7:
                    door = np.array([room * 0.13, room * 0.13, height * rng.uniform(0.25, 0.42)])
                    door[axis] = wall * 1.2 + 0.2
                    at = center.copy()
                    at[axis] += half[axis] + wall / 2
                    at[2] = -height / 2 + door[2] + (height * 0.3 if rng.random() < 0.3 else -0.01)
                    rooms.append(_at(Box(door), at))
            for _ in range(int(rng.integers(0, 4))):
                size = room * rng.uniform(0.1, 0.35)
                thing = primitive(rng, size)
                at = center + rng.uniform(-0.8, 0.8, 3) * half
                at[2] = -height / 2 + size * rng.uniform(0.2, 0.5)
                furniture.append(_at(thing, at))
            if rng.random() < 0.8 or not stations:
                stations.append((center + rng.uniform(-0.5, 0.5, 3) * half * (1, 1, 0.5)).astype(np.float32))
    outer = np.array([edges[0][-1] + wall, edges[1][-1] + wall, height + 2 * wall]) / 2
    if is_seen_outside := rng.random() < 0.5:
        for _ in range(3):
            angle = rng.uniform(0, 6.3)
            away = np.array([np.cos(angle) * outer[0], np.sin(angle) * outer[1], 0]) * 2.2
            away[2] = rng.uniform(0, 2.5) * height
            stations.append(away.astype(np.float32))
    else:
        outer = outer + 8.0
    shape: Solid = Box(outer)
    around: Solid = Carved(shape, Union(rooms))
    solid: Solid = Union([around, *furniture])
    label, sheet = solid, random_sheet(rng)
    if not is_seen_outside:  # walls between rooms are solid, those around them are sheets
        within = Box(outer - 8.0 - wall)
        label = Union([Sheet(around, sheet), Carved(within, Union(rooms)), *furniture])
    if rng.random() < 0.25:  # no ceiling, as scanned from above or cut open
        lid = _at(Box((500.0, 500.0, 50.0)), (0, 0, height / 2 + 50 - 0.1))
        solid, label = Carved(solid, lid), Carved(label, lid)
        stations.append(np.array([*rng.uniform(-0.3, 0.3, 2) * outer[:2], height * 1.5], np.float32))
    whole = 2 * outer[:2].max() if is_seen_outside else 2 * outer[:2].max() - 16
    spread = max(0.0, whole / 2 - 12)
    shift = -rng.uniform(-1, 1, 3) * np.array([spread, spread, max(0.0, height / 2 - 8)])
    if rng.random() < 0.5 and spread > 0:  # near a wall rather than in the middle of a room
        shift[0] = -(edges[0][rng.integers(len(edges[0]))] - middle[0]) + rng.normal(0, 5)
    chosen = rng.permutation(len(stations))[:4]
    return AnalyticScene(
        _at(solid, shift),
        _at(label, shift),
        seen=Seen.FROM_STATIONS,
        stations=(np.stack(stations)[chosen] + shift).astype(np.float32),
        is_cut=whole > 34,
        turns_freely=False,
        sheet=sheet,
    )


FAMILIES: tuple[tuple[float, Callable[[np.random.Generator], AnalyticScene]], ...] = (
    (0.34, closed_object),
    (0.17, walls),
    (0.10, round_things),
    (0.13, sheets),
    (0.10, thin_things),
    (0.16, house),
)


def random_scene(rng: np.random.Generator) -> AnalyticScene:
    """A scene of a random family, about the origin, not yet turned."""
    shares = [share for share, _ in FAMILIES]
    scene = FAMILIES[int(rng.choice(len(FAMILIES), p=shares))][1](rng)
    # Of closed solids it changes nothing, which is what they teach.
    return replace(scene, sheet=random_sheet(rng)) if scene.seen is Seen.ALL else scene
