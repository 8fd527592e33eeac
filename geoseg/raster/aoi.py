"""Area of interest: polygons on a scene's grid."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.crs import CRS
from rasterio.features import geometry_mask

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.georeference import ignore_not_georeferenced


@dataclass(frozen=True, slots=True)
class AreaOfInterest:
    """Polygons in the scene's CRS.

    Attributes:
        polygons: WKB of each.
        transform: of the scene.
        window: the pixels of the scene that hold all of them.
        path: of the file that they come from.
    """

    polygons: tuple[bytes, ...]
    transform: Affine
    window: Window
    path: Path | None = field(default=None, compare=False)

    def mask(self, window: Window) -> NDArray[np.bool_]:
        """(height, width) of a window of the scene: True where a pixel's center lies within a polygon."""
        transform = self.transform @ Affine.translation(window.col, window.row)
        shapes = shapely.from_wkb(list(self.polygons))
        with ignore_not_georeferenced():  # rasterio expects one too, with a filter that another thread may take away
            inside: NDArray[np.bool_] = geometry_mask(shapes, window.shape, transform, invert=True)
        return inside

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"".join(self.polygons)).hexdigest()


def read_aoi(path: str | Path, *, shape: tuple[int, int], transform: Affine, crs: CRS | None) -> AreaOfInterest:
    """The polygons of a vector file, brought to the scene's CRS.

    Args:
        path: any vector format that GDAL reads; `area.gpkg:fields` is the layer `fields` of a file that has several.
        shape: rows and columns of the scene.
        transform: of the scene.
        crs: of the scene; None where neither has one.

    Raises:
        InputError: the file cannot be read, has several layers of which none is named, holds no polygon, has no CRS
            though the scene has one, or misses the scene.
    """
    frame = _read(Path(path))
    if (frame.crs is None) != (crs is None):
        which, other = ("The scene", path) if crs is None else (path, "the scene")
        raise InputError(
            f"{which} has no CRS, {other} has one; give both the same with ogr2ogr -a_srs or gdal_edit -a_srs."
        )
    geometries = frame.geometry.to_numpy()
    geometries = geometries[~(shapely.is_missing(geometries) | shapely.is_empty(geometries))]
    if crs is not None:
        geometries = gpd.GeoSeries(geometries, crs=frame.crs).to_crs(crs.to_wkt()).to_numpy()
    if not np.isfinite(shapely.bounds(geometries)).all():
        raise InputError(f"The area of interest {path} cannot be brought to the scene's CRS; it lies far outside.")
    polygons = shapely.get_parts(shapely.make_valid(geometries))
    polygons = polygons[shapely.get_dimensions(polygons) == 2]
    if len(polygons) == 0:
        raise InputError(f"{path} holds no polygon; an area of interest is made of polygons.")
    window = _cover(shapely.total_bounds(polygons), transform).clipped(shape)
    if window.is_empty:
        raise InputError(f"The area of interest {path} lies outside the scene; compare their bounds with geoseg info.")
    return AreaOfInterest(tuple(shapely.to_wkb(polygons)), transform, window, _split(Path(path))[0])


def _read(given: Path) -> gpd.GeoDataFrame:
    path, layer = _split(given)
    if not path.exists():
        raise InputError(f"The area of interest {path} does not exist.")
    try:
        layer = _one_layer(path, layer)
        return gpd.read_file(path, layer=layer)
    except DataSourceError as error:
        raise InputError(f"The area of interest {path} cannot be read as a vector file: {error}.") from error


def _split(given: Path) -> tuple[Path, str | None]:
    """File and layer; a colon in the name of a file that exists says nothing."""
    file, _, layer = str(given).rpartition(":")
    return (Path(file), layer) if not given.exists() and file and Path(file).exists() else (given, None)


def _one_layer(path: Path, wanted: str | None) -> str:
    """The layer that is named, or the only one with geometry."""
    layers = [str(name) for name, geometry in pyogrio.list_layers(path) if geometry is not None]
    if not layers:
        raise InputError(f"{path} is a table without geometry; an area of interest is made of polygons.")
    listed = f"{', '.join(layers[:12])}{', ...' if len(layers) > 12 else ''}"
    if wanted is None and len(layers) > 1:
        raise InputError(f"{path} has {len(layers)} layers ({listed}); name one, for example {path}:{layers[0]}.")
    if wanted is not None and wanted not in layers:
        raise InputError(f"{path} has no layer {wanted!r} with geometry; it has {listed}.")
    return wanted or layers[0]


def _cover(bounds: NDArray[np.float64], transform: Affine) -> Window:
    """The smallest window that holds bounds (left, bottom, right, top) in CRS units, also on a rotated grid."""
    left, bottom, right, top = bounds
    back = ~transform
    x, y = np.array([left, right, right, left]), np.array([top, top, bottom, bottom])
    cols, rows = back.a * x + back.b * y + back.c, back.d * x + back.e * y + back.f
    row, col = int(np.floor(rows.min())), int(np.floor(cols.min()))
    return Window(row, col, int(np.ceil(rows.max())) - row, int(np.ceil(cols.max())) - col)
