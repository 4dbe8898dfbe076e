"""What a reconstruction is asked to do, and the hash that tells two such requests apart; light to import."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from convonet import DEFAULT_MODEL
from foundation.errors import SettingError
from foundation.settings import check_choices
from preprocessing.scan_files.options import ScanOptions

if TYPE_CHECKING:
    from convonet.crop_network import CropNetwork

Tiling = Literal["lattice", "box"]


@dataclass(frozen=True)
class ReconstructConfig:
    """Settings that decide the mesh.

    Attributes:
        model: name of packaged weights (see `tessera models`) or safetensors file, of the preset volume, crop_1plane,
            crop_3plane, crop_combine or crop_room_grid64.
        voxel_size: side of a feature voxel in meters; by default from the spacing and the noise of the scan, with
            imported weights from the scene's size.
        scene_size: side in meters of the unit cube of imported weights, which fixes their voxel; by default the scan's
            longest.
        threshold: occupancy probability at the surface, between 0 and 1; lower values close more gaps and thicken
            walls; by default the network's own.
        cells_per_voxel: lattice cells along each side of a voxel: 1, 2, 4 or 8.
        max_tile_voxels: longest side of a tile in voxels; memory grows with its cube.
        query_voxels: side of the box evaluated in one crop, in voxels, by default the network's own; a crop adds the
            network's receptive field around it.
        blend_voxels: half width in voxels of the band in which neighboring crops are blended; 0 for none, as in the
            original.
        fit_radius: radius in voxels over which scan points are averaged to place the surface, at most 2; 0 for the
            network alone; by default from the noise of the scan.
        trim: distance in voxels from every scan point beyond which a vertex counts as guessed.
        tiling: origin of the tiles; box: the scan's lowest corner, with tiles of exactly QUERY_VOXELS, as in the
            original; lattice: multiples of the voxel size, with free space around the scan.
        drop_invalid: omission of points that are not finite, which otherwise refuse the scan.
        reading: how the scan's files are read.
    """

    model: str = DEFAULT_MODEL
    voxel_size: float | None = None
    scene_size: float | None = None
    threshold: float | None = None
    cells_per_voxel: int = 2
    max_tile_voxels: int = 112
    query_voxels: int | None = None
    blend_voxels: int = 4
    fit_radius: float | None = None
    trim: float = 1.5
    tiling: Tiling = "lattice"
    drop_invalid: bool = False
    reading: ScanOptions = field(default_factory=ScanOptions)

    def __post_init__(self) -> None:
        check_choices(self)
        for name, size in (("voxel", self.voxel_size), ("scene", self.scene_size)):
            if size is not None and not (0 < size < float("inf")):
                raise SettingError(f"{name} size must be a positive number of meters, not {size}")
        if self.scene_size is not None and self.voxel_size is not None:
            raise SettingError(
                "the voxel size follows from the scene size; pass --voxel-size or --scene-size"
            )
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise SettingError(f"threshold is a probability between 0 and 1, not {self.threshold}")
        if self.fit_radius is not None and not 0 <= self.fit_radius <= 2:
            raise SettingError(f"fit_radius must lie between 0 and 2 voxels, not {self.fit_radius}")
        if not 0 < self.trim <= 100:
            raise SettingError(f"trim must be a positive number of voxels, at most 100, not {self.trim}")
        if self.cells_per_voxel not in (1, 2, 4, 8):
            raise SettingError(f"cells_per_voxel must be 1, 2, 4 or 8, not {self.cells_per_voxel}")
        if self.query_voxels is not None and self.query_voxels < 1:
            raise SettingError(f"a box of queries has at least 1 voxel, not {self.query_voxels}")
        if self.blend_voxels < 0:
            raise SettingError(f"blend_voxels must not be negative, not {self.blend_voxels}")
        if self.blend_voxels * self.cells_per_voxel % 8:
            raise SettingError(
                "the blend band must span whole coarse cells: blend_voxels * cells_per_voxel % 8 == 0"
            )
        if self.max_tile_voxels < max(1, 4 * self.blend_voxels):
            raise SettingError(f"max_tile_voxels must be at least {max(1, 4 * self.blend_voxels)}")

    def for_network(self, network: CropNetwork, longest_side: float) -> ReconstructConfig:
        """The same settings with everything that a network decides where the user does not.

        Args:
            network: that reconstructs.
            longest_side: of the scan's bounding box, meters.

        Returns:
            With a threshold, the sides of tiles, and, for networks that were trained in a unit cube, the voxel size.

        Raises:
            SettingError: if a scene size is given for a network of any scale.
        """
        if network.voxel_side is None and self.scene_size is not None:
            raise SettingError(
                "this network was not trained in a unit cube, so a scene size says nothing; pass --voxel-size"
            )
        voxel_size = self.voxel_size
        if network.voxel_side is not None and voxel_size is None:
            voxel_size = network.voxel_side * (self.scene_size or longest_side)
        tile = min(self.max_tile_voxels, self.query_voxels or network.tile_voxels)
        return replace(
            self,
            voxel_size=voxel_size,
            scene_size=None,
            threshold=network.threshold if self.threshold is None else self.threshold,
            max_tile_voxels=max(tile, 4 * self.blend_voxels),
        )


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
