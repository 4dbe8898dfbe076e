"""`manifest.json`: what a run was asked to do and how its scene is cut up."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import TypeAdapter

from pipeline.errors import RunDirectoryError, RunFileError
from pipeline.reconstruction.config import ReconstructConfig
from pipeline.reconstruction.ingest import BucketContents
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.spacing import Granularity
from pipeline.reconstruction.store import RunStore

MANIFEST = "manifest.json"
FORMAT = 3  # of the whole run directory


@dataclass(frozen=True)
class TileCounts:
    """How many crops' fields and tiles' surfaces a run computed, and how many it found finished."""

    fields_computed: int = 0
    fields_kept: int = 0
    tiles_computed: int = 0
    tiles_kept: int = 0


@dataclass(frozen=True)
class RunManifest:
    """A run: everything but the last two attributes is decided at its start and never changes.

    Attributes:
        identity: hash of the settings, the scan's files and the weights; all tables of the run carry it.
        software: version of the program that started it.
        scan: its name; points, dropped_points: finite ones, and those left out.
        contents: what the points carry.
        stations: (S, 3) positions of the scanner.
        crs: coordinate reference system that the mesh is in.
        notes: what the user should know, a line each.
        config: as the user gave it.
        threshold: occupancy probability at the surface.
        plans: of the levels, finest first.
        granularity: spacing and noise of the scan.
        surface_tiles: tiles that the surface reaches, once that is known.
        runs: what each command on the directory computed.
    """

    identity: str
    software: str
    scan: str
    points: int
    dropped_points: int
    contents: BucketContents
    stations: tuple[tuple[float, float, float], ...]
    crs: str | None
    notes: tuple[str, ...]
    config: ReconstructConfig
    threshold: float
    plans: tuple[ScenePlan, ...]
    granularity: Granularity
    surface_tiles: tuple[int, ...] | None = None
    runs: tuple[TileCounts, ...] = ()


def write_manifest(store: RunStore, manifest: RunManifest) -> None:
    """Write the manifest with its checksum."""
    store.write_bytes(MANIFEST, sealed_json(asdict(manifest)))


def read_manifest(store: RunStore) -> RunManifest:
    """The manifest of a run.

    Raises:
        RunFileError: if it is missing or damaged.
        RunDirectoryError: if another version of the program wrote it.
    """
    try:
        data = store.read_bytes(MANIFEST)
    except FileNotFoundError:
        raise RunFileError(store.url, MANIFEST, "is missing") from None
    try:
        return TypeAdapter(RunManifest).validate_python(unsealed_json(data))
    except ValueError:  # among them pydantic's ValidationError
        other = _other_format(data)
    if other is not None:
        raise RunDirectoryError(
            f"{store.url}: is a run of another version of tessera (format {other}; this version has {FORMAT}): finish "
            "it with that version, or choose another --out"
        )
    raise RunFileError(store.url, MANIFEST, "is damaged")


def _other_format(data: bytes) -> int | None:
    """The format of an intact manifest of another version; None where it is none."""
    try:
        written = json.loads(data)
    except ValueError:
        return None
    if not isinstance(written, dict):
        return None
    if "checksum" not in written:
        return 1 if "hash" in written else None  # the first versions had neither format nor checksum
    is_intact = written.pop("checksum") == _checksum(written)
    return written.get("format") if is_intact and written.get("format") != FORMAT else None


def sealed_json(contents: dict[str, Any]) -> bytes:
    """JSON with the format's version and a checksum of the contents beside these."""
    sealed = {"format": FORMAT, **contents}
    return json.dumps(sealed | {"checksum": _checksum(sealed)}, indent=1).encode()


def unsealed_json(data: bytes) -> dict[str, Any]:
    """The contents of `sealed_json`.

    Raises:
        ValueError: if they differ from their checksum.
    """
    written = json.loads(data)
    if not isinstance(written, dict) or written.pop("checksum", None) != _checksum(written):
        raise ValueError("differs from its checksum")
    if written.pop("format") != FORMAT:
        raise ValueError(f"is not of format {FORMAT}")
    return written


def _checksum(contents: Any) -> int:
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())
