"""One record for each family of networks: all that the rest of Tessera knows of it; `convonet.registry` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, cast

from torch import Tensor, nn

from convonet.crop_network import CropNetwork
from convonet.training import CROPS, Objective, TrainingConfig

InputKind = Literal[
    "scan", "points", "crops", "voxels", "image", "shape", "tracks", "pair", "images", "nothing"
]
"""What a network is conditioned on. Configurations of networks that take "shape", the number of a training shape, have
`shape_count`; those of "tracks", a "pair" or "images", `frames`; those of "crops", `unit_size`."""


class NetworkConfig(Protocol):
    """A frozen dataclass of plain values that makes networks of one family."""

    kind: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Any]]

    def build(self) -> nn.Module:
        """A network with fresh weights, whose attribute `config` is this."""
        ...


@dataclass(frozen=True)
class ShapeSampling:
    """What a paper shows a network of a still shape, and asks it.

    Attributes are those of `preprocessing.batches.training_shapes.ShapeConfig`, which explains them; what no paper
    changes is left to it. Noise is in sides of the unit cube.
    """

    inputs: Literal["points", "partial", "crops", "voxels", "image", "shape", "nothing"] = "points"
    points: int = 3000
    noise: float = 0.005
    queries: int = 2048
    near_share: float = 0.0
    crop_side: float = 0.44
    crop_query_side: float = 0.125


@dataclass(frozen=True)
class SequenceSampling:
    """What a paper shows a network of a sequence, and asks it.

    Attributes are those of `preprocessing.batches.training_sequences.SequenceConfig`.
    """

    frames: int
    inputs: Literal["tracks", "pair", "images", "nothing"] = "tracks"
    points: int = 300
    noise: float = 0.001
    has_correspondence: bool = True
    queries: int = 512
    trajectories: int = 0
    sequences: int | None = None


Sampling = ShapeSampling | SequenceSampling

C = TypeVar("C", bound=NetworkConfig)


@dataclass(frozen=True)
class Family(Generic[C]):
    """A family of networks. What is left out is that of a `CropNetwork` trained on crops of scenes.

    Attributes:
        config: class of its configurations; its `kind` is the family's name in weights files.
        presets: named configurations.
        makes: scenes of any size, shapes in the unit cube, shapes that flow through time, or a shape at each moment.
        input: what a network of a configuration is conditioned on.
        sampling: of a configuration and the name of its preset ("" if that is unknown), as the paper has it, in
            training as in tests; None for crops of scenes.
        schedule: the paper's batch size and learning rate.
        objective: what a network of a configuration is trained for, given terms of the loss or None.
        trainable: a network with given weights as training goes on with it.
        loss_terms: of presets that are trained with other terms than the usual ones.
        threshold: occupancy at the surface of the paper's meshes.
        voxel_side: of the only voxel grids that networks take; None for any.
        pairs_with_points: whether decoding compares every query with every point, so that both bound its memory.
        crop_network: a network as the sliding window over scenes takes it, or None; itself, where scenes are made.
        from_original: entries of a checkpoint of the original implementation to ours; None where there is no original.
        fitted: a configuration with what a preset leaves to such a checkpoint.
        with_direct_gradients: a configuration whose gradients go through a solver's own steps; None where nothing is
            integrated.
    """

    config: type[C]
    presets: Mapping[str, C]
    makes: Literal["scenes", "shapes", "flows", "moments"] = "scenes"
    input: Callable[[C], InputKind] = lambda config: "scan"
    sampling: Callable[[C, str], Sampling | None] = lambda config, preset: None
    schedule: Callable[[C], TrainingConfig] = lambda config: TrainingConfig()
    objective: Callable[[C, Any], Objective] = lambda config, terms: CROPS
    trainable: Callable[[nn.Module], nn.Module] = lambda network: network.requires_grad_(True)
    loss_terms: Mapping[str, Any] = field(default_factory=dict)
    threshold: Callable[[C], float] = lambda config: 0.5
    voxel_side: int | None = None
    pairs_with_points: Callable[[C], bool] = lambda config: False
    crop_network: Callable[[nn.Module], CropNetwork | None] = lambda network: cast(CropNetwork, network)
    from_original: Callable[[Mapping[str, Tensor], C], dict[str, Tensor]] | None = None
    fitted: Callable[[C, Mapping[str, Tensor]], C] = lambda config, state: config
    with_direct_gradients: Callable[[C], C] | None = None
