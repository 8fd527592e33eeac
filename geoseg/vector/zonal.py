"""Statistics of other rasters within each polygon: every pixel counts by the share of it that lies inside.

exactextract (https://github.com/isciences/exactextract) reads a raster a few million pixels at a time; the rasters may
be on any grid in the polygons' CRS.
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
from numpy.typing import NDArray

from geoseg.errors import GeosegError, InputError
from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.handles import limit_gdal_cache, open_dataset
from geoseg.vector.measure import Ground

STATISTICS = ("mean", "stdev", "min", "max")
_CELLS = 2**22  # in memory at once


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

    names = _columns(facts)
    if not len(polygons):
        return {name: np.empty(0) for name in names}
    limit_gdal_cache()
    try:
        with open_dataset(facts.path) as raster:
            bands = [RasterioRasterSource(raster, band.number, name=f"b{band.number}") for band in facts.bands]
            found = exact_extract(
                bands, polygons[["geometry"]], list(STATISTICS), output="pandas", max_cells_in_memory=_CELLS
            )
    except (rasterio.errors.RasterioError, RuntimeError, OSError) as error:
        raise GeosegError(f"The statistics of {facts.path} could not be read: {error}") from error
    columns = [
        statistic if len(facts.bands) == 1 else f"b{band.number}_{statistic}"
        for band in facts.bands
        for statistic in STATISTICS
    ]
    return {
        name: pd.to_numeric(found[column]).to_numpy(np.float64) for name, column in zip(names, columns, strict=True)
    }


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
