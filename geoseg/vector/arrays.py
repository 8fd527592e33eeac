"""Class values in arrays, lazy or not, of which blocks are computed one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import dask.base
import numpy as np
import odc.geo.xr  # noqa: F401  (gives arrays their .odc)
import pyproj
import xarray as xr
from affine import Affine

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.vector.blocks import Blocks
from geoseg.vector.confidence import to_units, units_of_one
from geoseg.vector.measure import Ground
from geoseg.vector.sources import SourcePixels, check_class_map, check_same_grid

_compute: Callable[..., tuple[Any, ...]] = dask.base.compute


@dataclass(frozen=True, slots=True)
class ArraySource:
    """(y, x) arrays on one grid."""

    class_map: xr.DataArray
    confidence: xr.DataArray | None
    ground: Ground

    @classmethod
    def of(cls, class_map: xr.DataArray, confidence: xr.DataArray | None) -> Self:
        flat = _flat(class_map, "class map")
        check_class_map("The array", flat.dtype, 1)
        ground = _ground_of_array(flat)
        if confidence is None:
            return cls(flat, None, ground)
        flat_confidence = _flat(confidence, "confidence")
        units_of_one(flat_confidence.dtype)
        check_same_grid(ground, _ground_of_array(flat_confidence))
        return cls(flat, flat_confidence, ground)

    def computed(self) -> ArraySource:
        """The same in memory."""
        layers = [layer for layer in (self.class_map, self.confidence) if layer is not None]
        values, *more = _compute(*(layer.data for layer in layers))
        confidence = None if self.confidence is None else self.confidence.copy(data=np.asarray(more[0]))
        return replace(self, class_map=self.class_map.copy(data=np.asarray(values)), confidence=confidence)

    @property
    def nodata(self) -> float | None:
        return _nodata(self.class_map)

    @property
    def confidence_one(self) -> int | None:
        return None if self.confidence is None else units_of_one(self.confidence.dtype)

    def blocks(self, block: int) -> Blocks:
        regular = Blocks.regular(self.ground.shape, block)
        for layer in (self.class_map, self.confidence):
            if layer is not None and layer.chunks is not None:
                return Blocks.from_chunks(layer.chunks, block)
        return regular

    def read(self, window: Window) -> SourcePixels:
        rows, cols = window.slices
        layers = [layer for layer in (self.class_map, self.confidence) if layer is not None]
        # Computed together: what the two share (a network's output) is computed once.
        values, *more = (np.asarray(part) for part in _compute(*(layer[rows, cols].data for layer in layers)))
        values = values.astype(np.uint8) if values.dtype == bool else values
        return SourcePixels(values, None, to_units(more[0], _nodata(layers[1])) if more else None)


def _flat(array: xr.DataArray, what: str) -> xr.DataArray:
    """The array as (y, x); a band axis of one entry is dropped."""
    flat = array.squeeze("band", drop=True) if "band" in array.dims and array.sizes["band"] == 1 else array
    if flat.ndim != 2:
        sizes = ", ".join(f"{name}: {size}" for name, size in array.sizes.items())
        raise InputError(f"The {what} has axes ({sizes}) and dtype {array.dtype}; expected (y, x), one band.")
    if flat.size == 0:
        raise InputError(f"The {what} has {flat.shape[0]} x {flat.shape[1]} px; expected at least one pixel.")
    return flat


def _ground_of_array(array: xr.DataArray) -> Ground:
    geobox = array.odc.geobox
    shape = (int(array.shape[0]), int(array.shape[1]))
    if geobox is None:  # no coordinates: pixels are the units
        return Ground(shape, Affine.identity(), None)
    crs = None if geobox.crs is None else pyproj.CRS.from_user_input(geobox.crs.proj)
    return Ground(shape, geobox.transform, crs)


def _nodata(array: xr.DataArray) -> float | None:
    for holder in (array.attrs, array.encoding):
        for key in ("nodata", "_FillValue", "missing_value"):
            if holder.get(key) is not None:
                return float(holder[key])
    return None
