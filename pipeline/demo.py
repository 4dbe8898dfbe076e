"""The demonstration: scan a procedural building, reconstruct it, measure it against the exact one."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from convonet import DEFAULT_MODEL
from foundation.atomic_file import appearing
from foundation.local_paths import local_path
from foundation.settings import check_at_least
from pipeline.memory import MemoryWatch
from pipeline.reconstruction import ReconstructConfig, ReconstructReport, reconstruct
from preprocessing.meshes.files import read_mesh
from preprocessing.metrics import MeshMetrics, evaluate_mesh
from preprocessing.pictures.render import preview_sheet
from preprocessing.procedural.buildings import BuildingConfig, building
from preprocessing.procedural.scanner import ScannerConfig, place_stations, scan
from preprocessing.procedural.solids import Floats, Scene
from preprocessing.scan_files import write_scan_ply

THRESHOLDS_M = (0.05, 0.10)


@dataclass(frozen=True)
class DemoReport:
    """What the demo made: also `OUT/report.json`.

    Attributes:
        scan_points: number of points of the virtual scan.
        building_size_m: x, y, z.
        reconstruction, metrics: of the mesh, and against the exact building.
        seconds: wall time of each part.
        peak_memory_bytes: driver, workers and Ray together, over the whole demo.
    """

    scan_points: int
    building_size_m: tuple[float, float, float]
    reconstruction: ReconstructReport
    metrics: MeshMetrics
    seconds: dict[str, float]
    peak_memory_bytes: int


def demo(out: Path, seed: int = 7, device: str = "auto", address: str = "auto") -> DemoReport:
    """Run the whole pipeline on a seeded two-floor furnished building.

    Writes scan.ply, truth.ply, run/, mesh.ply, preview.png and report.json into `out`.

    Args:
        out: the folder; the same seed in the same folder continues where it stopped.
        seed: which building.
        device: where the network runs.
        address: of Ray.

    Raises:
        SettingError: if the seed is negative.
    """
    check_at_least(0, seed=seed)
    out = local_path(out)
    with MemoryWatch() as memory:
        report = _demo(out, seed, device, address)
    report = replace(report, peak_memory_bytes=memory.peak_bytes)
    with appearing(out / "report.json") as partial:
        partial.write_text(json.dumps(asdict(report), indent=1))
    return report


def _demo(out: Path, seed: int, device: str, address: str) -> DemoReport:
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    scene = demo_building(seed)
    vertices, faces = scene.mesh()
    points = _scan(scene, vertices, faces, seed)
    scan_file = out / "scan.ply"
    write_scan_ply(scan_file, points)
    scanned = time.monotonic()
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    run = out / f"run-{seed}"
    report = reconstruct(
        scan_file,
        run,
        ReconstructConfig(model=DEFAULT_MODEL),
        mesh=out / "mesh.ply",
        device=device,
        address=address,
    )
    reconstructed = time.monotonic()
    mesh = read_mesh(out / "mesh.ply")
    metrics = evaluate_mesh(
        mesh.vertices,
        mesh.faces,
        vertices,
        faces,
        thresholds_m=THRESHOLDS_M,
        seed=seed,
        reference_occupancy=scene.occupancy,
    )
    preview_sheet(
        mesh.vertices,
        mesh.faces,
        out / "preview.png",
        points=points,
        title=f"Tessera demo, building {seed}: voxel {report.voxel_size:.3g} m",
    )
    seconds = {
        "building and scan": round(scanned - started, 2),
        "reconstruction": round(reconstructed - scanned, 2),
        "metrics and pictures": round(time.monotonic() - reconstructed, 2),
        "total": round(time.monotonic() - started, 2),
    }
    size = (float(high[0] - low[0]), float(high[1] - low[1]), float(high[2] - low[2]))
    return DemoReport(len(points), size, report, metrics, seconds, 0)


def demo_building(seed: int = 7) -> Scene:
    """The furnished two-floor house."""
    return building(BuildingConfig(seed=seed, size_x=13.0, size_y=11.0, floors=2))


def demo_stations(scene: Scene, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Two stations in every room, and a ring of raised ones around the house that see the roof too."""
    inside = place_stations(scene, 2 * len(scene.rooms), rng, outside_fraction=0.0)
    low, high = scene.bounds
    angles = np.arange(8) * (2 * np.pi / 8)
    radius = 0.5 * np.linalg.norm(high[:2] - low[:2]) + 4.0
    middle = 0.5 * (low + high)
    heights = np.where(np.arange(8) % 2 == 0, low[2] + 1.7, high[2] + 5.0)
    ring = np.stack(
        [middle[0] + radius * np.cos(angles), middle[1] + radius * np.sin(angles), heights], axis=1
    )
    return inside, ring


def _scan(scene: Scene, vertices: Floats, faces: NDArray[np.int64], seed: int) -> Floats:
    rng = np.random.default_rng([seed, 11])
    inside, ring = demo_stations(scene, rng)
    config = ScannerConfig(rays_per_station=60_000)
    outer = ScannerConfig(rays_per_station=400_000)
    parts = [
        scan(vertices, faces, inside, config, rng).points,
        scan(vertices, faces, ring, outer, rng).points,
    ]
    return np.concatenate(parts)
