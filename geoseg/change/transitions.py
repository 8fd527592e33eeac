"""From two dates to transitions: which class became which, how probable that is, and what is too small to count.

Two posteriors p and q of a pixel, each from its own date, and a prior r of change give the probability of every pair of
classes (i, j): p_i q_j times (1 - r) / K where i = j, and r / (K (K - 1)) elsewhere. Uncertain pixels, such as those of
borders, need much evidence to count as changed, so that maps do not flicker there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.errors import InputError
from geoseg.legend import NODATA, Legend, LegendClass
from geoseg.models.pairs import BETWEEN

UNCHANGED = 0
MOST_CLASSES = 15  # whose pairs fit into a byte
GRAY = "#dedede"


class Transitions(NamedTuple):
    """Of a window.

    Attributes:
        before: (height, width) int16 index of the class, -1 where unknown on either date.
        after: likewise.
        probability: (height, width) float32 of change, NaN where unknown.
    """

    before: NDArray[np.int16]
    after: NDArray[np.int16]
    probability: NDArray[np.float32]

    @property
    def changed(self) -> NDArray[np.bool_]:
        return np.asarray(self.before != self.after)

    def codes(self) -> NDArray[np.uint8]:
        """Ids of `transition_legend`."""
        known = self.before >= 0
        classes = MOST_CLASSES
        pairs = 1 + self.before * classes + self.after
        return np.where(known, np.where(self.changed, pairs, UNCHANGED), NODATA).astype(np.uint8)

    def hidden(self, where: NDArray[np.bool_]) -> Transitions:
        """With some pixels unknown."""
        before, after = (np.where(where, -1, side).astype(np.int16) for side in (self.before, self.after))
        return Transitions(before, after, np.where(where, np.float32(np.nan), self.probability))

    def without(self, gone: NDArray[np.bool_]) -> Transitions:
        """With some pixels unchanged after all."""
        return self._replace(after=np.where(gone, self.before, self.after))


def transition_legend(legend: Legend) -> Legend:
    """What the codes stand for: 0 unchanged, 1 + 15 * before + after for a change, with indices of classes.

    A transition has the colour of what it leads to.

    Raises:
        InputError: there are more classes than a byte has pairs.
    """
    if len(legend.classes) > MOST_CLASSES:
        number = len(legend.classes)
        raise InputError(f"Change is counted between {MOST_CLASSES} classes at most; the legend has {number}.")
    pairs = [
        LegendClass(
            id=1 + i * MOST_CLASSES + j, name=f"{one.name}{BETWEEN}{other.name}"[:63], color=other.color, group="change"
        )
        for i, one in enumerate(legend.classes)
        for j, other in enumerate(legend.classes)
        if i != j
    ]
    return Legend(classes=(LegendClass(id=UNCHANGED, name="unchanged", color=GRAY), *pairs))


def indices_of(class_map: NDArray[np.integer], legend: Legend) -> NDArray[np.int16]:
    """Class ids to indices of the legend's classes; -1 for nodata and ids that it lacks."""
    table = np.full(256, -1, np.int16)
    table[list(legend.ids)] = np.arange(len(legend.classes))
    found: NDArray[np.int16] = np.where((class_map >= 0) & (class_map < 256), table[np.clip(class_map, 0, 255)], -1)
    return found


def compare_classes(before: NDArray[np.int16], after: NDArray[np.int16]) -> Transitions:
    """Post-classification comparison: what the maps say, with certainty."""
    known = (before >= 0) & (after >= 0)
    before, after = np.where(known, before, -1).astype(np.int16), np.where(known, after, -1).astype(np.int16)
    probability = np.where(known, (before != after).astype(np.float32), np.float32(np.nan))
    return Transitions(before, after, probability)


def compare_posteriors(
    before: NDArray[np.float32], after: NDArray[np.float32], *, prior: float, threshold: float = 0.5
) -> Transitions:
    """The most probable pair of classes where change is more probable than `threshold`, else the most probable class.

    Args:
        before: (class, height, width) probabilities, NaN where unknown.
        after: likewise.
        prior: share of pixels that change, between 0 and 1.
        threshold: of the probability of change.

    Raises:
        InputError: prior or threshold is out of range.
    """
    for name, value in (("prior", prior), ("threshold", threshold)):
        if not 0 < value < 1:
            raise InputError(f"The {name} of change lies between 0 and 1, not at {value}.")
    classes = len(before)
    known = np.isfinite(before).all(0) & np.isfinite(after).all(0)
    p, q = (np.where(known, values, np.float32(1 / classes)) for values in (before, after))
    p, q = (values / np.maximum(values.sum(0), np.float32(1e-6)) for values in (p, q))
    both = p * q
    same = both.sum(0)
    stays = (1 - prior) * same
    changes = prior / max(1, classes - 1) * np.maximum(1 - same, 0)
    probability = (changes / np.maximum(stays + changes, 1e-12)).astype(np.float32)
    kept = both.argmax(0).astype(np.int16)
    one, other = _best_pair(p, q)
    moved = (probability > threshold) & known
    probability[~known] = np.nan
    return Transitions(
        np.where(known, np.where(moved, one, kept), -1).astype(np.int16),
        np.where(known, np.where(moved, other, kept), -1).astype(np.int16),
        probability,
    )


def compare_joint(joint: NDArray[np.float32], pairs: Sequence[tuple[int, int]], *, threshold: float) -> Transitions:
    """The most probable change where change is more probable than `threshold`, else the most probable class that stays.

    Args:
        joint: (pair, height, width) probabilities of what a pixel was and is, NaN where unknown.
        pairs: of each channel, indices of the classes before and after.
        threshold: of the probability of change.
    """
    known = np.isfinite(joint).all(0)
    p = np.where(known, joint, np.float32(1))
    ones, others = np.array(pairs, np.int16).T
    changes, stays = np.flatnonzero(ones != others), np.flatnonzero(ones == others)
    probability = (p[changes].sum(0) / np.maximum(p.sum(0), np.float32(1e-6))).astype(np.float32)
    moved = (probability > threshold) & known
    best = np.where(moved, changes[p[changes].argmax(0)], stays[p[stays].argmax(0)])
    probability[~known] = np.nan
    before, after = (np.where(known, side[best], -1).astype(np.int16) for side in (ones, others))
    return Transitions(before, after, probability)


def _best_pair(p: NDArray[np.float32], q: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of all pairs of two different classes, the one with the largest product."""
    if len(p) == 1:
        nothing = np.zeros(p.shape[1:], np.intp)
        return nothing, nothing
    first, second = (np.argsort(-values, axis=0, kind="stable")[:2] for values in (p, q))
    pairs = [(first[0], second[0]), (first[0], second[1]), (first[1], second[0])]
    chances = [np.where(one != other, _at(p, one) * _at(q, other), np.float32(-1)) for one, other in pairs]
    best = np.argmax(chances, axis=0)
    ones, others = (np.stack([pair[side] for pair in pairs]) for side in range(2))
    return _at(ones, best), _at(others, best)


def _at(values: NDArray[Any], index: NDArray[np.intp]) -> NDArray[Any]:
    found: NDArray[Any] = np.take_along_axis(values, index[None], 0)[0]
    return found


def too_small(changed: NDArray[np.bool_], *, least_px: int, width_px: int) -> NDArray[np.bool_]:
    """Changed pixels that do not count: in parts narrower than a square of `width_px`, or in what is then left of fewer
    than `least_px` pixels that share sides.

    What is said of a pixel depends on pixels within `reach_px` of it alone.

    Args:
        changed: (height, width).
        least_px: the minimum mapping unit; 1 keeps all.
        width_px: side of the square that a part must hold; 1 keeps all.
    """
    kept = ndimage.binary_opening(changed, np.ones((width_px, width_px), bool)) if width_px > 1 else changed
    if least_px > 1:
        parts, _ = ndimage.label(kept)
        kept = kept & (np.bincount(parts.ravel()) >= least_px)[parts]
    return np.asarray(changed & ~kept)


def reach_px(*, least_px: int, width_px: int) -> int:
    """How far `too_small` looks."""
    return (least_px if least_px > 1 else 0) + 2 * (width_px if width_px > 1 else 0)
