"""What a reconstruction is asked to do, and the hash that tells two such requests apart."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from convonet.weights import DEFAULT_MODEL
from preprocessing.scan_files import ScanOptions


@dataclass(frozen=True)
class ReconstructConfig:
    """Settings that decide the mesh; where it is computed is not among them.

    Attributes:
        model: a packaged model's name or a safetensors file.
        voxel_size: metres along a feature voxel; None takes it from the scan's point spacing.
        threshold: occupancy probability at the surface; lower closes more gaps and thickens more.
        cells_per_voxel: lattice cells along a voxel, a power of two.
        max_tile_voxels: longest side of a tile; memory grows with its cube.
        blend_voxels: half width of the band in which neighbouring crops are blended.
        fit_radius: voxels over which scan points are averaged to place the surface; 0 leaves it to the network.
        drop_invalid: ignore points that are not finite instead of refusing the scan.
        reading: how the scan's files are read: unit, axes, columns, classes, stations.
    """

    model: str = DEFAULT_MODEL
    voxel_size: float | None = None
    threshold: float = 0.5
    cells_per_voxel: int = 2
    max_tile_voxels: int = 112
    blend_voxels: int = 4
    fit_radius: float = 0.6
    drop_invalid: bool = False
    reading: ScanOptions = field(default_factory=ScanOptions)

    def __post_init__(self) -> None:
        if self.voxel_size is not None and not (0 < self.voxel_size < float("inf")):
            raise ValueError(f"voxel size must be a positive number of metres, not {self.voxel_size}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, not {self.threshold}")
        if not 0 <= self.fit_radius <= 1:
            raise ValueError(f"fit_radius must lie between 0 and 1 voxel, not {self.fit_radius}")
        if self.cells_per_voxel not in (1, 2, 4, 8):
            raise ValueError(f"cells_per_voxel must be 1, 2, 4 or 8, not {self.cells_per_voxel}")
        if self.blend_voxels * self.cells_per_voxel % 8:
            raise ValueError(
                "the blend band must span whole coarse cells: blend_voxels * cells_per_voxel % 8 == 0"
            )
        if self.max_tile_voxels < 4 * self.blend_voxels:
            raise ValueError(f"max_tile_voxels must be at least {4 * self.blend_voxels}")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def request_hash(config: ReconstructConfig, files: Sequence[Path], model_file: Path) -> str:
    """Identity of a run: the settings and the contents of the scan's files and the weights, not their paths."""
    settings = asdict(config) | {
        "model": file_digest(model_file),
        "scan": [file_digest(file) for file in files],
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
