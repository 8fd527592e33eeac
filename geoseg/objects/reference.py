"""Reference objects on the grid of a raster of ids: polygons, the parts of a class raster, or another raster of ids."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
from affine import Affine
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import Legend, LegendClass
from geoseg.objects.id_raster import read_table, table_path
from geoseg.objects.paint import BLOCK, NOTHING, Ids, OutlinePainter
from geoseg.objects.panoptic import VOID
from geoseg.objects.scores import UNLABELLED, Segments
from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.handles import reading
from geoseg.raster.label_codes import OTHER, Meaning, code_of, unknown_values
from geoseg.raster.label_polygons import COLUMNS, Layer, class_text, find_layer
from geoseg.raster.labels import LabelCodes, LabelOptions, open_labels
from geoseg.raster.landcover import read_legend
from geoseg.vector.blocks import BlockPixels, Blocks, trace_blocks
from geoseg.vector.join import join
from geoseg.vector.measure import Ground
from geoseg.vector.rings import build_polygons
from geoseg.vector.trace import BACKGROUND

log = logging.getLogger(__name__)
GREY = "#808080"
ReadCodes = Callable[[Window], NDArray[np.uint8]]  # label codes (height, width) of a window, those of classes first


class Side(Protocol):
    """Objects of one side of a comparison.

    Attributes:
        segments: their classes and scores; the one at place k has id k + 1.
    """

    @property
    def segments(self) -> Segments: ...

    def paint(self, window: Window) -> Ids:
        """Ids (height, width) of a window: 0 where there is no object, -1 where nothing is known."""


@dataclass(frozen=True)
class IdRaster:
    """A raster of ids with its table.

    Attributes:
        facts: of the raster.
        table: one row for each id, by id.
        nodata: id that means that nothing is known; None where there is none.
        hidden: ids of objects whose class is ignored: nothing is known there either.
    """

    facts: FileFacts
    table: pd.DataFrame
    nodata: int | None
    hidden: tuple[int, ...] = ()

    @classmethod
    def of(cls, path: Path) -> IdRaster:
        """Open both.

        Raises:
            InputError: there is no raster of ids, or no table beside it.
        """
        facts = look_at(path)
        if not _is_of_ids(facts):
            kind = np.dtype(facts.bands[0].dtype)
            raise InputError(
                f"{path} has {len(facts.bands)} band{'s' * (len(facts.bands) > 1)} of {kind}; ids are one band of "
                "uint32: give the output of geoseg panoptic, or of geoseg instances --raster."
            )
        table = read_table(path).sort_values("id", ignore_index=True)
        twice = table["id"][table["id"].duplicated()]
        if len(twice):
            raise InputError(f"{table_path(path)} has id {twice.iloc[0]} twice; a table of ids has one row for each.")
        return cls(facts, table, VOID if facts.bands[0].nodata == VOID else None)

    @property
    def ground(self) -> Ground:
        crs = self.facts.crs
        return Ground(self.facts.shape, self.facts.transform, None if crs is None else gpd.GeoSeries(crs=crs).crs)

    @property
    def is_panoptic(self) -> bool:
        return self.nodata is not None

    @property
    def segments(self) -> Segments:
        score = np.ones(len(self.table))
        if "score" in self.table:
            score = self.table["score"].fillna(0.0).to_numpy(np.float64)
        return Segments(self.table["class_id"].to_numpy(np.int64), score)

    @property
    def legend(self) -> Legend:
        """Of the model that made them, or else of the classes in the table."""
        found = read_legend(self.facts.path)
        named = dict(zip(self.table["class_id"].tolist(), self.table["class_name"].tolist(), strict=True))
        if named.items() <= {entry.id: entry.name for entry in found.classes}.items():
            return found
        return Legend(classes=tuple(LegendClass(id=i, name=name, color=GREY) for i, name in sorted(named.items())))

    @property
    def things(self) -> set[int]:
        """Class ids that objects are of: those that were looked for, found or not."""
        with reading(self.facts.path, Window(0, 0, 1, 1)) as raster:
            told = raster.tags().get("GEOSEG_OBJECTS")
        if told is not None:
            return {selection.id for selection in self.legend.select(json.loads(told)["classes"])}
        is_thing = self.table["is_thing"] if "is_thing" in self.table else np.ones(len(self.table), np.bool_)
        return set(self.table["class_id"][is_thing].tolist())

    def paint(self, window: Window) -> Ids:
        at = RasterioWindow(window.col, window.row, window.width, window.height)
        with reading(self.facts.path, window) as raster:
            values = raster.read(1, window=at).astype(np.int64)
        known = self.table["id"].to_numpy(np.int64)
        place = np.searchsorted(known, values)
        inside = place < known.size
        inside[inside] = known[place[inside]] == values[inside]
        ids = np.where(inside, place + 1, NOTHING).astype(np.int32)
        hidden = (values == self.nodata) | np.isin(values, self.hidden)
        strange = values[~inside & ~hidden & (values != NOTHING)]
        if strange.size:
            raise InputError(
                f"{self.facts.path} has id {strange[0]}, which {table_path(Path(self.facts.path)).name} lacks; give "
                "raster and table of one run."
            )
        ids[hidden] = UNLABELLED
        return ids


def _is_of_ids(facts: FileFacts) -> bool:
    kind = np.dtype(facts.bands[0].dtype)
    return len(facts.bands) == 1 and kind.kind in "ui" and kind.itemsize >= 4


@dataclass(frozen=True)
class Parts:
    """Labels of a class raster: things are its 4-connected parts, stuff is one segment for each class.

    Attributes:
        labels: on the grid.
        painter: of the parts.
        segments: parts, then stuff.
        stuff: (label codes,) id of a class of stuff; 0 for other codes, -1 for groups, which tell no class.
    """

    labels: ReadCodes
    painter: OutlinePainter
    segments: Segments
    stuff: Ids

    @classmethod
    def of(
        cls, labels: ReadCodes, legend: Legend, shape: tuple[int, int], *, things: set[int], stuff: set[int]
    ) -> Parts:
        """Trace the parts of labels on a grid of rows and columns, block by block.

        Args:
            labels: codes of windows.
            legend: of the codes.
            shape: rows and columns.
            things: ids of classes whose parts are objects.
            stuff: ids of classes that are one segment each; of the others nothing is there.
        """
        thing = np.isin(legend.ids, list(things))

        def read(window: Window) -> BlockPixels:
            codes = labels(window)
            known = codes < len(legend.ids)
            is_thing = known & np.append(thing, False)[np.where(known, codes, len(legend.ids))]
            return BlockPixels(np.where(is_thing, codes.astype(np.int32), np.int32(BACKGROUND)))

        coverage = join(trace_blocks(read, Blocks.regular(shape, BLOCK)))
        painter = OutlinePainter(build_polygons(coverage, Affine.identity()), Affine.identity())
        of_code = np.full(256, UNLABELLED, np.int32)
        of_code[: len(legend.ids)] = NOTHING
        class_ids = [legend.ids[code] for code in coverage.components.code.tolist()]
        for code, class_id in enumerate(legend.ids):
            if class_id in stuff:
                class_ids.append(class_id)
                of_code[code] = len(class_ids)
        return cls(labels, painter, Segments(np.array(class_ids, np.int64), np.ones(len(class_ids))), of_code)

    def paint(self, window: Window) -> Ids:
        stuff, things = self.stuff[self.labels(window)], self.painter(window)
        return np.where(things == NOTHING, stuff, things)


@dataclass(frozen=True)
class Footprints:
    """Polygons, each an object; between them there is none.

    Attributes:
        painter: of those that have a class.
        hidden: of those whose class is ignored: nothing is known there.
        segments: of those that have a class.
    """

    painter: OutlinePainter
    hidden: OutlinePainter
    segments: Segments

    @classmethod
    def of(cls, layer: Layer, legend: Legend, ground: Ground, *, things: set[int], options: LabelOptions) -> Footprints:
        """Read all of them.

        Raises:
            InputError: the file cannot be used, or a class is not known.
        """
        frame = _on_ground(layer, ground)
        class_ids = _classes(layer, frame, _with_other(legend, options), things, options)
        polygons = frame.geometry.to_numpy()
        known = np.isin(class_ids, legend.ids)
        if not known.any():
            raise InputError(f"None of the {len(frame)} polygons of {layer.path} is of a class that counts.")
        shown, hidden = (
            OutlinePainter(polygons[chosen], ground.transform, on_edges=False)
            for chosen in (known, class_ids == UNLABELLED)
        )
        return cls(shown, hidden, Segments(class_ids[known], np.ones(int(known.sum()))))

    def paint(self, window: Window) -> Ids:
        ids = self.painter(window)
        return np.where((ids == NOTHING) & (self.hidden(window) > 0), np.int32(UNLABELLED), ids)


def _on_ground(layer: Layer, ground: Ground) -> gpd.GeoDataFrame:
    """The polygons of a layer in the CRS of the grid."""
    read = gpd.read_parquet if layer.name is None else partial(gpd.read_file, layer=layer.name)
    try:
        frame = read(layer.path)
    except (OSError, ValueError, DataSourceError, DataLayerError) as error:
        raise InputError(f"{layer.path} cannot be read as polygons: {str(error).splitlines()[0]}") from error
    frame = frame[frame.geom_type.isin(["Polygon", "MultiPolygon"])]
    if frame.empty:
        raise InputError(f"{layer.path} holds no polygon; reference objects are polygons, or a class raster.")
    if frame.crs is None or ground.crs is None:
        if (frame.crs is None) != (ground.crs is None):
            raise InputError(f"Of {layer.path} and the raster of ids one has a CRS and one has none; give both theirs.")
        return frame
    return frame.to_crs(ground.crs)


def _classes(
    layer: Layer, frame: gpd.GeoDataFrame, legend: Legend, things: set[int], options: LabelOptions
) -> NDArray[np.int64]:
    """(polygons,) class ids, -1 where ignored or where a group tells no class."""
    stated = (options.column,) if options.column else COLUMNS
    column = next((name for name in stated if name in frame), None)
    if column is None and options.column is None and len(things) == 1:
        return np.full(len(frame), next(iter(things)), np.int64)
    if column is None:
        raise InputError(f"{layer.path} has no column {' or '.join(stated)}; say which holds the class with --column.")
    codes, values = LabelCodes.of(legend), frame[column]
    for name in (options.meanings or {}).values():
        codes.code(name)  # refuses a name that there is not, whether a polygon has its value or not
    is_text = any(isinstance(value, str) for value in values)
    meanings: dict[str, int | None] = {}
    for value in map(class_text, values.dropna().unique()):
        meanings[value] = code_of(Meaning(value, value if is_text else None), codes, options)
    strange = [value for value, code in meanings.items() if code is None]
    if strange:
        raise unknown_values(layer.path, strange, codes)
    if values.isna().any():
        told = "%d of %d polygons of %s have no class and are ignored: what is found there counts neither way."
        log.warning(told, int(values.isna().sum()), len(values), layer.path)
    ids = dict(enumerate(legend.ids))  # codes of groups, and of what is ignored, are not among them
    known = {value: ids.get(code, UNLABELLED) for value, code in meanings.items() if code is not None}
    return np.array([known.get(class_text(value), UNLABELLED) for value in values], np.int64)


def _with_other(legend: Legend, options: LabelOptions) -> Legend:
    """With a class `other` where a label value means that: known to be none of the classes."""
    if not options.tells_other or OTHER in legend.names:
        return legend
    free = next(number for number in range(1, 256) if number not in (*legend.ids, legend.nodata))
    return Legend(classes=(*legend.classes, LegendClass(id=free, name=OTHER, color=GREY)), nodata=legend.nodata)


def _in_legend(raster: IdRaster, legend: Legend, options: LabelOptions) -> IdRaster:
    """Objects of another raster with the class ids that a legend has for the names in their table.

    Raises:
        InputError: it has none for one of them.
    """
    meanings, ids = options.meanings or {}, {}
    for name in dict.fromkeys(raster.table["class_name"].tolist()):
        known = meanings.get(name, name)
        if name in options.ignore:
            ids[name] = UNLABELLED
        elif known in legend.names or known in legend.groups:
            ids[name] = legend.select([known])[0].id
        else:
            raise unknown_values(str(raster.facts.path), [name], LabelCodes.of(legend))
    class_id = raster.table["class_name"].map(ids)
    known = class_id != UNLABELLED
    hidden = tuple(raster.table["id"][~known].tolist())
    table = raster.table.assign(class_id=class_id)[known].reset_index(drop=True)
    return replace(raster, table=table, hidden=hidden)


def open_reference(path: str | os.PathLike[str], predicted: IdRaster, options: LabelOptions) -> Side:
    """Reference objects on the grid of predicted ones.

    Raises:
        InputError: they cannot be used, or lie elsewhere.
    """
    legend, ground, facts = predicted.legend, predicted.ground, predicted.facts
    layer = find_layer(path)
    if layer is not None:
        return Footprints.of(layer, legend, ground, things=predicted.things, options=options)
    if table_path(Path(path)).is_file() and _is_of_ids(look_at(path)):
        other = IdRaster.of(Path(path))
        if (other.facts.shape, other.facts.transform, other.facts.crs) != (facts.shape, facts.transform, facts.crs):
            raise InputError(f"{path} lies on another grid than {facts.path}; ids cannot be resampled.")
        return _in_legend(other, legend, options)
    told = _with_other(legend, options)
    labels = open_labels(path, told, shape=facts.shape, transform=facts.transform, crs=facts.crs, options=options)
    stuff = set(legend.ids) - predicted.things if predicted.is_panoptic else set()
    return Parts.of(labels, told, ground.shape, things=predicted.things, stuff=stuff)
