"""Canvas: what is drawn so far. Site: the part of it that lies on lots of one kind, in their own coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geoseg.synthetic.lots import Bools, Index, Lots, Words
from geoseg.synthetic.materials import M
from geoseg.synthetic.noise import F32, Floats, Ints
from geoseg.synthetic.place import Place


@dataclass(frozen=True, slots=True)
class Canvas:
    """Flat arrays over positions, row by row; drawn into in place.

    Attributes:
        place: whose ground it is.
        material: of `M`.
        height: metres above ground.
        tint: factor on the brightness of the material.
        warm: above 0 is browner and drier, below 0 greener.
        patch, fine: noise of about 45 m and 5 m, for shapes and textures.
    """

    place: Place
    material: NDArray[np.uint8]
    height: F32
    tint: F32
    warm: F32
    patch: F32
    fine: F32

    @classmethod
    def blank(cls, place: Place, x: Floats, y: Floats) -> Canvas:
        patch = place.noise("patch", x, y, 45).ravel()
        patch += np.float32(0.5) * place.noise("spot", x, y, 17).ravel()
        fine = place.noise("fine", x, y, 5).ravel()
        fine += np.float32(0.6) * place.noise("grit", x, y, 1.4).ravel()
        tint = np.float32(0.06) * patch
        tint += np.float32(0.05) * fine
        tint += np.float32(1)
        warm = np.float32(0.6) * patch
        warm += np.float32(0.4) * fine
        material = np.full(patch.size, M.MEADOW, np.uint8)
        return cls(place, material, np.zeros_like(patch), tint, warm, patch, fine)

    def put(self, at: Index, material: Ints | int, height: F32 | float = 0.0) -> None:
        self.material[at] = material
        self.height[at] = height


@dataclass(frozen=True, slots=True)
class Site:
    """Positions on lots of one kind; a runs along the lot's street, b away from it, 0 in the lot's middle, metres."""

    place: Place
    at: Index
    a: F32
    b: F32
    half_a: F32
    half_b: F32
    patch: F32
    fine: F32
    lot: Index
    key: Words
    all_dice: F32

    @classmethod
    def of(cls, canvas: Canvas, lots: Lots, at: Index, where: tuple[Index, F32, F32]) -> Site:
        lot, u, v = where
        du, dv = u - lots.center_u[lot], v - lots.center_v[lot]
        aa, ab, ba, bb = (axis[lot] for axis in lots.axes)
        a, b = np.asarray(aa * du + ab * dv, np.float32), np.asarray(ba * du + bb * dv, np.float32)
        halves = lots.half_a[lot], lots.half_b[lot]
        noise = canvas.patch[at], canvas.fine[at]
        return cls(canvas.place, at, a, b, *halves, *noise, lot, lots.key, lots.dice)

    def dice(self, number: int, low: float = 0.0, high: float = 1.0) -> F32:
        """A random number of the lot, at each position."""
        scaled: F32 = np.float32(low) + np.float32(high - low) * self.all_dice[number]
        return scaled[self.lot]

    def rand(self, name: str, some: Index, *cells: Ints) -> F32:
        """A random number for each cell of a lot, at some of the positions."""
        return self.place.rand(name, self.key[self.lot[some]], *cells)

    @property
    def edge(self) -> F32:
        """Distance from the lot's nearest edge, metres."""
        return np.minimum(self.half_a - np.abs(self.a), self.half_b - np.abs(self.b))

    def stripes(self, period: float) -> F32:
        """A wave in [-1, 1] across the lot's rows; 0 where pixels are too coarse to show it."""
        if period < 2.2 * self.place.gsd_m:
            return np.zeros_like(self.a)
        across = np.where(self.dice(7) < 0.5, self.a, self.b) / np.float32(period)
        across -= np.floor(across)
        return np.float32(4) * np.abs(across - np.float32(0.5)) - np.float32(1)


def inside(a: F32, b: F32, half_a: F32 | float, half_b: F32 | float) -> Bools:
    return (np.abs(a) < half_a) & (np.abs(b) < half_b)
