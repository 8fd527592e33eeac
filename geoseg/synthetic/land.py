"""Lots without buildings: woods, parks with ponds or sports grounds, bare land, fields and vineyards."""

from __future__ import annotations

import numpy as np

from geoseg.synthetic.canvas import Canvas, Site, inside
from geoseg.synthetic.lots import Index
from geoseg.synthetic.materials import M

_CROPS = np.array([M.MEADOW] * 5 + [M.CROP] * 4 + [M.RIPE] * 3 + [M.PLOWED] * 4, np.uint8)


def draw_wood(canvas: Canvas, site: Site) -> None:
    """Undergrowth, where trees will stand, and clearings."""
    clearing = site.patch + 0.4 * site.fine > 0.85
    canvas.put(site.at, np.where(clearing, M.MEADOW, M.SCRUB))


def draw_park(canvas: Canvas, site: Site) -> None:
    """A lawn or steppe, in it a pond with a path around it, or sports grounds."""
    dry = site.place.is_dry
    canvas.put(site.at, M.SAND if dry else M.LAWN)
    a, b = site.a / site.half_a, site.b / site.half_b
    shore = np.sqrt(a * a + b * b) + 0.22 * site.patch - site.dice(2, 0.30, 0.62)
    has = site.dice(3) < 0.5
    path = has & (np.abs(shore - 0.16) < 1.2 / site.half_b)
    canvas.put(site.at[path], M.DIRT if dry else M.PAVING)
    shore += 0.03 * site.fine
    canvas.put(site.at[has & (shore < 0.025)], M.SOIL)
    water = has & (shore < 0)
    canvas.put(site.at[water], M.WATER)
    canvas.tint[site.at[water]] += np.clip(2 * shore[water] + 0.25, 0, 0.25)
    _draw_sports(canvas, site, np.flatnonzero(site.dice(3) > 0.62))


def _draw_sports(canvas: Canvas, site: Site, some: Index) -> None:
    """A pitch of mown or artificial turf, in half of them a running track around it, and a row of hard courts.

    As smooth and as dark or as blue as water is, and none of it water.
    """
    a, b = site.a[some], site.b[some] + np.float32(20)
    half_a, half_b = site.dice(4, 42, 55)[some], site.dice(5, 28, 36)[some]
    straight = np.maximum(np.abs(a) - half_a, 0)
    lane = np.sqrt(straight * straight + b * b) - half_b
    with_track = site.dice(6)[some] < 0.5
    canvas.put(site.at[some[with_track & (lane > 5) & (lane < 14)]], M.TRACK)
    pitch = inside(a, b, half_a, half_b)
    canvas.put(site.at[some[pitch]], M.TURF)
    mown = 0.05 * np.sign(np.sin(a[pitch] * np.float32(0.55))) * (site.dice(7)[some[pitch]] < 0.6)
    canvas.tint[site.at[some[pitch]]] = site.dice(8, 0.65, 1.15)[some[pitch]] + mown
    border = np.minimum(half_a - np.abs(a), half_b - np.abs(b))
    lines = np.where(np.abs(border - 1.5) < 0.07, 0.07, np.where(np.abs(a) < 0.07, np.abs(a), 9))
    white = pitch & (border > 1.4) & (lines < max(0.08, 0.3 * site.place.gsd_m))
    canvas.tint[site.at[some[white]]] *= 1.6
    across = b - half_b - np.float32(34)
    court = (np.abs(across) < 18) & (np.abs(a) < site.dice(9, 0, 70)[some])
    canvas.put(site.at[some[court]], M.PAVING)
    cell = a / np.float32(20)
    cell -= np.floor(cell)
    canvas.put(site.at[some[court & inside((cell - np.float32(0.5)) * 20, across, 7.5, 15)]], M.COURT)


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
