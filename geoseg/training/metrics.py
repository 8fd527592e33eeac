"""Scores from counts that add up, and how sure they are.

Labels may name a group of classes. For each target, a class or a group, a label says yes (it lies within), no (it
shares nothing) or leaves it open; open ones are left out of that target's counts and of no other's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.training.boundary import Targets

Counts = NDArray[np.int64] | NDArray[np.float64]
Floats = NDArray[np.float64]


class Hits(NamedTuple):
    """Pixels by target, (..., target): rightly found, wrongly found, missed."""

    found: Floats
    wrong: Floats
    missed: Floats

    @property
    def iou(self) -> Floats:
        """Intersection over union (Jaccard 1912); NaN where neither side has the target."""
        return _share(self.found, self.found + self.wrong + self.missed)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall (Dice 1945)."""
        return _share(2 * self.found, 2 * self.found + self.wrong + self.missed)

    @property
    def precision(self) -> Floats:
        """Share of what was predicted that is right: the user's accuracy; NaN where nothing was predicted."""
        return _share(self.found, self.found + self.wrong)

    @property
    def recall(self) -> Floats:
        """Share of the reference that was found: the producer's accuracy; NaN where the reference has none."""
        return _share(self.found, self.found + self.missed)


def hits(counts: Counts, targets: Targets) -> Hits:
    """Of each target.

    Args:
        counts: (..., code, channel) pixels by label and prediction.
        targets: the codes, and the channels of each.
    """
    inside, outside, has = (part.astype(float) for part in (targets.inside, targets.outside, targets.has))
    by_target = np.einsum("...kc,tc->...tk", counts, has)
    rest = np.asarray(counts).sum(-1)[..., None, :] - by_target
    found, wrong = (np.einsum("...tk,tk->...t", by_target, which) for which in (inside, outside))
    return Hits(found, wrong, np.einsum("...tk,tk->...t", rest, inside))


def overall_accuracy(counts: Counts, targets: Targets) -> Floats:
    """Share of labelled pixels whose prediction the label allows, (...)."""
    right = (np.asarray(counts) * targets.has).sum((-2, -1))
    return _share(right.astype(float), np.asarray(counts).sum((-2, -1)).astype(float))


def averaged(counts: Counts, targets: Targets) -> NDArray[np.bool_]:
    """(target,): those that means are taken over: classes with labelled pixels, and groups that are labelled as such
    while none of their classes is.
    """
    labelled = np.asarray(counts).sum(-1) > 0
    classes = np.arange(len(labelled)) < targets.channels
    alone = ~(targets.has & labelled[: targets.channels]).any(-1)
    chosen: NDArray[np.bool_] = labelled & (classes | alone)
    return chosen


def mean(scores: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Over the chosen targets of scores (..., target); those that are NaN are left out."""
    kept = scores[..., chosen]
    known = np.isfinite(kept)
    return _share(np.where(known, kept, 0.0).sum(-1), known.sum(-1).astype(float))


class Interval(NamedTuple):
    """Bounds of a confidence interval, each like the statistic."""

    low: Floats
    high: Floats


def bootstrap(
    cells: Counts,
    statistic: Callable[[Floats], Floats],
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a statistic of summed counts (Efron and Tibshirani 1993), by resampling whole cells.

    Neighbouring pixels err together, so pixels are no independent draws; cells that are larger than what errs together
    nearly are (block bootstrap, Künsch 1989). With few cells the interval is wide, and yet rather too narrow.

    Args:
        cells: (cell, ...) counts; cells without a labelled pixel must not be among them.
        statistic: from summed counts (resample, ...) to (resample, score).
        resamples: number of them.
        level: share of the resamples within the interval.
        seed: of the draws.

    Returns:
        Bounds (score,); NaN where there are fewer than two cells.
    """
    number = len(cells)
    flat = np.asarray(cells, np.float64).reshape(number, -1)
    weights = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)
    summed = (weights @ flat).reshape(resamples, *np.shape(cells)[1:])
    drawn = statistic(summed)
    bounds = np.full((2, drawn.shape[1]), np.nan)
    for column, values in enumerate(drawn.T):
        known = values[np.isfinite(values)]
        if number > 1 and len(known):
            bounds[:, column] = np.quantile(known, ((1 - level) / 2, (1 + level) / 2))
    return Interval(*bounds)


def _share(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(whole > 0, part / whole, np.nan)
