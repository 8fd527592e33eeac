"""A DataArray from elsewhere (rioxarray, odc-stac, Zarr, netCDF) in the form that open_scene gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import odc.geo.xr  # noqa: F401  (registers .odc)
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.bands import band_names
from geoseg.raster.files import look_at
from geoseg.raster.ground import ground_sample_distance
from geoseg.raster.lazy import spatial_coords
from geoseg.raster.reader import SceneOptions
from geoseg.raster.window_reader import Pixels, WindowReader

_SPATIAL = (("y", "x"), ("latitude", "longitude"), ("lat", "lon"), ("northing", "easting"))
_HINT = "Give a DataArray with dimensions (band, y, x) or (y, x), for example rioxarray.open_rasterio(...)."


@dataclass(frozen=True, slots=True, eq=False)
class ArrayReader(WindowReader):
    """A scene in a DataArray, read window by window as a `SceneReader` reads files; of a lazy one, what is asked for.

    Attributes:
        scene: (band, y, x) as `normalized` gives it.
        native_shape: (rows, columns).
        native_transform: of its pixels.
        crs: coordinate reference system, None where unknown.
        native_gsd_m: ground sample distance in metres, None where unknown.
        zoom: pixels of the array per pixel.
    """

    scene: xr.DataArray
    native_shape: tuple[int, int]
    native_transform: Affine
    crs: CRS | None
    native_gsd_m: float | None
    zoom: float = 1.0

    @classmethod
    def of(cls, scene: xr.DataArray, options: SceneOptions) -> ArrayReader:
        """See `normalized`.

        Raises:
            InputError: dimensions, dtype or coordinates are not those of a scene.
        """
        scene = normalized(scene, options)
        geobox = geobox_of(scene)
        shape = scene.sizes["y"], scene.sizes["x"]
        return cls(scene, shape, geobox.affine, _crs_of(geobox), scene.attrs.get("gsd_m"))

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(str(name) for name in self.scene.band.values)

    @property
    def dtype(self) -> str:
        return str(self.scene.dtype)

    @property
    def has_mask(self) -> bool:
        """Whether any pixel may be not measured."""
        return "valid" in self.scene.coords

    @property
    def scale(self) -> float | None:
        return self.scene.attrs.get("scale")

    @property
    def offset(self) -> float | None:
        return self.scene.attrs.get("offset")

    def select(self, names: Sequence[str]) -> ArrayReader:
        """These bands in this order."""
        order = [self.bands.index(name) for name in names]
        return replace(self, scene=self.scene.isel(band=order))

    def zoomed(self, zoom: float) -> ArrayReader:
        return replace(self, zoom=zoom)

    def _read_native(self, window: Window) -> Pixels:
        rows, cols = window.slices
        part = self.scene.isel(y=rows, x=cols).compute()
        valid = part.coords["valid"].values if self.has_mask else np.ones(window.shape, np.bool_)
        return Pixels(part.values, valid)


def normalized(scene: xr.DataArray, options: SceneOptions) -> xr.DataArray:
    """`scene` as (band, y, x) with names, geobox and `valid`, lazily.

    Raises:
        InputError: its dimensions, dtype or coordinates are not those of a scene.
    """
    flat = _to_band_y_x(scene)
    if flat.dtype.kind not in "uif":
        raise InputError(f"The DataArray has dtype {flat.dtype}; a scene has integers or real numbers.")
    geobox = geobox_of(flat)
    names = _band_names(scene, flat, options)
    result = xr.DataArray(
        flat.data,
        dims=("band", "y", "x"),
        coords={"band": ("band", names), **spatial_coords(geobox)},
        name=scene.name or "scene",
        attrs=_attrs(scene, geobox, options),
    )
    valid = _valid(scene, flat, options, result.attrs.get("_FillValue"))
    return result if valid is None else result.assign_coords(valid=(("y", "x"), valid))


def _to_band_y_x(scene: xr.DataArray) -> xr.DataArray:
    pair = next((pair for pair in _SPATIAL if set(pair) <= set(scene.dims)), None)
    if pair is None:
        raise InputError(f"The DataArray has dimensions {_listed(scene)}, none of them y and x. {_HINT}")
    others = [dim for dim in scene.dims if dim not in pair and not (dim != "band" and scene.sizes[dim] == 1)]
    if len(others) > 1 or 0 in scene.shape:
        raise InputError(f"The DataArray has dimensions {_listed(scene)}; a scene is one date. {_HINT}")
    if others and others[0] == "time":
        raise InputError(f"The DataArray has {scene.sizes['time']} dates; choose one with scene.isel(time=0).")
    flat = scene.squeeze([dim for dim in scene.dims if dim not in pair and dim not in others], drop=True)
    flat = flat if others else flat.expand_dims("band")
    return flat.transpose(others[0] if others else "band", *pair)


def _listed(scene: xr.DataArray) -> str:
    return "(" + ", ".join(f"{dim}: {size}" for dim, size in scene.sizes.items()) + ")"


def geobox_of(scene: xr.DataArray) -> GeoBox:
    """Shape, transform and CRS from the coordinates; the transform bit for bit where `spatial_ref` has it.

    odc-geo reckons the transform from y and x, which costs some digits, and forgets that of a scene without CRS. Here a
    slice of a scene gets the scene's own transform, moved by whole pixels.

    Raises:
        InputError: the coordinates are missing or not evenly spaced.
    """
    geobox = scene.odc.geobox
    if not isinstance(geobox, GeoBox) or not _evenly_spaced(scene):
        raise InputError(
            "The DataArray has no evenly spaced y and x coordinates, so that its place is unknown. "
            "Assign coordinates, for example odc.geo.xr.assign_crs(...) or rioxarray's rio.write_transform(...)."
        )
    stated = _stated_transform(scene)
    if stated is None:
        return geobox
    turned = stated.b != 0 or stated.d != 0
    reckoned = stated @ geobox.affine if turned and geobox.crs is None else geobox.affine  # then y and x count pixels
    moved = ~stated @ reckoned
    steps = round(moved.c), round(moved.f)
    if moved.almost_equals(Affine.translation(*steps), precision=1e-3):
        return GeoBox(geobox.shape, stated @ Affine.translation(*steps) if any(steps) else stated, geobox.crs)
    return geobox


def _stated_transform(scene: xr.DataArray) -> Affine | None:
    """The transform in GDAL's order that rioxarray, odc-geo and geoseg keep beside the CRS; None without one."""
    text = scene.coords["spatial_ref"].attrs.get("GeoTransform", "") if "spatial_ref" in scene.coords else ""
    numbers = [float(number) for number in str(text).split()]
    return (
        Affine.from_gdal(*numbers) if len(numbers) == 6 and numbers[1] * numbers[5] != numbers[2] * numbers[4] else None
    )


def _evenly_spaced(scene: xr.DataArray) -> bool:
    """Whether each coordinate is within a tenth of a pixel of its place; odc-geo looks at the first and last only."""
    for name in scene.dims[-2:]:
        if name in scene.coords and scene.sizes[name] > 2:
            found = np.asarray(scene.coords[name].values, np.float64)
            even = np.linspace(found[0], found[-1], len(found))
            if np.abs(found - even).max() > 0.1 * abs(even[1] - even[0]):
                return False
    return True


def _band_names(scene: xr.DataArray, flat: xr.DataArray, options: SceneOptions) -> list[str]:
    dim = flat.dims[0]
    described: list[str | None] = [None] * flat.shape[0]
    if dim in flat.coords and flat[dim].dtype.kind in "UO":
        described = [str(name) for name in flat[dim].values]
    elif isinstance(long_name := scene.attrs.get("long_name"), list | tuple) and len(long_name) == flat.shape[0]:
        described = [str(name) for name in long_name]
    names = band_names(described, ["undefined"] * flat.shape[0], range(1, flat.shape[0] + 1))
    for name, value in (options.bands or {}).items():
        if not str(value).isdigit() or not 1 <= int(value) <= len(names):
            raise InputError(f"For a DataArray, bands are numbers from 1 to {len(names)}, not {name}={value}.")
        names = [f"band_{number}" if old == name else old for number, old in enumerate(names, start=1)]
        names[int(value) - 1] = name
    return names


def _attrs(scene: xr.DataArray, geobox: GeoBox, options: SceneOptions) -> dict[str, Any]:
    shape = int(geobox.shape[0]), int(geobox.shape[1])
    stated = {"gsd_m": options.gsd_m, "scale": options.scale, "offset": options.offset, "_FillValue": options.nodata}
    found = {
        "gsd_m": scene.attrs.get("gsd_m", ground_sample_distance(shape, geobox.affine, _crs_of(geobox))),
        "scale": _unless(1, scene.attrs.get("scale", scene.attrs.get("scale_factor"))),
        "offset": _unless(0, scene.attrs.get("offset", scene.attrs.get("add_offset"))),
        "_FillValue": scene.attrs.get("_FillValue", scene.encoding.get("_FillValue", scene.attrs.get("nodata"))),
    }
    merged = {name: stated[name] if stated[name] is not None else found[name] for name in stated}
    return {name: value for name, value in merged.items() if value is not None}


def _crs_of(geobox: GeoBox) -> CRS | None:
    return None if geobox.crs is None else CRS.from_wkt(geobox.crs.to_wkt())


def _unless(neutral: float, number: Any) -> Any:
    return None if number == neutral else number


def _valid(scene: xr.DataArray, flat: xr.DataArray, options: SceneOptions, nodata: Any) -> Any:
    """What is measured, (y, x), lazy where the scene is; None = everything."""
    parts: list[Any] = []
    if flat.dtype.kind == "f":
        parts.append(np.isfinite(flat.data).all(axis=0))
    if nodata is not None and np.isfinite(nodata):
        parts.append((flat.data != nodata).all(axis=0))
    if "valid" in scene.coords and scene.coords["valid"].shape == flat.shape[1:]:
        parts.append(scene.coords["valid"].data)
    if options.valid_mask is not None:
        parts.append(_mask(options.valid_mask, flat))
    if not parts:
        return None
    together = parts[0]
    for part in parts[1:]:
        together = together & part
    return together


def _mask(path: str, flat: xr.DataArray) -> Any:
    from geoseg.raster.scene import open_reader

    mask = look_at(path)
    if mask.shape != flat.shape[1:] or len(mask.bands) != 1:
        raise InputError(
            f"The valid mask {mask.path} has {mask.shape[0]} x {mask.shape[1]} pixels and {len(mask.bands)} bands, "
            f"the scene has {flat.shape[1]} x {flat.shape[2]}. Give a mask of one band on the scene's grid."
        )
    stored = open_reader(path).to_xarray().data[0] != 0
    return stored.rechunk(flat.data.chunks[1:]) if isinstance(flat.data, da.Array) else stored
