"""A SceneReader as an xarray DataArray on dask: each chunk reads its own window, and nothing before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from geoseg.grid.window import Window

if TYPE_CHECKING:
    from geoseg.raster.reader import SceneReader

DEFAULT_CHUNK = 2048


class LazyPixels:
    """An array-like (band, row, column) that dask slices: each slice reads its window, and only its bands."""

    def __init__(self, reader: SceneReader) -> None:
        self.reader = reader
        self.shape = (len(reader.layers), *reader.shape)
        self.dtype = np.dtype(reader.dtype)
        self.ndim = 3

    def __getitem__(self, key: Any) -> NDArray[Any]:
        bands, rows, cols = _slices(key, self.shape)
        names = self.reader.bands[bands[0]]
        window, within = _window(rows, cols)
        values = self.reader.select(names).read(window).values
        taken: NDArray[Any] = values[(slice(None), *within)][(bands[1], rows[1], cols[1])]
        return taken


class LazyValid:
    """An array-like (row, column) of what is measured in every band."""

    def __init__(self, reader: SceneReader) -> None:
        self.reader = reader
        self.shape = reader.shape
        self.dtype = np.dtype(bool)
        self.ndim = 2

    def __getitem__(self, key: Any) -> NDArray[np.bool_]:
        rows, cols = _slices(key, self.shape)
        window, within = _window(rows, cols)
        taken: NDArray[np.bool_] = self.reader.read(window).valid[within][(rows[1], cols[1])]
        return taken


def _slices(key: Any, shape: tuple[int, ...]) -> list[tuple[slice, Any]]:
    """Per axis: the slice to read, with a positive step, and what to take from it afterwards."""
    keys = list(key) if isinstance(key, tuple) else [key]
    keys += [slice(None)] * (len(shape) - len(keys))
    return [_slice(one, size) for one, size in zip(keys, shape, strict=True)]


def _slice(key: Any, size: int) -> tuple[slice, Any]:
    if isinstance(key, slice):
        start, stop, step = key.indices(size)
        if step < 0:
            count = len(range(start, stop, step))
            return slice(start + (count - 1) * step, start + 1, -step) if count else slice(0, 0, 1), slice(
                None, None, -1
            )
        return slice(start, max(start, stop), step), slice(None)
    if np.ndim(key) == 0:
        at = int(key) + (size if key < 0 else 0)
        return slice(at, at + 1, 1), 0
    chosen = np.asarray(key)
    chosen = np.flatnonzero(chosen) if chosen.dtype == bool else np.where(chosen < 0, chosen + size, chosen)
    if chosen.size == 0:
        return slice(0, 0, 1), chosen
    first = int(chosen.min())
    return slice(first, int(chosen.max()) + 1, 1), chosen - first


def _window(rows: tuple[slice, Any], cols: tuple[slice, Any]) -> tuple[Window, tuple[slice, slice]]:
    """The window to read, and the steps to take inside it."""
    (row, row_stop, row_step), (col, col_stop, col_step) = (
        (axis[0].start, axis[0].stop, axis[0].step) for axis in (rows, cols)
    )
    return Window(row, col, row_stop - row, col_stop - col), (slice(None, None, row_step), slice(None, None, col_step))


def to_xarray(reader: SceneReader, chunks: int | tuple[int, int] | None = None) -> xr.DataArray:
    """See SceneReader.to_xarray."""
    rows, cols = (chunks, chunks) if isinstance(chunks, int) else chunks or default_chunks(reader)
    values = _lazy(LazyPixels(reader), (len(reader.layers), rows, cols))
    coords = {"band": ("band", list(reader.bands)), **spatial_coords(reader.geobox)}
    scene = xr.DataArray(values, dims=("band", "y", "x"), coords=coords, name="scene", attrs=_attrs(reader))
    if reader.has_mask:
        scene = scene.assign_coords(valid=(("y", "x"), _lazy(LazyValid(reader), (rows, cols))))
    return scene


def default_chunks(reader: SceneReader) -> tuple[int, int]:
    """Rows and columns near 2048 that hold whole blocks of the file."""
    rows, cols = (
        max(1, round(DEFAULT_CHUNK / block)) * block if block <= 2 * DEFAULT_CHUNK else DEFAULT_CHUNK
        for block in reader.block_shape
    )
    return rows, cols


def spatial_coords(geobox: GeoBox) -> dict[str, Any]:
    """Coordinates y, x and spatial_ref, from which odc-geo and rioxarray recover the geobox bit for bit."""
    coords: dict[str, Any] = {str(name): coord for name, coord in xr_coords(geobox, always_yx=True).items()}
    if geobox.crs is None:
        coords["spatial_ref"] = xr.DataArray(np.int32(0), attrs={"GeoTransform": _geotransform(geobox.affine)})
    return coords


def _geotransform(transform: Affine) -> str:
    return " ".join(repr(float(number)) for number in transform.to_gdal())


def _lazy(source: LazyPixels | LazyValid, chunks: tuple[int, ...]) -> Any:
    meta = np.empty((0,) * source.ndim, source.dtype)
    options = {"name": False, "asarray": False, "inline_array": True, "meta": meta}
    return da.from_array(source, chunks=chunks, **options)


def _attrs(reader: SceneReader) -> dict[str, Any]:
    """What the array itself cannot say; nodata by rioxarray's convention."""
    attrs: dict[str, Any] = {}
    if reader.gsd_m is not None:
        attrs["gsd_m"] = reader.gsd_m
    if len({(band.scale, band.offset) for band in reader.layers}) == 1 or reader.stated.scale is not None:
        attrs |= {
            name: number for name, number in (("scale", reader.scale), ("offset", reader.offset)) if number is not None
        }
    nodata = {band.nodata for band in reader.layers}
    if len(nodata) == 1 and (value := nodata.pop()) is not None:
        attrs["_FillValue"] = np.dtype(reader.dtype).type(value)
    return attrs
