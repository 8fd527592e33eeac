"""The runs of a block: pixels of one code in a row, and what is counted over them for each component."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.vector.kernels import compiled
from geoseg.vector.levels import UNKNOWN


class Components(NamedTuple):
    """4-connected pixels of one code, counted without the halo.

    Attributes:
        code: (components,) int32.
        pixels: (components,) int64, number of pixels.
        first: (components,) int64, row * raster width + column of the first pixel in row-major order.
        confidence_sum: (components,) int64, sum of confidence units.
        confidence_count: (components,) int64, pixels with a known confidence.
    """

    code: NDArray[np.int32]
    pixels: NDArray[np.int64]
    first: NDArray[np.int64]
    confidence_sum: NDArray[np.int64]
    confidence_count: NDArray[np.int64]


class Runs(NamedTuple):
    """Rows of pixels cut where the code changes, row by row.

    Attributes:
        start: (runs,) first column.
        code: (runs,) of all pixels of the run.
        row: (rows + 1,) where each row's runs begin.
    """

    start: NDArray[np.int32]
    code: NDArray[np.int32]
    row: NDArray[np.int64]


@compiled
def find_runs(codes: NDArray[np.int32]) -> Runs:
    height, width = codes.shape
    start = np.empty(codes.size, np.int32)
    row = np.empty(height + 1, np.int64)
    count = 0
    for i in range(height):
        row[i] = count
        start[count] = 0
        count += 1
        for j in range(1, width):
            start[count if count < start.size else 0] = j  # written always, kept only where a run begins: no branch
            count += codes[i, j] != codes[i, j - 1]
    row[height] = count
    code = np.empty(count, np.int32)
    for i in range(height):
        for run in range(row[i], row[i + 1]):
            code[run] = codes[i, start[run]]
    return Runs(start[:count].copy(), code, row)


@compiled
def measure(
    runs: Runs, labels: NDArray[np.int32], count: int, window: tuple[int, int, int, int], raster_width: int
) -> Components:
    row, col, height, width = window
    code = np.empty(count, np.int32)
    pixels = np.zeros(count, np.int64)
    first = np.full(count, np.iinfo(np.int64).max, np.int64)
    for i in range(runs.row.size - 1):
        for run in range(runs.row[i], runs.row[i + 1]):
            label = labels[run]
            if label < 0:
                continue
            code[label] = runs.code[run]
            begin, end = own_columns(runs, i, run, width)
            if 1 <= i <= height and begin < end:
                first[label] = min(first[label], (row + i - 1) * raster_width + col + begin - 1)
                pixels[label] += end - begin
    return Components(code, pixels, first, np.zeros(count, np.int64), np.zeros(count, np.int64))


@compiled
def own_columns(runs: Runs, row: int, run: int, width: int) -> tuple[int, int]:
    """Columns of the padded block that the run covers, halo left out."""
    end = runs.start[run + 1] if run + 1 < runs.row[row + 1] else width + 1
    return max(runs.start[run], 1), min(end, width + 1)


@compiled
def add_confidence(
    runs: Runs, labels: NDArray[np.int32], confidence: NDArray[np.int32], components: Components
) -> None:
    height, width = confidence.shape
    for i in range(1, height + 1):
        for run in range(runs.row[i], runs.row[i + 1]):
            label = labels[run]
            begin, end = own_columns(runs, i, run, width)
            total, known = 0, 0
            for j in range(begin, end):
                units = confidence[i - 1, j - 1]
                total += units if units >= 0 else 0
                known += units >= 0
            if label >= 0:
                components.confidence_sum[label] += total
                components.confidence_count[label] += known


@compiled
def count_levels(
    runs: Runs, labels: NDArray[np.int32], count: int, levels: NDArray[np.uint8]
) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """How often each level of confidence occurs in each component, as `Levels`.

    The runs of a component are looked at together, so that one table of all levels does for all components.
    """
    height, width = levels.shape
    begin, row, run = _runs_by_label(runs, labels, count, height)
    capacity = min(levels.size, UNKNOWN * count)
    offsets = np.zeros(count + 1, np.int64)
    level, pixels = np.empty(capacity, np.uint8), np.empty(capacity, np.int64)
    total = np.zeros(UNKNOWN + 1, np.int64)
    filled = 0
    for label in range(count):
        low, high = UNKNOWN, -1
        for at in range(begin[label], begin[label + 1]):
            first, end = own_columns(runs, row[at], run[at], width)
            for j in range(first, end):
                value = levels[row[at] - 1, j - 1]
                total[value] += 1
                low, high = min(low, value), max(high, value)
        for value in range(low, min(high, UNKNOWN - 1) + 1):
            if total[value] > 0:
                level[filled], pixels[filled] = value, total[value]
                total[value] = 0
                filled += 1
        total[UNKNOWN] = 0
        offsets[label + 1] = filled
    return offsets, level[:filled].copy(), pixels[:filled].copy()


@compiled
def _runs_by_label(
    runs: Runs, labels: NDArray[np.int32], count: int, height: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where each component's runs begin, and row and number of the runs in that order; none of the halo."""
    begin = np.zeros(count + 2, np.int64)
    for run in range(runs.row[1], runs.row[height + 1]):
        begin[labels[run] + 2] += 1  # background, -1, comes first
    begin = np.cumsum(begin)
    row, order = np.empty(begin[-1], np.int64), np.empty(begin[-1], np.int64)
    for i in range(1, height + 1):
        for run in range(runs.row[i], runs.row[i + 1]):
            at = begin[labels[run] + 1]
            row[at], order[at] = i, run
            begin[labels[run] + 1] += 1  # in the end, where the next one begins
    return begin, row, order
