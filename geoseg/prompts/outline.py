"""From a mask to one polygon: the part that was asked for, its outline, its area."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.features import shapes
from scipy import ndimage
from shapely.geometry import Polygon

from geoseg.prompts.asked import Asked, Place
from geoseg.prompts.follow import Mask
from geoseg.raster.label_codes import apply
from geoseg.vector.measure import Ground, measure


class Outline(NamedTuple):
    """An object on the ground.

    Attributes:
        polygon: in the scene's CRS; empty where nothing was found.
        pixels: number of them.
        area: square metres; pixels where the scene has no CRS.
    """

    polygon: Polygon
    pixels: int
    area: float


def one_part(mask: Mask, asked: Asked | None) -> Mask:
    """The largest 4-connected part that holds a point on the object; the largest of all where none does."""
    numbers, count = ndimage.label(mask.pixels)
    if count <= 1:
        return mask
    areas = np.bincount(numbers.ravel(), minlength=count + 1)
    areas[0] = 0
    held = _held(mask, numbers, asked)
    if len(held):
        areas[np.setdiff1d(np.arange(count + 1), held)] = 0
    return Mask(mask.window, numbers == int(areas.argmax()))


def outline(mask: Mask, place: Place) -> Outline:
    """The outline of a mask of one part, along its pixels' edges, and its area."""
    pixels = int(mask.pixels.sum())
    if not pixels:
        return Outline(Polygon(), 0, 0.0)
    rings = next(one["coordinates"] for one, _ in shapes(mask.pixels.astype(np.uint8), mask=mask.pixels))
    found = Polygon(rings[0], rings[1:])
    polygon = moved(found, place.transform @ Affine.translation(mask.window.col, mask.window.row))
    if place.crs is None:
        return Outline(polygon, pixels, float(pixels))
    ground = Ground(place.shape, place.transform, place.crs)
    area = measure(np.array([polygon], dtype=object), np.array([pixels]), ground).area
    return Outline(polygon, pixels, float(area[0]))


def moved(polygon: Polygon, transform: Affine) -> Polygon:
    """A polygon in pixels (column, row) in CRS coordinates; shells run anticlockwise, whatever the transform."""

    def to_crs(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(apply(transform, points[:, 0], points[:, 1]), axis=1)

    there: Polygon = shapely.orient_polygons(shapely.transform(polygon, to_crs))
    return there


def _held(mask: Mask, numbers: NDArray[np.int32], asked: Asked | None) -> NDArray[np.int64]:
    """Parts that hold a point on the object."""
    if asked is None:
        return np.zeros(0, np.int64)
    at = np.floor(asked.points[asked.labels == 1]).astype(np.int64) - (mask.window.row, mask.window.col)
    inside = at[((at >= 0) & (at < mask.pixels.shape)).all(1)]
    held = np.unique(numbers[inside[:, 0], inside[:, 1]])
    return held[held > 0]
