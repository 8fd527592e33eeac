"""Write polygons to a file whose format its suffix tells; it appears whole or not at all."""

from __future__ import annotations

import logging
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyogrio
import pyproj

from geoseg.errors import GeosegError, InputError
from geoseg.legend import Selection
from geoseg.raster.disk import check_output, publish_file
from geoseg.vector.coding import generic_selection
from geoseg.vector.made_by import Made, attributes, layer_options, writing_options
from geoseg.vector.style import to_qml, to_sld
from geoseg.vector.table import GEOMETRY, Piece

_log = logging.getLogger(__name__)

FORMATS = {
    ".gpkg": "GPKG",
    ".parquet": "Parquet",
    ".geoparquet": "Parquet",
    ".fgb": "FlatGeobuf",
    ".geojson": "GeoJSON",
}
SINGLE_LAYER = "polygons"
GEOMETRY_COLUMN = "geom"
_STYLES_TABLE = "layer_styles"
_FIXED_DATE = "2000-01-01T00:00:00.000Z"  # in place of the time of writing: equal polygons, equal bytes
_SETTINGS = {
    "OGR_CURRENT_DATE": _FIXED_DATE,
    "OGR_SQLITE_SYNCHRONOUS": "OFF",  # a file is synced once, when it is whole
}
_SQLITE_LEFTOVERS = ("-journal", "-wal", "-shm")
_RESERVED = ("gpkg_", "sqlite_", "rtree_", _STYLES_TABLE)


def check_vector_output(path: str | Path, *, overwrite: bool, inputs: Iterable[str | Path] = ()) -> None:
    """Refuse an output that could not be written, before any work is done.

    Args:
        path: the output.
        overwrite: an existing output may be replaced.
        inputs: files that the run reads.

    Raises:
        InputError: with the reason and the remedy.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".shp":
        raise InputError(
            f"{path}: Shapefiles are not written, because they cut column names to 10 letters, end at 2 GB and are "
            f"several files that cannot appear at once; use one of {', '.join(FORMATS)}."
        )
    if suffix not in FORMATS:
        raise InputError(f"{path} ends in {suffix or 'nothing'!r}; polygons are written to {', '.join(FORMATS)}.")
    check_output(path, overwrite=overwrite, inputs=inputs, suffixes=tuple(FORMATS))


def check_crs_fits(path: str | Path, crs: pyproj.CRS | None) -> None:
    """Refuse a format that needs a CRS for polygons that have none.

    Raises:
        InputError: with the remedy.
    """
    if crs is None and FORMATS[Path(path).suffix.lower()] == "GeoJSON":
        raise InputError(
            f"{path}: GeoJSON is in longitude and latitude (RFC 7946), and the polygons have no CRS; use .gpkg, or "
            "give the raster a CRS (gdal_edit.py -a_srs EPSG:...)."
        )


Pieces = Callable[[str | None], Iterator[Piece]]
"""Polygons of one class, or of all, a part after the other; one part at least, which tells the columns."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a file of polygons shall hold.

    Attributes:
        pieces: columns class_id and class_name, others as they are.
        crs: of the polygons.
        selections: classes in the order of layers and with their colors; a layer is written for each, polygons or none.
        single_layer: in a GeoPackage, all classes in one layer; other formats have but one.
        geometry_type: of all layers, "Polygon" or "MultiPolygon".
        runs: that made it, for the record in the file.
    """

    pieces: Pieces
    crs: pyproj.CRS | None
    selections: Sequence[Selection]
    single_layer: bool = False
    geometry_type: str = "Polygon"
    runs: Sequence[Made] = ()

    @property
    def layers(self) -> dict[str, tuple[list[Selection], Callable[[], Iterator[Piece]]]]:
        """Classes and polygons of each layer of a GeoPackage, by its name."""
        if self.single_layer or not self.selections:
            return {SINGLE_LAYER: (list(self.selections), partial(self.pieces, None))}
        return {one.name: ([one], partial(self.pieces, one.name)) for one in self.selections}

    def whole(self) -> gpd.GeoDataFrame:
        """All polygons at once."""
        return pd.concat((piece.frame for piece in self.pieces(None)), ignore_index=True)


def _in_one_piece(polygons: gpd.GeoDataFrame) -> Pieces:
    return lambda name: iter([Piece.of_frame(polygons if name is None else polygons[polygons["class_name"] == name])])


def write_polygons(
    polygons: gpd.GeoDataFrame,
    path: str | Path,
    *,
    selections: Sequence[Selection] | None = None,
    single_layer: bool = False,
    overwrite: bool = False,
    runs: Sequence[Made] = (),
) -> None:
    """Write polygons to GeoPackage, GeoParquet, FlatGeobuf or GeoJSON.

    Args:
        polygons: columns class_id and class_name, others as they are.
        path: the file; its suffix tells the format.
        selections: classes in the order of layers and with their colors; a layer is written for each, polygons or
            none. None takes those that the polygons are of.
        single_layer: in a GeoPackage, all classes in one layer; other formats have but one.
        overwrite: an existing file may be replaced.
        runs: that made them, for the record in the file.

    Raises:
        InputError: the format is not known, the file exists, or it does not fit the polygons.
        GeosegError: writing failed; nothing is left behind, and an old file is as it was.
    """
    path = Path(path)
    check_vector_output(path, overwrite=overwrite)
    check_crs_fits(path, polygons.crs)
    chosen = _selections_of(polygons) if selections is None else tuple(selections)
    write_content(Content(_in_one_piece(polygons), polygons.crs, chosen, single_layer, runs=runs), path)


def write_content(content: Content, path: Path, folder: Path | None = None) -> None:
    """Write a file in place of the one that may be there; see `write_polygons`.

    Args:
        content: what to write.
        path: the file.
        folder: where it is until it is whole; None for beside it.
    """
    with published(path, folder) as temporary:
        match FORMATS[path.suffix.lower()]:
            case "GPKG":
                write_geopackage(content, temporary)
            case "Parquet":
                write_parquet(content.whole(), temporary, content.runs)
            case "FlatGeobuf":
                _write_layer(content, content.pieces(None), temporary, "FlatGeobuf", SINGLE_LAYER)
            case _:
                _write_geojson(content, temporary)


def write_parquet(polygons: gpd.GeoDataFrame, path: Path, runs: Sequence[Made] = ()) -> None:
    """GeoParquet 1.1 with the covering column bbox, by which readers skip what is elsewhere."""
    table = polygons.copy(deep=False)
    table.attrs = attributes(runs)
    table.to_parquet(path, index=False, compression="zstd", write_covering_bbox=True, schema_version="1.1.0")


def write_geopackage(content: Content, path: Path) -> None:
    """Write all layers of a GeoPackage that is not there yet, or add their rows to those that it has."""
    layers = content.layers
    check_layer_names(list(layers))
    there = set(pyogrio.list_layers(path)[:, 0]) if path.exists() else set()
    for name, (_, pieces) in layers.items():
        _write_layer(content, pieces(), path, "GPKG", name, append=name in there, GEOMETRY_NAME=GEOMETRY_COLUMN)
    new = {name: members for name, (members, _) in layers.items() if name not in there}
    if new and content.selections:
        styles, append = _styles(new), _STYLES_TABLE in there
        pyogrio.write_dataframe(
            styles,
            path,
            layer=_STYLES_TABLE,
            driver="GPKG",
            append=append,
            layer_options={"FID": "id", "DATETIME_PRECISION": "MILLISECOND"},
        )


def _write_geojson(content: Content, path: Path) -> None:
    crs = content.crs
    if crs is not None and not crs.equals("OGC:CRS84", ignore_axis_order=True):
        _log.warning("GeoJSON is in longitude and latitude (WGS 84): reprojected from %s.", crs.name)
    # The driver reprojects, turns rings and cuts at the antimeridian; 8 decimals are 1 mm.
    _write_layer(content, content.pieces(None), path, "GeoJSON", SINGLE_LAYER, RFC7946="YES", COORDINATE_PRECISION="8")


def _write_layer(
    content: Content,
    pieces: Iterator[Piece],
    path: Path,
    driver: str,
    layer: str,
    *,
    append: bool = False,
    **options: str,
) -> None:
    with without_crs_is_fine():
        pyogrio.write_arrow(
            _stream(pieces),
            path,
            layer=layer,
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type=content.geometry_type,
            crs=_name_of(content.crs),
            append=append,
            layer_options={**options, **layer_options(driver, content.runs)},
            **writing_options(driver, content.runs),
        )


def _stream(pieces: Iterator[Piece]) -> pa.RecordBatchReader:
    """The pieces one after the other, so that one is there at a time."""
    first = next(pieces).table
    tables = chain([first], (piece.table.cast(first.schema) for piece in pieces))
    return pa.RecordBatchReader.from_batches(first.schema, (batch for table in tables for batch in table.to_batches()))


def _name_of(crs: pyproj.CRS | None) -> str | None:
    if crs is None:
        return None
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt("WKT1_GDAL"))


@contextmanager
def without_crs_is_fine() -> Iterator[None]:
    """No warning for what comes from a raster without CRS."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
        yield


def _styles(layers: dict[str, list[Selection]]) -> pd.DataFrame:
    """The rows of `layer_styles`, as QGIS writes and looks for them: empty catalog and schema, one default each."""
    return pd.DataFrame(
        {
            "f_table_catalog": "",
            "f_table_schema": "",
            "f_table_name": name,
            "f_geometry_column": GEOMETRY_COLUMN,
            "styleName": name,
            "styleQML": to_qml(members),
            "styleSLD": to_sld(name, members),
            "useAsDefault": True,
            "description": "Legend colors",
            "owner": "geoseg",
            "ui": None,
            "update_time": pd.Timestamp(_FIXED_DATE),
        }
        for name, members in layers.items()
    ).astype({"ui": object})


def _selections_of(polygons: gpd.GeoDataFrame) -> tuple[Selection, ...]:
    found = polygons[["class_id", "class_name"]].drop_duplicates().sort_values("class_id")
    pairs = zip(found["class_id"].tolist(), found["class_name"].tolist(), strict=True)
    return tuple(Selection(i, str(name), generic_selection(i).color, (i,)) for i, name in pairs)


def check_layer_names(names: Sequence[str]) -> None:
    folded = [name.casefold() for name in names]
    for name, key in zip(names, folded, strict=True):
        if folded.count(key) > 1 or key.startswith(_RESERVED):
            raise InputError(
                f"A GeoPackage cannot have a layer named {name!r} here: the name is reserved, or differs from another "
                "only in case; write all classes into a single layer, or rename the class."
            )


@contextmanager
def published(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """A name to write to, in a folder of the same file system; moved to `path`, synced, if all went well."""
    temporary = (folder or path.parent) / f".{uuid.uuid4().hex}{path.suffix.lower()}"
    try:
        with _gdal_settings():
            yield temporary
        _remove_leftovers(path)  # a journal of the replaced file would be rolled back into the new one
        publish_file(temporary, path)
    except (OSError, RuntimeError) as error:  # pyogrio's errors are RuntimeErrors
        if isinstance(error, GeosegError):
            raise
        raise writing_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
        _remove_leftovers(temporary)


def writing_error(path: Path, cause: Exception) -> GeosegError:
    """The error to raise where `cause` stopped a file of polygons from being written."""
    return GeosegError(
        f"Writing {path} failed, nothing was changed: {cause}. Check the free space of its disk, and run the same "
        "command again."
    )


def _remove_leftovers(path: Path) -> None:
    for ending in _SQLITE_LEFTOVERS:
        path.with_name(path.name + ending).unlink(missing_ok=True)


@contextmanager
def _gdal_settings() -> Iterator[None]:
    before = {name: pyogrio.get_gdal_config_option(name) for name in _SETTINGS}
    pyogrio.set_gdal_config_options(_SETTINGS)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)
