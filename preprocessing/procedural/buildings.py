"""Random furnished buildings of several storeys, in meters, with exact occupancy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from preprocessing.errors import GeometryError
from preprocessing.procedural.floor_plans import FloorPlan, Opening, Rng, Wall, floor_plan
from preprocessing.procedural.furnishing import furnish
from preprocessing.procedural.solids import (
    ConvexSolid,
    Floats,
    Scene,
    Solids,
    block,
    bounds_of,
    box,
    convex_hull,
    placed,
    rod,
    rotation_z,
)

STEP_HEIGHT = 0.18
FLIGHT_WIDTH = 1.0
HALL_WIDTH = (2.1, 2.6)
LANDING = 1.05
SIZES = (6.0, 200.0)


@dataclass(frozen=True)
class BuildingConfig:
    """What to build.

    Attributes:
        seed: the only source of chance.
        size_x, size_y: outer extent of the walls, meters; the low corner stands at the origin.
        floors: number of storeys.
        storey_height: from floor to floor, meters.
        roof: `flat` with a parapet, `pitched` with an attic, or `random`.
        furnishing: share of the furniture that rooms would take; 0 leaves the building empty.
        smallest_room: least side of a room, meters.
    """

    seed: int = 0
    size_x: float = 14.0
    size_y: float = 11.0
    floors: int = 2
    storey_height: float = 3.0
    roof: Literal["flat", "pitched", "random"] = "random"
    furnishing: float = 1.0
    smallest_room: float = 2.4

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise GeometryError(f"seed must not be negative, not {self.seed}")
        for name in ("size_x", "size_y"):
            if not SIZES[0] <= getattr(self, name) <= SIZES[1]:
                raise GeometryError(
                    f"{name} must be {SIZES[0]} to {SIZES[1]} meters, not {getattr(self, name)}"
                )
        if max(self.size_x, self.size_y) < 7.0:
            raise GeometryError("size_x or size_y must be at least 7 meters, for a hall between rooms")
        if not 1 <= self.floors <= 30:
            raise GeometryError(f"floors must be 1 to 30, not {self.floors}")
        if not 2.6 <= self.storey_height <= 5.0:
            raise GeometryError(f"storey_height must be 2.6 to 5 meters, not {self.storey_height}")
        if self.roof not in ("flat", "pitched", "random"):
            raise GeometryError(f"roof must be flat, pitched or random, not {self.roof!r}")
        if not 0.0 <= self.furnishing <= 1.0:
            raise GeometryError(f"furnishing must be in [0, 1], not {self.furnishing}")
        if not 1.5 <= self.smallest_room <= 10.0:
            raise GeometryError(f"smallest_room must be 1.5 to 10 meters, not {self.smallest_room}")


def building(config: BuildingConfig) -> Scene:
    """Make a building, the same for the same configuration.

    Returns:
        A scene: ground floor at z = 0, `rooms` one box per room and for the attic.
    """
    rng = np.random.default_rng([config.seed, 1])
    # The hall runs along local y; a turned building is built with its sides exchanged, then mirrored.
    can_turn, must_turn = config.size_y >= 7.0, config.size_x < 7.0
    is_turned = must_turn or (can_turn and bool(rng.integers(2)))
    size = (config.size_y, config.size_x) if is_turned else (config.size_x, config.size_y)
    outer, slab = float(rng.uniform(0.2, 0.35)), float(rng.uniform(0.2, 0.3))
    hall_width = float(rng.uniform(*HALL_WIDTH))
    margin = outer + 0.2 + config.smallest_room
    low, high = margin, size[0] - margin - hall_width
    start = float(rng.uniform(low, high)) if low < high else (size[0] - hall_width) / 2
    if start < outer + 1.7:
        hall_width = min(hall_width, 1.9)
        start = outer + 0.15 + max(1.5, (size[0] - 2 * outer - hall_width) * 0.5)
    hall = (start, start + hall_width)
    flight = _flight_extent(rng, outer, size[1], config.storey_height)
    solids: list[ConvexSolid] = []
    rooms: list[Floats] = []
    for storey in range(config.floors):
        floor = storey * config.storey_height
        ceiling = floor + config.storey_height - slab
        plan = floor_plan(rng, size, outer, hall, flight, config.smallest_room, storey == 0)
        hole = (hall[0], flight[0], hall[0] + FLIGHT_WIDTH + 0.05, flight[1]) if storey > 0 else None
        solids += _slab(size, floor, slab, hole, 0.12 if storey == 0 else -0.02)
        for wall in plan.walls:
            bottom, top = (floor - slab, ceiling) if wall.is_exterior else (floor - 0.01, ceiling + 0.01)
            solids += wall.solids(floor, bottom, top)
            for opening in wall.openings:
                solids += (
                    _door_leaf(rng, wall, opening, floor)
                    if opening.is_door
                    else _window(rng, wall, opening, floor)
                )
        if storey + 1 < config.floors:
            solids += _stairs(rng, hall[0], flight, floor, config.storey_height)
        if storey > 0:
            solids += _railing(hall[0] + FLIGHT_WIDTH + 0.05, flight, floor)
        solids += furnish(
            rng, plan, floor, ceiling, config.furnishing, _stair_obstacle(plan, hall, flight, config.floors)
        )
        for room in plan.rooms:
            rooms.append(np.array([[*room.rectangle[0], floor], [*room.rectangle[1], ceiling]]))
    top = config.floors * config.storey_height
    solids += _slab(size, top, slab, None, -0.02)
    roof = config.roof if config.roof != "random" else str(rng.choice(["flat", "pitched"]))
    if roof == "flat":
        solids += _flat_roof(rng, size, outer, top, slab)
    else:
        attic, attic_room = _pitched_roof(rng, size, outer, top, slab)
        solids += attic
        rooms.append(attic_room)
    if is_turned:
        exchange = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        solids = list(placed(solids, exchange))
        rooms = [room[:, [1, 0, 2]] for room in rooms]
    return Scene(tuple(solids), f"building-{config.seed:08d}", bounds_of(solids), tuple(rooms))


def _flight_extent(rng: Rng, outer: float, length: float, storey_height: float) -> tuple[float, float]:
    """Where the stairs start and end along the hall: a landing before, most of the rest after."""
    steps = round(storey_height / STEP_HEIGHT)
    free = length - 2 * outer - LANDING - 0.7
    run = steps * min(0.28, free / steps)
    start = outer + LANDING + float(rng.uniform(0.0, max(free - run, 0.0)))
    return start, start + run


def _slab(
    size: tuple[float, float],
    top: float,
    thickness: float,
    hole: tuple[float, float, float, float] | None,
    grow: float,
) -> Solids:
    """A floor slab below `top`, reaching `grow` beyond the walls, around a hole x0, y0, x1, y1."""
    x0, y0, x1, y1 = -grow, -grow, size[0] + grow, size[1] + grow
    bottom = top - thickness
    if hole is None:
        return (box((x0, y0, bottom), (x1, y1, top)),)
    a, b, c, d = hole
    return (
        box((x0, y0, bottom), (x1, b, top)),
        box((x0, d, bottom), (x1, y1, top)),
        box((x0, b, bottom), (a, d, top)),
        box((c, b, bottom), (x1, d, top)),
    )


def _stairs(rng: Rng, x: float, flight: tuple[float, float], floor: float, rise: float) -> Solids:
    """A straight flight along +y from `floor`, against the wall at x: solid steps, or treads on stringers."""
    steps = round(rise / STEP_HEIGHT)
    step, tread = rise / steps, (flight[1] - flight[0]) / steps
    x0, x1 = x - 0.01, x + FLIGHT_WIDTH
    is_open = rng.random() < 0.5
    solids: list[ConvexSolid] = []
    for i in range(steps):
        y, z = flight[0] + i * tread, floor + (i + 1) * step
        depth = 0.06 if is_open else z - floor + 0.01
        # The last tread would be the upper floor itself; it stops short of it.
        high = z if i + 1 < steps else z - 0.002
        solids.append(box((x0, y - 0.02, z - depth), (x1, y + tread, high)))
    if is_open:
        for side in (x + 0.12, x1 - 0.18):
            profile = [
                (flight[0], floor - 0.01),
                (flight[0] + 0.3, floor - 0.01),
                (flight[1], floor + rise - 0.27),
                (flight[1], floor + rise - 0.03),
                (flight[0], floor + step - 0.03),
            ]
            solids.append(convex_hull(np.array([(s, y, z) for y, z in profile for s in (side, side + 0.06)])))
    for i in range(0, steps, 4):
        y, z = flight[0] + (i + 0.5) * tread, floor + (i + 1) * step
        solids.append(rod((x1 - 0.05, y, z - 0.01), (x1 - 0.05, y, z + 0.9), 0.022, 8))
    first, last = 0, (steps - 1) // 4 * 4
    ends = [(x1 - 0.05, flight[0] + (i + 0.5) * tread, floor + (i + 1) * step + 0.9) for i in (first, last)]
    solids.append(rod(ends[0], ends[1], 0.03, 8))
    return tuple(solids)


def _railing(x: float, flight: tuple[float, float], floor: float) -> Solids:
    """A railing beside the opening of the stairs, open where the flight arrives."""
    posts = np.linspace(flight[0] - 0.05, flight[1] - 0.1, 6)
    solids = [rod((x + 0.04, y, floor - 0.01), (x + 0.04, y, floor + 0.95), 0.022, 8) for y in posts]
    for height in (0.5, 0.95):
        solids.append(
            block(
                x + 0.04, (posts[0] + posts[-1]) / 2, floor + height, 0.05, posts[-1] - posts[0] + 0.06, 0.045
            )
        )
    return tuple(solids)


def _stair_obstacle(
    plan: FloorPlan, hall: tuple[float, float], flight: tuple[float, float], floors: int
) -> Floats | None:
    """(2, 2) part of the hall that furniture must leave free, or None without stairs."""
    if floors == 1:
        return None
    low, high = plan.rooms[0].rectangle[:, 1]
    return np.array(
        [[hall[0], max(low, flight[0] - 0.8)], [hall[0] + FLIGHT_WIDTH + 0.15, min(high, flight[1] + 0.8)]]
    )


def _door_leaf(rng: Rng, wall: Wall, opening: Opening, floor: float) -> Solids:
    """A leaf ajar with its handle, in three of four doors."""
    if rng.random() < 0.25:
        return ()
    width = opening.end - opening.start - 0.02
    leaf = box((0.0, -0.022, 0.0), (width, 0.022, opening.top - 0.03))
    handle = rod((width - 0.07, -0.07, 1.02), (width - 0.07, 0.07, 1.02), 0.014, 8)
    grips = tuple(rod((width - 0.05, s, 1.02), (width - 0.18, s, 1.02), 0.014, 8) for s in (-0.065, 0.065))
    at_start, swing = bool(rng.integers(2)), float(rng.uniform(0.15, 1.7))
    direction = 0.0 if at_start else np.pi
    angle = direction + swing * rng.choice([-1.0, 1.0])
    hinge = opening.start + 0.01 if at_start else opening.end - 0.01
    if wall.axis == 0:
        return placed(
            (leaf, handle, *grips), rotation_z(angle + np.pi / 2), (wall.position, hinge, floor - 0.003)
        )
    return placed((leaf, handle, *grips), rotation_z(angle), (hinge, wall.position, floor - 0.003))


def _window(rng: Rng, wall: Wall, opening: Opening, floor: float) -> Solids:
    """Frame, mullion, sometimes a transom, and a sill that sticks out on both sides; no glass."""
    bar, deep = 0.05, 0.07
    low, high = floor + opening.bottom, floor + opening.top
    frame = Wall(wall.axis, wall.position, opening.start, opening.end, deep)
    pieces = [
        frame.piece(opening.start - 0.01, opening.start + bar, low, high),
        frame.piece(opening.end - bar, opening.end + 0.01, low, high),
        frame.piece(opening.start, opening.end, low - 0.01, low + bar),
        frame.piece(opening.start, opening.end, high - bar, high + 0.01),
    ]
    if opening.end - opening.start > 0.9 or rng.random() < 0.5:
        middle = (opening.start + opening.end) / 2
        pieces.append(frame.piece(middle - bar / 2, middle + bar / 2, low, high))
    if rng.random() < 0.4:
        height = low + (high - low) * 0.7
        pieces.append(frame.piece(opening.start, opening.end, height - bar / 2, height + bar / 2))
    sill = Wall(wall.axis, wall.position, 0.0, 0.0, wall.thickness + 0.2)
    pieces.append(sill.piece(opening.start - 0.06, opening.end + 0.06, low - 0.035, low + 0.005))
    return tuple(solid for piece in pieces for solid in piece)


def _flat_roof(rng: Rng, size: tuple[float, float], outer: float, top: float, slab: float) -> Solids:
    """A parapet on the walls, with a coping, and a box for the chimney or the lift."""
    height = float(rng.uniform(0.3, 0.9))
    solids = []
    for low, high in _sides(size, outer):
        solids.append(box((*low, top - slab), (*high, top + height)))
        coping_low, coping_high = np.array(low) - 0.05, np.array(high) + 0.05
        solids.append(box((*coping_low, top + height - 0.01), (*coping_high, top + height + 0.06)))
    px, py = rng.uniform(0.25, 0.75, 2) * size
    solids.append(
        block(px, py, top - 0.02, rng.uniform(0.6, 2.0), rng.uniform(0.6, 1.6), rng.uniform(0.6, 1.8))
    )
    return tuple(solids)


def _pitched_roof(
    rng: Rng, size: tuple[float, float], outer: float, top: float, slab: float
) -> tuple[Solids, Floats]:
    """Two slopes with a ridge along y, gables with a window each, rafters, a chimney; and the attic's box."""
    x, y = size
    middle, eaves, thick = x / 2, 0.45, 0.2
    slope = float(rng.uniform(0.5, 0.9))
    rise = slope * middle

    def lower(u: float) -> float:
        """Height of the roof's underside above u, measured from either eaves."""
        return top - 0.15 + slope * min(u, x - u)

    # Walls and roof slab are joined along the outline: the walls' height beside the top slab.
    solids = [box((*low, top - slab), (*high, top)) for low, high in _sides(size, outer)]
    for edge in (-eaves, x + eaves):
        profile = [
            (edge, lower(edge)),
            (edge, lower(edge) + thick),
            (middle, lower(middle)),
            (middle, lower(middle) + thick),
        ]
        solids.append(convex_hull(np.array([(u, v, z) for u, z in profile for v in (-eaves, y + eaves)])))
    width, sill, head = min(1.2, x * 0.15), top + min(0.7, rise * 0.2), top + min(1.7, rise * 0.5)
    a, b = middle - width / 2, middle + width / 2
    under = top - 0.02
    for v0, v1 in ((0.0, outer), (y - outer, y)):
        # Gables reach a little into the slopes.
        outlines = [
            [(0.0, under), (a, under), (a, lower(a) + 0.05), (0.0, lower(0.0) + 0.18)],
            [(x, under), (b, under), (b, lower(b) + 0.05), (x, lower(x) + 0.18)],
            [(a, under), (b, under), (a, sill), (b, sill)],
            [
                (a, head),
                (b, head),
                (a, lower(a) + 0.05),
                (b, lower(b) + 0.05),
                (middle, lower(middle) + 0.05),
            ],
        ]
        for outline in outlines:
            solids.append(convex_hull(np.array([(u, v, z) for u, z in outline for v in (v0, v1)])))
    for v in np.arange(outer + 0.6, y - outer - 0.3, 1.1):
        for edge in (outer * 0.5, x - outer * 0.5):
            profile = [(u, lower(u) + d) for u in (edge, middle) for d in (-0.16, 0.02)]
            solids.append(
                convex_hull(np.array([(u, w, z) for u, z in profile for w in (v - 0.05, v + 0.05)]))
            )
    px, py = middle + rng.choice([-1.0, 1.0]) * x * 0.18, rng.uniform(0.25, 0.75) * y
    solids.append(block(px, py, top - 0.02, 0.55, 0.55, lower(middle) - top + 0.9))
    room_low, room_high = (
        (middle - x * 0.12, outer + 0.5, top),
        (middle + x * 0.12, y - outer - 0.5, lower(middle - x * 0.12) - 0.2),
    )
    return tuple(solids), np.array([room_low, room_high])


def _sides(size: tuple[float, float], outer: float) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Low and high corner in x, y of what stands on the four exterior walls."""
    x, y = size
    return [
        ((0.0, 0.0), (x, outer)),
        ((0.0, y - outer), (x, y)),
        ((0.0, 0.0), (outer, y)),
        ((x - outer, 0.0), (x, y)),
    ]
