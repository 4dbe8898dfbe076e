"""Sequences: a shape that is carried, a shape at each moment, or given meshes carried into one another.

Niemeyer et al. 2019 (Occupancy Flow, and their baseline ONet-4D).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from convonet.oflow import FlowCodes, OccupancyFlow, OccupancyNetwork4D
from convonet.oflow.motion import interpolate_keyframes, interpolate_shapes, latent_path
from pipeline.errors import PipelineError
from pipeline.generation.generator import Generator
from pipeline.generation.inputs import UNIT_FRAME, Frame, read_cloud, reads_as_mesh
from pipeline.generation.results import MovingShape, Series
from pipeline.generation.sequence_inputs import correspond, read_sequence
from pipeline.generation.still_shapes import INTERPOLATED, seed_of
from preprocessing.meshes.files import read_mesh

PADDING_4D = 0.5  # bodies leave the cube of their first frame, and nothing carries them there


def flows(generator: Generator, network: OccupancyFlow, source: str | None) -> list[MovingShape]:
    """Shapes at t = 0, each carried along by its velocity field."""
    config = generator.config
    frame, codes = _flow_codes(generator, network, source)
    count = network.config.frames if config.interpolate else (config.frames or network.config.frames)
    times = torch.linspace(0, 1, count, device=generator.device)
    moving = []
    for number, code in enumerate(codes):

        def field(queries: Tensor, code: FlowCodes = code) -> Tensor:
            return network.decode(code, queries[None])[0]

        what = f"sequence {number}" if len(codes) > 1 else ""
        shape = generator.extract(field, UNIT_FRAME, what)
        path = network.transport(code, _positions(shape.vertices, generator)[None], times)[0]
        moving.append(MovingShape(generator.placed(_numbers(path), frame), shape.faces))
    return moving


def _flow_codes(
    generator: Generator, network: OccupancyFlow, source: str | None
) -> tuple[Frame, list[FlowCodes]]:
    """The cube of the input, and the codes of each sequence to make."""
    config = generator.config
    frame = UNIT_FRAME
    if source is not None:
        read = generator.read(source)
        frame, codes = read.frame, [network.encode(read.values.to(generator.device))]
    elif not generator.has_latent:
        codes = [network.encode(torch.zeros(1, 1, 0, device=generator.device))]
    elif config.interpolate is None:
        seeds = range(config.seed, config.seed + (config.samples or 1))
        codes = [_drawn_codes(network, seed) for seed in seeds]
    else:
        first, last = (_codes_of(generator, network, end) for end in config.interpolate)
        count = config.frames or INTERPOLATED
        shapes, motions = (latent_path(first, last, count, vary) for vary in ("shape", "motion"))
        codes = [shape.moving_like(motion) for shape, motion in zip(shapes, motions, strict=True)]
    if config.motion is not None:
        motion = _codes_of(generator, network, config.motion)
        codes = [code.moving_like(motion) for code in codes]
    return frame, codes


def _codes_of(generator: Generator, network: OccupancyFlow, name: str) -> FlowCodes:
    """Codes of a sequence, or those that a seed draws."""
    if generator.has_latent and name.isdecimal() and not Path(name).exists():
        return _drawn_codes(network, seed_of(name))
    return network.encode(generator.read(name).values.to(generator.device))


def _drawn_codes(network: OccupancyFlow, seed: int) -> FlowCodes:
    """Codes drawn from the prior: the same for a seed on every device."""
    device = next(network.parameters()).device
    codes = network.encode_with_prior(torch.zeros(1, 1, 0, device=device), sample=False)
    generator = torch.Generator().manual_seed(seed)
    shape, motion = (torch.randn(codes.shape.shape, generator=generator) for _ in range(2))
    return replace(codes, shape=shape.to(device), motion=motion.to(device))


def each_moment(generator: Generator, network: OccupancyNetwork4D, source: str) -> Series:
    """A shape of its own at every moment."""
    read = generator.read(source)
    code = network.encode(read.values.to(generator.device))
    shapes = []
    for moment in torch.linspace(0, 1, generator.config.frames or network.config.frames).tolist():

        def field(queries: Tensor, moment: float = moment) -> Tensor:
            return network.decode(code, queries[None], queries.new_full((1,), moment))[0]

        what = f"time {moment:.2f}"
        shapes.append(generator.extract(field, read.frame, what, generator.extraction(PADDING_4D)))
    generator.notes.append("this network has no correspondences over time, so there is no animated GLB")
    return Series(shapes)


def between(generator: Generator, network: OccupancyFlow, source: str | None) -> MovingShape:
    """Given meshes carried into one another: those of a folder in turn, or the two ends."""
    frames = generator.config.frames or network.config.frames
    if generator.config.interpolate is None:
        assert source is not None, "options were checked"
        return _through_keyframes(generator, network, Path(source), frames)
    start, end = (Path(name) for name in generator.config.interpolate)
    return _between_two(generator, network, start, end, frames)


def _through_keyframes(generator: Generator, network: OccupancyFlow, path: Path, frames: int) -> MovingShape:
    moving = read_sequence(path)
    if moving.faces is None:
        raise PipelineError(f"{path}: holds point clouds; this network moves meshes of one topology")
    frame = Frame.around(path, moving.vertices[0] if generator.by_first else moving.vertices)
    unit = frame.to_unit(moving.vertices)
    clouds = np.stack([generator.draw.shown(vertices, moving.faces) for vertices in unit])
    seen = _positions(clouds, generator)
    walked = interpolate_keyframes(network, seen, _positions(unit, generator), frames - 1)
    positions = generator.placed(_numbers(walked), frame)
    positions[:: frames - 1] = generator.placed(unit, frame)  # exactly, beyond single precision
    return MovingShape(positions, moving.faces)


def _between_two(
    generator: Generator, network: OccupancyFlow, start: Path, end: Path, frames: int
) -> MovingShape:
    first = read_mesh(start, keeps_axes=True)
    last = read_mesh(end, keeps_axes=True) if reads_as_mesh(end) else None
    ends = last.vertices if last is not None else read_cloud(end)
    both = np.concatenate([first.vertices, ends])
    frame = Frame.around(start, first.vertices if generator.by_first else both)
    begun, ended = frame.to_unit(first.vertices), frame.to_unit(ends)
    seen = [generator.draw.shown(begun, first.faces)]
    seen.append(generator.draw.shown(ended, None if last is None else last.faces))
    if len(seen[1]) != len(seen[0]):
        raise PipelineError(
            f"{end}: has {len(ends):,} points, fewer than the {len(seen[0]):,} that the network is shown; "
            f"pass --points {len(ends)}"
        )
    codes = network.encode(_positions(np.stack(seen), generator)[None])
    times = torch.linspace(0, 1, frames, device=generator.device)
    points = _positions(begun, generator)[None]
    is_met = last is not None and correspond(first, last)
    if is_met:
        walked = interpolate_shapes(network, codes, points, _positions(ended, generator)[None], times)[0]
    else:
        walked = network.transport(codes, points, times)[0]
        generator.notes.append(
            f"{end.name} has other faces than {start.name}, which is carried towards it alone"
        )
    positions = generator.placed(_numbers(walked), frame)
    positions[0] = generator.placed(begun, frame)
    if is_met:
        positions[-1] = generator.placed(ended, frame)
    return MovingShape(positions, first.faces)


def _positions(points: NDArray[np.float64], generator: Generator) -> Tensor:
    return torch.from_numpy(points.astype(np.float32)).to(generator.device)


def _numbers(points: Tensor) -> NDArray[np.float64]:
    return points.cpu().numpy().astype(np.float64)
