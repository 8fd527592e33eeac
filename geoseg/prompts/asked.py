"""What is asked of a scene: points and boxes of one object, brought from any CRS to the scene's pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyproj
from affine import Affine
from numpy.typing import NDArray
from pyproj.exceptions import CRSError

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.label_codes import apply
from geoseg.raster.window_reader import WindowReader

LONLAT = "EPSG:4326"
CELL = 512  # pixels; points are looked up in squares of this size
EDGE_POINTS = 9  # along each side of a box: a straight side may be bent in the scene's CRS

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """Prompts of one object, in pixels of the scene, (0, 0) at its upper-left corner.

    Attributes:
        points: (point, 2) row and column.
        labels: (point,) 1 on the object, 0 beside it.
        box: (4,) top, left, bottom, right, or None.
    """

    points: Floats
    labels: NDArray[np.int64]
    box: Floats | None = None

    def __post_init__(self) -> None:
        if self.box is None and not (self.labels == 1).any():
            raise InputError("An object needs a box or a point on it; points beside it alone do not tell it.")

    @cached_property
    def bounds(self) -> Floats:
        """(4,) top, left, bottom, right of the box and of the points on the object."""
        own = self.points[self.labels == 1]
        corners = np.concatenate([own, self.box.reshape(2, 2)]) if self.box is not None else own
        return np.concatenate([corners.min(0), corners.max(0)])

    def with_point(self, row: float, col: float, *, positive: bool) -> Asked:
        """With one more point."""
        return Asked(np.vstack([self.points, [[row, col]]]), np.append(self.labels, int(positive)), self.box)


@dataclass(frozen=True)
class Place:
    """The scene's grid, and the way to it from any CRS.

    Attributes:
        shape: rows and columns.
        transform: pixel to CRS coordinates.
        crs: None where unknown; coordinates are then those of the transform.
    """

    shape: tuple[int, int]
    transform: Affine
    crs: pyproj.CRS | None

    @classmethod
    def of(cls, reader: WindowReader) -> Place:
        crs = None if reader.crs is None else pyproj.CRS.from_user_input(reader.crs.to_wkt())
        return cls(reader.shape, reader.transform, crs)

    def pixels(self, x: Floats, y: Floats, crs: object = None) -> Floats:
        """(point, 2) row and column of coordinates in a CRS; None is the scene's own.

        Raises:
            InputError: the CRS is unknown, or the scene has none.
        """
        x, y = (np.asarray(values, dtype=np.float64) for values in (x, y))
        given = None if crs is None else _known(crs)
        if given is not None and self.crs is None:
            raise InputError(f"The scene has no CRS, so that coordinates in {given.name} have no place on it.")
        if given is not None and not given.equals(self.crs, ignore_axis_order=True):
            x, y = pyproj.Transformer.from_crs(given, self.crs, always_xy=True).transform(x, y)
        with np.errstate(invalid="ignore"):  # what has no place in the CRS is infinite
            cols, rows = apply(~self.transform, x, y)
        return np.stack([rows, cols], axis=-1)

    def box(self, bounds: Sequence[float], crs: object = None) -> Floats:
        """(4,) top, left, bottom, right in pixels around bounds (left, bottom, right, top) of a CRS, cut to the scene.

        Raises:
            InputError: it has no area, or does not touch the scene.
        """
        left, bottom, right, top = bounds
        if not (left < right and bottom < top):
            raise InputError(f"A box is left, bottom, right, top; {tuple(bounds)} has no area.")
        along = np.linspace(0, 1, EDGE_POINTS)
        x, y = left + (right - left) * along, bottom + (top - bottom) * along
        ring_x = np.concatenate([x, x, np.full_like(x, left), np.full_like(x, right)])
        ring_y = np.concatenate([np.full_like(y, bottom), np.full_like(y, top), y, y])
        return self.cut(self.pixels(ring_x, ring_y, crs), f"The box {tuple(bounds)}")

    def cut(self, corners: Floats, what: str) -> Floats:
        """(4,) top, left, bottom, right of places (point, 2), cut to the scene.

        Raises:
            InputError: they are all beside it.
        """
        low, high = corners.min(0), corners.max(0)
        if not np.isfinite(corners).all() or (high <= 0).any() or (low >= self.shape).any():
            raise InputError(f"{what} lies off the scene; compare with the bounds that geoseg info prints.")
        return np.concatenate([np.maximum(low, 0), np.minimum(high, self.shape)])

    def check_on_scene(self, pixels: Floats, names: Sequence[str]) -> None:
        """Refuse points (point, 2) off the scene.

        Raises:
            InputError: with the first of them.
        """
        off = ~((pixels >= 0) & (pixels < self.shape)).all(1)  # NaN, which is nowhere, too
        if off.any():
            first = int(off.argmax())
            more = f" ({int(off.sum())} of {off.size} points do)" if off.size > 1 else ""
            raise InputError(
                f"{names[first]} lies off the scene{more}; compare with the bounds that geoseg info prints, and check "
                "the CRS of the points."
            )


def check_measured(reader: WindowReader, pixels: Floats, names: Sequence[str]) -> None:
    """Refuse points on nodata; the scene is read once for each square that holds some.

    Raises:
        InputError: with the first of them.
    """
    if not reader.has_mask:
        return
    at = np.floor(pixels).astype(np.int64)
    cells = at // CELL
    for cell in np.unique(cells, axis=0):
        inside = np.flatnonzero((cells == cell).all(1))
        window = Window(int(cell[0]) * CELL, int(cell[1]) * CELL, CELL, CELL).clipped(reader.shape)
        valid = reader.read(window).valid
        for i in inside.tolist():
            if not valid[at[i, 0] - window.row, at[i, 1] - window.col]:
                raise InputError(f"{names[i]} lies on nodata, where the scene shows nothing; move or remove it.")


def names_of(points: Iterable[Sequence[float]]) -> list[str]:
    """What to call points in messages."""
    return [f"The point ({x:.8g}, {y:.8g})" for x, y in points]


def _known(crs: object) -> pyproj.CRS:
    try:
        return pyproj.CRS.from_user_input(crs)
    except CRSError as error:
        raise InputError(f"The CRS {crs!r} is unknown; give one as EPSG:4326.") from error
