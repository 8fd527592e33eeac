"""Add another date or scene to a GeoPackage: to a copy of it, which takes its place when it is whole."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pyogrio
import pyproj
from pyogrio.errors import DataSourceError

from geoseg.errors import GeosegError, InputError
from geoseg.vector.export import Content, check_layer_names, published, write_geopackage
from geoseg.vector.origin import COLUMNS, Origin

_TYPES = {"int32": "integer", "int64": "integer", "float64": "real", "object": "text"}
_SQL = {"date": "DATE", "text": "TEXT"}


def check_append(content: Content, path: Path, origin: Origin, *, replace: bool) -> None:
    """Refuse what could not be added, before any work is done.

    Args:
        content: the layers that will get polygons, with their columns; there need not be any polygons yet.
        path: a GeoPackage.
        origin: of the polygons.
        replace: polygons of the same origin may be replaced.

    Raises:
        InputError: with the remedy.
    """
    if path.suffix.lower() != ".gpkg":
        raise InputError(f"{path}: only a GeoPackage (.gpkg) takes more polygons; write another file, or a .gpkg.")
    check_layer_names(list(content.layers))
    there = _layers_of(path) if path.exists() else []
    for layer in there:
        if layer in content.layers:
            _check_crs(path, layer, content.crs)
            _check_columns(path, layer, content)
            if not replace and _count(path, layer, origin):
                raise InputError(
                    f"Layer {layer!r} of {path} holds polygons of {origin} already; give --overwrite to replace them, "
                    "or --date to tell another date."
                )


def _check_crs(path: Path, layer: str, crs: pyproj.CRS | None) -> None:
    found = pyogrio.read_info(path, layer=layer)["crs"]
    theirs = None if found is None else pyproj.CRS.from_user_input(found)
    if theirs != crs:
        ours, other = ("no CRS" if one is None else one.to_string() for one in (crs, theirs))
        raise InputError(
            f"The polygons are in {ours}, layer {layer!r} of {path} in {other}; write them to another file, or warp "
            "the class raster first (gdalwarp -r near -t_srs ...)."
        )


def append_content(content: Content, path: Path, origin: Origin, folder: Path) -> None:
    """Add polygons to a GeoPackage, new layers and their styles included; those of the same origin are replaced.

    Args:
        content: what to add.
        path: the file.
        origin: of the polygons.
        folder: where the copy is until it is whole.

    Raises:
        InputError: a layer has other columns.
        GeosegError: writing failed; the file is as it was.
    """
    with published(path, folder) as temporary:
        if path.exists():
            _copy(path, temporary)
            there = _layers_of(path)
            for name in set(content.layers).intersection(there):
                _check_columns(path, name, content)  # again: without a legend the layers were not known before
                _add_columns(temporary, name, content)
                _delete(temporary, name, origin)
        write_geopackage(content, temporary)


def _copy(path: Path, temporary: Path) -> None:
    """Copy a database with what other programs have written but not yet moved from its log into the file."""
    try:
        with closing(sqlite3.connect(path)) as database, closing(sqlite3.connect(temporary)) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise GeosegError(
            f"{path} cannot be copied ({error}): close the programs that have it open, and run the same command again."
        ) from error


def _layers_of(path: Path) -> list[str]:
    try:
        return [str(name) for name in pyogrio.list_layers(path)[:, 0]]
    except DataSourceError as error:
        raise InputError(f"{path} cannot be read as a GeoPackage: {error}") from error


def _check_columns(path: Path, layer: str, content: Content) -> None:
    theirs, ours = _columns(path, layer, content)
    kind = pyogrio.read_info(path, layer=layer)["geometry_type"]
    addable = {name for name in COLUMNS if name not in theirs}
    different = sorted(name for name in {*theirs, *ours} - addable if theirs.get(name) != ours.get(name))
    if different or kind != content.geometry_type:
        what = ", ".join(different) or f"geometry ({kind})"
        raise InputError(
            f"Layer {layer!r} of {path} has other columns: {what} differ; vectorize with the options that it was made "
            "with (--confidence, --stats, --date, --connectivity), or write another file."
        )


def _add_columns(path: Path, layer: str, content: Content) -> None:
    """Columns of the origin that the layer lacks, as that of a date; of the rows that are there it is not known."""
    theirs, ours = _columns(path, layer, content)
    try:
        with closing(sqlite3.connect(path)) as database, database:
            for name in COLUMNS:
                if name in ours and name not in theirs:
                    database.execute(f"ALTER TABLE {_quoted(layer)} ADD COLUMN {_quoted(name)} {_SQL[ours[name]]}")
    except sqlite3.Error as error:
        raise GeosegError(f"Adding columns to {path} failed, nothing was changed: {error}") from error


def _columns(path: Path, layer: str, content: Content) -> tuple[dict[str, str], dict[str, str]]:
    """Kinds of the columns that a layer has, and of those that are to be added to it, by name."""
    found = pyogrio.read_info(path, layer=layer)
    theirs = {str(name): _kind(str(dtype)) for name, dtype in zip(found["fields"], found["dtypes"], strict=True)}
    columns = next(content.pieces(None)).columns
    return theirs, {str(name): _kind_of(column) for name, column in columns.items()}


def _kind(dtype: str) -> str:
    return _TYPES.get(dtype, "date" if dtype.startswith("datetime") else dtype)


def _kind_of(column: pd.Series) -> str:
    kind = str(column.dtype)
    return {"date32[day][pyarrow]": "date", "string[pyarrow]": "text", "str": "text"}.get(kind, _kind(kind))


def _count(path: Path, layer: str, origin: Origin) -> int:
    where, values = _condition(path, layer, origin)
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute(f"SELECT COUNT(*) FROM {_quoted(layer)} WHERE {where}", values).fetchone()[0])


def _delete(path: Path, layer: str, origin: Origin) -> None:
    """Delete rows; the file's own triggers keep its spatial index and its count of rows right."""
    where, values = _condition(path, layer, origin)
    try:
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(f"DELETE FROM {_quoted(layer)} WHERE {where}", values)
    except sqlite3.Error as error:
        raise GeosegError(f"Replacing polygons in {path} failed, nothing was changed: {error}") from error


def _condition(path: Path, layer: str, origin: Origin) -> tuple[str, list[str]]:
    """Rows of the same origin: a column that is not there, or empty, is like one that is not known."""
    fields = set(pyogrio.read_info(path, layer=layer)["fields"])
    parts, values = [], []
    for name in COLUMNS:
        value = origin.columns.get(name)
        if name in fields:
            parts.append(f"{_quoted(name)} IS ?")
            values.append(None if value is None else str(value))
        elif value is not None:
            parts.append("0")
    return " AND ".join(parts) or "1", values  # type: ignore[return-value]


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
