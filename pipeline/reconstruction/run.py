"""A whole reconstruction: plan, points, fields, surfaces, mesh; resumable at every tile."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray

from convonet.weights import load_network, model_file
from pipeline.cluster import device_lanes, ray_session, run_in_lanes, would_start_ray
from pipeline.devices import check_device
from pipeline.errors import ClusterError, NoSurfaceError, RunDirectoryError
from pipeline.memory import MemoryWatch
from pipeline.overwriting import refuse_overwriting
from pipeline.progress import Progress
from pipeline.reconstruction.coarse_field import is_believable, read_level_facts
from pipeline.reconstruction.config import ReconstructConfig, request_hash
from pipeline.reconstruction.coverage import FEWEST_COVERED, FEWEST_FOR_SUCCESS, measure_coverage
from pipeline.reconstruction.field_store import field_file
from pipeline.reconstruction.here import network_here
from pipeline.reconstruction.ingest import BucketContents, bucket_points, index_file, occupied_tiles
from pipeline.reconstruction.merge import (
    MeshSummary,
    Surface,
    SurfaceChoice,
    finished_tiles,
    merge_tiles,
)
from pipeline.reconstruction.plan import ScenePlan, make_plan, make_pyramid
from pipeline.reconstruction.scan_summary import check_voxel_size, default_voxel_size, summarise_scan
from pipeline.reconstruction.stages import TileJob, TileRecord, level_tile, sample_tile, surface_tile
from pipeline.reconstruction.store import RunStore
from pipeline.scan_reading import ScanSet, scan_set
from pipeline.version import software_version
from preprocessing.errors import ScanError
from preprocessing.mesh_files import MESH_SUFFIXES
from preprocessing.scan_files import scan_kind

MANIFEST = "manifest.json"
GPUS_PER_TILE = 0.5
TASK_RETRIES = 5


@dataclass(frozen=True)
class ReconstructReport:
    """What a reconstruction ended with; also `RUN/report.json`.

    Attributes:
        mesh: the file written.
        vertices, faces, is_watertight, open_edges, bad_edges: of that mesh.
        parts, removed_parts: connected parts of the mesh, and floating parts left out as too small.
        observed_area, guessed_area: square metres of the surface with and without scan points nearby.
        voxel_size, spacing: metres.
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


def reconstruct(
    scan: Path | str | Sequence[Path | str],
    out: Path | str,
    config: ReconstructConfig | None = None,
    mesh: Path | None = None,
    device: str = "auto",
    address: str = "auto",
    show_progress: bool = True,
    surface: Surface = "closed",
    keep_parts: bool = False,
) -> ReconstructReport:
    """Turn a scan into one watertight mesh. Run it again to finish an interrupted run.

    Args:
        scan: point cloud, or several files (or patterns such as `site/*.laz`) that are one scan.
        out: the run directory, a local path or a filesystem URL.
        config: settings that decide the mesh.
        mesh: the final mesh file; `out`/mesh.ply by default.
        device: auto, cpu or cuda.
        address: of Ray; see `ray_session`.
        show_progress: draw progress bars on stderr.
        surface: closed, the watertight mesh; observed, without what no scan point supports. Either can be had from the
            same run directory, without computing anything again.
        keep_parts: keep floating parts however small.

    Raises:
        ScanError: if the scan cannot be read or reconstructed.
        WeightsError: if the model cannot be loaded.
        RunDirectoryError: if `out` holds something else.
        MeshError: if the mesh cannot be written.
        ClusterError: if Ray cannot be reached, or workers kept dying.
        OverwritingError: if the mesh or the run directory is one of the inputs.
        NoSurfaceError: if the mesh passes by less than half of the scan; the mesh and the report are there.
    """
    config = config or ReconstructConfig()
    files = scan_set(scan, config.reading)
    store = RunStore(str(out))
    path = _mesh_path(store, mesh)
    if store.is_local and store.local_path.exists() and not store.local_path.is_dir():
        raise RunDirectoryError(f"{out}: is a file, and a run needs a folder; choose another --out")
    outputs = [path] + ([store.local_path] if store.is_local else [])
    refuse_overwriting(outputs, [*files.files, model_file(config.model)])
    check_device(device)
    seconds: dict[str, float] = {}
    with MemoryWatch() as memory:
        with _timed(seconds, "plan"):
            manifest = _open_run(store, files, config)
        plans = tuple(
            ScenePlan(**{name: _tupled(value) for name, value in plan.items()}) for plan in manifest["plans"]
        )
        plan = plans[0]
        with _timed(seconds, "points"):
            if not store.exists(index_file()):
                bucket_points(files, plans, store, BucketContents(**manifest["contents"]))
        job = TileJob(
            store=store,
            plans=plans,
            model=str(model_file(config.model).absolute()),
            threshold=manifest["threshold"],
            device=device,
            has_colors=manifest["contents"]["has_colors"],
            fit_radius=config.fit_radius,
            trim_voxels=config.trim,
        )
        stages = _Stages(job, manifest, seconds, show_progress)
        if not stages.is_complete():
            if all(plan.tile_count == 1 for plan in plans) and would_start_ray(address):
                stages.is_here = True  # one tile gains nothing from Ray, whose start takes longer
                with network_here(job.model, device):
                    stages.run()
            else:
                with ray_session(address):
                    stages.run()
        with _timed(seconds, "merge"):
            fewest = 0 if keep_parts else SurfaceChoice.fewest_voxels
            choice = SurfaceChoice(surface, config.trim, fewest)
            merged = merge_tiles(store, plan, path, job.has_colors, choice, manifest["crs"])
        coverage = measure_coverage(store, plan, finished_tiles(store))
    report = _report(stages, merged, path, memory.peak_bytes, coverage)
    store.write_json("report.json", asdict(report))
    if coverage < FEWEST_FOR_SUCCESS:
        raise NoSurfaceError(f"{path}: {_of_coverage(coverage)}")
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


def _open_run(store: RunStore, scan: ScanSet, config: ReconstructConfig) -> dict[str, Any]:
    """The manifest of a run, new or continued. Nothing is written before the scan has proved usable."""
    for file in scan.files:
        scan_kind(file)
    identity = request_hash(config, scan.files, model_file(config.model))
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
    settings = config.for_network(network, float((summary.high - summary.low).max()))
    voxel_size = settings.voxel_size or default_voxel_size(scan, summary)
    notes = [*summary.notes, *check_voxel_size(scan, summary, voxel_size)]
    has_levels = network.knows_levels and settings.blend_voxels > 0 and settings.tiling == "lattice"
    make = make_pyramid if has_levels else _one_level
    try:
        plans = make(
            summary.low,
            summary.high,
            voxel_size,
            settings,
            network.receptive_radius,
            network.pooling_factor,
            scan.name,
        )
    except ScanError as error:  # with what the scan's first pass noticed, such as a file of another place
        raise ScanError("; ".join([str(error), *notes])) from None
    manifest = {
        "hash": identity,
        "software": software_version(),
        "scan": scan.name,
        "points": summary.points,
        "dropped_points": summary.dropped,
        "contents": asdict(BucketContents(summary.has_colors, summary.sides, summary.drop_origin)),
        "stations": summary.stations,
        "crs": summary.crs,
        "notes": notes,
        "config": asdict(config),
        "threshold": settings.threshold,
        "plans": [asdict(plan) for plan in plans],
        "surface_tiles": None,
        "runs": [],
    }
    store.write_json(MANIFEST, manifest)
    return manifest


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
        self.is_here = False

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
        with _timed(self.seconds, "levels"):
            solid = self._levels()
        job = self.job
        candidates = _reached(plan, [*occupied_tiles(job.store).tolist(), *solid])
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
        for folder in ("fields", "levels"):
            job.store.delete_folder(folder)

    def _levels(self) -> list[int]:
        """Compute the coarser levels, coarsest first; returns the finest level's tiles that they find solid."""
        below: list[int] = []
        for level in range(len(self.job.plans) - 1, 0, -1):
            plan = self.job.plans[level]
            tiles = _reached(plan, [*occupied_tiles(self.job.store, level).tolist(), *below])
            self._each(level_tile, [(level, tile) for tile in tiles], f"level {level}")
            facts = [read_level_facts(self.job.store, level, tile) for tile in tiles]
            below = sorted({tile for fact in facts for tile in fact.below})
            # Sides are handed down from the coarsest level on, as far as every level agrees with the scan.
            are_coarser = len(self.job.believable_levels) == len(self.job.plans) - 1 - level
            if are_coarser and is_believable(facts):
                self.job = replace(self.job, believable_levels=self.job.believable_levels | {level})
        return below

    def _each(
        self, work: Callable[[TileJob, Any], TileRecord], tiles: Sequence[Any], title: str
    ) -> tuple[int, int]:
        """Run one task for each tile; returns how many computed theirs and how many found it finished."""
        device = self.job.device if work is not surface_tile else "cpu"  # surfaces need no network
        kept = 0
        if self.is_here:
            kept = sum(work(self.job, tile).was_finished for tile in tiles)
            return len(tiles) - kept, kept
        lanes = device_lanes(_on_device, device, GPUS_PER_TILE, TASK_RETRIES, work, ray.put(self.job))
        with Progress(title, len(tiles), "tile", is_shown=self.show_progress) as progress:
            try:
                for _, record in run_in_lanes(lanes, tiles):
                    kept += record.was_finished
                    progress.update()
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError as error:
                raise ClusterError(
                    f"workers kept dying while computing {title} ({type(error).__name__}); finished tiles are kept: "
                    "free some memory or lower the number of processors, then run the same command again"
                ) from error
        return len(tiles) - kept, kept


def _reached(plan: ScenePlan, tiles: Sequence[int]) -> list[int]:
    """All tiles whose crops cover any of these, ascending."""
    return sorted({near for tile in tiles for near in plan.under_crop(tile)})


def _one_level(*arguments: Any) -> tuple[ScenePlan, ...]:
    return (make_plan(*arguments),)


def _on_device(
    device: str, work: Callable[[TileJob, Any], TileRecord], job: TileJob, tile: Any
) -> TileRecord:
    return work(replace(job, device=device), tile)


def _of_coverage(coverage: float) -> str:
    return (
        f"NO GOOD SURFACE: the mesh passes by only {coverage:.0%} of the scan's points; check the scan (tessera info "
        "shows its columns, box and unit) or try another --voxel-size"
    )


def _report(
    stages: _Stages, merged: MeshSummary, path: Path, peak_bytes: int, coverage: float
) -> ReconstructReport:
    plan, counts, manifest = stages.job.plan, stages.counts, stages.manifest
    warning = [_of_coverage(coverage)] if coverage < FEWEST_COVERED else []
    return ReconstructReport(
        mesh=str(path),
        vertices=merged.vertices,
        faces=merged.faces,
        is_watertight=merged.is_watertight,
        open_edges=merged.open_edges,
        bad_edges=merged.bad_edges,
        parts=merged.parts,
        removed_parts=merged.removed_parts,
        observed_area=round(merged.observed_area, 4),
        guessed_area=round(merged.guessed_area, 4),
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
        coverage=round(coverage, 4),
        crs=manifest["crs"],
        notes=(*manifest["notes"], *warning),
    )
