"""Weights that add up to one at every pixel, the weighted sum of chips, and reflection in scene coordinates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geoseg.grid.chips import ChipGrid
from geoseg.grid.window import Window


def chip_weights(grid: ChipGrid, index: tuple[int, int]) -> NDArray[np.float32]:
    """Weight of each pixel of one chip, (chip, chip) float32, 0 outside its core and half a ramp around it.

    Summed over all chips the weights are 1 at every pixel of the scene; with a ramp of 0 each is 0 or 1.
    """
    rows, cols = (_weights_along(grid, at, at == count - 1) for at, count in zip(index, grid.core_counts, strict=True))
    return np.multiply.outer(rows, cols)


def add_chip(
    total: NDArray[np.float32], window: Window, grid: ChipGrid, index: tuple[int, int], logits: NDArray[np.float32]
) -> None:
    """Add one chip's weighted logits to the total of a window.

    Called for the window's cores in row-major order, the sum at a pixel does not depend on the window.

    Args:
        total: (class, height, width) of the window, changed in place.
        window: pixels of the scene.
        grid: where the chip lies.
        index: core (row, column).
        logits: (class, chip, chip).
    """
    chip = grid.chip_window(index)
    shared = grid.core_window(index).padded(grid.ramp // 2).intersection(window)
    rows, cols = shared.relative_to(window).slices
    chip_rows, chip_cols = shared.relative_to(chip).slices
    weights = chip_weights(grid, index)[chip_rows, chip_cols]
    total[:, rows, cols] += weights * logits[:, chip_rows, chip_cols]


def reflect(start: int, stop: int, length: int) -> NDArray[np.intp]:
    """Indices in 0..length-1 for positions start..stop-1, mirrored at the first and last pixel as often as needed."""
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    position = np.arange(start, stop) % period
    return np.where(position < length, position, period - position).astype(np.intp)


def needed(footprint: Window, shape: tuple[int, int]) -> Window:
    """The pixels of a scene of `shape` that fill a footprint, those mirrored over its edges among them."""
    rows = reflect(footprint.row, footprint.row_stop, shape[0])
    cols = reflect(footprint.col, footprint.col_stop, shape[1])
    row, col = int(rows.min()), int(cols.min())
    return Window(row, col, int(rows.max()) + 1 - row, int(cols.max()) + 1 - col)


def _weights_along(grid: ChipGrid, core: int, last: bool) -> NDArray[np.float32]:
    """Weights along one axis; at the scene's own edges there is no neighbour to share with, and no ramp."""
    half = grid.ramp // 2
    weights = np.zeros(grid.chip, np.float32)
    weights[grid.halo - half : grid.halo + grid.core + half] = 1
    position = (np.arange(grid.ramp) + 0.5) / max(1, grid.ramp)
    rise = (0.5 - 0.5 * np.cos(np.pi * position)).astype(np.float32)
    if half and core > 0:
        weights[grid.halo - half : grid.halo + half] = rise
    if half and not last:
        weights[grid.halo + grid.core - half : grid.halo + grid.core + half] = 1 - rise
    return weights
