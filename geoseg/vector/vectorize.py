"""From a class map to polygons, for arrays and for files: read blocks, trace, join, build the table."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import geopandas as gpd
from pydantic import ValidationError

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.raster.landcover import read_legend
from geoseg.vector.blocks import BlockPixels, Progress, trace_blocks
from geoseg.vector.job import VectorJob
from geoseg.vector.options import BLOCK, VectorOptions
from geoseg.vector.run import VectorRun, VectorSummary
from geoseg.vector.sources import FileSource, Source
from geoseg.vector.table import PolygonTable

if TYPE_CHECKING:
    import xarray as xr


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
    connectivity: Literal[4, 8] = 4,
    block: int = BLOCK,
) -> gpd.GeoDataFrame:
    """Polygons of a class map: connected areas of one class, or of one group of classes.

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
        connectivity: 4 for polygons whose pixels share edges, 8 for multipolygons whose pixels share edges or corners.
        block: rows and columns computed at once; whole chunks of a lazy array.

    Returns:
        One row per polygon: class_id, class_name, area_m2, perimeter_m (area_px where there is no CRS), confidence
        (mean) and confidence_p10 (tenth percentile) where given, geometry in the CRS of the class map.
    """
    from geoseg.vector.arrays import ArraySource  # xarray and dask take half a second to load

    options = VectorOptions(
        None if classes is None else tuple(classes),
        min_area_m2=min_area_m2,
        block=block,
        fill_holes_m2=fill_holes_m2,
        simplify_m=simplify_m,
        smooth=tuple(smooth),
        regularize=tuple(regularize),
        split=tuple(split),
        connectivity=connectivity,
    )
    source = ArraySource.of(class_map, confidence)
    job = job_of(source, options, _legend_of(class_map) if legend is None else legend)
    return _table(source.computed() if options.split else source, job).polygons


def vectorize_raster(
    path: str | Path,
    output: str | Path,
    options: VectorOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> VectorSummary:
    """Polygons of a class raster, written to a vector file that appears whole or not at all.

    A run that is killed goes on from the blocks that were traced, but for its first seconds; the same run again says
    that its output is there.

    Args:
        path: the class raster, one band of integers.
        output: .gpkg, .parquet, .fgb or .geojson.
        options: see VectorOptions.
        overwrite: replace an output that exists, or, where polygons are appended, those of the same origin.
        progress: called after each block with the pixels done and the pixels of the raster.

    Raises:
        InputError: what was given cannot be used.
        GeosegError: reading or writing failed; blocks that were traced are kept.
    """
    run = VectorRun.of_file(path, Path(output), options or VectorOptions())
    run.check(overwrite=overwrite, inputs=[path])
    if (made := run.made) is not None:
        return made
    with run.staged(overwrite=overwrite) as traces:
        return run.write(traces, FileSource.of(path, run.job.options.confidence), progress)


def read_polygons(path: str | Path, options: VectorOptions, progress: Progress | None = None) -> PolygonTable:
    """The polygons of a class raster; what `options` say of the output plays no part."""
    source = FileSource.of(path, options.confidence)
    job = job_of(source, options, read_legend(path) if options.legend is None else options.legend)
    return _table(source, job, progress)


def job_of(source: Source, options: VectorOptions, legend: Legend | None) -> VectorJob:
    """What is to be done with a source."""
    return VectorJob.of(
        source.ground, options, legend=legend, nodata=source.nodata, confidence_one=source.confidence_one
    )


def _table(source: Source, job: VectorJob, progress: Progress | None = None) -> PolygonTable:
    blocks = source.blocks(job.options.block)

    def read(window: Window) -> BlockPixels:
        return job.encode(source.read(window))

    return job.table(trace_blocks(read, blocks, progress), read, lambda other: trace_blocks(other, blocks))


def _legend_of(class_map: xr.DataArray) -> Legend | None:
    stored = class_map.attrs.get("legend")
    if stored is None or isinstance(stored, Legend):
        return stored
    try:
        return Legend.from_json(stored)
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise InputError(f"The legend in class_map.attrs cannot be read: {what}. Give legend=... instead.") from error
