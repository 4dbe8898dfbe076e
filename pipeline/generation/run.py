"""One run of `tessera generate`: what does not go together is refused, then the network's own way is taken.

Mescheder et al. 2019 (ONet), Peng et al. 2020 (ConvONet), Niemeyer et al. 2019 (Occupancy Flow).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convonet.precision import choose_device
from convonet.registry import family
from convonet.weights import KIND_KEY, load_any_network, model_file, read_header
from foundation.local_paths import local_path
from pipeline.errors import PipelineError
from pipeline.generation.config import GenerateConfig
from pipeline.generation.generator import Generator
from pipeline.generation.input_kinds import INPUT_WORDS
from pipeline.generation.results import (
    MovingShape,
    Series,
    Shape,
    check_target,
    numbered,
    possible_files,
    write_moving,
    write_series,
    write_still,
)
from pipeline.generation.rooms import from_crops
from pipeline.generation.sequences import between, each_moment, flows
from pipeline.generation.still_shapes import still_shapes
from pipeline.overwriting import refuse_overwriting
from preprocessing.meshes.checks import check_mesh

Results = Sequence[Shape | MovingShape] | Series


@dataclass(frozen=True)
class GenerateReport:
    """What was made.

    Attributes:
        files: in the order they were written.
        shapes: meshes, of which those of a sequence count once.
        vertices, faces: of all these together.
        is_watertight: whether every one is.
        notes: what the user should know.
        seconds: from reading the weights to the last file.
    """

    files: tuple[Path, ...]
    shapes: int
    vertices: int
    faces: int
    is_watertight: bool
    notes: tuple[str, ...]
    seconds: float


def generate(
    model: str | Path,
    source: str | Path | None = None,
    *,
    out: str | Path,
    config: GenerateConfig | None = None,
    device: str = "auto",
) -> GenerateReport:
    """Generate closed meshes of objects with a network of any family but those of scans.

    Args:
        model: a weights file, or a packaged model's name.
        source: what the network takes: an image, a point cloud or mesh, a voxel grid, a sequence; None for a
            network that takes nothing, and for interpolations.
        out: the mesh, by its suffix; its picture has the same name. A sequence is written as numbered meshes
            `NAME_0000.ply` and so on, an animated `NAME.glb` and `NAME.gif`.
        config: options.
        device: where the network runs.

    Raises:
        PipelineError: if the input is not what the network takes, an option does not go with it, or it finds
            nothing.
        WeightsError, ScanError, MeshError, DatasetError: if a file cannot be used.
    """
    started = time.monotonic()
    config, out = config or GenerateConfig(), local_path(out)
    check_target(out)
    header = read_header(str(model))
    inputs = [
        model_file(str(model)),
        *(local_path(name) for name in (source, config.motion) if name is not None),
    ]
    refuse_overwriting(possible_files(out), inputs)
    if family(header[KIND_KEY]).makes == "scenes":
        raise PipelineError(
            f"{model_file(str(model))}: is a {header[KIND_KEY]} network, which turns whole scans into meshes; "
            "use `tessera reconstruct SCAN --out RUN --model MODEL`"
        )
    network = load_any_network(str(model)).to(choose_device(device))
    generator = Generator(network, header, config)
    named = None if source is None else str(source)
    _check_options(generator, named)
    with torch.no_grad():
        results = _shapes(generator, named, str(model), device)
    if isinstance(results, Series):
        files = write_series(out, results.shapes, config.up)
        shapes = list(results.shapes)
    else:
        files, shapes = [], []
        for path, made in zip(numbered(out, len(results)), results, strict=True):
            if isinstance(made, MovingShape):
                files += write_moving(path, made, config.up)
                shapes.append(made.first)
            else:
                files += write_still(path, made, config.up)
                shapes.append(made)
    return GenerateReport(
        tuple(files),
        len(shapes),
        sum(len(shape.vertices) for shape in shapes),
        sum(len(shape.faces) for shape in shapes),
        all(check_mesh(shape.vertices, shape.faces).is_watertight for shape in shapes),
        tuple(generator.notes),
        time.monotonic() - started,
    )


def _check_options(generator: Generator, source: str | None) -> None:
    """Refuse what does not go together, before anything is computed."""
    config, wanted = generator.config, INPUT_WORDS[generator.kind][1]
    is_pair, takes_nothing = generator.kind == "pair", generator.kind == "nothing"
    draws_sequences = generator.has_latent and generator.moves
    if config.interpolate and not (is_pair or draws_sequences or (generator.has_latent and takes_nothing)):
        raise PipelineError(f"this network has no latent to interpolate; pass its input, which is {wanted}")
    if config.interpolate and (source is not None or config.samples):
        raise PipelineError("--interpolate A B stands alone: neither INPUT nor --samples goes with it")
    if config.samples and not generator.has_latent:
        raise PipelineError(f"this network draws no samples; pass its input, which is {wanted}")
    if config.samples and source is not None and draws_sequences:
        raise PipelineError("pass INPUT to reconstruct a sequence, or --samples to draw new ones, not both")
    if config.motion and (
        is_pair or generator.family.makes != "flows" or (takes_nothing and not draws_sequences)
    ):
        raise PipelineError("--motion is for networks that encode sequences with Occupancy Flow")
    if source is None and not takes_nothing and not config.interpolate:
        raise PipelineError(f"this network needs an INPUT: {wanted}")
    if source is not None and takes_nothing and not draws_sequences:
        more = "; --samples N --seed S draw shapes" if generator.has_latent else ""
        raise PipelineError(f"{source}: this network takes no input{more}")
    if config.frames and not (generator.moves or config.interpolate):
        raise PipelineError("--frames is for sequences and interpolations; this network makes single shapes")
    usual = GenerateConfig()
    if generator.kind == "crops" and (
        config.refine or (config.resolution, config.steps) != (usual.resolution, usual.steps)
    ):
        raise PipelineError(
            "--resolution, --steps and --refine are for single objects; a room's lattice is half a voxel of its network"
        )
    if is_pair and (config.threshold is not None or config.refine or config.faces is not None):
        raise PipelineError(
            "this network moves the mesh that it is given: --threshold, --refine and --faces do not apply"
        )


def _shapes(generator: Generator, source: str | None, model: str, device: str) -> Results:
    network: Any = generator.network
    if generator.kind == "pair":
        return [between(generator, network, source)]
    if generator.family.makes == "flows":
        return flows(generator, network, source)
    if generator.family.makes == "shapes" and generator.kind != "crops":
        return still_shapes(generator, network, source)
    assert source is not None, "options were checked"
    if generator.kind == "crops":
        return [from_crops(generator, model, source, device)]
    return each_moment(generator, network, source)
