"""The reconstruction stage: points -> tiles -> crops -> field -> lattice -> surface -> mesh.

The names are imported on first use: to look at a scan, nobody needs Ray and torch.
"""

from typing import TYPE_CHECKING

from foundation.first_use import on_first_use

if TYPE_CHECKING:
    from pipeline.reconstruction.config import ReconstructConfig
    from pipeline.reconstruction.report import ReconstructReport
    from pipeline.reconstruction.run import reconstruct

__all__ = ["ReconstructConfig", "ReconstructReport", "reconstruct"]

__getattr__ = on_first_use(
    __name__, {"ReconstructConfig": "config", "ReconstructReport": "report", "reconstruct": "run"}
)
