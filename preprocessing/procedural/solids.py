"""Convex polyhedra, and scenes as their union, whose occupancy is known exactly.

A scene is never meshed to be labeled: a point is inside when it satisfies every half-space of at least
one solid. Labeling per solid and taking the union is what makes overlapping walls right, where parity
over a merged mesh is wrong. The mesh, for scanning and for scores, is the exact Boolean union.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TypeAlias

import manifold3d
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from preprocessing.errors import MeshError

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Vector: TypeAlias = Sequence[float] | Floats

# Two half-spaces whose unit normals and offsets agree to this many decimals are one face of the hull.
PLANE_DECIMALS = 9
# Queries are sorted by the cells of a coarse grid; 16-bit keys make numpy's stable sort a radix sort.
GRID_CELLS = 60_000
# Solids grow by this share of the scene's largest side before their union, so that those that touch up to
# rounding overlap: 3 micrometers for 15 m. Else a void as thin as rounding stays between them, whose two
# faces coincide in float32, and a ray caster counts them once.
GROWTH_SHARE = 2e-7


@dataclass(frozen=True, eq=False)
class ConvexSolid:
    """A closed convex polyhedron, in the scene's unit (meters for buildings).

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64 rows of `vertices`, counter-clockwise seen from outside.
        normals: (H, 3) float64 unit outward normals of the half-spaces.
        offsets: (H,) float64; a point p is inside when `normals @ p + offsets <= 0` for every row.
    """

    vertices: Floats
    faces: Integers
    normals: Floats
    offsets: Floats

    @cached_property
    def bounds(self) -> Floats:
        """(2, 3) lowest and highest corner of the axis-aligned box."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def contains(self, points: Floats) -> NDArray[np.bool_]:
        """(N,) whether each of the (N, 3) points is inside or on the boundary."""
        inside: NDArray[np.bool_] = ((points >= self.bounds[0]) & (points <= self.bounds[1])).all(axis=1)
        rows = np.flatnonzero(inside)
        inside[rows] = (points[rows] @ self.normals.T <= -self.offsets).all(axis=1)
        return inside

    def transformed(self, matrix: Floats, translation: Vector = (0.0, 0.0, 0.0)) -> "ConvexSolid":
        """The solid with every point p moved to `matrix @ p + translation`.

        Args:
            matrix: (3, 3) invertible: a rotation, a scaling (also unequal) or a mirror.
            translation: (3,).
        """
        shift = np.asarray(translation, np.float64)
        normals = self.normals @ np.linalg.inv(matrix)
        lengths = np.linalg.norm(normals, axis=1)
        normals /= lengths[:, None]
        is_mirror = np.linalg.det(matrix) < 0
        return ConvexSolid(
            self.vertices @ matrix.T + shift,
            self.faces[:, ::-1] if is_mirror else self.faces,
            normals,
            self.offsets / lengths - normals @ shift,
        )

    def scaled(self, factors: float | Vector) -> "ConvexSolid":
        """The solid scaled about the origin by one factor or by (3,) factors along x, y, z."""
        return self.transformed(np.diag(np.broadcast_to(np.asarray(factors, np.float64), 3)))

    def moved(self, translation: Vector) -> "ConvexSolid":
        """The solid moved by (3,)."""
        shift = np.asarray(translation, np.float64)
        return ConvexSolid(
            self.vertices + shift, self.faces, self.normals, self.offsets - self.normals @ shift
        )


Solids: TypeAlias = tuple[ConvexSolid, ...]


@dataclass(frozen=True, eq=False)
class Scene:
    """A union of convex solids.

    Attributes:
        solids: the solids; they may overlap and touch.
        name: unique within a dataset.
        bounds: (2, 3) box that contains every solid.
        rooms: (2, 3) boxes of the spaces enclosed by walls, furniture not taken out: where scanners stand.
    """

    solids: Solids
    name: str
    bounds: Floats
    rooms: tuple[Floats, ...] = ()

    def occupancy(self, queries: Floats) -> NDArray[np.bool_]:
        """Exact occupancy of (N, 3) queries, as (N,) bool; the boundary counts as inside."""
        return union_occupancy(self.solids, queries)

    def mesh(self) -> tuple[Floats, Integers]:
        """The union's surface as one watertight 2-manifold: (V, 3) vertices, (F, 3) outward faces."""
        return self._mesh

    @cached_property
    def _mesh(self) -> tuple[Floats, Integers]:
        return union_mesh(self.solids)


def bounds_of(solids: Iterable[ConvexSolid]) -> Floats:
    """(2, 3) axis-aligned box around the solids."""
    boxes = np.stack([solid.bounds for solid in solids])
    return np.stack([boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)])


def union_occupancy(solids: Sequence[ConvexSolid], queries: Floats) -> NDArray[np.bool_]:
    """Whether each of (N, 3) queries lies in at least one solid, as (N,) bool.

    Queries are sorted by the cells of a coarse grid, so that a solid meets only the queries in the cells
    that its box touches.
    """
    queries = np.asarray(queries, np.float64)
    low, high = bounds_of(solids)
    rows = np.flatnonzero(((queries >= low) & (queries <= high)).all(axis=1))
    cell = (np.prod(high - low) / GRID_CELLS) ** (1 / 3)
    shape = np.maximum(((high - low) / cell).astype(np.int64), 1)
    scale = shape / (high - low)

    def cell_of(points: Floats) -> Integers:
        cells: Integers = np.clip(((points - low) * scale).astype(np.int64), 0, shape - 1)
        return cells

    cells = cell_of(queries[rows])
    # Flat plans round up, so the key still fits 16 bits in all but absurd shapes; wider keys only cost time.
    key_type = np.uint16 if np.prod(shape) < 2**16 else np.int64
    keys = ((cells[:, 0] * shape[1] + cells[:, 1]) * shape[2] + cells[:, 2]).astype(key_type)
    order = np.argsort(keys, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=int(np.prod(shape))))])
    rows = rows[order]
    points = queries[rows]
    inside = np.zeros(len(points), bool)
    for solid in solids:
        (x0, y0, z0), (x1, y1, z1) = cell_of(solid.bounds)
        columns = (np.arange(x0, x1 + 1)[:, None] * shape[1] + np.arange(y0, y1 + 1)).ravel() * shape[2]
        first, last = starts[columns + z0], starts[columns + z1 + 1]
        counts = last - first
        total = int(counts.sum())
        if total == 0:
            continue
        near = np.repeat(last - np.cumsum(counts), counts) + np.arange(total)
        near = near[~inside[near]]
        inside[near[solid.contains(points[near])]] = True
    occupied = np.zeros(len(queries), bool)
    occupied[rows] = inside
    return occupied


def union_mesh(solids: Sequence[ConvexSolid]) -> tuple[Floats, Integers]:
    """Exact Boolean union of convex solids.

    Returns:
        (V, 3) float64 vertices and (F, 3) int64 outward faces of one watertight 2-manifold.

    Raises:
        MeshError: if a solid is not a closed polyhedron.
    """
    parts = []
    growth = float(np.ptp(bounds_of(solids), axis=0).max()) * GROWTH_SHARE
    for index, solid in enumerate(solids):
        faces = np.ascontiguousarray(solid.faces, np.uint64)
        part = manifold3d.Manifold(manifold3d.Mesh64(_grown_vertices(solid, growth), faces))
        if part.status() != manifold3d.Error.NoError:
            raise MeshError(
                f"solid {index} is not a closed polyhedron ({part.status()}); build it by convex_hull"
            )
        parts.append(part)
    mesh = manifold3d.Manifold.batch_boolean(parts, manifold3d.OpType.Add).to_mesh64()
    return np.array(mesh.vert_properties[:, :3], np.float64), np.array(mesh.tri_verts, np.int64)


def _grown_vertices(solid: ConvexSolid, growth: float) -> Floats:
    """(V, 3) vertices after every half-space moved outwards by `growth` (least squares beyond three)."""
    gaps = np.abs(solid.vertices @ solid.normals.T + solid.offsets)
    meets = (gaps <= np.ptp(solid.bounds, axis=0).max() * 1e-7).astype(np.float64)
    squares = np.einsum("vh,hi,hj->vij", meets, solid.normals, solid.normals)
    # A pseudo-inverse, since a vertex that the hull kept in the middle of an edge meets two planes only.
    inverses = np.linalg.pinv(squares, rcond=1e-6, hermitian=True)
    grown: Floats = solid.vertices + growth * np.einsum("vij,vj->vi", inverses, meets @ solid.normals)
    return grown


def convex_hull(points: Floats) -> ConvexSolid:
    """The convex hull of (N, 3) points that span a volume; half-spaces by Qhull, faces by manifold3d."""
    points = np.asarray(points, np.float64)
    planes = ConvexHull(points).equations
    _, first = np.unique(np.round(planes, PLANE_DECIMALS), axis=0, return_index=True)
    planes = planes[np.sort(first)]
    mesh = manifold3d.Manifold.hull_points(points).to_mesh64()
    return ConvexSolid(
        np.array(mesh.vert_properties[:, :3], np.float64),
        np.array(mesh.tri_verts, np.int64),
        planes[:, :3].copy(),
        planes[:, 3].copy(),
    )


@cache
def _unit_box() -> ConvexSolid:
    corners = np.array([(x, y, z) for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)])
    return convex_hull(corners)


@cache
def _unit_cylinder(sides: int) -> ConvexSolid:
    return frustum(1.0, 1.0, 1.0, sides)


@cache
def _unit_sphere(detail: int) -> ConvexSolid:
    golden = (1 + 5**0.5) / 2
    signs = [(a, b * golden) for a in (-1.0, 1.0) for b in (-1.0, 1.0)]
    points = np.array([p for a, b in signs for p in ((0, a, b), (a, b, 0), (b, 0, a))])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    for _ in range(detail):
        hull = convex_hull(points)
        corners = hull.vertices[hull.faces]
        middles = (corners + np.roll(corners, 1, axis=1)).reshape(-1, 3)
        middles = np.unique(np.round(middles, 12), axis=0)
        points = np.concatenate([points, middles / np.linalg.norm(middles, axis=1, keepdims=True)])
    return convex_hull(points)


def box(low: Vector, high: Vector) -> ConvexSolid:
    """Axis-aligned box between two (3,) corners, exact to the last bit of the corners."""
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    unit = _unit_box()
    corners = np.where(unit.vertices > 0.5, high, low)
    offsets = np.where(unit.normals > 0, -high, low)[np.arange(6), np.abs(unit.normals).argmax(axis=1)]
    return ConvexSolid(corners, unit.faces, np.round(unit.normals), offsets)


def block(x: float, y: float, z: float, size_x: float, size_y: float, size_z: float) -> ConvexSolid:
    """Axis-aligned box centered at x, y that stands on the height z."""
    return box((x - size_x / 2, y - size_y / 2, z), (x + size_x / 2, y + size_y / 2, z + size_z))


def cylinder(radius: float, height: float, sides: int = 16) -> ConvexSolid:
    """Prism of `sides` sides whose corners lie on the radius, standing on the origin along z."""
    return _unit_cylinder(sides).scaled((radius, radius, height))


def frustum(bottom: float, top: float, height: float, sides: int = 16) -> ConvexSolid:
    """Truncated cone standing on the origin, from radius `bottom` to `top`; a radius of 0 makes a cone."""
    angles = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    ring = np.stack([np.cos(angles), np.sin(angles), np.zeros(sides)], axis=1)
    rings = [ring[: sides if radius > 0 else 1] * radius for radius in (bottom, top)]
    return convex_hull(np.concatenate([rings[0], rings[1] + (0.0, 0.0, height)]))


def ellipsoid(radii: Vector, detail: int = 1) -> ConvexSolid:
    """Faceted ellipsoid centered at the origin: 20 * 4**detail faces, corners on the true ellipsoid."""
    return _unit_sphere(detail).scaled(radii)


def wedge(size_x: float, size_y: float, size_z: float, top: float = 0.0) -> ConvexSolid:
    """Box whose +y side is sloped: centered at x, y = 0, standing on 0; depth `top * size_y` at the top."""
    x, y = size_x / 2, size_y / 2
    edge = -y + max(top, 0.0) * size_y
    bottom = [(sx, sy, 0.0) for sx in (-x, x) for sy in (-y, y)]
    upper = [(sx, sy, size_z) for sx in (-x, x) for sy in ({-y, edge})]
    return convex_hull(np.array(bottom + upper))


def rod(
    start: Vector, end: Vector, radius: float, sides: int = 8, end_radius: float | None = None
) -> ConvexSolid:
    """Prism between two (3,) points, tapering to `end_radius` if given."""
    start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
    length = float(np.linalg.norm(end - start))
    tip = radius if end_radius is None else end_radius
    upright = cylinder(radius, length, sides) if tip == radius else frustum(radius, tip, length, sides)
    return upright.transformed(_rotation_from_z((end - start) / length), start)


def capsule(start: Vector, end: Vector, radius: float, detail: int = 1) -> ConvexSolid:
    """Hull of two faceted spheres around two (3,) points."""
    ball = _unit_sphere(detail).vertices * radius
    return convex_hull(np.concatenate([ball + np.asarray(start), ball + np.asarray(end)]))


def rounded_box(size_x: float, size_y: float, size_z: float, radius: float) -> ConvexSolid:
    """Box with rounded edges, centered at x, y = 0 and standing on 0: cushions, mattresses, appliances."""
    radius = min(radius, 0.499 * min(size_x, size_y, size_z))
    ball = _unit_sphere(1).vertices * radius / np.abs(_unit_sphere(1).vertices).max(axis=0)
    half = np.array([size_x, size_y, size_z]) / 2 - radius
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) * half
    points = (corners[:, None] + ball).reshape(-1, 3)
    return convex_hull(points).moved((0.0, 0.0, size_z / 2))


def ring(radius: float, tube: float, segments: int = 16, sides: int = 8) -> Solids:
    """Torus in the plane z = 0 as convex segments.

    Args:
        radius: from the center to the tube's axis.
        tube: radius of the tube.
        segments: number of convex pieces.
        sides: corners of the tube's cross section.
    """
    angles = 2 * np.pi * (np.arange(segments + 1) / segments)
    around = 2 * np.pi * (np.arange(sides) + 0.5) / sides
    reach, height = radius + tube * np.cos(around), tube * np.sin(around)
    sections = [np.stack([reach * np.cos(a), reach * np.sin(a), height], axis=1) for a in angles]
    return tuple(convex_hull(np.concatenate(pair)) for pair in itertools.pairwise(sections))


def l_shape(size_x: float, size_y: float, size_z: float, thickness: float) -> Solids:
    """L in plan: two legs of the given thickness along the -x and -y sides, centered, standing on 0."""
    x, y = size_x / 2, size_y / 2
    return (
        box((-x, -y, 0.0), (x, -y + thickness, size_z)),
        box((-x, -y, 0.0), (-x + thickness, y, size_z)),
    )


def rotation_about(axis: Vector, angle: float) -> Floats:
    """(3, 3) rotation by `angle` radians about a (3,) axis (Rodrigues)."""
    x, y, z = np.asarray(axis, np.float64) / np.linalg.norm(axis)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: Floats = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation


def rotation_z(angle: float) -> Floats:
    """(3, 3) rotation by `angle` radians about z."""
    return rotation_about((0.0, 0.0, 1.0), angle)


def _rotation_from_z(direction: Floats) -> Floats:
    side = np.array([1.0, 0.0, 0.0]) if abs(direction[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    first = np.cross(side, direction)
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first), direction], axis=1)


def placed(
    solids: Iterable[ConvexSolid],
    rotation: Floats | None = None,
    translation: Vector = (0.0, 0.0, 0.0),
    scale: float = 1.0,
) -> Solids:
    """The solids scaled about the origin, then rotated, then moved."""
    matrix = np.eye(3) * scale if rotation is None else rotation * scale
    return tuple(solid.transformed(matrix, translation) for solid in solids)


def rested(
    solids: Iterable[ConvexSolid], rotation: Floats, x: float, y: float, z: float, sink: float = 0.002
) -> Solids:
    """The solids rotated, then set down at x, y with their lowest point `sink` below the height z.

    Sinking makes contacts overlaps, which the Boolean union resolves without slivers.
    """
    turned = placed(solids, rotation)
    return placed(turned, None, (x, y, z - sink - float(bounds_of(turned)[0, 2])))
