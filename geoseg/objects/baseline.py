"""Objects without a network for them: land cover, split where its parts have a neck (`geoseg.vector.split`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from geoseg.inference.job import Job, SegmentBlock
from geoseg.inference.plan import RunOptions
from geoseg.objects.paint import Objects, OutlinePainter
from geoseg.objects.staged import Orders, computed, write_layers
from geoseg.raster.cog import is_current
from geoseg.raster.files import look_at
from geoseg.vector import VectorOptions, read_polygons

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all


def segment_to(folder: Path, job: Job, run: RunOptions, *, overwrite: bool, progress: Progress) -> tuple[Path, Path]:
    """Land cover and confidence of a scene in a folder; where they are there already, nothing is computed.

    Args:
        folder: a work folder.
        job: of a semantic model, that keeps the confidence.
        run: workers and so on.
        overwrite: throw staged blocks of another run away.
        progress: called with step, pixels done and pixels in all.
    """
    cover, confidence = folder / "landcover.tif", folder / "confidence.tif"
    layers = job.layers(cover, confidence, None)
    if all(is_current(layer.path, job.digest) for layer in layers):
        return cover, confidence

    orders = Orders(cover, job.parts, job.layout, run, overwrite)
    task = partial(SegmentBlock, job.reader, job.segmenter, aoi=job.aoi)
    with computed(job, orders, lambda writer: task(writer=writer), partial(progress, "segment")) as staging:
        write_layers(staging, layers, job, job.parts)
    return cover, confidence


def split_objects(landcover: Path, confidence: Path, *, classes: tuple[str, ...], progress: Progress) -> Objects:
    """Parts of some classes, each of one or more objects; the score of an object is its mean confidence.

    Args:
        landcover: class map.
        confidence: of it.
        classes: names of classes and groups.
        progress: called with step, pixels done and pixels in all.
    """
    options = VectorOptions(classes, confidence=confidence, split=classes)
    table = read_polygons(landcover, options, partial(progress, "split"))
    polygons = table.polygons
    columns = {
        "class_id": polygons["class_id"],
        "score": polygons["confidence"].fillna(0.0),
        "confidence": polygons["confidence"],
    }
    transform = look_at(landcover).transform
    return Objects.of(columns, OutlinePainter(polygons.geometry.to_numpy(), transform), table.selections)
