"""Where chips lie for prompts, and their pixels.

Chips of one level have origins on a lattice of half their side, so that whatever is asked lies well inside one of them,
and so that the next click nearby finds the same chip in the cache. A chip of the next level covers twice the side with
the same number of pixels: an object that reaches the rim of its chip is looked at from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window
from geoseg.raster.normalize import Normalization
from geoseg.raster.window_reader import WindowReader

WIDEST_PX = 4096  # pixels of the scene that a chip covers at most, so that masks stay small
ROOM = 0.75  # share of a chip's side that what is asked may take

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class ChipAt(NamedTuple):
    """A chip by its level and its place on the lattice of that level."""

    level: int
    row: int
    col: int


class Chip(NamedTuple):
    """A chip as the network sees it.

    Attributes:
        pixels: (band, side, side) normalized; the mean where nothing was measured and beyond the scene.
        valid: (side, side) True = measured.
    """

    pixels: Floats
    valid: Bools


@dataclass(frozen=True, slots=True)
class Lattice:
    """All chips of a scene.

    Attributes:
        shape: rows and columns of the scene.
        side: of a chip in its own pixels.
        base: pixels of the scene in one of a chip's, along each axis, at level 0.
        first: the level from which a point is looked at; boxes tell how large things are, and may be seen finer.
    """

    shape: tuple[int, int]
    side: int
    base: int = 1
    first: int = 0

    def zoom(self, level: int) -> int:
        """Pixels of the scene in one of the chip's, along each axis."""
        return self.base << level

    @property
    def top_level(self) -> int:
        """The first at which a chip covers the scene, or as much of it as is looked at."""
        level = 0
        while self.side * self.zoom(level) < min(max(self.shape), WIDEST_PX):
            level += 1
        return level

    @property
    def point_level(self) -> int:
        """The level from which a point is looked at, where the scene is large enough for it."""
        return min(self.first, self.top_level)

    def level_for(self, height: float, width: float) -> int:
        """The finest level at which something of that size, in pixels of the scene, has room in a chip."""
        level = 0
        while level < self.top_level and max(height, width) > ROOM * self.side * self.zoom(level):
            level += 1
        return level

    def around(self, level: int, row: float, col: float) -> ChipAt:
        """The chip in whose middle a place of the scene lies most nearly; none begins beyond the scene's edge."""
        step = self.side * self.zoom(level) // 2
        at = []
        for center, length in zip((row, col), self.shape, strict=True):
            last = max(0, -(-(length - 2 * step) // step))
            at.append(int(np.clip(round((center - step) / step), 0, last)))
        return ChipAt(level, at[0], at[1])

    def window(self, at: ChipAt) -> Window:
        """The pixels of the scene that a chip covers; it may overhang."""
        step = self.side * self.zoom(at.level) // 2
        return Window(at.row * step, at.col * step, 2 * step, 2 * step)

    def all_of(self, level: int) -> list[ChipAt]:
        """Every chip of a level, row by row."""
        step = self.side * self.zoom(level) // 2
        rows, cols = (max(0, -(-(length - 2 * step) // step)) + 1 for length in self.shape)
        return [ChipAt(level, row, col) for row in range(rows) for col in range(cols)]

    def reaches_rim(self, at: ChipAt, mask: Bools) -> bool:
        """Whether a mask (side, side) touches a rim of its chip beyond which the scene goes on."""
        window, (rows, cols) = self.window(at), self.shape
        sides = (
            (window.row > 0, mask[:2]),
            (window.row_stop < rows, mask[-2:]),
            (window.col > 0, mask[:, :2]),
            (window.col_stop < cols, mask[:, -2:]),
        )
        return any(goes_on and bool(rim.any()) for goes_on, rim in sides)


@dataclass(frozen=True, slots=True)
class LevelChips:
    """The chips of a level, each with the places that are asked about there: `around` gives those the same chip.

    Attributes:
        lattice: of all levels.
        level: one of them.
    """

    lattice: Lattice
    level: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the scene."""
        return self.lattice.shape

    @property
    def chip(self) -> int:
        """Pixels of the scene along a chip's side."""
        return 2 * self.core

    @property
    def core(self) -> int:
        """Pixels of the scene from chip to chip."""
        return self.lattice.side * self.lattice.zoom(self.level) // 2

    def chip_window(self, index: tuple[int, int]) -> Window:
        return self.lattice.window(ChipAt(self.level, *index))

    def core_window(self, index: tuple[int, int]) -> Window:
        """The middle of a chip; of chips at the scene's edges also what lies between it and the edge."""
        window, margin = self.chip_window(index), self.core // 2
        row, row_stop = _core(window.row, window.row_stop, margin, self.shape[0])
        col, col_stop = _core(window.col, window.col_stop, margin, self.shape[1])
        return Window(row, col, row_stop - row, col_stop - col)


def _core(start: int, stop: int, margin: int, length: int) -> tuple[int, int]:
    return start + margin if start else 0, stop - (stop - start) // 2 + margin if stop < length else length


def read_chip(reader: WindowReader, lattice: Lattice, at: ChipAt, normalization: Normalization) -> Chip:
    """The pixels of a chip, means of `zoom` x `zoom` pixels of the scene."""
    zoom, side = lattice.zoom(at.level), lattice.side
    seen = reader if zoom == 1 else reader.zoomed(float(zoom))
    wanted = Window(at.row * side // 2, at.col * side // 2, side, side)
    inside = wanted.clipped(seen.shape)
    stored, measured = seen.read(inside)
    rows, cols = inside.relative_to(wanted).slices
    valid = np.zeros((side, side), np.bool_)
    valid[rows, cols] = measured
    pixels = np.zeros((len(normalization.mean), side, side), np.float32)  # 0 is the mean
    pixels[:, rows, cols] = normalization(stored, measured)
    return Chip(pixels, valid)
