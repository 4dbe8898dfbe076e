"""Every family of networks through the same stages: tiled, interrupted, closed; the original's window to the digit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from convonet.checkpoints import import_original
from convonet.conv_onet import ConvOnetConfig, from_original
from convonet.family import NetworkConfig
from convonet.planes import PlaneNetworkConfig
from convonet.volume import VolumeNetworkConfig
from convonet.weights import load_network, save_network
from pipeline import reconstruct
from pipeline.cli import main
from pipeline.errors import NoSurfaceError
from pipeline.reconstruction import ReconstructConfig, on_ray
from pipeline.reconstruction.report import read_report
from pipeline.reconstruction.store import RunStore
from preprocessing.meshes.checks import check_mesh
from preprocessing.meshes.files import read_mesh
from preprocessing.scan_files import write_scan_ply
from tests.convonet.conv_onet import original_entries as conv
from tests.references.sliding_window import window_logits

pytestmark = pytest.mark.usefixtures("ray_here")
VOXEL = 0.1
CENTRE = np.array([31.3, -7.2, 2.9])
SMALL = {
    "feature_size": 8,
    "encoder_hidden": 8,
    "encoder_blocks": 2,
    "decoder_hidden": 8,
    "decoder_blocks": 2,
}
CROPS = ConvOnetConfig(
    "crops", ("grid",), unet3d_levels=2, unet3d_channels=8, unit_size=0.02, query_voxels=20, **SMALL
)
PLANES = PlaneNetworkConfig(unet_levels=2, crop_voxels=40, **SMALL)
FAMILIES: dict[str, NetworkConfig] = {
    "volume": VolumeNetworkConfig(unet_levels=2, **SMALL),
    "one plane": replace(PLANES, planes=("xz",)),
    "three planes": PLANES,
    "planes with volume, fitted to the scan": replace(PLANES, has_volume=True, logits_per_voxel=4.0),
    "original crops": CROPS,
}


def ball(count: int) -> np.ndarray:
    """Points (N, 3) on a ball of 12 voxels' radius."""
    directions = np.random.default_rng(5).normal(size=(count, 3))
    return CENTRE + 12 * VOXEL * directions / np.linalg.norm(directions, axis=1, keepdims=True)


def half_occupied(config: NetworkConfig, path: Path) -> None:
    """Save random weights, shifted and scaled so that half of what is near the points is inside."""
    torch.manual_seed(4)
    network: Any = config.build()
    save_network(path, network, network.state_dict(), {})
    seen = load_network(str(path))
    points = torch.from_numpy((ball(3000) - CENTRE) / VOXEL + 20).float()
    crop = torch.zeros(len(points), dtype=torch.int64)
    with torch.no_grad():
        logits = seen.decode(seen.encode(points, crop, 1, (40, 40, 40)), points, crop)
        head = network.decoder.head if isinstance(config, ConvOnetConfig) else network.decoder
        head.fc_out.bias -= logits.median()
        for parameter in (head.fc_out.weight, head.fc_out.bias):
            parameter /= logits.std()
    save_network(path, network, network.state_dict(), {})


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scan") / "ball.ply"
    write_scan_ply(path, ball(3000))
    return path


def settings(model: Path, tile: int) -> ReconstructConfig:
    return ReconstructConfig(model=str(model), voxel_size=VOXEL, threshold=0.5, query_voxels=tile)


class DriverDiedError(Exception):
    pass


def stopping_after(tasks: int) -> Callable[..., Iterator[Any]]:
    """`run_in_lanes` whose driver dies after some results, whatever is still at work."""
    whole = on_ray.run_in_lanes

    def in_lanes(*arguments: Any) -> Iterator[Any]:
        for number, result in enumerate(whole(*arguments)):
            if number == tasks:
                raise DriverDiedError
            yield result

    return in_lanes


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reconstructs_in_one_tile_and_in_eight_and_survives_interruptions(
    family: str, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "w.safetensors"
    half_occupied(FAMILIES[family], model)
    for tile, count in ((48, 1), (20, 8)):
        report = reconstruct(scan, tmp_path / str(tile), settings(model, tile), show_progress=False)
        assert report.is_watertight
        assert report.tiles == count
        mesh = read_mesh(Path(report.mesh))
        assert len(mesh.faces) > 500
        assert check_mesh(mesh.vertices, mesh.faces).is_watertight
    out = tmp_path / "again"
    for tasks in (1, 5, 4):  # in the fields, later in the fields, in the surfaces
        with monkeypatch.context() as patched, pytest.raises(DriverDiedError):
            patched.setattr(on_ray, "run_in_lanes", stopping_after(tasks))
            reconstruct(scan, out, settings(model, 20), show_progress=False)
    report = reconstruct(scan, out, settings(model, 20), show_progress=False)
    assert report.fields_kept + report.tiles_kept > 0
    assert (out / "mesh.ply").read_bytes() == (tmp_path / "20" / "mesh.ply").read_bytes()


def scene(sides: tuple[float, float, float], count: int) -> np.ndarray:
    """Points in a box of some voxels, none where rounding could move it into another voxel."""
    rng = np.random.default_rng(2)
    corner = np.array([3.123456, -2.71828, 0.57721])
    ends = corner + np.array([[0, 0, 0], sides]) * VOXEL
    points = np.concatenate([ends, ends[0] + rng.random((4 * count, 3)) * (ends[1] - ends[0])])
    clear = np.ones(len(points), bool)
    for start in (np.zeros(3), corner):
        within = np.mod((points - start) / VOXEL, 1)
        clear &= ((within > 0.01) & (within < 0.99)).all(axis=1)
    clear[:2] = True
    return points[clear][:count]


def check_against_the_original(mesh: Path, lowest: np.ndarray, logits: np.ndarray, spacing: float) -> None:
    """Every vertex lies where the reference crosses the threshold's logit 0, to 1e-4 of a logit; few crossings lack."""
    vertices = (read_mesh(mesh).vertices - lowest) / spacing
    last = np.array(logits.shape) - 1
    inner = ((vertices > 1) & (vertices < last - 1)).all(axis=1)  # beyond, the scene's outer faces are free
    whole = np.round(vertices)
    axis = np.abs(vertices - whole).argmax(axis=1)
    rows = np.arange(len(vertices))
    low = whole.astype(int)
    low[rows, axis] = np.floor(vertices[rows, axis]).astype(int)
    high = low.copy()
    high[rows, axis] += 1
    share = vertices[rows, axis] - low[rows, axis]
    low, high, share = low[inner], high[inner], share[inner]
    start, end = logits[tuple(low.T)], logits[tuple(high.T)]
    expected = np.clip(start / (start - end), 0.001, 0.999)  # vertices keep clear of the lattice points
    assert (np.abs(share - expected) * np.abs(start - end)).max() < 1e-4
    sure = 0
    for number in range(3):
        first = np.moveaxis(logits, number, 0)[:-1]
        second = np.moveaxis(logits, number, 0)[1:]
        crossed = (first > 0) != (second > 0)
        box = tuple(slice(1 if a == 0 else 2, -1) for a in range(3))
        sure += int(crossed[box].sum())
    assert len(share) > 0.9 * sure > 100


def reconstruct_as_the_original(scan: Path, out: Path, model: Path, *more: str) -> None:
    files = ["reconstruct", str(scan), "--out", str(out), "--model", str(model)]
    scheme = ["--voxel-size", str(VOXEL), "--blend-voxels", "0", "--tiling", "box", "--threshold", "0.5"]
    scheme.append("--keep-parts")
    main([*files, *scheme, *more])


def centered(state: dict[str, Tensor], logits: np.ndarray) -> np.ndarray:
    """Shift and scale the last layer so that half of the lattice is occupied, by logits about 1, and these with it."""
    middle, spread = float(np.nanmedian(logits)), float(np.nanstd(logits))
    state["decoder.fc_out.bias"] = (state["decoder.fc_out.bias"] - middle) / spread
    state["decoder.fc_out.weight"] = state["decoder.fc_out.weight"] / spread
    return (logits - middle) / spread


def test_imported_weights_of_the_published_size_give_the_original_s_window(tmp_path: Path) -> None:
    """Two boxes; a crop is 72 voxels wide. What more boxes do, the small network's test shows."""
    state = conv.random_state(conv.ORIGINALS["crop_room_grid64"])
    points = scene((3.3, 3.7, 9.6), 150)
    lowest, logits = window_logits(state, points, VOXEL, 8, levels=4, cells_per_voxel=1)
    assert logits.shape == (9, 9, 17)
    logits = centered(state, logits)
    torch.save({"model": state, "epoch_it": 3}, tmp_path / "room.pt")
    import_original(tmp_path / "room.pt", "crop_room_grid64", tmp_path / "room.safetensors")
    write_scan_ply(tmp_path / "s.ply", points)
    model, options = tmp_path / "room.safetensors", ("--query-voxels", "8", "--cells-per-voxel", "1")
    reconstruct_as_the_original(tmp_path / "s.ply", tmp_path / "run", model, *options)
    check_against_the_original(tmp_path / "run" / "mesh.ply", lowest, logits, VOXEL)


def test_the_voxel_of_imported_weights_follows_from_the_scene_s_size(scan: Path, tmp_path: Path) -> None:
    half_occupied(replace(CROPS, unit_size=0.06), tmp_path / "w.safetensors")
    usual = ReconstructConfig(model=str(tmp_path / "w.safetensors"), threshold=0.5)
    side = (ball(3000).max(axis=0) - ball(3000).min(axis=0)).max()
    for name, config, voxel_size in (("a", usual, 0.06 * side), ("b", replace(usual, scene_size=2.0), 0.12)):
        with suppress(NoSurfaceError):  # the surface of random weights is of no matter here
            reconstruct(scan, tmp_path / name, config, show_progress=False)
        assert read_report(RunStore(str(tmp_path / name)))["voxel_size"] == pytest.approx(voxel_size)
    with pytest.raises(ValueError, match="--voxel-size or --scene-size"):
        replace(usual, scene_size=2.0, voxel_size=0.1)
    with pytest.raises(ValueError, match="was not trained in a unit cube"):
        reconstruct(scan, tmp_path / "c", ReconstructConfig(scene_size=2.0), show_progress=False)
    boxes = replace(usual, tiling="box", query_voxels=25, cells_per_voxel=8)
    with pytest.raises(ValueError, match="--query-voxels as a multiple of 2"):
        reconstruct(scan, tmp_path / "d", boxes, show_progress=False)
    assert not any((tmp_path / name).exists() for name in "cd")


def test_without_blending_the_window_is_the_original_s(tmp_path: Path) -> None:
    """3 x 3 x 2 boxes of a small network, two lattice cells along a voxel."""
    config = replace(CROPS, query_voxels=8)
    entries = conv.point_encoder(c_dim=8, hidden=8, blocks=2) | conv.unet3d(2, 8, 8) | conv.decoder(8, 8, 2)
    state = conv.random_state(entries)
    points = scene((19.3, 18.7, 11.6), 500)
    lowest, logits = window_logits(state, points, VOXEL, 8, levels=2, cells_per_voxel=2)
    assert logits.shape == (49, 49, 33)
    logits = centered(state, logits)
    network = config.build()
    network.load_state_dict(from_original(state, config))
    save_network(tmp_path / "w.safetensors", network, network.state_dict(), {})
    write_scan_ply(tmp_path / "s.ply", points)
    reconstruct_as_the_original(
        tmp_path / "s.ply", tmp_path / "run", tmp_path / "w.safetensors", "--query-voxels", "8"
    )
    check_against_the_original(tmp_path / "run" / "mesh.ply", lowest, logits, VOXEL / 2)
