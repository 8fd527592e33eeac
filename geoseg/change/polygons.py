"""Polygons of change: from which class to which, how probable, between which dates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from geoseg.change.detect import ChangeJob
from geoseg.change.transitions import UNCHANGED, transition_legend
from geoseg.models.pairs import BETWEEN
from geoseg.vector import VectorOptions, read_polygons
from geoseg.vector.export import write_polygons


def write_change_polygons(
    job: ChangeJob, paths: list[Path], output: Path, *, overwrite: bool, progress: Callable[[int, int], None]
) -> None:
    """One layer of polygons, a row for each connected area of one transition, with the files and times of its dates.

    Args:
        job: what was compared.
        paths: the raster of transitions, last; before it the probability of change, if it was written.
        output: .gpkg, .parquet, .fgb or .geojson.
        overwrite: an existing file may be replaced.
        progress: called with pixels done and pixels in all.

    Raises:
        GeosegError: reading or writing failed.
    """
    changes = [entry.name for entry in transition_legend(job.legend).classes if entry.id != UNCHANGED]
    pairs = {name: name.split(BETWEEN) for name in changes}
    confidence = paths[0] if len(paths) > 1 else None
    table = read_polygons(paths[-1], VectorOptions(classes=tuple(pairs), confidence=confidence), progress)
    found = table.polygons.rename(columns={"confidence": "probability"}).drop(columns="confidence_p10", errors="ignore")
    for side, column in enumerate(("from_class", "to_class")):
        found.insert(2 + side, column, [pairs[name][side] for name in found["class_name"]])
    for column in ("before", "after"):
        found.insert(len(found.columns) - 1, column, job.made_from[column])
        if (time := job.made_from.get(f"{column}_time")) is not None:
            found.insert(len(found.columns) - 1, f"{column}_time", time)
    write_polygons(found, output, selections=table.selections, single_layer=True, overwrite=overwrite)
