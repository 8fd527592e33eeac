"""Shape the arcs of a coverage: regularize, smooth, simplify, in this order, each for both polygons of an arc at once.

The coverage keeps its arcs and how they meet; only their points change. What cannot change without a crossing stays as
it was, so that the polygons remain a coverage: no gap, no overlap, shared borders the same on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.errors import InputError
from geoseg.vector.join import Coverage, Lines
from geoseg.vector.measure import Ground, local_frames
from geoseg.vector.regularize import TOLERANCE_PX, regularize
from geoseg.vector.simplify import SHARE, Limits, simplify
from geoseg.vector.smooth import on_frame, smooth
from geoseg.vector.trace import Arcs

_SMOOTHED_PX = 0.25  # tolerance that thins out what smoothing has made


@dataclass(frozen=True, slots=True)
class Shaping:
    """How the borders shall look.

    Attributes:
        simplify_m: tolerance in metres; triangles up to its square are cut off, 0 for none.
        smooth: codes of the classes whose borders are smoothed.
        regularize: codes of the classes that get straight walls and right angles.
    """

    simplify_m: float = 0.0
    smooth: tuple[int, ...] = ()
    regularize: tuple[int, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether polygons keep to the pixels."""
        return self.simplify_m == 0 and not self.smooth and not self.regularize


class Shaped(NamedTuple):
    """The borders of a coverage in another shape.

    Attributes:
        lines: the points of its arcs, in pixels.
        regularized: components that were to be regularized.
        fallbacks: those of them that would have fitted poorly and are simplified only.
    """

    lines: Lines
    regularized: int = 0
    fallbacks: int = 0


def shape(coverage: Coverage, ground: Ground, shaping: Shaping) -> Shaped:
    """New points for the arcs of a coverage, in pixels; arcs keep their number, order and direction.

    Junctions stay where they are, but for those at regularized walls; what is on the raster's edge stays on it.
    """
    arcs = coverage.arcs
    loops = free_loops(arcs)
    lines = Lines(arcs.points.astype(np.float64), arcs.offsets)
    tolerance_px = _tolerance_px(lines, ground, shaping.simplify_m)
    straight, counts = np.zeros(loops.size, np.bool_), (0, 0)
    if shaping.regularize:
        buildings = np.isin(coverage.components.code, shaping.regularize)
        done = regularize(coverage, ground, buildings, loops, float(np.max(tolerance_px, initial=0)))
        lines, straight, counts = done.lines, done.straight, (done.buildings, done.fallbacks)
        outlines = beside(coverage, shaping.regularize)
        tolerance_px[outlines] = np.where(straight, 0, np.maximum(tolerance_px, TOLERANCE_PX))[outlines]
    if shaping.smooth:
        chosen = beside(coverage, shaping.smooth) & ~straight
        lines = smooth(lines, loops, chosen, ground.shape)
        tolerance_px[chosen] = np.maximum(tolerance_px[chosen], _SMOOTHED_PX)
    limits = Limits(tolerance_px**2, SHARE * tolerance_px * _lengths(lines))
    return Shaped(simplify(lines, loops, on_frame(lines.points, ground.shape), limits), *counts)


def free_loops(arcs: Arcs) -> NDArray[np.bool_]:
    """(arcs,) closed ones on which no other arc ends."""
    starts, ends = arcs.points[arcs.offsets[:-1]], arcs.points[arcs.offsets[1:] - 1]
    _, vertex, count = np.unique(np.concatenate([starts, ends]), axis=0, return_inverse=True, return_counts=True)
    return np.asarray((starts == ends).all(1) & (count[vertex[: len(starts)]] == 2))


def beside(coverage: Coverage, codes: tuple[int, ...]) -> NDArray[np.bool_]:
    """(arcs,) those with one of the classes on either side."""
    taken = np.append(np.isin(coverage.components.code, codes), False)
    return np.asarray(taken[coverage.arcs.left] | taken[coverage.arcs.right])


def check_tolerance(simplify_m: float, ground: Ground) -> None:
    """Refuse a tolerance that is negative, or in metres where there are none.

    Raises:
        InputError: with the remedy.
    """
    if not 0 <= simplify_m < np.inf:
        raise InputError(f"The tolerance of simplifying is 0 metres or more, not {simplify_m}.")
    if simplify_m > 0 and ground.crs is None:
        raise InputError(
            f"Simplifying by {simplify_m:g} metres was asked for, but the raster has no CRS, so that its lengths are "
            "in pixels; give it one (gdal_edit.py -a_srs EPSG:...), or do not simplify."
        )


def _tolerance_px(lines: Lines, ground: Ground, metres: float) -> NDArray[np.float64]:
    """(arcs,) the tolerance in pixels, by the size that a pixel has where the arc begins."""
    if metres == 0:
        return np.zeros(lines.offsets.size - 1)
    starts = lines.points[lines.offsets[:-1]]
    frames = local_frames(ground, starts[:, 0], starts[:, 1])
    return np.asarray(metres / np.sqrt(np.abs(np.linalg.det(frames))), dtype=np.float64)


def _lengths(lines: Lines) -> NDArray[np.float64]:
    """(arcs,) in pixels."""
    steps = np.diff(lines.points, axis=0)
    total = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    return np.asarray(total[lines.offsets[1:] - 1] - total[lines.offsets[:-1]])
