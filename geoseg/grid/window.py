"""Window: an integer pixel rectangle with signed offsets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from geoseg.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Pixels [row, row + height) x [col, col + width); may overhang the raster.

    Attributes:
        row: first row; negative above the raster.
        col: first column; negative left of the raster.
        height: number of rows, 0 or more.
        width: number of columns, 0 or more.
    """

    row: int
    col: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise InputError(f"A window has height and width of 0 or more, not {self.height} x {self.width}.")

    @property
    def row_stop(self) -> int:
        return self.row + self.height

    @property
    def col_stop(self) -> int:
        return self.col + self.width

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def area(self) -> int:
        return self.height * self.width

    @property
    def is_empty(self) -> bool:
        return self.area == 0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices; only meaningful where no offset is negative."""
        return slice(self.row, self.row_stop), slice(self.col, self.col_stop)

    def padded(self, margin: int) -> Window:
        """Grown by `margin` pixels on each side."""
        return Window(self.row - margin, self.col - margin, self.height + 2 * margin, self.width + 2 * margin)

    def shifted(self, rows: int, cols: int) -> Window:
        return Window(self.row + rows, self.col + cols, self.height, self.width)

    def relative_to(self, other: Window) -> Window:
        """The same pixels, counted from the upper-left corner of `other`."""
        return self.shifted(-other.row, -other.col)

    def intersection(self, other: Window) -> Window:
        """The shared pixels; an empty window where there are none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = max(0, min(self.row_stop, other.row_stop) - row)
        width = max(0, min(self.col_stop, other.col_stop) - col)
        return Window(row, col, height, width)

    def clipped(self, shape: tuple[int, int]) -> Window:
        """The part that lies on a raster of `shape` (rows, columns)."""
        return self.intersection(Window(0, 0, *shape))

    def __str__(self) -> str:
        return f"rows {self.row}:{self.row_stop}, columns {self.col}:{self.col_stop}"


def windows_of(shape: tuple[int, int], block: int) -> Iterator[Window]:
    """Row-major blocks of `block` pixels that cover a raster of `shape` once, clipped at its far edges."""
    for row in range(0, shape[0], block):
        for col in range(0, shape[1], block):
            yield Window(row, col, block, block).clipped(shape)
