"""A whole reconstruction: plan, points, fields, surfaces, mesh; resumable at every tile."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from convonet.precision import check_device
from convonet.weights import load_network, model_file
from foundation.local_paths import local_path, url_in
from pipeline.errors import NoSurfaceError, RunDirectoryError, RunFileError
from pipeline.lease import lease
from pipeline.litter import INTERMEDIATE, litter_of_run, remove
from pipeline.memory import MemoryWatch
from pipeline.overwriting import refuse_overwriting
from pipeline.ray_address import would_start_ray
from pipeline.reconstruction.check import file_checksum, remove_damaged, verify_points
from pipeline.reconstruction.config import ReconstructConfig, request_hash
from pipeline.reconstruction.coverage import FEWEST_COVERED, FEWEST_FOR_SUCCESS, measure_coverage
from pipeline.reconstruction.here import tasks_here
from pipeline.reconstruction.ingest import BucketContents, bucket_points, index_file
from pipeline.reconstruction.manifest import (
    MANIFEST,
    RunManifest,
    TileCounts,
    read_manifest,
    write_manifest,
)
from pipeline.reconstruction.merge import (
    FEWEST_VOXELS,
    Surface,
    SurfaceChoice,
    TileReader,
    merge_tiles,
)
from pipeline.reconstruction.plan import ScenePlan, make_plan, make_pyramid
from pipeline.reconstruction.report import MeshSummary, ReconstructReport, write_report
from pipeline.reconstruction.scan_fit import radius_for_noise
from pipeline.reconstruction.scan_summary import check_voxel_size, scan_granularity, summarize_scan
from pipeline.reconstruction.schedule import Schedule, is_complete, timed
from pipeline.reconstruction.stages import TileJob
from pipeline.reconstruction.store import RunStore
from pipeline.scan_reading import ScanSet, scan_set
from pipeline.version import UNKNOWN, software_version
from preprocessing.errors import ScanError
from preprocessing.formats import MESH_SUFFIXES
from preprocessing.scan_files import scan_kind

MOST_REPAIRS = 3  # of one command: a disk that damages more cannot be used


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
        RunDirectoryError: if `out` holds something else, or another command works on it.
        MeshError: if the mesh cannot be written.
        ClusterError: if Ray cannot be reached, or workers kept dying.
        OverwritingError: if the mesh or the run directory is one of the inputs.
        FieldError: if the network's values are not finite.
        NoSurfaceError: if the mesh passes by less than half of the scan; the mesh and the report are there.
    """
    config = config or ReconstructConfig()
    files = scan_set(scan, config.reading)
    store = RunStore(url_in(out) or str(out))
    local = store.local_folder
    path = _mesh_path(store, mesh)
    if local is not None and local.exists() and not local.is_dir():
        raise RunDirectoryError(f"{out}: is a file, and a run needs a folder; choose another --out")
    refuse_overwriting([path, local], [*files.files, model_file(config.model)])
    check_device(device)
    choice = SurfaceChoice(surface, config.trim, 0 if keep_parts else FEWEST_VOXELS)
    seconds: dict[str, float] = {}
    repairs: list[str] = []
    with MemoryWatch() as memory, _held(store):
        if local is not None:
            remove(litter_of_run(local, [path]))
        with timed(seconds, "plan"):
            manifest = _open_run(store, files, config)
        store = replace(store, identity=manifest.identity)
        while True:
            try:
                manifest, counts = _compute(store, files, manifest, device, address, seconds, show_progress)
                for folder in INTERMEDIATE:
                    store.delete_folder(folder)
                with timed(seconds, "merge"):
                    tiles = manifest.surface_tiles or ()
                    reader = TileReader(store, manifest.plans[0], tiles, choice)
                    merged = merge_tiles(reader, path, manifest.contents.has_colors, manifest.crs)
                    coverage = measure_coverage(reader)
                break
            except RunFileError as damage:  # found by whoever read it
                if len(repairs) == MOST_REPAIRS:
                    raise
                count = remove_damaged(store, manifest, damage)
                others = f" (and {count - 1} more files)" if count > 1 else ""
                repairs.append(f"{damage.name} {damage.reason}{others}: computed again")
        report = _report(manifest, counts, merged, path, seconds, memory.peak_bytes, coverage, repairs)
        write_report(store, report)
    if coverage < FEWEST_FOR_SUCCESS:
        raise NoSurfaceError(f"{path}: {_of_coverage(coverage)}")
    return report


def _mesh_path(store: RunStore, mesh: Path | None) -> Path:
    if mesh is None:
        if store.local_folder is None:
            raise RunDirectoryError(
                f"{store.url}: is not on this machine; pass --mesh FILE for the final mesh"
            )
        return store.local_folder / "mesh.ply"
    mesh = local_path(mesh)
    if mesh.suffix.lower() not in MESH_SUFFIXES:
        raise RunDirectoryError(f"{mesh}: mesh formats are {', '.join(MESH_SUFFIXES)}")
    return mesh


@contextmanager
def _held(store: RunStore) -> Iterator[None]:
    """Hold the directory, which is made if need be and removed again if nothing came into it."""
    folder = store.local_folder
    if folder is None:
        with lease(store.storage):
            yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lease(folder):
            yield
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()


def _compute(
    store: RunStore,
    files: ScanSet,
    manifest: RunManifest,
    device: str,
    address: str,
    seconds: dict[str, float],
    show_progress: bool,
) -> tuple[RunManifest, TileCounts]:
    """Compute what is missing of a run's points and surfaces."""
    with timed(seconds, "points"):
        if not store.exists(index_file()):
            bucket_points(files, manifest.plans, store, manifest.contents)
    config = manifest.config
    job = TileJob(
        store=store,
        plans=manifest.plans,
        model=str(model_file(config.model).absolute()),
        threshold=manifest.threshold,
        device=device,
        has_colors=manifest.contents.has_colors,
        fit_radius=_fit_radius(manifest),
        trim_voxels=config.trim,
    )
    if is_complete(manifest, job):
        verify_points(store, manifest)
        return manifest, TileCounts(tiles_kept=len(manifest.surface_tiles or ()))
    versions = {manifest.software, software_version()}
    if len(versions - {UNKNOWN}) > 1:
        raise RunDirectoryError(
            f"{store.url}: was begun by tessera {manifest.software}, and this is {software_version()}, whose tiles may "
            "not meet those; finish it with that version, or choose another --out"
        )
    # One tile gains nothing from Ray, whose start takes longer.
    if all(plan.tile_count == 1 for plan in manifest.plans) and would_start_ray(address):
        with tasks_here(job.model, device) as run_tasks:
            manifest = Schedule(job, manifest, seconds, run_tasks).run()
    else:
        from pipeline.cluster import ray_session  # half a second, which a small scene does without
        from pipeline.reconstruction.on_ray import TasksOnRay

        with ray_session(address):
            manifest = Schedule(job, manifest, seconds, TasksOnRay(show_progress)).run()
    return manifest, manifest.runs[-1]


def _fit_radius(manifest: RunManifest) -> float:
    """Voxels; the user's, or what suits the noise."""
    radius = manifest.config.fit_radius
    if radius is None:
        radius = radius_for_noise(manifest.granularity.noise / manifest.plans[0].voxel_size)
    return radius


def _open_run(store: RunStore, scan: ScanSet, config: ReconstructConfig) -> RunManifest:
    """The manifest of a run, new or continued. Nothing is written before the scan has proved usable."""
    for file in scan.files:
        scan_kind(file)
    identity = request_hash(config, scan.files, model_file(config.model))
    try:
        manifest = read_manifest(store)
    except RunFileError as error:
        if store.entries() and not _holds_run(replace(store, identity=identity)):
            found = (
                "is not a run of tessera"
                if error.reason == "is missing"
                else f"its {MANIFEST} {error.reason}"
            )
            raise RunDirectoryError(
                f"{store.url}: is not empty, {found}, and holds no points of this scan, model and settings; choose "
                "another --out or delete it"
            ) from None
        manifest = _new_run(scan, config, identity)
        write_manifest(store, manifest)
        return manifest
    if manifest.identity != identity:
        raise RunDirectoryError(
            f"{store.url}: holds the run of another scan, model or setting ({manifest.scan}, "
            f"{json.dumps(asdict(manifest.config))}); choose another --out or delete it"
        )
    return manifest


def _holds_run(store: RunStore) -> bool:
    """Whether a directory without a usable manifest has the points of the run of the store's identity."""
    try:
        store.read_facts(index_file())
    except RunFileError:
        return False
    return True


def _new_run(scan: ScanSet, config: ReconstructConfig, identity: str) -> RunManifest:
    """Look at the scan and plan the scene."""
    network = load_network(config.model)
    summary = summarize_scan(scan, config.drop_invalid)
    settings = config.for_network(network, float((summary.high - summary.low).max()))
    assert settings.threshold is not None  # the network's, if not the user's
    granularity = scan_granularity(scan, summary)
    voxel_size = settings.voxel_size or granularity.voxel_size
    if not voxel_size:
        raise ScanError(
            f"{scan.name}: the points repeat too few positions to measure a spacing; pass --voxel-size"
        )
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
    return RunManifest(
        identity=identity,
        software=software_version(),
        scan=scan.name,
        points=summary.points,
        dropped_points=summary.dropped,
        contents=BucketContents(summary.has_colors, summary.sides, summary.drop_origin),
        stations=summary.stations,
        crs=summary.crs,
        notes=tuple(notes),
        config=config,
        threshold=settings.threshold,
        plans=plans,
        granularity=granularity,
    )


def _one_level(*arguments: Any) -> tuple[ScenePlan, ...]:
    return (make_plan(*arguments),)


def _of_coverage(coverage: float) -> str:
    return (
        f"NO GOOD SURFACE: the mesh passes by only {coverage:.0%} of the scan's points; check the scan (tessera info "
        "shows its columns, box and unit) or try another --voxel-size"
    )


def _report(
    manifest: RunManifest,
    counts: TileCounts,
    merged: MeshSummary,
    path: Path,
    seconds: dict[str, float],
    peak_bytes: int,
    coverage: float,
    repairs: Sequence[str],
) -> ReconstructReport:
    plan, granularity = manifest.plans[0], manifest.granularity
    warnings = [*repairs]
    if not granularity.supports(plan.voxel_size):
        warnings.append(
            f"a voxel of {plan.voxel_size:.4g} m is finer than the scan supports ({granularity}): surfaces will be "
            f"rough or broken; {granularity.voxel_size:.2g} m suits it"
        )
    if coverage < FEWEST_COVERED:
        warnings.append(_of_coverage(coverage))
    return ReconstructReport(
        mesh=str(path),
        mesh_checksum=file_checksum(path),
        **asdict(merged),
        voxel_size=plan.voxel_size,
        spacing=plan.spacing,
        point_spacing=granularity.spacing,
        noise=granularity.noise,
        points=manifest.points,
        tiles=counts.tiles_computed + counts.tiles_kept,
        **asdict(counts),
        seconds=seconds,
        peak_memory_bytes=peak_bytes,
        coverage=round(coverage, 4),
        crs=manifest.crs,
        notes=(*manifest.notes, *warnings),
    )
