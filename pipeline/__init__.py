"""Distributed stages on Ray: preprocess, train, reconstruct, generate, evaluate; and the command line.

The five functions are imported on first use, so that `tessera --help` does not wait for Ray and torch.
"""

from typing import TYPE_CHECKING

from foundation.first_use import on_first_use

if TYPE_CHECKING:
    from pipeline.evaluation import evaluate
    from pipeline.generation.run import generate
    from pipeline.preparation import preprocess
    from pipeline.reconstruction import reconstruct
    from pipeline.training import train

__all__ = ["evaluate", "generate", "preprocess", "reconstruct", "train"]

__getattr__ = on_first_use(
    __name__,
    {
        "evaluate": "evaluation",
        "generate": "generation.run",
        "preprocess": "preparation",
        "reconstruct": "reconstruction",
        "train": "training",
    },
)
