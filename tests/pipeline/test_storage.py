"""One storage interface: the same promises on a local folder and on an object store."""

from __future__ import annotations

import itertools
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from foundation.storage import LocalStorage, Storage
from pipeline.errors import RunDirectoryError, RunFileError
from pipeline.filesystem_storage import open_storage
from pipeline.lease import LEASE_FILE, lease
from pipeline.reconstruction.store import RunStore
from tests.object_store import object_store
from tests.pipeline.test_lease import held_elsewhere

ROOT = Path(__file__).resolve().parents[2]
PUT_FOREVER = """
import sys
from pipeline.filesystem_storage import open_storage
storage = open_storage(sys.argv[1])
print("putting", flush=True)
while True:
    for letter in b"ab":
        storage.put("a/file", bytes([letter]) * 300_000)
"""
numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with object_store() as url:
        yield url


class StorageContract:
    """What every storage promises; a class of tests for each kind gives its `place`, a path or URL."""

    @pytest.fixture
    def storage(self, place: str) -> Storage:
        return open_storage(place)

    def test_what_was_put_is_got_whole_and_in_parts(self, storage: Storage) -> None:
        data = bytes(range(256)) * 40
        storage.put("a/b/file.bin", data)
        assert storage.get("a/b/file.bin") == data
        file = storage.open("a/b/file.bin")
        assert file.size() == len(data)
        assert file.read_at(100, 5_000) == data[5_000:5_100]
        assert file.read_at(100, len(data) - 10) == data[-10:]
        file.close()

    def test_putting_again_replaces(self, storage: Storage) -> None:
        storage.put("file", b"a long first version")
        storage.put("file", b"second")
        assert storage.get("file") == b"second"
        storage.put("file", b"")
        assert storage.get("file") == b""
        assert storage.names() == ["file"]

    def test_what_is_not_there(self, storage: Storage) -> None:
        assert not storage.exists("a/file")
        assert storage.modified("a/file") is None
        assert storage.names() == storage.names("a") == []
        for read in (storage.get, storage.open):
            with pytest.raises(FileNotFoundError):
                read("a/file")
        storage.delete("a/file")
        storage.delete_folder("a")

    def test_names_are_those_of_one_folder(self, storage: Storage) -> None:
        for name in ("z", "a/1", "a/2", "a/deep/3", ".hidden"):
            storage.put(name, b"x")
        assert storage.names() == [".hidden", "a/", "z"]
        assert storage.names("a") == ["1", "2", "deep/"]
        assert storage.exists("a/1") and not storage.exists("a")

    def test_deleting(self, storage: Storage) -> None:
        for name in ("a/1", "a/deep/2", "b"):
            storage.put(name, b"x")
        storage.delete("b")
        assert storage.names() == ["a/"]
        storage.delete_folder("a")
        assert storage.names() == []
        assert not storage.exists("a/deep/2")

    def test_times_grow_by_the_storages_own_clock(self, storage: Storage) -> None:
        storage.put("first", b"x")
        time.sleep(1.1)  # object stores count whole seconds
        storage.put("second", b"x")
        first, second = storage.modified("first"), storage.modified("second")
        assert first is not None and second is not None and first < second
        time.sleep(1.1)
        storage.put("first", b"x")
        again = storage.modified("first")
        assert again is not None and again > second

    def test_it_travels_to_other_processes(self, storage: Storage) -> None:
        storage.put("file", b"x")
        assert pickle.loads(pickle.dumps(storage)).get("file") == b"x"

    def test_a_reader_never_sees_a_part(self, storage: Storage) -> None:
        """While one writer replaces a file, and after it was killed in the middle."""
        writer = subprocess.Popen(
            [sys.executable, "-c", PUT_FOREVER, storage.place], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None and writer.stdout.readline() == "putting\n"
        whole = [b"a" * 300_000, b"b" * 300_000]
        while not storage.exists("a/file"):
            time.sleep(0.01)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert storage.get("a/file") in whole
        writer.kill()
        writer.wait()
        assert storage.get("a/file") in whole
        assert storage.names("a") == ["file"]

    def test_tables_are_sealed(self, place: str) -> None:
        store = RunStore(place, "identity")
        columns = {"x": np.arange(1000.0), "part": np.arange(1000, dtype=np.int32)}
        store.write_table("tiles/a", [columns, columns], {"seconds": 1.5})
        with store.open_table("tiles/a") as table:
            assert table.facts == {"seconds": 1.5}
            np.testing.assert_array_equal(table.read([1], ["x"])["x"], columns["x"])
        damaged = bytearray(store.read_bytes("tiles/a"))
        damaged[100] ^= 1
        store.write_bytes("tiles/a", bytes(damaged))
        with pytest.raises(RunFileError, match="checksum"), store.open_table("tiles/a") as table:
            table.verify()
        with pytest.raises(RunFileError, match="is missing"):
            store.open_table("tiles/b")

    def test_a_second_command_is_refused_until_the_first_is_dead(self, storage: Storage) -> None:
        holder = held_elsewhere(storage.place)
        try:
            with (
                pytest.raises(RunDirectoryError, match=rf"process {holder.pid} on .* was alive \d+ s ago"),
                lease(storage),
            ):
                pass
        finally:
            holder.kill()
            holder.wait()
        with lease(storage):
            assert storage.exists(LEASE_FILE)
        assert storage.names() == []

    def test_a_lease_from_elsewhere_holds_until_it_expires(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage.put(LEASE_FILE, b'{"identity": "x", "host": "elsewhere", "process": 1, "started": 0}')
        with pytest.raises(RunDirectoryError, match="process 1 on elsewhere"), lease(storage):
            pass
        monkeypatch.setattr("pipeline.lease.EXPIRES_S", 2.0)
        time.sleep(3.1)
        with lease(storage):
            pass
        assert storage.names() == []

    def test_of_several_that_start_at_once_one_holds_it(self, storage: Storage) -> None:
        gate, holding, most = threading.Barrier(4), [], []

        def start(number: int) -> None:
            gate.wait()
            try:
                with lease(storage):
                    holding.append(number)
                    most.append(len(holding))
                    time.sleep(3)  # until the others have looked
                    holding.remove(number)
            except RunDirectoryError:
                return

        threads = [threading.Thread(target=start, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most and max(most) == 1

    def test_a_holder_that_was_replaced_is_stopped(
        self, storage: Storage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.lease.RENEW_S", 0.05)
        with pytest.raises(RunDirectoryError, match="has taken it over"), lease(storage):
            storage.put(LEASE_FILE, b'{"identity": "x", "host": "other", "process": 1, "started": 0}')
            time.sleep(2)
        assert storage.exists(LEASE_FILE)  # the other's


class TestLocalFolder(StorageContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> str:
        return str(tmp_path / "folder")

    def test_a_local_url_is_a_local_folder(self, tmp_path: Path) -> None:
        assert open_storage(f"file://{tmp_path}/run") == LocalStorage(tmp_path / "run")


class TestObjectStore(StorageContract):
    @pytest.fixture
    def place(self, server: str) -> str:
        return server.format(f"folder-{next(numbers)}")

    def test_a_bucket_that_is_missing_is_one_line(self, place: str) -> None:
        store = RunStore(place.replace("//bucket/", "//other/"))
        with pytest.raises(RunDirectoryError, match=r"other.*/report.json: cannot be written .*bucket"):
            store.write_bytes("report.json", b"{}")

    def test_a_filesystem_that_shows_files_early_gets_them_by_a_move(
        self, place: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pipeline.filesystem_storage.APPEAR_WHEN_CLOSED", ())
        storage = open_storage(place)
        storage.put("a/file", b"x")
        storage.put("a/file", b"y")
        assert (storage.get("a/file"), storage.names("a")) == (b"y", ["file"])


def test_an_unknown_url_is_refused() -> None:
    with pytest.raises(RunDirectoryError, match="nosuch://place: cannot be used"):
        open_storage("nosuch://place").names()
