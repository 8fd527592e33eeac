"""What hides the ground on a date: a mask raster, or a band of quality flags. Hidden pixels never count as change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geoseg.catalog import open_named_reader
from geoseg.change.align import check_overlap, resampled
from geoseg.errors import GeosegError, InputError
from geoseg.grid import Window
from geoseg.raster.aoi import AreaOfInterest
from geoseg.raster.disk import disk_errors
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import digest_of

NONE = ("", "-")
MADE_FROM = "GEOSEG_MADE_FROM"
SIDE = 1024


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """What tells on each date where the ground was hidden.

    Attributes:
        masks: a raster for each date on any grid, 0 = hidden; `-` for a date without one.
        qa_band: number of the band of quality flags in each date's file.
        qa_bits: bits of it, counted from 0, any of which hides the ground (Landsat QA_PIXEL: 1, 2, 3, 4; HLS Fmask:
            1, 2, 3).
        qa_values: values of it that hide the ground (Sentinel-2 SCL: 3, 8, 9, 10).
    """

    masks: tuple[str, ...] = ()
    qa_band: int | None = None
    qa_bits: tuple[int, ...] = ()
    qa_values: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if (self.qa_band is None) != (not self.qa_bits and not self.qa_values):
            raise InputError("A QA band needs the bits or values that hide the ground, and these need its number.")
        if self.qa_band is not None and self.qa_band < 1:
            raise InputError(f"The number of the QA band is 1 or more, not {self.qa_band}.")
        if wrong := [bit for bit in self.qa_bits if not 0 <= bit < 32]:
            raise InputError(f"Bits of a QA band are counted from 0 to 31; {wrong[0]} is none.")

    @property
    def tells(self) -> bool:
        """Whether anything is said of any date."""
        return bool(self.masks) or self.qa_band is not None

    def check(self, dates: int) -> None:
        """Raise an InputError where masks are given and not one for each date."""
        if self.masks and len(self.masks) != dates:
            raise InputError(f"There are {dates} dates and {len(self.masks)} masks; give one for each, or - for none.")

    def mask_of(self, number: int) -> str | None:
        """Of the date with that 0-based number."""
        return None if not self.masks or self.masks[number] in NONE else self.masks[number]

    def hidden(self, flags: NDArray[Any]) -> NDArray[np.bool_]:
        """Where flags of any shape say that the ground is hidden."""
        bits = sum(1 << bit for bit in self.qa_bits)
        return np.asarray(((flags.astype(np.int64) & bits) != 0) | np.isin(flags, self.qa_values))


def write_valid_mask(path: str, number: int, clouds: CloudOptions, grid: Georef, output: Path) -> Path | None:
    """Write where a date shows the ground, on a grid: 1, and 0 elsewhere; None where nothing tells.

    Args:
        path: the date's own file, with its QA band.
        number: 0-based, of the date.
        clouds: what tells.
        grid: of the mask.
        output: GeoTIFF; one that was made of the same is left alone, so that a run can go on.

    Raises:
        InputError: a mask or the QA band is not there, or the mask lies elsewhere.
        GeosegError: reading or writing failed.
    """
    mask = clouds.mask_of(number)
    sources = [] if mask is None else [(mask, 1)]
    sources += [] if clouds.qa_band is None else [(path, clouds.qa_band)]
    if not sources:
        return None
    for source, band in sources:
        _check(source, band, flags=source is not mask)
    if mask is not None:
        check_overlap(mask, grid)
    made_from = digest_of(
        {
            "sources": [open_named_reader(source, SceneOptions()).fingerprint() for source, _ in sources],
            "flags": [clouds.qa_band, clouds.qa_bits, clouds.qa_values],
            "grid": [*grid.shape, *grid.transform[:6], str(grid.crs)],
        }
    )
    if not _is_of(output, made_from):
        with disk_errors("writing a mask", output.parent):
            output.parent.mkdir(parents=True, exist_ok=True)
            placed = [
                (resampled(source, grid, output.with_suffix(f".{k}.vrt"), classes=True), band)
                for k, (source, band) in enumerate(sources)
            ]
            _write(partial(_valid, placed, clouds, mask is not None), grid, output, made_from)
    return output


def write_mask_within(aoi: AreaOfInterest, mask: Path | None, grid: Georef, output: Path) -> Path:
    """Write where a date counts, on the part of the common grid that holds an area of interest: 1, and 0 elsewhere.

    Args:
        aoi: on the common grid.
        mask: of the date on the common grid, 0 = hidden; None where nothing tells.
        grid: the part, of the size of the area's window.
        output: GeoTIFF; one that was made of the same is left alone, so that a run can go on.

    Raises:
        GeosegError: reading or writing failed.
    """
    seen = None if mask is None else open_named_reader(str(mask), SceneOptions()).fingerprint()
    made_from = digest_of({"aoi": aoi.digest, "mask": seen, "grid": [*grid.shape, *grid.transform[:6], str(grid.crs)]})

    def counts(window: Window) -> NDArray[np.bool_]:
        there = window.shifted(aoi.window.row, aoi.window.col)
        inside = aoi.mask(there)
        if mask is not None:
            with ignore_not_georeferenced(), rasterio.open(mask) as raster:
                inside &= raster.read(1, window=_to_rasterio(there)) != 0
        return inside

    if not _is_of(output, made_from):
        with disk_errors("writing a mask", output.parent):
            output.parent.mkdir(parents=True, exist_ok=True)
            _write(counts, grid, output, made_from)
    return output


def _write(valid: Callable[[Window], NDArray[np.bool_]], grid: Georef, output: Path, made_from: str) -> None:
    height, width = grid.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "tiled": True, "compress": "deflate"}
    place = {"height": height, "width": width, "transform": grid.transform, "crs": grid.crs}
    new = output.with_name(f".{output.name}")
    try:
        with (
            ignore_not_georeferenced(),
            rasterio.open(new, "w", **profile, **place) as out,
        ):
            out.update_tags(**{MADE_FROM: made_from})
            for row in range(0, height, SIDE):
                for col in range(0, width, SIDE):
                    window = Window(row, col, min(SIDE, height - row), min(SIDE, width - col))
                    out.write(valid(window).astype(np.uint8), 1, window=_to_rasterio(window))
    except RasterioError as error:
        raise GeosegError(f"The mask {output} could not be written: {error}") from error
    new.replace(output)


def _valid(
    placed: Sequence[tuple[Path, int]], clouds: CloudOptions, has_mask: bool, window: Window
) -> NDArray[np.bool_]:
    valid = np.ones(window.shape, np.bool_)
    for number, (path, band) in enumerate(placed):
        with ignore_not_georeferenced(), rasterio.open(path) as raster:
            flags = raster.read(band, window=_to_rasterio(window))
            known = raster.read_masks(band, window=_to_rasterio(window)) != 0
        is_mask = has_mask and number == 0
        valid &= (known & (flags != 0)) if is_mask else (~clouds.hidden(flags) & known)
    return valid


def _check(source: str, band: int, *, flags: bool) -> None:
    raster: DatasetReader
    try:
        with ignore_not_georeferenced(), rasterio.open(source) as raster:
            count, kind = raster.count, raster.dtypes[min(band, raster.count) - 1]
    except RasterioError as error:
        raise InputError(f"Cannot open the mask {source}: {error}") from error
    if band > count:
        raise InputError(f"{source} has {count} bands; there is no QA band {band}.")
    if flags and np.dtype(kind).kind not in "ui":
        raise InputError(f"Band {band} of {source} holds {kind}; a QA band holds whole numbers.")


def _to_rasterio(window: Window) -> RasterioWindow:
    return RasterioWindow(window.col, window.row, window.width, window.height)


def _is_of(path: Path, made_from: str) -> bool:
    if not path.is_file():
        return False
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as raster:
            return bool(raster.tags().get(MADE_FROM) == made_from)
    except RasterioError:
        return False
