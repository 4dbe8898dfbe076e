"""Random furniture from convex pieces, in meters, standing on z = 0 and centered at x, y = 0.

The front faces +y, the back -y, so that a piece against a wall is turned to show its back to it. No part
is thinner than `thin`; pieces overlap slightly rather than touch.
"""

import itertools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from preprocessing.procedural.solids import (
    ConvexSolid,
    Floats,
    Solids,
    block,
    bounds_of,
    capsule,
    convex_hull,
    cylinder,
    ellipsoid,
    frustum,
    l_shape,
    placed,
    rested,
    ring,
    rod,
    rotation_about,
    rotation_z,
    rounded_box,
    wedge,
)

Rng: TypeAlias = np.random.Generator
Maker: TypeAlias = Callable[[Rng, float], Solids]

# Depth to which one piece enters another, so that contacts are overlaps.
JOINT = 0.004
THIN = 0.02


def make_furniture(kind: str, rng: Rng, thin: float = THIN) -> Solids:
    """Make one random piece of furniture.

    Args:
        kind: one of FURNITURE_KINDS.
        rng: the only source of chance; the same draws are made whatever `thin` is.
        thin: no part is thinner than this, in meters.

    Returns:
        Convex solids standing on z = 0, their box centered at x, y = 0 (ceiling lamps hang below z = 0).

    Raises:
        KeyError: if the kind is unknown.
    """
    solids = _MAKERS[kind](rng, thin)
    (x0, y0, z0), (x1, y1, z1) = bounds_of(solids)
    height = -z1 if kind in CEILING_KINDS else -z0
    return placed(solids, None, (-(x0 + x1) / 2, -(y0 + y1) / 2, height))


def random_rotation(rng: Rng) -> Floats:
    """(3, 3) rotation, uniform over all rotations."""
    rotation, upper = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation = rotation * np.sign(np.diag(upper))
    proper: Floats = rotation * np.linalg.det(rotation)
    return proper


def _legs(rng: Rng, x: float, y: float, height: float, thin: float, splay: float = 0.0) -> list[ConvexSolid]:
    style, size, splay = rng.integers(3), max(thin, rng.uniform(0.03, 0.07)), rng.uniform(0.0, splay)
    legs = []
    for sx in (-1, 1):
        for sy in (-1, 1):
            if style == 0:
                legs.append(block(sx * (x - size / 2), sy * (y - size / 2), 0, size, size, height + JOINT))
            else:
                foot = (sx * (x - size / 2 + splay), sy * (y - size / 2 + splay), 0.0)
                head = (sx * (x - size / 2), sy * (y - size / 2), height + JOINT)
                narrow = size / 2 if style == 1 else max(thin / 2, size / 3)
                legs.append(rod(foot, head, narrow, 8, size / 2 if style == 1 else size / 1.8))
    return legs


def _on_top(rng: Rng, x: float, y: float, z: float, thin: float, most: int) -> list[ConvexSolid]:
    """Up to `most` small things standing at random on a plate of half sizes x, y at height z."""
    things: list[ConvexSolid] = []
    taken: list[tuple[float, float, float]] = []
    for _ in range(int(rng.integers(0, most + 1))):
        thing = _clutter_piece(rng, thin)
        low, high = bounds_of(thing)
        reach = float(np.hypot(*np.abs(np.stack([low, high]))[:, :2].max(axis=0)))
        if reach > min(x, y):
            continue
        px, py = rng.uniform(-x + reach, x - reach), rng.uniform(-y + reach, y - reach)
        if all(np.hypot(px - a, py - b) > reach + r for a, b, r in taken):
            taken.append((px, py, reach))
            things += rested(thing, rotation_z(rng.uniform(0, 2 * np.pi)), px, py, z)
    return things


def _table(rng: Rng, thin: float) -> Solids:
    x, y, height = rng.uniform(0.8, 1.8), rng.uniform(0.6, 0.95), rng.uniform(0.68, 0.78)
    top = max(thin, rng.uniform(0.03, 0.06))
    under = height - top
    solids = [block(0, 0, under, x, y, top)]
    style = rng.integers(4)
    inset = rng.uniform(0.0, 0.06)
    if style <= 1:
        solids += _legs(rng, x / 2 - inset, y / 2 - inset, under, thin)
        if style == 1:
            rail = max(thin, 0.03)
            for side in (-1, 1):
                solids.append(
                    block(0, side * (y / 2 - 0.06 - inset), under - 0.08, x - 0.1 - inset, rail, 0.09)
                )
                solids.append(
                    block(side * (x / 2 - 0.06 - inset), 0, under - 0.08, rail, y - 0.1 - inset, 0.09)
                )
    elif style == 2:
        for side in (-1, 1):
            solids.append(block(side * (x / 2 - 0.15), 0, 0, max(thin, 0.05), y * 0.8, under + JOINT))
        solids.append(block(0, 0, under * 0.4, x - 0.28, max(thin, 0.04), 0.1))
    else:
        for side in (-1, 1):
            px = side * (x / 2 - 0.2)
            solids += [
                rod((px, -y / 2.2, 0.03), (px, y / 2.4, under), max(thin, 0.05) / 1.6, 4),
                rod((px, y / 2.2, 0.03), (px, -y / 2.4, under), max(thin, 0.05) / 1.6, 4),
            ]
    solids += _on_top(rng, x / 2, y / 2, height, thin, 4)
    return tuple(solids)


def _round_table(rng: Rng, thin: float) -> Solids:
    radius, height = rng.uniform(0.35, 0.7), rng.uniform(0.45, 0.76)
    top = max(thin, rng.uniform(0.03, 0.05))
    plate = cylinder(radius, top, 24).scaled((1.0, rng.uniform(0.75, 1.0), 1.0)).moved((0, 0, height - top))
    solids = [plate]
    if rng.random() < 0.5:
        solids += [
            frustum(radius * 0.6, radius * 0.5, max(thin, 0.04), 24),
            cylinder(max(thin / 2, rng.uniform(0.03, 0.07)), height - top + JOINT, 12),
        ]
    else:
        for angle in np.arange(3) * 2 * np.pi / 3:
            out = np.array([np.cos(angle), np.sin(angle)]) * radius
            foot, head = (*(out * 0.75), 0.0), (*(out * 0.45), height - top + JOINT)
            solids.append(rod(foot, head, max(thin, 0.045) / 2, 8))
    solids += _on_top(rng, radius * 0.65, radius * 0.5, height, thin, 3)
    return tuple(solids)


def _chair(rng: Rng, thin: float) -> Solids:
    x, y, seat = rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.5), rng.uniform(0.42, 0.48)
    plate, bar = max(thin, rng.uniform(0.03, 0.05)), max(thin, rng.uniform(0.03, 0.045))
    back, lean, style = rng.uniform(0.35, 0.55), rng.uniform(0.0, 0.12), rng.integers(3)
    solids = [block(0, 0, seat - plate, x, y, plate)]
    if rng.random() < 0.5:
        solids.append(rounded_box(x * 0.92, y * 0.9, max(thin, 0.05), 0.025).moved((0, 0, seat - JOINT)))
    solids += _legs(rng, x / 2, y / 2, seat - plate, thin, 0.06)
    foot_y, head_y = -y / 2 + bar / 2, -y / 2 + bar / 2 - lean
    posts = [(side * (x / 2 - bar / 2)) for side in (-1, 1)]
    for px in posts:
        solids.append(rod((px, foot_y, seat - plate), (px, head_y, seat + back), bar / 1.5, 6))

    def at(share: float) -> float:
        return foot_y + (head_y - foot_y) * share

    if style == 0:
        for share in np.linspace(0.35, 0.92, int(rng.integers(2, 5))):
            solids.append(block(0, at(share), seat + back * share - 0.03, x - bar, bar, max(thin, 0.05)))
    elif style == 1:
        panel = [
            (sx * (x / 2 - bar / 2), at(s) + sy * bar / 2, seat + back * s)
            for s in (0.25, 1.0)
            for sx in (-1, 1)
            for sy in (-1, 1)
        ]
        solids.append(convex_hull(np.array(panel)))
    else:
        solids.append(block(0, at(0.95), seat + back * 0.9, x - bar, bar, max(thin, 0.06)))
        for px in np.linspace(-0.5, 0.5, int(rng.integers(3, 5))) * (x - 3.5 * bar):
            solids.append(
                rod(
                    (px, foot_y, seat - plate / 2),
                    (px, at(0.93), seat + back * 0.93),
                    max(thin, 0.025) / 1.9,
                    6,
                )
            )
    if rng.random() < 0.35:
        rise = rng.uniform(0.18, 0.24)
        for side in (-1, 1):
            px = side * (x / 2 - bar / 2)
            solids.append(block(px, 0, seat + rise, bar, y, bar))
            solids.append(block(px, y / 2 - bar, seat - plate, bar, bar, rise + plate + JOINT))
    return tuple(solids)


def _office_chair(rng: Rng, thin: float) -> Solids:
    seat, radius = rng.uniform(0.42, 0.5), rng.uniform(0.26, 0.32)
    solids = [rounded_box(0.48, 0.46, max(thin, 0.08), 0.035).moved((0, 0, seat - 0.04))]
    solids.append(cylinder(max(thin / 2, 0.03), seat, 10).moved((0, 0, 0.05)))
    for angle in np.arange(5) * 2 * np.pi / 5:
        tip = (radius * np.cos(angle), radius * np.sin(angle), 0.06)
        solids.append(rod((0, 0, 0.1), tip, max(thin / 2, 0.025), 6))
        solids.append(ellipsoid((max(thin / 2, 0.03),) * 3).moved((tip[0], tip[1], 0.03)))
    back = rounded_box(0.44, max(thin, 0.07), rng.uniform(0.45, 0.65), 0.03)
    solids += rested((back,), rotation_about((1, 0, 0), rng.uniform(0.05, 0.2)), 0, -0.24, seat + 0.06)
    solids.append(rod((0, -0.1, seat), (0, -0.24, seat + 0.2), max(thin / 2, 0.03), 6))
    return tuple(solids)


def _stool(rng: Rng, thin: float) -> Solids:
    radius, height = rng.uniform(0.15, 0.2), rng.uniform(0.42, 0.75)
    top = max(thin, rng.uniform(0.03, 0.06))
    solids = [cylinder(radius, top, 20).moved((0, 0, height - top))]
    legs = int(rng.integers(3, 5))
    for angle in np.arange(legs) * 2 * np.pi / legs:
        foot = (np.cos(angle) * radius * 1.1, np.sin(angle) * radius * 1.1, 0.0)
        head = (np.cos(angle) * radius * 0.7, np.sin(angle) * radius * 0.7, height - top + JOINT)
        solids.append(rod(foot, head, max(thin, 0.036) / 2, 8))
    if height > 0.55:
        solids += placed(ring(radius * 0.98, max(thin / 2, 0.014), 14, 6), None, (0, 0, height * 0.32))
    return tuple(solids)


def _shelf(rng: Rng, thin: float) -> Solids:
    x, y, height = rng.uniform(0.6, 1.4), rng.uniform(0.26, 0.4), rng.uniform(0.9, 2.1)
    board, count = max(thin, rng.uniform(0.025, 0.04)), int(rng.integers(3, 6))
    solids = [block(side * (x / 2 - board / 2), 0, 0, board, y, height) for side in (-1, 1)]
    levels = np.linspace(0.06, height - board, count)
    solids += [block(0, 0, level, x - board, y, board) for level in levels]
    if rng.random() < 0.6:
        solids.append(block(0, -y / 2 + board / 2, 0.03, x - board, board, height - 0.03))
    for level, above in itertools.pairwise(levels):
        room = above - level - board
        place = -x / 2 + board
        while place < x / 2 - board - 0.1 and room > 0.15:
            draw = rng.random()
            if draw < 0.72:
                # A few books as one block each, of unequal height; the last may lean on its neighbor.
                width = max(thin, rng.uniform(0.03, 0.07))
                tall, deep = min(room * 0.92, rng.uniform(0.16, 0.3)), rng.uniform(0.5, 0.8) * y
                book = block(0, 0, 0, width, deep, tall)
                lean = rotation_about((0, 1, 0), rng.uniform(-0.25, -0.1) if draw < 0.08 else 0.0)
                turned = rested((book,), lean, 0, 0, level + board)
                low, high = bounds_of(turned)
                if place + high[0] - low[0] > x / 2 - board:
                    break
                solids += placed(turned, None, (place - low[0], -y / 2 + deep / 2 + board, 0))
                place += high[0] - low[0] - 0.001
            elif draw < 0.8:
                solids += _small_object(
                    rng, thin, place + 0.08, 0.0, level + board, min(room, 0.3) * 0.8, 0.06
                )
                place += 0.18
            else:
                place += rng.uniform(0.05, 0.3)
    return tuple(solids)


def _small_object(
    rng: Rng, thin: float, x: float, y: float, z: float, height: float, radius: float
) -> Solids:
    shape = rng.integers(4)
    if shape == 0:
        thing: Solids = (ellipsoid((radius, radius, min(height / 2, radius))),)
    elif shape == 1:
        thing = (frustum(radius * 0.6, radius, height, 12),)
    elif shape == 2:
        thing = (block(0, 0, 0, radius * 1.6, radius * 1.6, height),)
    else:
        thing = (cylinder(radius * 0.9, height * 0.7, 12), cylinder(max(thin / 2, radius * 0.4), height, 8))
    return rested(thing, rotation_z(rng.uniform(0, np.pi)), x, y, z)


def _sofa(rng: Rng, thin: float) -> Solids:
    seats = int(rng.integers(1, 4))
    arm, depth, seat_width = rng.uniform(0.12, 0.22), rng.uniform(0.75, 0.95), rng.uniform(0.55, 0.75)
    seat, back, tall_arm = rng.uniform(0.38, 0.45), rng.uniform(0.7, 0.9), rng.uniform(0.52, 0.65)
    width, foot, style = seats * seat_width, max(thin, rng.uniform(0.05, 0.12)), rng.integers(3)
    total = width + 2 * arm
    solids = [block(0, 0, foot, total - 0.02, depth, seat - foot - 0.12)]
    for sx in (-1, 1):
        px = sx * (total / 2 - arm / 2)
        if style == 0:
            solids.append(rounded_box(arm, depth, tall_arm - foot, 0.06).moved((px, 0, foot - 0.01)))
        elif style == 1:
            solids.append(block(px, 0, foot - 0.01, arm * 0.8, depth, tall_arm - foot - arm / 2))
            solids.append(
                rod((px, -depth / 2, tall_arm - arm / 2), (px, depth / 2, tall_arm - arm / 2), arm / 2, 14)
            )
        else:
            solids.append(block(px, 0, foot - 0.01, arm, depth * 0.96, tall_arm - foot))
        for sy in (-1, 1):
            leg = max(thin, 0.06)
            solids.append(block(sx * (total / 2 - 0.1), sy * (depth / 2 - 0.1), 0, leg, leg, foot + 0.02))
    thick = rng.uniform(0.16, 0.24)
    rest = rounded_box(total - 0.04, thick, back - foot - 0.05, 0.06)
    solids += rested(
        (rest,), rotation_about((1, 0, 0), rng.uniform(0.0, 0.12)), 0, -depth / 2 + thick / 2, foot + 0.05
    )
    for i in range(seats):
        px = (i - (seats - 1) / 2) * seat_width
        solids.append(
            rounded_box(seat_width - 0.015, depth - thick, 0.17, 0.05).moved((px, thick / 2, seat - 0.14))
        )
        if rng.random() < 0.7:
            pillow = rounded_box(seat_width * 0.9, 0.16, 0.4, 0.07)
            tilt = rotation_about((1, 0, 0), rng.uniform(0.1, 0.35))
            solids += rested((pillow,), tilt, px, -depth / 2 + thick + 0.1, seat + 0.01)
    return tuple(solids)


def _bed(rng: Rng, thin: float) -> Solids:
    x, y = rng.choice([0.9, 1.2, 1.6]) + rng.uniform(0.0, 0.1), rng.uniform(1.95, 2.15)
    frame, mattress = rng.uniform(0.22, 0.36), rng.uniform(0.16, 0.26)
    board = max(thin, rng.uniform(0.04, 0.08))
    solids = [block(0, 0, 0.12, x, y, frame - 0.12), *_legs(rng, x / 2, y / 2, 0.13, thin)]
    solids.append(rounded_box(x - 0.04, y - 0.08, mattress, 0.05).moved((0, 0.01, frame - JOINT)))
    solids.append(block(0, -y / 2, 0.02, x + 0.05, board, rng.uniform(0.8, 1.15)))
    if rng.random() < 0.4:
        solids.append(block(0, y / 2, 0.02, x + 0.05, board, frame + mattress))
    top = frame + mattress
    for px in (0.0,) if x < 1.3 else (-x / 4, x / 4):
        pillow = ellipsoid((min(0.36, x / 2 - 0.08) * 0.95, 0.22, 0.08), 2)
        tilt = rotation_about((1, 0, 0), rng.uniform(0.0, 0.4))
        solids += rested((pillow,), tilt, px, -y / 2 + board + 0.24, top - 0.02)
    cover = rounded_box(x + 0.06, y * rng.uniform(0.45, 0.7), max(thin, 0.06) + 0.12, 0.04)
    solids += placed((cover,), None, (0, y / 2 - bounds_of((cover,))[1, 1] + 0.01, top - 0.12))
    return tuple(solids)


def _floor_lamp(rng: Rng, thin: float) -> Solids:
    height, base = rng.uniform(1.3, 1.8), rng.uniform(0.13, 0.18)
    pole, shade = max(thin, 0.03) / 1.9, rng.uniform(0.15, 0.24)
    solids = [frustum(base, base * 0.8, max(thin, 0.035), 18)]
    if rng.random() < 0.6:
        solids.append(cylinder(pole, height, 8).moved((0, 0, 0.01)))
        solids += _shade(rng, thin, shade, height - 0.12)
    else:
        # A pole, an arc and a bell at its end.
        reach = rng.uniform(0.3, 0.5)
        points = [(0.0, 0.0, 0.01), (0.0, 0.0, height * 0.75)]
        points += [
            (reach * (1 - np.cos(a)), 0.0, height * 0.75 + 0.25 * height * np.sin(a))
            for a in (0.5, 1.0, 1.57)
        ]
        for start, end in itertools.pairwise(points):
            solids.append(capsule(start, end, pole, 0))
        solids.append(frustum(shade * 0.8, shade * 0.3, 0.16, 14).moved((reach, 0, height - 0.15)))
    return tuple(solids)


def _shade(rng: Rng, thin: float, radius: float, z: float) -> list[ConvexSolid]:
    """A lamp shade: solid drum or cone, or an open drum of wall pieces with a bulb and spokes inside."""
    height = rng.uniform(0.18, 0.3)
    if rng.random() < 0.6:
        return [frustum(radius, radius * rng.uniform(0.45, 1.0), height, 18).moved((0, 0, z))]
    wall, count = max(thin, 0.025), 14
    angles = 2 * np.pi * (np.arange(count + 1) + 0.5) / count
    pieces = []
    for a, b in itertools.pairwise(angles):
        points = [
            (r * np.cos(t), r * np.sin(t), h)
            for t in (a, b)
            for r in (radius - wall, radius)
            for h in (z, z + height)
        ]
        pieces.append(convex_hull(np.array(points)))
    spoke = max(thin, 0.025)
    pieces.append(block(0, 0, z + 0.1, 2 * radius - wall, spoke, spoke))
    pieces.append(ellipsoid((0.05, 0.05, 0.06)).moved((0, 0, z + 0.12)))
    return pieces


def _table_lamp(rng: Rng, thin: float) -> Solids:
    body, height = rng.uniform(0.06, 0.1), rng.uniform(0.2, 0.32)
    solids: list[ConvexSolid] = [cylinder(body, max(thin, 0.03), 14)]
    if rng.random() < 0.5:
        solids.append(ellipsoid((body, body, height / 2)).moved((0, 0, height / 2)))
    solids.append(cylinder(max(thin, 0.025) / 1.9, height + 0.06, 8))
    return (*solids, *_shade(rng, thin, rng.uniform(0.12, 0.17), height))


def _ceiling_lamp(rng: Rng, thin: float) -> Solids:
    drop, style = rng.uniform(0.25, 0.8), rng.integers(4)
    pole = max(thin, 0.024) / 1.9
    cap = max(thin, 0.04)
    solids: list[ConvexSolid] = [frustum(cap, 1.5 * cap, cap, 12).moved((0, 0, -cap))]
    solids.append(cylinder(pole, drop, 8).moved((0, 0, -drop)))
    if style == 0:
        solids.append(ellipsoid((0.17, 0.17, 0.17), 2).moved((0, 0, -drop - 0.12)))
    elif style == 1:
        solids += placed(_shade(rng, thin, rng.uniform(0.18, 0.3), 0.0), None, (0, 0, -drop - 0.16))
    elif style == 2:
        solids += placed(ring(0.32, max(thin / 2, 0.022), 18, 6), None, (0, 0, -drop))
        for angle in (0.0, np.pi / 2):
            bar = (block(0, 0, -drop - 0.01, 0.64, max(thin, 0.025), max(thin, 0.025)),)
            solids += placed(bar, rotation_z(angle))
    else:
        return (rounded_box(0.5, 0.5, 0.09, 0.03).moved((0, 0, -0.085)),)
    return tuple(solids)


def _cabinet(rng: Rng, thin: float) -> Solids:
    x, y, height = rng.uniform(0.6, 1.6), rng.uniform(0.38, 0.5), rng.uniform(0.55, 1.1)
    return _cupboard(rng, thin, x, y, height, int(rng.integers(2, 4)))


def _wardrobe(rng: Rng, thin: float) -> Solids:
    return _cupboard(rng, thin, rng.uniform(0.9, 1.9), rng.uniform(0.55, 0.65), rng.uniform(1.8, 2.15), 1)


def _cupboard(rng: Rng, thin: float, x: float, y: float, height: float, rows: int) -> Solids:
    foot, columns, gap = max(thin, rng.uniform(0.04, 0.12)), max(2, round(x / 0.5)), 0.02
    top, front, grip = max(thin, 0.03), max(thin, 0.022), max(thin, 0.022)
    solids = [block(0, 0, foot, x, y, height - foot)]
    solids.append(block(0, 0.01, height - JOINT, x + 0.04, y + 0.04, top))
    if rng.random() < 0.5:
        solids.append(block(0, -0.02, 0, x - 0.08, y - 0.08, foot + JOINT))
    else:
        solids += _legs(rng, x / 2 - 0.03, y / 2 - 0.03, foot, thin)
    wide, tall = (x - gap) / columns, (height - foot - gap) / rows
    for i in range(columns):
        for j in range(rows):
            px, pz = -x / 2 + gap / 2 + (i + 0.5) * wide, foot + gap / 2 + j * tall
            solids.append(block(px, y / 2, pz + gap / 2, wide - gap, 2 * front, tall - gap))
            handle = (px, y / 2 + front, pz + tall / 2)
            solids.append(block(handle[0], handle[1] + grip / 2, handle[2], 0.1, grip + JOINT, grip))
    return (*solids, *_on_top(rng, x / 2 - 0.02, y / 2 - 0.02, height + top - JOINT, thin, 3))


def _desk(rng: Rng, thin: float) -> Solids:
    x, y, height = rng.uniform(1.1, 1.6), rng.uniform(0.6, 0.75), rng.uniform(0.71, 0.76)
    top = max(thin, 0.035)
    solids = [block(0, 0, height - top, x, y, top)]
    solids.append(block(x / 2 - 0.22, 0, 0.02, 0.4, y - 0.06, height - top))
    solids.append(block(-x / 2 + 0.05, 0, 0, max(thin, 0.05), y - 0.06, height - top + JOINT))
    solids.append(block(0, -y / 2 + 0.06, height * 0.45, x - 0.1, max(thin, 0.03), height * 0.5))
    screen = block(0, 0, 0, rng.uniform(0.45, 0.65), max(thin, 0.035), 0.36)
    tilt = rotation_about((1, 0, 0), -0.1)
    solids += rested((screen,), tilt, 0, -y / 4, height + 0.11)
    solids.append(block(0, -y / 4, height - JOINT, 0.24, 0.18, max(thin, 0.022)))
    solids.append(block(0, -y / 4 - 0.03, height, 0.06, max(thin, 0.04), 0.3))
    solids.append(block(0, y / 6, height - JOINT, 0.42, 0.14, max(thin, 0.028)))
    if rng.random() < 0.6:
        solids += rested(_table_lamp(rng, thin), np.eye(3), -x / 2 + 0.2, -y / 4, height)
    return tuple(solids)


def _counter(rng: Rng, thin: float) -> Solids:
    units, y, height = int(rng.integers(2, 5)), 0.6, rng.uniform(0.86, 0.92)
    solids = list(_cupboard(rng, thin, units * 0.6, y, height, 1))
    if rng.random() < 0.6:
        for i in range(units):
            solids.append(block((i - (units - 1) / 2) * 0.6, -y / 2 + 0.17, 1.45, 0.59, 0.34, 0.65))
        solids.append(block(0, -y / 2 + 0.02, height - 0.05, units * 0.6, max(thin, 0.03), 0.7))
    tap = -units * 0.3 + 0.3
    solids.append(cylinder(max(thin, 0.03) / 1.9, 0.32, 8).moved((tap, -0.18, height)))
    solids.append(capsule((tap, -0.18, height + 0.31), (tap, -0.02, height + 0.27), max(thin, 0.03) / 1.9, 0))
    return tuple(solids)


def _plant(rng: Rng, thin: float) -> Solids:
    pot, tall = rng.uniform(0.12, 0.2), rng.uniform(0.22, 0.38)
    solids: list[ConvexSolid] = [frustum(pot * 0.7, pot, tall, 14)]
    stem = rng.uniform(0.2, 0.7)
    solids.append(cylinder(max(thin / 2, 0.02), tall + stem, 8))
    for _ in range(int(rng.integers(5, 11))):
        angle, rise = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.2)
        leaf = ellipsoid((rng.uniform(0.12, 0.26), rng.uniform(0.05, 0.09), max(thin, 0.03) / 1.6))
        turn = rotation_z(angle) @ rotation_about((0, 1, 0), -rise)
        reach = float(np.abs(leaf.vertices[:, 0]).max()) * 0.9
        start = np.array([0, 0, tall + stem * rng.uniform(0.35, 1.0)])
        solids += placed((leaf,), turn, start + turn @ (reach, 0, 0))
    return tuple(solids)


def _vase(rng: Rng, thin: float) -> Solids:
    """A lathed body: stacked frusta through random radii."""
    count = int(rng.integers(3, 6))
    heights = np.cumsum(np.concatenate([[0.0], rng.uniform(0.06, 0.16, count)]))
    radii = rng.uniform(max(thin, 0.05), 0.16, count + 1)
    pieces = []
    for i in range(count):
        piece = frustum(radii[i], radii[i + 1], heights[i + 1] - heights[i], 16)
        pieces.append(piece.moved((0, 0, heights[i])))
    return tuple(pieces)


def _boxes(rng: Rng, thin: float) -> Solids:
    """A stack of boxes, each turned about z, the last one sometimes tilted against the stack."""
    solids: list[ConvexSolid] = []
    z = 0.0
    size = rng.uniform(0.3, 0.6, 3)
    for _ in range(int(rng.integers(1, 4))):
        piece = (block(0, 0, 0, size[0], size[1], size[2]),)
        offset = rng.uniform(-0.04, 0.04, 2)
        solids += rested(piece, rotation_z(rng.uniform(-0.4, 0.4)), offset[0], offset[1], z)
        z = float(bounds_of(solids)[1, 2])
        size = size * rng.uniform(0.6, 0.95, 3)
    if rng.random() < 0.4:
        plank = (block(0, 0, 0, max(thin, 0.04), 0.2, z + 0.35),)
        lean = float(bounds_of(solids)[1, 0])
        solids += rested(plank, rotation_about((0, 1, 0), -0.35), lean + 0.12, 0.0, 0.0)
    return tuple(solids)


def _ball(rng: Rng, thin: float) -> Solids:
    radius = rng.uniform(0.1, 0.3)
    return (ellipsoid((radius, radius, radius * rng.uniform(0.8, 1.0)), 2),)


def _clutter_piece(rng: Rng, thin: float) -> Solids:
    """Something of 5 to 30 cm in a random shape and, often, a random attitude."""
    size, shape = rng.uniform(0.05, 0.14), rng.integers(9)
    if shape == 0:
        thing: Solids = (ellipsoid(np.maximum(rng.uniform(0.5, 1.1, 3) * size, thin / 2)),)
    elif shape == 1:
        thing = (cylinder(max(size * 0.5, thin / 2), size * 2, 12),)
    elif shape == 2:
        thing = (frustum(size, max(size * rng.uniform(0, 0.7), 0.0), size * 1.6, 12),)
    elif shape == 3:
        thing = ring(max(size, 1.8 * thin), max(size * 0.3, thin / 2), 12, 6)
    elif shape == 4:
        thing = l_shape(size * 2, size * 1.6, max(size * 0.8, thin), max(size * 0.4, thin))
    elif shape == 5:
        thing = (wedge(size * 2, size * 1.4, max(size, thin), 0.3),)
    elif shape == 6:
        thing = (convex_hull(rng.normal(size=(16, 3)) * size * 0.6),)
    elif shape == 7:
        thing = (capsule((0, 0, 0), (size * 1.5, 0, 0), max(size * 0.35, thin / 2)),)
    else:
        thing = (block(0, 0, 0, *np.maximum(rng.uniform(0.4, 2.0, 3) * size, thin)),)
    turn = random_rotation(rng) if rng.random() < 0.4 else rotation_z(rng.uniform(0, 2 * np.pi))
    return rested(thing, turn, 0, 0, 0, sink=0.0)


def _clutter(rng: Rng, thin: float) -> Solids:
    """A heap: pieces set down near each other, some on top of others, larger than table clutter."""
    solids: list[ConvexSolid] = []
    for _ in range(int(rng.integers(3, 7))):
        piece = placed(_clutter_piece(rng, thin), None, scale=rng.uniform(1.0, 2.2))
        x, y = rng.uniform(-0.25, 0.25, 2)
        low, high = bounds_of(piece) + np.array([x, y, 0.0])
        under = [s.bounds for s in solids if ((s.bounds[0] < high) & (s.bounds[1] > low))[:2].all()]
        z = max((float(b[1, 2]) for b in under), default=0.0)
        solids += rested(piece, np.eye(3), x, y, z if z < 0.5 else 0.0, sink=0.004)
    return tuple(solids)


def _bathtub(rng: Rng, thin: float) -> Solids:
    x, y, height, wall = (
        rng.uniform(1.5, 1.75),
        rng.uniform(0.68, 0.8),
        rng.uniform(0.5, 0.6),
        max(thin, 0.07),
    )
    return (
        block(0, 0, 0.0, x, y, 0.14),
        *(block(side * (x - wall) / 2, 0, 0.1, wall, y, height - 0.1) for side in (-1, 1)),
        *(block(0, side * (y - wall) / 2, 0.1, x, wall, height - 0.1) for side in (-1, 1)),
        rod((-x / 2 + 0.05, 0, height - 0.02), (-x / 2 + 0.05, 0, height + 0.12), max(thin, 0.03) / 1.9, 8),
        capsule((-x / 2 + 0.05, 0, height + 0.12), (-x / 2 + 0.2, 0, height + 0.1), max(thin, 0.03) / 1.9, 0),
    )


def _toilet(rng: Rng, thin: float) -> Solids:
    bowl = frustum(0.13, 0.2, 0.4, 18).scaled((1.0, 1.25, 1.0)).moved((0, 0.12, 0))
    lid = cylinder(0.21, max(thin, 0.03), 18).scaled((1.0, 1.25, 1.0)).moved((0, 0.12, 0.395))
    tank = rounded_box(0.42, 0.2, 0.4, 0.03).moved((0, -0.22, 0.37))
    return bowl, lid, tank, block(0, -0.15, 0, 0.2, 0.22, 0.39)


_MAKERS: dict[str, Maker] = {
    "table": _table,
    "round_table": _round_table,
    "chair": _chair,
    "office_chair": _office_chair,
    "stool": _stool,
    "shelf": _shelf,
    "sofa": _sofa,
    "bed": _bed,
    "floor_lamp": _floor_lamp,
    "table_lamp": _table_lamp,
    "ceiling_lamp": _ceiling_lamp,
    "cabinet": _cabinet,
    "wardrobe": _wardrobe,
    "desk": _desk,
    "counter": _counter,
    "plant": _plant,
    "vase": _vase,
    "boxes": _boxes,
    "ball": _ball,
    "clutter": _clutter,
    "bathtub": _bathtub,
    "toilet": _toilet,
}
FURNITURE_KINDS: tuple[str, ...] = tuple(_MAKERS)
CEILING_KINDS: tuple[str, ...] = ("ceiling_lamp",)
WALL_KINDS: tuple[str, ...] = (
    "shelf",
    "sofa",
    "bed",
    "cabinet",
    "wardrobe",
    "desk",
    "counter",
    "bathtub",
    "toilet",
)
