"""The objective of every kind of network: its loss falls, it resumes exactly, and gradients go everywhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from convonet.conv_onet import ConvOnetConfig
from convonet.family import NetworkConfig
from convonet.oflow import LOSSES, FlowLossConfig, OccupancyFlowConfig, OccupancyNetwork4DConfig, SolverConfig
from convonet.onet import OccupancyNetworkConfig
from convonet.registry import family_of, presets
from convonet.training import Criterion, Fit, Objective, TrainingConfig, TrainingState, train_step
from tests.convonet.test_training import Spheres

PRESETS = presets()
ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
FRAMES = 3
SOLVER = SolverConfig(method="midpoint", step_size=0.5)


def objective_of(config: NetworkConfig, terms: FlowLossConfig | None = None) -> Objective:
    return family_of(config).objective(config, terms)


@dataclass(frozen=True)
class Shapes:
    inputs: NDArray
    queries: NDArray[np.float32]
    occupancy: NDArray[np.float32]
    seed: int
    lower: NDArray[np.float32] | None = None
    upper: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Timed:
    queries: NDArray[np.float32]
    occupancy: NDArray[np.float32]
    times: NDArray[np.float32]


@dataclass(frozen=True)
class Sequences:
    inputs: NDArray[np.float32]
    first: Timed | None
    later: Timed | None
    trajectories: NDArray[np.float32] | None
    seed: int


@dataclass(frozen=True)
class Balls:
    """Balls of three radii around 0 as any network sees them."""

    inputs: str = "points"
    points: int = 100
    queries: int = 128

    def batch(self, step: int, batch_size: int, rank: int = 0) -> Shapes:
        rng = np.random.default_rng([step, rank])
        number = rng.integers(3, size=batch_size)
        radius = np.array([0.2, 0.3, 0.4])[number]
        cloud = rng.standard_normal((batch_size, self.points, 3))
        cloud *= (radius[:, None] / np.linalg.norm(cloud, axis=2))[..., None]
        queries = rng.uniform(-0.5, 0.5, (batch_size, self.queries, 3))
        occupancy = np.linalg.norm(queries, axis=2) < radius[:, None]
        lower = upper = None
        seen = cloud.astype(np.float32)
        if self.inputs == "voxels":
            cells = (np.arange(32) + 0.5) / 32 - 0.5
            grid = np.linalg.norm(np.stack(np.meshgrid(cells, cells, cells, indexing="ij")), axis=0)
            seen = (grid < radius[:, None, None, None]).astype(np.float32)
        elif self.inputs == "views":
            seen = np.broadcast_to(radius[:, None, None, None], (batch_size, 3, 64, 64)).astype(np.float32)
        elif self.inputs == "index":
            seen = number
        elif self.inputs == "nothing":
            seen = np.zeros((batch_size, 0), np.float32)
        elif self.inputs == "crops":
            lower = np.full((batch_size, 3), -0.5, np.float32)
            upper = -lower
        return Shapes(
            seen, queries.astype(np.float32), occupancy.astype(np.float32), 1000 * step + rank, lower, upper
        )


@dataclass(frozen=True)
class Movers:
    """A ball that moves along x, at one of two speeds."""

    frames: int = FRAMES
    seen: str = "sequence"
    queries: int = 64
    later_frames: int = FRAMES

    def batch(self, step: int, batch_size: int, rank: int = 0) -> Sequences:
        rng = np.random.default_rng([step, rank])
        speed = rng.choice([0.1, 0.3], batch_size)
        times = np.linspace(0, 1, self.frames)
        ball = rng.standard_normal((batch_size, 1, 40, 3))
        ball *= 0.3 / np.linalg.norm(ball, axis=3, keepdims=True)
        shift = np.zeros((batch_size, self.frames, 1, 3))
        shift[..., 0, 0] = speed[:, None] * times
        tracks = (ball + shift).astype(np.float32)

        def asked(frames: NDArray[np.int64]) -> Timed:
            queries = rng.uniform(-0.6, 0.6, (batch_size, self.queries, 3))
            centers = shift[np.arange(batch_size), frames]
            inside = np.linalg.norm(queries - centers, axis=2) < 0.3
            return Timed(
                queries.astype(np.float32), inside.astype(np.float32), times[frames].astype(np.float32)
            )

        inputs = {
            "sequence": tracks,
            "ends": tracks[:, [0, -1]],
            "nothing": np.zeros((batch_size, 1, 0), np.float32),
            "pictures": np.full((batch_size, self.frames, 3, 64, 64), 0.5, np.float32),
        }[self.seen]
        first = asked(np.zeros(batch_size, np.int64))
        later_frames = np.resize(np.arange(self.later_frames)[::-1], batch_size)
        return Sequences(inputs, first, asked(later_frames), tracks[:, :, :20], step)


SMALL_POINTS = ConvOnetConfig(
    projections=("xz", "xy", "yz"),
    plane_resolution=8,
    feature_size=8,
    encoder_hidden=8,
    encoder_blocks=2,
    unet2d_levels=2,
    unet2d_channels=8,
    decoder_hidden=16,
    decoder_blocks=2,
)
SMALL_CROPS = replace(
    SMALL_POINTS,
    family="crops",
    projections=("grid",),
    query_voxels=1,
    unet3d_levels=2,
    unet3d_channels=8,
    unit_size=1 / 16,
)
SMALL_ONET = OccupancyNetworkConfig("pointnet_resnet", 16, encoder_hidden=16, decoder_hidden=16)
SMALL_FLOW = OccupancyFlowConfig(
    frames=FRAMES,
    code_size=16,
    spatial_hidden=16,
    temporal_hidden=16,
    latent_hidden=16,
    decoder_hidden=16,
    velocity_hidden=16,
    velocity_blocks=2,
    solver=SOLVER,
)
LATENT_FLOW = replace(
    SMALL_FLOW, spatial_encoder=None, temporal_encoder=None, decoder="simple", latent_size=8
)
MOTION = replace(SMALL_FLOW, spatial_encoder=None, temporal_encoder="pointnet_pair", decoder=None)
TRACKS = FlowLossConfig(correspondence=True)
BOTH_WAYS = FlowLossConfig(reconstruction=False, correspondence=True, backward_correspondence=True)
CASES: dict[str, tuple[NetworkConfig, Balls | Movers, FlowLossConfig | None]] = {
    "conv_onet": (SMALL_POINTS, Balls(), None),
    "crops": (SMALL_CROPS, Balls("crops"), None),
    "onet": (SMALL_ONET, Balls(), None),
    "onet by number": (
        OccupancyNetworkConfig("index", 16, shape_count=3, decoder_hidden=16),
        Balls("index"),
        None,
    ),
    "onet with a latent": (
        OccupancyNetworkConfig(
            "none", 0, decoder="simple", decoder_hidden=32, latent_size=4, latent_hidden=16
        ),
        Balls("nothing"),
        None,
    ),
    "oflow": (SMALL_FLOW, Movers(), TRACKS),
    "oflow alone": (SMALL_FLOW, Movers(), FlowLossConfig()),
    "oflow with latents": (LATENT_FLOW, Movers(), TRACKS),
    "oflow of motion": (MOTION, Movers(seen="ends"), BOTH_WAYS),
    "onet4d": (
        OccupancyNetwork4DConfig(FRAMES, code_size=16, temporal_hidden=16, decoder_hidden=16),
        Movers(),
        None,
    ),
}


STEPS = {"onet with a latent": 500, "oflow with latents": 160, "crops": 80}


def training(steps: int) -> TrainingConfig:
    return TrainingConfig(steps=steps, batch_size=6, learning_rate=1e-2, warmup_steps=5, averaging=0.9)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("case", CASES)
def test_the_loss_of_every_kind_falls_and_the_averaged_weights_do_better(case: str) -> None:
    config, source, terms = CASES[case]
    network, objective, losses = config.build(), objective_of(config, terms), []
    schedule = training(STEPS.get(case, 80))
    state = TrainingState.fresh(network, schedule)

    def measured() -> float:
        fixed = [objective.load(source.batch(10_000 + number, 8), CPU) for number in range(3)]
        judged = config.build()
        judged.load_state_dict(state.averaged)
        with torch.no_grad():
            (figure,) = objective.validate(judged.eval(), fixed).values()
        return figure

    before = measured()
    Fit(
        source,
        schedule,
        CPU,
        on_step=lambda _, metrics: losses.append(metrics["loss"]),
        objective=objective,
    ).run(state)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5]), losses
    if case == "oflow of motion":
        assert measured() < 0.6 * before  # a distance
    else:
        assert measured() > max(0.6, before)  # an IoU


@pytest.mark.parametrize("case", ["onet", "onet with a latent", "oflow with latents"])
def test_a_resumed_run_is_the_run_itself(case: str, tmp_path: Path) -> None:
    """Counters and averages of batch normalization, and the noise of latents, included."""
    config, source, terms = CASES[case]
    objective = objective_of(config, terms)

    def until(step: int, state: TrainingState) -> TrainingState:
        while state.step < step:
            batch = objective.load(source.batch(state.step, 2), CPU)
            train_step(Criterion(state.network, objective), state, batch, training(6))
        return state

    def fresh() -> TrainingState:
        torch.manual_seed(5)
        return TrainingState.fresh(config.build(), training(6))

    whole = until(6, fresh())
    until(3, fresh()).save(tmp_path / "state.pt")
    torch.manual_seed(99)  # what the process drew before does not matter
    resumed = TrainingState.fresh(config.build(), training(6))
    resumed.load(tmp_path / "state.pt")
    until(6, resumed)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
        assert torch.equal(whole.averaged[name], resumed.averaged[name]), name


def test_the_bound_is_that_of_the_network_per_query() -> None:
    config, source, _ = CASES["onet with a latent"]
    network, objective = config.build(), objective_of(config)
    loss, figures = objective.loss(network, objective.load(source.batch(4, 3), CPU))
    arrays = source.batch(4, 3)
    features = torch.zeros(3, 0)
    queries, occupancy = torch.from_numpy(arrays.queries), torch.from_numpy(arrays.occupancy)
    posterior = torch.distributions.Normal(
        (drawn := network.infer_latent(features, queries, occupancy)).mean, drawn.log_std.exp()
    )
    noise = torch.randn(drawn.mean.shape, generator=torch.Generator().manual_seed(arrays.seed))
    logits = network.decode(features, queries, posterior.mean + posterior.stddev * noise)
    likelihood = torch.distributions.Bernoulli(logits=logits).log_prob(occupancy).sum(dim=1)
    kl = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(dim=1)
    assert loss.item() == pytest.approx(((kl - likelihood).mean() / 128).item(), rel=1e-5)
    assert figures["kl"] == pytest.approx(kl.mean().item(), rel=1e-4)


WRAPPED_CASES = ["oflow", "oflow alone", "onet with a latent", "conv_onet"]


@pytest.fixture(scope="module")
def wrapped_gradients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the gradients of each case through a distributed wrapper."""
    folder = tmp_path_factory.mktemp("wrapped")
    program = [sys.executable, "-m", "tests.convonet.wrapped_gradients", str(folder), *WRAPPED_CASES]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("case", WRAPPED_CASES)
def test_a_distributed_wrapper_gives_the_gradients_of_the_network(case: str, wrapped_gradients: Path) -> None:
    config, source, terms = CASES[case]
    objective = objective_of(config, terms)
    network = config.build()
    loss, _ = objective.loss(network, objective.load(source.batch(0, 2), CPU))
    loss.backward()
    expected = [value.grad for value in network.parameters() if value.grad is not None]
    found = torch.load(wrapped_gradients / f"{case}.pt", weights_only=True)
    assert len(found) == len(expected) == len(list(network.parameters()))
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)


def shrunk(name: str) -> tuple[NetworkConfig, Balls | Movers | Spheres]:
    """A preset with narrow layers on small grids, and what it takes."""
    config = PRESETS[name]
    if family_of(config).makes == "scenes":
        return config, Spheres()
    if isinstance(config, ConvOnetConfig):
        narrow = replace(
            config,
            plane_resolution=32,
            volume_resolution=16,
            pointnetpp_width=8,
            fine_centers=16,
            coarse_centers=8,
        )
        if config.family == "crops":
            narrow = replace(config, unet3d_levels=2, query_voxels=1, unit_size=1 / 16)
        return narrow, Balls({"voxels": "voxels", "crops": "crops"}.get(config.family, "points"))
    if isinstance(config, OccupancyNetworkConfig):
        kinds = {"voxel_simple": "voxels", "resnet18": "views", "index": "index", "none": "nothing"}
        return replace(config, decoder_hidden=16), Balls(kinds.get(config.encoder, "points"))
    if name.startswith(("oflow_img", "onet4d_img")):
        narrow = {"solver": SOLVER} if isinstance(config, OccupancyFlowConfig) else {}
        return replace(config, frames=FRAMES, **narrow), Movers(FRAMES, "pictures")
    seen = "ends" if config.temporal_encoder == "pointnet_pair" else "sequence"
    narrow = {"code_size": 8, "temporal_hidden": 8, "decoder_hidden": 8}
    if isinstance(config, OccupancyFlowConfig):
        narrow |= {"velocity_hidden": 8, "solver": SOLVER}
    return replace(config, **narrow), Movers(config.frames, seen)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_parameter_of_every_preset_gets_a_gradient(name: str) -> None:
    """Or a distributed wrapper would wait for it forever."""
    config, source = shrunk(name)
    network, objective = config.build(), objective_of(config, LOSSES.get(name))
    loss, figures = objective.loss(network, objective.load(source.batch(0, 2), CPU))
    loss.backward()
    missing = [key for key, value in network.named_parameters() if value.grad is None]
    assert not missing and torch.isfinite(loss) and figures is not None
