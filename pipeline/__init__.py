"""Distributed stages on Ray: preprocess, train, reconstruct, generate, evaluate; and the command line.

The five functions are imported on first use, so that `tessera --help` does not wait for Ray and torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.evaluation import evaluate
    from pipeline.generation.run import generate
    from pipeline.preparation import preprocess
    from pipeline.reconstruction import reconstruct
    from pipeline.training import train

__all__ = ["evaluate", "generate", "preprocess", "reconstruct", "train"]

_HOME = {
    "evaluate": "pipeline.evaluation",
    "generate": "pipeline.generation.run",
    "preprocess": "pipeline.preparation",
    "reconstruct": "pipeline.reconstruction",
    "train": "pipeline.training",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
