"""ChipGrid: where chips lie on a scene, and how they are grouped in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from geoseg.errors import InputError
from geoseg.grid.window import Window


@dataclass(frozen=True, slots=True)
class Block:
    """Whole cores that are computed and written as one task.

    Attributes:
        row: row of the block in the grid of blocks.
        col: column of the block in the grid of blocks.
        window: its pixels on the scene; clipped, so that the blocks cover each pixel once.
    """

    row: int
    col: int
    window: Window


@dataclass(frozen=True, slots=True)
class ChipGrid:
    """Chips on a scene: core (i, j) starts at (i * core, j * core); its chip reaches `halo` further on each side.

    Chips at the far edges overhang. They are never slid inwards: that would change a pixel's phase against the
    network's stride, and with it the answer.

    Attributes:
        shape: rows and columns of the scene.
        core: side of the part of a chip that is kept.
        halo: pixels on each side of the core, read for context.
        output_stride: core and halo are multiples of it.
        ramp: width of the feather over each seam, even; 0 crops.
        block: side of a block, a multiple of the core; one core where 0.
    """

    shape: tuple[int, int]
    core: int
    halo: int
    output_stride: int = 1
    ramp: int = 0
    block: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1:
            raise InputError(f"A scene of {self.shape[0]} x {self.shape[1]} pixels has nothing to segment.")
        if self.core < 1 or self.halo < 0:
            raise InputError(
                f"A chip needs a core of 1 or more and a halo of 0 or more, not {self.core} and {self.halo}."
            )
        for name, value in (("Core", self.core), ("Halo", self.halo)):
            if value % self.output_stride:
                near = max(self.output_stride, value // self.output_stride * self.output_stride)
                raise InputError(
                    f"{name} {value} is no multiple of the model's output stride {self.output_stride}; use {near}."
                )
        if self.ramp % 2 or not 0 <= self.ramp <= min(2 * self.halo, self.core):
            most = min(2 * self.halo, self.core)
            raise InputError(f"A ramp is even and at most {most} (twice the halo, and the core), not {self.ramp}.")
        if self.block % self.core:
            raise InputError(f"Block {self.block} is no multiple of the core {self.core}; use {self.block_side}.")

    @classmethod
    def of(
        cls, shape: tuple[int, int], *, chip: int, halo: int, output_stride: int = 1, ramp: int = 0, block: int = 0
    ) -> ChipGrid:
        """The grid of chips of side `chip`; `block` is rounded down to whole cores, at least one."""
        core = chip - 2 * halo
        if core < output_stride:
            raise InputError(
                f"Chip {chip} leaves a core of {core} between halos of {halo}; use at least {2 * halo + output_stride}."
            )
        return cls(shape, core, halo, output_stride, ramp, max(1, block // core) * core)

    @property
    def chip(self) -> int:
        return self.core + 2 * self.halo

    @property
    def block_side(self) -> int:
        return max(1, self.block // self.core) * self.core

    @property
    def core_counts(self) -> tuple[int, int]:
        """Rows and columns of cores."""
        return ceil(self.shape[0] / self.core), ceil(self.shape[1] / self.core)

    @property
    def block_counts(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return ceil(self.shape[0] / self.block_side), ceil(self.shape[1] / self.block_side)

    def blocks(self) -> Iterator[Block]:
        """All blocks, row-major."""
        rows, cols = self.block_counts
        for row in range(rows):
            for col in range(cols):
                yield self.block_at(row, col)

    def block_at(self, row: int, col: int) -> Block:
        side = self.block_side
        return Block(row, col, Window(row * side, col * side, side, side).clipped(self.shape))

    def cores(self, window: Window) -> list[tuple[int, int]]:
        """Row-major indices (row, column) of the cores that have a say in a window: half a ramp beyond it counts."""
        reach = window.padded(self.ramp // 2).clipped(self.shape)
        rows = range(reach.row // self.core, ceil(reach.row_stop / self.core))
        cols = range(reach.col // self.core, ceil(reach.col_stop / self.core))
        return [(row, col) for row in rows for col in cols]

    def core_window(self, index: tuple[int, int]) -> Window:
        """The core's pixels; may overhang the scene at its far edges."""
        return Window(index[0] * self.core, index[1] * self.core, self.core, self.core)

    def chip_window(self, index: tuple[int, int]) -> Window:
        """The chip's pixels: the core grown by the halo."""
        return self.core_window(index).padded(self.halo)

    def footprint(self, window: Window) -> Window:
        """All pixels that the chips of a window see; overhangs the scene, where they are reflected."""
        cores = self.cores(window)
        first, last = self.chip_window(cores[0]), self.chip_window(cores[-1])
        return Window(first.row, first.col, last.row_stop - first.row, last.col_stop - first.col)
