"""Furniture in the rooms of a plan: against walls, around tables, clear of doors, windows and stairs."""

from collections.abc import Iterator

import numpy as np

from preprocessing.procedural.floor_plans import FloorPlan, Rng, Room
from preprocessing.procedural.furniture import WALL_KINDS, make_furniture
from preprocessing.procedural.solids import (
    ConvexSolid,
    Floats,
    Solids,
    block,
    bounds_of,
    cylinder,
    placed,
    rod,
    rotation_z,
)

SINK = 0.003  # furniture enters the floor by this much, so that the contact is an overlap
DOOR_CLEARANCE = 0.85
ROOM_KINDS: dict[str, tuple[str, ...]] = {
    "living": (
        "sofa",
        "sofa",
        "round_table",
        "shelf",
        "shelf",
        "cabinet",
        "floor_lamp",
        "plant",
        "vase",
        "table",
        "ball",
        "clutter",
    ),
    "bedroom": ("bed", "wardrobe", "cabinet", "desk", "floor_lamp", "chair", "clutter", "boxes", "plant"),
    "kitchen": ("counter", "counter", "table", "wardrobe", "stool", "stool", "vase", "boxes"),
    "office": ("desk", "desk", "office_chair", "office_chair", "shelf", "shelf", "cabinet", "plant", "boxes"),
    "dining": ("table", "cabinet", "cabinet", "plant", "floor_lamp", "vase", "clutter"),
    "bath": ("bathtub", "toilet", "cabinet", "stool", "plant"),
    "storage": ("shelf", "shelf", "boxes", "boxes", "boxes", "clutter", "clutter", "ball", "wardrobe"),
    "hall": ("cabinet", "plant", "vase", "clutter", "chair"),
}
# Turns that put a piece's back, which faces -y, to the low-x, high-x, low-y, high-y wall.
BACK_TURNS = {(0, 0): -np.pi / 2, (0, 1): np.pi / 2, (1, 0): 0.0, (1, 1): np.pi}


class _Floor:
    """The free part of one room's floor while it is being furnished."""

    def __init__(self, room: Room, plan: FloorPlan, extra: Floats | None) -> None:
        self.low, self.high = room.rectangle
        # (2, 2) rectangles with the height from which they are in the way.
        self.obstacles: list[tuple[Floats, float]] = []
        if extra is not None:
            self.obstacles.append((extra, 0.0))
        self.windows: list[tuple[int, int, float, float, float]] = []
        for wall in plan.walls:
            side = room.side_of(wall)
            if side is None:
                continue
            for opening in wall.openings:
                depth = DOOR_CLEARANCE if opening.is_door else 0.12
                taken = np.empty((2, 2))
                taken[:, wall.axis] = room.rectangle[side, wall.axis] + np.array([-depth, depth])
                taken[:, 1 - wall.axis] = opening.start - 0.05, opening.end + 0.05
                self.obstacles.append((taken, opening.bottom))
                if not opening.is_door:
                    self.windows.append((wall.axis, side, opening.start, opening.end, opening.bottom))

    def is_free(self, box: Floats) -> bool:
        """Whether the (2, 3) box of a piece standing on the floor is inside and meets no obstacle."""
        if (box[0, :2] < self.low).any() or (box[1, :2] > self.high).any():
            return False
        return not any(
            box[1, 2] > height and (box[0, :2] < taken[1]).all() and (box[1, :2] > taken[0]).all()
            for taken, height in self.obstacles
        )

    def take(self, box: Floats) -> None:
        """Mark the footprint of a (2, 3) box."""
        self.obstacles.append((box[:, :2].copy(), 0.0))


def furnish(
    rng: Rng, plan: FloorPlan, floor: float, ceiling: float, share: float, stairs: Floats | None
) -> Solids:
    """Furnish every room of a storey.

    Args:
        rng: the only source of chance.
        plan: rooms and walls.
        floor, ceiling: heights of the storey's free space.
        share: of the pieces that a room would take, in [0, 1].
        stairs: (2, 2) rectangle of the hall to be left free, or None.
    """
    solids: list[ConvexSolid] = []
    if share == 0.0:
        return ()
    kinds = [k for k in ROOM_KINDS if k not in ("bath", "storage", "hall")]
    offset = int(rng.integers(len(kinds)))
    for index, room in enumerate(plan.rooms):
        state = _Floor(room, plan, stairs if room.is_hall else None)
        if room.is_hall:
            use = "hall"
        elif room.area < 8.0:
            use = str(rng.choice(["bath", "bath", "storage"]))
        else:
            use = kinds[(index + offset) % len(kinds)]
        pieces = list(_fixtures(rng, room, state, ceiling - floor))
        wanted = list(ROOM_KINDS[use])
        if room.area > 18.0:
            wanted += list(rng.choice(ROOM_KINDS[use], int(room.area / 6)))
        for kind in wanted:
            if rng.random() <= share:
                pieces += _place(rng, state, str(kind), ceiling - floor)
        for piece in pieces:
            solids += placed(piece, None, (0.0, 0.0, floor))
    return tuple(solids)


def _place(rng: Rng, state: _Floor, kind: str, height: float) -> Iterator[Solids]:
    """One piece where it is free, if anywhere, with chairs if it is a table; floor at 0."""
    thing = make_furniture(kind, rng)
    if bounds_of(thing)[1, 2] > height - 0.05:
        return
    for _ in range(12):
        if kind in WALL_KINDS:
            axis, side = int(rng.integers(2)), int(rng.integers(2))
            turn = BACK_TURNS[axis, side]
        else:
            axis, side = -1, 0
            straight = kind in ("table", "round_table") or rng.random() < 0.3
            turn = float(rng.integers(4)) * np.pi / 2 if straight else float(rng.uniform(0, 2 * np.pi))
        turned = placed(thing, rotation_z(turn))
        low, high = bounds_of(turned)
        room_low, room_high = state.low - low[:2] + 0.03, state.high - high[:2] - 0.03
        if (room_low > room_high).any():
            continue
        for _ in range(6):
            shift = rng.uniform(room_low, room_high)
            if axis >= 0:
                shift[axis] = (room_low if side == 0 else room_high)[axis]
            box = np.stack([low, high])
            box[:, :2] += shift
            if state.is_free(box):
                yield placed(turned, None, (shift[0], shift[1], -SINK))
                if kind in ("table", "round_table"):
                    yield from _chairs(rng, state, box)
                state.take(box + np.array([[-0.04, -0.04, 0.0], [0.04, 0.04, 0.0]]))
                return


def _chairs(rng: Rng, state: _Floor, table: Floats) -> Iterator[Solids]:
    """Chairs that face the sides of a table's (2, 3) box, pushed under it a little."""
    is_high = table[1, 2] > 0.62
    middle = (table[0] + table[1])[:2] / 2
    for (axis, side), turn in BACK_TURNS.items():
        if rng.random() < 0.3 or not is_high:
            continue
        chair = make_furniture("chair", rng)
        # A chair looks to where its back is not: the low-x chair faces +x, as if its back were to that wall.
        turned = placed(chair, rotation_z(turn + float(rng.uniform(-0.3, 0.3))))
        low, high = bounds_of(turned)
        shift = middle.copy()
        gap = float(rng.uniform(0.02, 0.2))
        shift[axis] = table[0, axis] - high[axis] - gap if side == 0 else table[1, axis] - low[axis] + gap
        box = np.stack([low, high])
        box[:, :2] += shift
        if state.is_free(box):
            state.take(box)
            yield placed(turned, None, (shift[0], shift[1], -SINK))


def _fixtures(rng: Rng, room: Room, state: _Floor, height: float) -> Iterator[Solids]:
    """Lamps, radiators, pipes, columns, beams, pictures and rugs of a room; floor at 0."""
    low, high = room.rectangle
    size, middle = high - low, (low + high) / 2
    lamps = max(1, round(float(size.max()) / 4.0))
    along = int(size[1] > size[0])
    is_over_stairs = room.is_hall
    for i in range(lamps):
        place = middle.copy()
        place[along] = low[along] + size[along] * (i + 0.5) / lamps
        if is_over_stairs:
            place[0] = high[0] - 0.5
        yield placed(
            make_furniture("ceiling_lamp", rng), rotation_z(rng.uniform(0, 6)), (*place, height + SINK)
        )
    for axis, side, start, end, sill in state.windows:
        if sill > 0.75 and rng.random() < 0.6:
            wall_face = room.rectangle[side, axis]
            yield _radiator(
                rng, state, axis, side, wall_face, (start + end) / 2, min(end - start, 1.2), sill - 0.2
            )
    if room.area > 20.0:
        column = rng.uniform(0.25, 0.4)
        place = low + size * rng.uniform(0.3, 0.7, 2)
        box = np.array([[*(place - column / 2), 0.0], [*(place + column / 2), height]])
        if state.is_free(box):
            state.take(box)
            if rng.random() < 0.5:
                yield placed((cylinder(column / 2, height + 0.02, 20),), None, (*place, -0.01))
            else:
                yield (block(place[0], place[1], -0.01, column, column, height + 0.02),)
    if rng.random() < 0.4:
        across, wide, deep = 1 - along, rng.uniform(0.12, 0.2), rng.uniform(0.12, 0.25)
        for _ in range(int(rng.integers(1, 5))):
            place, extent = middle.copy(), np.array([wide, wide])
            place[along] = low[along] + size[along] * rng.uniform(0.1, 0.9)
            extent[across] = size[across] + 0.04
            yield (block(place[0], place[1], height - deep, extent[0], extent[1], deep + 0.01),)
    for _ in range(int(rng.integers(0, 3))):
        yield from _pipe(rng, state, low, high, height)
    for _ in range(int(rng.integers(0, 4))):
        yield from _picture(rng, state, low, high)
    if rng.random() < 0.5 and not room.is_hall:
        rug = size * rng.uniform(0.3, 0.55, 2)
        yield (block(middle[0], middle[1], -0.01, rug[0], rug[1], 0.035),)


def _radiator(
    rng: Rng, state: _Floor, axis: int, side: int, face: float, middle: float, width: float, top: float
) -> Solids:
    """Ribs between two tubes, hung on brackets that enter the wall."""
    ribs = max(4, int(width / 0.09))
    solids = [block((i - (ribs - 1) / 2) * 0.09, 0.09, 0.12, 0.05, 0.1, top - 0.12) for i in range(ribs)]
    reach = ribs * 0.045
    for z in (0.18, top - 0.08):
        solids.append(rod((-reach, 0.09, z), (reach, 0.09, z), 0.022, 8))
    for x in (-reach / 2, reach / 2):
        solids.append(block(x, 0.03, top - 0.2, 0.04, 0.1, 0.04))
    place = np.empty(2)
    place[axis], place[1 - axis] = face, middle
    radiator = placed(solids, rotation_z(BACK_TURNS[axis, side]), (*place, 0.0))
    state.take(bounds_of(radiator))
    return radiator


def _pipe(rng: Rng, state: _Floor, low: Floats, high: Floats, height: float) -> Iterator[Solids]:
    """A pipe from floor to ceiling in a corner, sometimes with a branch along the ceiling."""
    radius = float(rng.uniform(0.03, 0.06))
    corner = rng.integers(2, size=2)
    inwards = 1.0 - 2.0 * corner
    place = np.where(corner == 0, low, high) + inwards * (radius + rng.uniform(0.02, 0.12))
    box = np.array([[*(place - radius), 0.0], [*(place + radius), height]])
    if not state.is_free(box):
        return
    state.take(box)
    pieces = [rod((*place, -0.01), (*place, height + 0.01), radius, 10)]
    if rng.random() < 0.5:
        axis = int(rng.integers(2))
        end = place.copy()
        end[axis] = high[axis] + 0.02 if corner[axis] == 0 else low[axis] - 0.02
        z = height - rng.uniform(0.12, 0.3)
        pieces.append(rod((*place, z), (*end, z), radius * 0.8, 10))
    yield tuple(pieces)


def _picture(rng: Rng, state: _Floor, low: Floats, high: Floats) -> Iterator[Solids]:
    """A framed board on a wall, where no opening is."""
    axis, side = int(rng.integers(2)), int(rng.integers(2))
    wide, tall, deep = rng.uniform(0.3, 1.1), rng.uniform(0.3, 0.8), rng.uniform(0.03, 0.06)
    along = rng.uniform(low[1 - axis] + wide / 2, high[1 - axis] - wide / 2)
    place = np.empty(2)
    place[axis], place[1 - axis] = (low if side == 0 else high)[axis], along
    bottom = rng.uniform(1.1, 1.5)
    board = (block(0.0, deep / 2 - 0.01, bottom, wide, deep + 0.02, tall),)
    hung = placed(board, rotation_z(BACK_TURNS[axis, side]), (*place, 0.0))
    box = bounds_of(hung)
    inner = box.copy()
    inner[:, :2] = np.clip(box[:, :2], low, high)
    if state.is_free(inner):
        yield hung
