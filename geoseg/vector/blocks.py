"""The blocks of a raster, each read once, handed to the tracer with the halo that it needs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geoseg.errors import BlockError, GeosegError, InputError
from geoseg.grid import Window
from geoseg.vector.trace import BACKGROUND, BlockTrace, trace_block

THREADS = 4
"""Blocks traced at once, at most: each costs memory, and joining takes its time on one core."""

Progress = Callable[[int, int], None]
"""Called after each block with the pixels done and the pixels of the raster."""


class BlockPixels(NamedTuple):
    """What is read of one block.

    Attributes:
        codes: (height, width) int32, BACKGROUND for no polygon.
        confidence: (height, width) int32 units, -1 where unknown; None where there is none.
        levels: (height, width) uint8, the same in levels, for percentiles.
    """

    codes: NDArray[np.int32]
    confidence: NDArray[np.int32] | None = None
    levels: NDArray[np.uint8] | None = None


@dataclass(frozen=True, slots=True)
class Blocks:
    """A raster cut along whole rows and columns.

    Attributes:
        rows: first row of each block row, and the raster's height at the end.
        cols: first column of each block column, and the raster's width at the end.
    """

    rows: tuple[int, ...]
    cols: tuple[int, ...]

    @classmethod
    def regular(cls, shape: tuple[int, int], block: int) -> Self:
        """Squares of `block` pixels, clipped at the far edges."""
        if block < 1:
            raise InputError(f"A block is 1 pixel or more, not {block}.")
        rows, cols = ((*range(0, size, block), size) for size in shape)
        return cls(rows, cols)

    @classmethod
    def from_chunks(cls, chunks: Sequence[Sequence[int]], block: int) -> Self:
        """Whole chunks, as many together as fit into `block` pixels, so that each chunk is computed once."""
        rows, cols = (_grouped_edges(sizes, block) for sizes in chunks)
        return cls(rows, cols)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the raster."""
        return self.rows[-1], self.cols[-1]

    def __iter__(self) -> Iterator[Window]:
        for row, row_stop in zip(self.rows[:-1], self.rows[1:], strict=True):
            for col, col_stop in zip(self.cols[:-1], self.cols[1:], strict=True):
                yield Window(row, col, row_stop - row, col_stop - col)


def _grouped_edges(sizes: Sequence[int], block: int) -> tuple[int, ...]:
    ends = [int(end) for end in np.cumsum(sizes)]
    edges = [0]
    for end, following in zip(ends, [*ends[1:], None], strict=True):
        if following is None or following - edges[-1] > block:
            edges.append(end)
    return tuple(edges)


def trace_blocks(
    read: Callable[[Window], BlockPixels], blocks: Blocks, progress: Progress | None = None
) -> Iterator[BlockTrace]:
    """Read block after block, and trace up to `THREADS` of them at once.

    Raises:
        BlockError: a block could not be read; the message has its window.
    """
    total, done = blocks.shape[0] * blocks.shape[1], 0
    threads = min(THREADS, os.cpu_count() or 1)
    waiting: deque[Future[BlockTrace]] = deque()
    with ThreadPoolExecutor(threads) as pool:

        def first() -> BlockTrace:
            nonlocal done
            trace = waiting.popleft().result()
            done += trace.window.area
            if progress is not None:
                progress(done, total)
            return trace

        for window, codes, pixels in _with_halos(read, blocks):
            confidence = pixels.confidence, pixels.levels
            waiting.append(pool.submit(trace_block, codes, window, blocks.shape[1], *confidence))
            if len(waiting) > threads:
                yield first()
        while waiting:
            yield first()


def _with_halos(
    read: Callable[[Window], BlockPixels], blocks: Blocks
) -> Iterator[tuple[Window, NDArray[np.int32], BlockPixels]]:
    """Window, codes with a halo, and pixels of each block.

    The last row above and the last column to the left are kept, so that no pixel is read twice: where reading means
    computing (a lazy array), a halo read anew would compute its neighbors again.
    """
    height, width = blocks.shape
    above = np.full(width + 2, BACKGROUND, np.int32)  # raster column c is at c + 1
    below = above.copy()
    left = np.empty(0, np.int32)
    for window in blocks:
        with _block_errors(window):
            pixels = read(window)
        last_row, last_col = window.row_stop == height, window.col_stop == width
        codes = np.full((window.height + 1 + last_row, window.width + 1 + last_col), BACKGROUND, np.int32)
        codes[1 : window.height + 1, 1 : window.width + 1] = pixels.codes
        codes[0, :] = above[window.col : window.col + codes.shape[1]]
        if window.col > 0:
            codes[1 : window.height + 1, 0] = left
        left = codes[1 : window.height + 1, window.width].copy()
        below[window.col + 1 : window.col_stop + 1] = codes[window.height, 1 : window.width + 1]
        if last_col:
            above, below = below, above
        yield window, codes, pixels


@contextmanager
def _block_errors(window: Window) -> Iterator[None]:
    try:
        yield
    except GeosegError:
        raise
    except (RasterioError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise BlockError(f"The block at {window} could not be read: {error}") from error
