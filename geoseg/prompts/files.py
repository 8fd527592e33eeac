"""File to file: a scene and prompts to polygons."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import xarray as xr

from geoseg.errors import InputError
from geoseg.models import Model
from geoseg.prompts.cache import DEFAULT_GB
from geoseg.prompts.everything import LEAST_SCORE
from geoseg.prompts.load import DEFAULT
from geoseg.prompts.networks import Network
from geoseg.prompts.segmenter import PromptSegmenter, prompt
from geoseg.prompts.tables import read_prompts
from geoseg.raster.layers import Source as Given
from geoseg.raster.reader import SceneOptions, SceneReader
from geoseg.vector.export import check_crs_fits, check_vector_output, write_polygons

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # step, objects done, objects in all
FileName = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PromptSummary:
    """What `prompt_file` did.

    Attributes:
        output: the file.
        objects: polygons in it.
        empty: objects that were asked for and of which nothing was found.
        cut: polygons that may go on beyond what was looked at.
    """

    output: Path
    objects: int
    empty: int = 0
    cut: int = 0


def prompt_file(
    scene: Given | Sequence[Given] | xr.DataArray,
    output: FileName,
    *,
    points: FileName | None = None,
    boxes: FileName | None = None,
    text: str | None = None,
    everything: bool = False,
    least_score: float = LEAST_SCORE,
    model: FileName | Model | Network = DEFAULT,
    classes: Sequence[str] | None = None,
    reading: SceneOptions | None = None,
    cache_gb: float = DEFAULT_GB,
    views: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PromptSummary:
    """Write a polygon for each object that is asked for, with id, score, area_m2, whole, and class_name where given.

    Args:
        scene: as for `geoseg.prompt`.
        output: .gpkg, .parquet, .fgb or .geojson.
        points: file of points on objects and beside them; see `geoseg.prompts.tables.read_prompts`.
        boxes: file of boxes around objects.
        text: names what to find, where the model reads.
        everything: all that a lattice of points finds, joined across chips.
        least_score: of what counts as found there, 0 to 1.
        model: as for `geoseg.prompt`.
        classes: names that the prompts' column class_name may hold; None for any.
        reading: what the scene does not say.
        cache_gb: what embeddings may take in the cache folder; 0 keeps none.
        views: as for `geoseg.prompt`; None for 1 where everything is asked for.
        overwrite: replace an output that exists.
        progress: called with step, objects done and objects in all; for everything, chips.

    Raises:
        InputError: the scene, the model, a prompt or the output cannot be used; nothing was written.
        GeosegError: reading or writing failed; nothing was written.
    """
    output = Path(output)
    _check_one_way(points is not None or boxes is not None, text is not None, everything)
    inputs = [Path(path) for path in (points, boxes) if path is not None]
    check_vector_output(output, overwrite=overwrite, inputs=inputs)
    views = 1 if everything and views is None else views
    segmenter = prompt(scene, model, reading=reading, cache_gb=cache_gb, views=views)
    reader = segmenter.follower.reader
    files = [file.path for file in reader.files] if isinstance(reader, SceneReader) else []
    check_vector_output(output, overwrite=overwrite, inputs=[*inputs, *files])
    check_crs_fits(output, segmenter.place.crs)
    if text is not None:
        found, asked = segmenter.text(text).assign(class_name=text), 0
    elif everything:
        found, asked = segmenter.everything(least_score=least_score, progress=progress), 0
    else:
        found, asked = _prompted(segmenter, points, boxes, classes, progress)
    write_polygons(found, output, selections=(), single_layer=True, overwrite=overwrite)
    return PromptSummary(output, len(found), max(0, asked - len(found)), int((~found["whole"]).sum()))


def _check_one_way(has_places: bool, has_text: bool, everything: bool) -> None:
    if has_places + has_text + everything != 1:
        raise InputError("Say what to find in one way: points, boxes or both, or a text, or everything.")


def _prompted(
    segmenter: PromptSegmenter,
    points: FileName | None,
    boxes: FileName | None,
    classes: Sequence[str] | None,
    progress: Progress | None,
) -> tuple[gpd.GeoDataFrame, int]:
    """Polygons in the order of the files, and how many objects were asked for."""
    table = read_prompts(points, boxes, segmenter.follower.reader, classes=classes)
    found = {}
    for number, candidate in segmenter.ask(table.objects):
        found[number] = candidate
        if progress is not None:
            progress("prompt", len(found), len(table.objects))
    kept = [number for number in sorted(found) if not found[number].polygon.is_empty]
    polygons = segmenter.table([(table.ids[number], found[number]) for number in kept])
    if table.classes is not None:
        polygons.insert(1, "class_name", [table.classes[number] for number in kept])
    return polygons, len(table.objects)
