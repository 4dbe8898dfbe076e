"""The reconstruction stage: points -> tiles -> crops -> field -> lattice -> surface -> mesh.

The names are imported on first use: to look at a scan, nobody needs Ray and torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.reconstruction.config import ReconstructConfig
    from pipeline.reconstruction.report import ReconstructReport
    from pipeline.reconstruction.run import reconstruct

__all__ = ["ReconstructConfig", "ReconstructReport", "reconstruct"]

_HOME = {"ReconstructConfig": "config", "ReconstructReport": "report", "reconstruct": "run"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        import importlib

        return getattr(importlib.import_module(f"pipeline.reconstruction.{_HOME[name]}"), name)
    raise AttributeError(f"module 'pipeline.reconstruction' has no attribute {name!r}")
