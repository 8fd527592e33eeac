"""The blocks of a raster, each traced alone, and the seams between them, traced when all are there.

A block needs one row above and one column to the left of the pixels it traces. Its own first row and column are these
for the rest of it, so that it needs no neighbor: blocks may be traced in any order, by any process, right where their
pixels are computed. What is left are strips of one pixel, the first row and column of each block. They are blocks, too,
and need only the outermost pixels on both sides of each border: those are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geoseg.errors import BlockError, GeosegError, InputError
from geoseg.grid import Window
from geoseg.vector.threads import THREADS, in_threads
from geoseg.vector.trace import BACKGROUND, BlockTrace, trace_block

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

    def part(self, rows: slice, cols: slice) -> BlockPixels:
        """A copy of some rows and columns."""
        return BlockPixels(*(None if layer is None else layer[rows, cols].copy() for layer in self))  # type: ignore[arg-type]


class LoneTrace(NamedTuple):
    """What one block contributes without its neighbors.

    Attributes:
        window: the block.
        inner: of the pixels that have a neighbor above and to the left in the block, or none in the raster; None where
            there are none.
        top: first row, (1, width).
        left: first column, (height, 1).
        bottom: codes of the last row, (1, width).
        right: codes of the last column, (height, 1).
    """

    window: Window
    inner: BlockTrace | None
    top: BlockPixels
    left: BlockPixels
    bottom: NDArray[np.int32]
    right: NDArray[np.int32]


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
    """Read block after block in this thread, and trace up to `THREADS` of them at once; then the seams.

    Raises:
        BlockError: a block could not be read; the message has its window.
    """
    total, done = blocks.shape[0] * blocks.shape[1], 0
    alone = []
    pixels = ((window, _read(read, window)) for window in blocks)
    for lone in in_threads(lambda given: trace_alone(given[1], given[0], blocks.shape), pixels, THREADS):
        done += lone.window.area
        if progress is not None:
            progress(done, total)
        if lone.inner is not None:
            yield lone.inner
        alone.append(lone._replace(inner=None))
    yield from trace_seams(alone, blocks.shape)


def trace_alone(pixels: BlockPixels, window: Window, shape: tuple[int, int]) -> LoneTrace:
    """Trace a block of a raster of that shape, as far as it needs no neighbor."""
    skip = int(window.row > 0), int(window.col > 0)
    inner = Window(window.row + skip[0], window.col + skip[1], window.height - skip[0], window.width - skip[1])
    trace = None
    if not inner.is_empty:
        ends = int(window.row_stop == shape[0]), int(window.col_stop == shape[1])
        codes = np.pad(pixels.codes, [(1 - skip[axis], ends[axis]) for axis in (0, 1)], constant_values=BACKGROUND)
        known = (None if one is None else np.ascontiguousarray(one[skip[0] :, skip[1] :]) for one in pixels[1:])
        trace = trace_block(codes, inner, shape[1], *known)  # type: ignore[arg-type]
    everywhere, first = slice(None), slice(1)
    return LoneTrace(
        window,
        trace,
        pixels.part(first, everywhere),
        pixels.part(everywhere, first),
        pixels.codes[-1:, :].copy(),
        pixels.codes[:, -1:].copy(),
    )


class _Lines(NamedTuple):
    """Pixels along whole rows (or columns) of the raster, by row (column); each as in one row.

    Attributes:
        codes: both sides of each border between blocks, with BACKGROUND before and after.
        pixels: what follows each border, without that; codes and confidence.
    """

    codes: dict[int, NDArray[np.int32]]
    pixels: dict[int, BlockPixels]


def trace_seams(alone: Sequence[LoneTrace], shape: tuple[int, int]) -> Iterator[BlockTrace]:
    """Trace the first row and the first column of all blocks, where other blocks lie before them."""
    windows = [lone.window for lone in alone]
    rows = _cut({window.row for window in windows}, shape[0])
    cols = _cut({window.col for window in windows}, shape[1])
    across, down = _rows_of(alone, shape), _cols_of(alone, shape)
    for row, height in rows:
        for col, width in cols:
            window = Window(row, col, height, width)
            if row in across.pixels:
                yield _trace_strip(across, window, shape)
            elif col in down.pixels:
                yield _trace_strip(down, window, shape, upright=True)


def _cut(starts: set[int], size: int) -> list[tuple[int, int]]:
    """First row (column) and number of rows of each strip and each rest of a block."""
    edges = sorted({0, size, *starts, *(start + 1 for start in starts if start > 0)})
    return [(edge, stop - edge) for edge, stop in pairwise(edges)]


def _trace_strip(lines: _Lines, window: Window, shape: tuple[int, int], *, upright: bool = False) -> BlockTrace:
    row, begin, stop, end = window.row, window.col, window.col_stop, shape[1]
    if upright:
        row, begin, stop, end = window.col, window.row, window.row_stop, shape[0]
    halo = slice(begin, stop + 1 + (stop == end))
    codes = [lines.codes[row - 1][halo], lines.codes[row][halo]]
    if row + 1 == shape[1 if upright else 0]:
        codes.append(np.full_like(codes[0], BACKGROUND))
    known = lines.pixels[row].part(slice(None), slice(begin, stop))
    strip = BlockPixels(np.stack(codes), known.confidence, known.levels)
    codes_in_place, *confidence = _turned(strip) if upright else strip
    return trace_block(codes_in_place, window, shape[1], *confidence)  # type: ignore[arg-type]


def _rows_of(alone: Sequence[LoneTrace], shape: tuple[int, int]) -> _Lines:
    before = [(lone.window.row_stop, lone.window.col, lone.bottom) for lone in alone if lone.window.row_stop < shape[0]]
    after = [(lone.window.row, lone.window.col, lone.top) for lone in alone if lone.window.row > 0]
    return _lines_of(before, after, shape[1])


def _cols_of(alone: Sequence[LoneTrace], shape: tuple[int, int]) -> _Lines:
    before = [
        (lone.window.col_stop, lone.window.row, lone.right.T) for lone in alone if lone.window.col_stop < shape[1]
    ]
    after = [(lone.window.col, lone.window.row, _turned(lone.left)) for lone in alone if lone.window.col > 0]
    return _lines_of(before, after, shape[0])


def _turned(column: BlockPixels) -> BlockPixels:
    return BlockPixels(*(None if layer is None else np.ascontiguousarray(layer.T) for layer in column))  # type: ignore[arg-type]


def _lines_of(
    before: Iterable[tuple[int, int, NDArray[np.int32]]], after: Iterable[tuple[int, int, BlockPixels]], length: int
) -> _Lines:
    """Put together the parts (border, place along it, (1, n) pixels) of the lines before and after each border."""
    lines = _Lines({}, {})
    for border, at, codes in before:
        line = lines.codes.setdefault(border - 1, np.full(length + 2, BACKGROUND, np.int32))
        line[at + 1 : at + 1 + codes.size] = codes[0]
    for border, at, pixels in after:
        line = lines.codes.setdefault(border, np.full(length + 2, BACKGROUND, np.int32))
        line[at + 1 : at + 1 + pixels.codes.size] = pixels.codes[0]
        whole = lines.pixels.setdefault(border, _empty_like(pixels, length))
        for layer, part in zip(whole, pixels, strict=True):
            if layer is not None and part is not None:
                layer[0, at : at + part.size] = part[0]
    return lines


def _empty_like(pixels: BlockPixels, length: int) -> BlockPixels:
    return BlockPixels(*(None if layer is None else np.empty((1, length), layer.dtype) for layer in pixels))  # type: ignore[arg-type]


def _read(read: Callable[[Window], BlockPixels], window: Window) -> BlockPixels:
    with block_errors(window):
        return read(window)


@contextmanager
def block_errors(window: Window) -> Iterator[None]:
    """What fails while a block is read is a BlockError with its window."""
    try:
        yield
    except GeosegError:
        raise
    except (RasterioError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise BlockError(f"The block at {window} could not be read: {error}") from error
