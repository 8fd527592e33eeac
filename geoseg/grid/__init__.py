"""Pure geometry of windows, chips and blocks: NumPy only."""

from geoseg.grid.chips import Block, ChipGrid
from geoseg.grid.stitch import add_chip, chip_weights, needed, reflect
from geoseg.grid.window import Window, windows_of

__all__ = ["Block", "ChipGrid", "Window", "add_chip", "chip_weights", "needed", "reflect", "windows_of"]
