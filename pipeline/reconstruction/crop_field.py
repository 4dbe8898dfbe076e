"""One crop's field: the network near the scan's points, the coarser level far from them, fitted to the points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from convonet.crop_network import CropNetwork
from convonet.layers.point_encoder import SHEET_VOXELS, PointHints
from convonet.precision import choose_device, network_precision
from convonet.weights import load_network
from pipeline.allocator import keep_freed_memory
from pipeline.reconstruction.blending import OUTSIDE
from pipeline.reconstruction.coarse_field import CoarseBlock
from pipeline.reconstruction.plan import ScenePlan
from pipeline.reconstruction.scan_fit import band_around, cell_means, fit_distances
from pipeline.reconstruction.trust import Trust

POINTS_PER_CELL = 4  # scans denser than this per lattice cell are thinned: more only costs time
QUERY_BATCH = 131_072
LARGEST_LOGIT = 8.0  # beyond which values of two levels are not told apart before they are mixed


@lru_cache(maxsize=1)
def network_on(model: str, device: str) -> tuple[CropNetwork, torch.device]:
    """The network of a weights file, loaded once for each worker process."""
    place = choose_device(device)
    if place.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    return load_network(model).to(place), place


def thin_points(lattice_positions: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rows to keep so that no lattice cell holds more than `POINTS_PER_CELL` points: the first of each cell.

    Args:
        lattice_positions: (N, 3) in lattice units.

    Returns:
        ascending row numbers.
    """
    cells = np.floor(lattice_positions).astype(np.int64)
    cells -= cells.min(axis=0, initial=0)
    span = cells.max(axis=0, initial=0) + 1
    keys = (cells[:, 0] * span[1] + cells[:, 1]) * span[2] + cells[:, 2]
    order = np.argsort(keys, kind="stable")
    sorted_keys = keys[order]
    rank = np.arange(len(keys)) - np.searchsorted(sorted_keys, sorted_keys)
    return np.sort(order[rank < POINTS_PER_CELL])


@dataclass(frozen=True)
class CropPoints:
    """The scan's points in a crop.

    Attributes:
        positions: (N, 3) float64 in voxel units of the scene.
        directions: (N, 3) float32 unit vectors to the free side, zero where unknown.
    """

    positions: NDArray[np.float64]
    directions: NDArray[np.float32]

    def thinned(self, cells_per_voxel: int) -> CropPoints:
        """See `thin_points`."""
        kept = thin_points(self.positions * cells_per_voxel)
        return CropPoints(self.positions[kept], self.directions[kept])


class CropField:
    """Logits of one tile's crop at any position.

    Args:
        network: on `device`.
        device: where it runs.
        plan: of the level.
        tile: whose crop this is.
        points: those inside the crop, thinned; none where the coarser level decides everything.
        coarse: the coarser level around the crop; None at the coarsest, and where the network knows one level only.
    """

    def __init__(
        self,
        network: CropNetwork,
        device: torch.device,
        plan: ScenePlan,
        tile: int,
        points: CropPoints,
        coarse: CoarseBlock | None,
    ) -> None:
        x, y, z = (np.asarray(plan.origin) / plan.voxel_size).tolist()
        self._network = network.at_origin((x, y, z))
        self._device, self._coarse = device, coarse
        self._low = np.asarray(plan.crop_low(tile), dtype=np.float64)
        self._trust: Trust | None = None
        self._features = None
        if not len(points.positions):
            return
        shape = plan.crop_shape[::-1]
        local = np.clip(points.positions - self._low, 0, np.nextafter(shape, 0))
        if coarse is not None:
            self._trust = Trust(local, shape)
        unknown = ~points.directions.any(axis=1)
        directions = points.directions.copy()
        if coarse is not None and unknown.any():
            directions[unknown] = coarse.directions(points.positions[unknown])
        limits = torch.nextafter(torch.tensor(shape, dtype=torch.float32), torch.zeros(3))
        inputs = torch.minimum(torch.from_numpy(local.astype(np.float32)), limits).to(device)
        sheets = torch.full((len(local),), SHEET_VOXELS / 2.0**plan.level, device=device)
        hints = PointHints(torch.from_numpy(directions).to(device), sheets)
        batch_index = torch.zeros(len(local), dtype=torch.int64, device=device)
        with torch.inference_mode(), network_precision(device):
            self._features = self._network.encode(
                inputs, batch_index, 1, plan.crop_shape, hints, plan.query_margin
            )

    def at(self, positions: NDArray[np.float64]) -> NDArray[np.float32]:
        """Logits (N,) at positions (N, 3) in voxel units of the scene."""
        if self._features is None:
            return self._elsewhere(positions)
        if self._trust is None:
            return self._decoded(positions)
        trust = self._trust.at(positions - self._low)
        values = np.empty(len(positions), np.float32)
        near, far = trust > 0, trust < 1
        values[near] = self._decoded(positions[near])
        mixed = near & far
        own = np.clip(values[mixed], -LARGEST_LOGIT, LARGEST_LOGIT)
        values[far] = self._elsewhere(positions[far])
        values[mixed] = trust[mixed] * own + (1 - trust[mixed]) * values[mixed]
        return values

    def _elsewhere(self, positions: NDArray[np.float64]) -> NDArray[np.float32]:
        if self._coarse is None:
            return np.full(len(positions), OUTSIDE, np.float32)
        return np.clip(self._coarse.at(positions), -LARGEST_LOGIT, LARGEST_LOGIT)

    def _decoded(self, positions: NDArray[np.float64]) -> NDArray[np.float32]:
        queries = (positions - self._low).astype(np.float32)
        values = np.empty(len(queries), np.float32)
        for start in range(0, len(queries), QUERY_BATCH):
            part = torch.from_numpy(queries[start : start + QUERY_BATCH]).to(self._device)
            index = torch.zeros(len(part), dtype=torch.int64, device=self._device)
            with torch.inference_mode(), network_precision(self._device):
                logits = self._network.decode(self._features, part, index)
            values[start : start + len(part)] = logits.float().cpu().numpy()
        return values


class LatticeField:
    """Values (logit minus the threshold's logit) of a crop's field at lattice points, fitted to the scan.

    Args:
        field: of the finest level.
        plan: of the finest level.
        tile: whose region is asked about.
        threshold: occupancy probability at the surface.
    """

    def __init__(self, field: CropField, plan: ScenePlan, tile: int, threshold: float) -> None:
        self._field, self._cells_per_voxel = field, plan.cells_per_voxel
        region = plan.region_box(tile)
        self._low = np.asarray(region.low)
        self._shape = tuple((np.asarray(region.high) - self._low + 1).tolist())
        self._level = np.float32(np.log(threshold / (1 - threshold)))
        self._fitted: NDArray[np.float32] | None = None

    def fit(self, positions: NDArray[np.float64], logits_per_voxel: float, radius: float) -> None:
        """Move the field near the points to where these lie; see `scan_fit`.

        Args:
            positions: (N, 3) all the crop's points, in voxel units of the scene.
            logits_per_voxel: slope of the network's logit across a surface.
            radius: of the fit, in voxels.
        """
        means, counts = cell_means(positions * self._cells_per_voxel)
        local = means - self._low
        band = np.argwhere(band_around(np.floor(local).astype(np.int64), self._shape))
        if not len(band):
            return
        values = self._field.at((band + self._low) / self._cells_per_voxel) - self._level
        distances = np.full(self._shape, np.nan, np.float32)
        distances[tuple(band.T)] = values / np.float32(-logits_per_voxel)
        fitted = fit_distances(distances, local, counts, self._cells_per_voxel, radius)
        self._fitted = fitted * np.float32(-logits_per_voxel)

    def __call__(self, lattice_points: NDArray[np.int64]) -> NDArray[np.float32]:
        """Values (N,) float32 at lattice points (N, 3) of the tile's region."""
        if self._fitted is None:
            return self._asked(lattice_points)
        values = self._fitted[tuple((lattice_points - self._low).T)]
        unknown = np.isnan(values)
        values[unknown] = self._asked(lattice_points[unknown])
        return np.asarray(values, np.float32)

    def _asked(self, lattice_points: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self._field.at(lattice_points / self._cells_per_voxel) - self._level, np.float32)
