"""Are probabilities what they say? Reliability, expected calibration error, and a temperature that mends them.

Where labels name groups, classes that they do not tell apart are taken as one part, and its probability is the sum of
theirs: leaving such pixels out would judge the model on the other classes' ground alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geoseg.errors import InputError

BINS = 15
ONE = 1 << 24  # confidence 1 in whole numbers, which add up to the same in any order
SMALLEST = 1e-12  # probabilities below it count as it
RANGE = (0.05, 20.0)  # of temperatures
GOLDEN = (5**0.5 - 1) / 2


@dataclass
class Reliability:
    """How often predictions of a confidence are right, added up over blocks in any order.

    Attributes:
        counts: (3, bin) int64: pixels, those that are right, and summed confidence in units of 1 / ONE.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, BINS), np.int64))

    def add(self, confidence: ArrayLike, right: ArrayLike) -> None:
        """Count pixels.

        Args:
            confidence: probability of what is predicted, 0..1, any shape.
            right: whether it is the reference's, the same shape.
        """
        units = np.rint(np.asarray(confidence, np.float64).ravel() * ONE).astype(np.int64).clip(0, ONE)
        which = np.minimum(-(-units * BINS // ONE) - 1, BINS - 1).clip(0)  # bins are open below, as in Guo et al.
        kinds = np.ones_like(units), np.asarray(right).ravel().astype(np.int64), units
        for row, values in enumerate(kinds):
            np.add.at(self.counts[row], which, values)

    def __add__(self, other: Reliability) -> Reliability:
        return Reliability(self.counts + other.counts)

    @property
    def pixels(self) -> NDArray[np.int64]:
        """(bin,) number of pixels."""
        pixels: NDArray[np.int64] = self.counts[0]
        return pixels

    @property
    def accuracy(self) -> NDArray[np.float64]:
        """(bin,) share that is right; NaN where empty."""
        return self._mean(self.counts[1])

    @property
    def confidence(self) -> NDArray[np.float64]:
        """(bin,) mean confidence; NaN where empty."""
        return self._mean(self.counts[2] / ONE)

    @property
    def ece(self) -> float:
        """Expected calibration error (Guo et al. 2017): mean of |accuracy - confidence| over pixels; NaN for none."""
        total = int(self.counts[0].sum())
        return float(np.abs(self.counts[1] - self.counts[2] / ONE).sum() / total) if total else float("nan")

    def _mean(self, values: NDArray[Any]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.pixels > 0, values / self.pixels, np.nan)


def parts_of(members: Iterable[Sequence[int]], channels: int) -> NDArray[np.intp]:
    """(channel,) the part that each belongs to: channels that one label allows are in one part.

    Args:
        members: of each code that labels hold, the channels that it allows.
        channels: number of them.
    """
    parts = np.arange(channels)
    for own in members:
        parts[np.isin(parts, parts[list(own)])] = parts[list(own)].min()
    return np.unique(parts, return_inverse=True)[1]


def summed(probabilities: ArrayLike, parts: NDArray[np.intp]) -> NDArray[np.float64]:
    """(pixel, part) probabilities from those of channels, added in their order: the same bits in any block."""
    given = np.asarray(probabilities, np.float64)
    total = np.zeros((len(given), int(parts.max()) + 1))
    for channel, part in enumerate(parts):
        total[:, part] += given[:, channel]
    return total


@dataclass(frozen=True, slots=True)
class Sample:
    """Labelled pixels and what was predicted there.

    Attributes:
        probabilities: (pixel, channel) float32.
        reference: (pixel,) the part that is right.
        cells: (pixel,) number of the cell of the scene that it lies in.
        parts: (channel,) see `parts_of`.
    """

    probabilities: NDArray[np.float32]
    reference: NDArray[np.uint8]
    cells: NDArray[np.int64]
    parts: NDArray[np.intp]

    def __post_init__(self) -> None:
        lengths = {len(self.probabilities), len(self.reference), len(self.cells)}
        if len(lengths) > 1:
            raise InputError(f"Probabilities, reference and cells are of {sorted(lengths)} pixels; they must agree.")

    def __len__(self) -> int:
        return len(self.reference)

    def where(self, kept: NDArray[np.bool_]) -> Sample:
        return Sample(self.probabilities[kept], self.reference[kept], self.cells[kept], self.parts)

    def reliability(self, temperature: float = 1.0) -> Reliability:
        """Of these pixels, as they would be at another temperature."""
        found = Reliability()
        if len(self):
            spread = summed(heated(self.probabilities, temperature), self.parts)
            found.add(spread.max(1), spread.argmax(1) == self.reference)
        return found

    def temperature(self) -> float:
        """The temperature of least cross-entropy (Guo et al. 2017), within `RANGE`.

        Logits are known from probabilities but for a constant, which does not matter. The best of a few temperatures
        is found first, then the minimum between its neighbours by golden section.
        """
        logits = np.log(np.maximum(self.probabilities.astype(np.float64), SMALLEST))
        right = self.parts[None] == self.reference[:, None].astype(np.intp)

        def entropy(log_temperature: float) -> float:
            spread = (_softmax(logits / np.exp(log_temperature)) * right).sum(1)
            return float(-np.log(np.maximum(spread, np.finfo(float).tiny)).mean())

        tried = np.linspace(np.log(RANGE[0]), np.log(RANGE[1]), 13)
        best = int(np.argmin([entropy(value) for value in tried]))
        low, high = tried[max(0, best - 1)], tried[min(len(tried) - 1, best + 1)]
        for _ in range(28):
            left, right_hand = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
            low, high = (low, right_hand) if entropy(left) <= entropy(right_hand) else (left, high)
        return float(np.exp((low + high) / 2))


@dataclass(frozen=True, slots=True)
class Calibration:
    """A temperature, and what it changes on pixels that it was not fitted to.

    Attributes:
        temperature: logits are to be divided by it.
        ece_before: expected calibration error of the sample as predicted.
        ece_after: each half of the cells at the temperature that the other half gives.
        pixels: of the sample.
        held_out: whether `ece_after` is of other cells than the fit's; not with a single cell.
    """

    temperature: float
    ece_before: float
    ece_after: float
    pixels: int
    held_out: bool

    def to_card(self) -> dict[str, float]:
        """What a model card says of it, rounded."""
        return {
            "temperature": round(self.temperature, 4),
            "ece_before": round(self.ece_before, 4),
            "ece_after": round(self.ece_after, 4),
            "pixels": self.pixels,
        }


def calibrate(sample: Sample, *, applied: float = 1.0) -> Calibration | None:
    """Fit a temperature to held-out pixels and say what it is worth; None without pixels.

    The error after is measured by cross-fitting: cells are dealt into two halves, and each is judged at the temperature
    that the other half gives.

    Args:
        sample: held-out pixels.
        applied: temperature that their probabilities were made with; what is found here comes on top.
    """
    if len(sample) == 0:
        return None
    temperature = sample.temperature()
    numbers = np.unique(sample.cells)
    first = np.isin(sample.cells, np.random.default_rng(0).permutation(numbers)[: len(numbers) // 2])
    before = sample.reliability().ece
    if not first.any():
        return Calibration(
            applied * temperature, before, sample.reliability(temperature).ece, len(sample), held_out=False
        )
    halves = sample.where(first), sample.where(~first)
    fitted = [half.temperature() for half in reversed(halves)]
    after = halves[0].reliability(fitted[0]) + halves[1].reliability(fitted[1])
    return Calibration(applied * temperature, before, after.ece, len(sample), held_out=True)


def heated(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """(pixel, class) probabilities as they would be with logits divided by a temperature."""
    given = np.asarray(probabilities, np.float64)
    return given if temperature == 1 else _softmax(np.log(np.maximum(given, SMALLEST)) / temperature)


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(logits - logits.max(1, keepdims=True))
    spread: NDArray[np.float64] = power / power.sum(1, keepdims=True)
    return spread
