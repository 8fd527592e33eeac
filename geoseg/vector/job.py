"""One run of vectorizing: what the raster is, what is asked of it, and from the traced coverage to the table."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.vector.blocks import BlockPixels, Blocks, trace_blocks
from geoseg.vector.clean import drop, fill_holes
from geoseg.vector.coding import REST, Coding
from geoseg.vector.groups import groups_of, small_groups
from geoseg.vector.join import Coverage, join
from geoseg.vector.levels import UNKNOWN, to_levels
from geoseg.vector.measure import Ground
from geoseg.vector.options import VectorOptions
from geoseg.vector.shape import Shaping, check_tolerance, shape
from geoseg.vector.sources import SourcePixels
from geoseg.vector.table import PolygonTable, check_min_area, polygon_table
from geoseg.vector.trace import BACKGROUND, BlockTrace

if TYPE_CHECKING:
    from geoseg.vector.split import Splits

_log = logging.getLogger(__name__)

Read = Callable[[Window], BlockPixels]


@dataclass(frozen=True)
class VectorJob:
    """All that polygons depend on but the pixels; picklable.

    Attributes:
        ground: where the raster lies.
        coding: which values get polygons.
        shaping: how their borders shall look.
        confidence_one: the confidence units that are 1.0; None where there is no confidence.
        legend: the raster's, or the one that was stated.
        options: what is asked for.
    """

    ground: Ground
    coding: Coding
    shaping: Shaping
    confidence_one: int | None
    legend: Legend | None
    options: VectorOptions

    @classmethod
    def of(
        cls,
        ground: Ground,
        options: VectorOptions,
        *,
        legend: Legend | None,
        nodata: float | None,
        confidence_one: int | None,
    ) -> VectorJob:
        """Settle what is to be done; what is asked for in vain is refused here.

        Raises:
            InputError: a class is unknown, or metres are asked of a raster that has none.
        """
        check_min_area(options.min_area_m2, ground)
        check_min_area(options.fill_holes_m2, ground)
        check_tolerance(options.simplify_m, ground)
        coding = Coding.of(legend, options.classes, nodata, REST if options.fill_holes_m2 else BACKGROUND)
        smooth, straight, _ = (
            coding.codes_of(names, legend) for names in (options.smooth, options.regularize, options.split)
        )
        shaping = Shaping(options.simplify_m, smooth, straight)
        return cls(ground, coding, shaping, confidence_one, legend, options)

    def encode(self, pixels: SourcePixels) -> BlockPixels:
        """What is traced of pixels as read."""
        codes = self.coding.encode(pixels.values)
        if pixels.valid is not None:
            codes[~pixels.valid] = BACKGROUND
        if pixels.confidence is None or self.confidence_one is None:
            return BlockPixels(codes)
        return BlockPixels(codes, pixels.confidence, to_levels(pixels.confidence, self.confidence_one))

    def table(
        self, traces: Iterable[BlockTrace], read: Read, retrace: Callable[[Read], Iterable[BlockTrace]]
    ) -> PolygonTable:
        """From traced blocks to polygons.

        Args:
            traces: of all blocks.
            read: pixels of any window, for splitting.
            retrace: traces of all blocks with pixels from another `read`, for splitting.
        """
        coverage, splits = join(traces), None
        self._warn_of_unknown()
        if self.options.split:
            from geoseg.vector.split import find_splits  # loads skimage

            codes = self.coding.codes_of(self.options.split, self.legend)
            width = self.ground.shape[1]
            splits = find_splits(coverage, codes, width, read, confidence_one=self.confidence_one)
            if splits.found:
                coverage = join(retrace(partial(_apart, read, splits)))
        return self._finished(coverage, splits)

    def empty_table(self) -> PolygonTable:
        """All columns and no row."""
        nothing = np.full((1, 1), BACKGROUND, np.int32)
        pixels = BlockPixels(nothing)
        if self.confidence_one is not None:
            pixels = BlockPixels(nothing, np.full((1, 1), -1, np.int32), np.full((1, 1), UNKNOWN, np.uint8))
        return self._finished(join(trace_blocks(lambda _: pixels, Blocks.regular((1, 1), 1))), None)

    def _warn_of_unknown(self) -> None:
        if self.coding.unknown:
            values = ", ".join(str(value) for value in sorted(self.coding.unknown)[:10])
            _log.warning("Values that the legend does not name get no polygons: %s.", values)

    def _finished(self, coverage: Coverage, splits: Splits | None) -> PolygonTable:
        options = self.options
        if options.fill_holes_m2:
            coverage = fill_holes(coverage, self.ground, options.fill_holes_m2)
            coverage = drop(coverage, coverage.components.code == REST)
        if splits is not None:
            coverage = splits.classes(coverage)
        reshaped = not self.shaping.is_nothing
        if reshaped:
            coverage = drop(coverage, small_groups(coverage, self.ground, options))
        shaped = shape(coverage, self.ground, self.shaping) if reshaped else None
        table = polygon_table(
            coverage,
            self.coding,
            self.ground,
            confidence_one=self.confidence_one,
            min_area_m2=0.0 if reshaped else options.min_area_m2,
            lines=None if shaped is None else shaped.lines,
            groups=groups_of(coverage) if options.connectivity == 8 else None,
        )
        return table if shaped is None else replace(table, regularized=shaped.regularized, fallbacks=shaped.fallbacks)


def _apart(read: Read, splits: Splits, window: Window) -> BlockPixels:
    pixels = read(window)
    return pixels._replace(codes=splits.apart(window, pixels.codes))
