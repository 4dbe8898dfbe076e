"""Plans of one storey: rooms by recursive splitting, walls between them, doors that join all of them."""

from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from preprocessing.procedural.solids import Floats, Solids, box

Rng: TypeAlias = np.random.Generator

INTERIOR_THICKNESS = (0.1, 0.2)
WALL_OVERLAP = 0.03  # a wall enters those it ends on
DOOR_HEIGHT = (2.0, 2.15)


@dataclass(frozen=True)
class Opening:
    """A rectangular hole: [start, end] along the wall, [bottom, top] above the floor, in meters."""

    start: float
    end: float
    bottom: float
    top: float

    @property
    def is_door(self) -> bool:
        """Whether one can walk through."""
        return self.bottom == 0.0


@dataclass(frozen=True)
class Wall:
    """A straight wall of one storey.

    Attributes:
        axis: 0 where the wall is at a constant x and runs along y; 1 the other way round.
        position: coordinate of its middle plane on `axis`.
        start, end: extent along the other axis.
        thickness: in meters.
        openings: disjoint along the wall.
        is_exterior: whether one side is outdoors.
    """

    axis: int
    position: float
    start: float
    end: float
    thickness: float
    openings: tuple[Opening, ...] = ()
    is_exterior: bool = False

    def piece(self, start: float, end: float, bottom: float, top: float) -> Solids:
        """One box of the wall's thickness, or nothing if it would be empty."""
        if end <= start or top <= bottom:
            return ()
        half = self.thickness / 2
        low, high = (self.position - half, start), (self.position + half, end)
        if self.axis == 1:
            low, high = low[::-1], high[::-1]
        return (box((*low, bottom), (*high, top)),)

    def solids(self, floor: float, bottom: float, top: float) -> Solids:
        """The wall as boxes around its openings; heights of openings count from `floor`."""
        pieces: list[Solids] = []
        start = self.start
        for opening in sorted(self.openings, key=lambda hole: hole.start):
            pieces.append(self.piece(start, opening.start, bottom, top))
            pieces.append(self.piece(opening.start, opening.end, bottom, floor + opening.bottom))
            pieces.append(self.piece(opening.start, opening.end, floor + opening.top, top))
            start = opening.end
        pieces.append(self.piece(start, self.end, bottom, top))
        return tuple(solid for piece in pieces for solid in piece)


@dataclass(frozen=True, eq=False)
class Room:
    """A rectangle clear of walls: (2, 2) low and high corner in x, y; the hall holds the stairs."""

    rectangle: Floats
    is_hall: bool = False

    @property
    def area(self) -> float:
        """Square meters."""
        return float(np.prod(self.rectangle[1] - self.rectangle[0]))

    def side_of(self, wall: Wall) -> int | None:
        """0 if the wall bounds the room's low side of its axis, 1 for the high side, None if it does not."""
        for side, sign in ((0, 1), (1, -1)):
            face = wall.position + sign * wall.thickness / 2
            touches = abs(self.rectangle[side, wall.axis] - face) < 1e-9
            low, high = self.rectangle[:, 1 - wall.axis]
            if touches and high > wall.start and low < wall.end:
                return side
        return None


@dataclass(frozen=True)
class FloorPlan:
    """One storey's rooms and walls, interior and exterior."""

    rooms: tuple[Room, ...]
    walls: tuple[Wall, ...]


def floor_plan(
    rng: Rng,
    size: tuple[float, float],
    thickness: float,
    hall: tuple[float, float],
    blocked: tuple[float, float],
    smallest: float,
    has_entrance: bool,
) -> FloorPlan:
    """Lay out a storey.

    Args:
        rng: the only source of chance.
        size: outer extent along x and y; the outer low corner is the origin.
        thickness: of the exterior walls.
        hall: extent along x of the hall, which runs through the building along y.
        blocked: extent along y of the stairs on the hall's low-x side: no door opens there.
        smallest: least side of a room.
        has_entrance: whether the hall's low-y end is the way in.
    """
    low, high = np.full(2, thickness), np.array(size) - thickness
    walls: list[Wall] = []
    rooms = [Room(np.array([[hall[0], low[1]], [hall[1], high[1]]]), is_hall=True)]
    for x0, x1, position in ((low[0], hall[0], 0), (hall[1], high[0], 1)):
        between = float(rng.uniform(*INTERIOR_THICKNESS))
        edge = hall[0] - between / 2 if position == 0 else hall[1] + between / 2
        walls.append(Wall(0, edge, low[1] - WALL_OVERLAP, high[1] + WALL_OVERLAP, between))
        x0, x1 = (x0, hall[0] - between) if position == 0 else (hall[1] + between, x1)
        _split(rng, np.array([[x0, low[1]], [x1, high[1]]]), smallest, rooms, walls)
    walls = _with_doors(rng, rooms, walls, blocked)
    for axis in (0, 1):
        # The walls along y stand between those along x, which run from corner to corner.
        inset = thickness - WALL_OVERLAP if axis == 0 else 0.0
        for middle in (thickness / 2, size[axis] - thickness / 2):
            wall = Wall(axis, middle, inset, size[1 - axis] - inset, thickness, (), True)
            walls.append(_with_windows(rng, rooms, wall, has_entrance))
    return FloorPlan(tuple(rooms), tuple(walls))


def _split(rng: Rng, rectangle: Floats, smallest: float, rooms: list[Room], walls: list[Wall]) -> None:
    """Split a rectangle at random into rooms, appending rooms and the walls between them."""
    extent = rectangle[1] - rectangle[0]
    axis = int(extent[1] > extent[0]) if rng.random() < 0.85 else int(rng.integers(2))
    thickness = float(rng.uniform(*INTERIOR_THICKNESS))
    if extent[axis] < 2 * smallest + thickness:
        axis = 1 - axis
    is_large = np.prod(extent) > 26.0 or (np.prod(extent) > 13.0 and rng.random() < 0.6)
    if extent[axis] < 2 * smallest + thickness or not is_large:
        rooms.append(Room(rectangle))
        return
    margin = smallest + thickness / 2
    middle = float(rng.uniform(rectangle[0, axis] + margin, rectangle[1, axis] - margin))
    start, end = rectangle[0, 1 - axis] - WALL_OVERLAP, rectangle[1, 1 - axis] + WALL_OVERLAP
    walls.append(Wall(axis, middle, float(start), float(end), thickness))
    first, second = rectangle.copy(), rectangle.copy()
    first[1, axis], second[0, axis] = middle - thickness / 2, middle + thickness / 2
    _split(rng, first, smallest, rooms, walls)
    _split(rng, second, smallest, rooms, walls)


def _with_doors(rng: Rng, rooms: list[Room], walls: list[Wall], blocked: tuple[float, float]) -> list[Wall]:
    """Walls with doors along a random spanning tree of the rooms, the hall's doors first, and a few more."""
    candidates = []
    for index, wall in enumerate(walls):
        sides = [room.side_of(wall) for room in rooms]
        for a in (i for i, side in enumerate(sides) if side == 1):
            for b in (i for i, side in enumerate(sides) if side == 0):
                low = max(rooms[i].rectangle[0, 1 - wall.axis] for i in (a, b))
                high = min(rooms[i].rectangle[1, 1 - wall.axis] for i in (a, b))
                # The stairs stand on the hall's low-x side: keep the larger landing.
                if rooms[b].is_hall:
                    before, after = min(high, blocked[0]) - low, high - max(low, blocked[1])
                    low, high = (
                        (low, min(high, blocked[0])) if before > after else (max(low, blocked[1]), high)
                    )
                if high - low > 0.9:
                    is_hall = rooms[a].is_hall or rooms[b].is_hall
                    candidates.append((rng.random() - 0.6 * is_hall, index, a, b, low, high))
    group = list(range(len(rooms)))
    openings: dict[int, list[Opening]] = {}
    for _, index, a, b, low, high in sorted(candidates):
        if group[a] == group[b] and rng.random() > 0.12:
            continue
        group = [group[a] if g == group[b] else g for g in group]
        width = min(float(rng.uniform(0.8, 1.0)) if rng.random() < 0.8 else 1.5, high - low - 0.14)
        start = float(rng.uniform(low + 0.06, high - 0.06 - width))
        door = Opening(start, start + width, 0.0, float(rng.uniform(*DOOR_HEIGHT)))
        openings.setdefault(index, []).append(door)
    return [replace(wall, openings=tuple(openings.get(i, ()))) for i, wall in enumerate(walls)]


def _with_windows(rng: Rng, rooms: list[Room], wall: Wall, has_entrance: bool) -> Wall:
    """An exterior wall with windows in every room it bounds, and the entrance at the hall's low-y end."""
    openings = []
    for room in rooms:
        side = room.side_of(wall)
        if side is None:
            continue
        low, high = room.rectangle[:, 1 - wall.axis] + np.array([0.25, -0.25])
        if room.is_hall and has_entrance and wall.axis == 1 and side == 0:
            # On the high-x side, since the stairs keep to the low one.
            openings.append(Opening(float(high - 1.0), float(high), 0.0, 2.1))
            continue
        count = max(1, int((high - low) / 2.4))
        for slot in range(count):
            if rng.random() < 0.15:
                continue
            start, end = (
                low + (high - low) * slot / count + 0.1,
                low + (high - low) * (slot + 1) / count - 0.1,
            )
            width = float(min(rng.uniform(0.7, 1.8), end - start))
            if width < 0.5:
                continue
            start = float(rng.uniform(start, max(start, end - width)))
            sill = float(rng.choice([0.35, 0.8, 0.9, 1.0]))
            openings.append(Opening(start, start + width, sill, float(rng.uniform(1.95, 2.25))))
    return replace(wall, openings=tuple(openings))
