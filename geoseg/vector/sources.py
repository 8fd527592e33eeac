"""Where class values come from: files here, arrays in `arrays`; both are checked before any pixel is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
import pyproj
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.raster.files import FileFacts, look_at
from geoseg.raster.handles import reading
from geoseg.vector.blocks import Blocks
from geoseg.vector.confidence import to_units, units_of_one
from geoseg.vector.measure import Ground


class SourcePixels(NamedTuple):
    """What is read of one block.

    Attributes:
        values: (height, width) class values, any integer dtype.
        valid: (height, width) bool, True = measured; None where nodata is told by the value alone.
        confidence: (height, width) int32 units, -1 where unknown; None where there is none.
    """

    values: NDArray[np.integer[Any]]
    valid: NDArray[np.bool_] | None
    confidence: NDArray[np.int32] | None


class Source(Protocol):
    """A class map that is read block by block, each pixel once, in one thread."""

    @property
    def ground(self) -> Ground: ...

    @property
    def nodata(self) -> float | None: ...

    @property
    def confidence_one(self) -> int | None:
        """Confidence units that are 1.0; None where there is no confidence."""

    def blocks(self, block: int) -> Blocks:
        """How to cut the raster, at most or about `block` pixels a side."""

    def read(self, window: Window) -> SourcePixels:
        """The pixels of a window inside the raster."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """Raster files on one grid."""

    class_map: FileFacts
    confidence: FileFacts | None
    ground: Ground

    @classmethod
    def of(cls, class_map: str | Path, confidence: str | Path | None) -> Self:
        facts = look_at(class_map)
        check_class_map(facts.path, np.dtype(facts.bands[0].dtype), len(facts.bands))
        ground = _ground_of_file(facts)
        if confidence is None:
            return cls(facts, None, ground)
        confidence_facts = look_at(confidence)
        if len(confidence_facts.bands) != 1:
            raise InputError(f"{confidence_facts.path} has {len(confidence_facts.bands)} bands; a confidence has one.")
        units_of_one(np.dtype(confidence_facts.bands[0].dtype))
        check_same_grid(ground, _ground_of_file(confidence_facts))
        return cls(facts, confidence_facts, ground)

    @property
    def nodata(self) -> float | None:
        return self.class_map.bands[0].nodata

    @property
    def confidence_one(self) -> int | None:
        return None if self.confidence is None else units_of_one(np.dtype(self.confidence.bands[0].dtype))

    def blocks(self, block: int) -> Blocks:
        return Blocks.regular(self.ground.shape, block)

    def read(self, window: Window) -> SourcePixels:
        at = RasterioWindow(window.col, window.row, window.width, window.height)
        with reading(self.class_map.path, window) as raster:
            values = raster.read(1, window=at)
            valid = raster.read_masks(1, window=at) > 0 if self.class_map.bands[0].mask else None
        if self.confidence is None:
            return SourcePixels(values, valid, None)
        with reading(self.confidence.path, window) as raster:
            units = to_units(raster.read(1, window=at), self.confidence.bands[0].nodata)
        return SourcePixels(values, valid, units)


def check_class_map(what: str, dtype: np.dtype[Any], bands: int) -> None:
    """Refuse what holds no class ids.

    Raises:
        InputError: with what was given and what was expected.
    """
    if bands != 1 or dtype.kind not in "iub":
        raise InputError(
            f"{what} has {bands} band{'s' if bands > 1 else ''} of {dtype}; a class map has one band of integers: "
            "give the output of `geoseg segment`, or the band of class ids alone, converted to integers."
        )


def check_same_grid(class_map: Ground, confidence: Ground) -> None:
    if class_map.shape != confidence.shape:
        raise InputError(
            f"The confidence has {confidence.shape[0]} x {confidence.shape[1]} px, the class map "
            f"{class_map.shape[0]} x {class_map.shape[1]}; give the confidence that was written with the class map."
        )
    same_place = class_map.transform.almost_equals(confidence.transform, 1e-9 * abs(class_map.transform.a) or 1e-9)
    if not same_place or class_map.crs != confidence.crs:
        raise InputError(
            f"The confidence lies at {_place(confidence)}, the class map at {_place(class_map)}; "
            "give the confidence that was written with the class map."
        )


def _place(ground: Ground) -> str:
    t = ground.transform
    crs = ground.crs.name if ground.crs else "no CRS"
    return f"({t.c:.10g}, {t.f:.10g}) with pixels of {t.a:.10g} x {t.e:.10g} in {crs}"


def _ground_of_file(facts: FileFacts) -> Ground:
    crs = None if facts.crs is None else pyproj.CRS.from_user_input(facts.crs)
    return Ground(facts.shape, facts.transform, crs)
