"""Lots to build on: houses with gardens, halls with car parks, and lots that still wait."""

from __future__ import annotations

import numpy as np

from geoseg.synthetic.canvas import Canvas, Site, inside
from geoseg.synthetic.lots import Index
from geoseg.synthetic.materials import M
from geoseg.synthetic.noise import F32

_HOUSE_ROOFS = np.array([M.ROOF_TILE, M.ROOF_TILE, M.ROOF_BROWN, M.ROOF_SLATE, M.ROOF_GREY, M.ROOF_WHITE], np.uint8)
_DRY_HOUSE_ROOFS = np.array([M.ROOF_WHITE, M.ROOF_GREY, M.ROOF_WHITE, M.ROOF_BROWN, M.ROOF_GREY], np.uint8)
_HALL_ROOFS = np.array([M.ROOF_WHITE, M.ROOF_WHITE, M.ROOF_GREY, M.ROOF_GREY, M.ROOF_RED, M.ROOF_SOLAR], np.uint8)
_CARS = np.array([M.CAR_WHITE] * 5 + [M.CAR_DARK] * 4 + [M.CAR_RED, M.CAR_BLUE], np.uint8)


def draw_vacant(canvas: Canvas, site: Site) -> None:
    """A meadow, or a building site not yet begun."""
    churned = np.where(site.patch * 0.5 + site.fine > 0.2, M.SOIL, M.SAND)
    wild = M.SAND if site.place.is_dry else M.MEADOW
    canvas.put(site.at, np.where(site.dice(8) < 0.6, wild, churned))
    canvas.tint[site.at] *= site.dice(6, 0.9, 1.1)


def draw_house(canvas: Canvas, site: Site) -> None:
    """A house with an ell or a shed, its drive and terrace, a hedge, and sometimes a pool."""
    _draw_garden(canvas, site)
    a, b = site.a - site.dice(1, -1.2, 1.2), site.b + site.dice(2, 1.0, 4.0)
    half_a, half_b = site.dice(3, 4.2, 7.0), site.dice(4, 3.8, 5.6)
    side = np.where(site.dice(6) < 0.5, np.float32(-1), np.float32(1))
    drive = (np.abs(a - side * (half_a - 1.6)) < 1.7) & (b < 0)
    terrace = inside(a + side, b - half_b - 1, half_a * 0.7, site.dice(9, 0.5, 3.0))
    canvas.put(site.at[drive | terrace], M.PAVING)
    _draw_pool(canvas, site, side)
    height = _roof(a, b, (half_a, half_b), site)
    ell = a + side * (half_a - 2.6), b - site.dice(10, 1.0, 7.5)
    np.maximum(height, _roof(*ell, (site.dice(11, 2.2, 3.4), site.dice(7, 2.6, 5.0)), site) - 0.3, out=height)
    up = np.flatnonzero(height > 1)
    roofs = _DRY_HOUSE_ROOFS if site.place.is_dry else _HOUSE_ROOFS
    pick = site.dice(0, 0, 977)[up] % 1
    canvas.put(site.at[up], roofs[(pick * roofs.size).astype(np.intp)], height[up])
    canvas.tint[site.at[up]] = site.dice(8, 0.85, 1.15)[up] + 0.05 * site.fine[up]


def _draw_garden(canvas: Canvas, site: Site) -> None:
    """Lawn, worn where the gardener is tired or the climate dry, with a hedge on three sides."""
    worn = site.patch + 0.6 * site.fine + site.dice(5, -1.1, 1.1)
    bare = M.SAND if site.place.is_dry else M.SOIL
    canvas.put(site.at, np.where(worn > 1.1 - 2.2 * site.place.aridity, bare, M.LAWN))
    canvas.tint[site.at] *= site.dice(6, 0.88, 1.12)
    canvas.warm[site.at] += site.dice(7, -1.0, 1.0)
    fence = (site.edge < 0.75) & (site.b > 6 - site.half_b)
    canvas.put(site.at[fence & (site.dice(5) < 0.6) & (site.fine > -0.75)], M.HEDGE, 1.6)


def _draw_pool(canvas: Canvas, site: Site, side: F32) -> None:
    has = np.flatnonzero((site.dice(0) > 0.72) & (site.half_b > 13) & (site.b > 0))
    a, b = site.a[has] - side[has] * 4.0, site.b[has] - site.half_b[has] + 4.6
    canvas.put(site.at[has[inside(a, b, 4.6, 3.0)]], M.PAVING)
    canvas.put(site.at[has[inside(a, b, 3.6, 1.9)]], M.POOL)


def _roof(a: F32, b: F32, half: tuple[F32, F32], site: Site) -> F32:
    """Height of a gable, hip or flat roof over a rectangle; 0 outside."""
    side_a, side_b = half[0] - np.abs(a), half[1] - np.abs(b)
    edge = np.minimum(side_a, side_b)
    gable = np.where(half[0] > half[1], side_b, side_a)
    style = site.dice(9)
    rise = np.where(style < 0.4, edge, gable) * (style >= (0.85 if site.place.is_dry else 0.12))
    eaves = np.where(site.dice(2) < 0.5, np.float32(3.0), np.float32(5.2))
    return np.where(edge > 0, eaves + np.float32(0.5) * rise, np.float32(0))


def draw_hall(canvas: Canvas, site: Site) -> None:
    """A large flat roof with a parapet, a car park around it, a strip of green at the edge."""
    canvas.put(site.at, M.ASPHALT)
    canvas.tint[site.at] *= site.dice(6, 0.9, 1.25)
    canvas.put(site.at[site.edge < site.dice(7, 1.0, 4.0)], M.SAND if site.place.is_dry else M.LAWN)
    b = site.b - site.half_b * site.dice(1, 0.1, 0.28)
    half_a, half_b = site.half_a * site.dice(3, 0.6, 0.85), site.half_b * site.dice(4, 0.35, 0.6)
    edge = np.minimum(half_a - np.abs(site.a), half_b - np.abs(b))
    _park_cars(canvas, site, np.flatnonzero((edge < -6) & (site.edge > 5)))
    up = np.flatnonzero(edge > 0)
    height = site.dice(5, 6.0, 11.0)[up] + np.float32(0.7) * (edge[up] < 0.7)
    roofs = _HALL_ROOFS[:4] if site.place.is_dry else _HALL_ROOFS
    canvas.put(site.at[up], roofs[(site.dice(8)[up] * roofs.size).astype(np.intp)], height)
    canvas.tint[site.at[up]] = site.dice(2, 0.85, 1.12)[up] + 0.04 * site.fine[up] + 0.03 * site.patch[up]
    _draw_roof_boxes(canvas, site, up[edge[up] > 3])


def _draw_roof_boxes(canvas: Canvas, site: Site, some: Index) -> None:
    """Skylights and fans, one in a third of the cells of 8 x 6 m."""
    col, row = np.floor(site.a[some] / 8), np.floor(site.b[some] / 6)
    dice = site.rand("boxes", some, col.astype(np.int64), row.astype(np.int64))
    a, b = site.a[some] - (col + np.float32(0.5)) * 8, site.b[some] - (row + np.float32(0.5)) * 6
    box = inside(a, b, 0.6 + 4 * dice, 0.6 + 1.5 * dice) & (dice < 0.35)
    canvas.tint[site.at[some[box]]] *= 0.8 + 0.5 * (dice[box] * 17 % 1)
    canvas.height[site.at[some[box]]] += 1.3


def _park_cars(canvas: Canvas, site: Site, some: Index) -> None:
    """Stalls of 2.6 x 5.4 m in pairs of rows, with an aisle between the pairs; cars in half of them."""
    a, b = site.a[some] / np.float32(2.6), site.b[some] / np.float32(17)
    col, row = np.floor(a), np.floor(b)
    a, b = (a - col - np.float32(0.5)) * np.float32(2.6), (b - row - np.float32(0.5)) * np.float32(17)
    half = max(0.06, 0.3 * site.place.gsd_m)
    line = (np.abs(b) < 5.4) & ((np.abs(a) > 1.3 - half) | (np.abs(b) < half))
    canvas.tint[site.at[some[line]]] *= 1 + 0.9 * min(1.0, 0.06 / half)
    dice = site.rand("cars", some, col.astype(np.int64), 2 * row.astype(np.int64) + (b < 0))
    car = inside(a, np.abs(b) - np.float32(2.7), 0.9, 2.15) & (dice < 0.5)
    put_cars(canvas, site.at[some[car]], 2 * dice[car])


def put_cars(canvas: Canvas, at: Index, dice: F32) -> None:
    """Cars of a colour that `dice`, one number in [0, 1) per car, decides."""
    canvas.put(at, np.take(_CARS, (dice * _CARS.size).astype(np.intp), mode="clip"), 1.4)
    canvas.tint[at] = 1.1 - 0.6 * (37 * dice % 1)
