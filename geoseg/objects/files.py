"""File to file: a scene to its objects, as polygons and as a raster of ids."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.legend import Legend, Selection
from geoseg.objects.id_raster import Paint, is_table_of, table_path, write_ids, write_table
from geoseg.objects.outline import OutlineOptions, outline, trace
from geoseg.objects.paint import NOTHING
from geoseg.raster.cog import Layer, is_current
from geoseg.raster.disk import check_disk_space, check_output, work_folder
from geoseg.raster.georeference import Georef
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import canonical_json, digest_of
from geoseg.vector.export import check_crs_fits, check_vector_output, write_polygons
from geoseg.vector.made_by import Made, made_by
from geoseg.vector.measure import Ground
from geoseg.vector.origin import Origin

if TYPE_CHECKING:  # torch loads where it is needed
    from geoseg.inference.job import Scene
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
            perimeter_m, confidence, source, date (where known) and model.
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

    output, told = Path(output), progress or _silent
    ids = None if raster is None else Path(raster)
    search = Search.of(scene, model, classes, reading=reading, run=run, least_score=least_score)
    order = _Order.of("instances", search, shape)
    outputs = [*([] if ids is None else [ids, table_path(ids)]), output]
    if order.is_drawn(output) and (ids is None or order.is_written(ids)):
        return InstancesSummary(outputs, up_to_date=True)
    order.check_polygons(output, overwrite)
    if ids is not None:
        order.check_ids(ids, output, overwrite)
    with work_folder(output) as folder:
        objects = search.objects(folder, overwrite=overwrite, progress=told)
        smallest = order.shape.min_area_m2
        traced = trace(objects, order.ground, min_area_m2=smallest, progress=partial(told, "trace"))
        outlines = outline(traced, order.ground, order.shape)
        if ids is not None:
            layer, table = order.layer("instances", ids, "object id"), outlines.polygons.drop(columns="geometry")
            with work_folder(ids) as beside:
                order.write(layer, partial(_unsigned, traced.objects), NOTHING, pd.DataFrame(table), beside, told)
        order.draw(outlines.polygons, output, objects.classes)
    found = Counter(outlines.polygons["class_name"])
    counts = {selection.name: found[selection.name] for selection in objects.classes}
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
    model: str | os.PathLike[str] | Model = "panoptic-rgb",
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

    output, told = Path(output), progress or _silent
    drawn = None if polygons is None else Path(polygons)
    search = Search.of(scene, model, things, reading=reading, run=run, least_score=least_score, with_stuff=True)
    order = _Order.of("panoptic", search, shape)
    outputs = [*([] if drawn is None else [drawn]), table_path(output), output]
    if order.is_written(output) and (drawn is None or order.is_drawn(drawn)):
        return PanopticSummary(outputs, up_to_date=True)
    order.check_ids(output, drawn, overwrite)
    if drawn is not None:
        order.check_polygons(drawn, overwrite)
    with work_folder(output) as folder:
        objects = search.objects(folder, overwrite=overwrite, progress=told)
        panoptic = Panoptic.of(*search.land(folder), objects, order.legend)
        tables = tables_of(panoptic, order.shape, partial(told, "trace"))
        if drawn is not None:
            order.draw(tables.polygons, drawn, panoptic.selections)
        layer = order.layer("panoptic", output, "panoptic id")
        order.write(layer, panoptic.paint, VOID, tables.ids, folder, told)
    sums = tables.ids.groupby("class_name")[["is_thing", "pixels"]].sum()
    counts = {selection.name: int(sums["is_thing"].get(selection.name, 0)) for selection in objects.classes}
    pixels = {str(name): int(count) for name, count in sums["pixels"].items()}
    return PanopticSummary(outputs, counts, pixels)


@dataclass(frozen=True)
class _Order:
    """What is to be made of a scene, settled before anything is computed.

    Attributes:
        search: model and scene.
        shape: of the polygons.
        asked: what else the outputs depend on.
    """

    search: Search
    shape: OutlineOptions
    asked: dict[str, Any]

    @classmethod
    def of(cls, what: Literal["instances", "panoptic"], search: Search, shape: OutlineOptions | None) -> _Order:
        shape = shape or OutlineOptions()
        order = cls(search, shape, {"what": what, **asdict(shape)})
        shape.check(order.ground)
        return order

    @property
    def legend(self) -> Legend:
        return self.search.job.model.card.legend

    @cached_property
    def ground(self) -> Ground:
        return ground_of(self.search.job.georef)

    @property
    def origin(self) -> Origin:
        return Origin.of_tags(self.search.job.tags, "scene")

    @cached_property
    def digest(self) -> str:
        return digest_of({**self.search.parts, "objects": self.asked})

    def is_written(self, ids: Path) -> bool:
        """Whether a raster of ids and its table are there, made of the same."""
        return is_current(ids, self.digest) and is_table_of(ids, self.digest)

    def is_drawn(self, polygons: Path) -> bool:
        """Likewise of polygons."""
        return polygons.is_file() and [run.digest for run in made_by(polygons)] == [self.digest]

    def check_polygons(self, output: Path, overwrite: bool) -> None:
        """Refuse an output that could not be written, before any work is done."""
        check_vector_output(output, overwrite=overwrite or self.is_drawn(output), inputs=self.search.job.inputs)
        check_crs_fits(output, self.ground.crs)
        check_disk_space(output, raster_bytes=2 * self.search.job.extent.area)

    def check_ids(self, ids: Path, polygons: Path | None, overwrite: bool) -> None:
        """Likewise, of a raster of ids and its table."""
        overwrite = overwrite or is_current(ids, self.digest)
        others = [*self.search.job.inputs, *([] if polygons is None else [polygons])]
        check_output(ids, overwrite=overwrite, inputs=others)
        check_output(table_path(ids), overwrite=overwrite, inputs=others, suffixes=(".parquet",))
        check_disk_space(ids, raster_bytes=4 * self.search.job.extent.area)

    def layer(self, name: str, path: Path, band: str) -> Layer:
        told = canonical_json({**self.search.parts["search"], **self.asked})
        tags = {**self.search.job.tags, "GEOSEG_OBJECTS": told}
        return Layer(name, path, (band,), self.legend, tags=tags, is_of_ids=True)

    def write(
        self, layer: Layer, paint: Paint, nodata: int, table: pd.DataFrame, folder: Path, progress: Progress
    ) -> None:
        """Write the ids that a painter gives, and the table of them, which is quick, once the raster is there."""
        write_ids(
            layer,
            paint,
            self.search.job.georef,
            nodata=nodata,
            digest=self.digest,
            folder=folder,
            progress=partial(progress, "write"),
        )
        write_table(table_path(layer.path), table, layer.all_tags, digest=self.digest)

    def draw(self, polygons: gpd.GeoDataFrame, path: Path, selections: Sequence[Selection]) -> None:
        """Write polygons, with where they come from and which run made them."""
        told = polygons.assign(**self.origin.columns_of(len(polygons)))
        write_polygons(told, path, selections=selections, overwrite=True, runs=[Made(self.digest)])


def ground_of(georef: Georef) -> Ground:
    """Where the pixels lie, for measuring."""
    crs = None if georef.crs is None else pyproj.CRS.from_user_input(georef.crs)
    return Ground(georef.shape, georef.transform, crs)


def _unsigned(objects: Objects, window: Window) -> NDArray[np.uint32]:
    return objects.paint(window).astype(np.uint32)


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
