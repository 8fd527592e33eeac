"""Prompts from files: points and boxes of many objects, in any CRS, grouped by an id."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError

from geoseg.errors import InputError
from geoseg.prompts.asked import Asked, Place, check_measured
from geoseg.raster.window_reader import WindowReader

log = logging.getLogger(__name__)
ID, LABEL = "id", "label"
CLASS_COLUMNS = ("class_name", "class")
YES = {"1", "1.0", "true", "positive", "pos", "+", "yes", "foreground"}
NO = {"0", "0.0", "false", "negative", "neg", "-", "no", "background"}
PARQUET = (".parquet", ".geoparquet")

Path_ = str | os.PathLike[str]


@dataclass(frozen=True)
class PromptTable:
    """Objects that are asked for.

    Attributes:
        ids: of each; numbers, or text where those of one of the files are text.
        classes: of each; None where no file has a class column.
        objects: their prompts, in pixels of the scene.
    """

    ids: tuple[Any, ...]
    classes: tuple[str | None, ...] | None
    objects: tuple[Asked, ...]


class _Row(NamedTuple):
    """A row of a file: a point in pixels with its label, or a box."""

    id: Any
    class_name: str | None
    point: tuple[float, float] | None = None
    label: int = 1
    box: NDArray[np.float64] | None = None


class _Rows(NamedTuple):
    """The rows of a file, and which of the columns `id` and `class` it has."""

    rows: list[_Row]
    stated: frozenset[str]


def read_prompts(
    points: Path_ | None, boxes: Path_ | None, reader: WindowReader, *, classes: Sequence[str] | None = None
) -> PromptTable:
    """The objects of a file of points, of a file of boxes, or of both, joined by `id`: 1, 1.0 and "1" are one.

    Args:
        points: points with the columns `id` (those of one object share it; without it each is an object), `label`
            (1 on the object, 0 beside it; without it all are on it) and `class_name`, all of which may be missing.
        boxes: polygons whose bounds count, with the columns `id` and `class_name`, which may be missing.
        reader: of the scene.
        classes: the names that may stand in `class_name`; None for any.

    Raises:
        InputError: a file cannot be read or holds nothing, a prompt lies off the scene or on nodata, a class or a label
            is unknown, or an object has only points beside it.
    """
    place = Place.of(reader)
    read: list[_Rows] = []
    if points is not None:
        read.append(_point_rows(points, place, reader))
    if boxes is not None:
        read.append(_box_rows(boxes, place))
    if not read:
        raise InputError("Nothing was asked for; give points, boxes or a text.")
    if len(read) == 2 and not all("id" in part.stated for part in read):
        raise InputError(f"Points and boxes of one object share an id; give both {points} and {boxes} a column 'id'.")
    read = _alike(read)
    if points is not None and boxes is not None:
        _tell_if_apart(points, boxes, *([row.id for row in part.rows] for part in read))
    groups: dict[Any, list[_Row]] = {}
    for row in chain.from_iterable(part.rows for part in read):
        groups.setdefault(row.id, []).append(row)
    names = tuple(_class_of(key, rows, classes) for key, rows in groups.items())
    has_class = any("class" in part.stated for part in read)
    objects = tuple(_asked(key, rows) for key, rows in groups.items())
    return PromptTable(tuple(groups), names if has_class else None, objects)


def _alike(read: list[_Rows]) -> list[_Rows]:
    """Rows whose ids are text where one of them is."""
    if not any(isinstance(row.id, str) for part in read for row in part.rows):
        return read
    return [part._replace(rows=[row._replace(id=str(row.id)) for row in part.rows]) for part in read]


def _tell_if_apart(points: Path_, boxes: Path_, ids: Sequence[Any], others: Sequence[Any]) -> None:
    """Warn where points and boxes have no id in common, as few mean that."""
    if not set(ids) & set(others):
        told = "No id of %s (%r, ...) is in %s (%r, ...): no box has points. Give a box and its points the same id."
        log.warning(told, points, ids[0], boxes, others[0])


def _point_rows(path: Path_, place: Place, reader: WindowReader) -> _Rows:
    frame = _read(path, place, "points")
    _check_kinds(frame, path, {"Point"}, "points")
    ids, names, stated = _columns(frame, path)
    pixels = place.pixels(frame.geometry.x.to_numpy(), frame.geometry.y.to_numpy(), frame.crs)
    told = [f"Point {number} of {path} (id {key})" for number, key in enumerate(ids, 1)]
    place.check_on_scene(pixels, told)
    check_measured(reader, pixels, told)
    parts = zip(ids, names, pixels.tolist(), _labels(frame, path), strict=True)
    return _Rows([_Row(key, name, (row, col), label) for key, name, (row, col), label in parts], stated)


def _box_rows(path: Path_, place: Place) -> _Rows:
    frame = _read(path, place, "boxes")
    _check_kinds(frame, path, {"Polygon", "MultiPolygon"}, "boxes, as polygons")
    ids, names, stated = _columns(frame, path)
    if len(set(ids)) < len(ids):
        twice = next(key for key in ids if ids.count(key) > 1)
        raise InputError(f"{path} has two boxes with id {twice}; an object has one box.")
    rows = []
    for number, (polygon, key, name) in enumerate(zip(frame.geometry, ids, names, strict=True), 1):
        corners = shapely.get_coordinates(shapely.segmentize(polygon, max(polygon.length / 32, 1e-12)))
        pixels = place.pixels(corners[:, 0], corners[:, 1], frame.crs)
        rows.append(_Row(key, name, box=place.cut(pixels, f"Box {number} of {path} (id {key})")))
    return _Rows(rows, stated)


def _columns(frame: gpd.GeoDataFrame, path: Path_) -> tuple[list[Any], list[str | None], frozenset[str]]:
    """Id and class of each row, and which of the two the file has; else rows are numbered, and without class."""
    column = next((name for name in CLASS_COLUMNS if name in frame), None)
    ids = [_whole(value) for value in frame[ID].tolist()] if ID in frame else list(range(1, len(frame) + 1))
    if ID in frame and frame[ID].isna().any():
        raise InputError(f"{path} has rows without an id; fill in the column 'id', or leave it out.")
    told: list[Any] = frame[column].tolist() if column else [None] * len(frame)
    names = [None if pd.isna(name) else str(name) for name in told]
    return ids, names, frozenset(([ID] if ID in frame else []) + (["class"] if column else []))


def _whole(value: Any) -> Any:
    """An id; 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _read(path: Path_, place: Place, what: str) -> gpd.GeoDataFrame:
    """The rows of a vector file that have a geometry."""
    if not Path(path).exists():
        raise InputError(f"The {what} {path} do not exist.")
    try:
        with warnings.catch_warnings():  # points of one object share what GeoJSON takes for the number of a feature
            warnings.filterwarnings("ignore", "Several features with id", RuntimeWarning)
            frame = gpd.read_parquet(path) if Path(path).suffix in PARQUET else gpd.read_file(path)
    except (DataSourceError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a vector file: {error}.") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise InputError(f"{path} is a table without geometry; {what} are expected.")
    frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)].reset_index(drop=True)
    if not len(frame):
        raise InputError(f"{path} holds no {what}.")
    if (frame.crs is None) != (place.crs is None):
        which, other = (path, "the scene") if frame.crs is None else ("The scene", path)
        raise InputError(f"{which} has no CRS, {other} has one; give both the same (ogr2ogr -a_srs, gdal_edit -a_srs).")
    return frame


def _check_kinds(frame: gpd.GeoDataFrame, path: Path_, kinds: set[str], what: str) -> None:
    others = sorted(set(frame.geom_type.astype(str)) - kinds)
    if others:
        raise InputError(f"{path} holds {others[0]} geometries; {what} are expected.")


def _labels(frame: gpd.GeoDataFrame, path: Path_) -> list[int]:
    """1 on the object, 0 beside it."""
    if LABEL not in frame:
        return [1] * len(frame)
    texts = frame[LABEL].astype(str).str.strip().str.lower().tolist()
    unknown = [text for text in texts if text not in YES | NO]
    if unknown:
        raise InputError(f"{path} has label {unknown[0]!r}; 1 (on the object) and 0 (beside it) are known.")
    return [int(text in YES) for text in texts]


def _class_of(key: Any, rows: Sequence[_Row], classes: Sequence[str] | None) -> str | None:
    """The class of an object; None where no row has one."""
    names = sorted({row.class_name for row in rows if row.class_name is not None})
    unknown = [name for name in names if classes is not None and name not in classes]
    if unknown:
        raise InputError(f"Class {unknown[0]!r} is not among those that may be: {', '.join(classes or ())}.")
    if len(names) > 1:
        raise InputError(f"Object {key} is of class {' and '.join(names)}; an object has one class.")
    return next(iter(names), None)


def _asked(key: Any, rows: Sequence[_Row]) -> Asked:
    """The prompts of the rows of one object."""
    points = [row for row in rows if row.point is not None]
    box = next((row.box for row in rows if row.box is not None), None)
    if box is None and not any(row.label for row in points):
        raise InputError(f"Object {key} has only points beside it (label 0); give it a point on it (label 1) or a box.")
    pixels = np.array([row.point for row in points], dtype=np.float64).reshape(-1, 2)
    return Asked(pixels, np.array([row.label for row in points], dtype=np.int64), box)
