"""Random training batches of sequences, read block by block from a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from foundation.errors import SettingError
from foundation.settings import check_choices
from preprocessing.batches.split_samples import SplitPictures, SplitSamples
from preprocessing.dataset import read_layout
from preprocessing.errors import DatasetError

SequenceInput = Literal["tracks", "pair", "images", "nothing"]


@dataclass(frozen=True)
class SequenceConfig:
    """What a network sees of a sequence, and what it is asked.

    Attributes:
        frames: that the network is made for.
        inputs: a noisy cloud at each time ("tracks") or at the first and the last ("pair"), a picture at each time by
            one camera ("images") or "nothing".
        points: of the cloud at each time.
        noise: standard deviation added to them.
        picture_side: width and height that pictures are scaled to.
        has_correspondence: whether row n of every cloud is the same point of the body.
        queries: labeled queries at t = 0, and as many at one random time; 0 for none.
        near_share: share of them that lies near the surface; the others are uniform.
        trajectories: points whose way through all frames is known; 0 for none.
        sequences: how many sequences of the split to use, from the first; None for all.
    """

    frames: int = 17
    inputs: SequenceInput = "tracks"
    points: int = 300
    noise: float = 0.001
    picture_side: int = 224
    has_correspondence: bool = True
    queries: int = 512
    near_share: float = 0.0
    trajectories: int = 0
    sequences: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        if min(self.points - 1, self.queries, self.trajectories) < 0 or self.frames < 2:
            raise SettingError(
                "a cloud has points, a sequence two frames; queries and trajectories are not negative"
            )
        if not (self.queries or self.trajectories):
            raise SettingError("nothing to train on: ask for queries, trajectories or both")
        if not 0 <= self.near_share <= 1:
            raise SettingError("near_share lies in [0, 1]")


@dataclass(frozen=True)
class TimedQueries:
    """Labeled queries of a batch of sequences, each sequence at one time.

    Attributes:
        queries: (B, Q, 3) float32; occupancy: (B, Q) float32 of 0 and 1; times: (B,) float32 in [0, 1].
    """

    queries: NDArray[np.float32]
    occupancy: NDArray[np.float32]
    times: NDArray[np.float32]


@dataclass(frozen=True)
class SequenceArrays:
    """A batch of sequences.

    Attributes:
        inputs: (B, T, N, 3) float32 clouds, of which T is 2 where only the ends are seen; (B, T, 3, H, W) float32
            pictures in [0, 1]; (B, 1, 0) for nothing.
        first: at t = 0; later: at a random frame of each sequence; None without queries.
        trajectories: (B, L, M, 3) float32 of all frames, or None.
        seed: for whatever training draws itself.
    """

    inputs: NDArray[np.float32]
    first: TimedQueries | None
    later: TimedQueries | None
    trajectories: NDArray[np.float32] | None
    seed: int


class SequenceSource:
    """Draws batches of sequences from one split; batch `step` of rank `rank` depends on the seed alone.

    Raises:
        DatasetError: if the store is not a dataset of sequences of so many frames, lacks what the network takes, or
            the split is empty.
    """

    def __init__(self, path: Path, split: str, config: SequenceConfig, seed: int) -> None:
        path = Path(path)
        layout, _ = read_layout(path)
        if layout.frames != config.frames:
            found = f"sequences of {layout.frames} frames" if layout.frames else "still shapes"
            raise DatasetError(
                f"{path}: holds {found}, but this network learns sequences of {config.frames} frames; preprocess "
                f"`bodies` or `humans` with --frames {config.frames}"
            )
        self.config, self.seed = config, seed
        self._samples = SplitSamples(path, split, layout, config.near_share, asks=config.queries > 0)
        if config.inputs == "images":
            self._pictures = SplitPictures(path, layout, config.picture_side)

    @property
    def sequences(self) -> NDArray[np.int64]:
        """Numbers of the sequences in the store that batches come from."""
        return self._samples.shapes[: self.config.sequences]

    def batch(self, step: int, batch_size: int, rank: int = 0) -> SequenceArrays:
        """Batch number `step`."""
        config = self.config
        rng = np.random.default_rng([self.seed, step, rank])
        seed = int(rng.integers(2**62))
        chosen = rng.choice(self.sequences, batch_size)
        later_frames = rng.integers(config.frames, size=batch_size)
        every = tuple(range(config.frames))
        inputs = np.stack([self._input(int(sequence), rng) for sequence in chosen])
        first = later = trajectories = None
        if config.queries:
            first = self._asked(chosen, np.zeros(batch_size, np.int64), rng)
            later = self._asked(chosen, later_frames, rng)
        if config.trajectories:
            tracks = [self._samples.points(int(row), config.trajectories, rng, every) for row in chosen]
            trajectories = np.stack(tracks)
        return SequenceArrays(inputs, first, later, trajectories, seed)

    def _input(self, sequence: int, rng: np.random.Generator) -> NDArray[np.float32]:
        config = self.config
        if config.inputs == "nothing":
            return np.zeros((1, 0), np.float32)
        if config.inputs == "images":
            return self._pictures.draw(sequence, rng)
        times = (0, config.frames - 1) if config.inputs == "pair" else tuple(range(config.frames))
        if config.has_correspondence:
            clouds = self._samples.points(sequence, config.points, rng, times)
        else:
            parts = [self._samples.points(sequence, config.points, rng, (time,)) for time in times]
            clouds = np.concatenate(parts)
        return clouds + np.float32(config.noise) * rng.standard_normal(clouds.shape, np.float32)

    def _asked(
        self, sequences: NDArray[np.int64], frames: NDArray[np.int64], rng: np.random.Generator
    ) -> TimedQueries:
        drawn = [
            self._samples.queries(int(sequence), self.config.queries, rng, (int(frame),))
            for sequence, frame in zip(sequences, frames, strict=True)
        ]
        queries, occupancy = (np.stack(part) for part in zip(*drawn, strict=True))
        return TimedQueries(queries, occupancy, (frames / (self.config.frames - 1)).astype(np.float32))


def training_source(path: Path, seed: int, **settings: Any) -> SequenceSource:
    """The training split with the given settings of `SequenceConfig`, as `python -m convonet.fit --source` wants it."""
    return SequenceSource(path, "train", SequenceConfig(**settings), seed)
