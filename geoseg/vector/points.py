"""Points as files: to be labelled in a GIS, and read back."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pyogrio
import pyproj
from pyogrio.errors import DataSourceError

from geoseg.errors import InputError
from geoseg.raster.disk import check_output
from geoseg.vector.export import published, without_crs_is_fine

LAYER = "points"


def write_points(points: gpd.GeoDataFrame, path: str | Path, *, overwrite: bool = False) -> None:
    """Write points to a GeoPackage, which GIS programs can edit.

    Raises:
        InputError: the file is no .gpkg, or exists.
        GeosegError: writing failed; nothing is left behind.
    """
    path = Path(path)
    check_output(path, overwrite=overwrite, suffixes=(".gpkg",))
    with published(path) as temporary, without_crs_is_fine():
        pyogrio.write_dataframe(points, temporary, layer=LAYER, driver="GPKG", geometry_type="Point")


def read_points(path: str | Path, crs: pyproj.CRS | None) -> gpd.GeoDataFrame:
    """Points of a vector file, in the given CRS.

    Raises:
        InputError: the file cannot be read, holds other than points, or one of file and map has no CRS.
    """
    try:
        points = gpd.read_parquet(path) if Path(path).suffix == ".parquet" else gpd.read_file(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a vector file: {error}") from error
    if not len(points):
        raise InputError(f"{path} holds no points.")
    kinds = sorted(set(points.geom_type.astype(str)) - {"Point"})
    if kinds:
        raise InputError(f"{path} holds {kinds[0]} geometries; reference points are expected.")
    if (points.crs is None) != (crs is None):
        raise InputError(f"One of {path} and the map has no CRS; give both the same with ogr2ogr -a_srs or gdal_edit.")
    return points if crs is None else points.to_crs(crs)
