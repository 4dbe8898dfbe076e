"""A room from a network of crops: a window slides over it, each crop decides about the box in its middle.

Peng et al. 2020, section 3.4. Neighbouring crops do not agree to the bit, as their group norms see other voxels; but
every lattice point belongs to one crop, so the surface is closed all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from convonet.conv_onet import ConvOnet, ConvOnetConfig, CropInputs
from convonet.conv_onet.local_decoder import sample_grid
from convonet.object_mesh import ExtractionConfig
from convonet.precision import network_precision
from pipeline.generation.generator import Generator
from pipeline.generation.results import Shape

EMPTY = -30.0  # logit where a crop sees no point


@dataclass(frozen=True)
class Crop:
    """One step of the window.

    Attributes:
        rows: for each axis the half-open range of lattice points in the crop's box.
        lower, upper: (3,) corners of what the network sees, in the unit cube.
    """

    rows: tuple[slice, slice, slice]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


def crops_of(config: ConvOnetConfig, extraction: ExtractionConfig) -> Iterator[Crop]:
    """Boxes side by side over the padded cube, each with what its crop sees: every lattice point is in one."""
    query_side = config.query_voxels * config.unit_size
    margin = 0.5 * (config.crop_resolution - config.query_voxels) * config.unit_size
    along = np.arange(extraction.finest_resolution + 1) * extraction.lattice.spacing
    owner = np.floor(along / query_side + 1e-9).astype(int)
    starts = np.searchsorted(owner, np.arange(owner[-1] + 2))
    corner = -0.5 * extraction.side
    for box in np.ndindex(*3 * (owner[-1] + 1,)):
        x, y, z = (slice(int(starts[i]), int(starts[i + 1])) for i in box)
        lower = corner + np.array(box) * query_side - margin
        crop = Crop((x, y, z), lower, lower + query_side + 2 * margin)
        if all(rows.start < rows.stop for rows in crop.rows):
            yield crop


def scene_logits(network: ConvOnet, points: Tensor, extraction: ExtractionConfig) -> Tensor:
    """Logits of all points of the finest lattice, crop by crop; a terminal shows how far it is.

    Args:
        network: of the family "crops".
        points: (1, N, 3) in the unit cube.
        extraction: its finest lattice is sampled.

    Returns:
        (R + 1, R + 1, R + 1) float32 indexed z, y, x.
    """
    config, device = network.config, points.device
    side = extraction.finest_resolution + 1
    axis = torch.arange(side, device=device) * extraction.lattice.spacing - 0.5 * extraction.side
    logits = torch.full((side, side, side), EMPTY, device=device)
    for crop in tqdm(list(crops_of(config, extraction)), "crops", unit="crop", disable=None):
        lower, upper = (
            torch.from_numpy(corner.astype(np.float32)).to(device)[None]
            for corner in (crop.lower, crop.upper)
        )
        seen = points[:, ((points[0] >= lower) & (points[0] < upper)).all(dim=1)]
        if not seen.shape[1]:
            continue
        inputs = CropInputs.in_boxes(seen, lower, upper, config.crop_resolution, config.projections)
        x, y, z = crop.rows
        queries = torch.stack(torch.meshgrid(axis[z], axis[y], axis[x], indexing="ij")[::-1], dim=-1)
        with network_precision(device):
            features = network.encode(inputs)
            found = network.decode(features, queries.reshape(1, -1, 3))
        logits[z, y, x] = found.float().view(queries.shape[:3])
    return logits


def from_crops(generator: Generator, network: ConvOnet, source: str) -> Shape:
    """One room of a network of crops, its lattice sampled once and read between its points."""
    read = generator.read(source)
    extraction = generator.extraction()
    logits = scene_logits(network, read.values.to(generator.device), extraction)

    def field(queries: Tensor) -> Tensor:
        return sample_grid(logits[None, None], queries[None] / extraction.side + 0.5, "linear")[0, :, 0]

    return generator.extract(field, read.frame, extraction=extraction)
