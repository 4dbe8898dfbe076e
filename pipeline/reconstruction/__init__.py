"""The reconstruction stage: points -> tiles -> crops -> field -> lattice -> surface -> mesh."""

from pipeline.reconstruction.config import ReconstructConfig
from pipeline.reconstruction.run import ReconstructReport, reconstruct

__all__ = ["ReconstructConfig", "ReconstructReport", "reconstruct"]
