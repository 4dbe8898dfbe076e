"""A cloud whose box and mean color are known, and independent ways to write it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocessing.errors import ScanError
from preprocessing.scan_files import ScanChunk, ScanOptions, open_scan

RNG = np.random.default_rng(17)
COUNT = 240
_SPHERE = RNG.normal(size=(COUNT, 3))
POINTS = np.array([10.0, 20.0, 5.0]) + 2.0 * _SPHERE / np.linalg.norm(_SPHERE, axis=1, keepdims=True)
COLORS = RNG.integers(0, 256, (COUNT, 3)).astype(np.uint8)
COLORS[0] = 255
NORMALS = (POINTS - [10.0, 20.0, 5.0]) / 2.0


def read(path: Path, options: ScanOptions | None = None, chunk: int = 70) -> ScanChunk:
    """The whole scan, read in several chunks."""
    chunks = list(open_scan(path, chunk, options).chunks())

    def joined(name: str) -> np.ndarray | None:
        parts = [getattr(part, name) for part in chunks if getattr(part, name) is not None]
        return np.concatenate(parts) if parts else None

    left_out: dict[str, int] = {}
    for part in chunks:
        for reason, count in part.left_out.items():
            left_out[reason] = left_out.get(reason, 0) + count
    points = joined("points")
    return ScanChunk(
        np.zeros((0, 3)) if points is None else points,
        joined("normals"),
        joined("colors"),
        joined("directions"),
        joined("classes"),
        left_out,
    )


def refusal(path: Path, options: ScanOptions | None = None) -> str:
    """What a scan is refused with; it names the file in one line."""
    try:
        read(path, options)
    except ScanError as error:
        assert path.name in str(error)
        assert "\n" not in str(error)
        return str(error)
    raise AssertionError(f"{path} was read")


def rows(*columns: np.ndarray, form: str = "%.6f", separator: str = " ") -> str:
    """Lines of text of some columns; whole-number arrays are written as such."""
    table = [column[:, None] if column.ndim == 1 else column for column in columns]
    lines = []
    for number in range(len(table[0])):
        words = []
        for column in table:
            for value in column[number]:
                if isinstance(value, str):
                    words.append(value)
                else:
                    words.append(str(int(value)) if column.dtype.kind in "iu" else form % value)
        lines.append(separator.join(words))
    return "\n".join(lines) + "\n"


def ply(
    columns: list[tuple[str, str]], body: bytes, count: int = COUNT, form: str = "binary_little_endian"
) -> bytes:
    """A PLY file of vertices: (type, name) of its properties and the bytes behind the header."""
    lines = ["ply", f"format {form} 1.0", f"element vertex {count}"]
    lines += [f"property {kind} {name}" for kind, name in columns]
    return "\n".join([*lines, "end_header", ""]).encode() + body


def packed(**columns: tuple[str, np.ndarray]) -> bytes:
    """Rows of a binary table: numpy type and values (N,) of each column."""
    table = np.zeros(
        len(next(iter(columns.values()))[1]), np.dtype([(name, kind) for name, (kind, _) in columns.items()])
    )
    for name, (_, values) in columns.items():
        table[name] = values
    return table.tobytes()


def pcd(
    fields: str, sizes: str, kinds: str, body: bytes, data: str = "binary", count: int = COUNT, **more: str
) -> bytes:
    """A PCD file; `more` replaces or (with '') removes lines of the header."""
    header = {
        "VERSION": "0.7",
        "FIELDS": fields,
        "SIZE": sizes,
        "TYPE": kinds,
        "COUNT": " ".join("1" for _ in fields.split()),
        "WIDTH": str(count),
        "HEIGHT": "1",
        "VIEWPOINT": "0 0 0 1 0 0 0",
        "POINTS": str(count),
    } | more
    lines = [f"{key} {value}" for key, value in header.items() if value]
    return "\n".join(["# .PCD v0.7", *lines, f"DATA {data}", ""]).encode() + body


def xyz(kind: str = "<f4") -> dict[str, tuple[str, np.ndarray]]:
    """Columns x, y, z for `packed`."""
    return {axis: (kind, POINTS[:, number]) for number, axis in enumerate("xyz")}


def rgb(kind: str, scale: float = 1.0) -> dict[str, tuple[str, np.ndarray]]:
    """Columns red, green, blue for `packed`, as bytes times a scale."""
    return {name: (kind, COLORS[:, n] * float(scale)) for n, name in enumerate(("red", "green", "blue"))}
