"""From the pixels of one grid to those of another whose axes are parallel: pure NumPy.

Why not GDAL's warper: its answer for a pixel may depend on the window it was asked for. Here every target pixel is a
fixed sum over a fixed list of source pixels (its taps), worked out from its absolute position and added in a fixed
order. So any two windows agree, bit for bit, on the pixels they share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kernel = Literal["nearest", "bilinear", "average"]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axis:
    """Where the pixels of one target axis lie on a source axis.

    Attributes:
        scale: source pixels per target pixel.
        offset: position of the target's first edge, in source pixels.
        size: number of source pixels.
        kernel: `nearest` copies, `bilinear` is for scale < 1 or a shift, `average` weights by the shared length.
    """

    scale: float
    offset: float
    size: int
    kernel: Kernel

    @property
    def is_identity(self) -> bool:
        return self.kernel == "nearest" and self.scale == 1

    def covers(self, count: int) -> bool:
        """Whether the first and the last of `count` target pixels have a source."""
        return bool(self.taps(0, 1)[1].any() and self.taps(count - 1, count)[1].any())

    def span(self, start: int, stop: int) -> tuple[int, int]:
        """First and last + 1 source pixel that the target pixels start..stop - 1 need, clipped to the source."""
        index, weight = self.taps(start, stop)
        used = index[weight > 0]
        if used.size == 0:
            return 0, 0
        return max(0, int(used.min())), min(self.size, int(used.max()) + 1)

    def taps(self, start: int, stop: int) -> tuple[NDArray[np.int64], Floats]:
        """Source pixels and their weights, (stop - start, taps); a pixel outside the source has weight 0."""
        target = np.arange(start, stop, dtype=np.float64)
        index, weight = _TAPS[self.kernel](target * self.scale + self.offset, self.scale)
        inside = (index >= 0) & (index < self.size)
        return index, np.where(inside, weight, 0.0)


def _nearest(edge: Floats, scale: float) -> tuple[NDArray[np.int64], Floats]:
    index = np.floor(edge + scale / 2).astype(np.int64)[:, None]
    return index, np.ones(index.shape)


def _bilinear(edge: Floats, scale: float) -> tuple[NDArray[np.int64], Floats]:
    center = edge + scale / 2 - 0.5
    first = np.floor(center)
    share = center - first
    index = first.astype(np.int64)[:, None] + np.arange(2)
    return index, np.stack([1 - share, share], axis=1)


def _average(edge: Floats, scale: float) -> tuple[NDArray[np.int64], Floats]:
    first = np.floor(edge)
    index = first.astype(np.int64)[:, None] + np.arange(math.ceil(scale) + 1)
    shared = np.minimum(index + 1, edge[:, None] + scale) - np.maximum(index, edge[:, None])
    return index, np.maximum(shared, 0.0)


_TAPS = {"nearest": _nearest, "bilinear": _bilinear, "average": _average}


def gather(
    values: NDArray[Any], valid: Bools, taps: tuple[tuple[NDArray[np.int64], Floats], tuple[NDArray[np.int64], Floats]]
) -> tuple[NDArray[Any], Bools]:
    """Target pixels from source pixels.

    Args:
        values: (bands, height, width) of the source part that was read.
        valid: (height, width), True = measured; other pixels carry no weight.
        taps: of the rows and of the columns, with indices into `values`.

    Returns:
        Values (bands, rows, columns) in the dtype of `values`, and where at least half of the weight was valid.
    """
    (rows, row_weight), (cols, col_weight) = taps
    if rows.shape[1] == cols.shape[1] == 1:
        return _copy(values, valid, taps)
    known = np.where(valid, values, 0).astype(np.float64)
    total = _weigh(_weigh(known, rows, row_weight, axis=1), cols, col_weight, axis=2)
    weight = _weigh(_weigh(valid[None].astype(np.float64), rows, row_weight, axis=1), cols, col_weight, axis=2)[0]
    inside = row_weight.sum(axis=1)[:, None] * col_weight.sum(axis=1)[None]
    measured = (weight > 0) & (weight >= 0.5 * inside * (1 - 1e-12))
    mean = total / np.where(weight > 0, weight, 1.0)
    return _to_dtype(mean, values.dtype), measured


def _copy(
    values: NDArray[Any], valid: Bools, taps: tuple[tuple[NDArray[np.int64], Floats], tuple[NDArray[np.int64], Floats]]
) -> tuple[NDArray[Any], Bools]:
    (rows, row_weight), (cols, col_weight) = taps
    height, width = valid.shape
    inside = (row_weight[:, 0] > 0)[:, None] & (col_weight[:, 0] > 0)[None]
    if height == 0 or width == 0:
        return np.zeros((values.shape[0], *inside.shape), values.dtype), np.zeros(inside.shape, np.bool_)
    at = np.clip(rows[:, 0], 0, height - 1)[:, None], np.clip(cols[:, 0], 0, width - 1)[None]
    return np.where(inside, values[:, at[0], at[1]], np.zeros((), values.dtype)), inside & valid[at]


def _weigh(values: Floats, index: NDArray[np.int64], weight: Floats, *, axis: int) -> Floats:
    """Sum of weight x value along `axis`, tap after tap: the order of additions never depends on the window."""
    size = values.shape[axis]
    shape = list(values.shape)
    shape[axis] = len(index)
    result = np.zeros(shape)
    if size == 0:
        return result
    spread = (slice(None), None) if axis == 1 else (None, slice(None))
    for tap in range(index.shape[1]):
        taken = np.take(values, np.clip(index[:, tap], 0, size - 1), axis=axis)
        result += taken * weight[:, tap][spread]
    return result


def _to_dtype(values: Floats, dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
