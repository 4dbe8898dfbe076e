"""What `tessera info` says of a dataset, a run directory, a weights file, a mesh-less scan, or this machine."""

from __future__ import annotations

import platform
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.local_paths import local_path
from pipeline.errors import PipelineError, RunDirectoryError
from pipeline.version import software_version
from preprocessing.scan_files import ScanOptions


def describe_installation() -> list[str]:
    """Versions and what the machine offers."""
    import psutil
    import ray
    import torch

    from convonet.precision import choose_device, cpu_has_bf16_units
    from preprocessing.native import load_open3d

    precision = "bfloat16" if cpu_has_bf16_units() else "float32"
    memory = psutil.virtual_memory().total / 2**30
    return [
        f"tessera {software_version()} on Python {platform.python_version()}",
        f"ray {ray.__version__}, torch {torch.__version__}, open3d {load_open3d().__version__}",
        f"{psutil.cpu_count()} processors, {memory:.1f} GiB memory; networks run in {precision} on the CPU",
        f"device auto: {choose_device('auto').type}",
    ]


def describe(path: Path, options: ScanOptions) -> list[str]:
    """Lines about a path.

    Args:
        path: what to describe.
        options: how to read it, if it is a scan.

    Raises:
        PipelineError: if it is none of the things that Tessera knows.
        DatasetError, ScanError, WeightsError: if it is one, but damaged.
    """
    path = local_path(path)
    if is_run(path):
        return _run(path)
    if (path / "zarr.json").is_file():
        return _dataset(path)
    if path.suffix == ".safetensors":
        from convonet.weights import read_header

        return [f"{path}: weights"] + [
            f"  {name}: {value}" for name, value in sorted(read_header(str(path)).items())
        ]
    if not path.exists():
        raise PipelineError(f"{path}: no such file or folder")
    if path.is_file():
        from preprocessing.meshes.files import holds_faces

        if holds_faces(path) and not options.use_vertices:
            return _mesh(path)
        return _scan(path, options)
    raise PipelineError(f"{path}: neither a dataset, a run directory, a weights file nor a scan")


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory, be it without its manifest."""
    return (path / "manifest.json").is_file() or (path / "points" / "index.parquet").is_file()


def _run(path: Path) -> list[str]:
    from pipeline.reconstruction.manifest import read_manifest
    from pipeline.reconstruction.merge import finished_tiles
    from pipeline.reconstruction.report import read_report
    from pipeline.reconstruction.store import RunStore

    store = RunStore(str(path))
    manifest = read_manifest(store)
    plan = manifest.plans[0]
    total = "" if manifest.surface_tiles is None else f" of {len(manifest.surface_tiles)}"
    lines = [
        f"{path}: reconstruction of {manifest.scan} ({manifest.points:,} points)",
        f"  voxel size {plan.voxel_size:.4g} m, grid of {' x '.join(map(str, plan.grid))} tiles "
        f"of {' x '.join(map(str, plan.tile_voxels))} voxels",
        f"  finished surfaces: {len(finished_tiles(store))}{total}",
    ]
    with suppress(FileNotFoundError):
        report = read_report(store)
        lines.append(
            f"  mesh {report['mesh']}: {report['vertices']:,} vertices, {report['faces']:,} faces, "
            f"watertight: {'yes' if report['is_watertight'] else 'NO'}"
        )
    return lines


def check(path: Path) -> str:
    """Verify all files of a run or a dataset against their checksums; returns what was found to be right.

    Raises:
        PipelineError: if files of a run are missing or damaged, or if it is neither; names them and the cure.
        DatasetError: likewise of a dataset.
    """
    path = local_path(path)
    if is_run(path):
        return _check_run(path)
    if (path / "zarr.json").is_file():
        return _check_dataset(path)
    raise PipelineError(f"{path}: only datasets and run directories can be checked")


def _check_run(path: Path) -> str:
    from pipeline.reconstruction.check import check_outputs, check_run
    from pipeline.reconstruction.manifest import read_manifest
    from pipeline.reconstruction.store import RunStore

    manifest = read_manifest(RunStore(str(path)))
    store = RunStore(str(path), manifest.identity)
    found = check_run(store, manifest) + check_outputs(store)
    if found:
        more = f" and {len(found) - 10} more" if len(found) > 10 else ""
        told = "; ".join(f"{error.name} {error.reason}" for error in found[:10])
        raise RunDirectoryError(f"{path}: {told}{more}; run the same command again to compute them again")
    return "all files agree with their checksums"


def _dataset(path: Path) -> list[str]:
    import zarr

    from preprocessing.dataset import SPLITS, finished_shards, read_layout, read_record, rows

    layout, provenance = read_layout(path)
    group = zarr.open_group(str(path), mode="r")
    valid = rows(group, "valid")
    splits: Counter[int] = Counter(rows(group, "split")[valid].tolist())
    categories: Counter[int] = Counter(rows(group, "category")[valid].tolist())
    shards = finished_shards(path, layout)
    rejected = [entry for shard in shards for entry in read_record(path, shard).rejected]
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return [
        f"{path}: dataset of source {provenance['source']}, made by tessera {provenance['software']}",
        f"  a shape: {layout.points:,} points, {layout.uniform_queries:,} uniform, {layout.near_queries:,} near queries"
        + (f", at {layout.frames} times" if layout.frames else "")
        + (f"; {layout.voxel_side}^3 voxels" if layout.voxel_side else "")
        + (f"; {layout.views} views of {layout.view_size} pixels" if layout.views else "")
        + (" at each time" if layout.views and layout.frames else ""),
        f"  {int(valid.sum()):,} of {layout.shapes:,} shapes; {len(shards)} of {layout.shards} shards; "
        f"{size / 2**20:,.0f} MiB",
        "  splits: " + ", ".join(f"{SPLITS[number]} {count:,}" for number, count in sorted(splits.items())),
        "  categories: "
        + ", ".join(f"{layout.categories[n]} {count:,}" for n, count in sorted(categories.items())),
        f"  rejected: {len(rejected)}",
        *(f"    {entry.name}: {entry.reason}" for entry in rejected),
    ]


def _check_dataset(path: Path) -> str:
    from preprocessing.dataset import CURE, damaged_shards, finished_shards, read_layout
    from preprocessing.errors import DatasetError

    layout, _ = read_layout(path)
    finished = finished_shards(path, layout)
    if len(finished) < layout.shards:
        raise DatasetError(
            f"{path}: {layout.shards - len(finished)} of {layout.shards} shards are missing; "
            "run the command that made it again"
        )
    if damaged := damaged_shards(path, layout):
        told = "; ".join(f"shard {shard}: {reason}" for shard, reason in list(damaged.items())[:10])
        raise DatasetError(f"{path}: {len(damaged)} shards are not as they were written ({told}); {CURE}")
    return f"{len(finished)} shards agree with their checksums"


def _scan(path: Path, options: ScanOptions) -> list[str]:
    from pipeline.reconstruction.scan_summary import (
        check_voxel_size,
        scan_granularity,
        summarize_scan,
    )
    from pipeline.scan_reading import ScanSet
    from preprocessing.errors import ScanError

    scan = ScanSet((path,), options)
    summary = summarize_scan(scan, drop_invalid=True)
    (facts,) = summary.facts
    size = " x ".join(f"{side:.2f}" for side in summary.high - summary.low)
    lines = [
        f"{path}: scan of {summary.points:,} points ({summary.dropped:,} not finite), {size} m, {facts.format}",
        "  columns: "
        + (", ".join(f"{role} = {name}" for role, name in facts.columns.items()) or "by the format"),
        f"  box: {_corner(summary.low)} to {_corner(summary.high)}",
        f"  colors: {_yes(facts.has_colors)}, normals: {_yes(facts.has_normals)}, "
        f"stations: {len(summary.stations) or 'unknown'}",
        *(f"    station at {_corner(np.array(place))}" for place in summary.stations[:10]),
    ]
    if summary.classes:
        lines.append("  classes: " + ", ".join(f"{n}: {count:,}" for n, count in summary.classes.items()))
    if facts.crs:
        lines.append(f"  coordinate reference system: {facts.crs.splitlines()[0][:160]}")
    notes = list(summary.notes)
    try:
        granularity = scan_granularity(scan, summary)
        voxel_size = granularity.voxel_size
        lines.append(f"  default voxel size {voxel_size:.4g} m: {granularity}")
        lines.append(f"  unit, {_likely_unit(voxel_size, options.unit, facts.crs_unit)}")
        notes += check_voxel_size(scan, summary, voxel_size)
    except ScanError as error:  # what it would be refused for, beside all that is known of it
        notes.append(str(error))
    return lines + [f"  note: {note}" for note in notes]


def _likely_unit(voxel_size: float, given: str, of_crs: str | None) -> str:
    """The unit of a scan's coordinates, and what tells it."""
    from pipeline.reconstruction.scan_summary import guess_unit

    if of_crs is not None:
        return f"by the reference system: {of_crs}"
    guess = guess_unit(voxel_size)
    likely = (
        "unclear" if guess is None else f"{given} seems right" if guess == "m" else f"{guess} more likely"
    )
    return f"by the spacing of the points: {likely}"


def _mesh(path: Path) -> list[str]:
    from pipeline.mesh_reading import read_mesh_safely
    from preprocessing.metrics import closed_by_merging
    from preprocessing.occupancy_labels import unpaired_edges

    mesh = read_mesh_safely(path)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    _, faces = closed_by_merging(mesh.vertices, mesh.faces)  # as `tessera evaluate` does
    size = " x ".join(f"{side:.4g}" for side in high - low)
    return [
        f"{path}: mesh of {len(mesh.vertices):,} vertices and {len(mesh.faces):,} faces, {size}",
        f"  box: {_corner(low)} to {_corner(high)}",
        f"  encloses volume: {_yes(not unpaired_edges(faces))}, colors: {_yes(mesh.colors is not None)}",
    ]


def _corner(place: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{value:,.3f}".replace(",", "") for value in place) + ")"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
