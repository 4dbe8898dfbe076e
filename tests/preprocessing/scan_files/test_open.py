"""What is refused whatever the format, optional packages, and memory that a chunk bounds."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from pathlib import Path

import laspy
import numpy as np
import open3d as o3d
import pytest

from preprocessing.errors import ScanError
from preprocessing.formats import SCAN_SUFFIXES
from preprocessing.scan_files import open_scan, write_scan_ply

POINTS = np.random.default_rng(5).normal(size=(200_000, 3))


@pytest.mark.parametrize("suffix", SCAN_SUFFIXES)
def test_missing_empty_and_folder(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ScanError, match="no such file"):
        open_scan(path)
    path.write_bytes(b"")
    with pytest.raises(ScanError, match="0 bytes"):
        open_scan(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ScanError, match="is a folder"):
        open_scan(path)


def test_an_unknown_suffix_lists_the_known(tmp_path: Path) -> None:
    (tmp_path / "a.foo").write_text("1 2 3")
    with pytest.raises(ScanError) as error:
        open_scan(tmp_path / "a.foo")
    assert all(suffix in str(error.value) for suffix in SCAN_SUFFIXES)


def test_chunks_hold_at_least_one_point(tmp_path: Path) -> None:
    write_scan_ply(tmp_path / "a.ply", POINTS[:3])
    with pytest.raises(ValueError, match="chunk_points"):
        open_scan(tmp_path / "a.ply", 0)


@pytest.mark.parametrize(
    ("suffix", "module", "packages"), [(".las", "laspy", "laspy lazrs"), (".e57", "pye57", "pye57")]
)
def test_a_missing_package_says_what_to_install(
    suffix: str, module: str, packages: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    (tmp_path / f"a{suffix}").write_bytes(b"content")
    with pytest.raises(ScanError, match=f"pip install {packages}"):
        open_scan(tmp_path / f"a{suffix}")


def pcd(fields: str, sizes: str, types: str, points: int, data: bytes) -> bytes:
    counts = " ".join("1" for _ in fields.split())
    header = f"FIELDS {fields}\nSIZE {sizes}\nTYPE {types}\nCOUNT {counts}\nPOINTS {points}\nDATA ascii\n"
    return header.encode() + data


def npy(shape: tuple[int, ...], data: bytes) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def las_header(records: int) -> bytes:
    """A LAS header without points that promises records (laspy would make them all, one by one)."""
    file = io.BytesIO()
    laspy.create(point_format=0).write(file)
    data = bytearray(file.getvalue())
    struct.pack_into("<I", data, 100, records)
    return bytes(data)


def npz_with_wrong_checksum() -> bytes:
    file = io.BytesIO()
    np.savez(file, points=POINTS[:10])
    data = bytearray(file.getvalue())
    data[200] ^= 1  # a bit of a coordinate
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", npy((10**13, 3), b"12"), "truncated"),  # the memory it asks for does not exist
        ("a.npy", npy((2, 2), b"\0" * 32), r"must be numbers of shape \(N, 3\)"),
        ("a.npy", npy((-1, 3), b""), "cannot be read"),
        ("a.npz", npz_with_wrong_checksum(), "CRC"),
        ("a.npz", b"\x80\x04K\x01.", "pickles are never opened"),
        ("a.pcd", pcd("x y z", "4 4 4", "F F F", -2, b"1 2 3\n"), "damaged PCD header"),
        ("a.pcd", pcd("x y z", "4 4 4", "F F F", 2, b"1 2 3\n"), "promises 2 points, the file holds 1"),
        ("a.pcd", pcd("x y i", "4 4 4", "F F F", 1, b"1 2 3\n"), "no x, y and z"),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\n"
            b"element face 1234\nproperty list uchar int vertex_indices\nend_header\n1 2 3\n",
            "is a mesh with 1,234 faces",
        ),
        ("a.glb", b"glTF", "mesh format"),
        ("a.las", b"LASF" + b"\0" * 400, "not a readable"),
        ("a.las", las_header(records=2**32 - 1), "promises 4,294,967,295 records before the points"),
        ("a.laz", b"not a las file at all", "not a readable"),
    ],
)
def test_damage_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=message) as error:
        list(open_scan(tmp_path / name).chunks())
    assert name in str(error.value)


def test_a_damaged_archive_is_told_in_few_words(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=POINTS[:100])
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[26:28] = b"\xff\xff"  # a name as long as the file, which zipfile quotes
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(ScanError, match="cannot be read as NumPy arrays") as error:
        open_scan(tmp_path / "a.npz")
    assert len(str(error.value)) < 300 + len(str(tmp_path))


def test_pcd_colors_of_another_size_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.pcd").write_bytes(pcd("x y z rgb", "4 4 4 8", "F F F F", 2, b"1 2 3 4\n5 6 7 8\n"))
    reader = open_scan(tmp_path / "a.pcd")
    (chunk,) = reader.chunks()
    assert not reader.has_colors
    assert chunk.colors is None
    np.testing.assert_array_equal(chunk.points, [[1, 2, 3], [5, 6, 7]])


def test_a_dark_las_chunk_keeps_the_scale_of_the_file(tmp_path: Path) -> None:
    cloud = laspy.create(point_format=2)
    cloud.x, cloud.y, cloud.z = POINTS[:2].T
    cloud.red = np.array([65_535, 200], np.uint16)
    cloud.write(tmp_path / "a.las")
    reds = [
        chunk.colors[0, 0] for chunk in open_scan(tmp_path / "a.las", 1).chunks() if chunk.colors is not None
    ]
    assert reds == [255, 0]


def write_large(path: Path, form: str) -> None:
    """A cloud of 200,000 points: 4.8 MB as float64."""
    rows = POINTS.astype(np.float32)
    text = "\n".join(f"{x:.5f} {y:.5f} {z:.5f}" for x, y, z in rows.tolist()).encode()
    ascii_ply = b"ply\nformat ascii 1.0\nelement vertex 200000\n"
    ascii_ply += b"".join(b"property float %c\n" % axis for axis in b"xyz") + b"end_header\n"
    if form == "ply":
        write_scan_ply(path, POINTS)
    elif form == "ply ascii":
        path.write_bytes(ascii_ply + text)
    elif form == "pcd ascii":
        path.write_bytes(pcd("x y z", "4 4 4", "F F F", 200_000, text))
    elif form == "xyz":
        path.write_bytes(text)
    elif form == "npz":
        np.savez_compressed(path, points=POINTS)
    elif form == "npz by columns":
        np.savez_compressed(path, points=np.asfortranarray(POINTS))
    elif form == "npy by columns":
        np.save(path, np.asfortranarray(POINTS))
    elif form == "pcd compressed":
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.tile(POINTS[:1000], (200, 1))))
        o3d.io.write_point_cloud(str(path), cloud, compressed=True)
    elif form == "obj":
        path.write_bytes(b"v " + text.replace(b"\n", b"\nv ") + b"\n")
    elif form == "ptx":
        matrix = b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
        head = b"200000\n1\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n" + matrix
        path.write_bytes(head + text + b"\n")
    elif form == "npy":
        np.save(path, POINTS)
    else:
        cloud = laspy.create(point_format=0)
        cloud.header.scales = [1e-4] * 3
        cloud.x, cloud.y, cloud.z = POINTS.T
        cloud.write(path)


@pytest.mark.parametrize(
    "form",
    ["ply", "ply ascii", "pcd ascii", "pcd compressed", "xyz", "npz", "npz by columns", "npy", "npy by columns",
     "las", "obj", "ptx"],
)  # fmt: skip
def test_memory_is_bounded_by_a_chunk(form: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form.split()[0]}"
    write_large(path, form)
    next(open_scan(path, 5).chunks())  # imports are not counted
    tracemalloc.start()
    try:
        total = sum(len(chunk.points) for chunk in open_scan(path, 2_000).chunks())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 200_000
    assert peak < 1.5e6  # a chunk is 48 kB; as lines and text about twenty times that; the cloud 4.8 MB


def test_damage_in_a_compressed_pcd_is_an_error(tmp_path: Path) -> None:
    header = pcd("x y z", "4 4 4", "F F F", 1, b"").replace(b"DATA ascii", b"DATA binary_compressed")
    (tmp_path / "a.pcd").write_bytes(header + struct.pack("<II", 2, 12) + bytes([1 << 5, 9]))
    with pytest.raises(ScanError, match="compressed data is damaged"):
        list(open_scan(tmp_path / "a.pcd").chunks())
