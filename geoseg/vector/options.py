"""What to make of a class raster: which classes, which shapes, which columns, which files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geoseg.errors import InputError
from geoseg.legend import Legend

BLOCK = 1024
"""Rows and columns of a block: about 160 MB while it is traced at worst, in a map of pure noise."""


@dataclass(frozen=True, slots=True)
class VectorOptions:
    """What to make of a class raster.

    Attributes:
        classes: names of classes and groups, which are dissolved; None for all.
        legend: None takes the raster's own.
        confidence: raster on the same grid, for the mean and the tenth percentile of each polygon.
        connectivity: 4 for polygons whose pixels share edges; 8 for those whose pixels share edges or corners, which
            are multipolygons.
        min_area_m2: smaller polygons are left out.
        fill_holes_m2: smaller parts become part of the neighbour with the longest shared border; nodata stays.
        simplify_m: tolerance of simplifying, in metres; neighbours keep their shared border.
        smooth: names of classes and groups whose borders lose their staircases.
        regularize: names of classes and groups that get straight walls and right angles, as buildings have; those that
            would have fitted poorly are simplified only.
        split: names of classes and groups of which touching objects, told by a neck in shape or confidence, are
            polygons of their own.
        stats: rasters in the same CRS; mean, standard deviation, least and greatest value of each band in each polygon.
        date: when the scene was taken, as in 2024-06-30, where the raster's tags do not tell.
        single_layer: all classes in one layer, where the format has layers.
        append: add to a GeoPackage that exists, for another date or scene.
        partition: of GeoParquet: "class", or "tile=SIDE" with the side in units of the CRS; the output is a folder.
        block: rows and columns read at once; the result does not depend on it.
        workers: blocks traced at once; None for as many as there are processors, at most 4.

    All shaping follows joining, filling and leaving out, so that it does not depend on blocks either.
    """

    classes: Sequence[str] | None = None
    legend: Legend | None = None
    confidence: str | Path | None = None
    connectivity: Literal[4, 8] = 4
    min_area_m2: float = 0.0
    fill_holes_m2: float = 0.0
    simplify_m: float = 0.0
    smooth: Sequence[str] = ()
    regularize: Sequence[str] = ()
    split: Sequence[str] = ()
    stats: Sequence[str | Path] = ()
    date: str | None = None
    single_layer: bool = False
    append: bool = False
    partition: str | None = None
    block: int = BLOCK
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.connectivity not in (4, 8):
            raise InputError(
                f"Pixels are connected by their 4 edges or by those and their corners, 8; not {self.connectivity}."
            )
        if self.connectivity == 8 and self.split:
            raise InputError("What is split at necks holds together by edges: give --connectivity 4 with --split.")
        if self.block < 1:
            raise InputError(f"A block is 1 pixel or more, not {self.block}.")
        if self.workers is not None and self.workers < 1:
            raise InputError(f"--workers is 1 or more, not {self.workers}.")

    @property
    def told(self) -> dict[str, Any]:
        """All that the polygons depend on beside the rasters, JSON-able."""
        names = ("connectivity", "min_area_m2", "fill_holes_m2", "simplify_m", "date", "single_layer", "partition")
        lists = ("smooth", "regularize", "split")
        return {name: getattr(self, name) for name in names} | {name: list(getattr(self, name)) for name in lists}
