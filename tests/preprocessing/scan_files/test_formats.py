"""Readers against files that other libraries wrote."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np
import open3d as o3d
import pytest

from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk, open_scan, write_scan_ply
from tests.data_files import shared_data

RNG = np.random.default_rng(11)
POINTS = RNG.normal(0, 3, (700, 3))
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
COLORS = RNG.integers(0, 256, (700, 3)).astype(np.uint8)


def read(path: Path, chunk: int = 250) -> ScanChunk:
    """The whole scan, read in several chunks."""
    chunks = list(open_scan(path, chunk).chunks())
    assert all(len(part.points) <= chunk for part in chunks)
    normals = [part.normals for part in chunks if part.normals is not None]
    colors = [part.colors for part in chunks if part.colors is not None]
    return ScanChunk(
        np.concatenate([part.points for part in chunks]),
        np.concatenate(normals) if normals else None,
        np.concatenate(colors) if colors else None,
    )


def open3d_cloud() -> o3d.geometry.PointCloud:
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(POINTS))
    cloud.normals = o3d.utility.Vector3dVector(NORMALS)
    cloud.colors = o3d.utility.Vector3dVector(COLORS / 255.0)
    return cloud


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ply", {"write_ascii": True}),
        ("a.ply", {}),
        ("a.pcd", {"write_ascii": True}),
        ("a.pcd", {}),
        ("a.pcd", {"compressed": True}),
    ],
    ids=["ply ascii", "ply binary", "pcd ascii", "pcd binary", "pcd compressed"],
)
def test_ply_and_pcd_from_open3d(name: str, options: dict[str, bool], tmp_path: Path) -> None:
    assert o3d.io.write_point_cloud(str(tmp_path / name), open3d_cloud(), **options)
    found = read(tmp_path / name)
    # PCD keeps single precision; Open3D writes text PLY with six digits.
    np.testing.assert_allclose(found.points, POINTS, rtol=6e-6, atol=2e-6)
    assert found.normals is not None
    assert found.colors is not None
    np.testing.assert_allclose(found.normals, NORMALS, rtol=6e-6, atol=2e-6)
    np.testing.assert_array_equal(found.colors, COLORS)


def test_big_endian_ply(tmp_path: Path) -> None:
    header = "ply\nformat binary_big_endian 1.0\nelement vertex 700\n"
    header += "".join(f"property float {axis}\n" for axis in "xyz") + "property uchar quality\nend_header\n"
    rows = np.zeros(700, np.dtype([("p", ">f4", (3,)), ("q", "u1")]))
    rows["p"] = POINTS
    (tmp_path / "a.ply").write_bytes(header.encode() + rows.tobytes())
    np.testing.assert_array_equal(read(tmp_path / "a.ply").points, POINTS.astype(np.float32))


def test_our_ply_keeps_double_precision_far_from_the_origin(tmp_path: Path) -> None:
    far = POINTS + 5_000_000.123
    write_scan_ply(tmp_path / "a.ply", far, NORMALS, COLORS)
    found = read(tmp_path / "a.ply")
    np.testing.assert_array_equal(found.points, far)
    cloud = o3d.io.read_point_cloud(str(tmp_path / "a.ply"))
    np.testing.assert_array_equal(np.asarray(cloud.points), far)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_las_from_laspy(suffix: str, tmp_path: Path) -> None:
    cloud = laspy.create(point_format=2)
    cloud.header.scales, cloud.header.offsets = [1e-4] * 3, [5_000_000.0, 400_000.0, 0.0]
    far = POINTS + np.array([5_000_000.0, 400_000.0, 0.0])
    cloud.x, cloud.y, cloud.z = far.T
    cloud.red, cloud.green, cloud.blue = (COLORS.astype(np.uint16) * 257).T
    cloud.write(tmp_path / f"a{suffix}")
    found = read(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found.points, far, rtol=0, atol=0.5001e-4)
    np.testing.assert_array_equal(found.colors, COLORS)


@pytest.mark.parametrize("separator", [" ", ",", ";", "\t"])
def test_text_with_any_separator_and_extra_columns(separator: str, tmp_path: Path) -> None:
    table = np.concatenate([POINTS, COLORS], axis=1)
    np.savetxt(
        tmp_path / "a.txt",
        table,
        delimiter=separator,
        header="made by a scanner",
        fmt=["%.9f"] * 3 + ["%d"] * 3,
    )
    found = read(tmp_path / "a.txt")
    np.testing.assert_allclose(found.points, POINTS, atol=1e-8)
    np.testing.assert_array_equal(found.colors, COLORS)


def test_text_columns_by_their_names(tmp_path: Path) -> None:
    np.savetxt(
        tmp_path / "a.csv",
        np.c_[COLORS[:, 0], POINTS[:, ::-1]],
        delimiter=",",
        header="intensity,z,y,x",
        comments="",
    )
    np.testing.assert_allclose(read(tmp_path / "a.csv").points, POINTS)


def test_numpy_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=POINTS, normals=NORMALS, colors=COLORS)
    found = read(tmp_path / "a.npz")
    np.testing.assert_array_equal(found.points, POINTS)
    np.testing.assert_array_equal(found.colors, COLORS)
    np.save(tmp_path / "b.npy", POINTS)
    np.testing.assert_array_equal(read(tmp_path / "b.npy").points, POINTS)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", points=np.array([{"x": 1}], dtype=object))
    with pytest.raises(ScanError, match=r"a\.npz"):
        open_scan(tmp_path / "a.npz")


def writers() -> dict[str, bytes]:
    """One small file of each binary format."""
    import tempfile

    files = {}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_scan_ply(base / "a.ply", POINTS, NORMALS)
        o3d.io.write_point_cloud(str(base / "b.pcd"), open3d_cloud())
        o3d.io.write_point_cloud(str(base / "c.pcd"), open3d_cloud(), compressed=True)
        np.savez(base / "d.npz", points=POINTS)
        for name in ("e.las", "f.laz"):
            cloud = laspy.create(point_format=0)
            cloud.header.scales = [1e-4] * 3
            cloud.x, cloud.y, cloud.z = POINTS.T
            cloud.write(base / name)
        for path in base.iterdir():
            files[path.name] = path.read_bytes()
    return files


FILES = writers()


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_binary_file_cut_anywhere_is_refused_by_name(name: str, tmp_path: Path) -> None:
    data = FILES[name]
    seed = int(np.random.default_rng().integers(1 << 30))
    print("seed", seed)
    cuts = {
        1,
        10,
        len(data) // 2,
        len(data) - 1,
        *np.random.default_rng(seed).integers(1, len(data), 20).tolist(),
    }
    for cut in sorted(cuts):
        path = tmp_path / name
        path.write_bytes(data[:cut])
        with pytest.raises(ScanError, match=name.replace(".", r"\.")):
            read(path)


@pytest.mark.parametrize(
    ("file", "points"),
    [("pcl_room_scan/room_scan1.pcd", 112_586), ("tum_fr1_rpy/tum_fr1_rpy_fused_1cm.ply", 583_167)],
)
def test_real_scans_equal_open3ds_reading(file: str, points: int) -> None:
    path = shared_data(f"scans/{file}")
    found = read(path, 100_000)
    assert len(found.points) == points
    np.testing.assert_allclose(found.points, np.asarray(o3d.io.read_point_cloud(str(path)).points), atol=1e-6)


def test_the_real_laz_starts_where_its_header_says() -> None:
    path = shared_data("scans/royal_exhibition_building/reb_full_5mm.laz")
    reader = open_scan(path, 50_000)
    assert reader.count == 18_013_602
    first = next(reader.chunks())
    with laspy.open(path) as file:
        assert (first.points >= np.array(file.header.mins) - 1e-6).all()
        assert (first.points <= np.array(file.header.maxs) + 1e-6).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", b"", "0 bytes"),
        ("a.xyz", b"1 2 3\n4 5\n", "line 2"),
        ("a.xyz", b"# nothing\n", "holds no points"),
        ("a.xyz", b"one two three\n", "holds no points"),
        ("a.stl", b"solid", "mesh format"),
        ("a.foo", b"1", "unknown scan format"),
        (
            "a.ply",
            b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n2\n",
            "no x, y and z",
        ),
    ],
)
def test_what_cannot_be_read_says_why(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScanError, match=message) as error:
        read(tmp_path / name)
    assert name in str(error.value)
