"""Objects from tiny networks of every kind: closed, in place, reproducible, and errors that say what to do."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open3d as o3d
import pytest
import torch
import trimesh
from PIL import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from convonet.conv_onet import ConvOnetConfig
from convonet.family import ShapeSampling
from convonet.oflow import OccupancyFlowConfig, OccupancyNetwork4DConfig
from convonet.onet import OccupancyNetworkConfig
from convonet.registry import family_of, presets
from convonet.volume import VolumeNetworkConfig
from convonet.weights import load_any_network, save_network
from pipeline import generate
from pipeline.cli import main
from pipeline.generation import results
from pipeline.generation.config import GenerateConfig
from pipeline.generation.inputs import Draw, read_image, read_points
from pipeline.generation.sequence_inputs import draw_tracks, read_sequence, resample
from preprocessing.meshes.files import read_mesh, write_mesh
from preprocessing.scan_files import write_scan_ply

HALF_AXES = np.array([0.42, 0.3, 0.24])  # of the ellipsoid that every network learns
PLACE, SIZE = np.array([1000.0, -20.0, 5.0]), 4.0
COARSE: dict[str, Any] = {"resolution": 8, "steps": 1}
FRAMES = 4
DRIFT = np.array([0.1, 0.0, 0.0])  # of the moving inputs, from frame to frame

FLOW = OccupancyFlowConfig(
    frames=FRAMES, code_size=16, spatial_hidden=16, temporal_hidden=8, latent_hidden=16, decoder_hidden=32,
    velocity_hidden=16, velocity_blocks=2,
)  # fmt: skip
CONFIGS: dict[str, Any] = {
    "points": ConvOnetConfig(
        "points", ("xz", "xy", "yz"), plane_resolution=16, feature_size=8, encoder_hidden=8, encoder_blocks=2,
        unet2d_levels=2, unet2d_channels=8, decoder_hidden=32, decoder_blocks=2,
    ),
    "pointconv": ConvOnetConfig(
        "pointconv", feature_size=8, pointnetpp_width=8, fine_centers=32, coarse_centers=8, decoder_hidden=32
    ),
    "conv voxels": ConvOnetConfig(
        "voxels", ("grid",), volume_resolution=8, feature_size=8, decoder_hidden=32, decoder_blocks=2
    ),
    "onet points": OccupancyNetworkConfig("pointnet_resnet", 16, 16, decoder_hidden=32, threshold=0.2),
    "onet voxels": OccupancyNetworkConfig("voxel_simple", 16, 4, decoder_hidden=32, threshold=0.2),
    "image": OccupancyNetworkConfig("resnet18", 16, decoder_hidden=32, threshold=0.2),
    "shape": OccupancyNetworkConfig("index", 16, shape_count=5, decoder_hidden=32, threshold=0.2),
    "latent": OccupancyNetworkConfig(
        "none", 0, decoder="simple", decoder_hidden=32, latent_size=8, latent_hidden=16, threshold=0.2
    ),
    "flow points": FLOW,
    "flow images": replace(FLOW, spatial_encoder="resnet18", temporal_encoder="conv3d", temporal_hidden=4),
    "flow latent": replace(FLOW, spatial_encoder=None, temporal_encoder=None, decoder="simple", latent_size=8),
    "flow alone": replace(FLOW, spatial_encoder=None, temporal_encoder=None, decoder="simple"),
    "flow pair": replace(FLOW, spatial_encoder=None, temporal_encoder="pointnet_pair", decoder=None),
    "onet4d": OccupancyNetwork4DConfig(
        frames=FRAMES, decoder="simple", code_size=16, temporal_hidden=8, decoder_hidden=32),
    "volume": VolumeNetworkConfig(
        feature_size=8, encoder_hidden=8, encoder_blocks=2, unet_levels=2, decoder_hidden=8
    ),
}  # fmt: skip


def ellipsoid(subdivisions: int = 3) -> trimesh.Trimesh:
    ball = trimesh.creation.icosphere(subdivisions)
    ball.vertices *= HALF_AXES
    return ball


def example(kind: str) -> Tensor | None:
    """What the encoder sees of the ellipsoid while the decoder learns it."""
    points, _ = trimesh.sample.sample_surface(ellipsoid(), 300, seed=1)
    cloud = torch.from_numpy(points.astype(np.float32))[None]
    return {
        "points": cloud, "pointconv": cloud, "onet points": cloud, "shape": torch.tensor([2]),
        "conv voxels": torch.zeros(1, 32, 32, 32), "onet voxels": torch.zeros(1, 32, 32, 32),
        "image": torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(3)),
        "latent": torch.zeros(1, 0), "flow points": cloud[:, None].expand(-1, FRAMES, -1, -1),
        "flow images": torch.full((1, FRAMES, 3, 224, 224), 0.5), "flow latent": torch.zeros(1, 1, 0),
        "flow alone": torch.zeros(1, 1, 0), "onet4d": cloud[:, None].expand(-1, FRAMES, -1, -1),
    }.get(kind)  # fmt: skip


def learned(kind: str) -> Any:
    """A network whose decoder gives the ellipsoid, a little larger or smaller by its first latent."""
    torch.manual_seed(5)
    network = CONFIGS[kind].build().eval()
    inputs = example(kind)
    if kind.startswith("flow"):  # through space, not out of it
        torch.nn.init.normal_(network.velocity_field.fc_out.weight, std=0.05)
    if inputs is None:
        return network
    with torch.no_grad():
        if kind == "flow latent":
            codes: Any = network.encode_with_prior(inputs, sample=False)
        else:
            codes = network.encode(inputs)
    optimizer = torch.optim.Adam(network.decoder.parameters(), 5e-3)
    network.decoder.train()
    generator = torch.Generator().manual_seed(6)
    has_latent = kind in ("latent", "flow latent")
    if has_latent:
        torch.nn.init.normal_(network.decoder.fc_z.weight, std=0.02)
    for _ in range(400 if has_latent else 120):
        queries = 1.1 * (torch.rand(1, 512, 3, generator=generator) - 0.5)
        size = 1.0
        if kind == "onet4d":
            queries *= 1.5
            logits = network.decode(codes, queries, torch.rand(1, generator=generator))
        elif has_latent:
            latent = torch.randn(1, 8, generator=generator)
            size = 1 + 0.1 * float(torch.tanh(latent[0, 0]))
            conditions = replace(codes, shape=latent) if kind == "flow latent" else codes
            rest = () if kind == "flow latent" else (latent,)
            logits = network.decode(conditions, queries, *rest)
        else:
            logits = network.decode(codes, queries)
        inside = (queries / (size * torch.from_numpy(HALF_AXES).float())).norm(dim=-1) < 1
        optimizer.zero_grad()
        binary_cross_entropy_with_logits(logits, inside.float()).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(autouse=True, scope="module")
def small_work() -> Iterator[None]:
    """Layers this small lose more time waiting for a second thread than it saves them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:  # nobody looks at these pictures
        patch.setattr(results, "PICTURE_SIZE", (64, 48))
        patch.setattr(results, "GIF_SIZE", (32, 24))
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("weights")

    def file(kind: str) -> str:
        path = folder / f"{kind.replace(' ', '-')}.safetensors"
        if not path.exists():
            network = learned(kind)
            save_network(path, network, network.state_dict(), {"steps": "120"})
        return str(path)

    return file


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the ellipsoid, far from the origin and large."""
    folder = tmp_path_factory.mktemp("inputs")
    mesh = ellipsoid()
    vertices, faces = np.asarray(mesh.vertices) * SIZE + PLACE, np.asarray(mesh.faces)
    for name in ("solid.ply", "solid.obj", "solid.glb", "solid.stl", "solid.off"):
        trimesh.Trimesh(vertices, faces, process=False).export(folder / name)
    points = trimesh.sample.sample_surface(mesh, 2000, seed=0)[0] * SIZE + PLACE
    write_scan_ply(folder / "cloud.ply", points)
    np.savetxt(folder / "cloud.xyz", points)
    np.savez(folder / "cloud.npz", points=points)
    centers = (np.arange(32) + 0.5) / 32 - 0.5
    grid = np.stack(np.meshgrid(centers, centers, centers, indexing="ij"), -1)
    voxels = np.linalg.norm(grid / HALF_AXES, axis=-1) < 1
    np.save(folder / "voxels.npy", voxels)
    (folder / "voxels.binvox").write_bytes(binvox(voxels, PLACE, SIZE))
    noise = np.random.default_rng(0).integers(0, 255, (240, 300, 3), np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    for name in ("photo.png", "cloud.npz"):
        (folder / f"damaged{Path(name).suffix}").write_bytes((folder / name).read_bytes()[:900])
    for name, suffix in (("meshes", "ply"), ("clouds", "xyz"), ("images", "png")):
        (folder / name).mkdir()
        for time in range(FRAMES):
            path = folder / name / f"{time:03d}.{suffix}"
            if suffix == "ply":
                write_mesh(path, vertices + time * DRIFT, faces)
            elif suffix == "xyz":
                np.savetxt(path, points + time * DRIFT)
            else:
                Image.fromarray(np.roll(noise, 10 * time, axis=1)).save(path)
    moving = np.stack([vertices + time * DRIFT for time in range(7)])
    np.savez(folder / "sequence.npz", vertices=moving, faces=faces)
    return folder


def binvox(voxels: np.ndarray, corner: np.ndarray, scale: float) -> bytes:
    """A binvox file, run by run (Min, binvox specification)."""
    flat = voxels.transpose(0, 2, 1).ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = b""
    for value in np.split(flat, ends):
        left = len(value)
        while left:
            runs += bytes([int(value[0]), min(left, 255)])
            left -= min(left, 255)
    head = f"#binvox 1\ndim 32 32 32\ntranslate {' '.join(map(str, corner))}\nscale {scale}\ndata\n"
    return head.encode() + runs


STILLS = [
    ("points", "solid.ply"), ("points", "solid.obj"), ("points", "solid.off"), ("points", "solid.stl"),
    ("points", "solid.glb"), ("points", "cloud.ply"), ("points", "cloud.xyz"), ("points", "cloud.npz"),
    ("pointconv", "cloud.ply"), ("conv voxels", "voxels.npy"), ("conv voxels", "solid.ply"),
    ("onet points", "solid.ply"), ("onet voxels", "voxels.binvox"), ("onet voxels", "solid.obj"),
    ("image", "photo.png"), ("shape", "2"), ("latent", None),
]  # fmt: skip
IN_UNIT_CUBE = ("voxels.npy", "photo.png", "2", None)


def source_of(inputs: Path, name: str | None) -> str | None:
    return name if name is None or name.isdecimal() else str(inputs / name)


@pytest.mark.parametrize(("kind", "name"), STILLS)
def test_a_still_shape_is_closed_and_where_its_input_is(
    model: Callable[[str], str], inputs: Path, tmp_path: Path, kind: str, name: str | None
) -> None:
    out = tmp_path / "made" / "shape.ply"
    options = GenerateConfig(**COARSE, points=300)
    report = generate(model(kind), source_of(inputs, name), out=out, config=options)
    assert report.files == (out, out.with_suffix(".png"))
    mesh = trimesh.load(out, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert report.is_watertight
    assert (report.vertices, report.faces) == (len(mesh.vertices), len(mesh.faces))
    assert np.ptp(np.asarray(Image.open(report.files[1]).convert("L"), float)) > 50
    if kind == "shape":  # only its place is learned, see below
        return
    # Encoders see inputs that are not quite the learned ones, so surfaces may be off, frames may not.
    middle, size = (np.zeros(3), 1.0) if name in IN_UNIT_CUBE else (PLACE, SIZE)
    if name == "voxels.binvox":
        middle = PLACE + 0.5 * SIZE
    if name in ("solid.ply", "cloud.ply", "solid.obj"):
        size = SIZE * 2 * HALF_AXES[0]
    assert np.abs(mesh.bounds.mean(axis=0) - middle).max() < 0.25 * size
    assert 0.5 * size < mesh.extents.max() < 1.15 * size


@pytest.mark.parametrize("name", ["solid.ply", "cloud.xyz"])
def test_results_in_the_unit_cube_differ_by_the_inputs_box_alone(
    model: Callable[[str], str], inputs: Path, tmp_path: Path, name: str
) -> None:
    options = GenerateConfig(**COARSE, points=300)
    generate(model("points"), inputs / name, out=tmp_path / "world.ply", config=options)
    generate(
        model("points"), inputs / name, out=tmp_path / "unit.ply", config=replace(options, unit_cube=True)
    )
    world, unit = read_mesh(tmp_path / "world.ply"), read_mesh(tmp_path / "unit.ply")
    points = (
        np.asarray(trimesh.load(inputs / name, process=False).vertices)
        if name == "solid.ply"
        else np.loadtxt(inputs / name)
    )
    low, high = points.min(axis=0), points.max(axis=0)
    expected = unit.vertices * (high - low).max() + 0.5 * (low + high)
    np.testing.assert_allclose(world.vertices, expected, atol=2e-4)
    assert np.abs(unit.vertices).max() < 0.56


def test_a_binvox_grid_is_put_where_its_header_says(
    model: Callable[[str], str], inputs: Path, tmp_path: Path
) -> None:
    for name in ("voxels.binvox", "voxels.npy"):
        generate(
            model("onet voxels"), inputs / name, out=tmp_path / f"{name}.ply", config=GenerateConfig(**COARSE)
        )
    world, unit = (read_mesh(tmp_path / f"{name}.ply").vertices for name in ("voxels.binvox", "voxels.npy"))
    np.testing.assert_allclose(world, PLACE + SIZE * (unit + 0.5), atol=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_mesh(
    model: Callable[[str], str], inputs: Path, tmp_path: Path
) -> None:
    for kind, source in (("points", inputs / "solid.ply"), ("latent", None)):
        files = []
        for name, seed in (("a", 7), ("b", 7), ("c", 8)):
            out = tmp_path / kind / f"{name}.ply"
            generate(model(kind), source, out=out, config=GenerateConfig(**COARSE, seed=seed, points=200))
            files.append(out.read_bytes())
        assert files[0] == files[1] != files[2]


def test_each_of_several_samples_can_be_made_alone_by_its_seed(
    model: Callable[[str], str], tmp_path: Path
) -> None:
    options = GenerateConfig(**COARSE, seed=3)
    report = generate(model("latent"), out=tmp_path / "s.ply", config=replace(options, samples=3))
    assert [path.name for path in report.files] == [
        f"s_000{i}.{suffix}" for i in range(3) for suffix in ("ply", "png")
    ]
    for number in range(3):
        alone = replace(options, seed=3 + number)
        generate(model("latent"), out=tmp_path / f"alone{number}.ply", config=alone)
        assert (tmp_path / f"alone{number}.ply").read_bytes() == (
            tmp_path / f"s_000{number}.ply"
        ).read_bytes()


def test_an_interpolation_of_latents_ends_at_the_single_shapes(
    model: Callable[[str], str], tmp_path: Path
) -> None:
    options = GenerateConfig(**COARSE, interpolate=("4", "9"), frames=3)
    report = generate(model("latent"), out=tmp_path / "walk.ply", config=options)
    assert [path.name for path in report.files] == [*(f"walk_000{i}.ply" for i in range(3)), "walk.gif"]
    assert any("no animated GLB" in note for note in report.notes)
    for seed, name in ((4, "walk_0000.ply"), (9, "walk_0002.ply")):
        generate(model("latent"), out=tmp_path / "end.ply", config=GenerateConfig(**COARSE, seed=seed))
        assert (tmp_path / "end.ply").read_bytes() == (tmp_path / name).read_bytes()
    with Image.open(tmp_path / "walk.gif") as picture:
        assert picture.n_frames == 3


# Sequences


def moments(folder: Path, stem: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of each numbered mesh and their faces, which must be the same."""
    meshes = [read_mesh(folder / f"{stem}_{i:04d}.ply") for i in range(count)]
    for mesh in meshes:
        np.testing.assert_array_equal(mesh.faces, meshes[0].faces)
    assert not (folder / f"{stem}_{count:04d}.ply").exists()
    return np.stack([mesh.vertices for mesh in meshes]), meshes[0].faces


def glb_json(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    content: dict[str, Any] = json.loads(data[20 : 20 + length])
    return content


SEQUENCES = [
    ("flow points", "meshes"), ("flow points", "clouds"), ("flow points", "sequence.npz"),
    ("flow images", "images"), ("flow latent", None), ("flow latent", "meshes"), ("flow alone", None),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), SEQUENCES)
def test_a_flow_keeps_its_topology_and_is_written_in_every_form(
    model: Callable[[str], str], inputs: Path, tmp_path: Path, kind: str, name: str | None
) -> None:
    options = GenerateConfig(**COARSE, points=200)
    report = generate(model(kind), source_of(inputs, name), out=tmp_path / "walk.ply", config=options)
    vertices, faces = moments(tmp_path, "walk", FRAMES)
    assert trimesh.Trimesh(vertices[0], faces, process=False).is_watertight
    assert report.is_watertight
    assert np.abs(vertices[-1] - vertices[0]).max() > 0
    scene = glb_json(tmp_path / "walk.glb")
    assert len(scene["animations"]) == 1
    assert len(scene["meshes"][0]["primitives"][0]["targets"]) == FRAMES - 1
    with Image.open(tmp_path / "walk.gif") as picture:
        assert picture.n_frames == FRAMES
    if name == "sequence.npz":
        assert any("7 frames were resampled to the 4" in note for note in report.notes)
    if name is not None and name != "images":
        assert np.abs(vertices[0].mean(axis=0) - PLACE).max() < SIZE


def test_vertices_follow_the_velocity_field(
    model: Callable[[str], str], inputs: Path, tmp_path: Path
) -> None:
    options = GenerateConfig(**COARSE, seed=2, frames=3)
    generate(model("flow latent"), out=tmp_path / "walk.ply", config=options)
    vertices, _ = moments(tmp_path, "walk", 3)
    network: Any = load_any_network(model("flow latent"))
    codes = replace(
        network.encode_with_prior(torch.zeros(1, 1, 0), sample=False),
        shape=torch.randn(1, 8, generator=(again := torch.Generator().manual_seed(2))),
        motion=torch.randn(1, 8, generator=again),
    )
    place, steps = torch.from_numpy(vertices[0].astype(np.float32))[None], 200
    for step in range(steps):  # the midpoint rule, by hand
        now = torch.tensor([(step + 0.5) / steps])
        half = place + network.velocity(codes, place, torch.tensor([step / steps])) / (2 * steps)
        place = place + network.velocity(codes, half, now) / steps
        if step == steps // 2 - 1:
            np.testing.assert_allclose(vertices[1], place[0].numpy(), atol=1e-3)
    np.testing.assert_allclose(vertices[2], place[0].numpy(), atol=1e-3)
    assert np.abs(vertices[2] - vertices[0]).max() > 0.01


def test_an_interpolation_of_flows_ends_at_the_single_sequences(
    model: Callable[[str], str], tmp_path: Path
) -> None:
    options = GenerateConfig(**COARSE, interpolate=("1", "2"), frames=2)
    generate(model("flow latent"), out=tmp_path / "path.ply", config=options)
    for seed, stem in ((1, "path_0000"), (2, "path_0001")):
        generate(model("flow latent"), out=tmp_path / "end.ply", config=GenerateConfig(**COARSE, seed=seed))
        ours, theirs = moments(tmp_path, stem, FRAMES), moments(tmp_path, "end", FRAMES)
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])


@pytest.mark.parametrize("motion", ["2", "meshes"])
def test_a_shape_takes_the_motion_of_another_sequence(
    model: Callable[[str], str], inputs: Path, tmp_path: Path, motion: str
) -> None:
    other = str(source_of(inputs, motion))
    options = GenerateConfig(**COARSE, seed=1, points=100)
    for name, lender in (("own", None), ("lent", other)):
        generate(model("flow latent"), out=tmp_path / f"{name}.ply", config=replace(options, motion=lender))
    (own, faces), (lent, lent_faces) = (moments(tmp_path, name, FRAMES) for name in ("own", "lent"))
    np.testing.assert_array_equal(faces, lent_faces)
    np.testing.assert_array_equal(own[0], lent[0])
    network: Any = load_any_network(model("flow latent"))
    codes = network.encode_with_prior(torch.zeros(1, 1, 0), sample=False)
    if motion == "2":  # the second code that the seed draws
        again = torch.Generator().manual_seed(2)
        moved = [torch.randn(1, 8, generator=again) for _ in range(2)][1]
    else:
        tracks = read_sequence(Path(other))
        read = draw_tracks(
            Path(other), tracks, FRAMES, Draw(100, None, 1, ShapeSampling(points=100, noise=0.0)), False
        )
        moved = network.encode(read.values).motion
    place = torch.from_numpy(lent[0].astype(np.float32))[None]
    expected = network.transport(replace(codes, motion=moved), place, torch.linspace(0, 1, FRAMES))[0]
    np.testing.assert_allclose(lent, expected.detach().numpy(), atol=1e-5)
    assert np.abs(own[-1] - lent[-1]).max() > 1e-3


def test_a_flow_at_the_first_moment_is_the_extracted_shape_and_simplified_if_asked(
    model: Callable[[str], str], tmp_path: Path
) -> None:
    generate(model("flow alone"), out=tmp_path / "a.ply", config=GenerateConfig(**COARSE, faces=60))
    vertices, faces = moments(tmp_path, "a", FRAMES)
    assert len(faces) <= 60
    assert trimesh.Trimesh(vertices[0], faces, process=False).is_watertight
    np.testing.assert_allclose(np.ptp(vertices[0], axis=0), 2 * HALF_AXES, rtol=0.2)


def test_a_network_without_correspondences_gives_one_mesh_for_each_time_and_says_so(
    model: Callable[[str], str], inputs: Path, tmp_path: Path
) -> None:
    options = GenerateConfig(**COARSE, frames=3, points=100)
    report = generate(model("onet4d"), inputs / "meshes", out=tmp_path / "walk.obj", config=options)
    assert [path.name for path in report.files] == [*(f"walk_000{i}.obj" for i in range(3)), "walk.gif"]
    assert any("no animated GLB" in note for note in report.notes)
    assert report.is_watertight
    for path in report.files[:3]:
        assert trimesh.load(path, process=False).is_watertight
    assert not (tmp_path / "walk.glb").exists()


def test_two_meshes_of_one_topology_are_met_exactly_at_both_ends(
    model: Callable[[str], str], inputs: Path, tmp_path: Path
) -> None:
    first, last = inputs / "meshes" / "000.ply", inputs / "meshes" / "003.ply"
    options = GenerateConfig(points=100, interpolate=(str(first), str(last)), frames=5)
    generate(model("flow pair"), out=tmp_path / "between.ply", config=options)
    vertices, faces = moments(tmp_path, "between", 5)
    np.testing.assert_array_equal(faces, read_mesh(first).faces)
    np.testing.assert_allclose(vertices[0], read_mesh(first).vertices, atol=1e-9)
    np.testing.assert_allclose(vertices[4], read_mesh(last).vertices, atol=1e-9)
    assert len(glb_json(tmp_path / "between.glb")["animations"]) == 1


def test_a_mesh_is_carried_alone_towards_one_of_another_topology(
    model: Callable[[str], str], inputs: Path, tmp_path: Path
) -> None:
    ball = trimesh.creation.icosphere(1, 2.0)
    write_mesh(tmp_path / "other.ply", np.asarray(ball.vertices) + PLACE, np.asarray(ball.faces))
    first = inputs / "meshes" / "000.ply"
    for end in (tmp_path / "other.ply", inputs / "cloud.ply"):
        options = GenerateConfig(points=100, interpolate=(str(first), str(end)), frames=3)
        report = generate(model("flow pair"), out=tmp_path / "carried.ply", config=options)
        vertices, faces = moments(tmp_path, "carried", 3)
        np.testing.assert_array_equal(faces, read_mesh(first).faces)
        np.testing.assert_allclose(vertices[0], read_mesh(first).vertices, atol=1e-9)
        assert any("carried towards it alone" in note for note in report.notes)


def test_keyframes_are_all_passed_exactly(model: Callable[[str], str], inputs: Path, tmp_path: Path) -> None:
    options = GenerateConfig(points=100, frames=3)
    generate(model("flow pair"), inputs / "meshes", out=tmp_path / "keys.ply", config=options)
    vertices, _ = moments(tmp_path, "keys", 1 + 2 * (FRAMES - 1))
    for key in range(FRAMES):
        np.testing.assert_allclose(
            vertices[2 * key], read_mesh(inputs / "meshes" / f"{key:03d}.ply").vertices, atol=1e-9
        )


# Parts


def test_refinement_brings_vertices_to_the_level_set(model: Callable[[str], str], tmp_path: Path) -> None:
    network: Any = load_any_network(model("latent"))
    latent = network.sample_latent(1, 0)
    errors = []
    for refine in (0, 300):
        out = tmp_path / f"{refine}.ply"
        generate(model("latent"), out=out, config=GenerateConfig(resolution=6, steps=0, refine=refine))
        mesh = trimesh.load(out, process=False)
        assert mesh.is_watertight
        queries = torch.from_numpy(mesh.triangles_center.astype(np.float32))[None]
        occupancy = torch.sigmoid(network.decode(torch.zeros(1, 0), queries, latent))
        errors.append(float((occupancy - 0.2).abs().mean()))
    assert errors[1] < 0.85 * errors[0]


@pytest.mark.parametrize("faces", [None, 60])
def test_normals_are_against_the_fields_gradient(
    model: Callable[[str], str], tmp_path: Path, faces: int | None
) -> None:
    generate(model("latent"), out=tmp_path / "made.ply", config=GenerateConfig(**COARSE, faces=faces))
    stored = o3d.io.read_triangle_mesh(str(tmp_path / "made.ply"))
    vertices, normals = np.asarray(stored.vertices), np.asarray(stored.vertex_normals)
    network: Any = load_any_network(model("latent"))
    queries = torch.from_numpy(vertices.astype(np.float32)).requires_grad_()
    logits = network.decode(torch.zeros(1, 0), queries[None], network.sample_latent(1, 0))
    (gradient,) = torch.autograd.grad(logits.sum(), queries)
    expected = -torch.nn.functional.normalize(gradient, dim=1).numpy()
    np.testing.assert_allclose(normals, expected, atol=1e-3)
    by_faces = trimesh.Trimesh(vertices, np.asarray(stored.triangles), process=False)
    assert np.abs(normals - by_faces.vertex_normals).max() > 0.05


@pytest.mark.parametrize("kind", ["points", "pointconv", "conv voxels", "onet points"])
def test_every_family_can_be_refined(
    model: Callable[[str], str], inputs: Path, tmp_path: Path, kind: str
) -> None:
    meshes = []
    for refine in (0, 3):
        options = GenerateConfig(resolution=6, steps=0, refine=refine, points=200)
        generate(model(kind), inputs / "solid.ply", out=tmp_path / "made.ply", config=options)
        meshes.append(read_mesh(tmp_path / "made.ply"))
    np.testing.assert_array_equal(meshes[0].faces, meshes[1].faces)
    assert 0 < np.abs(meshes[0].vertices - meshes[1].vertices).max() < 0.1 * SIZE


def test_a_picture_is_cut_to_its_middle_square(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (224, 300, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    expected = torch.from_numpy(pixels[:, 38:262].astype(np.float32) / 255).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "wide.png"), expected)
    clear = np.zeros((400, 400, 4), np.uint8)
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert torch.equal(read_image(tmp_path / "clear.png"), torch.ones(3, 224, 224))


QUIET, LOUD = (ShapeSampling(points=300, noise=noise) for noise in (0.005, 0.02))


def test_points_follow_the_papers_protocol(inputs: Path) -> None:
    expected = {
        "onet_pointcloud": (300, 0.005), "shapenet_3plane": (3000, 0.005), "shapenet_grid32": (3000, 0.005),
        "room_grid32": (10_000, 0.005), "room_combine": (10_000, 0.005), "oflow_pointcloud": (300, 0.001),
        "onet4d_pointcloud": (300, 0.001), "oflow_interpolation": (10_000, 0.0),
    }  # fmt: skip
    for preset, (points, noise) in expected.items():
        sampling = family_of(config := presets()[preset]).sampling(config, preset)
        assert (sampling.points, sampling.noise) == (points, noise)
    quiet = read_points(inputs / "solid.ply", Draw(4000, 0.0, 1, QUIET)).values[0].numpy()
    noisy = read_points(inputs / "solid.ply", Draw(4000, None, 1, LOUD)).values[0].numpy()
    assert quiet.shape == (4000, 3)
    axes = HALF_AXES / (2 * HALF_AXES[0])
    assert np.abs(np.linalg.norm(quiet / axes, axis=1) - 1).max() < 0.02
    assert np.std(noisy - quiet) == pytest.approx(0.02, rel=0.05)
    cloud = read_points(inputs / "cloud.xyz", Draw(None, None, 1, LOUD)).values[0].numpy()
    given = np.loadtxt(inputs / "cloud.xyz")
    unit = (given - 0.5 * (given.min(0) + given.max(0))) / np.ptp(given, axis=0).max()
    distance = np.linalg.norm(cloud[:, None] - unit[None], axis=2)
    assert distance.min(axis=1).max() < 1e-6  # measured points stay as they are
    assert len(np.unique(distance.argmin(axis=1))) == 300


def test_every_preset_says_what_it_takes() -> None:
    kinds = {name: family_of(config).input(config) for name, config in presets().items()}
    assert kinds["onet_img"] == "image"
    assert kinds["voxel_shapenet_grid32"] == kinds["onet_voxel"] == "voxels"
    assert kinds["room_pointconv"] == kinds["onet_pointcloud"] == "points"
    assert kinds["oflow_img"] == kinds["onet4d_img"] == "images"
    assert kinds["oflow_pointcloud"] == kinds["onet4d_pointcloud"] == "tracks"
    assert kinds["oflow_shape_matching"] == "pair"
    assert kinds["oflow_generative"] == kinds["oflow_repr_power"] == kinds["onet_unconditional"] == "nothing"
    assert (kinds["onet_repr_power"], kinds["crop_room_grid64"], kinds["volume"]) == (
        "shape",
        "crops",
        "scan",
    )


def test_resampling_a_steady_motion_keeps_it_steady() -> None:
    start, step = np.random.default_rng(2).random((2, 6, 3))
    moving = start + np.arange(5)[:, None, None] * step
    times = np.linspace(0, 4, 9)[:, None, None]
    np.testing.assert_allclose(resample(moving, 9), start + times * step, atol=1e-12)
    np.testing.assert_array_equal(resample(moving, 5), moving)


# The command line


def test_the_commands_make_a_mesh_from_a_checkpoint(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = presets()["onet_unconditional"].build()
    torch.manual_seed(0)
    names = {re.sub(r"^latent_encoder\.fc_occupancy\.", "encoder_latent.fc_0.", name): value
             for name, value in network.state_dict().items()}  # fmt: skip
    names = {
        re.sub(
            r"^latent_encoder\.layers\.(\d)\.", lambda m: f"encoder_latent.fc_{int(m[1]) + 1}.", name
        ): value
        for name, value in names.items()
    }
    names = {
        re.sub(
            r"^latent_encoder\.",
            "encoder_latent.",
            re.sub(r"^decoder\.blocks\.(\d)", r"decoder.block\1", name),
        ): v
        for name, v in names.items()
    }
    torch.save({"model": names, "loss_val_best": np.float64(1)}, tmp_path / "cars.pt")
    weights = tmp_path / "cars.safetensors"
    main(
        [
            "models",
            "import",
            str(tmp_path / "cars.pt"),
            "--preset",
            "onet_unconditional",
            "--out",
            str(weights),
        ]
    )
    assert "298,369 parameters" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "generate",
                str(weights),
                "--out",
                str(tmp_path / "x.ply"),
                "--threshold",
                "0.9999",
                "--steps",
                "0",
            ]
        )
    assert stop.value.code == 1
    assert "pass a lower --threshold" in capsys.readouterr().err


def test_the_command_prints_what_it_made(
    model: Callable[[str], str], inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coarse = ["--resolution", "8", "--steps", "1", "--seed", "1", "--faces", "80"]
    main(["generate", model("points"), str(inputs / "solid.obj"), "--out", str(tmp_path / "a.off"), *coarse])
    text = capsys.readouterr().out
    assert "watertight: yes" in text
    assert "files: a.off, a.png" in text
    assert len(trimesh.load(tmp_path / "a.off").faces) <= 80
    walk = ["--out", str(tmp_path / "b.glb"), "--interpolate", "1", "2", "--frames", "2", *coarse]
    main(["generate", model("latent"), *walk])
    assert "note: the shapes differ in topology" in capsys.readouterr().out
    assert (tmp_path / "b_0001.ply").is_file()


def test_models_lists_every_preset_and_its_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    main(["models"])
    text = capsys.readouterr().out
    for name in presets():
        assert f"  {name} " in text
    assert re.search(r"onet_img +onet +13,414,465  image", text)
    main(["models", "list"])
    assert capsys.readouterr().out == text
    with pytest.raises(SystemExit) as stop:
        main(["models", "--help"])
    assert stop.value.code == 0
    assert "Example: tessera models import" in capsys.readouterr().out
    for command in (["generate"], ["models", "import"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        assert f"Example: tessera {' '.join(command)}" in capsys.readouterr().out


ERRORS: dict[str, tuple[str, list[str], str]] = {
    "volume network": ("volume", ["cloud.ply"], "tessera reconstruct"),
    "image for points": ("points", ["photo.png"], "which is a point cloud or a mesh"),
    "points for image": ("image", ["cloud.ply"], "which is an image"),
    "voxels for points": ("onet points", ["voxels.binvox"], "which is a point cloud"),
    "cloud for voxels": ("onet voxels", ["cloud.ply"], "which is a voxel grid"),
    "folder for points": ("points", ["meshes"], "is not what this network takes"),
    "folder for image": ("image", ["images"], "which is an image"),
    "file for sequence": ("flow points", ["solid.ply"], "which is a sequence"),
    "images for tracks": ("flow points", ["images"], "holds no meshes or point clouds"),
    "tracks for images": ("onet4d", ["images"], "holds no meshes or point clouds"),
    "file for images": ("flow images", ["photo.png"], "takes a folder of images"),
    "clouds for keyframes": ("flow pair", ["clouds"], "holds point clouds"),
    "no input": ("points", [], "needs an INPUT: a point cloud"),
    "input for a latent": ("latent", ["cloud.ply"], "takes no input; --samples N"),
    "input for one sequence": ("flow alone", ["meshes"], "takes no input"),
    "missing file": ("points", ["no.ply"], "no such file"),
    "missing sequence": ("flow points", ["no"], "no such file or folder"),
    "damaged sequence": ("flow points", ["damaged.npz"], "cannot be read"),
    "sequence without vertices": ("flow points", ["cloud.npz"], "lacks vertices"),
    "damaged image": ("image", ["damaged.png"], "copy or export it again"),
    "missing image": ("image", ["no.png"], "No such file"),
    "shape out of range": ("shape", ["5"], "0 to 4"),
    "samples without latent": ("points", ["cloud.ply", "--samples", "2"], "draws no samples"),
    "interpolation without latent": (
        "image", ["--interpolate", "1", "2"], "no latent to interpolate",
    ),
    "interpolation of files": ("latent", ["--interpolate", "a", "2"], "two whole numbers"),
    "interpolation and input": ("flow latent", ["meshes", "--interpolate", "1", "2"], "stands alone"),
    "frames of a still": ("points", ["cloud.ply", "--frames", "3"], "--frames is for sequences"),
    "motion of a still": ("points", ["cloud.ply", "--motion", "meshes"], "--motion is for networks"),
    "motion of one sequence": ("flow alone", ["--motion", "meshes"], "--motion is for networks"),
    "missing motion": ("flow points", ["meshes", "--motion", "no"], "no such file or folder"),
    "threshold of a given mesh": ("flow pair", ["meshes", "--threshold", "0.5"], "do not apply"),
    "threshold": ("latent", ["--threshold", "1.5"], "between 0 and 1"),
    "points": ("points", ["cloud.ply", "--points", "0"], "--points must be at least 1"),
    "nothing inside": ("latent", ["--threshold", "0.999999"], "pass a lower --threshold"),
    "all inside": ("latent", ["--threshold", "1e-30"], "pass a higher --threshold"),
    "no mesh name": ("latent", ["--out", "x.txt"], "name a mesh file"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_with_the_cure_and_exit_code_1(
    model: Callable[[str], str],
    inputs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    monkeypatch.chdir(inputs)
    kind, arguments, message = ERRORS[case]
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "x.ply")]
    with pytest.raises(SystemExit) as stop:
        main(["generate", model(kind), *arguments, *out, "--resolution", "8", "--steps", "0"])
    assert stop.value.code == 1
    text = capsys.readouterr().err
    assert text.startswith("tessera: ")
    assert text.count("\n") == 1
    assert message in text
    assert not list(tmp_path.iterdir())
