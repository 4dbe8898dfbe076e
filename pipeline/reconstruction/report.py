"""`report.json`: what a reconstruction ended with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import RunFileError
from pipeline.reconstruction.manifest import TileCounts, sealed_json, unsealed_json
from pipeline.reconstruction.store import RunStore

REPORT = "report.json"


@dataclass(frozen=True)
class MeshSummary:
    """What was written.

    Attributes:
        vertices, faces: counts.
        is_watertight: every edge had exactly two faces, of opposite direction.
        open_edges, bad_edges: edges that had not; an observed surface has open edges at its border.
        parts, removed_parts: connected parts in the mesh, and those left out for having too few observed voxels.
        observed_area, guessed_area: square meters of the surface with and without points, before any trimming.
    """

    vertices: int
    faces: int
    is_watertight: bool
    open_edges: int
    bad_edges: int
    parts: int
    removed_parts: int
    observed_area: float
    guessed_area: float


@dataclass(frozen=True, kw_only=True)
class ReconstructReport(TileCounts, MeshSummary):
    """What a reconstruction ended with; also `RUN/report.json`.

    Attributes:
        mesh: the file written.
        mesh_checksum: CRC-32 of its bytes.
        voxel_size, spacing: meters; of the network's voxels and of the lattice of the surface.
        point_spacing, noise: of the scan, meters; see `Granularity`.
        points: of the scan.
        tiles: tiles in the plan that could hold surface.
        seconds: wall time of each stage of this run.
        peak_memory_bytes: driver, workers and Ray together, sampled ten times a second.
        coverage: share of the scan's points that the mesh passes by within two voxels.
        crs: coordinate reference system of the mesh, where the scan's files name one and it kept their frame.
        notes: what the user should know, a line each.
    """

    mesh: str
    mesh_checksum: int
    voxel_size: float
    spacing: float
    point_spacing: float
    noise: float
    points: int
    tiles: int
    seconds: dict[str, float]
    peak_memory_bytes: int
    coverage: float
    crs: str | None
    notes: tuple[str, ...]


def write_report(store: RunStore, report: ReconstructReport) -> None:
    """Write the report with its checksum."""
    store.write_bytes(REPORT, sealed_json(asdict(report)))


def read_report(store: RunStore) -> dict[str, Any]:
    """The report as JSON.

    Raises:
        FileNotFoundError: if there is none yet.
        RunFileError: if it is damaged.
    """
    try:
        return unsealed_json(store.read_bytes(REPORT))
    except ValueError:
        raise RunFileError(store.url, REPORT, "is damaged") from None
