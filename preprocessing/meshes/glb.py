"""What binary glTF 2.0 files begin with: the container, the scene's node, the format's numbers."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from preprocessing.errors import MeshError

FLOAT, UNSIGNED_BYTE, UNSIGNED_INT = 5126, 5121, 5125
ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
CONTAINER_BYTES = 12 + 8 + 8  # the file's head and those of its two parts, JSON and binary
_MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
LARGEST_JSON = 1 << 28
# Extensions that may be required without changing where the surface is.
_HARMLESS = ("KHR_materials_", "KHR_texture_", "KHR_lights_", "EXT_texture_", "KHR_xmp", "MSFT_texture_")
_COMPRESSED = {
    "KHR_draco_mesh_compression": "Draco compression",
    "EXT_meshopt_compression": "meshopt compression",
    "KHR_meshopt_compression": "meshopt compression",
    "KHR_mesh_quantization": "quantization",
}


def scene_at(origin: Sequence[float]) -> dict[str, Any]:
    """A scene with mesh 0 at `origin` (meters), turned from z up to the format's y up."""
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
    """Colors (V, 3) with full opacity (V, 4), which keeps vertices aligned to 4 bytes."""
    padded = np.full((len(colors), 4), 255, np.uint8)
    padded[:, :3] = colors
    return padded


def read_content(path: Path) -> dict[str, Any]:
    """The JSON part of a GLB file, checked for what its geometry needs.

    Raises:
        MeshError: if it is no binary glTF 2.0, is truncated, or requires an extension that is not read.
    """
    with path.open("rb") as file:
        head = file.read(20)
        if len(head) < 20 or struct.unpack_from("<I", head)[0] != _MAGIC:
            raise MeshError(
                f"{path}: cannot be read as a mesh (it is no GLB file); check its suffix or export it again"
            )
        version, length, room, kind = struct.unpack_from("<IIII", head, 4)
        if version != 2 or kind != _JSON:
            raise MeshError(
                f"{path}: cannot be read as a mesh (glTF version {version}); export it as GLB 2.0"
            )
        size = path.stat().st_size
        if length > size or room > size or room > LARGEST_JSON:
            raise MeshError(f"{path}: is truncated: {size:,} of {length:,} bytes; copy or export it again")
        text = file.read(room)
    try:
        content = json.loads(text)
        required = list(content.get("extensionsRequired", []))
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in required):
            raise ValueError("its description is no object")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise MeshError(f"{path}: cannot be read as a mesh ({error}); copy or export it again") from error
    for name in required:
        if not name.startswith(_HARMLESS):
            what = f" ({_COMPRESSED[name]})" if name in _COMPRESSED else ""
            raise MeshError(
                f"{path}: needs the extension {name}{what}, which is not read; save it without, for example with: "
                "npx @gltf-transform/cli copy in.glb out.glb"
            )
    return content


def to_z_up(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions or normals (N, 3) turned from the format's y up to z up, the inverse of `scene_at`."""
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)
