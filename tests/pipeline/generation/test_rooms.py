"""Rooms from networks of crops: closed, and where the scan is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch.nn.functional import binary_cross_entropy_with_logits

from convonet.conv_onet import ConvOnet, ConvOnetConfig, CropInputs
from convonet.weights import save_network
from pipeline import generate
from pipeline.generation.config import GenerateConfig

pytestmark = pytest.mark.usefixtures("ray_here")
SEED = 8
HALF_AXES = np.array([0.45, 0.35, 0.3])
PLACE, SIZE = np.array([200.0, 40.0, -3.0]), 6.0
CONFIG = ConvOnetConfig(
    "crops", ("grid",), feature_size=8, encoder_hidden=16, encoder_blocks=2, unet3d_levels=2, unet3d_channels=8,
    decoder_hidden=32, decoder_blocks=2, unit_size=0.06, query_voxels=16,
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def ellipsoid() -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(3)
    ball.vertices *= HALF_AXES
    return ball


def cloud(count: int) -> torch.Tensor:
    points, _ = trimesh.sample.sample_surface(ellipsoid(), count, seed=SEED)
    return torch.from_numpy(points.astype(np.float32))[None]


def box_inputs(points: torch.Tensor, config: ConvOnetConfig, lower: torch.Tensor) -> CropInputs:
    """What a crop sees around the query box with the corner `lower` (3,)."""
    margin = 0.5 * (config.crop_resolution - config.query_voxels) * config.unit_size
    side = config.crop_resolution * config.unit_size
    corner = (lower - margin)[None]
    return CropInputs.in_boxes(points, corner, corner + side, config.crop_resolution, config.projections)


def learned() -> ConvOnet:
    """A network of crops that knows the ellipsoid, from boxes anywhere."""
    torch.manual_seed(SEED)
    network = CONFIG.build()
    points, optimizer = cloud(500), torch.optim.Adam(network.parameters(), 1e-2)
    side = CONFIG.query_voxels * CONFIG.unit_size
    for _ in range(150):
        lower = 1.2 * (torch.rand(3) - 0.5) - 0.5 * side
        queries = lower + side * torch.rand(1, 256, 3)
        inside = (queries / torch.from_numpy(HALF_AXES).float()).norm(dim=-1) < 1
        logits = network(box_inputs(points, CONFIG, lower), queries)
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(logits, inside.float()).backward()
        optimizer.step()
    return network.eval()


def test_a_room_is_closed_and_where_its_scan_is(tmp_path: Path) -> None:
    network = learned()
    save_network(
        tmp_path / "crops.safetensors", network, network.state_dict(), {"preset": "crop_room_grid64"}
    )
    np.savetxt(tmp_path / "scan.xyz", cloud(3000)[0].numpy() * SIZE + PLACE)
    options = GenerateConfig(points=500, threshold=0.5)
    report = generate(
        tmp_path / "crops.safetensors", tmp_path / "scan.xyz", out=tmp_path / "room.ply", config=options
    )
    mesh = trimesh.load(tmp_path / "room.ply", process=False)
    assert report.is_watertight
    assert mesh.is_watertight
    # The surface, and so the frame, is the ellipsoid's: 150 steps reach 0.02 of the unit cube for its middle and 0.04
    # for its sides; fewer depend on the processor's rounding.
    np.testing.assert_allclose(mesh.bounds.mean(axis=0), PLACE, atol=0.05 * SIZE)
    np.testing.assert_allclose(mesh.extents, 2 * HALF_AXES * SIZE, atol=0.1 * SIZE)
