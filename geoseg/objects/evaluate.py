"""Predicted objects against reference objects, window by window: PQ, SQ, RQ and mask AP by class."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geoseg.errors import InputError
from geoseg.grid.window import windows_of
from geoseg.objects.paint import BLOCK
from geoseg.objects.reference import IdRaster, Side, open_reference
from geoseg.objects.scores import (
    UNLABELLED,
    Overlaps,
    Pairs,
    Segments,
    average_precision,
    mean_quality,
    panoptic_quality,
)
from geoseg.raster.aoi import read_aoi
from geoseg.raster.disk import check_output, disk_errors, publish_bytes
from geoseg.raster.labels import LabelOptions

log = logging.getLogger(__name__)
Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all


@dataclass(frozen=True)
class ObjectScores:
    """How well objects agree with a reference.

    Attributes:
        by_class: by name: pq, sq, rq, matched, unmatched, missed; of things also ap (mean over IoU 0.5 to 0.95), ap50
            and ap75.
        overall: pq, sq, rq as means over classes; pq_things, pq_stuff, and ap, ap50, ap75 as means over things.
    """

    by_class: dict[str, dict[str, float]]
    overall: dict[str, float]

    def to_json(self) -> str:
        return json.dumps({"overall": _plain(self.overall), "classes": _plain(self.by_class)}, indent=1) + "\n"


def evaluate_objects(
    predicted: str | os.PathLike[str],
    reference: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    options: LabelOptions | None = None,
    aoi: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ObjectScores:
    """Compare objects with a reference; only classes that the reference tells are judged.

    Args:
        predicted: raster of ids with its table beside it, from `panoptic_file` or `instances_file(raster=...)`.
        reference: polygons in any CRS, each an object, with nothing between them (where they overlap, the last one
            counts); or a class raster on any grid, whose 4-connected parts are the objects of things, and whose values
            that mean `other` are none; or another raster of ids.
        output: also write the scores there, as .json.
        options: what the reference does not say.
        aoi: vector file; only what lies within its polygons counts.
        overwrite: replace an output that exists.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: what was given cannot be used, or the reference has no object.
    """
    written = None if output is None else Path(output)
    if written is not None:
        check_output(written, overwrite=overwrite, inputs=[Path(predicted), Path(reference)], suffixes=(".json",))
    ids = IdRaster.of(Path(predicted))
    if not ids.things and not len(ids.table):
        raise InputError(f"The table of {predicted} has no row, and nothing says which objects were looked for.")
    other = open_reference(reference, ids, options or LabelOptions())
    pairs = _pairs(ids, other, aoi, progress or _silent)
    if not pairs.reference[1:].any():
        raise InputError(f"No object of {reference} lies on {predicted}; compare their places with geoseg info.")
    unseen = int((pairs.reference[1:] == 0).sum())
    if unseen:
        log.warning(
            "%d of %d reference objects do not count: they lie elsewhere, or others cover them, or no pixel's center.",
            unseen,
            len(pairs.reference) - 1,
        )
    scores = _scores(ids, other, pairs)
    if written is not None:
        with disk_errors(f"writing {written.name}", written.parent):
            publish_bytes(written, scores.to_json().encode())
    return scores


def _pairs(ids: IdRaster, other: Side, aoi: str | os.PathLike[str] | None, progress: Progress) -> Pairs:
    facts = ids.facts
    area = (
        None if aoi is None else read_aoi(os.fspath(aoi), shape=facts.shape, transform=facts.transform, crs=facts.crs)
    )
    overlaps = Overlaps(len(ids.segments.class_id), len(other.segments.class_id))
    done = 0
    for window in windows_of(facts.shape, BLOCK):
        first, second = ids.paint(window), other.paint(window)
        unknown = first == UNLABELLED if area is None else (first == UNLABELLED) | ~area.mask(window)
        overlaps.add(np.maximum(first, 0), np.where(unknown, np.int32(UNLABELLED), second))
        done += window.area
        progress("compare", done, facts.shape[0] * facts.shape[1])
    return overlaps.pairs()


def _scores(ids: IdRaster, other: Side, pairs: Pairs) -> ObjectScores:
    there = other.segments.class_id[pairs.reference[1:] > 0]
    told = set(there.tolist())
    names = {entry.id: entry.name for entry in ids.legend.classes}
    quality = {
        one: found for one, found in panoptic_quality(pairs, ids.segments, other.segments).items() if one in told
    }
    by_class: dict[str, dict[str, float]] = {}
    for number, found in quality.items():
        row: dict[str, float] = dict(found._asdict())
        if number in ids.things:
            row |= precisions(pairs, ids.segments, other.segments, number)
        by_class[names.get(number, f"class_{number}")] = row
    overall = dict(zip(("pq", "sq", "rq"), mean_quality(quality), strict=True))
    kinds = {"things": told & ids.things, "stuff": told - ids.things}
    for kind, members in kinds.items():
        if members:
            overall[f"pq_{kind}"] = mean_quality({one: quality[one] for one in members})[0]
    with_ap = [row for row in by_class.values() if "ap" in row]
    for name in ("ap", "ap50", "ap75"):
        if with_ap:
            overall[name] = float(np.nanmean([row[name] for row in with_ap]))
    return ObjectScores(by_class, overall)


def precisions(pairs: Pairs, predicted: Segments, reference: Segments, class_id: int) -> dict[str, float]:
    """AP of the masks of a class, as a mean over IoU 0.5 to 0.95, and at 0.5 and 0.75."""
    found = average_precision(pairs, predicted, reference, class_id)
    return {"ap": float(np.mean(list(found.values()))), "ap50": found[0.5], "ap75": found[0.75]}


def _plain(scores: dict[str, Any]) -> dict[str, Any]:
    """Rounded, and None for what is not a number."""
    return {
        name: _plain(value) if isinstance(value, dict) else None if np.isnan(value) else round(value, 6)
        for name, value in scores.items()
    }


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
