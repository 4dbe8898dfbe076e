"""A whole reconstruction: plan, points, fields, surfaces, mesh; resumable at every tile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
from tqdm import tqdm

from convonet.crop_network import CropNetwork
from convonet.precision import choose_device
from convonet.weights import load_network, model_file
from pipeline.cluster import TASKS_IN_FLIGHT_PER_CPU, available_cpus, ray_session, run_windowed
from pipeline.errors import ClusterError, RunDirectoryError
from pipeline.memory import MemoryWatch
from pipeline.reconstruction.config import ReconstructConfig, request_hash
from pipeline.reconstruction.field_store import field_file
from pipeline.reconstruction.ingest import (
    INDEX,
    ScanSummary,
    bucket_points,
    default_voxel_size,
    occupied_tiles,
    summarise_scan,
)
from pipeline.reconstruction.merge import MeshSummary, finished_tiles, merge_tiles
from pipeline.reconstruction.plan import ScenePlan, make_plan
from pipeline.reconstruction.stages import TileJob, TileRecord, sample_tile, surface_tile
from pipeline.reconstruction.store import RunStore
from pipeline.version import software_version
from preprocessing.errors import ScanError
from preprocessing.mesh_files import MESH_SUFFIXES

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ReconstructReport:
    """What a reconstruction ended with; also `RUN/report.json`.

    Attributes:
        mesh: the file written.
        vertices, faces, is_watertight, open_edges, bad_edges: of that mesh.
        voxel_size, spacing: metres.
        tiles: tiles in the plan that could hold surface.
        tiles_computed, tiles_kept: of their surfaces, in this run and from earlier ones.
        fields_computed, fields_kept: likewise of the crops' fields.
        seconds: wall time of each stage of this run.
        peak_memory_bytes: driver, workers and Ray together, sampled ten times a second.
    """

    mesh: str
    vertices: int
    faces: int
    is_watertight: bool
    open_edges: int
    bad_edges: int
    voxel_size: float
    spacing: float
    points: int
    tiles: int
    tiles_computed: int
    tiles_kept: int
    fields_computed: int
    fields_kept: int
    seconds: dict[str, float]
    peak_memory_bytes: int


def reconstruct(
    scan: Path,
    out: Path | str,
    config: ReconstructConfig | None = None,
    mesh: Path | None = None,
    device: str = "auto",
    address: str = "auto",
    show_progress: bool = True,
) -> ReconstructReport:
    """Turn a scan into one watertight mesh. Run it again to finish an interrupted run.

    Args:
        scan: point cloud in metres (PLY, PCD, XYZ/TXT, NPZ, LAS, LAZ).
        out: the run directory, a local path or a filesystem URL.
        config: settings that decide the mesh.
        mesh: the final mesh file; `out`/mesh.ply by default.
        device: auto, cpu or cuda.
        address: of Ray; see `ray_session`.
        show_progress: draw progress bars on stderr.

    Raises:
        ScanError: if the scan cannot be read or reconstructed.
        WeightsError: if the model cannot be loaded.
        RunDirectoryError: if `out` holds something else.
        MeshError: if the mesh cannot be written.
        ClusterError: if Ray cannot be reached, or workers kept dying.
    """
    config = config or ReconstructConfig()
    scan = Path(scan)
    store = RunStore(str(out))
    path = _mesh_path(store, mesh)
    choose_device(device)
    seconds: dict[str, float] = {}
    with MemoryWatch() as memory:
        with _timed(seconds, "plan"):
            manifest = _open_run(store, scan, config)
        plan = ScenePlan(**{name: _tupled(value) for name, value in manifest["plan"].items()})
        with _timed(seconds, "points"):
            if not store.exists(INDEX):
                bucket_points(scan, plan, store)
        job = TileJob(
            store=store,
            plan=plan,
            model=str(model_file(config.model).absolute()),
            threshold=manifest["threshold"],
            device=device,
            has_colors=manifest["has_colors"],
        )
        stages = _Stages(job, manifest, seconds, show_progress)
        if not stages.is_complete():
            with ray_session(address):
                stages.run()
        with _timed(seconds, "merge"):
            merged = merge_tiles(store, plan, path, job.has_colors)
    report = _report(stages, merged, path, memory.peak_bytes)
    store.write_json("report.json", asdict(report))
    return report


def _mesh_path(store: RunStore, mesh: Path | None) -> Path:
    if mesh is None:
        if not store.is_local:
            raise RunDirectoryError(
                f"{store.url}: is not on this machine; pass --mesh FILE for the final mesh"
            )
        return store.local_path / "mesh.ply"
    if mesh.suffix.lower() not in MESH_SUFFIXES:
        raise RunDirectoryError(f"{mesh}: mesh formats are {', '.join(MESH_SUFFIXES)}")
    return mesh


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _open_run(store: RunStore, scan: Path, config: ReconstructConfig) -> dict[str, Any]:
    """The manifest of a run, new or continued. Nothing is written before the scan has proved usable."""
    if not scan.is_file():
        raise ScanError(f"{scan}: no such file")
    identity = request_hash(config, scan, model_file(config.model))
    if store.exists(MANIFEST):
        manifest: dict[str, Any] = store.read_json(MANIFEST)
        if manifest["hash"] != identity:
            raise RunDirectoryError(
                f"{store.url}: holds the run of another scan, model or setting ({manifest['scan']}, "
                f"{json.dumps(manifest['config'])}); choose another --out or delete it"
            )
        return manifest
    if not store.is_empty():
        raise RunDirectoryError(f"{store.url}: is not empty and not a run of tessera; choose another --out")
    network = load_network(config.model)
    summary = summarise_scan(scan, config.drop_invalid)
    voxel_size = config.voxel_size or _network_voxel(network, summary, config)
    voxel_size = voxel_size or default_voxel_size(scan, summary)
    plan = make_plan(summary.low, summary.high, voxel_size, config, network, scan.name)
    manifest = {
        "hash": identity,
        "software": software_version(),
        "scan": scan.name,
        "points": summary.points,
        "dropped_points": summary.dropped,
        "has_colors": summary.has_colors,
        "config": asdict(config),
        "threshold": network.threshold if config.threshold is None else config.threshold,
        "plan": asdict(plan),
        "surface_tiles": None,
        "runs": [],
    }
    store.write_json(MANIFEST, manifest)
    return manifest


def _network_voxel(network: CropNetwork, summary: ScanSummary, config: ReconstructConfig) -> float | None:
    """The voxel size of a network that was trained in unit cubes; None for networks of any scale."""
    if network.voxel_side is None:
        if config.scene_size is not None:
            raise ValueError(
                "this network was not trained in a unit cube, so that a scene size says nothing; pass --voxel-size"
            )
        return None
    return network.voxel_side * (config.scene_size or float((summary.high - summary.low).max()))


@dataclass
class TileCounts:
    """How many crops' fields and tiles' surfaces a run computed, and how many it found finished."""

    fields_computed: int = 0
    fields_kept: int = 0
    tiles_computed: int = 0
    tiles_kept: int = 0


class _timed:  # noqa: N801 (reads as a statement)
    """Adds the wall time of a block to `seconds[stage]`."""

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._started = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] = round(time.monotonic() - self._started, 3)


class _Stages:
    """Fields, then surfaces: each over the tiles that still miss their file."""

    def __init__(
        self, job: TileJob, manifest: dict[str, Any], seconds: dict[str, float], show_progress: bool
    ) -> None:
        self.job, self.manifest, self.seconds, self.show_progress = job, manifest, seconds, show_progress
        self.counts = TileCounts()

    def is_complete(self) -> bool:
        """Whether every surface of the run is there."""
        wanted = self.manifest["surface_tiles"]
        if wanted is None:
            return False
        self.counts.tiles_kept = len(wanted)
        return set(wanted) <= set(finished_tiles(self.job.store))

    def run(self) -> None:
        """Compute what is missing and note it in the manifest."""
        job, plan = self.job, self.job.plan
        candidates = sorted(
            {tile for occupied in occupied_tiles(job.store) for tile in plan.under_crop(int(occupied))}
        )
        done = set(finished_tiles(job.store))
        unfinished = [tile for tile in candidates if tile not in done]
        needed = sorted({near for tile in unfinished for near in plan.around(tile)} & set(candidates))
        with _timed(self.seconds, "fields"):
            computed, kept = self._each(sample_tile, needed, "fields")
            self.counts.fields_computed, self.counts.fields_kept = computed, kept
        encoded = [tile for tile in needed if not job.store.read_facts(field_file(tile))["is_empty"]]
        wanted = sorted({near for tile in encoded for near in plan.around(tile)} | done)
        with _timed(self.seconds, "surfaces"):
            self.counts.tiles_computed, self.counts.tiles_kept = self._each(surface_tile, wanted, "surfaces")
        self.manifest["surface_tiles"] = wanted
        self.manifest["runs"].append(asdict(self.counts))
        job.store.write_json(MANIFEST, self.manifest)
        job.store.delete_folder("fields")

    def _each(
        self, work: Callable[[TileJob, int], TileRecord], tiles: list[int], title: str
    ) -> tuple[int, int]:
        """Run one task for each tile; returns how many computed theirs and how many found it finished."""
        task = ray.remote(num_cpus=1, num_gpus=_gpu_share(self.job.device), max_retries=5)(work)
        job = ray.put(self.job)
        window = TASKS_IN_FLIGHT_PER_CPU * available_cpus()
        kept = 0
        with tqdm(total=len(tiles), unit="tile", desc=title, disable=not self.show_progress) as bar:
            try:
                for _, record in run_windowed(lambda tile: task.remote(job, tile), tiles, window):
                    kept += record.was_finished
                    bar.update()
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"workers kept dying while computing {title} ({type(error).__name__}); finished tiles are kept: "
                    "free some memory or lower the number of processors, then run the same command again"
                ) from error
        return len(tiles) - kept, kept


def _gpu_share(device: str) -> float:
    return 0.5 if choose_device(device).type == "cuda" else 0.0


def _report(stages: _Stages, merged: MeshSummary, path: Path, peak_bytes: int) -> ReconstructReport:
    plan, counts = stages.job.plan, stages.counts
    return ReconstructReport(
        mesh=str(path),
        vertices=merged.vertices,
        faces=merged.faces,
        is_watertight=merged.is_watertight,
        open_edges=merged.open_edges,
        bad_edges=merged.bad_edges,
        voxel_size=plan.voxel_size,
        spacing=plan.spacing,
        points=stages.manifest["points"],
        tiles=counts.tiles_computed + counts.tiles_kept,
        tiles_computed=counts.tiles_computed,
        tiles_kept=counts.tiles_kept,
        fields_computed=counts.fields_computed,
        fields_kept=counts.fields_kept,
        seconds=stages.seconds,
        peak_memory_bytes=peak_bytes,
    )
