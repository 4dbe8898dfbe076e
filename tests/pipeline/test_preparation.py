"""Datasets through real Ray: crashes, hangs, corrupt files, killed workers, restarts, equal bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import trimesh
import zarr

from pipeline import preprocess
from pipeline.cluster import ray_session
from pipeline.isolation import CallLimits
from preprocessing.dataset import DatasetLayout, check_shard, finished_shards, read_layout, read_record
from preprocessing.errors import DatasetError
from preprocessing.sources import Collection, MeshOptions, RoomsConfig, meshes_collection, rooms_collection
from tests.pipeline.isolated_calls import Trouble

ROOT = Path(__file__).resolve().parents[2]
ROOMS = int(os.environ.get("TESSERA_KILL_ROOMS", "32"))
KILLS = int(os.environ.get("TESSERA_KILLS", "4"))


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with ray_session("local", cpus=2):
        yield


def collection(units: list[Trouble]) -> Collection:
    layout = DatasetLayout(len(units), ("thing",), 2048, 2048, 2048, shapes_per_shard=3)
    return Collection(tuple(units), layout, {"source": "test"})


def test_what_crashes_hangs_or_fails_is_rejected_with_its_reason_and_the_others_go_on(
    ray_here: None, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    kinds = ["", "segfault", "", "hang", "fail", "", "kill", "once", "memory", "", "misfit", ""]
    units = [Trouble(f"unit-{number}", kind, str(log)) for number, kind in enumerate(kinds)]
    limits = CallLimits(timeout_s=8, memory_bytes=2**30)
    summary = preprocess(collection(units), tmp_path / "d.zarr", limits=limits)
    reasons = {entry.name: entry.reason for entry in summary.rejected}
    assert set(reasons) == {"unit-1", "unit-3", "unit-4", "unit-6", "unit-8", "unit-10"}
    assert reasons["unit-1"] == "crashed (segmentation fault in a native library), twice"
    assert reasons["unit-3"] == "hung: did not end within 8 s, twice"
    assert reasons["unit-4"] == "ValueError: has no inside"
    assert reasons["unit-6"] == "was killed, probably for lack of memory, twice"
    assert reasons["unit-8"] == "needed more memory than 1.0 GiB, twice"
    assert reasons["unit-10"] == "unit-10: 2049 points exceed the layout's 2048"
    calls = log.read_text().split("\n")
    tries = {unit.name: sum(line.startswith(f"{unit.name} ") for line in calls) for unit in units}
    assert [tries[unit.name] for unit in units] == [1, 2, 1, 2, 1, 1, 2, 2, 2, 1, 1, 1]
    valid = zarr.open_group(tmp_path / "d.zarr", mode="r")["valid"][:]
    assert valid.tolist() == [kind in ("", "once") for kind in kinds]


def write_corrupt(folder: Path) -> None:
    """Files as they come: cut short, without faces, not finite, noise, far too large, empty."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball.export(folder / "good.ply")
    whole = (folder / "good.ply").read_bytes()
    (folder / "truncated.ply").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "faceless.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\n")
    lines = ball.export(file_type="obj").split("\n")
    (folder / "nan.obj").write_text("\n".join(["v nan 0 0", *lines[1:]] if lines[0].startswith("v ") else
                                              [lines[0], "v nan 0 0", *lines[2:]]))  # fmt: skip
    (folder / "noise.stl").write_bytes(random.Random(0).randbytes(5000))
    far = ball.copy()
    far.apply_translation([1e7, -1e7, 1e7])
    far.export(folder / "far.obj", digits=12)
    stray = ball.copy()
    stray.vertices[5] = 1e7
    stray.export(folder / "stray.ply")
    (folder / "empty.off").write_bytes(b"")


def test_corrupt_files_are_rejected_in_words_that_a_person_understands(
    ray_here: None, tmp_path: Path
) -> None:
    (tmp_path / "things").mkdir()
    write_corrupt(tmp_path / "things")
    summary = preprocess(meshes_collection(tmp_path / "things", MeshOptions()), tmp_path / "d.zarr")
    reasons = {entry.name: entry.reason for entry in summary.rejected}
    expected = {
        "truncated.ply": "copy or export it again",
        "faceless.obj": "holds no faces",
        "nan.obj": "not finite",
        "noise.stl": "copy or export it again",
        "far.obj": "single precision cannot hold",
        "stray.ply": "stray vertices|single precision",
        "empty.off": r"is empty \(0 bytes\)",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert any(
            word in reasons[name] for word in words.replace(r"\(", "(").replace(r"\)", ")").split("|")
        ), (
            name,
            reasons[name],
        )
    shown = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "info", str(tmp_path / "d.zarr"), "--check"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    assert "1 of 8 shapes" in shown
    assert "rejected: 7" in shown
    assert "empty.off: " in shown


def test_check_names_the_damaged_shard_and_a_rerun_mends_it(ray_here: None, tmp_path: Path) -> None:
    store = tmp_path / "d.zarr"
    made = collection([Trouble(f"unit-{n}", "", str(tmp_path / "log")) for n in range(6)])
    preprocess(made, store)
    file = store / "near_queries" / "c" / "1" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[100] ^= 255
    file.write_bytes(bytes(data))
    command = [sys.executable, "-m", "pipeline.cli", "info", str(store), "--check"]
    failed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert failed.returncode == 1
    assert "shard 1: near_queries" in failed.stderr
    (store / "records" / "shard-000001.json").unlink()
    assert preprocess(made, store).shards_made == 1
    assert subprocess.run(command, capture_output=True, check=False, cwd=ROOT).returncode == 0


def test_another_collection_in_the_same_store_is_refused(ray_here: None, tmp_path: Path) -> None:
    units = [Trouble(f"unit-{n}", "", str(tmp_path / "log")) for n in range(2)]
    preprocess(collection(units), tmp_path / "d.zarr")
    with pytest.raises(DatasetError, match="other settings"):
        preprocess(collection(units[:1]), tmp_path / "d.zarr")


PROGRAM = """
import sys
from pathlib import Path
from pipeline import preprocess
from preprocessing.sources import RoomsConfig, rooms_collection
preprocess(rooms_collection(RoomsConfig(int(sys.argv[2]), 0, seed=0)), Path(sys.argv[1]), address="local")
"""


def command_of(process: psutil.Process) -> str:
    """A process's command line; empty where it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_killed_workers_lose_nothing_and_change_no_byte(ray_here: None, tmp_path: Path) -> None:
    """Ray's workers and their processes die at random moments; what is missing is made again, the same."""
    undisturbed, disturbed = tmp_path / "a.zarr", tmp_path / "b.zarr"
    preprocess(rooms_collection(RoomsConfig(ROOMS, 0, seed=0)), undisturbed)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(disturbed), str(ROOMS)], env=environment, cwd=ROOT,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    seed = 5
    rng = random.Random(seed)
    killed: list[str] = []
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.append(run.stderr.read() if run.stderr else ""))
    reader.start()
    while run.poll() is None and len(killed) < KILLS:
        time.sleep(rng.uniform(0.5, 3.0) * max(1, ROOMS / 100))
        victims = [
            process
            for process in psutil.Process(run.pid).children(recursive=True)
            if "prepare_shard" in command_of(process)
            # Of the shapes' processes only one: a shape whose process dies twice counts as the culprit.
            or (
                "pipeline.isolation" in command_of(process)
                and not any("isolation" in name for name in killed)
            )
        ]
        if victims:
            victim = rng.choice(victims)
            killed.append(command_of(victim)[-60:])
            with suppress(psutil.Error):
                victim.kill()
    assert run.wait(timeout=3000) == 0, (seed, killed)
    reader.join()
    assert len(killed) == KILLS, (seed, killed, errors)
    layout, _ = read_layout(disturbed)
    assert finished_shards(disturbed, layout) == list(range(layout.shards))
    assert all(check_shard(disturbed, shard) == [] for shard in range(layout.shards))
    records = [read_record(disturbed, shard) for shard in range(layout.shards)]
    names = [name for record in records for name in record.names]
    assert len(names) == len(set(names)) == layout.shapes
    assert not any(record.rejected for record in records)
    assert records == [read_record(undisturbed, shard) for shard in range(layout.shards)]
