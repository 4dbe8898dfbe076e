"""What training gives: true velocities from trajectories, and motions that the baseline cannot tell."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from convonet.oflow import (
    FlowBatch,
    FlowLossConfig,
    OccupancyFlow,
    OccupancyFlowConfig,
    OccupancyNetwork4D,
    OccupancyNetwork4DConfig,
    OccupancySamples,
    SolverConfig,
    flow_loss,
    onet4d_loss,
)
from tests.convonet.oflow.moving_shapes import BendingEllipsoids, RigidMotion, box_surface

FRAMES = 5
WIDTH = 32
STEPS = 200
STEADY = SolverConfig("midpoint", step_size=0.25, adjoint=False)
HELD_OUT = 24


def train(network: nn.Module, loss: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Adam with one cycle of the learning rate."""
    optimizer = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
        schedule.step()
    network.eval().requires_grad_(False)


def test_trajectories_of_a_rigid_box_teach_its_true_velocity() -> None:
    """Within 5% of the mean speed on average, at learned times and between them."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    motion = RigidMotion(
        center=torch.tensor([-0.1, 0.0, 0.0]),
        shift=torch.tensor([0.3, 0.1, -0.2]),
        axis=torch.tensor([0.0, 0.6, 0.8]),
        angle=1.2,
    )
    half, nothing = torch.tensor([0.25, 0.15, 0.2]), torch.empty(1, 1, 0)
    network = OccupancyFlowConfig(
        spatial_encoder=None,
        temporal_encoder=None,
        decoder=None,
        velocity_hidden=48,
        velocity_blocks=2,
        solver=SolverConfig("midpoint", step_size=0.125, adjoint=False),
    ).build()
    config = FlowLossConfig(reconstruction=False, correspondence=True)

    def loss() -> Tensor:
        first = box_surface(half, 256, generator) + motion.center
        tracks = motion.positions(first, torch.linspace(0, 1, 9))[None]
        return flow_loss(network, FlowBatch(nothing, trajectories=tracks), config).total

    train(network, loss, steps=400, rate=1e-2)
    codes, first = network.encode(nothing), box_surface(half, 2000, generator) + motion.center
    for time in (0.0, 0.31, 0.5, 1.0):
        points = motion.positions(first, torch.tensor([time]))[0]
        true = motion.velocities(points, time)
        learned = network.velocity(codes, points[None], torch.tensor([time]))[0]
        assert (learned - true).norm(dim=-1).mean() < 0.05 * true.norm(dim=-1).mean()


@dataclass(frozen=True)
class Contest:
    """Both networks after equally many labels, each by its own loss, and sequences that neither has seen."""

    flow: OccupancyFlow
    baseline: OccupancyNetwork4D
    shapes: BendingEllipsoids
    inputs: Tensor


def training_batch(batch: int, generator: torch.Generator) -> tuple[BendingEllipsoids, FlowBatch]:
    """Random sequences: noisy tracked clouds, labeled points in space and near the surface, trajectories."""
    shapes = BendingEllipsoids.random(batch, generator)
    tracks = shapes.trajectories(shapes.surface(64, generator), FRAMES)

    def samples(times: Tensor) -> OccupancySamples:
        near = shapes.forward(shapes.surface(48, generator), times)
        near = near + 0.05 * torch.randn(near.shape, generator=generator)
        anywhere = torch.rand(batch, 48, 3, generator=generator) * 1.2 - 0.6
        queries = torch.cat([anywhere, near], dim=1)
        return OccupancySamples(queries, shapes.occupancy(queries, times), times)

    later = torch.randint(FRAMES, (batch,), generator=generator) / (FRAMES - 1)
    noisy = tracks + 0.005 * torch.randn(tracks.shape, generator=generator)
    return shapes, FlowBatch(noisy, samples(torch.zeros(batch)), samples(later), tracks)


@pytest.fixture(scope="module")
def contest() -> Contest:
    torch.manual_seed(0)
    flow = OccupancyFlowConfig(
        frames=FRAMES,
        code_size=WIDTH,
        spatial_hidden=WIDTH,
        temporal_hidden=WIDTH,
        decoder_hidden=WIDTH,
        velocity_hidden=WIDTH,
        velocity_blocks=2,
        solver=STEADY,
    ).build()
    baseline = OccupancyNetwork4DConfig(
        frames=FRAMES, code_size=WIDTH, temporal_hidden=WIDTH, decoder_hidden=WIDTH
    ).build()
    config = FlowLossConfig(correspondence=True)
    seen = {network: torch.Generator().manual_seed(1) for network in (flow, baseline)}

    def flow_step() -> Tensor:
        return flow_loss(flow, training_batch(12, seen[flow])[1], config).total

    def baseline_step() -> Tensor:
        batch = training_batch(12, seen[baseline])[1]
        assert batch.later is not None
        return onet4d_loss(baseline, batch.inputs, batch.later)

    train(flow, flow_step, STEPS, rate=5e-3)
    train(baseline, baseline_step, 2 * STEPS, rate=5e-3)  # the flow sees two sets of labels a step
    shapes, batch = training_batch(HELD_OUT, torch.Generator().manual_seed(2))
    return Contest(flow, baseline, shapes, batch.inputs)


def mean_iou(logits: Callable[[Tensor, Tensor], Tensor], shapes: BendingEllipsoids) -> float:
    """Mean over sequences and frames of the volumetric IoU, 4,000 uniform points each."""
    queries = torch.rand(HELD_OUT, 4000, 3, generator=torch.Generator().manual_seed(3)) * 1.2 - 0.6
    ratios = []
    for time in torch.linspace(0, 1, FRAMES):
        times = time.expand(HELD_OUT)
        true, predicted = shapes.occupancy(queries, times) > 0.5, logits(queries, times) > 0
        ratios.append((true & predicted).sum(1) / (true | predicted).sum(1))
    return float(torch.stack(ratios).mean())


def nearest(points: Tensor, surface: Tensor) -> Tensor:
    """(N, 3) the points of (M, 3) `surface` nearest to (N, 3) `points`."""
    return surface[torch.cdist(points, surface).argmin(dim=-1)]


def level_set(logits: Tensor, axis: Tensor) -> Tensor:
    """(M, 3) zero crossings of (R, R, R) values along the edges of a lattice with coordinates (R,)."""
    step, crossings = axis[1] - axis[0], []
    for direction in range(3):
        low = logits.narrow(direction, 0, len(axis) - 1)
        high = logits.narrow(direction, 1, len(axis) - 1)
        cells = torch.nonzero((low > 0) != (high > 0))
        before, after = low[tuple(cells.T)], high[tuple(cells.T)]
        points = axis[cells]
        points[:, direction] += step * before / (before - after)
        crossings.append(points)
    return torch.cat(crossings)


def test_the_flow_beats_the_baseline_where_points_end(contest: Contest) -> None:
    """ONet-4D has no correspondences: grant it the nearest surface point at the end, its own or the true one."""
    generator, end = torch.Generator().manual_seed(4), torch.ones(HELD_OUT)
    first = contest.shapes.surface(200, generator)
    last = contest.shapes.forward(first, end)
    codes = contest.flow.encode(contest.inputs)
    carried = contest.flow.transport(codes, first, torch.tensor([1.0]))[:, 0]
    flow_error = (carried - last).norm(dim=-1).mean()

    true_surface = contest.shapes.forward(contest.shapes.surface(2000, generator), end)
    axis = torch.linspace(-0.6, 0.6, 25)
    lattice = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(1, -1, 3)
    code = contest.baseline.encode(contest.inputs)
    values = contest.baseline.decode(code, lattice.expand(HELD_OUT, -1, 3), end)
    by_truth, by_baseline = [], []
    for item in range(HELD_OUT):
        by_truth.append(nearest(first[item], true_surface[item]) - last[item])
        surface = level_set(values[item].view(25, 25, 25), axis)
        if len(surface):
            by_baseline.append(nearest(first[item], surface) - last[item])
    assert len(by_baseline) > HELD_OUT / 2
    granted = [torch.stack(errors).norm(dim=-1).mean() for errors in (by_truth, by_baseline)]
    assert flow_error < 0.6 * min(granted), (flow_error, granted)
    assert flow_error < 0.4 * (last - first).norm(dim=-1).mean()


def test_the_flow_fills_space_at_least_as_well_as_the_baseline(contest: Contest) -> None:
    codes = contest.flow.encode(contest.inputs)
    code = contest.baseline.encode(contest.inputs)
    by_flow = mean_iou(lambda queries, times: contest.flow.decode(codes, queries, times), contest.shapes)
    by_baseline = mean_iou(
        lambda queries, times: contest.baseline.decode(code, queries, times), contest.shapes
    )
    assert by_flow > 0.45
    assert by_flow > by_baseline - 0.02, (by_flow, by_baseline)


def test_the_same_points_decode_alike_wherever_they_are_carried(contest: Contest) -> None:
    codes = contest.flow.encode(contest.inputs)
    first = contest.shapes.surface(100, torch.Generator().manual_seed(5))
    ends = contest.flow.transport(codes, first, torch.tensor([1.0]))[:, 0]
    inside_first = contest.flow.decode(codes, first) > 0
    inside_last = contest.flow.decode(codes, ends, torch.ones(HELD_OUT)) > 0
    assert (inside_first == inside_last).float().mean() > 0.97
