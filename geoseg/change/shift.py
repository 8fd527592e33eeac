"""How far one date lies beside another: sub-pixel shifts of many windows by phase correlation, pooled by their median.

A single window may be far off where seasons or light differ, and does not show it; so there are several, and where they
disagree nothing is told.

Phase correlation with an upsampled peak is that of Guizar-Sicairos et al. 2008 (doi:10.1364/OL.33.000156), as
scikit-image has it. Gradients are correlated rather than brightness: edges of roads and roofs stay where seasons and
light change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_gradient_magnitude
from skimage.registration import phase_cross_correlation

from geoseg.grid import Window
from geoseg.raster.reader import Pixels

WINDOW = 256  # pixels, at most; a small scene has four
LEAST_WINDOW = 32
WINDOWS = 64  # looked at, at most
LEAST_VALID = 0.9  # of a window
UPSAMPLED = 20  # a peak is found to a twentieth of a pixel
FAR = 4.0  # of the spread: windows beyond are no longer counted
AGREED = 1.0  # pixels from the median within which half of the windows lie

Read = Callable[[Window], Pixels]


class Shift(NamedTuple):
    """By how much the second date must be moved to lie on the first.

    Attributes:
        rows: pixels downwards.
        cols: pixels to the right.
        spread: of the windows, pixels: 1.48 times the median distance from the median.
        windows: that agree.
    """

    rows: float
    cols: float
    spread: float
    windows: int


def estimate_shift(before: Read, after: Read, shape: tuple[int, int], *, seed: int = 0) -> Shift | None:
    """The shift between two dates on one grid; None where there is nothing to tell it by, or windows disagree.

    Args:
        before: reads a window of the first date.
        after: reads a window of the second date.
        shape: rows and columns of the grid.
        seed: of the choice of windows where there are many.
    """
    found = [_shift_of(before(window), after(window)) for window in _windows(shape, seed)]
    shifts = np.array([shift for shift in found if shift is not None]).reshape(-1, 2)
    if not len(shifts):
        return None
    middle = np.median(shifts, axis=0)
    distance = np.hypot(*(shifts - middle).T)
    if np.median(distance) > AGREED:
        return None
    spread = 1.48 * float(np.median(distance))
    near = distance <= max(FAR * spread, 2 / UPSAMPLED)
    rows, cols = np.median(shifts[near], axis=0)
    return Shift(float(rows), float(cols), spread, int(near.sum()))


def _windows(shape: tuple[int, int], seed: int) -> list[Window]:
    side = min(WINDOW, max(LEAST_WINDOW, min(shape) // 2), *shape)
    rows, cols = (range(0, length - side + 1, side) for length in shape)
    windows = [Window(row, col, side, side) for row in rows for col in cols]
    if len(windows) <= WINDOWS:
        return windows
    chosen = np.random.default_rng(seed).permutation(len(windows))[:WINDOWS]
    return [windows[index] for index in sorted(chosen)]


def _shift_of(before: Pixels, after: Pixels) -> tuple[float, float] | None:
    known = before.valid & after.valid
    if known.mean() < LEAST_VALID:
        return None
    pictures = [_edges(pixels.values, known) for pixels in (before, after)]
    if not all(picture.any() for picture in pictures):
        return None
    correlate: Any = phase_cross_correlation  # untyped
    (rows, cols), _, _ = correlate(*pictures, upsample_factor=UPSAMPLED, normalization=None)
    return float(rows), float(cols)


def _edges(values: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Length of the gradient, without its mean, fading towards the rim."""
    gray = values.astype(np.float64).mean(0)
    gray[~known] = gray[known].mean()
    edges = gaussian_gradient_magnitude(gray, 1.0)
    fade = np.outer(*(np.hanning(length + 2)[1:-1] for length in gray.shape))
    faded: NDArray[np.float64] = (np.minimum(edges, np.percentile(edges, 99)) - edges.mean()) * fade
    return faded
