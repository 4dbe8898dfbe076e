"""Joining the tiles into one mesh, streaming: an exact integer join, bounded by a neighbourhood of tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.support import VertexSupport
from pipeline.reconstruction.tile_surface import TileSurface, owner_of
from preprocessing.mesh_files import open_mesh_writer

COLOR_NAMES = ("red", "green", "blue")
TILES_IN_MEMORY = 64
OWNED_BORDER, OWNED_INSIDE, FOREIGN = range(3)  # row groups of a tile's vertices, present though empty


@dataclass(frozen=True)
class MeshSummary:
    """What was written.

    Attributes:
        vertices, faces: counts.
        is_watertight: every edge had exactly two faces, of opposite direction.
        open_edges, bad_edges: edges that had not.
    """

    vertices: int
    faces: int
    is_watertight: bool
    open_edges: int
    bad_edges: int


def vertices_file(tile: int) -> str:
    """Name of a tile's vertices; written last, so its presence says that the tile is finished."""
    return f"tiles/{tile:08d}.vertices.parquet"


def write_tile(
    store: RunStore, tile: int, surface: TileSurface, support: VertexSupport, facts: dict[str, Any]
) -> None:
    """Write a tile's faces, open edges and vertices, in this order."""
    keys = dict(zip("abc", surface.faces.T, strict=True))
    store.write_tables(f"tiles/{tile:08d}.faces.parquet", [pa.table(keys)])
    edges = dict(zip("ab", surface.open_edges.T, strict=True))
    store.write_tables(f"tiles/{tile:08d}.edges.parquet", [pa.table(edges)])
    columns: dict[str, NDArray[Any]] = {"key": surface.keys}
    columns |= dict(zip(("x", "y", "z"), surface.positions.T, strict=True))
    columns |= dict(zip(("nx", "ny", "nz"), surface.normal_sums.T, strict=True))
    columns |= {"distance": support.distances, "confidence": support.confidence}
    if support.colors is not None:
        columns |= dict(zip(COLOR_NAMES, support.colors.T, strict=True))
    table = pa.table(columns)
    cuts = (0, surface.owned_border, surface.owned, len(surface.keys))
    groups = [table.slice(start, stop - start) for start, stop in pairwise(cuts)]
    counts = {
        "owned_border": surface.owned_border,
        "owned": surface.owned,
        "vertices": len(surface.keys),
        "faces": len(surface.faces),
        "bad_edges": surface.bad_edges,
    }
    store.write_tables(vertices_file(tile), groups, counts | facts)


@dataclass(frozen=True)
class _Vertices:
    """Some vertex rows of a tile."""

    keys: NDArray[np.int64]
    positions: NDArray[np.float64]
    normal_sums: NDArray[np.float64]
    colors: NDArray[np.uint8] | None


class TileReader:
    """Reads finished tiles, keeping the borders of the latest ones."""

    def __init__(self, store: RunStore, plan: ScenePlan, tiles: list[int]) -> None:
        self.store, self.plan, self.tiles = store, plan, tiles
        self.facts = {tile: store.read_facts(vertices_file(tile)) for tile in tiles}
        owned = np.array([self.facts[tile]["owned"] for tile in tiles], np.int64)
        self.vertex_count = int(owned.sum())
        self.face_count = sum(int(self.facts[tile]["faces"]) for tile in tiles)
        self._first = dict(zip(tiles, np.cumsum(np.r_[0, owned])[:-1].tolist(), strict=True))
        self.owned_border_keys = lru_cache(maxsize=TILES_IN_MEMORY)(self._owned_border_keys)
        self.foreign = lru_cache(maxsize=TILES_IN_MEMORY)(self._foreign)

    def _rows(self, tile: int, groups: list[int]) -> _Vertices:
        """Some of a tile's three groups of vertices: owned on the border, owned inside, foreign."""
        with self.store.open_table(vertices_file(tile)) as file:
            table = file.read_row_groups(groups)
        colors = None
        if COLOR_NAMES[0] in table.column_names:
            colors = np.stack([table[name].to_numpy() for name in COLOR_NAMES], axis=1)
        return _Vertices(
            table["key"].to_numpy(),
            np.stack([table[name].to_numpy() for name in ("x", "y", "z")], axis=1),
            np.stack([table[name].to_numpy() for name in ("nx", "ny", "nz")], axis=1),
            colors,
        )

    def _owned_border_keys(self, tile: int) -> NDArray[np.int64]:
        return self._rows(tile, [OWNED_BORDER]).keys

    def _foreign(self, tile: int) -> _Vertices:
        return self._rows(tile, [FOREIGN])

    def _neighbours(self, tile: int) -> list[int]:
        return [other for other in self.plan.around(tile) if other in self.facts and other != tile]

    def owned_vertices(self, tile: int) -> _Vertices:
        """A tile's own vertices in their final order, with the normals' shares of all neighbours added."""
        facts = self.facts[tile]
        rows = self._rows(tile, [OWNED_BORDER, OWNED_INSIDE])
        border = rows.keys[: facts["owned_border"]]
        sums = rows.normal_sums.copy()
        for other in self._neighbours(tile):
            shared = self.foreign(other)
            place = np.searchsorted(border, shared.keys)
            hit = np.flatnonzero(place < len(border))
            hit = hit[border[place[hit]] == shared.keys[hit]]
            sums[place[hit]] += shared.normal_sums[hit]
        return _Vertices(rows.keys, rows.positions, sums, rows.colors)

    def final_faces(self, tile: int) -> NDArray[np.int64]:
        """A tile's faces (F, 3) as final vertex numbers."""
        facts = self.facts[tile]
        rows = self._rows(tile, [OWNED_BORDER, OWNED_INSIDE, FOREIGN])
        final = np.empty(len(rows.keys), np.int64)
        final[: facts["owned"]] = self._first[tile] + np.arange(facts["owned"])
        foreign = rows.keys[facts["owned"] :]
        owners = owner_of(foreign, self.plan)
        for owner in np.unique(owners):
            mine = np.flatnonzero(owners == owner)
            keys = self.owned_border_keys(int(owner))
            place = np.searchsorted(keys, foreign[mine])
            assert np.array_equal(keys[np.minimum(place, len(keys) - 1)], foreign[mine]), (
                "a shared vertex is missing"
            )
            final[facts["owned"] + mine] = self._first[int(owner)] + place
        with self.store.open_table(f"tiles/{tile:08d}.faces.parquet") as file:
            table = file.read()
        faces = np.stack([table[name].to_numpy() for name in "abc"], axis=1)
        order = np.argsort(rows.keys, kind="stable")
        return np.asarray(final[order[np.searchsorted(rows.keys[order], faces)]])

    def open_edges(self, tile: int) -> NDArray[np.int64]:
        """A tile's directed edges (E, 2) that its neighbours must complete."""
        with self.store.open_table(f"tiles/{tile:08d}.edges.parquet") as file:
            table = file.read()
        return np.stack([table["a"].to_numpy(), table["b"].to_numpy()], axis=1)


def cancel_opposites(open_edges: NDArray[np.int64], more: NDArray[np.int64]) -> NDArray[np.int64]:
    """Directed edges (E, 2) that remain after each has met its opposite."""
    edges = np.concatenate([open_edges, more])
    if not len(edges):
        return edges
    ends = np.sort(edges, axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))
    ends, edges = ends[order], edges[order]
    starts = np.flatnonzero(np.r_[True, (ends[1:] != ends[:-1]).any(axis=1)])
    counts = np.diff(np.r_[starts, len(ends)])
    pair = starts[counts == 2]
    pair = pair[edges[pair, 0] == edges[pair + 1, 1]]
    kept = np.ones(len(edges), np.bool_)
    kept[pair] = kept[pair + 1] = False
    return np.asarray(edges[kept])


def finished_tiles(store: RunStore) -> list[int]:
    """Tiles whose surface is in the store, ascending."""
    names = store.names("tiles")
    return [int(name.split(".")[0]) for name in names if name.endswith(".vertices.parquet")]


def merge_tiles(store: RunStore, plan: ScenePlan, path: Path, has_colors: bool) -> MeshSummary:
    """Write the final mesh from the finished tiles.

    Args:
        store: the run directory.
        plan: the scene's plan.
        path: the mesh file; its suffix chooses the format.
        has_colors: whether tiles carry colours.

    Raises:
        MeshError: if the file cannot be written.
    """
    reader = TileReader(store, plan, finished_tiles(store))
    origin = np.asarray(plan.origin)
    remaining = np.zeros((0, 2), np.int64)
    for tile in reader.tiles:
        remaining = cancel_opposites(remaining, reader.open_edges(tile))
    bad_edges = sum(int(facts["bad_edges"]) for facts in reader.facts.values())
    with open_mesh_writer(path, reader.vertex_count, reader.face_count, has_colors, plan.origin) as writer:
        for vertices in _each(reader):
            lengths = np.linalg.norm(vertices.normal_sums, axis=1, keepdims=True)
            normals = (vertices.normal_sums / np.maximum(lengths, 1e-300)).astype(np.float32)
            writer.vertices(origin + plan.spacing * vertices.positions, normals, vertices.colors)
        for tile in reader.tiles:
            writer.faces(reader.final_faces(tile))
    is_watertight = not len(remaining) and not bad_edges and reader.face_count > 0
    return MeshSummary(reader.vertex_count, reader.face_count, is_watertight, len(remaining), bad_edges)


def _each(reader: TileReader) -> Iterator[_Vertices]:
    for tile in reader.tiles:
        if reader.facts[tile]["owned"]:
            yield reader.owned_vertices(tile)
