"""Single shapes: from an input, drawn from a latent space, or between two that were drawn."""

from __future__ import annotations

import torch
from torch import Tensor

from convonet.conv_onet import ConvOnet
from convonet.onet import OccupancyNetwork
from convonet.onet.latent_encoder import interpolate_latents
from pipeline.errors import PipelineError
from pipeline.generation.generator import Generator
from pipeline.generation.inputs import ObjectInput
from pipeline.generation.results import Series, Shape

INTERPOLATED = 10
PAIRS_AT_ONCE = 1 << 25  # of queries and points, where a decoder compares all with all


def from_features(generator: Generator, network: ConvOnet, source: str) -> Shape:
    """One shape of a Convolutional Occupancy Network (Peng et al. 2020)."""
    read = generator.read(source)
    features = network.encode(read.values.to(generator.device))
    extraction = generator.extraction()
    if network.config.family == "pointconv":
        extraction = generator.extraction(at_once=max(1, PAIRS_AT_ONCE // read.values.shape[1]))

    def field(queries: Tensor) -> Tensor:
        return network.decode(features, queries[None])[0]

    return generator.extract(field, read.frame, extraction=extraction)


def from_latents(generator: Generator, network: OccupancyNetwork, source: str | None) -> list[Shape] | Series:
    """Shapes of an Occupancy Network (Mescheder et al. 2019): the input's, drawn ones, or a path between two."""
    config = generator.config
    read = ObjectInput(torch.zeros(1, 0)) if source is None else generator.read(source)
    features = network.encode(read.values.to(generator.device))
    latents: list[Tensor | None] = [None]
    if config.interpolate:
        first, last = (network.sample_latent(1, _seed(end))[0] for end in config.interpolate)
        latents = list(interpolate_latents(first, last, config.frames or INTERPOLATED)[:, None])
    elif generator.has_latent and (config.samples or source is None):
        latents = [network.sample_latent(1, config.seed + i) for i in range(config.samples or 1)]
    shapes = []
    for number, latent in enumerate(latents):

        def field(queries: Tensor, latent: Tensor | None = latent) -> Tensor:
            return network.decode(features, queries[None], latent)[0]

        what = f"shape {number}" if len(latents) > 1 else ""
        shapes.append(generator.extract(field, read.frame, what))
    if config.interpolate:
        generator.notes.append("the shapes differ in topology, so there is no animated GLB")
        return Series(shapes)
    return shapes


def _seed(end: str) -> int:
    """One end of an interpolation of latents."""
    if not end.isdecimal():
        raise PipelineError(
            f"{end}: this network draws shapes from seeds; pass two whole numbers to --interpolate"
        )
    return int(end)
