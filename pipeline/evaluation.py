"""The evaluation stage: a mesh file against a reference mesh file."""

from __future__ import annotations

from pathlib import Path

from foundation.settings import check_at_least
from pipeline.mesh_reading import read_mesh_safely
from preprocessing.metrics import MeshMetrics, evaluate_mesh


def evaluate(
    mesh: Path, reference: Path, thresholds_m: tuple[float, ...] = (), samples: int = 100_000, seed: int = 0
) -> MeshMetrics:
    """Measure a mesh against a reference.

    Args:
        mesh, reference: mesh files (PLY, OBJ, OFF, GLB, STL) in the same unit and frame.
        thresholds_m: distances in that unit for further F-scores.
        samples: points drawn on each surface, and queries for the IoU.
        seed: of the samples.

    Raises:
        MeshError: if a file cannot be read as a mesh.
        SettingError: if a number is out of range.
    """
    check_at_least(1, samples=samples)
    check_at_least(0, seed=seed)
    for threshold in thresholds_m:
        check_at_least(0, thresholds=threshold)
    measured, truth = read_mesh_safely(Path(mesh)), read_mesh_safely(Path(reference))
    return evaluate_mesh(
        measured.vertices,
        measured.faces,
        truth.vertices,
        truth.faces,
        sample_count=samples,
        volume_queries=samples,
        thresholds_m=tuple(thresholds_m),
        seed=seed,
    )
