"""Any triangle soup to a closed two-manifold solid in the unit cube, with its distance from the input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import manifold3d
import numpy as np
from numpy.typing import NDArray

from foundation.settings import check_at_least, check_choices
from preprocessing.errors import MeshError
from preprocessing.surface_sampling import sample_surface
from preprocessing.watertight.cleaning import Soup, clean_soup, edge_use, face_parts, orient
from preprocessing.watertight.untangling import untangle
from preprocessing.watertight.visibility import Surroundings, VisibilityConfig, solidify

Method = Literal["auto", "exact", "visibility"]
DISTANCE_SAMPLES = 20_000
SIMPLIFY = 0.05  # of the lattice's spacing: what the surface of a lattice may move when it loses faces
ROUNDING = 1e-6  # of the cube: a union leaves slivers thinner than this, whose rounded corners cross
UNION_SPACING = 1e-4  # of the cube: crossings of a union end within a tenth of it in each round
UNION_ROUNDS = 10


@dataclass(frozen=True)
class WatertightConfig:
    """How to close a mesh, and how far from the input the result may lie.

    Attributes:
        method: `exact` keeps a closed mesh as it is (its parts united) and refuses an open one; `visibility`
            rebuilds the surface from what can be seen from outside; `auto` is exact where that is possible.
        visibility: lattice and rays.
        largest_chamfer: bound of the mean distance, in unit cubes.
        largest_hausdorff: bound of the largest distance, in unit cubes.
    """

    method: Method = "auto"
    visibility: VisibilityConfig = field(default_factory=VisibilityConfig)
    largest_chamfer: float = 0.01
    largest_hausdorff: float = 0.06

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(0, largest_chamfer=self.largest_chamfer, largest_hausdorff=self.largest_hausdorff)


@dataclass(frozen=True)
class WatertightMesh:
    """A watertight mesh in the unit cube centered at 0; world = scale * position + location.

    Attributes:
        vertices: (V, 3) float64; faces: (F, 3) int64, facing out.
        location: (3,) float64, world; scale: the input's longest side.
        method: `exact` or `visibility`.
        chamfer_l1: mean of the mean distances between the input's visible surface and the result, both
            ways, in unit cubes; 0 of an input that was kept.
        hausdorff: the largest of those distances.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    location: NDArray[np.float64]
    scale: float
    method: Literal["exact", "visibility"]
    chamfer_l1: float
    hausdorff: float


def make_watertight(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    config: WatertightConfig | None = None,
) -> WatertightMesh:
    """Close a mesh and scale it into the unit cube (longest side 1, centered: Mescheder et al. 2019, section 4).

    Args:
        vertices: (V, 3) in any unit, finite; faces: (F, 3).
        config: method and bounds.

    Raises:
        MeshError: if the mesh is beyond use, is not closed where `exact` was asked for, or the result lies
            too far from the input.
    """
    config = config or WatertightConfig()
    vertices, faces = clean_soup(vertices, faces)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    location, scale = 0.5 * (low + high), float((high - low).max())
    vertices = (vertices - location) / scale
    exact = None if config.method == "visibility" else _close_exactly(vertices, faces)
    if exact is not None:
        return WatertightMesh(*exact, location, scale, "exact", 0.0, 0.0)
    if config.method == "exact":
        boundary = int((edge_use(faces) != 2).sum())
        raise MeshError(
            f"is not a closed surface: {boundary:,} edges do not have two faces, its sides cannot be told apart, "
            "or its parts do not unite to a solid; use --method auto or visibility"
        )
    surroundings = Surroundings(vertices, faces, config.visibility)
    spacing = config.visibility.spacing
    solid = untangle(_simplify(solidify(surroundings, config.visibility), SIMPLIFY * spacing), spacing)
    chamfer, hausdorff = _distances((vertices, faces), solid, surroundings, spacing)
    if chamfer > config.largest_chamfer or hausdorff > config.largest_hausdorff:
        raise MeshError(
            f"the closed surface is too far from the input: mean {chamfer:.4f} (bound {config.largest_chamfer:g}), "
            f"largest {hausdorff:.4f} (bound {config.largest_hausdorff:g}) of its longest side"
        )
    return WatertightMesh(*solid, location, scale, "visibility", chamfer, hausdorff)


def _close_exactly(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> Soup | None:
    """A mesh whose every edge has two faces, facing out, its parts united; None where it is not closed.

    A single part that crosses itself is kept: only its winding numbers tell what it encloses.
    """
    if (edge_use(faces) != 2).any():
        return None
    turned = orient(vertices, faces)
    if turned is None:
        return None
    parts = face_parts(turned, len(vertices))
    if parts.max() == 0:
        return vertices, turned
    solids = [_manifold(vertices, turned[parts == part]) for part in range(parts.max() + 1)]
    if any(solid is None for solid in solids):
        return None
    union = manifold3d.Manifold.batch_boolean(solids, manifold3d.OpType.Add)
    try:
        return untangle(_soup(union.simplify(ROUNDING)), UNION_SPACING, UNION_ROUNDS)
    except MeshError:
        return None


def _manifold(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> manifold3d.Manifold | None:
    used, rows = np.unique(faces, return_inverse=True)
    mesh = manifold3d.Mesh64(
        np.ascontiguousarray(vertices[used]), np.ascontiguousarray(rows.reshape(-1, 3).astype(np.uint64))
    )
    solid = manifold3d.Manifold(mesh)
    return solid if solid.status() == manifold3d.Error.NoError and solid.num_tri() else None


def _soup(solid: manifold3d.Manifold) -> Soup:
    mesh = solid.to_mesh64()
    return np.array(mesh.vert_properties[:, :3], np.float64), np.array(mesh.tri_verts, np.int64)


def _simplify(surface: Soup, tolerance: float) -> Soup:
    """The same solid with fewer faces where it is flat."""
    solid = _manifold(*surface)
    if solid is None:
        raise MeshError("the rebuilt surface is not a two-manifold; try another resolution")
    return _soup(solid.simplify(tolerance))


def _distances(soup: Soup, solid: Soup, surroundings: Surroundings, spacing: float) -> tuple[float, float]:
    """Chamfer-L1 and Hausdorff distance between a soup's visible surface and a solid, by samples."""
    rng = np.random.default_rng(0)
    of_solid, _ = sample_surface(*solid, DISTANCE_SAMPLES, rng)
    of_soup, normals = sample_surface(*soup, DISTANCE_SAMPLES, rng)
    step = 0.5 * spacing * normals
    visible = surroundings.is_seen(of_soup + step) | surroundings.is_seen(of_soup - step)
    to_soup = surroundings.distance(of_solid)
    closed = Surroundings(*solid, VisibilityConfig())
    to_solid = closed.distance(of_soup[visible]) if visible.any() else np.zeros(1)
    return 0.5 * float(to_soup.mean() + to_solid.mean()), float(max(to_soup.max(), to_solid.max()))
