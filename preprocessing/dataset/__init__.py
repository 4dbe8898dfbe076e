"""The Zarr store of training data: its arrays, how tasks write it, how samplers read it."""

from preprocessing.dataset.blocks import BlockReader
from preprocessing.dataset.layout import BLOCK, SPLITS, DatasetLayout
from preprocessing.dataset.samples import RejectedShape, ShapeRow, ShapeSamples, Views
from preprocessing.dataset.store import (
    CURE,
    ShardRecord,
    check_complete,
    check_shard,
    create_dataset,
    damaged_shards,
    finish_dataset,
    finished_shards,
    read_layout,
    read_record,
    record_path,
    recorded_shards,
    rows,
    write_shard,
)

__all__ = [
    "BLOCK",
    "CURE",
    "SPLITS",
    "BlockReader",
    "DatasetLayout",
    "RejectedShape",
    "ShapeRow",
    "ShapeSamples",
    "ShardRecord",
    "Views",
    "check_complete",
    "check_shard",
    "create_dataset",
    "damaged_shards",
    "finish_dataset",
    "finished_shards",
    "read_layout",
    "read_record",
    "record_path",
    "recorded_shards",
    "rows",
    "write_shard",
]
