"""The connected parts of the mesh: found tile by tile, joined across tiles, and which of them are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from convonet.surface.marching_cubes import index_faces
from pipeline.reconstruction.support import VertexSupport
from pipeline.reconstruction.tile_surface import TileSurface


@dataclass(frozen=True)
class PartSums:
    """Sums over each part of one tile's surface.

    Attributes:
        observed_voxels: distinct voxels with an observed vertex that the tile owns.
        observed_faces, guessed_faces: faces with all corners observed, and the others.
        observed_area, guessed_area: square voxels of them.
    """

    observed_voxels: list[int]
    observed_faces: list[int]
    guessed_faces: list[int]
    observed_area: list[float]
    guessed_area: list[float]


@dataclass(frozen=True)
class TileParts:
    """The parts of one tile's surface; rows of vertices are in the order of `TileSurface`.

    Attributes:
        part: (V,) int32 local number of each vertex's part.
        in_observed_face: (V,) bool whether a face of this tile whose corners are all observed has the vertex.
        sums: over each part.
    """

    part: NDArray[np.int32]
    in_observed_face: NDArray[np.bool_]
    sums: PartSums


def tile_parts(
    surface: TileSurface, support: VertexSupport, cells_per_voxel: int, trim_voxels: float
) -> TileParts:
    """Find the parts of one tile.

    Args:
        surface: the tile's.
        support: of its vertices.
        cells_per_voxel: lattice cells along a voxel.
        trim_voxels: vertices farther than this from every point are guessed.
    """
    count = len(surface.keys)
    order = np.argsort(surface.keys)
    faces = order[index_faces(surface.keys[order], surface.faces)]
    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(count, count))
    parts, part = connected_components(graph, directed=False) if count else (0, np.zeros(0, np.int32))
    observed = support.distances <= trim_voxels
    is_observed_face = observed[faces].all(axis=1)
    in_observed_face = np.zeros(count, np.bool_)
    in_observed_face[faces[is_observed_face]] = True
    places = surface.positions / cells_per_voxel
    a, b, c = (places[faces[:, corner]] for corner in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    of_face = part[faces[:, 0]] if len(faces) else np.zeros(0, np.int64)
    observed_of, guessed_of = of_face[is_observed_face], of_face[~is_observed_face]
    own = np.flatnonzero(observed[: surface.owned])
    voxels = np.unique(np.column_stack([part[own], np.floor(places[own]).astype(np.int64)]), axis=0)
    sums = PartSums(
        np.bincount(voxels[:, 0].astype(np.int64), minlength=parts).tolist(),
        np.bincount(observed_of, minlength=parts).tolist(),
        np.bincount(guessed_of, minlength=parts).tolist(),
        np.bincount(observed_of, weights=area[is_observed_face], minlength=parts).tolist(),
        np.bincount(guessed_of, weights=area[~is_observed_face], minlength=parts).tolist(),
    )
    return TileParts(part.astype(np.int32), in_observed_face, sums)


@dataclass(frozen=True)
class SceneParts:
    """The parts of the whole mesh.

    Attributes:
        is_kept: for each tile, whether each of its local parts is kept.
        count: kept parts.
        removed: parts left out.
        observed_faces, guessed_faces: of the kept parts.
        observed_area, guessed_area: square voxels of them.
    """

    is_kept: dict[int, NDArray[np.bool_]]
    count: int
    removed: int
    observed_faces: int
    guessed_faces: int
    observed_area: float
    guessed_area: float


def join_parts(
    tiles: Sequence[int],
    local: Sequence[PartSums],
    same: Sequence[tuple[tuple[int, int], tuple[int, int]]],
    fewest_voxels: int,
) -> SceneParts:
    """Join the tiles' parts and decide which are kept.

    Args:
        tiles: in order; local: the sums of their parts.
        same: pairs of (tile, local part) that share a vertex.
        fewest_voxels: parts with fewer observed voxels are left out, except the largest.
    """
    counts = [len(parts.observed_voxels) for parts in local]
    first = dict(zip(tiles, np.cumsum([0, *counts])[:-1].tolist(), strict=True))
    total = sum(counts)
    if not total:
        return SceneParts({tile: np.zeros(0, np.bool_) for tile in tiles}, 0, 0, 0, 0, 0.0, 0.0)
    pairs = np.array([(first[a] + p, first[b] + q) for (a, p), (b, q) in same], np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(total, total))
    scene_count, scene = connected_components(graph, directed=False)

    def summed(name: str) -> NDArray[np.float64]:
        values = np.concatenate([np.asarray(getattr(parts, name), np.float64) for parts in local])
        return np.asarray(np.bincount(scene, weights=values, minlength=scene_count), np.float64)

    voxels = summed("observed_voxels")
    kept = voxels >= fewest_voxels
    kept[np.argmax(voxels)] = True
    of_tile = {
        tile: np.asarray(kept[scene[first[tile] : first[tile] + count]])
        for tile, count in zip(tiles, counts, strict=True)
    }
    number = int(kept.sum())
    return SceneParts(
        of_tile,
        number,
        scene_count - number,
        observed_faces=int(summed("observed_faces")[kept].sum()),
        guessed_faces=int(summed("guessed_faces")[kept].sum()),
        observed_area=float(summed("observed_area")[kept].sum()),
        guessed_area=float(summed("guessed_area")[kept].sum()),
    )
