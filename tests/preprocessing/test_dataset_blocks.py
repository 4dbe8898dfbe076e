"""Blocks read straight from the shard's file are those that zarr reads, and damage shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from preprocessing.dataset import BLOCK, BlockReader, DatasetLayout, blocks, create_dataset, finish_dataset
from preprocessing.errors import DatasetError

STILL = DatasetLayout(
    shapes=7,
    categories=("thing",),
    points=3 * BLOCK,
    uniform_queries=2 * BLOCK,
    near_queries=BLOCK,
    shapes_per_shard=3,
    voxel_side=16,
    views=2,
    view_size=10,
)
SEQUENCE = DatasetLayout(
    shapes=5,
    categories=("thing",),
    points=2 * BLOCK,
    uniform_queries=BLOCK,
    near_queries=3 * BLOCK,
    shapes_per_shard=2,
    frames=3,
    voxel_side=8,
    views=2,
    view_size=10,
)
LAYOUTS = {"still": STILL, "sequence": SEQUENCE}
EMPTY_SHARD = 1
BLOCKED = {
    kind: [name for name, spec in layout.arrays.items() if spec.chunk] for kind, layout in LAYOUTS.items()
}


def random_values(shape: tuple[int, ...], dtype: str, rng: np.random.Generator) -> NDArray[Any]:
    if dtype == "float32":
        return rng.standard_normal(shape).astype(np.float32)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)


def fill(path: Path, layout: DatasetLayout) -> Path:
    """A store of random numbers, written by zarr, but for a shard that is absent and a shape that is zero."""
    create_dataset(path, layout, {})
    group = zarr.open_group(path, mode="r+")
    rng = np.random.default_rng(0)
    for name, spec in layout.arrays.items():
        for shard in range(layout.shards):
            rows = layout.shard_shapes(shard)
            values = random_values((len(rows), *spec.tail), spec.dtype, rng) if spec.chunk else None
            if values is not None and shard != EMPTY_SHARD:
                values[0] = 0
                group[name][rows.start : rows.stop] = values
    finish_dataset(path)
    return path


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("stores")
    return {kind: fill(folder / f"{kind}.zarr", layout) for kind, layout in LAYOUTS.items()}


@settings(max_examples=150, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["still", "sequence"]))
def test_any_block_is_what_zarr_reads(stores: dict[str, Path], data: st.DataObject, kind: str) -> None:
    layout, path = LAYOUTS[kind], stores[kind]
    name = data.draw(st.sampled_from(BLOCKED[kind]))
    spec = layout.arrays[name]
    shape = data.draw(st.integers(0, layout.shapes - 1))
    counts = [side // step for side, step in zip(spec.tail, spec.chunk, strict=True)]
    block = tuple(data.draw(st.integers(0, count - 1)) for count in counts)
    slices = tuple(
        slice(place * step, (place + 1) * step) for place, step in zip(block, spec.chunk, strict=True)
    )
    expected = zarr.open_group(path, mode="r")[name][(shape, *slices)]
    reader = BlockReader(path, layout, name)
    first_zeros = len(block) - next((i for i, place in enumerate(block[::-1]) if place), len(block))
    for places in (block, block[:first_zeros]):  # trailing zeros may be left out
        found = reader.read(shape, *places)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_one_reader_reads_every_block_in_any_order(kind: str, stores: dict[str, Path]) -> None:
    layout, path = LAYOUTS[kind], stores[kind]
    everything = zarr.open_group(path, mode="r")["near_queries"][:]
    reader = BlockReader(path, layout, "near_queries")
    places = list(
        np.ndindex(layout.shapes, *(layout.frames,) * bool(layout.frames), layout.near_queries // BLOCK)
    )
    for row in np.random.default_rng(1).permutation(len(places)):
        *which, block = places[row]
        expected = everything[tuple(which)][block * BLOCK : (block + 1) * BLOCK]
        np.testing.assert_array_equal(reader.read(which[0], *which[1:], block).reshape(BLOCK, 3), expected)


@pytest.mark.parametrize("kind", LAYOUTS)
def test_shards_and_chunks_that_were_never_written_are_zeros(kind: str, stores: dict[str, Path]) -> None:
    layout, path = LAYOUTS[kind], stores[kind]
    for name in BLOCKED[kind]:
        spec, reader = layout.arrays[name], BlockReader(path, layout, name)
        assert not path.joinpath(name, "c", str(EMPTY_SHARD)).exists()
        for shape in (
            layout.shard_shapes(EMPTY_SHARD)[0],
            0,
        ):  # of an absent shard; zero in one that is there
            block = reader.read(shape)
            assert (block.shape, block.dtype) == (spec.chunk, np.dtype(spec.dtype))
            assert not block.any()
        assert reader.read(1).any()


def shard_file(path: Path, name: str = "points", shard: int = 0) -> Path:
    return next(file for file in path.joinpath(name, "c", str(shard)).rglob("*") if file.is_file())


def read_all(path: Path, layout: DatasetLayout) -> list[NDArray[Any]]:
    reader = BlockReader(path, layout, "points")
    blocks_of_a_shape = layout.points // BLOCK
    return [
        reader.read(shape, block) for shape in layout.shard_shapes(0) for block in range(blocks_of_a_shape)
    ]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return fill(tmp_path / "still.zarr", STILL)


@pytest.mark.parametrize("left", [0, 3, 100, 0.5, 0.97, -1])
def test_a_truncated_shard_is_refused(store: Path, left: float) -> None:
    file = shard_file(store)
    data = file.read_bytes()
    size = len(data) - 1 if left == -1 else left if isinstance(left, int) else int(left * len(data))
    file.write_bytes(data[:size])
    with pytest.raises(DatasetError, match=r"truncated|damaged"):
        read_all(store, STILL)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), mask=st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_harmless(stores: dict[str, Path], place: float, mask: int) -> None:
    """A byte of the data or of the index; the index's own checksum, at the end, is of no use to a reader."""
    file = shard_file(stores["still"])
    data = file.read_bytes()
    before = read_all(stores["still"], STILL)
    damaged = bytearray(data)
    damaged[int(place * len(data))] ^= mask
    try:
        file.write_bytes(bytes(damaged))
        try:
            after = read_all(stores["still"], STILL)
        except DatasetError as error:
            assert "damaged" in str(error) or "truncated" in str(error)
        else:
            for one, two in zip(before, after, strict=True):
                np.testing.assert_array_equal(one, two)
    finally:
        file.write_bytes(data)


@pytest.mark.parametrize("share", [0.1, 0.37, 0.5, 0.8])
def test_damaged_values_are_refused(store: Path, share: float) -> None:
    file = shard_file(store)
    data = bytearray(file.read_bytes())
    data[int(share * len(data))] ^= 0x10
    file.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match=r"shard 0 is damaged .*tessera preprocess"):
        read_all(store, STILL)


@pytest.mark.parametrize("word", [0, 2**40, 2**63, 2**64 - 2])
@pytest.mark.parametrize("which", [0, 1], ids=["offset", "length"])
def test_a_damaged_index_is_refused(store: Path, word: int, which: int) -> None:
    file = shard_file(store)
    data = bytearray(file.read_bytes())
    last = len(data) - blocks.CHECKSUM_BYTES - 16 + 8 * which  # of the shard's last chunk
    data[last : last + 8] = word.to_bytes(8, "little")
    file.write_bytes(bytes(data))
    with pytest.raises(DatasetError, match="damaged"):
        read_all(store, STILL)


def open_files() -> int:
    return len(psutil.Process().open_files())


def test_more_shards_than_may_be_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_OPEN_SHARDS", 4)
    layout = DatasetLayout(11, ("a",), points=BLOCK, uniform_queries=0, near_queries=0, shapes_per_shard=1)
    create_dataset(tmp_path / "a.zarr", layout, {})
    points = np.random.default_rng(0).standard_normal((11, BLOCK, 3)).astype(np.float32)
    points[5] = 0
    zarr.open_group(tmp_path / "a.zarr", mode="r+")["points"][:] = points
    descriptors = open_files()
    reader = BlockReader(tmp_path / "a.zarr", layout, "points")
    for shape in [*range(11), *range(10, -1, -1), *np.random.default_rng(1).integers(11, size=60).tolist()]:
        np.testing.assert_array_equal(reader.read(shape), points[shape])
        assert open_files() <= descriptors + 4
    del reader
    assert open_files() == descriptors


def test_a_block_cannot_be_changed_by_its_reader(stores: dict[str, Path]) -> None:
    block = BlockReader(stores["still"], STILL, "points").read(1)
    with pytest.raises(ValueError, match="read-only"):
        block[0] = 1


def test_an_array_that_is_stored_otherwise_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.create_group(path)
    group.create_array("points", shape=(7, 3 * BLOCK, 3), dtype="float32", chunks=(1, BLOCK, 3))
    with pytest.raises(DatasetError, match="array points is not stored as Tessera writes it"):
        BlockReader(path, STILL, "points")


@pytest.mark.parametrize("block", [(2,), (-1,), (0, 1)])
def test_a_block_that_is_not_there_is_refused(stores: dict[str, Path], block: tuple[int, ...]) -> None:
    with pytest.raises(IndexError, match="block"):
        BlockReader(stores["still"], STILL, "uniform_queries").read(0, *block)
