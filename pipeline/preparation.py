"""The preprocessing stage: one Ray task for each shard of a dataset, and in it a process for the shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import ray

from foundation.local_paths import local_path
from pipeline.cluster import TASKS_IN_FLIGHT, Lane, ray_session, run_in_lanes
from pipeline.devices import available_cpus
from pipeline.isolation import CallCrashedError, CallFailedError, CallLimits, IsolatedProcess
from pipeline.progress import Progress
from pipeline.version import software_version
from pipeline.write_errors import reason_and_cure
from preprocessing.dataset import (
    DatasetLayout,
    RejectedShape,
    ShapeRow,
    ShardRecord,
    create_dataset,
    damaged_shards,
    finish_dataset,
    read_layout,
    read_record,
    recorded_shards,
    write_shard,
)
from preprocessing.errors import DatasetError
from preprocessing.sources import Collection, Unit

ATTEMPTS = 2  # a unit that crashes is tried once more: the machine may have been at fault
TASK_RETRIES = 5


@dataclass(frozen=True)
class PreprocessSummary:
    """What a preprocessing run ended with."""

    shapes: int
    rejected: tuple[RejectedShape, ...]
    shards_made: int
    shards_kept: int
    repairs: tuple[str, ...] = ()  # shards that were found damaged, and so made again


@cache
def _isolated(limits: CallLimits) -> IsolatedProcess:
    """The process that serves this worker; it lives as long as the worker."""
    return IsolatedProcess(limits)


def _make(unit: Unit, layout: DatasetLayout) -> list[ShapeRow]:
    """Runs in the isolated process."""
    return [shape.row(layout) for shape in unit.make(layout)]


def make_unit(
    unit: Unit, first_shape: int, layout: DatasetLayout, limits: CallLimits
) -> Sequence[ShapeRow | RejectedShape]:
    """A unit's shapes, or as many rejections with the reason."""
    reason = ""
    for attempt in range(ATTEMPTS):
        try:
            return _isolated(limits).call(_make, unit, layout)
        except CallFailedError as error:
            reason = str(error)
            break
        except CallCrashedError as error:
            reason = f"{error}, {'twice' if attempt else 'once'}"
    return [RejectedShape(first_shape + number, name, reason) for number, name in enumerate(unit.names)]


def prepare_shard(path: Path, shard: int, units: Sequence[Unit], limits: CallLimits) -> ShardRecord:
    """Make and write one shard; a shape that fails is recorded as rejected and the others go on."""
    layout, _ = read_layout(path)
    shapes: list[ShapeRow | RejectedShape] = []
    for unit in units:
        shapes.extend(make_unit(unit, layout.shard_shapes(shard).start + len(shapes), layout, limits))
    return write_shard(path, shard, shapes)


def preprocess(
    collection: Collection, out: Path, address: str = "auto", limits: CallLimits | None = None
) -> PreprocessSummary:
    """Make a dataset; run it again to finish only what is missing or was damaged since.

    Args:
        collection: what to make it of; see `preprocessing.sources`.
        out: the Zarr store.
        address: of Ray.
        limits: time and memory of one shape.

    Raises:
        DatasetError: if `out` holds something else.
        ClusterError: if Ray cannot be reached.
    """
    out = local_path(out).absolute()
    layout = collection.layout
    create_dataset(out, layout, collection.provenance | {"software": software_version()})
    shards = collection.shards()
    damaged = damaged_shards(out, layout)
    kept = [shard for shard in recorded_shards(out, layout) if shard not in damaged]
    missing = sorted(set(range(layout.shards)) - set(kept))
    done = sum(len(layout.shard_shapes(shard)) for shard in kept)
    with ray_session(address), Progress("preprocess", layout.shapes, "shape", done) as progress:
        rejected = {shard: read_record(out, shard).rejected for shard in kept}
        task = ray.remote(num_cpus=1, max_retries=TASK_RETRIES)(prepare_shard)
        chosen = limits or CallLimits()
        lane: Lane[int] = Lane(
            lambda shard: task.remote(out, shard, shards[shard], chosen),
            lambda: TASKS_IN_FLIGHT * available_cpus(),
        )
        try:
            for shard, record in run_in_lanes([lane], missing):
                rejected[shard] = record.rejected
                count = sum(map(len, rejected.values()))
                progress.update(len(record.names), f"{count} rejected" if count else "")
        except OSError as error:
            reason, cure = reason_and_cure(error)
            raise DatasetError(
                f"{error.filename or out}: cannot be written ({reason}); finished shards are kept: "
                f"{cure or 'mend the file system, then run the same command again'}"
            ) from error
    finish_dataset(out)
    entries = tuple(entry for shard in range(layout.shards) for entry in rejected[shard])
    repairs = tuple(f"shard {shard}: {reason}" for shard, reason in sorted(damaged.items()))
    return PreprocessSummary(layout.shapes, entries, len(missing), len(kept), repairs)
