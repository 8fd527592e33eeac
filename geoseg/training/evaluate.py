"""Agreement with reference labels: an additive confusion matrix and what is read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoseg.errors import InputError


@dataclass
class Confusion:
    """Counts of (reference, predicted) pairs, added up over blocks in any order.

    Attributes:
        names: one per class.
        counts: (reference, predicted) int64.
    """

    names: Sequence[str]
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros((len(self.names), len(self.names)), np.int64)

    def add(self, reference: ArrayLike, predicted: ArrayLike) -> None:
        """Count pixels; where either index is negative or beyond the last class, the pixel is left out.

        Args:
            reference: class indices (0-based, in the order of `names`), any shape.
            predicted: the same.

        Raises:
            InputError: the shapes differ.
        """
        reference, predicted = np.asarray(reference), np.asarray(predicted)
        if reference.shape != predicted.shape:
            raise InputError(f"Reference is {reference.shape} and prediction {predicted.shape}; they must agree.")
        classes = len(self.names)
        known = (reference >= 0) & (reference < classes) & (predicted >= 0) & (predicted < classes)
        pairs = reference[known].astype(np.int64) * classes + predicted[known]
        self.counts += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def iou(self) -> dict[str, float]:
        """Intersection over union by class (Jaccard 1912); NaN for a class that neither side has."""
        hit = np.diag(self.counts).astype(float)
        union = self.counts.sum(0) + self.counts.sum(1) - hit
        with np.errstate(invalid="ignore"):
            return dict(zip(self.names, (float(v) for v in hit / union), strict=True))

    def overall_accuracy(self) -> float:
        """Share of pixels that agree."""
        return float(np.diag(self.counts).sum() / max(1, self.counts.sum()))
