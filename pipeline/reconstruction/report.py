"""`report.json`: what a reconstruction ended with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import RunFileError
from pipeline.reconstruction.manifest import sealed_json, unsealed_json
from pipeline.reconstruction.store import RunStore

REPORT = "report.json"


@dataclass(frozen=True)
class ReconstructReport:
    """What a reconstruction ended with; also `RUN/report.json`.

    Attributes:
        mesh: the file written.
        mesh_checksum: CRC-32 of its bytes.
        vertices, faces, is_watertight, open_edges, bad_edges: of that mesh.
        parts, removed_parts: connected parts of the mesh, and floating parts left out as too small.
        observed_area, guessed_area: square meters of the surface with and without scan points nearby.
        voxel_size, spacing: meters; of the network's voxels and of the lattice of the surface.
        point_spacing, noise: of the scan, meters; see `Granularity`.
        tiles: tiles in the plan that could hold surface.
        tiles_computed, tiles_kept: of their surfaces, in this run and from earlier ones.
        fields_computed, fields_kept: likewise of the crops' fields.
        seconds: wall time of each stage of this run.
        peak_memory_bytes: driver, workers and Ray together, sampled ten times a second.
        coverage: share of the scan's points that the mesh passes by within two voxels.
        crs: coordinate reference system of the mesh, where the scan's files name one and it kept their frame.
        notes: what the user should know, a line each.
    """

    mesh: str
    mesh_checksum: int
    vertices: int
    faces: int
    is_watertight: bool
    open_edges: int
    bad_edges: int
    parts: int
    removed_parts: int
    observed_area: float
    guessed_area: float
    voxel_size: float
    spacing: float
    point_spacing: float
    noise: float
    points: int
    tiles: int
    tiles_computed: int
    tiles_kept: int
    fields_computed: int
    fields_kept: int
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
