"""What binary glTF 2.0 files begin with: the container, the scene's node, the format's numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

FLOAT, UNSIGNED_BYTE, UNSIGNED_INT = 5126, 5121, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
CONTAINER_BYTES = 12 + 8 + 8  # the file's head and those of its two parts, JSON and binary
_MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942


def scene_at(origin: Sequence[float]) -> dict[str, Any]:
    """A scene with mesh 0 at `origin` (metres), turned from z up to the format's y up."""
    half = 0.5**0.5
    return {
        "asset": {"version": "2.0", "generator": "Tessera"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"rotation": [-half, 0.0, 0.0, half], "children": [1]},
            {"translation": list(origin), "mesh": 0},
        ],
    }


def write_head(
    file: BinaryIO, content: Mapping[str, Any], binary_bytes: int, json_bytes: int | None = None
) -> None:
    """Write everything before the binary part.

    Args:
        file: stands at its beginning.
        content: the JSON part, of finite numbers.
        binary_bytes: size of the binary part, a multiple of 4.
        json_bytes: room for the JSON part, a multiple of 4; as much as it needs by default.
    """
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    room = len(text) + -len(text) % 4 if json_bytes is None else json_bytes
    assert len(text) <= room
    file.write(struct.pack("<III", _MAGIC, 2, CONTAINER_BYTES + room + binary_bytes))
    file.write(struct.pack("<II", room, _JSON) + text.ljust(room))
    file.write(struct.pack("<II", binary_bytes, _BINARY))


def opaque(colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours (V, 3) with full opacity (V, 4), which keeps vertices aligned to 4 bytes."""
    padded = np.full((len(colors), 4), 255, np.uint8)
    padded[:, :3] = colors
    return padded
