"""Training crops made on the fly from solids whose signed distance is a formula: numpy alone, no files."""

from preprocessing.analytic.crops import AnalyticConfig, AnalyticCrops, analytic_source

__all__ = ["AnalyticConfig", "AnalyticCrops", "analytic_source"]
