"""Joining the tiles into one mesh, streaming: an exact integer join, bounded by a neighborhood of tiles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RunDirectoryError
from pipeline.reconstruction.ingest import COLOR_NAMES
from pipeline.reconstruction.parts import PartSums, SceneParts, TileParts, join_parts
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.report import MeshSummary
from pipeline.reconstruction.sealed_tables import Columns
from pipeline.reconstruction.store import RunStore
from pipeline.reconstruction.support import VertexSupport
from pipeline.reconstruction.tile_surface import TileSurface, owner_of
from preprocessing.meshes.files import open_mesh_writer

Surface = Literal["closed", "observed"]
FEWEST_VOXELS = 24  # observed voxels of a part that is no crumb
TILES_IN_MEMORY = 64
OWNED_BORDER, OWNED_INSIDE, FOREIGN = range(3)  # row groups of a tile's vertices, present though empty


def vertices_file(tile: int) -> str:
    """Name of a tile's vertices; written last, so its presence says that the tile is finished."""
    return f"tiles/{tile:08d}.vertices.parquet"


def faces_file(tile: int) -> str:
    """Name of a tile's faces."""
    return f"tiles/{tile:08d}.faces.parquet"


def write_tile(
    store: RunStore,
    tile: int,
    surface: TileSurface,
    support: VertexSupport,
    parts: TileParts,
    facts: dict[str, Any],
) -> None:
    """Write a tile's faces, then its vertices."""
    keys = dict(zip("abc", surface.faces.T, strict=True))
    store.write_table(faces_file(tile), [keys])
    columns: dict[str, NDArray[Any]] = {"key": surface.keys}
    columns |= dict(zip(("x", "y", "z"), surface.positions.T, strict=True))
    columns |= dict(zip(("nx", "ny", "nz"), surface.normal_sums.T, strict=True))
    columns |= {"distance": support.distances, "confidence": support.confidence}
    columns |= {"part": parts.part, "in_observed_face": parts.in_observed_face}
    if support.colors is not None:
        columns |= dict(zip(COLOR_NAMES, support.colors.T, strict=True))
    cuts = (0, surface.owned_border, surface.owned, len(surface.keys))
    groups = [
        {name: values[start:stop] for name, values in columns.items()} for start, stop in pairwise(cuts)
    ]
    counts = {
        "owned_border": surface.owned_border,
        "owned": surface.owned,
        "vertices": len(surface.keys),
        "faces": len(surface.faces),
        "bad_edges": surface.bad_edges,
        "sums": asdict(parts.sums),
    }
    store.write_table(vertices_file(tile), groups, counts | facts)


@dataclass(frozen=True)
class SurfaceChoice:
    """Which of the surface goes into the mesh.

    Attributes:
        surface: closed, the watertight mesh; observed, without the faces that no point supports.
        trim_voxels: a face is observed if none of its corners is farther than this from every point.
        fewest_voxels: parts with fewer observed voxels are left out, except the largest.
    """

    surface: Surface
    trim_voxels: float
    fewest_voxels: int


@dataclass(frozen=True)
class _Vertices:
    """Some vertex rows of a tile."""

    keys: NDArray[np.int64]
    positions: NDArray[np.float64]
    normal_sums: NDArray[np.float64]
    confidence: NDArray[np.float32]
    colors: NDArray[np.uint8] | None

    def only(self, rows: NDArray[np.bool_]) -> _Vertices:
        """Some of the rows."""
        colors = None if self.colors is None else self.colors[rows]
        return _Vertices(
            self.keys[rows], self.positions[rows], self.normal_sums[rows], self.confidence[rows], colors
        )


class TileReader:
    """Reads finished tiles, keeping the borders of the latest ones.

    Args:
        store: the run directory.
        plan: of the scene.
        tiles: that the surface reaches, ascending.
        choice: what of the surface goes into the mesh.

    Raises:
        RunFileError: if a tile is missing or damaged.
    """

    def __init__(self, store: RunStore, plan: ScenePlan, tiles: Sequence[int], choice: SurfaceChoice) -> None:
        self.store, self.plan, self.tiles, self.choice = store, plan, tiles, choice
        self.facts = {tile: store.read_facts(vertices_file(tile)) for tile in tiles}
        self.foreign = lru_cache(maxsize=TILES_IN_MEMORY)(self._foreign)
        self.border = lru_cache(maxsize=TILES_IN_MEMORY)(self._border)
        self.numbers = lru_cache(maxsize=TILES_IN_MEMORY)(self._numbers)
        self.parts = self._parts()
        kept = [int(self._is_kept(tile).sum()) for tile in tiles]
        self._first = dict(zip(tiles, np.cumsum([0, *kept])[:-1].tolist(), strict=True))
        self.vertex_count = sum(kept)
        self.face_count = self.parts.observed_faces
        if choice.surface == "closed":
            self.face_count += self.parts.guessed_faces

    def _table(self, tile: int, groups: list[int], columns: list[str] | None = None) -> Columns:
        """Some of a tile's three groups of vertices: owned on the border, owned inside, foreign."""
        with self.store.open_table(vertices_file(tile)) as file:
            return file.read(groups, columns)

    def _rows(self, tile: int, groups: list[int]) -> _Vertices:
        table = self._table(tile, groups)
        colors = None
        if COLOR_NAMES[0] in table:
            colors = np.stack([table[name] for name in COLOR_NAMES], axis=1)
        return _Vertices(
            table["key"],
            np.stack([table[name] for name in ("x", "y", "z")], axis=1),
            np.stack([table[name] for name in ("nx", "ny", "nz")], axis=1),
            table["confidence"],
            colors,
        )

    def _foreign(self, tile: int) -> tuple[_Vertices, NDArray[np.int32], NDArray[np.bool_]]:
        """Rows of vertices that neighbors own, their parts, and whether a face of this tile shows them."""
        table = self._table(tile, [FOREIGN], ["part", "in_observed_face"])
        return (
            self._rows(tile, [FOREIGN]),
            table["part"],
            table["in_observed_face"],
        )

    def _parts(self) -> SceneParts:
        """The parts of the scene: two tiles' parts are one where they share a vertex."""
        same: set[tuple[tuple[int, int], tuple[int, int]]] = set()
        for tile in self.tiles:
            rows, part, _ = self.foreign(tile)
            owners = owner_of(rows.keys, self.plan)
            for owner in np.unique(owners):
                mine = owners == owner
                keys, parts = self.border(int(owner))
                there = parts[np.searchsorted(keys, rows.keys[mine])]
                pairs = np.unique(np.column_stack([part[mine], there]), axis=0)
                same |= {((tile, int(p)), (int(owner), int(q))) for p, q in pairs}
        sums = [PartSums(**facts["sums"]) for facts in self.facts.values()]
        return join_parts(self.tiles, sums, sorted(same), self.choice.fewest_voxels)

    def _border(self, tile: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Keys and parts of a tile's own vertices on its border."""
        table = self._table(tile, [OWNED_BORDER], ["key", "part"])
        return table["key"], table["part"]

    def _is_kept(self, tile: int) -> NDArray[np.bool_]:
        """Which of a tile's own vertices are in the mesh."""
        table = self._table(tile, [OWNED_BORDER, OWNED_INSIDE], ["key", "part", "in_observed_face"])
        kept: NDArray[np.bool_] = self.parts.is_kept[tile][table["part"]]
        if self.choice.surface == "closed":
            return kept
        shown = table["in_observed_face"].copy()
        border = table["key"][: self.facts[tile]["owned_border"]]
        for other in self._neighbors(tile):
            rows, _, is_shown = self.foreign(other)
            place, hit = _find(border, rows.keys[is_shown])
            shown[place[hit]] = True
        return np.asarray(kept & shown)

    def _numbers(self, tile: int) -> NDArray[np.int64]:
        """Final numbers of a tile's own vertices on its border, which neighbors name too; undefined where not kept."""
        kept = self._is_kept(tile)[: self.facts[tile]["owned_border"]]
        return np.asarray(self._first[tile] + np.cumsum(kept) - 1)

    def _neighbors(self, tile: int) -> list[int]:
        return [other for other in self.plan.around(tile) if other in self.facts and other != tile]

    def owned_vertices(self, tile: int) -> _Vertices:
        """A tile's own vertices in the mesh, in their final order, with the normals' shares of all neighbors added."""
        facts = self.facts[tile]
        rows = self._rows(tile, [OWNED_BORDER, OWNED_INSIDE])
        border = rows.keys[: facts["owned_border"]]
        for other in self._neighbors(tile):
            shared, _, _ = self.foreign(other)
            place, hit = _find(border, shared.keys)
            rows.normal_sums[place[hit]] += shared.normal_sums[hit]
        return rows.only(self._is_kept(tile))

    def _kept_faces(self, tile: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """A tile's faces (F, 3) as rows of its vertices, and which of them are in the mesh."""
        table = self._table(tile, [OWNED_BORDER, OWNED_INSIDE, FOREIGN], ["key", "part", "distance"])
        keys = table["key"]
        with self.store.open_table(faces_file(tile)) as file:
            stored = file.read()
        faces = np.stack([stored[name] for name in "abc"], axis=1)
        order = np.argsort(keys, kind="stable")
        faces = order[np.searchsorted(keys[order], faces)]
        kept = self.parts.is_kept[tile][table["part"][faces[:, 0]]]
        if self.choice.surface == "observed":
            observed = table["distance"] <= self.choice.trim_voxels
            kept = kept & observed[faces].all(axis=1)
        return faces, kept

    def final_faces(self, tile: int) -> NDArray[np.int64]:
        """A tile's faces (F, 3) in the mesh, as final vertex numbers."""
        facts = self.facts[tile]
        rows, kept = self._kept_faces(tile)
        final = np.empty(facts["vertices"], np.int64)
        final[: facts["owned"]] = self._first[tile] + np.cumsum(self._is_kept(tile)) - 1
        foreign = self.foreign(tile)[0].keys
        owners = owner_of(foreign, self.plan)
        for owner in np.unique(owners):
            mine = np.flatnonzero(owners == owner)
            place, hit = _find(self.border(int(owner))[0], foreign[mine])
            if not hit.all():
                raise RunDirectoryError(
                    f"{self.store.url}: its tiles do not meet, as different versions of the program have computed "
                    "them; choose another --out or delete it"
                )
            final[facts["owned"] + mine] = self.numbers(int(owner))[place]
        return np.asarray(final[rows[kept]])


def _find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places of wanted keys among ascending keys, and which of them are there."""
    place = np.searchsorted(keys, wanted)
    inside = place < len(keys)
    hit = inside.copy()
    hit[inside] = keys[place[inside]] == wanted[inside]
    return place, hit


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
    found = (re.fullmatch(r"(\d{8,})\.vertices\.parquet", name) for name in store.names("tiles"))
    return [int(match[1]) for match in found if match]


def merge_tiles(reader: TileReader, path: Path, has_colors: bool, crs: str | None = None) -> MeshSummary:
    """Write the final mesh from the finished tiles.

    Args:
        reader: of the tiles that the surface reaches, and what of it goes into the mesh.
        path: the mesh file; its suffix chooses the format.
        has_colors: whether tiles carry colors.
        crs: coordinate reference system to note in the file.

    Raises:
        MeshError: if the file cannot be written.
        RunFileError: if a tile is missing or damaged; no mesh is written then.
    """
    plan = reader.plan
    origin = np.asarray(plan.origin)
    remaining = np.zeros((0, 2), np.int64)
    counts = reader.vertex_count, reader.face_count
    with open_mesh_writer(path, *counts, has_colors, plan.origin, has_confidence=True, crs=crs) as writer:
        for tile in reader.tiles:
            if not reader.facts[tile]["owned"]:
                continue
            vertices = reader.owned_vertices(tile)
            lengths = np.linalg.norm(vertices.normal_sums, axis=1, keepdims=True)
            normals = (vertices.normal_sums / np.maximum(lengths, 1e-300)).astype(np.float32)
            places = origin + plan.spacing * vertices.positions
            writer.vertices(places, normals, vertices.colors, vertices.confidence)
        for tile in reader.tiles:
            faces = reader.final_faces(tile)
            remaining = cancel_opposites(remaining, _unpaired(faces, reader.vertex_count))
            writer.faces(faces)
    bad_edges = sum(int(facts["bad_edges"]) for facts in reader.facts.values())
    is_watertight = not len(remaining) and not bad_edges and reader.face_count > 0
    square = plan.voxel_size**2
    return MeshSummary(
        *counts,
        is_watertight,
        len(remaining),
        bad_edges,
        reader.parts.count,
        reader.parts.removed,
        round(reader.parts.observed_area * square, 4),
        round(reader.parts.guessed_area * square, 4),
    )


def _unpaired(faces: NDArray[np.int64], vertex_count: int) -> NDArray[np.int64]:
    """Directed edges (E, 2) of a tile's faces, as vertex numbers, whose opposite is not among them."""
    if not len(faces):
        return np.zeros((0, 2), np.int64)
    starts, ends = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    is_falling = starts > ends
    edges = np.minimum(starts, ends) * vertex_count + np.maximum(starts, ends)
    codes = np.sort(2 * edges + is_falling)  # of an edge, first all that rise, then all that fall
    first = np.flatnonzero(np.r_[True, codes[1:] >> 1 != codes[:-1] >> 1])
    last = np.r_[first[1:], len(codes)] - 1
    is_open = codes[first] & 1 == codes[last] & 1
    alone = codes[np.repeat(is_open, last - first + 1)]
    low, high = np.divmod(alone >> 1, vertex_count)
    return np.where((alone & 1)[:, None], np.stack([high, low], axis=1), np.stack([low, high], axis=1))
