"""What each choice in the training of the packaged weights is worth: short trainings that differ in one of them.

    python -m benchmarks.ablation --steps 1000 --output ablation.json

All start from random weights and see as many crops of analytic scenes. Measured: seconds of a training step, the IoU
and the error of the truncated signed distance over crops held out, and how far the surface lies from slabs at any angle
(4 points a voxel face, noise 0.2; see `benchmarks.planes`). Prints and writes one JSON object.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.machine import machine, tell
from benchmarks.planes import WALL, measure
from benchmarks.probe_surfaces import random_direction, slab
from benchmarks.short_training import held_out_batches, train
from convonet.training import LOGITS_PER_VOXEL, CropObjective, TrainingConfig
from convonet.volume.network import VolumeNetworkConfig
from preprocessing.analytic import AnalyticConfig, scenes

NETWORK = VolumeNetworkConfig(has_hints=True, logits_per_voxel=LOGITS_PER_VOXEL)
CROPS = AnalyticConfig()
SLABS = 6


@dataclass(frozen=True)
class Variant:
    """A training.

    Attributes:
        network, crops, objective: its settings.
        without: family of scenes left out.
    """

    network: VolumeNetworkConfig = NETWORK
    crops: AnalyticConfig = CROPS
    objective: CropObjective = field(default_factory=CropObjective)
    without: str | None = None


def of_width(channels: int) -> VolumeNetworkConfig:
    """The network with so many channels everywhere."""
    return replace(NETWORK, feature_size=channels, encoder_hidden=channels, decoder_hidden=channels)


VARIANTS = {
    "as shipped": Variant(),
    "occupancy alone": Variant(objective=CropObjective(entropy_share=1000.0)),
    "distance alone": Variant(objective=CropObjective(entropy_share=0.0)),
    "upright scenes only": Variant(crops=replace(CROPS, free_turns=0.0)),
    "1,024 queries a crop": Variant(crops=replace(CROPS, queries=1024)),
    "3,072 queries a crop": Variant(crops=replace(CROPS, queries=3072)),
    "16 channels": Variant(of_width(16)),
    "48 channels": Variant(of_width(48)),
    "two levels": Variant(replace(NETWORK, unet_levels=2)),
    "without closed objects": Variant(without="closed_object"),
    "without walls": Variant(without="walls"),
}


def measure_variant(variant: Variant, config: TrainingConfig, held_out: list[Any]) -> dict[str, Any]:
    """Train, then measure."""
    families = [(share, make) for share, make in scenes.FAMILIES if make.__name__ != variant.without]
    total = sum(share for share, _ in families)
    shares = tuple((share / total, make) for share, make in families)
    with patch.object(scenes, "FAMILIES", shares):
        network, figures = train(variant.network.build, variant.crops, variant.objective, config, held_out)
    rng = np.random.default_rng(0)
    slabs = [slab("slabs at any angle", random_direction(rng), WALL) for _ in range(SLABS)]
    row = measure(network, 0.5, slabs, 4.0, 0.2, (0.05, 0.0), False, rng)
    return figures | {"slabs": asdict(row)}


def main() -> None:
    """Train and measure all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--held-out", type=int, default=100, help="batches of held-out crops")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = TrainingConfig(steps=options.steps, warmup_steps=min(100, options.steps))
    held_out = held_out_batches(CROPS, options.held_out, config.batch_size)
    figures = {}
    for name in options.variants:
        figures[name] = measure_variant(VARIANTS[name], config, held_out)
        print(f"{name}: {figures[name]}", file=sys.stderr, flush=True)
    tell({"machine": machine(), "steps": options.steps, "variants": figures}, options.output)


if __name__ == "__main__":
    main()
