"""Where class values come from: an array, lazy or not, or a file; both checked before any pixel is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import dask.base
import numpy as np
import odc.geo.xr  # noqa: F401  (gives arrays their .odc)
import pyproj
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.handles import reading
from geoseg.vector.blocks import Blocks
from geoseg.vector.confidence import to_units, units_of_one
from geoseg.vector.measure import Ground

_compute: Callable[..., tuple[Any, ...]] = dask.base.compute


class SourcePixels(NamedTuple):
    """What is read of one block.

    Attributes:
        values: (height, width) class values, any integer dtype.
        valid: (height, width) bool, True = measured; None where nodata is told by the value alone.
        confidence: (height, width) int32 units, -1 where unknown; None where there is none.
    """

    values: NDArray[np.integer[Any]]
    valid: NDArray[np.bool_] | None
    confidence: NDArray[np.int32] | None


class Source(Protocol):
    """A class map that is read block by block, each pixel once, in one thread."""

    @property
    def ground(self) -> Ground: ...

    @property
    def nodata(self) -> float | None: ...

    @property
    def confidence_one(self) -> int | None:
        """Confidence units that are 1.0; None where there is no confidence."""

    def blocks(self, block: int) -> Blocks:
        """How to cut the raster, at most or about `block` pixels a side."""

    def read(self, window: Window) -> SourcePixels:
        """The pixels of a window inside the raster."""


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
        _check_same_grid(ground, _ground_of_array(flat_confidence))
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


@dataclass(frozen=True, slots=True)
class FileSource:
    """Raster files on one grid."""

    class_map: FileFacts
    confidence: FileFacts | None
    ground: Ground

    @classmethod
    def of(cls, class_map: str | Path, confidence: str | Path | None) -> Self:
        facts = look_at(class_map)
        check_class_map(facts.path, np.dtype(facts.bands[0].dtype), len(facts.bands))
        ground = _ground_of_file(facts)
        if confidence is None:
            return cls(facts, None, ground)
        confidence_facts = look_at(confidence)
        if len(confidence_facts.bands) != 1:
            raise InputError(f"{confidence_facts.path} has {len(confidence_facts.bands)} bands; a confidence has one.")
        units_of_one(np.dtype(confidence_facts.bands[0].dtype))
        _check_same_grid(ground, _ground_of_file(confidence_facts))
        return cls(facts, confidence_facts, ground)

    @property
    def nodata(self) -> float | None:
        return self.class_map.bands[0].nodata

    @property
    def confidence_one(self) -> int | None:
        return None if self.confidence is None else units_of_one(np.dtype(self.confidence.bands[0].dtype))

    def blocks(self, block: int) -> Blocks:
        return Blocks.regular(self.ground.shape, block)

    def read(self, window: Window) -> SourcePixels:
        at = RasterioWindow(window.col, window.row, window.width, window.height)
        with reading(self.class_map.path, window) as raster:
            values = raster.read(1, window=at)
            valid = raster.read_masks(1, window=at) > 0 if self.class_map.bands[0].mask else None
        if self.confidence is None:
            return SourcePixels(values, valid, None)
        with reading(self.confidence.path, window) as raster:
            units = to_units(raster.read(1, window=at), self.confidence.bands[0].nodata)
        return SourcePixels(values, valid, units)


def check_class_map(what: str, dtype: np.dtype[Any], bands: int) -> None:
    """Refuse what holds no class ids.

    Raises:
        InputError: with what was given and what was expected.
    """
    if bands != 1 or dtype.kind not in "iub":
        raise InputError(
            f"{what} has {bands} band{'s' if bands > 1 else ''} of {dtype}; a class map has one band of integers: "
            "give the output of `geoseg segment`, or the band of class ids alone, converted to integers."
        )


def _check_same_grid(class_map: Ground, confidence: Ground) -> None:
    if class_map.shape != confidence.shape:
        raise InputError(
            f"The confidence has {confidence.shape[0]} x {confidence.shape[1]} px, the class map "
            f"{class_map.shape[0]} x {class_map.shape[1]}; give the confidence that was written with the class map."
        )
    same_place = class_map.transform.almost_equals(confidence.transform, 1e-9 * abs(class_map.transform.a) or 1e-9)
    if not same_place or class_map.crs != confidence.crs:
        raise InputError(
            f"The confidence lies at {_place(confidence)}, the class map at {_place(class_map)}; "
            "give the confidence that was written with the class map."
        )


def _place(ground: Ground) -> str:
    t = ground.transform
    crs = ground.crs.name if ground.crs else "no CRS"
    return f"({t.c:.10g}, {t.f:.10g}) with pixels of {t.a:.10g} x {t.e:.10g} in {crs}"


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


def _ground_of_file(facts: FileFacts) -> Ground:
    crs = None if facts.crs is None else pyproj.CRS.from_user_input(facts.crs)
    return Ground(facts.shape, facts.transform, crs)


def _nodata(array: xr.DataArray) -> float | None:
    for holder in (array.attrs, array.encoding):
        for key in ("nodata", "_FillValue", "missing_value"):
            if holder.get(key) is not None:
                return float(holder[key])
    return None
