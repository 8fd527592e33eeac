"""Small rasters for the tests of reading."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

UTM = "EPSG:32631"
AT = Affine(10, 0, 500_000, 0, -10, 5_000_000)


def ramp(bands: int = 3, height: int = 37, width: int = 53, dtype: str = "uint8") -> NDArray[Any]:
    """Pixels that all differ from their neighbours and never are 0 or the largest number."""
    numbers = np.arange(bands * height * width).reshape(bands, height, width)
    return (numbers * 7 % 250 + 2).astype(dtype)


def write(path: Path, values: NDArray[Any], *, descriptions: Sequence[str] = (), **profile: Any) -> Path:
    """A GeoTIFF (or another driver's file) with `values` (bands, height, width)."""
    count, height, width = values.shape
    given: dict[str, Any] = {"driver": "GTiff", "crs": UTM, "transform": AT, "dtype": values.dtype} | profile
    mask = given.pop("mask", None)
    colors = given.pop("colors", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", count=count, height=height, width=width, **given) as file:
            if colors is not None:
                file.colorinterp = colors
            file.write(values)
            for number, text in enumerate(descriptions, start=1):
                file.set_band_description(number, text)
            if mask is not None:
                file.write_mask(mask)
    return path
