"""No bit of a sealed table can change unnoticed, and it is a table for every reader of Parquet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RunFileError
from pipeline.reconstruction.store import RunStore

NAME = "tiles/00000007.vertices.parquet"


def tables() -> list[pa.Table]:
    rng = np.random.default_rng(0)
    return [
        pa.table(
            {"key": rng.integers(0, 1 << 60, count), "x": rng.random(count), "part": np.zeros(count, "i4")}
        )
        for count in (40, 0, 25)
    ]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(str(tmp_path), "identity")
    store.write_tables(NAME, tables(), {"seconds": 1.5})
    return store


def everything(store: RunStore) -> tuple[dict, list[pa.Table]]:
    with store.open_table(NAME) as file:
        return file.facts, [file.read([group]) for group in range(file.row_groups)]


def test_what_was_written_is_read(store: RunStore, tmp_path: Path) -> None:
    facts, groups = everything(store)
    assert facts == {"seconds": 1.5}
    for found, written in zip(groups, tables(), strict=True):
        assert found.equals(written)
    with store.open_table(NAME) as file:
        assert file.read().equals(pa.concat_tables(tables()))
        assert file.read([2], ["x"]).equals(tables()[2].select(["x"]))
    assert pq.read_table(tmp_path / NAME).equals(pa.concat_tables(tables()))


def test_any_choice_of_row_groups_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    written = [pa.table({axis: rng.random(count) for axis in "xyz"}) for count in rng.integers(0, 3000, 40)]
    store = RunStore(str(tmp_path), "identity")
    store.write_tables(NAME, written)
    for _ in range(50):
        groups = sorted(rng.choice(len(written), rng.integers(1, 20), replace=False).tolist())
        with store.open_table(NAME) as file:
            assert file.read(groups, ["z", "x"]).equals(
                pa.concat_tables([written[group] for group in groups]).select(["z", "x"])
            )


def test_every_single_bit_counts(store: RunStore, tmp_path: Path) -> None:
    path = tmp_path / NAME
    intact = path.read_bytes()
    for place in range(8 * len(intact)):
        damaged = bytearray(intact)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(RunFileError) as caught, store.open_table(NAME) as file:
            file.verify()
        assert caught.value.name == NAME


def test_reading_one_row_group_verifies_it(store: RunStore, tmp_path: Path) -> None:
    path = tmp_path / NAME
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 4  # in the first group
    path.write_bytes(damaged)
    with store.open_table(NAME) as file:
        assert file.read([2]).equals(tables()[2])
        with pytest.raises(RunFileError, match="checksum between bytes 0 and"):
            file.read([0], ["x"])


def test_every_truncation_is_seen(store: RunStore, tmp_path: Path) -> None:
    path = tmp_path / NAME
    intact = path.read_bytes()
    for length in range(len(intact)):
        path.write_bytes(intact[:length])
        with pytest.raises(RunFileError), store.open_table(NAME) as file:
            file.verify()


def test_a_file_of_another_run_or_name_is_refused(store: RunStore, tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="belongs to another run"):
        RunStore(str(tmp_path), "other").open_table(NAME)
    (tmp_path / "tiles/00000008.vertices.parquet").write_bytes((tmp_path / NAME).read_bytes())
    with pytest.raises(RunFileError, match=r"is the file tiles/00000007\S+ under another name"):
        store.open_table("tiles/00000008.vertices.parquet")
    with pytest.raises(RunFileError, match="is missing"):
        store.open_table("tiles/00000009.vertices.parquet")


def test_a_plain_table_is_refused(store: RunStore, tmp_path: Path) -> None:
    pq.write_table(tables()[0], tmp_path / NAME)
    with pytest.raises(RunFileError, match="seal"):
        store.open_table(NAME)
