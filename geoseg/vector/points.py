"""Points as files: to be labelled in a GIS, and read back."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pyogrio
import pyproj
from pyogrio.errors import DataSourceError

from geoseg.errors import InputError
from geoseg.raster.disk import check_output
from geoseg.raster.label_polygons import split_layer
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


def read_points(path: str | Path, crs: pyproj.CRS | None, column: str) -> gpd.GeoDataFrame:
    """Points of a vector file, in the given CRS.

    Args:
        path: of the file; `points.gpkg:sample` is the layer `sample` of a file that has several. Without a name the one
            that has `column` is taken.
        crs: of the map.
        column: of the class.

    Raises:
        InputError: the file cannot be read, holds other than points, one of file and map has no CRS, or several layers
            have the column and none is named.
    """
    file, layer = split_layer(path)
    try:
        is_parquet = file.suffix == ".parquet"
        points = gpd.read_parquet(file) if is_parquet else gpd.read_file(file, layer=_one_layer(file, layer, column))
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


def _one_layer(path: Path, wanted: str, column: str) -> str | None:
    """The layer that is named, or the only one with geometry, or of several the only one with the column."""
    layers = [str(name) for name, geometry in pyogrio.list_layers(path) if geometry is not None]
    listed = f"{', '.join(layers[:12])}{', ...' if len(layers) > 12 else ''}"
    if wanted and wanted not in layers:
        raise InputError(f"{path} has no layer {wanted!r} with geometry; it has {listed or 'none'}.")
    if wanted or len(layers) < 2:
        return wanted or None
    fitting = [name for name in layers if column in pyogrio.read_info(path, layer=name)["fields"]]
    if len(fitting) != 1:
        have = "none of them has" if not fitting else f"{len(fitting)} of them have"
        raise InputError(
            f"{path} has {len(layers)} layers ({listed}), and {have} a column {column!r}; name one, for example "
            f"{path}:{(fitting or layers)[0]}."
        )
    return fitting[0]
