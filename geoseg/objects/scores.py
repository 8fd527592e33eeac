"""How well predicted objects agree with reference objects: panoptic quality, and average precision of masks.

Nothing is needed but how many pixels pairs of objects share, which is added up window by window: a scene of any size
costs the memory of its pairs. Objects of one side share no pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError

UNLABELLED = -1
NOTHING = 0
MATCH = 0.5  # IoU above which a pair is one: no other can be (Kirillov et al. 2019, arXiv:1801.00868)
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())  # as of COCO
RECALLS = np.linspace(0, 1, 101)

Ids = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Segments:
    """Objects of one side; the one at place k has id k + 1.

    Attributes:
        class_id: (objects,).
        score: (objects,) of predicted things, by which they are ranked.
    """

    class_id: NDArray[np.int64]
    score: NDArray[np.float64]


class Pairs(NamedTuple):
    """Pixels counted.

    Attributes:
        predicted: (predicted + 1,) pixels of each id where the reference is known; 0 is no object.
        reference: (reference + 1,) likewise.
        unknown: (predicted + 1,) pixels of each id where the reference is not known.
        first: (pairs,) predicted ids of pairs that share pixels.
        second: (pairs,) reference ids.
        shared: (pairs,) pixels.
    """

    predicted: NDArray[np.int64]
    reference: NDArray[np.int64]
    unknown: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    shared: NDArray[np.int64]

    @property
    def iou(self) -> NDArray[np.float64]:
        return self.shared / (self.predicted[self.first] + self.reference[self.second] - self.shared)


@dataclass
class Overlaps:
    """Shared pixels, added up over windows in any order.

    Attributes:
        predicted: number of predicted objects.
        reference: number of reference objects.
    """

    predicted: int
    reference: int
    _counts: dict[int, int] = field(default_factory=dict)

    def add(self, predicted: Ids, reference: Ids) -> None:
        """Count a window.

        Args:
            predicted: (height, width) ids from 1, NOTHING where there is no object.
            reference: (height, width) ids from 1, NOTHING where there is no object, UNLABELLED where not known.

        Raises:
            InputError: the shapes differ.
        """
        if predicted.shape != reference.shape:
            raise InputError(f"Predicted ids are {predicted.shape}, those of the reference {reference.shape}.")
        width = self.reference + 2
        keys = predicted.astype(np.int64) * width + (reference.astype(np.int64) + 1)
        for key, count in zip(*(part.tolist() for part in np.unique(keys, return_counts=True)), strict=True):
            self._counts[key] = self._counts.get(key, 0) + count

    def pairs(self) -> Pairs:
        """All that was counted."""
        width = self.reference + 2
        keys = np.array(sorted(self._counts), np.int64)
        pixels = np.array([self._counts[key] for key in keys.tolist()], np.int64)
        first, second = keys // width, keys % width - 1
        known = second != UNLABELLED
        sums = (
            np.zeros(self.predicted + 1, np.int64),
            np.zeros(self.reference + 1, np.int64),
            np.zeros(self.predicted + 1, np.int64),
        )
        np.add.at(sums[0], first[known], pixels[known])
        np.add.at(sums[1], second[known], pixels[known])
        np.add.at(sums[2], first[~known], pixels[~known])
        both = known & (first > NOTHING) & (second > NOTHING)
        return Pairs(*sums, first[both], second[both], pixels[both])


class Quality(NamedTuple):
    """Panoptic quality of a class, 0 to 1; NaN where neither side has it.

    Attributes:
        pq: sq * rq.
        sq: mean IoU of matches.
        rq: F1 of matches.
        matched: true positives.
        unmatched: false positives, missed: false negatives.
    """

    pq: float
    sq: float
    rq: float
    matched: int
    unmatched: int
    missed: int


def panoptic_quality(pairs: Pairs, predicted: Segments, reference: Segments) -> dict[int, Quality]:
    """By class id.

    An object of one side is matched by one of its class on the other side with an IoU above a half. Predicted objects
    that lie for more than half where the reference is not known count neither way.
    """
    same = predicted.class_id[pairs.first - 1] == reference.class_id[pairs.second - 1]
    matched = same & (pairs.iou > MATCH)
    hit, found = np.zeros(len(predicted.class_id), np.bool_), np.zeros(len(reference.class_id), np.bool_)
    hit[pairs.first[matched] - 1] = found[pairs.second[matched] - 1] = True
    counted, there = _counted(pairs) & ~hit, pairs.reference[1:] > 0
    classes = np.unique(np.concatenate([predicted.class_id[_counted(pairs) | hit], reference.class_id[there]]))
    own = reference.class_id[pairs.second - 1]
    return {
        int(number): _quality(
            pairs.iou[matched & (own == number)],
            int((counted & (predicted.class_id == number)).sum()),
            int((there & ~found & (reference.class_id == number)).sum()),
        )
        for number in classes
    }


def _counted(pairs: Pairs) -> NDArray[np.bool_]:
    """(predicted,) objects that lie where the reference is known, for half of their pixels or more."""
    known, unknown = pairs.predicted[1:], pairs.unknown[1:]
    return np.asarray((known > 0) & (unknown <= known))


def _quality(ious: NDArray[np.float64], unmatched: int, missed: int) -> Quality:
    matched = int(ious.size)
    total = matched + unmatched / 2 + missed / 2
    sq = float(ious.mean()) if matched else 0.0
    rq = matched / total if total else float("nan")
    return Quality(sq * rq, sq, rq, matched, unmatched, missed)


def mean_quality(by_class: Mapping[int, Quality]) -> tuple[float, float, float]:
    """PQ, SQ and RQ, each the mean over classes."""
    rows = [one[:3] for one in by_class.values() if not np.isnan(one.pq)]
    if not rows:
        return float("nan"), float("nan"), float("nan")
    pq, sq, rq = np.mean(rows, axis=0).tolist()
    return pq, sq, rq


def average_precision(pairs: Pairs, predicted: Segments, reference: Segments, class_id: int) -> dict[float, float]:
    """Mask AP of a class by IoU threshold, as COCO has it (arXiv:1405.0312), with no limit to the number of objects.

    Objects are taken by score, and each gets the reference object that it overlaps most among those that are left.
    Precision is interpolated at 101 recalls. NaN where the reference has no object of the class.
    """
    there = (reference.class_id == class_id) & (pairs.reference[1:] > 0)
    own = np.flatnonzero((predicted.class_id == class_id) & (pairs.predicted[1:] > 0))
    ranked = own[np.argsort(-predicted.score[own], kind="stable")]
    ignored = ~_counted(pairs)
    touching: dict[int, list[tuple[float, int]]] = {}
    for first, second, iou in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.iou.tolist(), strict=True):
        if there[second - 1]:
            touching.setdefault(first - 1, []).append((iou, second - 1))
    return {
        threshold: _average_precision(_hits(ranked, touching, ignored, threshold), int(there.sum()))
        for threshold in THRESHOLDS
    }


def _hits(
    ranked: NDArray[np.int64],
    touching: Mapping[int, list[tuple[float, int]]],
    ignored: NDArray[np.bool_],
    threshold: float,
) -> NDArray[np.bool_]:
    """Whether each object, by rank, finds a reference object; without those that count neither way."""
    taken: set[int] = set()
    hits: list[bool] = []
    for number in ranked.tolist():
        free = [pair for pair in touching.get(number, ()) if pair[1] not in taken and pair[0] >= threshold]
        if free:
            taken.add(max(free)[1])
            hits.append(True)
        elif not ignored[number]:
            hits.append(False)
    return np.array(hits, np.bool_)


def _average_precision(hits: NDArray[np.bool_], objects: int) -> float:
    if not objects:
        return float("nan")
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, hits.size + 1))[::-1])[::-1]
    at = np.searchsorted(found / objects, RECALLS, side="left")
    return float(np.append(precision, 0.0)[np.minimum(at, hits.size)].mean())
