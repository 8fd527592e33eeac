"""How good a detector is on scenes that it was not trained on: the average precision of its masks.

Objects are found as `geoseg instances --least-score 0.3` finds them, and compared with the connected parts of the
labels. What is not labelled, as beyond a held-out block, counts neither way: `geoseg.objects.scores`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from geoseg.grid import Window
from geoseg.grid.window import windows_of
from geoseg.inference.predictor import Backend, Predictor
from geoseg.models import Model
from geoseg.models.detector import LEAST_SCORE
from geoseg.models.pooled import pool_factor, pooled
from geoseg.objects.detect import Looker
from geoseg.objects.evaluate import precisions
from geoseg.objects.find import thing_names
from geoseg.objects.join import Found, join_pieces
from geoseg.objects.paint import BLOCK, Ids, MaskPainter
from geoseg.objects.reference import Parts
from geoseg.objects.scores import NOTHING, Overlaps, Segments
from geoseg.raster.label_codes import Codes
from geoseg.training.chips import grid_of, labelled_blocks, normalization_of, pixels_of
from geoseg.training.scenes import LabelledScene


class Judged(NamedTuple):
    """A scene, what was found on it, and what is there."""

    scene: LabelledScene
    found: list[Found]
    parts: Parts


def judge_objects(model: Model, scenes: Sequence[LabelledScene]) -> dict[str, float]:
    """AP at IoU 0.5, and its mean over 0.5 to 0.95, of the objects of all scenes together.

    Returns:
        `CLASS_ap50` and `CLASS_ap` of each class with an object in the labels, rounded to 0.001.
    """
    legend, names = model.card.legend, thing_names(model)
    things = {legend.by_name(name).id for name in names}
    judged = [
        Judged(
            scene,
            find_objects(model, scene),
            Parts.of(partial(_labels, scene), legend, scene.shape, things=things, stuff=set()),
        )
        for scene in scenes
    ]
    predicted = _segments([(one.class_id, one.score) for place in judged for one in place.found])
    reference = _segments([(number, 1.0) for place in judged for number in place.parts.segments.class_id.tolist()])
    pairs = _overlaps(judged).pairs()
    scores: dict[str, float] = {}
    for name in names:
        found = precisions(pairs, predicted, reference, legend.by_name(name).id)
        scores |= {f"{name}_{kind}": round(found[kind], 3) for kind in ("ap50", "ap") if np.isfinite(found[kind])}
    return scores


def find_objects(model: Model, scene: LabelledScene) -> list[Found]:
    """The objects of all chips with labels, by the card's own chip and halo."""
    legend = model.card.legend
    seen = pooled(model, pool_factor(model.card, scene.gsd_m))
    predictor = Predictor(seen, Backend.resolve(precision="float32", card=model.card))
    grid, things = grid_of(seen.card, scene), tuple(legend.names.index(name) for name in thing_names(model))
    look = Looker(grid, normalization_of(model.card), predictor, things, LEAST_SCORE)
    read = pixels_of(scene)
    return join_pieces(
        [piece for block in labelled_blocks(grid, scene) for piece in look(block.window, read).pieces], grid
    )


def _labels(scene: LabelledScene, window: Window) -> Codes:
    """Those of what was measured."""
    return scene.read(window)[1]


def _overlaps(judged: Sequence[Judged]) -> Overlaps:
    """Pixels shared on all scenes, whose ids go on from one to the next."""
    overlaps = Overlaps(sum(len(one.found) for one in judged), sum(len(one.parts.segments.class_id) for one in judged))
    before = np.zeros(2, np.int32)
    for scene, found, parts in judged:
        paint = MaskPainter(found)
        for window in windows_of(scene.shape, BLOCK):
            overlaps.add(_from(paint(window), before[0]), _from(parts.paint(window), before[1]))
        before += (len(found), len(parts.segments.class_id))
    return overlaps


def _from(ids: Ids, before: np.int32) -> Ids:
    """Ids that go on after so many; what is no object stays what it is."""
    return np.where(ids > NOTHING, ids + before, ids)


def _segments(objects: Sequence[tuple[int, float]]) -> Segments:
    return Segments(np.array([one[0] for one in objects], np.int64), np.array([one[1] for one in objects], np.float64))
