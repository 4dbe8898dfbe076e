"""Damaged scans whose decoder aborts are errors like any other, and nothing is lost on the way between processes."""

from __future__ import annotations

import resource
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import laspy
import numpy as np
import psutil
import pytest

from pipeline.mesh_reading import mesh_limits
from pipeline.scan_reading import CHUNK_POINTS, LIMITS, scan_chunks
from preprocessing.errors import ScanError
from preprocessing.scan_files import open_scan

ADDRESS_SPACE = 60 * 2**30  # less than the 64 GiB that a damaged table asks for, on a machine of any size


@pytest.fixture
def limited_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def decoders() -> set[int]:
    """Numbers of the isolated processes of this one."""
    found = set()
    for child in psutil.Process().children():
        with suppress(psutil.Error):  # it has just ended
            if "pipeline.isolation" in child.cmdline():
                found.add(child.pid)
    return found


@pytest.fixture(autouse=True)
def decoders_before() -> Iterator[set[int]]:
    """No test may leave a process of its own."""
    before = decoders()
    yield before
    assert decoders() <= before


def write_laz(path: Path, count: int) -> tuple[bytes, int]:
    """A colored LAZ of random points; its bytes, and where its chunk table begins."""
    rng = np.random.default_rng(3)
    cloud = laspy.create(point_format=2)
    cloud.header.scales = [1e-3] * 3
    cloud.x, cloud.y, cloud.z = rng.random((3, count)) * 10
    cloud.red, cloud.green, cloud.blue = rng.integers(0, 2**16, (3, count)).astype(np.uint16)
    cloud.write(path)
    data = path.read_bytes()
    points_start = struct.unpack_from("<I", data, 96)[0]
    return data, struct.unpack_from("<q", data, points_start)[0]


def test_chunks_are_those_of_the_reader(tmp_path: Path) -> None:
    write_laz(tmp_path / "a.laz", CHUNK_POINTS + 500)
    ours = list(scan_chunks(tmp_path / "a.laz"))
    direct = list(open_scan(tmp_path / "a.laz", CHUNK_POINTS).chunks())
    assert [len(chunk.points) for chunk in ours] == [CHUNK_POINTS, 500]
    for chunk, expected in zip(ours, direct, strict=True):
        np.testing.assert_array_equal(chunk.points, expected.points)
        assert chunk.colors is not None and expected.colors is not None
        np.testing.assert_array_equal(chunk.colors, expected.colors)
        assert chunk.normals is None


def test_a_scan_that_aborts_its_decoder_is_an_error_with_the_file_and_the_cure(
    tmp_path: Path, limited_memory: None
) -> None:
    data, table = write_laz(tmp_path / "a.laz", 2_000)
    endless = data[: table + 4] + b"\xff" * 4 + data[table + 8 :]  # chunks, of 16 bytes each
    (tmp_path / "a.laz").write_bytes(endless)
    with pytest.raises(
        ScanError, match=r"a\.laz: its decoder crashed \(a native library aborted\).* export it again"
    ):
        list(scan_chunks(tmp_path / "a.laz"))


def test_a_laz_layer_that_claims_gigabytes_ends_at_the_limit_of_memory(tmp_path: Path) -> None:
    cloud = laspy.create(point_format=7, file_version="1.4")
    cloud.x, cloud.y, cloud.z = np.random.default_rng(0).normal(size=(3, 60))
    cloud.write(tmp_path / "a.laz")
    data = bytearray((tmp_path / "a.laz").read_bytes())
    with laspy.open(tmp_path / "a.laz") as opened:
        # Ahead of the layers: the place of the table of chunks, the first point, the number of points, eleven sizes.
        start = opened.header.offset_to_point_data + 8 + 36 + 4
    data[start + 20 : start + 24] = (0xFFFF7F00).to_bytes(4, "little")
    (tmp_path / "a.laz").write_bytes(data)
    with pytest.raises(ScanError, match=r"a\.laz: .*(2\.0 GiB|crashed|truncated).* export it again"):
        list(scan_chunks(tmp_path / "a.laz"))


def test_a_large_mesh_may_take_memory_by_its_size(tmp_path: Path) -> None:
    assert LIMITS.memory_bytes <= 2 * 2**30
    with (tmp_path / "a.stl").open("wb") as file:
        file.truncate(10**9)
    assert mesh_limits(tmp_path / "a.stl").memory_bytes > 40 * 10**9


def test_whatever_bytes_are_damaged_the_scan_is_read_or_refused(tmp_path: Path) -> None:
    data, table = write_laz(tmp_path / "a.laz", 2_000)
    refused = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        damaged = np.frombuffer(data, np.uint8).copy()
        low = (4, 375, table)[seed % 3]  # anywhere, behind the header, in the table of the chunks
        damaged[rng.integers(low, len(data), 2)] ^= rng.integers(1, 256, 2).astype(np.uint8)
        (tmp_path / "a.laz").write_bytes(damaged.tobytes())
        try:
            for chunk in scan_chunks(tmp_path / "a.laz"):
                assert chunk.points.shape[1:] == (3,)
        except ScanError as error:
            assert str(error).startswith(f"{tmp_path / 'a.laz'}: "), seed
            assert "copy or export it again" in str(error), seed
            refused += 1
    assert refused >= 6


@pytest.mark.parametrize("name", ["missing.laz", "empty.laz", "short.laz", "noise.las"])
def test_what_the_reader_says_comes_through_unchanged(name: str, tmp_path: Path) -> None:
    data, _ = write_laz(tmp_path / "a.laz", 2_000)
    contents = {"empty.laz": b"", "short.laz": data[:-3_000], "noise.las": b"not a las file at all"}
    if name in contents:
        (tmp_path / name).write_bytes(contents[name])
    with pytest.raises(ScanError) as expected:
        list(open_scan(tmp_path / name).chunks())
    with pytest.raises(ScanError) as error:
        list(scan_chunks(tmp_path / name))
    assert str(error.value) == str(expected.value)


def test_a_scan_left_half_read_leaves_no_process(tmp_path: Path, decoders_before: set[int]) -> None:
    write_laz(tmp_path / "a.laz", 2_000)
    chunks = scan_chunks(tmp_path / "a.laz")
    next(chunks)
    assert len(decoders() - decoders_before) == 1
    chunks.close()  # type: ignore[attr-defined]
    assert decoders() <= decoders_before
