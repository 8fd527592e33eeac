"""What changed, how much, and how sure that is: areas come from a sample with reference labels, not from counting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from geoseg._lazy import getattr_of

if TYPE_CHECKING:
    from geoseg.change.areas import AreaReport, Estimate, StratifiedSample, estimate_areas
    from geoseg.change.design import allocate, sample_size

__all__ = ["AreaReport", "Estimate", "StratifiedSample", "allocate", "estimate_areas", "sample_size"]

__getattr__ = getattr_of(
    __name__,
    {
        "AreaReport": "areas",
        "Estimate": "areas",
        "StratifiedSample": "areas",
        "estimate_areas": "areas",
        "allocate": "design",
        "sample_size": "design",
    },
)
