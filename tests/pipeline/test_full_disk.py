"""A disk that fills up is one line with the file and the cure, leaves nothing half-written, and a rerun heals it."""

from __future__ import annotations

from pathlib import Path
from shutil import disk_usage

import numpy as np
import pytest

from preprocessing.dataset import check_shard, read_layout
from preprocessing.scan_files import write_scan_ply
from tests.pipeline.commands_at_work import Command
from tests.preprocessing.ball_datasets import BALLS, write_balls
from tests.references.small_disk import resize, small_disk

FULL = "No space left on device"

pytestmark = pytest.mark.cluster


def refused(*arguments: object) -> str:
    command = Command(*arguments)
    assert command.end() == 1, "".join(command.stdout)
    assert len(command.errors) == 1, command.errors
    (line,) = command.errors
    assert line.startswith("tessera: /")
    cures = ("free some space", "run the same command again"), ("free space or choose another file",)
    assert any(all(words in line for words in cure) for cure in cures), line
    return line


def finished(*arguments: object) -> str:
    command = Command(*arguments)
    assert command.end() == 0, "".join(command.stderr)
    return "".join(command.stdout)


def reconstruction(folder: Path, disk: Path, scene_points: np.ndarray) -> list[object]:
    write_scan_ply(folder / "scene.ply", scene_points[:12_000])
    small = ["--voxel-size", "0.2", "--query-voxels", "24"]
    return ["reconstruct", folder / "scene.ply", "--out", disk / "run", *small]


@pytest.mark.parametrize(
    ("kilobytes", "where"), [(600, ("points/",)), (1_200, ("levels/", "fields/")), (2_000, ("tiles/",))]
)
def test_reconstruction(
    kilobytes: int, where: tuple[str, ...], tmp_path: Path, scene_points: np.ndarray
) -> None:
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        arguments = reconstruction(tmp_path, disk, scene_points)
        line = refused(*arguments)
        assert any(f"/run/{part}" in line for part in where), line
        assert FULL in line
        assert not [path for path in disk.rglob("*") if "partial" in path.name]
        resize(disk, 64_000)
        assert "watertight: yes" in finished(*arguments)


def test_the_mesh_of_a_reconstruction(tmp_path: Path, scene_points: np.ndarray) -> None:
    with small_disk(tmp_path / "disk", 64_000) as disk:
        arguments = reconstruction(tmp_path, disk, scene_points)
        finished(*arguments)
        mesh = disk / "run" / "mesh.ply"
        whole = mesh.read_bytes()
        mesh.unlink()
        resize(disk, disk_usage(disk).used // 1_024 + len(whole) // 2_048)
        line = refused(*arguments)
        assert "/run/mesh.ply" in line and FULL in line, line
        assert not [path for path in disk.rglob("*") if "partial" in path.name]
        resize(disk, 64_000)
        assert "0 computed, 8 kept" in finished(*arguments)
        assert mesh.read_bytes() == whole


def test_preprocessing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 9_000) as disk:
        arguments = [
            "preprocess",
            "rooms",
            "--out",
            disk / "rooms.zarr",
            "--rooms",
            8,
            "--building-windows",
            0,
        ]
        assert FULL in refused(*arguments)
        resize(disk, 64_000)
        assert "8 of 8 shapes" in finished(*arguments)
        layout, _ = read_layout(disk / "rooms.zarr")
        assert all(check_shard(disk / "rooms.zarr", shard) == [] for shard in range(layout.shards))


@pytest.mark.parametrize("kilobytes", [6_000, 10_000])
def test_training(kilobytes: int, tmp_path: Path) -> None:
    data = write_balls(tmp_path / "balls.zarr", BALLS)
    small = ["--preset", "shapenet_1plane", "--device", "cpu", "--steps", 4, "--batch-size", 2]
    with small_disk(tmp_path / "disk", kilobytes) as disk:
        arguments = [
            "train",
            data,
            "--out",
            disk / "run",
            "--checkpoint-every",
            2,
            "--max-failures",
            0,
            *small,
        ]
        refused(*arguments)
        resize(disk, 128_000)
        assert "4 steps" in finished(*arguments)
