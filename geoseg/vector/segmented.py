"""Polygons of a land cover that is only about to be segmented: each block is traced where it is computed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyproj

from geoseg.inference.job import Job
from geoseg.raster.landcover import CONFIDENCE_ONE
from geoseg.vector.job import VectorJob
from geoseg.vector.measure import Ground
from geoseg.vector.options import VectorOptions
from geoseg.vector.origin import Origin
from geoseg.vector.run import VectorRun
from geoseg.vector.staged import LAYER


def run_of_segmenting(job: Job, polygons: Path, options: VectorOptions) -> VectorRun:
    """The run that `VectorRun.of_file` would find once the land cover is there: their outputs are equal.

    Args:
        job: what will be segmented.
        polygons: the file of polygons.
        options: with the confidence's path, if it is written.

    Raises:
        InputError: a class or an option cannot be used.
    """
    georef, legend = job.georef, job.model.card.legend
    crs = None if georef.crs is None else pyproj.CRS.from_user_input(georef.crs)
    drawn = VectorJob.of(
        Ground(georef.shape, georef.transform, crs),
        options,
        legend=legend if options.legend is None else options.legend,
        nodata=float(legend.nodata),
        confidence_one=None if options.confidence is None else CONFIDENCE_ONE,
    )
    identities = {"class raster": {"run": job.digest, "layer": "landcover"}}
    if options.confidence is not None:
        identities["confidence"] = {"run": job.digest, "layer": "confidence"}
    origin = Origin.of_tags(job.tags, polygons.stem, options.date)
    return VectorRun(drawn, polygons, identities, origin, replace(job.layout, layers={LAYER: 1}))
