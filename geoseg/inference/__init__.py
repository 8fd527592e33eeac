"""From pixels to classes."""

from geoseg.inference.plan import Plan, RunOptions
from geoseg.inference.predictor import Backend, Predictor
from geoseg.inference.segment import Cover, Segmenter

__all__ = ["Backend", "Cover", "Plan", "Predictor", "RunOptions", "Segmenter"]
