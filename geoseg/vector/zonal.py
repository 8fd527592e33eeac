"""Statistics of other rasters within each polygon: every pixel counts by the share of it that lies inside.

exactextract (https://github.com/isciences/exactextract) does the counting; the rasters may be on any grid in the
polygons' CRS. It crashes where a hole lies beyond the pixels that it looks at and touches their border, be it that of
the raster or of the few million pixels that it reads at once. So polygons are cut to the raster, and large ones along
its pixels, before it sees them, and what it finds in the pieces is put together here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray

from geoseg.errors import GeosegError, InputError
from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.handles import limit_gdal_cache, open_dataset
from geoseg.vector.measure import Ground

STATISTICS = ("mean", "stdev", "min", "max")
_CELLS = 2**22  # in memory at once
_NO_LIMIT = 2**40  # for exactextract, which gets pieces that are small enough
_FOUND = ("count", "mean", "variance", "min", "max")  # in each piece


def check_statistics(paths: Sequence[str | Path], ground: Ground) -> None:
    """Refuse rasters whose statistics could not be told, before any work is done.

    Args:
        paths: rasters.
        ground: of the class raster.

    Raises:
        InputError: with the remedy.
    """
    if paths and find_spec("exactextract") is None:
        raise InputError("Statistics of rasters need the package exactextract: pip install 'geoseg[stats]'.")
    names: list[str] = []
    for path in paths:
        facts = look_at(path)
        _check_place(facts, ground)
        names += _columns(facts)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"Two rasters would give the column {twice[0]!r}; rename one of the files.")


def statistics(polygons: gpd.GeoDataFrame, paths: Sequence[str | Path]) -> dict[str, NDArray[np.float64]]:
    """Mean, standard deviation, least and greatest value of each band.

    Args:
        polygons: in the CRS of the rasters.
        paths: rasters; a column is called by file, band where there are several, and statistic, as in ndvi_mean.

    Raises:
        GeosegError: a raster cannot be read.
    """
    return {name: values for path in paths for name, values in _statistics(polygons, look_at(path)).items()}


def _statistics(polygons: gpd.GeoDataFrame, facts: FileFacts) -> dict[str, NDArray[np.float64]]:
    from exactextract import exact_extract
    from exactextract.raster import RasterioRasterSource

    names, rows = _columns(facts), len(polygons)
    pieces, owner = _pieces(polygons.geometry.to_numpy(), facts)
    if not len(pieces):
        return {name: np.full(rows, np.nan) for name in names}
    limit_gdal_cache()
    try:
        with open_dataset(facts.path) as raster:
            bands = [RasterioRasterSource(raster, band.number, name=f"b{band.number}") for band in facts.bands]
            frame = gpd.GeoDataFrame(geometry=pieces, crs=polygons.crs)
            found = exact_extract(bands, frame, list(_FOUND), output="pandas", max_cells_in_memory=_NO_LIMIT)
    except (rasterio.errors.RasterioError, RuntimeError, OSError) as error:
        raise GeosegError(f"The statistics of {facts.path} could not be read: {error}") from error
    values: list[NDArray[np.float64]] = []
    for band in facts.bands:
        prefix = "" if len(facts.bands) == 1 else f"b{band.number}_"
        values += _put_together(
            [pd.to_numeric(found[prefix + name]).to_numpy(np.float64) for name in _FOUND], owner, rows
        )
    return dict(zip(names, values, strict=True))


def _pieces(polygons: NDArray[np.object_], facts: FileFacts) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """What of the polygons lies on the raster, in pieces of at most `_CELLS` pixels.

    Args:
        polygons: (rows,) polygons and multipolygons.
        facts: of the raster.

    Returns:
        (pieces,) polygons, and the row that each is of; a polygon beside the raster has none.
    """
    (rows, cols), grid = facts.shape, facts.transform
    pieces, owner = _cut(polygons, np.arange(len(polygons)), np.tile([0, 0, cols, rows], (len(polygons), 1)), grid)
    while True:
        extent = _pixels(pieces, facts)
        width, height = extent[:, 2] - extent[:, 0], extent[:, 3] - extent[:, 1]
        large = width * height > _CELLS
        if not large.any():
            return pieces, owner
        low, high = extent[large].copy(), extent[large].copy()
        axis = (height > width)[large].astype(int)
        each = np.arange(len(axis))
        low[each, axis + 2] = high[each, axis] = (low[each, axis] + low[each, axis + 2]) // 2
        halves = [_cut(pieces[large], owner[large], extent, grid) for extent in (low, high)]
        pieces = np.concatenate([pieces[~large], *(half for half, _ in halves)])
        owner = np.concatenate([owner[~large], *(rows for _, rows in halves)])


def _cut(
    polygons: NDArray[np.object_], owner: NDArray[np.int64], extent: NDArray[np.int64], grid: Affine
) -> tuple[NDArray[np.object_], NDArray[np.int64]]:
    """The parts of polygons within (polygons, 4) left, top, right and bottom in pixels; whole where all is within."""
    left, right = (grid.a * extent[:, side] + grid.c for side in (0, 2))
    top, bottom = (grid.e * extent[:, side] + grid.f for side in (1, 3))
    bounds = shapely.bounds(polygons)
    beyond = (bounds < np.stack([left, bottom, right, top], 1))[:, :2].any(1)
    beyond |= (bounds > np.stack([left, bottom, right, top], 1))[:, 2:].any(1)
    polygons = polygons.copy()
    boxes = shapely.box(left[beyond], bottom[beyond], right[beyond], top[beyond])
    polygons[beyond] = shapely.intersection(polygons[beyond], boxes)
    parts, index = shapely.get_parts(polygons, return_index=True)
    areal = (shapely.get_type_id(parts) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(parts)
    return parts[areal], owner[index[areal]]


def _pixels(polygons: NDArray[np.object_], facts: FileFacts) -> NDArray[np.int64]:
    """(polygons, 4) left, top, right and bottom of the pixels that they touch."""
    (rows, cols), grid = facts.shape, facts.transform
    left, bottom, right, top = shapely.bounds(polygons).reshape(-1, 4).T
    first = [np.floor((left - grid.c) / grid.a), np.floor((top - grid.f) / grid.e)]
    last = [np.ceil((right - grid.c) / grid.a), np.ceil((bottom - grid.f) / grid.e)]
    return np.stack([*first, *last], 1).astype(np.int64).clip(0, [cols, rows, cols, rows])


def _put_together(
    found: Sequence[NDArray[np.float64]], owner: NDArray[np.int64], rows: int
) -> list[NDArray[np.float64]]:
    """`STATISTICS` of whole polygons from what was `_FOUND` in their pieces; NaN where nothing was measured."""
    is_measured = found[0] > 0
    owner = owner[is_measured]
    count, mean, variance, low, high = (values[is_measured] for values in found)
    share = count / np.bincount(owner, count, rows)[owner]
    of_all = np.bincount(owner, share * mean, rows)
    spread = np.bincount(owner, share * (variance + (mean - of_all[owner]) ** 2), rows)
    least, most = np.full(rows, np.inf), np.full(rows, -np.inf)
    np.minimum.at(least, owner, low)
    np.maximum.at(most, owner, high)
    known = np.bincount(owner, minlength=rows) > 0
    return [np.where(known, values, np.nan) for values in (of_all, np.sqrt(spread), least, most)]


def _columns(facts: FileFacts) -> list[str]:
    stem = _plain(Path(facts.path).stem)
    bands = [stem]
    if len(facts.bands) > 1:
        bands = [f"{stem}_{_plain(band.description or str(band.number))}" for band in facts.bands]
    return [f"{band}_{statistic}" for band in bands for statistic in STATISTICS]


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name).strip("_").lower()


def _check_place(facts: FileFacts, ground: Ground) -> None:
    crs = None if facts.crs is None else pyproj.CRS.from_user_input(facts.crs)
    if crs != ground.crs:
        has, wanted = (_name(one) for one in (crs, ground.crs))
        raise InputError(
            f"{facts.path} is in {has}, the class raster in {wanted}; "
            + (f"gdalwarp -t_srs {wanted} gives it that CRS." if ground.crs and crs else "give both the same CRS.")
        )
    t = facts.transform
    if t.b or t.d or t.e > 0:
        raise InputError(f"{facts.path} is rotated or has south up; gdalwarp turns it.")
    if not _overlap(facts, ground):
        raise InputError(f"{facts.path} lies nowhere where the class raster does; give a raster of the same place.")


def _name(crs: pyproj.CRS | None) -> str:
    return "no CRS" if crs is None else crs.to_string() if crs.to_authority() else repr(crs.name)


def _overlap(facts: FileFacts, ground: Ground) -> bool:
    boxes = []
    for shape, transform in ((facts.shape, facts.transform), (ground.shape, ground.transform)):
        corners = np.array([transform @ (col, row) for col in (0, shape[1]) for row in (0, shape[0])])
        boxes.append((corners.min(0), corners.max(0)))
    (low, high), (other_low, other_high) = boxes
    return bool((low < other_high).all() and (other_low < high).all())
