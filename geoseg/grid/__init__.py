"""Pure geometry of windows, chips and blocks: NumPy only."""

from geoseg.grid.window import Window, windows_of

__all__ = ["Window", "windows_of"]
