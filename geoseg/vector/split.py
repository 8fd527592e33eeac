"""Split touching objects of a class where their shape or their confidence has a neck.

Each component is read whole, by its own window, so that nothing depends on blocks. Its relief is the distance to its
outline in pixels, times the confidence where that is known. Two basins of the watershed of that relief (Vincent &
Soille 1991, doi:10.1109/34.87344) are one object unless the pass between them lies well below both summits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import morphology, segmentation

from geoseg.grid import Window
from geoseg.vector.blocks import BlockPixels
from geoseg.vector.coding import REST
from geoseg.vector.join import Coverage
from geoseg.vector.kernels import compiled, find, roots

_log = logging.getLogger(__name__)
_local_maxima: Any = morphology.local_maxima  # they carry no types
_watershed: Any = segmentation.watershed

NECK = 0.7  # a pass lower than this share of the lower summit parts two objects
STEP_PX = 1.5  # and lower by this: outlines of pixels are rough
LEAST_PX = 24  # smaller components have no neck worth the name
MOST_PX = 1 << 24  # of the window of a component that is split: what is larger is no building, and stays whole
FIRST_CODE = REST + 1

Read = Callable[[Window], BlockPixels]


@dataclass(frozen=True, slots=True)
class Split:
    """The objects in one component.

    Attributes:
        window: around the component.
        labels: (height, width) 1, 2, ... by first pixel in row-major order; 0 outside the component.
        code: of the class.
        first: code of the object labelled 1; the next ones have the next codes.
    """

    window: Window
    labels: NDArray[np.int32]
    code: int
    first: int


@dataclass(frozen=True)
class Splits:
    """All components that are several objects, which have codes of their own until `classes` takes them back."""

    found: Sequence[Split]

    @cached_property
    def _corners(self) -> NDArray[np.int64]:
        """(splits, 4) first row and column of each window, and those behind its last."""
        windows = [split.window for split in self.found]
        return np.array([(one.row, one.col, one.row_stop, one.col_stop) for one in windows], np.int64).reshape(-1, 4)

    def apart(self, window: Window, codes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Codes (height, width) of a window with one for each object."""
        corners = self._corners
        reaches = (corners[:, :2] < [window.row_stop, window.col_stop]) & (corners[:, 2:] > [window.row, window.col])
        for number in np.flatnonzero(reaches.all(1)).tolist():
            split = self.found[number]
            shared = split.window.intersection(window)
            labels = split.labels[shared.relative_to(split.window).slices]
            here = codes[shared.relative_to(window).slices]
            here[labels > 0] = (labels + np.int32(split.first - 1))[labels > 0]
        return codes

    def classes(self, coverage: Coverage) -> Coverage:
        """The coverage with the codes of classes."""
        table = np.array([split.code for split in self.found for _ in range(split.labels.max())], np.int32)
        code = coverage.components.code.copy()
        own = (code >= FIRST_CODE) & (code < FIRST_CODE + len(table))
        code[own] = table[code[own] - FIRST_CODE]
        return coverage._replace(components=coverage.components._replace(code=code))


def find_splits(
    coverage: Coverage, codes: Iterable[int], width: int, read: Read, *, confidence_one: int | None
) -> Splits:
    """Look for necks in each component of some classes.

    Args:
        coverage: of the whole raster.
        codes: of the classes to split.
        width: columns of the raster.
        read: pixels of a window, as for tracing.
        confidence_one: the confidence units that are 1.0; None where there is no confidence.
    """
    components = coverage.components
    corners = _corners(coverage)
    large = np.isin(components.code, list(codes)) & (components.pixels >= LEAST_PX)
    found: list[Split] = []
    following, huge = FIRST_CODE, 0
    for number in np.flatnonzero(large).tolist():
        row, col, row_stop, col_stop = corners[number].tolist()
        window, code = Window(row, col, row_stop - row, col_stop - col), int(components.code[number])
        if window.area > MOST_PX:
            huge += 1
            continue
        pixels = read(window)
        parts, _ = ndimage.label(pixels.codes == code)
        inside = parts == parts[0, int(components.first[number] % width) - col]
        labels = split_part(
            inside, None if pixels.confidence is None else pixels.confidence / float(confidence_one or 1)
        )
        if labels.max() > 1:
            found.append(Split(window, labels, code, following))
            following += int(labels.max())
    if huge:
        _log.warning("%d parts with more than %d pixels around them were not split.", huge, MOST_PX)
    return Splits(found)


def split_part(inside: NDArray[np.bool_], confidence: NDArray[np.float64] | None = None) -> NDArray[np.int32]:
    """The objects in a connected part.

    Args:
        inside: (height, width) True in the part.
        confidence: (height, width) 0 to 1, negative where unknown.

    Returns:
        (height, width) 1, 2, ... by first pixel in row-major order; 0 outside.
    """
    relief = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    if confidence is not None:
        relief = relief * np.where(confidence < 0, 1, confidence)
    summits, count = ndimage.label(_local_maxima(relief, allow_borders=True) & inside, np.ones((3, 3)))
    if count < 2:
        return inside.astype(np.int32)
    basins = _watershed(-relief, summits, mask=inside)
    heights = np.asarray(ndimage.maximum(relief, basins, np.arange(count + 1)))
    merged = roots(_merge(heights, *_passes(basins, relief)))[basins]
    return np.where(inside, _by_first_pixel(merged), 0).astype(np.int32)


def _passes(
    basins: NDArray[np.int32], relief: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """The two basins on either side of each step over a border and how high that is, the highest first."""
    steps = []
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        across = (basins[one] != basins[other]) & (basins[one] > 0) & (basins[other] > 0)
        height = np.minimum(relief[one], relief[other])[across]
        steps.append((basins[one][across], basins[other][across], height))
    first, second, height = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.lexsort((second, first, -height))
    return first[order].astype(np.int64), second[order].astype(np.int64), height[order]


@compiled
def _merge(
    heights: NDArray[np.float64], first: NDArray[np.int64], second: NDArray[np.int64], passes: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Basins that are one object, as a union-find, from the highest pass down."""
    parent = np.arange(heights.size)
    summit = heights.copy()
    for k in range(passes.size):
        one, other = find(parent, first[k]), find(parent, second[k])
        if one == other:
            continue
        lower = min(summit[one], summit[other])
        if passes[k] >= NECK * lower or lower - passes[k] < STEP_PX:
            root, leaf = min(one, other), max(one, other)
            parent[leaf] = root
            summit[root] = max(summit[root], summit[leaf])
    return parent


def _by_first_pixel(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Renumbered from 1 in the order of their first pixels; 0, if anywhere, is left out of the count."""
    values, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    counted = np.flatnonzero(values > 0)
    number = np.zeros(values.size, np.int64)
    number[counted[np.argsort(first[counted])]] = np.arange(1, counted.size + 1)
    return np.asarray(number[inverse].reshape(labels.shape))


def _corners(coverage: Coverage) -> NDArray[np.int64]:
    """(components, 4) first row, first column and the row and column behind the last, of each."""
    arcs, count = coverage.arcs, coverage.components.code.size
    found = np.tile(np.array([np.iinfo(np.int64).max, np.iinfo(np.int64).max, 0, 0]), (count, 1))
    if not arcs.left.size:
        return found
    low, high = (ends.reduceat(arcs.points, arcs.offsets[:-1], axis=0) for ends in (np.minimum, np.maximum))
    for side in (arcs.left, arcs.right):
        known = side >= 0
        np.minimum.at(found[:, :2], side[known], low[known])
        np.maximum.at(found[:, 2:], side[known], high[known])
    return found
