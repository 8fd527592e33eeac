"""From pixels to classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg._lazy import getattr_of

if TYPE_CHECKING:
    from geoseg.inference.plan import Plan, RunOptions
    from geoseg.inference.predictor import Backend, Predictor
    from geoseg.inference.segment import Cover, Segmenter

__all__ = ["Backend", "Cover", "Plan", "Predictor", "RunOptions", "Segmenter"]

__getattr__ = getattr_of(
    __name__,
    {
        "Plan": "plan",
        "RunOptions": "plan",
        "Backend": "predictor",
        "Predictor": "predictor",
        "Cover": "segment",
        "Segmenter": "segment",
    },
)
