"""Lots without buildings: woods, parks with ponds, bare land, fields and vineyards."""

from __future__ import annotations

import numpy as np

from geoseg.synthetic.canvas import Canvas, Site
from geoseg.synthetic.materials import M

_CROPS = np.array([M.MEADOW] * 5 + [M.CROP] * 4 + [M.RIPE] * 3 + [M.PLOWED] * 4, np.uint8)


def draw_wood(canvas: Canvas, site: Site) -> None:
    """Undergrowth, where trees will stand, and clearings."""
    clearing = site.patch + 0.4 * site.fine > 0.85
    canvas.put(site.at, np.where(clearing, M.MEADOW, M.SCRUB))


def draw_park(canvas: Canvas, site: Site) -> None:
    """A lawn or steppe, in most a pond and a path around it."""
    dry = site.place.is_dry
    canvas.put(site.at, M.SAND if dry else M.LAWN)
    a, b = site.a / site.half_a, site.b / site.half_b
    shore = np.sqrt(a * a + b * b) + 0.22 * site.patch - site.dice(2, 0.30, 0.62)
    has = site.dice(3) < 0.75
    path = has & (np.abs(shore - 0.16) < 1.2 / site.half_b)
    canvas.put(site.at[path], M.DIRT if dry else M.PAVING)
    shore += 0.03 * site.fine
    canvas.put(site.at[has & (shore < 0.025)], M.SOIL)
    water = has & (shore < 0)
    canvas.put(site.at[water], M.WATER)
    canvas.tint[site.at[water]] += np.clip(2 * shore[water] + 0.25, 0, 0.25)


def draw_bare(canvas: Canvas, site: Site) -> None:
    """Sand, soil, mounds, shrubs and a track."""
    sandy = site.patch + 0.5 * site.fine > 0.15 + site.dice(1, -0.4, 0.4)
    mounds = 2 * np.clip(site.patch - 0.3, 0, 1) + 0.5 * np.clip(site.fine - 0.2, 0, 1)
    canvas.put(site.at, np.where(sandy, M.SAND, M.SOIL), mounds)
    canvas.put(site.at[site.fine - 0.7 * site.patch > 0.95], M.SCRUB)
    track = np.abs(site.patch - 0.03 * site.fine - site.dice(3, -0.5, 0.5)) < 0.045
    canvas.put(site.at[track], M.DIRT)
    canvas.tint[site.at] *= site.dice(2, 0.9, 1.1)


def draw_field(canvas: Canvas, site: Site) -> None:
    canvas.put(site.at, np.take(_CROPS, (site.dice(1, 0, 1 / 0.78) * _CROPS.size).astype(np.intp), mode="clip"))
    rows = 0.05 * site.stripes(1.6) - 0.08 * (np.abs(site.stripes(18.0)) > 0.93)
    canvas.tint[site.at] *= site.dice(2, 0.88, 1.12) + rows
    canvas.warm[site.at] += site.dice(3, -1.2, 1.2)
    _draw_margin(canvas, site)


def draw_vines(canvas: Canvas, site: Site) -> None:
    """Rows of vines 2.5 m apart; the soil between them belongs to the vineyard."""
    green = site.stripes(2.5) + 0.5 * site.fine > 0.25
    canvas.put(site.at, np.where(green, M.VINE, M.VINE_SOIL), np.float32(1.2) * green)
    canvas.tint[site.at] *= site.dice(2, 0.85, 1.15)
    _draw_margin(canvas, site)


def _draw_margin(canvas: Canvas, site: Site) -> None:
    """Grass around a field, or a hedgerow where trees will stand."""
    edge = site.edge + 0.8 * site.fine
    canvas.put(site.at[edge < 2.5], M.MEADOW)
    canvas.put(site.at[(edge < 3.5) & (site.dice(4) < 0.3)], M.SCRUB, 0.6)
