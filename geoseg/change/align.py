"""One grid for several dates: the pixels of one, the extent that they share or cover, and each date resampled onto it.

Resampling is GDAL's, described by a small VRT file that any reader opens; what lies outside a date is nodata there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

import numpy as np
import pyproj
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from geoseg.errors import GeosegError, InputError
from geoseg.grid import Window
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.ground import ground_sample_distance
from geoseg.raster.label_codes import apply

Extent = Literal["intersection", "union"]

STEPS = 21  # points along each side of a raster that is carried to another CRS
SAME = 1e-6  # pixels; nearer grids are one
MOST_PIXELS = 2**40


@dataclass(frozen=True, slots=True)
class Dated:
    """A raster of one date.

    Attributes:
        name: for people.
        georef: where it lies.
    """

    name: str
    georef: Georef


def common_grid(dates: Sequence[Dated], *, extent: Extent = "intersection", resolution: float | None = None) -> Georef:
    """The grid of the date with the finest pixels, cut or extended to the extent of all.

    Args:
        dates: two or more.
        extent: what all dates cover, or what any of them does.
        resolution: side of a pixel in units of that date's CRS, in place of its own.

    Raises:
        InputError: a date has no CRS while others have, they do not overlap, or the resolution is no positive number.
    """
    if resolution is not None and not (math.isfinite(resolution) and resolution > 0):
        raise InputError(f"The resolution of the common grid is a positive number, not {resolution}.")
    _check_crs(dates)
    finest = min(dates, key=lambda date: _pixel_m2(date.georef)).georef
    transform = finest.transform
    if resolution is not None:
        zoom = resolution / math.sqrt(abs(transform.determinant))
        transform = transform @ Affine.scale(zoom)
    boxes = np.array([_box_on(date.georef, transform, finest) for date in dates])  # row, column, row stop, column stop
    if extent == "union":
        low, high = np.floor(boxes[:, :2].min(0) + SAME), np.ceil(boxes[:, 2:].max(0) - SAME)
    else:
        low, high = np.ceil(boxes[:, :2].max(0) - SAME), np.floor(boxes[:, 2:].min(0) + SAME)
    if (high <= low).any():
        where = "; ".join(f"{date.name} {_extent_of(date.georef)}" for date in dates)
        raise InputError(f"The dates do not overlap: {where}. Compare them with geoseg info.")
    rows, cols = (int(length) for length in high - low)
    if rows * cols > MOST_PIXELS:
        raise InputError(f"The common grid would have {cols} x {rows} px; give a coarser --resolution.")
    if (low == 0).all():
        return Georef((rows, cols), transform, finest.crs)
    return Georef((rows, cols), transform @ Affine.translation(low[1], low[0]), finest.crs)


def cut(grid: Georef, window: Window) -> Georef:
    """The part of a grid that a window holds."""
    if (window.row, window.col) == (0, 0):
        return Georef(window.shape, grid.transform, grid.crs)
    return Georef(window.shape, grid.transform @ Affine.translation(window.col, window.row), grid.crs)


def check_overlap(path: str | Path, grid: Georef) -> None:
    """Raise an InputError where a mask shows nothing of a grid, or cannot be opened."""
    own = georef_of(path)
    row, col, row_stop, col_stop = _box_on(own, grid.transform, grid)
    if row_stop <= SAME or col_stop <= SAME or row >= grid.shape[0] - SAME or col >= grid.shape[1] - SAME:
        raise InputError(
            f"The mask {path} lies elsewhere: it covers {_extent_of(own)}, the dates {_extent_of(grid)}. Give a mask "
            "of their place, or - for none."
        )


def is_on(georef: Georef, grid: Georef) -> bool:
    """Whether a raster is on a grid, pixel for pixel, and of its extent."""
    if georef.shape != grid.shape or georef.crs != grid.crs:
        return False
    return _is_still(~grid.transform @ georef.transform)


def resampled(
    path: str | Path, grid: Georef, vrt: Path, *, classes: bool, shift_px: tuple[float, float] = (0.0, 0.0)
) -> Path:
    """A VRT of a raster on a grid.

    Classes are taken by the mode where they get coarser, else from the nearest pixel; measurements are averaged or
    interpolated (cubic). Where whole pixels match, values are as stored.

    Args:
        path: of the raster.
        grid: where it shall lie.
        vrt: the file to write.
        classes: whether values are classes.
        shift_px: rows and columns of the grid by which the picture is moved.

    Raises:
        GeosegError: the raster cannot be read or the VRT not be written.
    """
    rows, cols = shift_px
    moved = grid.transform @ Affine.translation(-cols, -rows)
    new = vrt.with_name(f".{vrt.name}")
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as source:
            own = Georef((source.height, source.width), source.transform, source.crs)
            hidden = {} if source.nodata is None and not classes else {"nodata": source.nodata}
            with WarpedVRT(
                source,
                crs=grid.crs,
                transform=moved,
                height=grid.shape[0],
                width=grid.shape[1],
                resampling=resampling(own, Georef(grid.shape, moved, grid.crs), classes=classes),
                add_alpha=source.nodata is None and not classes and "alpha" not in _kinds(source),
                warp_mem_limit=64,
                **hidden,
            ) as warped:
                rasterio.shutil.copy(warped, new, driver="VRT")
                descriptions = source.descriptions
    except (RasterioError, OSError) as error:
        raise GeosegError(f"{path} could not be put on the common grid: {error}") from error
    numbers = ", ".join(f"{value!r}" for value in grid.transform.to_gdal())
    text = new.read_text(encoding="utf-8")
    new.unlink()
    text = re.sub(r"<GeoTransform>[^<]*</GeoTransform>", f"<GeoTransform>{numbers}</GeoTransform>", text, count=1)
    for number, told in enumerate(descriptions, 1):
        if told:
            band = rf'(<VRTRasterBand [^>]*band="{number}"[^>]*>)(?!\s*<Description>)'
            text = re.sub(band, rf"\g<1><Description>{_in_xml(told)}</Description>", text)
    if not vrt.is_file() or vrt.read_text(encoding="utf-8") != text:  # a run that goes on finds its file untouched
        vrt.write_text(text, encoding="utf-8")
    return vrt


def georef_of(path: str | Path) -> Georef:
    """Where a raster lies.

    Raises:
        InputError: it cannot be opened.
    """
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as source:
            return Georef((source.height, source.width), source.transform, source.crs)
    except RasterioError as error:
        raise InputError(f"Cannot open {path}: {error}") from error


def _check_crs(dates: Sequence[Dated]) -> None:
    missing = [date.name for date in dates if date.georef.crs is None]
    if missing and len(missing) < len(dates):
        raise InputError(
            f"{missing[0]} has no CRS, while other dates have one; give it one (gdal_edit.py -a_srs EPSG:...)."
        )


def _pixel_m2(georef: Georef) -> float:
    """Area of a pixel, in units that are the same for all dates."""
    size = ground_sample_distance(georef.shape, georef.transform, georef.crs)
    return abs(georef.transform.determinant) if size is None else size**2


def _box_on(georef: Georef, transform: Affine, grid: Georef) -> list[float]:
    """First and last row and column of a raster in the pixels of a grid: row, column, row stop, column stop."""
    height, width = georef.shape
    along = np.linspace(0, 1, STEPS)
    sides = [(along, 0 * along), (along, 0 * along + 1), (0 * along, along), (0 * along + 1, along)]
    cols, rows = (np.concatenate([side[axis] for side in sides]) * length for axis, length in ((0, width), (1, height)))
    x, y = apply(georef.transform, cols, rows)
    if georef.crs is not None and grid.crs is not None and georef.crs != grid.crs:
        onto = pyproj.Transformer.from_crs(georef.crs.to_wkt(), grid.crs.to_wkt(), always_xy=True)
        x, y = onto.transform(x, y)
    there_cols, there_rows = apply(~transform, np.asarray(x), np.asarray(y))
    known = np.isfinite(there_cols) & np.isfinite(there_rows)
    if not known.any():
        return [math.inf, math.inf, -math.inf, -math.inf]
    cols, rows = there_cols[known], there_rows[known]
    return [float(rows.min()), float(cols.min()), float(rows.max()), float(cols.max())]


def resampling(own: Georef, grid: Georef, *, classes: bool) -> Resampling:
    """How a raster gets onto a grid: see `resampled`."""
    if own.crs == grid.crs:
        between = ~own.transform @ grid.transform
        whole = abs(between.c - round(between.c)) < SAME and abs(between.f - round(between.f)) < SAME
        if whole and _is_still(Affine(between.a, between.b, 0, between.d, between.e, 0)):
            return Resampling.nearest
    coarser = _pixel_m2(grid) > 1.5 * _pixel_m2(own)
    if classes:
        return Resampling.mode if coarser else Resampling.nearest
    return Resampling.average if coarser else Resampling.cubic


def _is_still(between: Affine) -> bool:
    return between.almost_equals(Affine.identity(), precision=SAME)


def _in_xml(text: str) -> str:
    """Escaped for XML, and for what replaces a regular expression."""
    return escape(text).replace("\\", r"\\")


def _kinds(source: rasterio.DatasetReader) -> list[str]:
    return [kind.name for kind in source.colorinterp]


def _extent_of(georef: Georef) -> str:
    west, north = georef.transform @ (0, 0)
    east, south = georef.transform @ (georef.shape[1], georef.shape[0])
    return f"x {west:.9g} to {east:.9g}, y {south:.9g} to {north:.9g} ({georef.crs or 'no CRS'})"
