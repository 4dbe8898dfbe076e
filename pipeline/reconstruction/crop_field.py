"""One crop's field: encode its points once, then answer for any lattice point of its region."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from convonet.crop_network import CropNetwork
from convonet.precision import choose_device, network_precision
from convonet.weights import load_network
from pipeline.reconstruction.plan import ScenePlan

POINTS_PER_CELL = 4  # scans denser than this per lattice cell are thinned: more only costs time
QUERY_BATCH = 131_072


@lru_cache(maxsize=1)
def network_on(model: str, device: str) -> tuple[CropNetwork, torch.device]:
    """The network of a weights file, loaded once for each worker process."""
    place = choose_device(device)
    if place.type == "cpu":
        torch.set_num_threads(1)
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


class CropField:
    """Values (logit minus the threshold's logit) of one tile's crop at lattice points.

    Args:
        network: on `device`.
        device: where it runs.
        plan: the scene's plan.
        tile: whose crop this is.
        voxel_positions: (N, 3) float64 scan points in voxel units of the scene, inside the crop.
        threshold: occupancy probability at the surface.
    """

    def __init__(
        self,
        network: CropNetwork,
        device: torch.device,
        plan: ScenePlan,
        tile: int,
        voxel_positions: NDArray[np.float64],
        threshold: float,
    ) -> None:
        x, y, z = (np.asarray(plan.origin) / plan.voxel_size).tolist()
        self._network = network.at_origin((x, y, z))
        self._device = device
        self._cells_per_voxel = plan.cells_per_voxel
        self._low = np.asarray(plan.crop_low(tile), dtype=np.float64)
        self._level = float(np.log(threshold / (1 - threshold)))
        local = torch.from_numpy((voxel_positions - self._low).astype(np.float32))
        limits = torch.tensor(plan.crop_shape[::-1], dtype=torch.float32)
        local = torch.minimum(local.clamp_min(0), torch.nextafter(limits, torch.zeros(3))).to(device)
        batch_index = torch.zeros(len(local), dtype=torch.int64, device=device)
        with torch.inference_mode(), network_precision(device):
            self._features = self._network.encode(local, batch_index, 1, plan.crop_shape)

    def __call__(self, lattice_points: NDArray[np.int64]) -> NDArray[np.float32]:
        """Values (N,) float32 at lattice points (N, 3)."""
        queries = (lattice_points / self._cells_per_voxel - self._low).astype(np.float32)
        values = np.empty(len(queries), np.float32)
        for start in range(0, len(queries), QUERY_BATCH):
            part = torch.from_numpy(queries[start : start + QUERY_BATCH]).to(self._device)
            index = torch.zeros(len(part), dtype=torch.int64, device=self._device)
            with torch.inference_mode(), network_precision(self._device):
                logits = self._network.decode(self._features, part, index)
            values[start : start + len(part)] = logits.float().cpu().numpy()
        return values - np.float32(self._level)
