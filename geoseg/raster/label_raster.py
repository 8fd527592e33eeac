"""Labels from a class raster on any grid: each pixel of the scene gets the value at its center."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError
from geoseg.grid import Window, windows_of
from geoseg.legend import Legend
from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.handles import reading
from geoseg.raster.label_codes import (
    UNLABELLED,
    Codes,
    LabelCodes,
    LabelOptions,
    Meaning,
    Place,
    apply,
    check_crs,
    code_of,
    extent_of,
    outline,
    transformer,
    unknown_values,
)
from geoseg.raster.landcover import read_legend
from geoseg.raster.place import PHASE_TOLERANCE

UNKNOWN = -1
STORED_PIXELS = 1 << 22  # label pixels held at once, where they are much finer than the scene's
EDGE = 1e-6  # of a label pixel: a center on its edge, but for rounding, lies beyond it


@dataclass(frozen=True, slots=True)
class RasterLabels:
    """A class raster as labels of a scene.

    Attributes:
        path: of the raster.
        codes: what the codes stand for.
        place: the scene's grid.
        extent: pixels of the scene that hold labels.
        told: what was done to them.
        own: the raster's grid.
        nodata: value that means "unlabelled", None where there is none.
        masked: whether the raster has a mask of its own.
        table: (value, code) sorted by value; other values are not known.
    """

    path: str
    codes: LabelCodes
    place: Place
    extent: Window
    told: tuple[str, ...]
    own: Place
    nodata: float | None
    masked: bool
    table: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, path: str | os.PathLike[str], codes: LabelCodes, place: Place, options: LabelOptions) -> RasterLabels:
        """Look at the raster; `geoseg.raster.labels.open_labels` says what may be wrong with it."""
        facts = look_at(path)
        if options.elsewhere is not None:
            raise InputError(
                f"{facts.path} is a raster: say what its values mean with --map; --elsewhere is for polygons."
            )
        check_crs(facts.path, facts.crs, place)
        own = Place(facts.shape, facts.transform, facts.crs)
        table = _table(facts, read_legend(facts.path), codes, options)
        cols, rows = _carried(own, place, *outline(own.window))
        extent = extent_of(facts.path, cols, rows, place)
        band = facts.bands[0]
        told = (_told(facts, own, place),) if not _is_nested(own, place) else ()
        return cls(facts.path, codes, place, extent, told, own, band.nodata, bool(band.mask), table)

    def __call__(self, window: Window) -> Codes:
        labels = np.full(window.shape, UNLABELLED, np.uint8)
        inside = window.clipped(self.place.shape)
        for part in windows_of(inside.shape, self._side):
            target = part.shifted(inside.row, inside.col)
            labels[target.relative_to(window).slices] = self._read(target)
        return labels

    @property
    def _side(self) -> int:
        """Pixels of the scene whose labels are read at once."""
        (x0, x1), (y0, y1) = _carried(self.place, self.own, *(np.array([0.0, side]) for side in self.place.shape[::-1]))
        across = math.hypot(x1 - x0, y1 - y0) / math.hypot(*self.place.shape)
        fine = math.sqrt(STORED_PIXELS) / across if math.isfinite(across) and across > 0 else 256
        return max(16, min(4096, int(fine)))

    def _read(self, window: Window) -> Codes:
        """Labels of a window inside the scene."""
        rows, cols = self._positions(window)
        inside = (rows >= 0) & (rows < self.own.shape[0]) & (cols >= 0) & (cols < self.own.shape[1])
        if not inside.any():
            return np.full(window.shape, UNLABELLED, np.uint8)
        rows, cols = (axis.clip(0, size - 1) for axis, size in zip((rows, cols), self.own.shape, strict=True))
        low, high = [int(axis.min()) for axis in (rows, cols)], [int(axis.max()) for axis in (rows, cols)]
        needed = Window(low[0], low[1], high[0] - low[0] + 1, high[1] - low[1] + 1)
        coded = self._coded(needed)[rows - needed.row, cols - needed.col]
        coded[~inside] = UNLABELLED
        labels: Codes = coded.astype(np.uint8)
        return labels

    def _positions(self, window: Window) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Rows and columns of the label raster under the centers of a window's pixels, as arrays that broadcast."""
        y = np.arange(window.row, window.row_stop)[:, None] + 0.5
        x = np.arange(window.col, window.col_stop)[None] + 0.5
        if self.own.crs == self.place.crs:
            back = ~self.own.transform @ self.place.transform
            if max(abs(back.b), abs(back.d)) * max(self.place.shape) < EDGE:
                return _floor(back.e * y + back.f), _floor(back.a * x + back.c)
        cols, rows = _carried(self.place, self.own, *(axis.copy() for axis in np.broadcast_arrays(x, y)))
        return _floor(rows), _floor(cols)

    def _coded(self, window: Window) -> NDArray[np.int16]:
        """Codes of the raster's own pixels.

        Raises:
            InputError: a value is not known.
        """
        at = RasterioWindow(window.col, window.row, window.width, window.height)
        with reading(self.path, window) as raster:
            stored = raster.read(1, window=at)
            valid = raster.read_masks(1, window=at) > 0 if self.masked else np.ones(window.shape, np.bool_)
        if self.nodata is not None:
            valid &= stored != self.nodata
        values, codes = (np.array(column) for column in zip(*self.table, strict=True))
        found = np.searchsorted(values, stored).clip(0, len(values) - 1)
        coded = np.where(values[found] == stored, codes[found], UNKNOWN).astype(np.int16)
        coded[~valid] = UNLABELLED
        if (coded == UNKNOWN).any():
            strangers = [str(value) for value in np.unique(stored[coded == UNKNOWN])]
            raise unknown_values(self.path, strangers, self.codes)
        return coded


def _table(facts: FileFacts, own: Legend, codes: LabelCodes, options: LabelOptions) -> tuple[tuple[int, int], ...]:
    """The values that mean something, by the names that the raster gives them or by their ids."""
    nameless = all(entry.name == f"class_{entry.id}" for entry in own.classes) and own.names != codes.legend.names
    names = {} if nameless else {entry.id: entry.name for entry in own.classes}
    limits = np.iinfo(facts.bands[0].dtype)
    stated = {int(text) for text in (*(options.meanings or ()), *options.ignore) if text.lstrip("-").isdigit()}
    values = {*range(256), *stated} if nameless else {*names, *stated}
    found = {}
    for value in sorted(value for value in values if limits.min <= value <= limits.max):
        code = code_of(Meaning(str(value), names.get(value)), codes, options)
        if code is not None:
            found[value] = code
    if not any(code != UNLABELLED for code in found.values()):
        raise unknown_values(facts.path, [names.get(value, str(value)) for value in sorted(values)], codes)
    return tuple(found.items())


def _floor(positions: NDArray[np.float64]) -> NDArray[np.intp]:
    """-1 where a CRS does not reach."""
    return np.floor(np.where(np.isfinite(positions), positions, -1.0).clip(-1, 2**40) + EDGE).astype(np.intp)


def _carried(
    source: Place, target: Place, cols: NDArray[np.float64], rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions (columns, rows) on one grid, counted on another; infinite where its CRS does not reach."""
    x, y = apply(source.transform, cols, rows)
    if source.crs is not None and target.crs is not None and source.crs != target.crs:
        x, y = transformer(source.crs.to_wkt(), target.crs.to_wkt()).transform(x, y)
    return apply(~target.transform, np.asarray(x), np.asarray(y))


def _is_nested(own: Place, place: Place) -> bool:
    """Whether every pixel of the scene lies in one of the labels', so that nothing is chosen."""
    if own.crs != place.crs:
        return False
    back = ~own.transform @ place.transform
    size = max(place.shape)
    if max(abs(back.b), abs(back.d)) * size > EDGE or min(back.a, back.e) <= 0:
        return False
    return all(_is_whole(step, start, size) for step, start in ((back.a, back.c), (back.e, back.f)))


def _is_whole(step: float, start: float, size: int) -> bool:
    """Whether a label pixel is a whole number of the scene's, and their edges meet, all along an axis."""
    count = round(1 / step)
    if count < 1:
        return False
    return abs(step * count - 1) * size + abs(start * count - round(start * count)) < PHASE_TOLERANCE


def _told(facts: FileFacts, own: Place, place: Place) -> str:
    where = f"in {facts.crs}" if own.crs != place.crs else "on another grid"
    return f"The labels are {where}; each pixel of the scene has the label at its center (nearest neighbour)."
