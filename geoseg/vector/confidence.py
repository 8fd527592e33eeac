"""Confidences as whole units, so that their sums are exact and the same in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.raster.landcover import CONFIDENCE_ONE

_FLOAT_ONE = 2**24  # float32 has 24 bits of precision


def units_of_one(dtype: np.dtype[Any]) -> int:
    """Units that make a confidence of 1.0.

    Raises:
        InputError: the dtype is neither uint8 nor floating point.
    """
    if dtype == np.uint8:
        return CONFIDENCE_ONE
    if dtype.kind == "f":
        return _FLOAT_ONE
    raise InputError(
        f"The confidence is {dtype}; expected uint8 (0 to {CONFIDENCE_ONE} for 0 to 1, 255 for unknown) or "
        "floating point (0 to 1)."
    )


def to_units(values: NDArray[Any], nodata: float | None) -> NDArray[np.int32]:
    """Confidence units, -1 where unknown; in the shape of `values`."""
    if values.dtype == np.uint8:
        known = values <= CONFIDENCE_ONE
        units = values.astype(np.int32)
    else:
        known = np.isfinite(values)
        clipped = np.clip(np.where(known, values, 0), 0, 1)
        units = np.rint(clipped.astype(np.float64) * _FLOAT_ONE).astype(np.int32)
    if nodata is not None:
        known &= values != nodata
    return np.where(known, units, np.int32(-1))
