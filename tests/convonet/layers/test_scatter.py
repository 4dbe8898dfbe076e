"""Reductions over cells, against loops and against torch-scatter where it is installed."""

import importlib.util

import pytest
import torch

from convonet.errors import NetworkError
from convonet.layers.pooling import OccupiedVoxels
from convonet.layers.scatter import Backend, pool_cells

HAS_TORCH_SCATTER = importlib.util.find_spec("torch_scatter") is not None
BACKENDS = [
    "torch",
    pytest.param(
        "torch_scatter",
        marks=pytest.mark.skipif(
            not HAS_TORCH_SCATTER, reason="torch-scatter is not installed (the optional extra `scatter`)"
        ),
    ),
]


def features_in_cells(points: int = 300, cells: int = 70) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(points, 5, generator=generator) - 2  # mostly negative: an empty cell's 0 would win
    return features, torch.randint(0, cells, (points,), generator=generator) * 1000


@pytest.mark.parametrize("backend", BACKENDS)
def test_reductions_agree_with_a_loop_over_cells(backend: Backend) -> None:
    features, index = features_in_cells()
    cells = OccupiedVoxels.of_cells(index)
    assert cells.flat_index.tolist() == sorted(set(index.tolist()))
    means, maxima = (pool_cells(features, cells, pooling, backend) for pooling in ("mean", "max"))
    for row, cell in enumerate(cells.flat_index.tolist()):
        members = [features[i] for i in range(len(index)) if int(index[i]) == cell]
        torch.testing.assert_close(means[row], torch.stack(members).sum(dim=0) / len(members))
        assert torch.equal(maxima[row], torch.stack(members).amax(dim=0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_the_reductions(backend: Backend) -> None:
    features, index = features_in_cells(40, 9)
    features = features.double().requires_grad_()
    cells = OccupiedVoxels.of_cells(index)
    assert torch.autograd.gradcheck(lambda x: pool_cells(x, cells, "mean", backend), features)
    assert torch.autograd.gradcheck(lambda x: pool_cells(x, cells, "max", backend), features)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_without_points_has_no_cells(backend: Backend) -> None:
    cells = OccupiedVoxels.of_cells(torch.zeros(0, dtype=torch.int64))
    assert pool_cells(torch.zeros(0, 5), cells, "mean", backend).shape == (0, 5)
    assert pool_cells(torch.zeros(0, 5), cells, "max", backend).shape == (0, 5)


@pytest.mark.skipif(HAS_TORCH_SCATTER, reason="torch-scatter is installed")
def test_asking_for_torch_scatter_without_it_names_the_cure() -> None:
    features, index = features_in_cells()
    with pytest.raises(NetworkError, match="extra `scatter`"):
        pool_cells(features, OccupiedVoxels.of_cells(index), "mean", "torch_scatter")
