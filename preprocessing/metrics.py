"""How good a mesh is against a reference: the measures of Mescheder et al. 2019 and Peng et al. 2020.

Accuracy is the mean distance from the mesh to the reference, completeness the mean distance back,
Chamfer-L1 their mean; the F-score is the harmonic mean of precision and recall at a distance tau. Normal
consistency is the mean absolute cosine between normals at nearest points, both ways; since it is blind to
orientation, the signed mean is given too. IoU compares occupancy at uniform points.

Distances run from sampled points to the other surface itself. The papers measure to the nearest of 100,000
samples instead, whose spacing is a floor that swallows centimeters on a building; Chamfer-L1 and the F-score of
that protocol are given beside ours, to compare with their tables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from preprocessing.errors import MeshError
from preprocessing.meshes.soups import merge_equal
from preprocessing.native import ray_threads, ray_tree, tensor
from preprocessing.occupancy_labels import Solid, solid_components, unpaired_edges
from preprocessing.surface_sampling import sample_surface

UNIT_TAU = 0.01  # of the reference's longest side, which the papers scale to 1
IOU_PADDING = 0.05

Occupancy = Callable[[NDArray[np.float64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class ThresholdScore:
    """Precision, recall and F-score at one distance."""

    threshold_m: float
    precision: float
    recall: float
    f_score: float


@dataclass(frozen=True)
class MeshMetrics:
    """A mesh measured against a reference; distances in the meshes' unit (meters).

    Attributes:
        iou: None where one of the two does not enclose a volume.
        iou_standard_error: of the sampling.
        accuracy, completeness, chamfer_l1: meters.
        normal_consistency, normal_consistency_signed: 1 is best.
        f_score: at 1% of the reference's longest side.
        sampled_chamfer_l1_unit, sampled_f_score: by the papers' protocol: to the nearest sample, with the
            reference's longest side scaled to 1.
        thresholds: that one, then the thresholds asked for.
        samples: points on each surface.
    """

    iou: float | None
    iou_standard_error: float | None
    accuracy: float
    completeness: float
    chamfer_l1: float
    normal_consistency: float
    normal_consistency_signed: float
    f_score: float
    sampled_chamfer_l1_unit: float
    sampled_f_score: float
    thresholds: tuple[ThresholdScore, ...]
    samples: int

    def table(self) -> str:
        """The metrics as aligned lines of text."""
        iou = "not defined (a mesh does not enclose a volume)"
        if self.iou is not None:
            iou = f"{self.iou:.4f} +- {self.iou_standard_error:.4f}"
        lines = [
            f"IoU                  {iou}",
            f"Chamfer-L1           {self.chamfer_l1:.5f} m",
            f"accuracy             {self.accuracy:.5f} m",
            f"completeness         {self.completeness:.5f} m",
            f"normal consistency   {self.normal_consistency:.4f}  (signed {self.normal_consistency_signed:.4f})",
        ]
        for number, score in enumerate(self.thresholds):
            note = "  (1% of the longest side)" if number == 0 else ""
            lines.append(
                f"F-score at {score.threshold_m:<8.4g}m {score.f_score:.4f}  (precision {score.precision:.4f}, "
                f"recall {score.recall:.4f}){note}"
            )
        lines.append(
            f"papers' protocol     Chamfer-L1 {self.sampled_chamfer_l1_unit:.5f}, F-score {self.sampled_f_score:.4f}  "
            "(nearest samples, longest side 1)"
        )
        return "\n".join(lines)


def evaluate_mesh(
    vertices: NDArray[np.float64],
    faces: NDArray[np.int64],
    reference_vertices: NDArray[np.float64],
    reference_faces: NDArray[np.int64],
    *,
    sample_count: int = 100_000,
    volume_queries: int = 100_000,
    thresholds_m: tuple[float, ...] = (),
    seed: int = 0,
    reference_occupancy: Occupancy | None = None,
) -> MeshMetrics:
    """Measure a mesh against a reference.

    Args:
        vertices, faces: the mesh, (V, 3) float64 and (F, 3); one that is empty or has no area scores worst
            everywhere: IoU, F-scores and consistencies 0, distances infinite.
        reference_vertices, reference_faces: the reference; may be several overlapping closed parts,
            which count as their union: buried surface is not sampled.
        sample_count: points on each surface.
        volume_queries: uniform points in the padded common bounding box, for the IoU.
        thresholds_m: distances of further F-scores.
        seed: of all samples.
        reference_occupancy: exact occupancy of the reference, in place of its mesh's.

    Raises:
        MeshError: if the reference is empty or has no area, or a mesh has vertices that are not finite.
    """
    if not len(reference_faces):
        raise MeshError("the reference has no faces; a point cloud cannot be a reference")
    vertices, faces = closed_by_merging(vertices, faces)
    reference_vertices, reference_faces = closed_by_merging(reference_vertices, reference_faces)
    rng = np.random.default_rng(seed)
    side = float((reference_vertices.max(axis=0) - reference_vertices.min(axis=0)).max())
    taus = (UNIT_TAU * side, *thresholds_m)
    if not _has_area(vertices, faces):
        worst = tuple(ThresholdScore(tau, 0.0, 0.0, 0.0) for tau in taus)
        far = float("inf")
        return MeshMetrics(0.0, 0.0, far, far, far, 0.0, 0.0, 0.0, far, 0.0, worst, sample_count)
    points, normals = sample_surface(vertices, faces, sample_count, rng)
    truth, truth_normals = _sample_union(reference_vertices, reference_faces, sample_count, rng)
    to_truth, at_truth = nearest_on_surface(reference_vertices, reference_faces, points)
    to_mesh, at_mesh = nearest_on_surface(vertices, faces, truth)
    cosines = np.concatenate([(normals * at_truth).sum(axis=1), (truth_normals * at_mesh).sum(axis=1)])
    cosines = cosines[np.isfinite(cosines)]
    scores = tuple(_score(tau, to_truth, to_mesh) for tau in taus)
    sampled_to_truth, _ = cKDTree(truth).query(points, workers=-1)
    sampled_to_mesh, _ = cKDTree(points).query(truth, workers=-1)
    sampled_chamfer = 0.5 * float(sampled_to_truth.mean() + sampled_to_mesh.mean())
    occupied = None if unpaired_edges(faces) else Solid(vertices, faces).occupancy
    if reference_occupancy is None and not unpaired_edges(reference_faces):
        reference_occupancy = Solid(reference_vertices, reference_faces).occupancy
    iou = error = None
    if occupied is not None and reference_occupancy is not None:
        low = np.minimum(vertices.min(axis=0), reference_vertices.min(axis=0))
        high = np.maximum(vertices.max(axis=0), reference_vertices.max(axis=0))
        pad = IOU_PADDING * (high - low)
        queries = rng.uniform(low - pad, high + pad, (volume_queries, 3))
        iou, error = occupancy_iou(occupied(queries), reference_occupancy(queries))
    accuracy, completeness = float(to_truth.mean()), float(to_mesh.mean())
    return MeshMetrics(
        iou=iou,
        iou_standard_error=error,
        accuracy=accuracy,
        completeness=completeness,
        chamfer_l1=0.5 * (accuracy + completeness),
        normal_consistency=float(np.abs(cosines).mean()),
        normal_consistency_signed=float(cosines.mean()),
        f_score=scores[0].f_score,
        sampled_chamfer_l1_unit=sampled_chamfer / side,
        sampled_f_score=_score(taus[0], sampled_to_truth, sampled_to_mesh).f_score,
        thresholds=scores,
        samples=sample_count,
    )


def closed_by_merging(
    vertices: NDArray[np.float64], faces: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A mesh with vertices at one position merged, where that closes it: files store corners apart at texture
    seams, at creases, or for every face."""
    if not unpaired_edges(faces) or not np.isfinite(vertices).all():
        return vertices, faces
    merged, place = merge_equal(vertices)
    joined = place[faces]
    flat = (joined[:, 0] == joined[:, 1]) | (joined[:, 1] == joined[:, 2]) | (joined[:, 0] == joined[:, 2])
    joined = joined[~flat]
    return (merged, joined) if len(joined) and not unpaired_edges(joined) else (vertices, faces)


def nearest_on_surface(
    vertices: NDArray[np.float64], faces: NDArray[np.integer], points: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance (N,) from points to a mesh's surface, and the unit normal (N, 3) of the nearest triangle.

    A triangle without area has no normal (NaN). Computed in single precision around the mesh's center:
    about 1e-7 of the mesh's size is lost.
    """
    center = 0.5 * (vertices.min(axis=0) + vertices.max(axis=0))
    scene = ray_tree([(vertices - center, faces)])
    queries = (points - center).astype(np.float32)
    found = scene.compute_closest_points(tensor(queries), nthreads=ray_threads())
    distances = np.linalg.norm(found["points"].numpy().astype(np.float64) - queries, axis=1)
    return distances, found["primitive_normals"].numpy().astype(np.float64)


def occupancy_iou(predicted: NDArray[np.bool_], exact: NDArray[np.bool_]) -> tuple[float, float]:
    """Intersection over union of two labelings of the same points, and its binomial standard error."""
    union = int((predicted | exact).sum())
    if not union:
        return 1.0, 0.0
    share = float((predicted & exact).sum() / union)
    return share, float(np.sqrt(share * (1 - share) / union))


def _has_area(vertices: NDArray[np.float64], faces: NDArray[np.integer]) -> bool:
    """False for no faces or only degenerate ones; vertices that are not finite count as area."""
    first, second, third = np.moveaxis(vertices[faces], 1, 0)
    return bool(np.any(np.cross(second - first, third - first) != 0))


def _score(tau: float, to_truth: NDArray[np.float64], to_mesh: NDArray[np.float64]) -> ThresholdScore:
    precision, recall = float((to_truth < tau).mean()), float((to_mesh < tau).mean())
    total = precision + recall
    return ThresholdScore(tau, precision, recall, 2 * precision * recall / total if total else 0.0)


def _sample_union(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points on the surface of the union of a mesh's closed parts; of the mesh itself where one is open."""
    if unpaired_edges(faces) or len(solid_components(faces, len(vertices))) == 1:
        return sample_surface(vertices, faces, count, rng)
    solid = Solid(vertices, faces)
    nudge = 1e-5 * float((vertices.max(axis=0) - vertices.min(axis=0)).max())
    kept: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    found = 0
    while found < count:
        points, normals = sample_surface(vertices, faces, count, rng)
        visible = solid.occupancy(points + nudge * normals) != solid.occupancy(points - nudge * normals)
        if not (kept or visible.any()):  # everything is buried or paper thin: measure the mesh as it is
            return points, normals
        kept.append((points[visible], normals[visible]))
        found += int(visible.sum())
    every, directions = (np.concatenate(part) for part in zip(*kept, strict=True))
    return every[:count], directions[:count]
