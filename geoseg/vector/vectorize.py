"""From a class map to polygons, for arrays and for files: read blocks, trace, join, build the table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import geopandas as gpd
import xarray as xr
from pydantic import ValidationError

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.raster.landcover import read_legend
from geoseg.vector.blocks import BlockPixels, Progress, trace_blocks
from geoseg.vector.clean import component_areas, drop, fill_holes
from geoseg.vector.coding import REST, Coding
from geoseg.vector.export import check_crs_fits, check_vector_output, write_polygons
from geoseg.vector.join import join
from geoseg.vector.levels import to_levels
from geoseg.vector.shape import Shaping, check_tolerance, shape
from geoseg.vector.sources import ArraySource, FileSource, Source
from geoseg.vector.split import Splits, find_splits
from geoseg.vector.table import PolygonTable, check_min_area, polygon_table
from geoseg.vector.trace import BACKGROUND

_log = logging.getLogger(__name__)

BLOCK = 2048
"""Rows and columns of a block: about 650 MB while it is traced at worst, in a map of pure noise."""


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """What to make of a class raster.

    Attributes:
        classes: names of classes and groups, which are dissolved; None for all.
        legend: None takes the raster's own.
        confidence: raster on the same grid, for the mean of each polygon.
        min_area_m2: smaller polygons are left out.
        single_layer: all classes in one layer, where the format has layers.
        overwrite: an existing output may be replaced.
        block: rows and columns read at once; the result does not depend on it.
        fill_holes_m2: smaller parts become part of the neighbour with the longest shared border; nodata stays.
        simplify_m: tolerance of simplifying, in metres; neighbours keep their shared border.
        smooth: names of classes and groups whose borders lose their staircases.
        regularize: names of classes and groups that get straight walls and right angles, as buildings have.
        split: names of classes and groups of which touching objects are polygons of their own.

    All shaping follows joining, filling and leaving out, so that it does not depend on blocks either.
    """

    classes: tuple[str, ...] | None = None
    legend: Legend | None = None
    confidence: str | Path | None = None
    min_area_m2: float = 0.0
    single_layer: bool = False
    overwrite: bool = False
    block: int = BLOCK
    fill_holes_m2: float = 0.0
    simplify_m: float = 0.0
    smooth: tuple[str, ...] = ()
    regularize: tuple[str, ...] = ()
    split: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VectorSummary:
    """What was written.

    Attributes:
        path: the file.
        counts: polygons of each class, by name.
        areas: sum of their areas, by name, in `unit`.
        unit: "m2", or "px" where there is no CRS.
        regularized: polygons that were to get straight walls.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    path: Path
    counts: dict[str, int]
    areas: dict[str, float]
    unit: str
    regularized: int = 0
    fallbacks: int = 0


def vectorize(
    class_map: xr.DataArray,
    *,
    classes: Iterable[str] | None = None,
    legend: Legend | None = None,
    confidence: xr.DataArray | None = None,
    min_area_m2: float = 0.0,
    fill_holes_m2: float = 0.0,
    simplify_m: float = 0.0,
    smooth: Iterable[str] = (),
    regularize: Iterable[str] = (),
    split: Iterable[str] = (),
    block: int = BLOCK,
) -> gpd.GeoDataFrame:
    """Polygons of a class map: 4-connected areas of one class, or of one group of classes.

    Blocks are computed one at a time, together with their confidence. The result does not depend on them.

    Args:
        class_map: (y, x) class ids, any integer dtype; lazy or not.
        classes: names of classes and groups; the classes of a group are dissolved. None for every class.
        legend: None takes the one in `class_map.attrs["legend"]` (JSON); without one, classes are called class_<id>.
        confidence: (y, x) on the same grid, uint8 0..200 with 255 for unknown, or floating point 0..1.
        min_area_m2: smaller polygons are left out, after joining and before their borders are shaped.
        fill_holes_m2: smaller parts become part of the neighbour with the longest shared border; nodata stays.
        simplify_m: tolerance of simplifying, in metres; neighbours keep their shared border.
        smooth: names of classes and groups whose borders lose their staircases.
        regularize: names of classes and groups that get straight walls and right angles, as buildings have; those that
            fit poorly are simplified only.
        split: names of classes and groups of which touching objects, told by a neck in shape or confidence, are
            polygons of their own; see `geoseg.vector.split`. A lazy array is then computed whole.
        block: rows and columns computed at once; whole chunks of a lazy array.

    Returns:
        One row per polygon: class_id, class_name, area_m2, perimeter_m (area_px where there is no CRS), confidence
        (mean) where given, geometry in the CRS of the class map.
    """
    legend = _legend_of(class_map) if legend is None else legend
    options = VectorOptions(
        None if classes is None else tuple(classes),
        legend=legend,
        min_area_m2=min_area_m2,
        block=block,
        fill_holes_m2=fill_holes_m2,
        simplify_m=simplify_m,
        smooth=tuple(smooth),
        regularize=tuple(regularize),
        split=tuple(split),
    )
    source = ArraySource.of(class_map, confidence)
    return _polygons(source.computed() if options.split else source, options).polygons


def vectorize_raster(
    path: str | Path, output: str | Path, options: VectorOptions | None = None, progress: Progress | None = None
) -> VectorSummary:
    """Polygons of a class raster, written to a vector file that appears whole or not at all.

    Args:
        path: the class raster, one band of integers.
        output: .gpkg, .parquet, .fgb or .geojson.
        options: see VectorOptions.
        progress: called after each block with the pixels done and the pixels of the raster.

    Raises:
        InputError: what was given cannot be used.
        GeosegError: reading or writing failed.
    """
    options = options or VectorOptions()
    inputs = [path] if options.confidence is None else [path, options.confidence]
    check_vector_output(output, overwrite=options.overwrite, inputs=inputs)
    check_crs_fits(output, FileSource.of(path, options.confidence).ground.crs)
    table = read_polygons(path, options, progress)
    write_polygons(
        table.polygons,
        output,
        selections=table.selections,
        single_layer=options.single_layer,
        overwrite=options.overwrite,
    )
    return _summary(Path(output), table)


def read_polygons(path: str | Path, options: VectorOptions, progress: Progress | None = None) -> PolygonTable:
    """The polygons of a class raster; what `options` say of the output plays no part."""
    source = FileSource.of(path, options.confidence)
    legend = read_legend(path) if options.legend is None else options.legend
    return _polygons(source, replace(options, legend=legend), progress)


def _polygons(source: Source, options: VectorOptions, progress: Progress | None = None) -> PolygonTable:
    ground, confidence_one = source.ground, source.confidence_one
    check_min_area(options.min_area_m2, ground)
    check_min_area(options.fill_holes_m2, ground)
    check_tolerance(options.simplify_m, ground)
    rest = REST if options.fill_holes_m2 else BACKGROUND
    coding = Coding.of(options.legend, options.classes, source.nodata, rest)
    smoothed, straightened = (coding.codes_of(names, options.legend) for names in (options.smooth, options.regularize))
    shaping = Shaping(options.simplify_m, smoothed, straightened)

    def read(window: Window) -> BlockPixels:
        pixels = source.read(window)
        codes = coding.encode(pixels.values)
        if pixels.valid is not None:
            codes[~pixels.valid] = BACKGROUND
        if pixels.confidence is None or confidence_one is None:
            return BlockPixels(codes)
        return BlockPixels(codes, pixels.confidence, to_levels(pixels.confidence, confidence_one))

    coverage, splits = join(trace_blocks(read, source.blocks(options.block), progress)), None
    if options.split:
        codes = coding.codes_of(options.split, options.legend)
        splits = find_splits(coverage, codes, ground.shape[1], read, confidence_one=source.confidence_one)
        if splits.found:
            coverage = join(trace_blocks(partial(_apart, read, splits), source.blocks(options.block)))
    if coding.unknown:
        values = ", ".join(str(value) for value in sorted(coding.unknown)[:10])
        _log.warning("Values that the legend does not name get no polygons: %s.", values)
    if options.fill_holes_m2:
        coverage = fill_holes(coverage, ground, options.fill_holes_m2)
        coverage = drop(coverage, coverage.components.code == REST)
    if splits is not None:
        coverage = splits.classes(coverage)
    if not shaping.is_nothing:
        coverage = drop(coverage, component_areas(coverage, ground) < options.min_area_m2)
    shaped = None if shaping.is_nothing else shape(coverage, ground, shaping)
    table = polygon_table(
        coverage,
        coding,
        ground,
        confidence_one=source.confidence_one,
        min_area_m2=options.min_area_m2 if shaped is None else 0.0,
        lines=None if shaped is None else shaped.lines,
    )
    return table if shaped is None else table._replace(regularized=shaped.regularized, fallbacks=shaped.fallbacks)


def _apart(read: Callable[[Window], BlockPixels], splits: Splits, window: Window) -> BlockPixels:
    pixels = read(window)
    return pixels._replace(codes=splits.apart(window, pixels.codes))


def _legend_of(class_map: xr.DataArray) -> Legend | None:
    stored = class_map.attrs.get("legend")
    if stored is None or isinstance(stored, Legend):
        return stored
    try:
        return Legend.from_json(stored)
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise InputError(f"The legend in class_map.attrs cannot be read: {what}. Give legend=... instead.") from error


def _summary(path: Path, table: PolygonTable) -> VectorSummary:
    unit = "m2" if "area_m2" in table.polygons else "px"
    names, areas = table.polygons["class_name"], table.polygons[f"area_{unit}"]
    of_class = {selection.name: names == selection.name for selection in table.selections}
    return VectorSummary(
        path=path,
        counts={name: int(rows.sum()) for name, rows in of_class.items()},
        areas={name: float(areas[rows].sum()) for name, rows in of_class.items()},
        unit=unit,
        regularized=table.regularized,
        fallbacks=table.fallbacks,
    )
