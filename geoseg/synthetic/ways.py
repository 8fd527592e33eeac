"""Streets inside blocks, the river, and the roads between blocks with their marks and cars."""

from __future__ import annotations

import numpy as np

from geoseg.synthetic.buildings import put_cars
from geoseg.synthetic.canvas import Canvas, inside
from geoseg.synthetic.lots import TRACK_M, Index, Lots, Road, Use, Words
from geoseg.synthetic.materials import M
from geoseg.synthetic.noise import F32


def draw_streets(canvas: Canvas, lots: Lots, block: Index, street: F32) -> None:
    """Streets between rows of houses and halls, with sidewalks; tracks between fields."""
    half = lots.street[block]
    near = np.flatnonzero(street < half + np.float32(1.3))
    on = street[near] < half[near]
    farm = lots.blocks.use.ravel()[block[near]] == Use.FARM
    canvas.put(near[~on & ~farm & (half[near] > 0)], M.PAVING)
    canvas.put(near[on & ~farm], M.STREET)
    canvas.put(near[on & farm], M.DIRT)
    canvas.tint[near[on]] = 0.7 + 0.3 * canvas.tint[near[on]]


def draw_river(canvas: Canvas, lots: Lots, block: Index, uv: tuple[F32, F32]) -> None:
    """Water, a beach, and a bank where trees will stand."""
    near = np.flatnonzero(lots.blocks.river.ravel()[block])
    if not near.size:
        return
    distance, half = canvas.place.river(uv[0][near], uv[1][near])
    depth = half - distance + 2 * canvas.patch[near] + np.float32(0.6) * canvas.fine[near]
    canvas.put(near[depth > -9], M.SAND if canvas.place.is_dry else M.SCRUB)
    canvas.put(near[depth > -2.5], M.SOIL)
    wet = near[depth > 0]
    canvas.put(wet, M.WATER)
    canvas.tint[wet] += 0.25 * np.clip(1 - depth[depth > 0] / 5, 0, 1)


def draw_roads(canvas: Canvas, lots: Lots, block: Index, road: Road) -> None:
    """Roads with sidewalks in town and verges outside; through roads bridge the water, others end at it."""
    near = np.flatnonzero(road.distance - road.half < np.float32(3.5))
    outside = road.distance[near] - road.half[near]
    water = canvas.material[near] == M.WATER
    urban = np.isin(lots.blocks.use.ravel()[block[near]], (Use.HOMES, Use.TRADE))
    canvas.put(near[(outside >= 0) & ~urban & ~water], M.SAND if canvas.place.is_dry else M.MEADOW)
    canvas.put(near[(outside >= 0) & (outside < 1.8) & urban & ~water], M.PAVING)
    on = near[(outside < 0) & (road.through[near] | ~water)]
    track = road.half[on] == np.float32(TRACK_M)
    canvas.put(on[track], M.DIRT)
    on = on[~track]
    canvas.put(on, M.ASPHALT)
    canvas.tint[on] = 0.6 + 0.4 * canvas.tint[on]
    _draw_marks(canvas, road, on)
    _drive_cars(canvas, lots.block_key[block[on]], road, on)


def _draw_marks(canvas: Canvas, road: Road, on: Index) -> None:
    """A dashed middle line and, on wide roads, edge lines; thinner than a pixel they only brighten it."""
    half_line = max(0.1, 0.5 * canvas.place.gsd_m)
    distance, half = road.distance[on], road.half[on]
    dashes = road.along[on] / np.float32(9)
    mark = (distance < half_line) & (dashes - np.floor(dashes) < 0.45)
    mark |= (np.abs(half - distance - np.float32(0.5)) < half_line) & (half > 4)
    canvas.tint[on[mark]] *= 1 + 0.95 * min(1.0, 0.1 / half_line)


def _drive_cars(canvas: Canvas, key: Words, road: Road, on: Index) -> None:
    """A car in few of the cells of 16 m, on each side of the road."""
    cell = np.floor(road.along[on] / 16)
    dice = canvas.place.rand("traffic", cell.astype(np.int64), key)
    along = np.asarray(road.along[on] - (cell + 0.5) * 16, np.float32)
    across = np.asarray(road.distance[on] - road.half[on] / 2, np.float32)
    car = inside(along, across, 2.1, 0.9) & (dice < 0.07)
    put_cars(canvas, on[car], dice[car] / np.float32(0.07))
