"""Damage to every kind of scan, mesh and table, read in the bounded process: nothing may hang, grow or slip through.

    python -m benchmarks.fuzz_readers --mutations 10000

Each mutation flips, overwrites, cuts, repeats or swaps bytes of a small file that another library or hand-made bytes
made, then reads it whole in a process with limits of time and memory. Counted are files read, files refused, and
failures: a hang, memory over the limit, a crash, an error that is not ours, a message that does not name the file in
one line, or a result that is not whole. Prints JSON.
"""

from __future__ import annotations

import argparse
import gzip
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.machine import machine, tell
from pipeline.isolation import CallCrashedError, CallFailedError, CallLimits, IsolatedProcess
from preprocessing.errors import GeometryError

LIMITS = CallLimits(timeout_s=10.0, memory_bytes=2 * 2**30)
POINTS = 60


@dataclass(frozen=True)
class Verdict:
    """What became of one damaged file.

    Attributes:
        outcome: read, refused, or what failed: hang, memory, crash, foreign error, message.
        words: of the refusal or the failure.
    """

    outcome: str
    words: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether it must not happen."""
        return self.outcome not in ("read", "refused")


def samples(folder: Path) -> dict[str, bytes]:
    """A small sound file of each kind, by name."""
    import laspy
    import open3d as o3d
    import trimesh

    rng = np.random.default_rng(5)
    points = rng.normal(0, 3, (POINTS, 3))
    colors = rng.integers(0, 256, (POINTS, 3)).astype(np.uint8)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points))
    cloud.colors = o3d.utility.Vector3dVector(colors / 255.0)
    cloud.normals = o3d.utility.Vector3dVector(points / np.linalg.norm(points, axis=1, keepdims=True))
    for name, options in (
        ("ascii.ply", {"write_ascii": True}),
        ("binary.ply", {}),
        ("ascii.pcd", {"write_ascii": True}),
        ("binary.pcd", {}),
        ("packed.pcd", {"compressed": True}),
    ):
        o3d.io.write_point_cloud(str(folder / name), cloud, **options)
    np.save(folder / "plain.npy", points)
    np.save(folder / "fortran.npy", np.asfortranarray(np.c_[points, colors]))
    np.savez(folder / "stored.npz", points=points, colors=colors)
    np.savez_compressed(folder / "packed.npz", points=points, normals=points)
    np.savetxt(folder / "plain.xyz", np.c_[points, colors], fmt=["%.5f"] * 3 + ["%d"] * 3)
    np.savetxt(
        folder / "named.csv", np.c_[np.arange(POINTS), points], delimiter=",", header="id,x,y,z", comments=""
    )
    quoted = "".join(",".join(f'"{value:.4f}"' for value in row) + "\n" for row in points)
    (folder / "quoted.csv").write_text('"x","y","z"\n' + quoted)
    (folder / "wide.txt").write_bytes(
        ("X\tY\tZ\n" + quoted.replace('"', "").replace(",", "\t")).encode("utf-16")
    )
    (folder / "counted.pts").write_text(f"{POINTS}\n" + quoted.replace('"', "").replace(",", " "))
    head = f"{POINTS}\n1\n" + "0 0 0\n1 0 0\n0 1 0\n0 0 1\n" + "1 0 0 0\n0 1 0 0\n0 0 1 0\n5 6 7 1\n"
    rows = "".join(f"{x:.4f} {y:.4f} {z:.4f} 0.5\n" for x, y, z in points)
    (folder / "posed.ptx").write_text(head + rows)
    for name, kind in (("plain.las", 2), ("packed.laz", 2), ("new.laz", 7)):
        scan = laspy.create(point_format=kind)
        scan.header.scales = [1e-4] * 3
        scan.x, scan.y, scan.z = points.T
        scan.red, scan.green, scan.blue = (colors.astype(np.uint16) * 257).T
        scan.write(folder / name)
    _write_e57(folder / "scan.e57", points)
    tracked = [struct.pack("<Q3d3BdQ2i", n, *row, 1, 2, 3, 0.5, 1, 4, 5) for n, row in enumerate(points)]
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", POINTS) + b"".join(tracked))
    lines = [f"{x:.4f} {y:.4f} {z:.4f}" for x, y, z in points]
    (folder / "cloud.obj").write_text("".join(f"v {line}\n" for line in lines))
    box = trimesh.creation.icosphere(1)
    for name in ("mesh.obj", "mesh.off", "mesh.stl", "mesh.glb", "mesh.ply"):
        box.export(folder / name)
    strips = "ply\nformat binary_little_endian 1.0\nelement vertex 4\nproperty float x\nproperty float y\n"
    strips += "property float z\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "<f4")
    (folder / "mesh_strips.ply").write_bytes(
        strips.encode() + corners.tobytes() + np.array([4, 0, 1, 2, 3], "<i4").tobytes()
    )
    (folder / "packed.ply.gz").write_bytes(gzip.compress((folder / "binary.ply").read_bytes()))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _write_e57(path: Path, points: np.ndarray) -> None:
    try:
        import pye57
    except ImportError:
        return
    file = pye57.E57(str(path), mode="w")
    data = {f"cartesian{axis}": points[:, number] for number, axis in enumerate("XYZ")}
    file.write_scan_raw(data, rotation=np.array([1.0, 0, 0, 0]), translation=np.zeros(3))
    file.close()


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy of a file with one to four pieces of damage; half of them fall into its first kilobyte."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if not out:
            break
        reach = len(out) if rng.random() < 0.5 else min(len(out), 1024)
        place = int(rng.integers(reach))
        kind = int(rng.integers(7))
        if kind == 0:
            out[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[place] = int(rng.integers(256))
        elif kind == 2:  # extreme numbers of 4 and 8 bytes
            value = [b"\xff" * 4, b"\x7f" + b"\xff" * 7, b"\0" * 4, b"\xff" * 8, b"\0\0\xc0\x7f"][
                int(rng.integers(5))
            ]
            out[place : place + len(value)] = value
        elif kind == 3:
            del out[place:]
        elif kind == 4:
            size = int(rng.integers(1, 64))
            out[place:place] = out[place : place + size] * int(rng.integers(1, 5))
        elif kind == 5:
            del out[place : place + int(rng.integers(1, 32))]
        else:  # digits that become other, longer numbers
            out[place:place] = [b"9" * 15, b"-", b"1e999", b"nan", b" ", b"\n", b",", b'"', b"\0"][
                int(rng.integers(9))
            ]
    return bytes(out)


def read_whole(path: str) -> tuple[str, str]:
    """Read a file as its user would; runs in the bounded process. Returns the outcome and its words."""
    from preprocessing.meshes.files import read_mesh
    from preprocessing.scan_files import open_scan

    try:
        if Path(path).name.startswith("mesh"):
            mesh = read_mesh(Path(path))
            if not np.isfinite(mesh.vertices).all() or mesh.faces.max() >= len(mesh.vertices):
                return "accepted", "a mesh with vertices that are not finite or missing"
            return "read", ""
        reader = open_scan(Path(path))
        for chunk in reader.chunks():
            count = len(chunk.points)
            parts = (chunk.normals, chunk.colors, chunk.directions, chunk.classes)
            if chunk.points.shape != (count, 3) or any(
                part is not None and len(part) != count for part in parts
            ):
                return "accepted", "parts of different length"
    except GeometryError as error:
        words = str(error)
        if not words.startswith(path) or "\n" in words or len(words) > 1000:
            return "message", words
        return "refused", words
    return "read", ""


def verdicts(
    sound: dict[str, bytes], mutations: int, seed: int, folder: Path, limits: CallLimits = LIMITS
) -> Iterator[tuple[str, int, Verdict]]:
    """Damage files in turn and read them: name, number of the mutation, what became of it."""
    names = sorted(sound)
    process = IsolatedProcess(limits)
    try:
        for number in range(mutations):
            name = names[number % len(names)]
            path = folder / name
            path.write_bytes(damaged(sound[name], np.random.default_rng([seed, number])))
            yield name, number, _verdict(process.call, path)
    finally:
        process.close()


def _verdict(call: Callable[..., tuple[str, str]], path: Path) -> Verdict:
    from benchmarks import (
        fuzz_readers,
    )  # by a name that another process can import, also where this is __main__

    try:
        return Verdict(*call(fuzz_readers.read_whole, str(path)))
    except CallCrashedError as error:
        words = str(error)
        if "hung" in words:
            return Verdict("hang", words)
        # Native decoders may abort: in the product that is a refusal too, by the same bounded process.
        is_refusal = "native library" in words and path.suffix in (".las", ".laz", ".e57", ".glb")
        return Verdict("memory" if "memory" in words else "refused" if is_refusal else "crash", words)
    except CallFailedError as error:
        return Verdict("foreign error", str(error))


def main() -> None:
    """Run and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    arguments = parser.parse_args()
    started = time.monotonic()
    outcomes: Counter[str] = Counter()
    failures = []
    slowest = 0.0
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        before = time.monotonic()
        for name, number, verdict in verdicts(
            samples(Path(first)), arguments.mutations, arguments.seed, Path(second)
        ):
            slowest, before = max(slowest, time.monotonic() - before), time.monotonic()
            outcomes[verdict.outcome] += 1
            if verdict.is_failure:
                failures.append(
                    {"file": name, "mutation": number, "outcome": verdict.outcome, "words": verdict.words}
                )
    report = {
        "mutations": arguments.mutations,
        "seed": arguments.seed,
        "outcomes": dict(outcomes),
        "failures": failures[:50],
        "slowest_s": round(slowest, 2),
        "seconds": round(time.monotonic() - started, 1),
        "machine": machine(),
    }
    tell(report, arguments.output)


if __name__ == "__main__":
    main()
