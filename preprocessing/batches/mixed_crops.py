"""Training crops from a dataset and from analytic scenes, mixed: what the packaged weights are trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from preprocessing.analytic import AnalyticCrops, analytic_source
from preprocessing.batches.training_batches import TrainingCrops
from preprocessing.batches.training_crops import CropSource, training_source

DATASET_SHARE = 0.4


class MixedCrops:
    """Each batch comes from one of two sources; which is a function of (seed, step, rank)."""

    def __init__(self, dataset: CropSource, analytic: AnalyticCrops, seed: int) -> None:
        self.dataset, self.analytic, self.seed = dataset, analytic, seed

    def batch(self, step: int, batch_size: int, rank: int = 0) -> TrainingCrops:
        """Batch number `step`."""
        is_stored = np.random.default_rng([self.seed, step, rank, 3]).random() < DATASET_SHARE
        source = self.dataset if is_stored else self.analytic
        return source.batch(step, batch_size, rank)


def mixed_source(path: Path, seed: int) -> MixedCrops:
    """The dataset at `path` and analytic scenes, as `python -m convonet.fit --source` wants them."""
    return MixedCrops(training_source(path, seed), analytic_source(path, seed), seed)
