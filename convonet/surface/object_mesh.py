"""From an occupancy field to one closed mesh of an object (Mescheder et al. 2019, section 3.3 and supplement).

A field is any callable from positions to logits. Objects live in the unit cube about the origin; the field is
sampled on a lattice over that cube with some padding, coarse to fine around the surface, marching cubes turns the
samples into faces, and the field's own gradient gives the normals and, if asked for, refines the vertices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convonet.errors import FieldError
from convonet.surface import mise
from convonet.surface.lattice import Lattice
from convonet.surface.marching_cubes import extract_blocks
from foundation.errors import SettingError

Field = Callable[[Tensor], Tensor]
"""Positions (Q, 3) float32 to logits (Q,); differentiable in the positions, each by itself."""

OUTSIDE = -1e6
"""Value around the padded cube, far below any logit: the surface closes a thousandth of a cell beyond it."""


@dataclass(frozen=True)
class ExtractionConfig:
    """How a mesh is extracted.

    Attributes:
        resolution: cells of the coarsest lattice along each side of the padded cube.
        upsampling_steps: how often cells at the surface are halved; 0 samples the whole lattice.
        threshold: occupancy probability at the surface.
        padding: how much longer the sampled cube is than the unit cube.
        refinement_steps: steps of `refine` after the extraction.
        queries_per_batch: most positions given to the field at once; bounds memory, changes no result.
    """

    resolution: int = 32
    upsampling_steps: int = 2
    threshold: float = 0.2
    padding: float = 0.1
    refinement_steps: int = 0
    queries_per_batch: int = 100_000

    def __post_init__(self) -> None:
        if self.resolution < 1 or self.queries_per_batch < 1:
            raise SettingError("resolution and queries_per_batch must be at least 1")
        if self.upsampling_steps < 0 or self.refinement_steps < 0:
            raise SettingError("upsampling_steps and refinement_steps must not be negative")
        if not 0 < self.threshold < 1:
            raise SettingError(f"threshold is a probability between 0 and 1, got {self.threshold}")
        if not (math.isfinite(self.padding) and self.padding > -1):
            raise SettingError(f"padding must be finite and above -1, got {self.padding}")

    @property
    def finest_resolution(self) -> int:
        """Cells of the finest lattice along each side."""
        return self.resolution << self.upsampling_steps

    @property
    def side(self) -> float:
        """Side of the padded cube."""
        return 1.0 + self.padding

    @property
    def threshold_logit(self) -> float:
        """The logit of `threshold`."""
        return math.log(self.threshold) - math.log1p(-self.threshold)

    @property
    def lattice(self) -> Lattice:
        """The finest lattice; point (0, 0, 0) is the padded cube's lowest corner."""
        corner = -0.5 * self.side
        return Lattice((corner, corner, corner), self.side / self.finest_resolution)


@dataclass(frozen=True)
class ObjectMesh:
    """A closed triangle mesh in the frame of the unit cube.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int64 rows of `vertices`, counter-clockwise seen from outside.
        normals: (V, 3) float32 unit vectors, outward.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    normals: NDArray[np.float32]


def extract_mesh(field: Field, config: ExtractionConfig, device: torch.device | str = "cpu") -> ObjectMesh:
    """Extract the closed surface of a field.

    Args:
        field: logits of positions.
        config: lattice, threshold, refinement.
        device: where the field takes its positions.

    Returns:
        The mesh: without faces if no lattice point is inside, the padded cube if all are. Whatever reaches the
        padded cube's faces is cut and closed there.

    Raises:
        FieldError: if the field gives a value that is not finite.
    """
    surface = extract_blocks(*_sampled_blocks(field, config, torch.device(device)))
    faces = surface.indexed_faces()
    vertices = config.lattice.world(surface.positions)
    normals = field_normals(vertices, faces, field, config, device)
    mesh = ObjectMesh(vertices, faces, normals)
    if config.refinement_steps:
        mesh = refine(mesh, field, config.refinement_steps, config, device=device)
    return mesh


def refine(
    mesh: ObjectMesh,
    field: Field,
    steps: int,
    config: ExtractionConfig,
    *,
    learning_rate: float = 1e-4,
    normal_weight: float = 0.01,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> ObjectMesh:
    """Move vertices so that the faces lie on the field's level set and face along its gradient.

    Each step draws one random point of every face and descends (RMSprop) on the mean of (occupancy -
    threshold)^2 + normal_weight * |face normal - field normal|^2. Vertices of the closing at the padded cube,
    where the surface is not the field's, stay where they are.

    Args:
        mesh: from `extract_mesh`.
        field: logits of positions; twice differentiable.
        steps: how many; 30 in the paper's code.
        config: the mesh's; its threshold, padding and batch size are used.
        learning_rate: about how far a vertex moves in a step.
        normal_weight: of the second term.
        seed: of the random points.
        device: where the field takes its positions.

    Returns:
        The same faces at new positions, with new normals.
    """
    if not steps or not len(mesh.faces):
        return mesh
    free = ~_is_closing(mesh.vertices, config)
    faces = mesh.faces[free[mesh.faces].any(axis=1)]  # those of the closing cannot move
    if not len(faces):
        return mesh
    rng, size = np.random.default_rng(seed), config.queries_per_batch
    rows = torch.from_numpy(faces).to(device)
    positions = torch.from_numpy(mesh.vertices.astype(np.float32)).to(device)
    is_free = torch.from_numpy(free[:, None]).to(device)
    optimizer = torch.optim.RMSprop([positions], lr=learning_rate)
    for _ in range(steps):
        draws = rng.dirichlet((0.5, 0.5, 0.5), size=len(faces)).astype(np.float32)
        weights = torch.from_numpy(draws).to(device)
        # Summed by vertex here: the backward pass of indexing adds in whatever order its threads come.
        gradient = torch.zeros_like(positions, dtype=torch.float64)
        for part, shares in zip(torch.split(rows, size), torch.split(weights, size), strict=True):
            corners = positions[part].requires_grad_()
            with torch.enable_grad():
                losses = _refinement_losses(corners, shares, field, config.threshold, normal_weight)
                (slopes,) = torch.autograd.grad(losses.sum(), corners)
            gradient.index_add_(0, part.reshape(-1), slopes.reshape(-1, 3).double())
        positions.grad = (gradient / len(faces)).float() * is_free
        optimizer.step()
    moved = np.where(free[:, None], positions.cpu().numpy().astype(np.float64), mesh.vertices)
    return ObjectMesh(moved, mesh.faces, field_normals(moved, mesh.faces, field, config, device))


def field_normals(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    field: Field,
    config: ExtractionConfig,
    device: torch.device | str = "cpu",
) -> NDArray[np.float32]:
    """Unit normals (V, 3) against the field's gradient.

    Where the surface is the closing's, or the field is flat, the area-weighted mean of the faces' normals.

    Args:
        vertices: (V, 3) of a mesh of the field's surface; `extract_mesh` brings its normals with it.
        faces: (F, 3).
        field: logits of positions.
        config: the mesh's; its padding and batch size are used.
        device: where the field takes its positions.
    """
    normals = np.zeros((len(vertices), 3), np.float32)
    rows = np.flatnonzero(~_is_closing(vertices, config))
    for part in _batches(rows, config.queries_per_batch):
        queries = torch.from_numpy(vertices[part].astype(np.float32)).to(device).requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(field(queries).float().sum(), queries)
        normals[part] = -torch.nn.functional.normalize(gradient, dim=1, eps=1e-20).cpu().numpy()
    is_known = np.abs(np.linalg.norm(normals, axis=1) - 1) < 1e-3
    if not is_known.all():
        normals[~is_known] = _mesh_normals(vertices, faces)[~is_known]
    return normals


def _refinement_losses(
    corners: Tensor, weights: Tensor, field: Field, threshold: float, normal_weight: float
) -> Tensor:
    """Losses (F,) of faces with corners (F, 3, 3) at the points of barycentric weights (F, 3)."""
    points = (corners * weights[:, :, None]).sum(dim=1)
    occupancy = torch.sigmoid(field(points).float())
    (gradient,) = torch.autograd.grad(occupancy.sum(), points, create_graph=True)
    cross = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1])
    mismatch = _unit(cross) - _unit(-gradient)
    off_level = occupancy - threshold
    return off_level.square() + normal_weight * mismatch.square().sum(dim=1)


def _unit(vectors: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / (lengths + 1e-10)


def _sampled_blocks(
    field: Field, config: ExtractionConfig, device: torch.device
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Dense blocks that hold the whole surface, as `extract_blocks` takes them.

    One ring of coarse cells around the padded cube is outside without being asked for, which closes the surface.
    """
    size, step = config.finest_resolution, 1 << config.upsampling_steps

    def values_of(points: NDArray[np.int64]) -> NDArray[np.float32]:
        values = np.full(len(points), OUTSIDE, np.float32)
        within = np.flatnonzero(((points >= 0) & (points <= size)).all(axis=1))
        for rows in _batches(within, config.queries_per_batch):
            positions = config.lattice.world(points[rows])
            queries = torch.from_numpy(positions.astype(np.float32)).to(device)
            with torch.no_grad():
                logits = field(queries).double().cpu().numpy()
            if not np.isfinite(logits).all():
                where = positions[np.flatnonzero(~np.isfinite(logits))[0]]
                raise FieldError(f"the field is not finite at {tuple(where.tolist())}")
            values[rows] = logits - config.threshold_logit
        return values

    low, high = np.full(3, -step), np.full(3, size + step)
    if config.upsampling_steps:
        steps = tuple(step >> level for level in range(config.upsampling_steps + 1))
        no_seeds = np.zeros((0, 3), np.int64)
        return mise.refine(values_of, low, high, no_seeds, mise.MiseConfig(steps)).blocks()
    side = size + 3
    points = np.stack(np.unravel_index(np.arange(side**3), (side, side, side)), axis=1) - 1
    return low[None], values_of(points).reshape(1, side, side, side)


def _batches(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _is_closing(vertices: NDArray[np.float64], config: ExtractionConfig) -> NDArray[np.bool_]:
    """Which vertices (V,) lie beyond the padded cube, where the surface was closed."""
    rounding = 1e-4 * config.lattice.spacing
    return np.asarray(np.abs(vertices).max(axis=1, initial=0.0) > 0.5 * config.side + rounding)


def _mesh_normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float32]:
    """Area-weighted mean normals (V, 3) of the faces around each vertex."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    cross = np.cross(b - a, c - a)
    sums = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(sums, faces[:, corner], cross)
    unit = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(unit.astype(np.float32))
