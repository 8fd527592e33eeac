"""When a scene was taken, where its files say so."""

from __future__ import annotations

from collections.abc import Iterable

from rasterio.errors import RasterioError

from geoseg.raster.handles import dataset, gdal_settings


def acquisition_date(paths: Iterable[str]) -> str | None:
    """The date, as in 2024-06-30, that GDAL finds in the files' metadata of the sensor; None where they do not agree.

    The date in TIFFTAG_DATETIME is when a file was written, and does not count.
    """
    found = set()
    for path in paths:
        try:
            with gdal_settings(path):
                told = dataset(path).tags(ns="IMAGERY").get("ACQUISITIONDATETIME")
        except (RasterioError, OSError):
            continue
        found.add(None if told is None else told[:10])
    return found.pop() if len(found) == 1 else None
