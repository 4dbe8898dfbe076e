"""No bit of a sealed table can change unnoticed, and it is a table for every reader of Parquet."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import RunFileError
from pipeline.reconstruction.sealed_tables import Columns
from pipeline.reconstruction.store import RunStore

ROOT = Path(__file__).resolve().parents[3]
NAME = "tiles/00000007.vertices.parquet"


def groups() -> list[Columns]:
    rng = np.random.default_rng(0)
    return [
        {
            "key": rng.integers(0, 1 << 60, count),
            "x": rng.random(count),
            "part": np.arange(count, dtype=np.int32),
            "value": rng.random(count).astype(np.float16),
            "is_shown": rng.random(count) < 0.5,
        }
        for count in (40, 0, 25)
    ]


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    store = RunStore(str(tmp_path), "identity")
    store.write_table(NAME, groups(), {"seconds": 1.5})
    return store


def check_equal(found: Columns, expected: Columns) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values)


def joined(parts: list[Columns], names: list[str]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def test_what_was_written_is_read(store: RunStore, tmp_path: Path) -> None:
    names = list(groups()[0])
    with store.open_table(NAME) as file:
        assert file.facts == {"seconds": 1.5}
        assert file.row_groups == 3
        for number, written in enumerate(groups()):
            check_equal(file.read([number]), written)
        check_equal(file.read(), joined(groups(), names))
        check_equal(file.read([2], ["x"]), {"x": groups()[2]["x"]})
    plain = pq.read_table(tmp_path / NAME).to_pydict()  # by a reader that knows of no seal
    assert plain == {name: values.tolist() for name, values in joined(groups(), names).items()}


def test_any_choice_of_row_groups_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    written = [{axis: rng.random(count) for axis in "xyz"} for count in rng.integers(0, 3000, 40)]
    store = RunStore(str(tmp_path), "identity")
    store.write_table(NAME, written)
    for _ in range(50):
        chosen = sorted(rng.choice(len(written), rng.integers(1, 20), replace=False).tolist())
        with store.open_table(NAME) as file:
            check_equal(file.read(chosen, ["x", "z"]), joined([written[n] for n in chosen], ["x", "z"]))


def test_neither_writing_nor_reading_imports_pandas(tmp_path: Path) -> None:
    """Which takes as long as a small scene."""
    program = (
        "import sys, numpy as np; from pipeline.reconstruction.store import RunStore; store = RunStore(sys.argv[1]); "
        "store.write_table('a', [{'x': np.arange(5.0), 'b': np.ones(5, bool)}]); store.open_table('a').read(); "
        "assert 'pandas' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, cwd=ROOT)


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
        check_equal(file.read([2]), groups()[2])
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
    pq.write_table(pa.table({"x": [1.0, 2.0]}), tmp_path / NAME)
    with pytest.raises(RunFileError, match="seal"):
        store.open_table(NAME)
