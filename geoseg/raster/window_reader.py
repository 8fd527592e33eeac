"""What reading a scene is, wherever its pixels lie: windows of it, on its own grid or a coarser or finer one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from rasterio.crs import CRS

from geoseg.errors import InputError
from geoseg.grid.window import Window, windows_of
from geoseg.raster.resample import Axis, gather

Values = NDArray[Any]
Bools = NDArray[np.bool_]

RESAMPLING_PIXELS = 1 << 22  # source pixels held at once while resampling, so that a strong reduction stays small


class Pixels(NamedTuple):
    """Pixels of one window.

    Attributes:
        values: (bands, height, width) as stored, also where not measured.
        valid: (height, width), True = measured in every band.
    """

    values: Values
    valid: Bools


class WindowReader(ABC):
    """A scene whose windows are read, on its own grid or on one whose pixels have `zoom` times the side.

    Attributes:
        native_shape: (rows, columns) of the scene's own grid.
        native_transform: of the scene's own grid.
        native_gsd_m: ground sample distance of the native grid in metres, None where unknown.
        crs: coordinate reference system, None where unknown.
        zoom: native pixels per pixel.
    """

    __slots__ = ()

    native_shape: tuple[int, int]
    native_transform: Affine
    native_gsd_m: float | None
    crs: CRS | None
    zoom: float

    @property
    @abstractmethod
    def bands(self) -> tuple[str, ...]:
        """Names, in the order in which bands are read."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """That holds every band exactly."""

    @property
    @abstractmethod
    def has_mask(self) -> bool:
        """Whether any pixel may be not measured."""

    @abstractmethod
    def zoomed(self, zoom: float) -> Self:
        """The same scene, of pixels that have `zoom` times the side of its own."""

    @abstractmethod
    def _read_native(self, window: Window) -> Pixels: ...

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns); the last row and column of a resampled scene may reach over its edge."""
        rows, cols = (max(1, math.ceil(size / self.zoom - 1e-6)) for size in self.native_shape)
        return rows, cols

    @property
    def transform(self) -> Affine:
        return self.native_transform if self.zoom == 1 else self.native_transform @ Affine.scale(self.zoom)

    @property
    def geobox(self) -> GeoBox:
        return GeoBox(self.shape, self.transform, self.crs)

    @property
    def gsd_m(self) -> float | None:
        return None if self.native_gsd_m is None else self.native_gsd_m * self.zoom

    def resampled(self, gsd_m: float) -> Self:
        """The same scene with square-root-of-area pixels of `gsd_m` metres: averaged when shrunk, else bilinear."""
        if self.native_gsd_m is None:
            raise InputError("The scene has no known ground sample distance to resample from. State it with --gsd.")
        if not (math.isfinite(gsd_m) and gsd_m > 0):
            raise InputError(f"The ground sample distance is a positive number of metres, not {gsd_m}.")
        zoom = gsd_m / self.native_gsd_m
        return self.zoomed(round(zoom) if abs(zoom - round(zoom)) < 1e-6 and zoom > 0.5 else zoom)

    def read(self, window: Window) -> Pixels:
        """The pixels of a window that lies inside the scene; only that window is read.

        Raises:
            InputError: the window reaches over the scene's edge.
            GeosegError: GDAL could not read; the message has the window and GDAL's words.
        """
        if window.clipped(self.shape) != window:
            raise InputError(
                f"The window {window} reaches over the scene's {self.shape[0]} rows x {self.shape[1]} columns."
            )
        if window.is_empty:
            empty = np.empty((len(self.bands), *window.shape), self.dtype)
            return Pixels(empty, np.empty(window.shape, np.bool_))
        return self._read_native(window) if self.zoom == 1 else self._read_resampled(window)

    def _read_resampled(self, window: Window) -> Pixels:
        """Part by part, so that the native pixels held at once stay few."""
        values = np.empty((len(self.bands), *window.shape), self.dtype)
        valid = np.empty(window.shape, np.bool_)
        side = max(1, int(math.sqrt(RESAMPLING_PIXELS) / self.zoom))
        for part in windows_of(window.shape, side):
            pixels = self._resample(part.shifted(window.row, window.col))
            rows, cols = part.slices
            values[:, rows, cols], valid[rows, cols] = pixels
        return Pixels(values, valid)

    def _resample(self, window: Window) -> Pixels:
        rows, cols = (
            Axis(self.zoom, 0.0, size, "average" if self.zoom > 1 else "bilinear") for size in self.native_shape
        )
        needed = needed_window(rows, cols, window)
        return Pixels(*gather(*self._read_native(needed), taps_of(rows, cols, window, needed)))


def needed_window(rows: Axis, cols: Axis, window: Window) -> Window:
    """The window of the source that the taps of `window` touch."""
    row, row_stop = rows.span(window.row, window.row_stop)
    col, col_stop = cols.span(window.col, window.col_stop)
    return Window(row, col, row_stop - row, col_stop - col)


def taps_of(rows: Axis, cols: Axis, window: Window, source: Window) -> Any:
    row_index, row_weight = rows.taps(window.row, window.row_stop)
    col_index, col_weight = cols.taps(window.col, window.col_stop)
    return (row_index - source.row, row_weight), (col_index - source.col, col_weight)
