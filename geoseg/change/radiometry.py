"""One date in the light of another: what each band's stored numbers would have been on the other date.

Nothing is found chip by chip: one line or curve for each band comes from pixels spread evenly over the whole scene.

- `mad`: pixels that have not changed are found by iteratively reweighted multivariate alteration detection (Nielsen
  2007, doi:10.1109/TIP.2006.888195), which no gain or offset misleads; a line is fitted through them by orthogonal
  regression (Canty & Nielsen 2008, doi:10.1016/j.rse.2007.07.013).
- `histogram`: each band gets the distribution of the other date. Much change bends it; one band suffices.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh, solve
from scipy.stats import chi2

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.reader import Pixels

log = logging.getLogger(__name__)
Method = Literal["none", "mad", "histogram"]
METHODS: tuple[Method, ...] = ("none", "mad", "histogram")
Floats = NDArray[np.float64]
Read = Callable[[Window], Pixels]

MOST_PIXELS = 2**19  # that are looked at
LEAST_PIXELS = 100  # that a line or a curve is fitted to
STRIP = 2**23  # pixels read at once, in whole rows
ROUNDS = 60
SETTLED = 1e-4  # of the canonical correlations
UNCHANGED = 0.95  # probability from which on a pixel counts as not changed
KNOTS = 1024  # of a curve, at most


class Curve(NamedTuple):
    """A band's stored numbers, and what they become: straight between knots.

    Attributes:
        at: (knot,) stored numbers, increasing.
        values: (knot,) what they become.
        gain: of a line; NaN for a curve.
        offset: likewise.
    """

    at: Floats
    values: Floats
    gain: float = math.nan
    offset: float = math.nan

    def __call__(self, stored: NDArray[Any]) -> Floats:
        """Beyond the knots a curve stays as it is; a line reaches as far as the numbers that can be stored."""
        if math.isnan(self.gain):
            return np.asarray(np.interp(stored, self.at, self.values), np.float64)
        return self.gain * np.asarray(stored, np.float64) + self.offset


SAME = Curve(np.array([0.0, 1.0]), np.array([0.0, 1.0]), 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Radiometry:
    """How the stored numbers of one date become those of another.

    Attributes:
        method: by which it was found.
        bands: their names.
        curves: one for each band.
        pixels: that were looked at.
        unchanged: of them, those that the lines go through; for a histogram all.
    """

    method: Method
    bands: tuple[str, ...]
    curves: tuple[Curve, ...]
    pixels: int
    unchanged: int

    def apply(self, stored: NDArray[Any], nodata: float | None = None) -> NDArray[Any]:
        """(band, height, width) as it would be stored on the other date; nodata stays, and nothing else becomes it."""
        out = np.empty_like(stored)
        for values, curve, found in zip(stored, self.curves, out, strict=True):
            found[:] = as_stored(curve(values), stored.dtype, nodata)
            if nodata is not None and math.isfinite(nodata):
                found[values == nodata] = nodata
        return out

    def told(self) -> str:
        """For people."""
        if self.method == "histogram":
            return f"histograms of {self.pixels:,} pixels"
        lines = ", ".join(
            f"{name} x {curve.gain:.3f} {curve.offset:+.2f}"
            for name, curve in zip(self.bands, self.curves, strict=True)
        )
        return f"{lines}; {self.unchanged:,} of {self.pixels:,} pixels taken as unchanged"

    def to_dict(self) -> dict[str, Any]:
        """Numbers as JSON values."""
        lines = {
            name: {"gain": curve.gain, "offset": curve.offset}
            for name, curve in zip(self.bands, self.curves, strict=True)
            if not math.isnan(curve.gain)
        }
        return {"method": self.method, "pixels": self.pixels, "unchanged": self.unchanged, "lines": lines or None}


def stored_range(dtype: np.dtype[Any], nodata: float | None) -> tuple[float, float]:
    """Least and largest number that can be stored as a measurement."""
    if dtype.kind not in "ui":
        return -math.inf, math.inf
    low, high = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    return low + (nodata == low), high - (nodata == high)


def as_stored(values: Floats, dtype: np.dtype[Any], nodata: float | None) -> NDArray[Any]:
    """Rounded, where integers are stored, as GDAL does."""
    low, high = stored_range(dtype, nodata)
    found: NDArray[Any] = (np.floor(values + 0.5).clip(low, high) if dtype.kind in "ui" else values).astype(dtype)
    return found


def find_radiometry(
    reference: Read, date: Read, shape: tuple[int, int], *, bands: tuple[str, ...], method: Method
) -> Radiometry:
    """How a date's numbers become those of another on the same grid.

    Args:
        reference: reads a window of the date whose light is wanted, with the bands named.
        date: reads a window of the other, with the same bands.
        shape: rows and columns of the grid.
        bands: their names.
        method: see the module.

    Raises:
        InputError: too few pixels are known on both dates, or are alike.
    """
    step = sampling_step(shape)
    parts: list[tuple[Floats, Floats]] = []
    rows = max(1, STRIP // shape[1] // step) * step
    for row in range(0, shape[0], rows):
        window = Window(row, 0, min(rows, shape[0] - row), shape[1])
        one, two = reference(window), date(window)
        kept = (one.valid & two.valid)[::step, ::step]
        parts.append(tuple(pixels.values[:, ::step, ::step][:, kept].T.astype(np.float64) for pixels in (one, two)))  # type: ignore[arg-type]
    wanted, given = (np.concatenate(side) for side in zip(*parts, strict=True))
    return fit_radiometry(wanted, given, bands=bands, method=method)


def sampling_step(shape: tuple[int, int]) -> int:
    """Of every so many rows and columns, one is looked at."""
    return max(1, math.ceil(math.sqrt(shape[0] * shape[1] / MOST_PIXELS)))


def fit_radiometry(wanted: Floats, given: Floats, *, bands: tuple[str, ...], method: Method) -> Radiometry:
    """From pairs of pixels, (pixel, band) each, to lines or curves.

    Raises:
        InputError: there are too few, or too few that are alike.
    """
    if len(wanted) < LEAST_PIXELS:
        raise InputError(
            f"Radiometry needs {LEAST_PIXELS} pixels that are known on both dates; there are {len(wanted)}. "
            "Leave it out."
        )
    if method == "histogram":
        curves = tuple(histogram_curve(*pair) for pair in zip(wanted.T, given.T, strict=True))
        return Radiometry(method, bands, curves, len(wanted), len(wanted))
    alike = no_change_probability(wanted, given) > UNCHANGED
    if alike.sum() < LEAST_PIXELS:
        raise InputError(
            f"Only {int(alike.sum())} of {len(wanted):,} pixels are alike on both dates, too few to fit their light; "
            "use histogram, or none."
        )
    lines = [_line(*pair) for pair in zip(wanted[alike].T, given[alike].T, strict=True)]
    if not any(lines):
        raise InputError(
            "No band of one date grows with that of the other where nothing changed; use histogram, or none."
        )
    for band, line in zip(bands, lines, strict=True):
        if line is None:
            log.warning("Band %s does not grow with that of the other date where nothing changed; it stays.", band)
    return Radiometry(method, bands, tuple(line or SAME for line in lines), len(wanted), int(alike.sum()))


def no_change_probability(one: Floats, two: Floats) -> Floats:
    """(pixel,) of two dates, (pixel, band) each, whatever gain and offset lie between them."""
    bands = one.shape[1]
    weights = np.ones(len(one))
    before = np.zeros(bands)
    for turn in range(ROUNDS):
        means = [np.average(values, 0, weights) for values in (one, two)]
        centered = np.concatenate([values - mean for values, mean in zip((one, two), means, strict=True)], 1)
        spread = (centered * weights[:, None]).T @ centered / weights.sum()
        spread += np.eye(2 * bands) * (1e-9 * np.trace(spread) + 1e-12)  # bands may be equal or empty
        correlations, first, second = _canonical(spread, bands)
        variates = centered[:, :bands] @ first - centered[:, bands:] @ second
        variances = np.maximum(2 * (1 - correlations), 1e-6) / (weighted_variance(bands) if turn else 1)
        distance = (variates**2 / variances).sum(1)
        weights = np.maximum(chi2.sf(distance, bands), 1e-12)
        if np.abs(correlations - before).max() < SETTLED:
            break
        before = correlations
    return np.asarray(weights, np.float64)


@cache
def weighted_variance(bands: int) -> float:
    """Of standard normal variates where each pixel weighs what its own distance says.

    Without that, each round would find the variance smaller, and fewer pixels unchanged.
    """
    return float(2 / bands * chi2(bands).expect(lambda distance: distance * chi2.sf(distance, bands)))


def _canonical(spread: Floats, bands: int) -> tuple[Floats, Floats, Floats]:
    """Canonical correlations, and the weights (band, variate) of both dates, by which variates have variance 1."""
    own, across, other = spread[:bands, :bands], spread[:bands, bands:], spread[bands:, bands:]
    squares, first = eigh(across @ solve(other, across.T, assume_a="pos"), own)
    second = solve(other, across.T @ first, assume_a="pos")
    size = np.sqrt(np.maximum(np.einsum("ij,ik,kj->j", second, other, second), 1e-12))
    return np.sqrt(np.clip(squares, 0, 1)), np.asarray(first), np.asarray(second / size)


def _line(wanted: Floats, given: Floats) -> Curve | None:
    """By orthogonal regression, as both dates are measured with errors; None where one does not grow with the other."""
    (xx, xy), (_, yy) = np.cov(given, wanted)
    if not xy > 0:
        return None
    gain = (yy - xx + math.hypot(yy - xx, 2 * xy)) / (2 * xy)
    offset = float(wanted.mean() - gain * given.mean())
    ends = np.array([given.min(), max(given.max(), given.min() + 1)])
    return Curve(ends, gain * ends + offset, float(gain), offset)


def histogram_curve(wanted: Floats, given: Floats) -> Curve:
    """By which the given numbers are distributed as the wanted ones: equal shares of pixels lie below equal knots."""
    there, counts = np.unique(wanted, return_counts=True)
    at, own = np.unique(given, return_counts=True)
    values = np.interp(np.cumsum(own) / own.sum(), np.cumsum(counts) / counts.sum(), there)
    if len(at) > KNOTS:  # half of the knots where pixels are many, half where numbers are far apart
        even = np.searchsorted(at, np.linspace(at[0], at[-1], KNOTS // 2))
        kept = np.union1d(np.round(np.linspace(0, len(at) - 1, KNOTS // 2)).astype(int), even)
        at, values = at[kept], values[kept]
    return Curve(at, values)
