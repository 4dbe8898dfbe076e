"""Single shapes: from an input, drawn from a latent space, or between two that were drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from convonet.onet.latent_encoder import interpolate_latents
from pipeline.errors import PipelineError
from pipeline.generation.generator import Generator
from pipeline.generation.inputs import ObjectInput
from pipeline.generation.results import Series, Shape

INTERPOLATED = 10
SEED_DIGITS = 18  # fit in 64 bits
PAIRS_AT_ONCE = 1 << 25  # of queries and points, where a decoder compares all with all


def still_shapes(generator: Generator, network: Any, source: str | None) -> list[Shape] | Series:
    """Shapes of a network of the unit cube: the input's; with a latent also drawn ones, or a path between two.

    Args:
        generator: what is asked.
        network: with `encode` and `decode`, and `sample_latent` if it has a latent.
        source: the input; None for a network that takes none.
    """
    config = generator.config
    read = ObjectInput(torch.zeros(1, 0)) if source is None else generator.read(source)
    features = network.encode(read.values.to(generator.device))
    extraction = generator.extraction()
    if generator.family.pairs_with_points(network.config):
        extraction = replace(extraction, queries_per_batch=max(1, PAIRS_AT_ONCE // read.values.shape[1]))
    latents: list[tuple[Tensor, ...]] = [()]
    if config.interpolate:
        first, last = (network.sample_latent(1, seed_of(end))[0] for end in config.interpolate)
        latents = [(z[None],) for z in interpolate_latents(first, last, config.frames or INTERPOLATED)]
    elif generator.has_latent and (config.samples or source is None):
        latents = [(network.sample_latent(1, config.seed + i),) for i in range(config.samples or 1)]
    shapes = []
    for number, latent in enumerate(latents):

        def field(queries: Tensor, latent: tuple[Tensor, ...] = latent) -> Tensor:
            logits: Tensor = network.decode(features, queries[None], *latent)[0]
            return logits

        what = f"shape {number}" if len(latents) > 1 else ""
        shapes.append(generator.extract(field, read.frame, what, extraction))
    if config.interpolate:
        generator.notes.append("the shapes differ in topology, so there is no animated GLB")
        return Series(shapes)
    return shapes


def seed_of(end: str) -> int:
    """One end of an interpolation of latents.

    Raises:
        PipelineError: if it is no seed.
    """
    if not end.isdecimal() or len(end) > SEED_DIGITS:
        raise PipelineError(
            f"{end}: this network draws shapes from seeds; pass two whole numbers to --interpolate"
        )
    return int(end)
