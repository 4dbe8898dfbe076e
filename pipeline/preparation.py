"""The preprocessing stage: one Ray task for each shard of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import ray
from tqdm import tqdm

from pipeline.cluster import available_cpus, ray_session, run_windowed
from pipeline.version import software_version
from preprocessing.dataset import (
    DatasetLayout,
    RejectedShape,
    ShapeSamples,
    ShardRecord,
    create_dataset,
    finish_dataset,
    finished_shards,
    read_layout,
    read_record,
    write_shard,
)
from preprocessing.shape_samples import CATEGORIES, WINDOWS_PER_BUILDING, building_windows, room_samples


@dataclass(frozen=True)
class RoomsConfig:
    """Which procedural scenes to prepare.

    Attributes:
        rooms: paper-style synthetic rooms; rounded up to whole shards of 8.
        building_windows: 6 m windows of furnished buildings, 8 of each building; rounded up likewise.
        seed: of the first scene; the same seed gives the same bytes whatever the number of workers.
    """

    rooms: int = 640
    building_windows: int = 640
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rooms < 0 or self.building_windows < 0 or self.rooms + self.building_windows < 1:
            raise ValueError("ask for at least one room or building window")

    @property
    def room_shards(self) -> int:
        """Shards that hold rooms; those of buildings follow."""
        return -(-self.rooms // WINDOWS_PER_BUILDING)

    @property
    def layout(self) -> DatasetLayout:
        """The dataset's layout."""
        shards = self.room_shards + -(-self.building_windows // WINDOWS_PER_BUILDING)
        return DatasetLayout(
            shapes=shards * WINDOWS_PER_BUILDING, categories=CATEGORIES, shapes_per_shard=WINDOWS_PER_BUILDING
        )


@dataclass(frozen=True)
class PreprocessSummary:
    """What a preprocessing run ended with."""

    shapes: int
    rejected: tuple[RejectedShape, ...]
    shards_made: int
    shards_kept: int


def prepare_shard(path: Path, shard: int, config: RoomsConfig) -> ShardRecord:
    """Make and write one shard; a scene that fails is recorded as rejected and the others go on."""
    layout, _ = read_layout(path)
    shapes: list[ShapeSamples | RejectedShape] = []
    if shard < config.room_shards:
        for shape in layout.shard_shapes(shard):
            seed = config.seed + shape
            try:
                shapes.append(room_samples(seed, layout))
            except (ValueError, RuntimeError) as error:
                shapes.append(RejectedShape(shape, f"room-{seed:08d}", str(error)))
    else:
        seed = config.seed + shard - config.room_shards
        try:
            shapes.extend(building_windows(seed, layout))
        except (ValueError, RuntimeError) as error:
            shapes.extend(
                RejectedShape(shape, f"building-{seed:08d}", str(error))
                for shape in layout.shard_shapes(shard)
            )
    return write_shard(path, shard, shapes)


def preprocess(out: Path, config: RoomsConfig, address: str = "auto") -> PreprocessSummary:
    """Make a dataset of procedural scenes; run it again to finish only what is missing.

    Raises:
        DatasetError: if `out` holds something else.
        ClusterError: if Ray cannot be reached.
    """
    out = Path(out).absolute()
    layout = config.layout
    provenance = {"source": "rooms", "rooms": config.rooms, "building_windows": config.building_windows}
    create_dataset(out, layout, provenance | {"seed": config.seed, "software": software_version()})
    kept = finished_shards(out, layout)
    missing = [shard for shard in range(layout.shards) if shard not in set(kept)]
    with ray_session(address), tqdm(total=layout.shapes, unit="shape", desc="preprocess") as bar:
        bar.update(sum(len(layout.shard_shapes(shard)) for shard in kept))
        task = ray.remote(num_cpus=1, max_retries=3, max_calls=20)(prepare_shard)
        window = 2 * available_cpus()
        for _, record in run_windowed(lambda shard: task.remote(out, shard, config), missing, window):
            bar.update(len(record.names))
    finish_dataset(out)
    records = [read_record(out, shard) for shard in range(layout.shards)]
    rejected = tuple(entry for record in records for entry in record.rejected)
    return PreprocessSummary(layout.shapes, rejected, len(missing), len(kept))
