"""The 256 ways a surface can cross a lattice cell, generated so that the mesh is always a manifold.

Corner c of a cell lies at (c >> 2 & 1, c >> 1 & 1, c & 1); bit c of a case is set where the corner is
inside. A cell edge is cut where its two ends differ, and carries one vertex.

The rules, and why any set of signs gives a closed, oriented 2-manifold:

1. On each cell face the cut edges are joined in pairs by segments, by a rule that sees only the face's
   four signs; so the two cells that share the face draw the same segments. Where the two inside corners
   face each other diagonally, the rule keeps the INSIDE connected: an occupied wall about one cell thick
   stays in one piece instead of breaking into pinholes.
2. A cut edge lies on two faces of its cell and ends one segment on each, so the segments close into loops,
   and two loops of one cell share no vertex.
3. Each loop becomes triangles whose inner edges never join two vertices of one cell face. Such triangles
   exist for every loop of every case (the loops have 3 to 7 vertices), so no vertex is ever added inside a
   cell; `triangulate` would refuse to build the table otherwise.

So a mesh edge is either a segment, used once by each of the two cells at its face and in opposite
directions, or an inner edge, used by two triangles of one loop: two edges of the lattice with no common face
belong to one cell at most. The triangles around a vertex form one fan in each of the four cells at its
lattice edge, and the four shared faces join the fans into one cycle.

Lorensen and Cline 1987 for the idea of a table; the table itself is derived here from rules 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

CORNERS = tuple((x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1))
"""Offsets of the eight corners, in the order of `corner_values`."""

EDGES = tuple((c, axis) for axis in range(3) for c in range(8) if CORNERS[c][axis] == 0)
"""The twelve edges as (lower corner, axis), by axis and then by corner."""

Loop = tuple[int, ...]
Triangle = tuple[int, int, int]


@dataclass(frozen=True)
class CellCases:
    """Triangles of every case, as flat tables.

    Args:
        triangle_start: (257,) int64; case k owns rows triangle_start[k] to triangle_start[k + 1].
        triangles: (T, 3) int64 edge numbers 0 to 11; counter-clockwise seen from outside.
        cut_edges: (256, 12) bool; which edges carry a vertex.
    """

    triangle_start: NDArray[np.int64]
    triangles: NDArray[np.int64]
    cut_edges: NDArray[np.bool_]


def _edge_between(a: int, b: int) -> int:
    axis = next(i for i in range(3) if CORNERS[a][i] != CORNERS[b][i])
    return EDGES.index((min(a, b), axis))


def face_cycles() -> list[tuple[int, int, int, int]]:
    """The four corners of each cell face, counter-clockwise seen from outside the cell."""
    cycles = []
    for axis, side in product(range(3), (0, 1)):
        u, v = (axis + 1) % 3, (axis + 2) % 3
        square = [(0, 0), (1, 0), (1, 1), (0, 1)]
        if side == 0:
            square.reverse()
        corners = []
        for a, b in square:
            offset = [0, 0, 0]
            offset[axis], offset[u], offset[v] = side, a, b
            corners.append(4 * offset[0] + 2 * offset[1] + offset[2])
        cycles.append((corners[0], corners[1], corners[2], corners[3]))
    return cycles


def _segments(case: int) -> dict[int, int]:
    """Directed segments (from edge, to edge) of all faces; seen from outside, the inside is on the right."""
    follow: dict[int, int] = {}
    for cycle in face_cycles():
        inside = [bool(case >> c & 1) for c in cycle]
        entries = [i for i in range(4) if not inside[i] and inside[(i + 1) % 4]]
        exits = [i for i in range(4) if inside[i] and not inside[(i + 1) % 4]]
        for entry in entries:
            # One exit: take it. Two exits: the one just before the entry, so that the segment cuts off
            # the outside corner between them and the two inside corners stay connected.
            leave = exits[0] if len(exits) == 1 else (entry - 1) % 4
            start, end = (_edge_between(cycle[i], cycle[(i + 1) % 4]) for i in (entry, leave))
            follow[start] = end
    return follow


def case_loops(case: int) -> list[Loop]:
    """The closed loops of cut edges of a case, each counter-clockwise seen from outside the surface."""
    follow = _segments(case)
    loops = []
    while follow:
        first = min(follow)
        loop = [first]
        while (after := follow.pop(loop[-1])) != first:
            loop.append(after)
        loops.append(tuple(loop))
    return loops


@cache
def faces_of_edge(edge: int) -> frozenset[tuple[int, int]]:
    """The two cell faces (axis, side) that an edge lies on."""
    corner, along = EDGES[edge]
    return frozenset((axis, CORNERS[corner][axis]) for axis in range(3) if axis != along)


def _squared_length(a: int, b: int) -> int:
    """Squared distance between the midpoints of two edges, in half cells."""
    (p, along_p), (q, along_q) = EDGES[a], EDGES[b]
    return sum(
        (2 * CORNERS[p][i] + (i == along_p) - 2 * CORNERS[q][i] - (i == along_q)) ** 2 for i in range(3)
    )


def triangulate(loop: Loop) -> tuple[Triangle, ...]:
    """Triangles of a loop with the shortest inner edges, none of them within a cell face.

    Raises:
        ValueError: if every triangulation has an inner edge within a cell face.
    """

    @cache
    def best(low: int, high: int) -> tuple[int, tuple[Triangle, ...]] | None:
        """Cost and triangles of the part loop[low..high], whose closing edge (low, high) is given."""
        if high - low < 2:
            return 0, ()
        found = None
        for middle in range(low + 1, high):
            cost = 0
            triangles: tuple[Triangle, ...] = ((loop[low], loop[middle], loop[high]),)
            for a, b in ((low, middle), (middle, high)):
                part = best(a, b)
                is_inner = b - a > 1
                if part is None or (is_inner and faces_of_edge(loop[a]) & faces_of_edge(loop[b])):
                    break
                cost += part[0] + (_squared_length(loop[a], loop[b]) if is_inner else 0)
                triangles += part[1]
            else:
                if found is None or cost < found[0]:
                    found = (cost, triangles)
        return found

    whole = best(0, len(loop) - 1)
    if whole is None:
        raise ValueError(f"no manifold triangulation of the loop {loop}")
    return whole[1]


@cache
def cell_cases() -> CellCases:
    """Build the tables, once for a process (tens of milliseconds)."""
    starts: list[int] = [0]
    rows: list[Triangle] = []
    cut = np.zeros((256, 12), dtype=np.bool_)
    for case in range(256):
        for loop in case_loops(case):
            cut[case, list(loop)] = True
            rows += triangulate(loop)
        starts.append(len(rows))
    return CellCases(np.array(starts), np.array(rows, dtype=np.int64), cut)
