"""Local pooling and the scatter stage: against loops, and exactly equivariant to shifts by whole cells."""

import itertools

import pytest
import torch

from convonet.conv_onet.coordinates import AXES, PROJECTIONS, Projection
from convonet.conv_onet.feature_grids import FeatureGrids, GridSizes
from convonet.conv_onet.patch_encoder import CropInputs, PatchLocalPoolPointnet
from convonet.conv_onet.pooled_encoder import LocalPoolPointnet, object_cells
from convonet.conv_onet.voxel_encoder import LocalVoxelEncoder
from convonet.layers.pooled_trunk import LocalPoolTrunk
from convonet.layers.scatter import Pooling
from tests.convonet.conv_onet import original_forward

SIDES: dict[Projection, int] = {"xz": 12, "xy": 12, "yz": 12, "grid": 6}


def bare_sizes(projections: tuple[Projection, ...]) -> GridSizes:
    return GridSizes(projections, SIDES["xz"], SIDES["grid"], 0, 8, 0, 8)


def parts(sizes: GridSizes, blocks: int, pooling: Pooling = "max") -> tuple[LocalPoolTrunk, FeatureGrids]:
    return LocalPoolTrunk(3, 4, 8, blocks, pooling, "torch"), FeatureGrids(4, sizes)


def cloud(count: int, seed: int = 0, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, count, 3, generator=torch.Generator().manual_seed(seed)) * 1.2 - 0.6


def randomise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(9)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4


SUBSETS = [subset for size in (1, 2, 4) for subset in itertools.combinations(PROJECTIONS, size)]


@pytest.mark.parametrize("projections", SUBSETS, ids="+".join)
def test_pooled_features_agree_with_loops_on_any_subset_of_grids(projections: tuple[Projection, ...]) -> None:
    encoder = LocalPoolPointnet(*parts(bare_sizes(projections), 3), 0.1).requires_grad_(False)
    randomise(encoder)
    state = {name.replace("trunk.", "encoder."): value for name, value in encoder.state_dict().items()}
    points = cloud(80)
    grids = encoder(points)
    assert tuple(grids) == projections
    for item in (0, 1):
        cells = {
            kind: [
                original_forward.cell_of(original_forward.unit_coordinate(point, kind), SIDES[kind])
                for point in points[item].numpy()
            ]
            for kind in projections
        }
        features = original_forward.pooled_point_features(points[item], cells, state)
        for kind in projections:
            expected = original_forward.scatter_average(features, cells[kind], SIDES[kind])
            torch.testing.assert_close(grids[kind][item], expected, rtol=1e-4, atol=1e-5)


def test_mean_pooling_takes_the_mean() -> None:
    encoder = LocalPoolPointnet(*parts(bare_sizes(("xy",)), 2, "mean"), 0.1).requires_grad_(False)
    randomise(encoder)
    points = torch.tensor([[[0.01, 0.01, 0.3], [0.02, 0.01, -0.2], [0.03, 0.02, 0.1], [-0.4, 0.4, 0.0]]])
    trunk = encoder.trunk
    first = trunk.blocks[0](trunk.fc_pos(points[0]))
    pooled = torch.cat([first[:3].mean(dim=0).expand(3, -1), first[3:]])
    expected = trunk.fc_c(trunk.blocks[1](torch.cat([first, pooled], dim=1)))
    plane = encoder(points)["xy"][0].flatten(1)
    assert int((plane != 0).any(dim=0).sum()) == 2
    together = int((0.01 / 1.10001 + 0.5) * 12)
    torch.testing.assert_close(plane[:, together * 13], expected[:3].mean(dim=0))


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_shifting_points_by_whole_cells_shifts_the_scattered_features_exactly(projection: Projection) -> None:
    sizes = bare_sizes((projection,))
    side, axes = SIDES[projection], AXES[projection]
    cell = (1.1 + (1e-3 if projection == "grid" else 1e-5)) / side
    generator = torch.Generator().manual_seed(2)
    # inside the cells 1 to 3, off their faces, so that rounding cannot move a point into a neighbor
    cells = torch.randint(1, 4, (2, 60, 3), generator=generator)
    points = (cells + 0.1 + 0.8 * torch.rand(2, 60, 3, generator=generator) - side / 2) * cell
    features = torch.randn(120, 5, generator=generator)
    stage = FeatureGrids(5, sizes)
    here = stage(features, object_cells(points, sizes, 0.1), 2)[projection]
    steps = (2, 1, 2)
    moved = points + cell * torch.tensor(steps)
    there = stage(features, object_cells(moved, sizes, 0.1), 2)[projection]
    # the tensor's axes are the projection's in reverse; everything stays clear of the wrap-around
    by = [steps[axis] for axis in reversed(axes)]
    assert torch.equal(there, here.roll(by, dims=list(range(2, 2 + len(axes)))))
    assert not torch.equal(there, here)


def crop_encoder() -> PatchLocalPoolPointnet:
    sizes = GridSizes(("grid", "xz"), 16, 16, 0, 8, 0, 8)
    encoder = PatchLocalPoolPointnet(*parts(sizes, 3), unit_size=0.25).requires_grad_(False)
    randomise(encoder)
    return encoder


def test_crops_moved_with_their_points_by_whole_voxels_give_the_same_grids() -> None:
    """Coordinates are local, so unlike objects' the whole encoder is equivariant. Powers of two: exactly."""
    encoder = crop_encoder()
    lower, upper = torch.zeros(2, 3), torch.full((2, 3), 4.0)
    points = torch.randint(256, 768, (2, 90, 3), generator=torch.Generator().manual_seed(5)) / 256.0
    box = (16, ("grid", "xz"))
    here = encoder(CropInputs.in_boxes(points, lower, upper, *box)).grids
    moved = encoder(CropInputs.in_boxes(points + 8.0, lower + 8.0, upper + 8.0, *box)).grids
    inside = encoder(CropInputs.in_boxes(points + 0.5, lower, upper, *box)).grids
    for projection in ("grid", "xz"):
        assert torch.equal(moved[projection], here[projection])
        dims = list(range(2, here[projection].dim()))
        assert torch.equal(inside[projection], here[projection].roll([2] * len(dims), dims))
        assert int((here[projection] != 0).sum()) > 0


def test_points_outside_a_crop_change_nothing() -> None:
    encoder = crop_encoder()
    lower, upper = torch.zeros(1, 3), torch.full((1, 3), 4.0)
    points = torch.rand(1, 50, 3, generator=torch.Generator().manual_seed(6)) * 4
    outside = points[:, :9] + torch.tensor([4.0, 0.0, 0.0])
    alone = encoder(CropInputs.in_boxes(points, lower, upper, 16, ("grid", "xz"))).grids
    both = torch.cat([outside, points], dim=1)
    together = encoder(CropInputs.in_boxes(both, lower, upper, 16, ("grid", "xz"))).grids
    for projection, grid in alone.items():
        assert torch.equal(together[projection], grid)


def test_a_crop_without_points_is_empty() -> None:
    encoder = crop_encoder()
    lower, upper = torch.zeros(1, 3), torch.full((1, 3), 4.0)
    for points in (torch.zeros(1, 0, 3), torch.full((1, 7, 3), 9.0)):
        grids = encoder(CropInputs.in_boxes(points, lower, upper, 16, ("grid", "xz"))).grids
        assert grids["grid"].shape == (1, 4, 16, 16, 16)
        assert not any(grid.any() for grid in grids.values())


def test_crops_without_cells_for_a_projection_are_refused() -> None:
    crops = CropInputs.in_boxes(cloud(5), torch.zeros(2, 3), torch.ones(2, 3), 16, ("grid",))
    with pytest.raises(ValueError, match="no cells for xz"):
        crop_encoder()(crops)


def test_voxels_lie_on_the_corners_of_the_unit_cube() -> None:
    """One occupied voxel lights its neighborhood, and only the cells those voxels fall into."""
    encoder = LocalVoxelEncoder(4, 1, bare_sizes(("grid",)), 0.1).requires_grad_(False)
    encoder.conv_in.weight.fill_(1.0)
    encoder.conv_in.bias.zero_()
    voxels = torch.zeros(2, 8, 8, 8)
    voxels[0, 7, 0, 3] = 1
    grid = encoder(voxels)["grid"]
    where = [int((step / 7 - 0.5) / 1.101 * 6 + 3) for step in (7, 0, 3)]
    assert grid[1].abs().max() == 0
    assert grid[0, 0].nonzero().tolist() == [[where[2], where[1], where[0]]]
    members = 1
    for axis in range(3):
        cells = [int((step / 7 - 0.5) / 1.101 * 6 + 3) for step in range(8)]
        members *= cells.count(where[axis])
    assert float(grid[0, 0].max()) == pytest.approx(1 / members)
    with pytest.raises(ValueError, match="kernel_size"):
        LocalVoxelEncoder(4, 2, bare_sizes(("grid",)), 0.1)
