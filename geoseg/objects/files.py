"""File to file: a scene to its objects, as polygons and as a raster of ids."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.objects.id_raster import table_path, write_ids, write_table
from geoseg.objects.outline import OutlineOptions, Outlines, outline, trace
from geoseg.objects.paint import NOTHING
from geoseg.objects.stamp import is_stamped, stamp
from geoseg.raster.cog import Layer, is_current
from geoseg.raster.disk import check_disk_space, check_output, work_folder
from geoseg.raster.georeference import Georef
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import canonical_json, digest_of
from geoseg.vector.export import check_crs_fits, check_vector_output, write_polygons
from geoseg.vector.measure import Ground

if TYPE_CHECKING:  # torch loads where it is needed
    from geoseg.inference.job import Job, Scene
    from geoseg.inference.plan import RunOptions
    from geoseg.models import Model
    from geoseg.objects.find import Search
    from geoseg.objects.paint import Objects

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all


@dataclass
class InstancesSummary:
    """What `instances_file` did.

    Attributes:
        outputs: the files, finished.
        counts: objects of each class, by name; empty where nothing was computed.
        up_to_date: they were there already, made from the same scene, model and options.
        regularized: polygons that were to get straight walls.
        fallbacks: those of them that would have fitted poorly, and were simplified only.
    """

    outputs: list[Path]
    counts: dict[str, int] = field(default_factory=dict)
    up_to_date: bool = False
    regularized: int = 0
    fallbacks: int = 0


def instances_file(
    scene: Scene,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    classes: Sequence[str] | None = None,
    raster: str | os.PathLike[str] | None = None,
    shape: OutlineOptions | None = None,
    least_score: float = 0.5,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> InstancesSummary:
    """Find the objects of a scene, such as its buildings, each a polygon of its own; an interrupted run goes on.

    A land-cover model gives the parts of its classes, split where shape or confidence has a neck; a detector (Mask
    R-CNN, Panoptic FPN) gives masks chip by chip, which are joined to objects.

    Args:
        scene: as for `segment_file`.
        output: polygons, .gpkg, .parquet, .fgb or .geojson; columns id, class_id, class_name, score, area_m2,
            perimeter_m and confidence.
        model: name or path of a bundle, or a loaded one.
        classes: names of the classes whose objects are wanted; None for building, or all that a detector knows.
        raster: also write the ids there, uint32 with 0 for no object, and the table of ids beside it as .parquet.
        shape: smallest area, simplifying, straight walls.
        least_score: a detector's objects below it are left out.
        reading: what the scene's files do not say.
        run: chip, halo, block, device and so on.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the scene, the model, an option or an output cannot be used; nothing was written.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    from geoseg.objects.find import Search

    output, shape, told = Path(output), shape or OutlineOptions(), progress or _silent
    ids = None if raster is None else Path(raster)
    search = Search.of(scene, model, classes, reading=reading, run=run, least_score=least_score)
    job, asked = search.job, {"what": "instances", **_plain(shape)}
    digest = digest_of({**search.parts, "objects": asked})
    outputs = [*([] if ids is None else [ids, table_path(ids)]), output]
    if is_stamped(output, digest) and (ids is None or (is_current(ids, digest) and table_path(ids).is_file())):
        return InstancesSummary(outputs, up_to_date=True)
    ground = ground_of(job.georef)
    shape.check(ground)
    _check_polygons(job, output, ground, overwrite or is_stamped(output, digest))
    if ids is not None:
        _check_ids(job, ids, output, overwrite or is_current(ids, digest))
    with work_folder(output) as folder:
        objects = search.objects(folder, overwrite=overwrite, progress=told)
        traced = trace(objects, ground, min_area_m2=shape.min_area_m2, progress=partial(told, "trace"))
        outlines = outline(traced, ground, shape)
        if ids is not None:
            legend = job.model.card.legend
            layer = Layer("instances", ids, ("object id",), legend, tags=_tags(search, asked), is_of_ids=True)
            write_table(table_path(ids), _without_shapes(outlines), layer.all_tags)
            paint = partial(_unsigned, traced.objects)
            write_ids(
                layer, paint, job.georef, nodata=NOTHING, digest=digest, folder=folder, progress=partial(told, "write")
            )
        write_polygons(outlines.polygons, output, selections=objects.classes, overwrite=True)
        stamp(output, digest)
    counts = _counted(objects, outlines)
    return InstancesSummary(outputs, counts, regularized=outlines.regularized, fallbacks=outlines.fallbacks)


@dataclass
class PanopticSummary:
    """What `panoptic_file` did.

    Attributes:
        outputs: the files, finished.
        counts: objects of each class of things, by name; empty where nothing was computed.
        pixels: of each class, by name; likewise.
        up_to_date: they were there already, made from the same scene, model and options.
    """

    outputs: list[Path]
    counts: dict[str, int] = field(default_factory=dict)
    pixels: dict[str, int] = field(default_factory=dict)
    up_to_date: bool = False


def panoptic_file(
    scene: Scene,
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    things: Sequence[str] | None = None,
    polygons: str | os.PathLike[str] | None = None,
    shape: OutlineOptions | None = None,
    least_score: float = 0.5,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PanopticSummary:
    """Give every pixel of a scene a class, and those of things an object; an interrupted run goes on.

    Args:
        scene: as for `segment_file`.
        output: GeoTIFF of uint32 ids, `class_id << 24 | number`, with 0 for the number of stuff and nodata 4294967295;
            the table of ids is beside it as .parquet.
        model: name or path of a bundle, or a loaded one: a land-cover model, whose parts are split where they have a
            neck, or a Panoptic FPN.
        things: names of the classes that have objects; None for building, or all that a Panoptic FPN knows.
        polygons: also write a coverage of polygons there, .gpkg, .parquet, .fgb or .geojson.
        shape: simplifying, and straight walls of things; the smallest area plays no part.
        least_score: a detector's objects below it are left out.
        reading: what the scene's files do not say.
        run: chip, halo, block, device and so on.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the scene, the model, an option or an output cannot be used; nothing was written.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    from geoseg.objects.find import Search
    from geoseg.objects.panoptic import VOID, Panoptic, tables_of

    output, shape, told = Path(output), shape or OutlineOptions(), progress or _silent
    drawn = None if polygons is None else Path(polygons)
    search = Search.of(scene, model, things, reading=reading, run=run, least_score=least_score, with_stuff=True)
    job, asked = search.job, {"what": "panoptic", **_plain(shape)}
    digest = digest_of({**search.parts, "objects": asked})
    outputs = [*([] if drawn is None else [drawn]), table_path(output), output]
    raster_done = is_current(output, digest) and table_path(output).is_file()
    if raster_done and (drawn is None or is_stamped(drawn, digest)):
        return PanopticSummary(outputs, up_to_date=True)
    ground = ground_of(job.georef)
    shape.check(ground)
    _check_ids(job, output, drawn, overwrite or is_current(output, digest))
    if drawn is not None:
        _check_polygons(job, drawn, ground, overwrite or is_stamped(drawn, digest))
    with work_folder(output) as folder:
        objects = search.objects(folder, overwrite=overwrite, progress=told)
        legend = job.model.card.legend
        panoptic = Panoptic.of(*search.land(folder), objects, legend)
        tables = tables_of(panoptic, shape, partial(told, "trace"))
        if drawn is not None:
            write_polygons(tables.polygons, drawn, selections=legend.select(), overwrite=True)
            stamp(drawn, digest)
        layer = Layer("panoptic", output, ("panoptic id",), legend, tags=_tags(search, asked), is_of_ids=True)
        write_table(table_path(output), tables.ids, layer.all_tags)
        write = partial(told, "write")
        write_ids(layer, panoptic.paint, job.georef, nodata=VOID, digest=digest, folder=folder, progress=write)
    sums = tables.ids.groupby("class_name")[["is_thing", "pixels"]].sum()
    counts = {selection.name: int(sums["is_thing"].get(selection.name, 0)) for selection in objects.classes}
    pixels = {str(name): int(count) for name, count in sums["pixels"].items()}
    return PanopticSummary(outputs, counts, pixels)


def ground_of(georef: Georef) -> Ground:
    """Where the pixels lie, for measuring."""
    crs = None if georef.crs is None else pyproj.CRS.from_user_input(georef.crs)
    return Ground(georef.shape, georef.transform, crs)


def _unsigned(objects: Objects, window: Window) -> NDArray[np.uint32]:
    return objects.paint(window).astype(np.uint32)


def _without_shapes(outlines: Outlines) -> pd.DataFrame:
    return pd.DataFrame(outlines.polygons.drop(columns=outlines.polygons.geometry.name))


def _counted(objects: Objects, outlines: Outlines) -> dict[str, int]:
    found = Counter(outlines.polygons["class_name"])
    return {selection.name: found[selection.name] for selection in objects.classes}


def _tags(search: Search, asked: dict[str, Any]) -> dict[str, str]:
    return {**search.job.tags, "GEOSEG_OBJECTS": canonical_json({**search.parts["search"], **asked})}


def _plain(shape: OutlineOptions) -> dict[str, Any]:
    return {"min_area_m2": shape.min_area_m2, "simplify_m": shape.simplify_m, "regularize": shape.regularize}


def _check_polygons(job: Job, output: Path, ground: Ground, overwrite: bool) -> None:
    check_vector_output(output, overwrite=overwrite, inputs=_inputs(job))
    check_crs_fits(output, ground.crs)
    check_disk_space(output, raster_bytes=2 * job.extent.area)


def _check_ids(job: Job, ids: Path, polygons: Path | None, overwrite: bool) -> None:
    others = [*_inputs(job), *([] if polygons is None else [polygons])]
    check_output(ids, overwrite=overwrite, inputs=others)
    check_output(table_path(ids), overwrite=overwrite, inputs=others, suffixes=(".parquet",))
    check_disk_space(ids, raster_bytes=4 * job.extent.area)


def _inputs(job: Job) -> list[str | Path]:
    mask = job.reader.stated.valid_mask
    return [*(file.path for file in job.reader.files), *([mask] if mask else [])]


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
