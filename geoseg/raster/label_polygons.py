"""Labels from polygons with a class column, burnt on the scene's grid: a pixel is within where its center is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pyogrio
import shapely
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.features import rasterize

from geoseg.errors import GeosegError, InputError
from geoseg.grid import Window
from geoseg.raster.files import absolute
from geoseg.raster.georeference import ignore_not_georeferenced
from geoseg.raster.label_codes import (
    UNLABELLED,
    Codes,
    LabelCodes,
    LabelOptions,
    Meaning,
    Place,
    apply,
    check_crs,
    code_of,
    extent_of,
    outline,
    transformer,
    unknown_values,
    with_slack,
)

TILE = 256  # side of what is burnt at once; the lattice of tiles is the scene's, whatever window is asked for
RASTERS = (".tif", ".tiff", ".vrt", ".png")  # a shortcut: other names are asked for layers of polygons first
PARQUET = (".parquet", ".geoparquet")
INDEXED = (".gpkg", ".fgb", ".shp")  # a window is found without reading all; other files are read once per process
UNINDEXED = (".geojson", ".json")
COLUMNS = ("class_name", "class_id")
MAY_BE_POLYGONS = ("Polygon", "GeometryCollection", "Unknown")


class Layer(NamedTuple):
    """One layer of a vector file; the name is None for a GeoParquet file."""

    path: str
    name: str | None


@dataclass(frozen=True, slots=True)
class PolygonLabels:
    """Polygons with a class as labels of a scene.

    Attributes:
        layer: where they are.
        column: that holds the class.
        codes: what the codes stand for.
        place: the scene's grid.
        extent: pixels of the scene that hold labels.
        told: what was done to them.
        table: (value as text, code).
        crs: of the file as WKT, None where it has none.
        elsewhere: code of what no polygon covers.
        apart: whether pixels beside another polygon of the same class are unlabelled.
    """

    layer: Layer
    column: str
    codes: LabelCodes
    place: Place
    extent: Window
    told: tuple[str, ...]
    table: tuple[tuple[str, int], ...]
    crs: str | None
    elsewhere: int = UNLABELLED
    apart: bool = False

    @classmethod
    def of(cls, layer: Layer, codes: LabelCodes, place: Place, options: LabelOptions) -> PolygonLabels:
        """Look at all classes of the file; `geoseg.raster.labels.open_labels` says what may be wrong with it."""
        head = _head(layer, options.column)
        check_crs(layer.path, head.crs, place)
        meanings = {
            value: code_of(Meaning(value, value if head.is_text else None), codes, options) for value in head.values
        }
        strangers = [value for value, code in meanings.items() if code is None]
        if strangers:
            raise unknown_values(layer.path, strangers, codes)
        table = tuple((value, code) for value, code in meanings.items() if code is not None)
        left, bottom, right, top = head.bounds
        box = np.meshgrid(np.linspace(left, right, 33), np.linspace(bottom, top, 33))
        x, y = _carried(head.crs, None if place.crs is None else place.crs.to_wkt(), box[0].ravel(), box[1].ravel())
        extent = extent_of(layer.path, *apply(~place.transform, x, y), place)
        if options.elsewhere is None:
            return cls(layer, head.column, codes, place, extent, (), table, head.crs, apart=options.apart)
        told = (f"All that no polygon covers counts as {options.elsewhere}.",)
        elsewhere = codes.code(options.elsewhere)
        return cls(layer, head.column, codes, place, place.window, told, table, head.crs, elsewhere, options.apart)

    def __call__(self, window: Window) -> Codes:
        labels = np.full(window.shape, UNLABELLED, np.uint8)
        inside = window.clipped(self.place.shape)
        if inside.is_empty:
            return labels
        tiles = _tiles(inside, self.place.shape)
        shapes = self._shapes(_hull(tiles))
        for tile in tiles:
            part = tile.intersection(window)
            burnt = shapes.apart(tile, self.elsewhere) if self.apart else shapes.burnt(tile, self.elsewhere)
            labels[part.relative_to(window).slices] = burnt[part.relative_to(tile).slices]
        return labels

    def _shapes(self, window: Window) -> _Shapes:
        """The polygons that touch a window, in the order of the file, in pixels of the scene."""
        frame = _within(self.layer, self.column, self._bounds(window))
        codes = dict(self.table)
        values = frame[self.column]
        known = np.array([codes.get(class_text(value), -1) for value in values], dtype=np.int64)
        known[values.isna().to_numpy()] = UNLABELLED
        geometries = frame.geometry.to_numpy()
        kept = (known >= 0) & (shapely.get_dimensions(geometries) == 2)
        target = None if self.place.crs is None else self.place.crs.to_wkt()
        back = ~self.place.transform

        def on_grid(points: NDArray[np.float64]) -> NDArray[np.float64]:
            x, y = _carried(self.crs, target, points[:, 0], points[:, 1])
            return np.stack(apply(back, x, y), axis=1)

        there = shapely.transform(geometries[kept], on_grid)
        moved = shapely.make_valid(there, method="structure", keep_collapsed=False)
        return _Shapes(moved, shapely.bounds(moved), known[kept])

    def _bounds(self, window: Window) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) around a window, in the CRS of the file."""
        x, y = apply(self.place.transform, *outline(with_slack(window)))
        x, y = _carried(None if self.place.crs is None else self.place.crs.to_wkt(), self.crs, x, y)
        known = np.isfinite(x) & np.isfinite(y)
        if not known.any():
            raise GeosegError(f"{window} of the scene cannot be brought to the CRS of the labels {self.layer.path}.")
        x, y = x[known], y[known]
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())


class _Shapes(NamedTuple):
    """Polygons in pixels of the scene, their bounds (left, top, right, bottom) and codes."""

    geometries: NDArray[np.object_]
    bounds: NDArray[np.float64]
    codes: NDArray[np.int64]

    def burnt(self, tile: Window, elsewhere: int) -> Codes:
        """(height, width) codes of one tile."""
        return self._burnt(tile, self.codes, elsewhere).astype(np.uint8)

    def apart(self, tile: Window, elsewhere: int) -> Codes:
        """The same, with a line of unlabelled pixels where polygons of one class touch."""
        wider = tile.padded(1)
        numbers = self._burnt(wider, np.arange(1, len(self.codes) + 1), 0)
        codes = np.append(elsewhere, self.codes).astype(np.uint8)[numbers]
        here, found = np.s_[1:-1, 1:-1], codes[1:-1, 1:-1].copy()
        for there in (np.s_[1:-1, :-2], np.s_[:-2, 1:-1]):  # left and above: one side gives way
            other = (numbers[here] != numbers[there]) & (numbers[here] > 0) & (numbers[there] > 0)
            found[other & (codes[here] == codes[there])] = UNLABELLED
        return found

    def _burnt(self, tile: Window, values: NDArray[np.int64], elsewhere: int) -> NDArray[np.int32]:
        """(height, width) the value of the last polygon at each pixel of a tile."""
        left, top, right, bottom = self.bounds.T
        near = (left < tile.col_stop) & (right > tile.col) & (top < tile.row_stop) & (bottom > tile.row)
        if not near.any():
            return np.full(tile.shape, elsewhere, np.int32)
        # a polygon may be much larger than the tile; what is cut off lies a pixel beyond
        cut = shapely.clip_by_rect(
            self.geometries[near], tile.col - 1, tile.row - 1, tile.col_stop + 1, tile.row_stop + 1
        )
        areas = ~shapely.is_empty(cut) & (shapely.get_dimensions(cut) == 2)
        pairs = list(zip(cut[areas], values[near][areas].tolist(), strict=True))
        if not pairs:
            return np.full(tile.shape, elsewhere, np.int32)
        with ignore_not_georeferenced():
            burnt: NDArray[np.int32] = rasterize(
                pairs, tile.shape, elsewhere, transform=Affine.translation(tile.col, tile.row), dtype="int32"
            )
        return burnt


class _Head(NamedTuple):
    """What is known of a layer without its geometries: classes as text, in order of appearance."""

    column: str
    values: list[str]
    is_text: bool
    bounds: tuple[float, float, float, float]
    crs: str | None


def find_layer(given: str | os.PathLike[str]) -> Layer | None:
    """The layer that a path means; None where the file is no vector file.

    Raises:
        InputError: the file does not exist, or has several layers of which none is named.
    """
    path, name = split_layer(given)
    suffix = path.suffix.lower()
    if suffix in RASTERS:
        return None
    if suffix in (*PARQUET, *INDEXED, *UNINDEXED) and not path.exists():
        raise InputError(f"The labels {path} do not exist.")
    if suffix in PARQUET:
        return Layer(absolute(path), None)
    try:
        layers = [str(layer) for layer, geometry in pyogrio.list_layers(path) if geometry is not None]
    except DataSourceError:
        return None
    return _named(path, name, layers)


def split_layer(given: str | os.PathLike[str]) -> tuple[Path, str]:
    """File and layer of `file:layer`, the layer empty where none is named; a colon in the name of a file counts not."""
    text = os.fspath(given)
    file, _, layer = text.rpartition(":")
    return (Path(file), layer) if not Path(text).exists() and file and Path(file).exists() else (Path(text), "")


def _named(path: Path, wanted: str, layers: Sequence[str]) -> Layer | None:
    """The layer that is named, or the only one with geometry."""
    listed = f"{', '.join(layers[:12])}{', ...' if len(layers) > 12 else ''}"
    if wanted and wanted not in layers:
        raise InputError(f"{path} has no layer {wanted!r} with geometry; it has {listed or 'none'}.")
    if not layers:
        raise InputError(f"{path} is a table without geometry; labels are polygons with a class column.")
    if len(layers) > 1 and not wanted:
        raise InputError(f"{path} has {len(layers)} layers ({listed}); name one, for example {path}:{layers[0]}.")
    return Layer(absolute(path), wanted or layers[0])


def _head(layer: Layer, column: str | None) -> _Head:
    if layer.name is None:
        frame = _whole(layer, _stamp(layer))
        names = [name for name in frame.columns if name != frame.geometry.name]
        crs, bounds, kinds = frame.crs, tuple(frame.total_bounds), set(frame.geom_type.dropna())
    else:
        info = pyogrio.read_info(layer.path, layer=layer.name, force_total_bounds=True)
        names, crs, bounds = [str(name) for name in info["fields"]], info["crs"], info["total_bounds"]
        kinds = {info["geometry_type"]}
    column = _column(layer, column, names)
    if layer.name is None:
        values = frame[column]
    else:
        values = pyogrio.read_dataframe(layer.path, layer=layer.name, columns=[column], read_geometry=False)[column]
    if len(values) == 0 or not any(kind in str(found) for found in kinds for kind in MAY_BE_POLYGONS):
        raise InputError(f"{layer.path} holds no polygon ({len(values)} features); labels are polygons with a class.")
    known = values.dropna()
    texts = list(dict.fromkeys(class_text(value) for value in known.unique()))
    if not texts:
        raise InputError(f"Column {column} of {layer.path} is empty; it should hold the class of each polygon.")
    wkt = None if crs is None else gpd.GeoSeries(crs=crs).crs.to_wkt()
    return _Head(column, texts, any(isinstance(value, str) for value in known.unique()), bounds, wkt)


def _column(layer: Layer, wanted: str | None, names: Sequence[str]) -> str:
    for name in (wanted,) if wanted else COLUMNS:
        if name in names:
            return str(name)
    missing = f"no column {wanted}" if wanted else "neither column class_name nor class_id"
    raise InputError(
        f"{layer.path} has {missing}; it has {', '.join(map(str, names)) or 'none'}. "
        "Say which one holds the class with --column."
    )


def _within(layer: Layer, column: str, bounds: tuple[float, float, float, float]) -> gpd.GeoDataFrame:
    """The features whose bounds touch `bounds`, in the order of the file."""
    if Path(layer.path).suffix.lower() in INDEXED:
        try:
            found = gpd.read_file(layer.path, layer=layer.name, columns=[column], bbox=bounds, fid_as_index=True)
        except (DataSourceError, DataLayerError) as error:
            raise GeosegError(f"Reading labels of {layer.path} failed: {error}.") from error
        return found.sort_index()
    frame = _whole(layer, _stamp(layer))
    return frame.iloc[np.sort(frame.sindex.query(shapely.box(*bounds)))]


@lru_cache(maxsize=4)
def _whole(layer: Layer, stamp: tuple[int, int]) -> gpd.GeoDataFrame:
    """All features of a file that has no index of places."""
    try:
        if layer.name is None:
            return gpd.read_parquet(layer.path)
        return gpd.read_file(layer.path, layer=layer.name)
    except (OSError, ValueError, DataSourceError, DataLayerError) as error:
        raise InputError(f"{layer.path} cannot be read as a vector file: {error}.") from error


def _stamp(layer: Layer) -> tuple[int, int]:
    status = Path(layer.path).stat()
    return status.st_size, status.st_mtime_ns


def class_text(value: Any) -> str:
    """A class as text: 5 and 5.0 (a column with gaps) are one."""
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


def _carried(
    source: str | None, target: str | None, x: NDArray[np.float64], y: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates from one CRS to another; infinite where that does not reach."""
    if source is None or target is None or source == target:
        return x, y
    moved = transformer(source, target).transform(x, y)
    return np.asarray(moved[0]), np.asarray(moved[1])


def _tiles(window: Window, shape: tuple[int, int]) -> list[Window]:
    """The tiles that a window touches."""
    return [
        Window(row * TILE, col * TILE, TILE, TILE).clipped(shape)
        for row in range(window.row // TILE, -(-window.row_stop // TILE))
        for col in range(window.col // TILE, -(-window.col_stop // TILE))
    ]


def _hull(tiles: Sequence[Window]) -> Window:
    first, last = tiles[0], tiles[-1]
    return Window(first.row, first.col, last.row_stop - first.row, last.col_stop - first.col)
