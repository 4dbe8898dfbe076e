"""Watertight solids from triangle soups."""

from preprocessing.watertight.solid import WatertightConfig, WatertightMesh, make_watertight
from preprocessing.watertight.visibility import VisibilityConfig

__all__ = ["VisibilityConfig", "WatertightConfig", "WatertightMesh", "make_watertight"]
