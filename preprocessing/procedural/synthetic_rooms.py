"""Synthetic rooms after Peng et al. 2020, section 4: a floor, random walls and several objects."""

import numpy as np

from preprocessing.procedural.furniture import make_furniture
from preprocessing.procedural.solids import Floats, Scene, Solids, block, bounds_of, placed, rotation_z

# The paper's five ShapeNet classes, as kinds of our furniture.
PAPER_CLASSES: dict[str, tuple[str, ...]] = {
    "chair": ("chair", "office_chair", "stool"),
    "sofa": ("sofa",),
    "lamp": ("floor_lamp", "table_lamp"),
    "cabinet": ("cabinet", "wardrobe", "shelf"),
    "table": ("table", "round_table", "desk"),
}
OBJECTS = (4, 8)
OBJECT_SIZE = (0.15, 0.4)  # largest extent of an object, as a share of the room's larger side
THINNEST = 0.012  # no part of an object is thinner, as a share of the room's larger side
SLAB = (0.02, 0.04)  # thickness of floor and walls, as a share of the room's larger side
CLEARANCE = 0.012  # least distance between the boxes of two footprints
SINK = 0.001  # objects enter the floor by this much, so that the contact is an overlap


def synthetic_room(seed: int) -> Scene:
    """Make one room, the same for the same seed.

    Args:
        seed: at least 0.

    Returns:
        A scene whose larger horizontal side is 1, centered in the unit cube
        [-0.5, 0.5]^3: a floor of random width-to-length ratio, 0 to 4 walls, 4 to 8 objects of random
        class, scale and rotation about z whose footprints do not overlap.
    """
    rng = np.random.default_rng([seed, 2020])
    sides = np.array([1.0, rng.uniform(0.6, 1.0)])[rng.permutation(2)]
    slab = float(rng.uniform(*SLAB))
    solids = [block(0, 0, 0, sides[0], sides[1], slab), *_walls(rng, sides, slab)]
    half = sides / 2 - slab - CLEARANCE
    count = int(rng.integers(OBJECTS[0], OBJECTS[1] + 1))
    footprints: list[Floats] = []
    shrink = 1.0
    for _ in range(400):
        if len(footprints) == count:
            break
        thing = _object(rng, shrink)
        low, high = bounds_of(thing)[:, :2]
        if (high - low > 2 * half).any() or bounds_of(thing)[1, 2] + slab > 0.95:
            continue
        shift = rng.uniform(-half - low, half - high)
        box = np.stack([low + shift, high + shift])
        if any(((box[0] < b[1] + CLEARANCE) & (box[1] > b[0] - CLEARANCE)).all() for b in footprints):
            # A crowded floor takes smaller and smaller objects, down to the smallest size.
            shrink = max(0.97 * shrink, 0.4)
            continue
        footprints.append(box)
        solids += placed(thing, None, (shift[0], shift[1], slab - SINK))
    low, high = bounds_of(solids)
    centered = placed(solids, None, -(low + high) / 2)
    room = np.stack(
        [np.array([-sides[0] / 2, -sides[1] / 2, low[2] + slab]), np.array([*sides / 2, high[2]])]
    )
    return Scene(centered, f"room-{seed:08d}", bounds_of(centered), (room - (low + high) / 2,))


def _walls(rng: np.random.Generator, sides: Floats, slab: float) -> Solids:
    """0 to 4 walls on distinct sides, of one height, whole or covering a part of their side."""
    height = rng.uniform(0.25, 0.5)
    walls = []
    for side in rng.permutation(4)[: int(rng.integers(0, 5))]:
        axis, sign, thick = int(side) // 2, 2 * (int(side) % 2) - 1, float(rng.uniform(*SLAB))
        length = sides[1 - axis]
        share = 1.0 if rng.random() < 0.7 else rng.uniform(0.4, 0.9)
        offset = (1 - share) / 2 * length * rng.choice([-1.0, 1.0])
        # Walls stand inside the floor's outline, sunk into it by half its thickness.
        along, across = offset, sign * (sides[axis] - thick) / 2
        x, y = (across, along) if axis == 0 else (along, across)
        size_x, size_y = (thick, share * length) if axis == 0 else (share * length, thick)
        walls.append(block(x, y, slab / 2, size_x, size_y, height + slab / 2))
    return tuple(walls)


def _object(rng: np.random.Generator, shrink: float) -> Solids:
    """One object scaled to OBJECT_SIZE, turned about z, standing on 0."""
    kinds = PAPER_CLASSES[str(rng.choice(list(PAPER_CLASSES)))]
    kind = str(rng.choice(kinds))
    largest = max(rng.uniform(*OBJECT_SIZE) * shrink, OBJECT_SIZE[0])
    seed = int(rng.integers(2**32))
    # Twice from one seed: the first tells the scale, which tells how thick the thin parts must be.
    size = float(np.ptp(bounds_of(make_furniture(kind, np.random.default_rng(seed))), axis=0).max())
    scale = largest / size
    thing = make_furniture(kind, np.random.default_rng(seed), thin=max(THINNEST / scale, 0.02))
    scale = largest / float(np.ptp(bounds_of(thing), axis=0).max())
    return placed(thing, rotation_z(rng.uniform(0, 2 * np.pi)), scale=scale)
