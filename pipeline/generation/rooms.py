"""A room from a network of crops: the drawn points go through the engine that reconstructs scans."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from pipeline.errors import NoSurfaceError, PipelineError
from pipeline.generation.generator import Generator
from pipeline.generation.results import Shape
from pipeline.generation.simplification import simplify
from pipeline.reconstruction import ReconstructConfig, reconstruct
from preprocessing.meshes.files import read_mesh
from preprocessing.scan_files import write_scan_ply


def from_crops(generator: Generator, model: str, source: str, device: str) -> Shape:
    """One room, with the network's own voxel size in the unit cube; its crops are blended (Peng et al. 2020, 3.4).

    Args:
        generator: reads the points and places the mesh.
        model: weights file or packaged name.
        source: point cloud or mesh of a room.
        device: where the network runs.

    Raises:
        PipelineError: if no surface passes by the points.
    """
    read = generator.read(source)
    settings = ReconstructConfig(
        model=model, voxel_size=generator.network_config.unit_size, threshold=generator.threshold
    )
    with TemporaryDirectory(prefix="tessera-room-") as folder:
        scan = Path(folder) / "points.ply"
        write_scan_ply(scan, read.values[0].double().numpy())
        try:
            report = reconstruct(
                scan, Path(folder) / "run", settings, device=device, show_progress=sys.stderr.isatty()
            )
        except NoSurfaceError as error:
            raise PipelineError(
                f"{source}: at the threshold {generator.threshold:g} the network's surface passes by less than half of "
                "the points; pass another --threshold, or a room like those it was trained on"
            ) from error
        mesh = read_mesh(Path(report.mesh))
    vertices, faces, normals = mesh.vertices, mesh.faces, mesh.normals
    if generator.config.faces is not None:
        vertices, faces = simplify(vertices, faces, generator.config.faces)
        normals = None
    placed = generator.placed(vertices, read.frame)
    return Shape(placed, faces, None if normals is None else normals.astype(np.float32))
