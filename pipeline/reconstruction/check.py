"""Verifying every file of a run, and removing those that cannot be believed, so that they are computed again."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from pipeline.errors import RunFileError
from pipeline.reconstruction.ingest import chunk_file, index_file
from pipeline.reconstruction.manifest import RunManifest
from pipeline.reconstruction.merge import faces_file, finished_tiles, vertices_file
from pipeline.reconstruction.report import read_report
from pipeline.reconstruction.store import RunStore

BLOCK = 1 << 20


def check_run(store: RunStore, manifest: RunManifest) -> list[RunFileError]:
    """Compare every table of a run with its checksums, and look for those that must be there.

    Args:
        store: the run directory, with the run's identity.
        manifest: of the run.
    """
    found = []
    for name in _tables(store, manifest):
        try:
            _verify(store, name)
        except RunFileError as error:
            found.append(error)
    return found


def verify_points(store: RunStore, manifest: RunManifest) -> None:
    """Compare the points of all levels with their checksums: those that no finished tile needs, nobody else reads.

    Raises:
        RunFileError: if a file differs or is missing.
    """
    for name in _point_tables(store, manifest):
        _verify(store, name)


def check_outputs(store: RunStore) -> list[RunFileError]:
    """Compare the report, and the mesh that it names if that is still there, with their checksums."""
    try:
        report = read_report(store)
        mesh = Path(report["mesh"])
        if mesh.is_file() and file_checksum(mesh) != report["mesh_checksum"]:
            raise RunFileError(str(mesh.parent), mesh.name, "is not the mesh that the run wrote")
    except FileNotFoundError:
        return []
    except RunFileError as error:
        return [error]
    return []


def file_checksum(path: Path) -> int:
    """CRC-32 of a file's bytes."""
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum


def remove_damaged(store: RunStore, manifest: RunManifest, seen: RunFileError) -> int:
    """Remove what a check finds, and the file that was seen to be damaged; returns how many there were."""
    names = {error.name for error in check_run(store, manifest)} | {seen.name}
    for name in names:
        if name.startswith("points/"):
            store.delete(index_file())  # the points of all levels are written anew
        elif name.startswith("tiles/"):
            tile = int(re.findall(r"\d+", name)[0])
            store.delete(vertices_file(tile))
            store.delete(faces_file(tile))
        else:
            store.delete(name)
    return len(names)


def _tables(store: RunStore, manifest: RunManifest) -> list[str]:
    """Names of all tables that are there or must be there."""
    names = []
    if store.exists(index_file()) or manifest.surface_tiles is not None:
        names += _point_tables(store, manifest)
    tiles = set(manifest.surface_tiles or ()) | set(finished_tiles(store))
    for tile in sorted(tiles):
        names += [faces_file(tile), vertices_file(tile)]
    names += [f"fields/{name}" for name in store.names("fields") if name.endswith(".parquet")]
    for plan in manifest.plans[1:]:
        folder = f"levels/{plan.level}"
        names += [f"{folder}/{name}" for name in store.names(folder) if name.endswith(".parquet")]
    return names


def _point_tables(store: RunStore, manifest: RunManifest) -> list[str]:
    """Names of the points of all levels: each index, then the files that it names."""
    return [name for plan in manifest.plans for name in (index_file(plan.level), *_chunks(store, plan.level))]


def _verify(store: RunStore, name: str) -> None:
    with store.open_table(name) as table:
        table.verify()


def _chunks(store: RunStore, level: int) -> list[str]:
    """The files that an index names; none where it cannot be read, which the check of the index tells."""
    try:
        with store.open_table(index_file(level)) as file:
            chunks = np.unique(file.read(columns=["chunk"])["chunk"])
    except RunFileError:
        return []
    return [chunk_file(level, int(chunk)) for chunk in chunks]
