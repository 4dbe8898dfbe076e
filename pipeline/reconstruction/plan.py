"""The plan of a scene: one lattice, its tiles, their regions and crops. Pure integer geometry."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from convonet.surface.mise import MiseConfig
from foundation.errors import SettingError
from pipeline.reconstruction.config import ReconstructConfig
from preprocessing.errors import ScanError

MISE = MiseConfig(steps=(8, 4, 1))
PADDING_VOXELS = 8  # free space kept around the scan, so that the surface closes inside the scene
BOX_MARGIN_VOXELS = 2  # kept around a bounding box by the original: 0.01 of the unit cube at voxels of 0.005
UNBLENDED_VOXELS = (
    4  # a crop is as large without blending as with the usual band: as the original's, for its weights
)
LARGEST_CELLS = 1 << 19  # lattice keys hold 20 bits for each axis
# The pyramid ends where the network tells a closed surface from a sheet from anywhere inside it. (It could see 20
# voxels far; spheres of radius 6 it fills without hints, of 11 it does not.)
COARSEST_VOXELS = 12

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Box:
    """A box of lattice cells, half-open: `low` inclusive, `high` exclusive; x, y, z."""

    low: Triple
    high: Triple

    def grown(self, cells: int) -> Box:
        """The box with a margin on every side."""
        low = (self.low[0] - cells, self.low[1] - cells, self.low[2] - cells)
        return Box(low, (self.high[0] + cells, self.high[1] + cells, self.high[2] + cells))


@dataclass(frozen=True)
class ScenePlan:
    """How one scene is cut up.

    Attributes:
        origin: world position of lattice point (0, 0, 0), meters.
        voxel_size: meters.
        cells_per_voxel: lattice cells along a voxel.
        tile_voxels: sides of a tile along x, y, z; all tiles are equal.
        grid: number of tiles along x, y, z.
        halo_voxels: what a crop adds on every side of its tile.
        blend_voxels: half width of the blending band; also how far a crop is queried beyond its tile.
        level: of the pyramid; 0 is the finest, and each has voxels twice as large as the one before.
    """

    origin: tuple[float, float, float]
    voxel_size: float
    cells_per_voxel: int
    tile_voxels: Triple
    grid: Triple
    halo_voxels: int
    blend_voxels: int
    level: int = 0

    @property
    def start(self) -> Triple:
        """The origin in whole voxels from the world's: the voxels of all levels lie on one grid."""
        x, y, z = (round(value / self.voxel_size) for value in self.origin)
        return x, y, z

    @property
    def spacing(self) -> float:
        """Meters between neighboring lattice points."""
        return self.voxel_size / self.cells_per_voxel

    @property
    def tile_cells(self) -> Triple:
        """Lattice cells along a tile."""
        x, y, z = self.tile_voxels
        return x * self.cells_per_voxel, y * self.cells_per_voxel, z * self.cells_per_voxel

    @property
    def blend_cells(self) -> int:
        """Half width of the blending band in lattice cells."""
        return self.blend_voxels * self.cells_per_voxel

    @property
    def scene_cells(self) -> Triple:
        """Lattice cells along the scene: the scene's box is [0, scene_cells]."""
        cells, grid = self.tile_cells, self.grid
        return cells[0] * grid[0], cells[1] * grid[1], cells[2] * grid[2]

    @property
    def tile_count(self) -> int:
        """Tiles of the scene, occupied or not."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def crop_shape(self) -> Triple:
        """Voxels of a crop along z, y, x."""
        x, y, z = (side + 2 * self.halo_voxels for side in self.tile_voxels)
        return z, y, x

    @property
    def query_margin(self) -> int:
        """Voxels between the faces of a crop and the region in which it is queried."""
        band = max(self.blend_cells, MISE.steps[0])
        return max(0, self.halo_voxels + -band // self.cells_per_voxel)

    def position(self, tile: int) -> Triple:
        """Place of a tile in the grid."""
        x, rest = tile % self.grid[0], tile // self.grid[0]
        return x, rest % self.grid[1], rest // self.grid[1]

    def number(self, position: Triple) -> int | None:
        """Tile at a place of the grid, or None beyond it."""
        if any(not 0 <= place < count for place, count in zip(position, self.grid, strict=True)):
            return None
        return (position[2] * self.grid[1] + position[1]) * self.grid[0] + position[0]

    def tile_box(self, tile: int) -> Box:
        """The lattice cells that a tile owns."""
        x, y, z = self.position(tile)
        a, b, c = self.tile_cells
        return Box((x * a, y * b, z * c), ((x + 1) * a, (y + 1) * b, (z + 1) * c))

    def region_box(self, tile: int) -> Box:
        """The lattice cells in which a tile's crop is queried: the tile and the blending band.

        Without a band it is one coarse cell more all the same, so that a surface between two tiles is noticed.
        """
        return self.tile_box(tile).grown(max(self.blend_cells, MISE.steps[0]))

    def crop_low(self, tile: int) -> Triple:
        """Lowest voxel of a tile's crop."""
        x, y, z = self.position(tile)
        a, b, c = self.tile_voxels
        return x * a - self.halo_voxels, y * b - self.halo_voxels, z * c - self.halo_voxels

    def around(self, tile: int) -> list[int]:
        """The tile and its existing neighbors, in ascending order."""
        place = np.asarray(self.position(tile))
        return self._tiles_between(place - 1, place + 1)

    def under_crop(self, tile: int) -> list[int]:
        """The existing tiles that a tile's crop reaches, ascending: those around, and more where tiles are small."""
        place = np.asarray(self.position(tile))
        reach = np.array([max(1, -(-self.halo_voxels // side)) for side in self.tile_voxels])
        return self._tiles_between(place - reach, place + reach)

    def tiles_touching(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> list[int]:
        """Tiles whose region may hold a point of the closed box from voxel `low` to `high`, ascending."""
        sides, band = np.asarray(self.tile_voxels), self.blend_voxels
        return self._tiles_between((low - band) // sides, (high + band) // sides)

    def _tiles_between(self, low: NDArray[np.int64], high: NDArray[np.int64]) -> list[int]:
        """The existing tiles from one place of the grid to another, both included, in ascending order."""
        spans = [range(int(a), int(b) + 1) for a, b in zip(low, high, strict=True)]
        tiles = (self.number((x, y, z)) for z, y, x in itertools.product(*reversed(spans)))
        return [tile for tile in tiles if tile is not None]

    def voxel_position(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """World positions (N, 3) in voxel units of the scene."""
        return np.asarray((points - np.asarray(self.origin)) / self.voxel_size)

    def tile_of_points(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """The tile that holds each world position (N, 3)."""
        places = np.floor(self.voxel_position(points) / self.tile_voxels).astype(np.int64)
        return np.asarray((places[:, 2] * self.grid[1] + places[:, 1]) * self.grid[0] + places[:, 0])


def make_plan(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    voxel_size: float,
    config: ReconstructConfig,
    receptive_radius: int,
    pooling_factor: int,
    name: str,
    level: int = 0,
) -> ScenePlan:
    """Cut the box of a scan into equal tiles.

    Args:
        low, high: corners of the scan's bounding box, meters.
        voxel_size: meters.
        config: the request.
        receptive_radius: voxels around a query that the network's answer depends on.
        pooling_factor: crops start and end on multiples of this number of voxels.
        name: the scan's file name, for the error.
        level: of the pyramid.

    Raises:
        ScanError: if the scene is too wide for its voxel size.
        SettingError: if boxes of the asked size do not lie on the lattices of network and surface.
    """
    coarse_voxels = max(1, MISE.steps[0] // config.cells_per_voxel)
    grain = int(np.lcm(pooling_factor, coarse_voxels))
    if config.tiling == "box":
        origin = low - BOX_MARGIN_VOXELS * voxel_size
        extent = np.ceil((high - origin) / voxel_size + BOX_MARGIN_VOXELS)
    else:
        origin = (np.floor(low / voxel_size) - PADDING_VOXELS) * voxel_size
        extent = np.ceil((high - origin) / voxel_size) + PADDING_VOXELS
    if not extent.max() * config.cells_per_voxel < LARGEST_CELLS:
        wide = float((high - low).max())
        raise ScanError(
            f"{name}: {wide:,.0f} m wide is too much for a voxel of {voxel_size:.4g} m; "
            "check the scan's unit and stray points, or pass a larger --voxel-size"
        )
    extent = extent.astype(np.int64)
    counts = -(-extent // config.max_tile_voxels)
    if config.tiling == "box":
        if config.max_tile_voxels % grain:
            raise SettingError(
                f"boxes of {config.max_tile_voxels} voxels do not lie on the network's lattice; with "
                f"{config.cells_per_voxel} cells along a voxel pass --query-voxels as a multiple of {grain}"
            )
        sides = np.full(3, config.max_tile_voxels)
    else:
        sides = -(-extent // (counts * grain)) * grain
        sides = np.maximum(sides, -(-4 * config.blend_voxels // grain) * grain)
    halo = -(-(receptive_radius + (config.blend_voxels or UNBLENDED_VOXELS)) // grain) * grain
    return ScenePlan(
        origin=(float(origin[0]), float(origin[1]), float(origin[2])),
        voxel_size=voxel_size,
        cells_per_voxel=config.cells_per_voxel,
        tile_voxels=(int(sides[0]), int(sides[1]), int(sides[2])),
        grid=(int(counts[0]), int(counts[1]), int(counts[2])),
        halo_voxels=halo,
        blend_voxels=config.blend_voxels,
        level=level,
    )


def make_pyramid(
    low: NDArray[np.float64],
    high: NDArray[np.float64],
    voxel_size: float,
    config: ReconstructConfig,
    receptive_radius: int,
    pooling_factor: int,
    name: str,
) -> tuple[ScenePlan, ...]:
    """The plans of all levels, finest first: voxels double until the scan is `COARSEST_VOXELS` wide.

    Args and errors: as `make_plan`.
    """
    plans: list[ScenePlan] = []
    while True:
        level = len(plans)
        size = voxel_size * 2.0**level
        plans.append(make_plan(low, high, size, config, receptive_radius, pooling_factor, name, level))
        if float((high - low).max()) <= COARSEST_VOXELS * size:
            return tuple(plans)
