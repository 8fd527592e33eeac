"""Dates as they are given: scenes or class maps, put on one grid and in one light, with the shift between them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError

from geoseg.catalog import open_named_reader
from geoseg.change.align import Dated, Extent, common_grid, cut, georef_of, is_on, resampled
from geoseg.change.clouds import CloudOptions, write_mask_within, write_valid_mask
from geoseg.change.detect import ChangeJob, ChangeOptions, map_indices
from geoseg.change.matched import match_light
from geoseg.change.radiometry import METHODS, Method, Radiometry
from geoseg.change.shift import Shift, estimate_shift
from geoseg.change.times import times_of
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.legend import Legend
from geoseg.models.pairs import AFTER, BEFORE
from geoseg.raster.aoi import AreaOfInterest, read_aoi
from geoseg.raster.disk import disk_errors
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import read_legend
from geoseg.raster.reader import SceneOptions

log = logging.getLogger(__name__)
Kind = Literal["auto", "scenes", "maps"]
ROLES = ("before", "after")
NOTED_PX = 0.5  # shifts beyond this and beyond their spread are worth a warning
STRIP = 2**23  # pixels looked at at once, in whole rows


@dataclass(frozen=True, slots=True)
class DateOptions:
    """How dates are read and come together.

    Attributes:
        times: of each date: years, months, days or numbers; None takes them from the names of the files.
        kind: what the dates are; auto takes rasters with a legend in their tags for class maps.
        extent: what all dates cover, or what any of them does.
        resolution: side of a pixel of the common grid, in units of its CRS; else that of the finest date.
        coregister: move scenes by the shift that is estimated between them and the first.
        radiometry: put scenes in the light of the first, by a line for each band through pixels that have not changed
            (mad), or by histograms; of the whole scene.
        clouds: what hides the ground.
    """

    times: tuple[str, ...] | None = None
    kind: Kind = "auto"
    extent: Extent = "intersection"
    resolution: float | None = None
    coregister: bool = False
    radiometry: Method = "none"
    clouds: CloudOptions = field(default_factory=CloudOptions)

    def __post_init__(self) -> None:
        if self.radiometry not in METHODS:
            raise InputError(f"The radiometry of a date is {', '.join(METHODS)}, not {self.radiometry!r}.")

    def of_some(self, numbers: Sequence[int], dates: int) -> DateOptions:
        """The same for some of so many dates, by their 0-based numbers.

        Raises:
            InputError: times or masks are not of so many dates.
        """
        if self.times is not None and len(self.times) != dates:
            raise InputError(f"There are {dates} dates and {len(self.times)} times; give one for each.")
        self.clouds.check(dates)
        times = None if self.times is None else tuple(self.times[number] for number in numbers)
        masks = tuple(self.clouds.masks[number] for number in numbers) if self.clouds.masks else ()
        return replace(self, times=times, clouds=replace(self.clouds, masks=masks))


@dataclass(frozen=True, slots=True)
class Date:
    """One date.

    Attributes:
        given: the path as given.
        path: the same on the common grid.
        georef: where what is given lies.
        time: as text; None where nothing tells.
        mask: raster on the grid, 0 where the ground is hidden; None where nothing tells.
        shift: of a scene against the first; None before it is estimated, and where nothing tells.
        is_corrected: whether it was moved by it.
        radiometry: how it was put in the light of the first; None where it was not.
    """

    given: str
    path: str
    georef: Georef
    time: str | None = None
    mask: Path | None = None
    shift: Shift | None = None
    is_corrected: bool = False
    radiometry: Radiometry | None = None

    @property
    def name(self) -> str:
        return Path(self.given).name

    def on(
        self, grid: Georef, vrt: Path, *, classes: bool, shift_px: tuple[float, float] = (0.0, 0.0), exact: bool = False
    ) -> Date:
        """On a grid, by a VRT file where need be.

        Args:
            grid: where it shall lie.
            vrt: the file to write.
            classes: whether values are classes.
            shift_px: rows and columns by which it is moved.
            exact: transforms that differ by a rounding are not the same.
        """
        is_there = is_on(self.georef, grid) and (not exact or self.georef.transform == grid.transform)
        if is_there and shift_px == (0.0, 0.0):
            return self
        with disk_errors("putting dates on one grid", vrt.parent.parent):
            vrt.parent.mkdir(parents=True, exist_ok=True)
        return replace(self, path=str(resampled(self.given, grid, vrt, classes=classes, shift_px=shift_px)))


@dataclass(frozen=True)
class Dates:
    """Two or more dates and their grid.

    Attributes:
        all: in the order of time.
        grid: of all.
        legend: of class maps; None for scenes.
        options: how they come together.
        reading: what the scenes' files do not say.
        aoi: polygons on the common grid, outside of which nothing counts; None where all does.
    """

    all: tuple[Date, ...]
    grid: Georef
    legend: Legend | None
    options: DateOptions = field(default_factory=DateOptions)
    reading: SceneOptions = field(default_factory=SceneOptions)
    aoi: AreaOfInterest | None = None

    @property
    def before(self) -> Date:
        return self.all[0]

    @property
    def after(self) -> Date:
        return self.all[-1]

    @property
    def are_maps(self) -> bool:
        return self.legend is not None

    @property
    def inputs(self) -> list[str | Path]:
        """Files that are read, which no output may replace."""
        masks = [self.options.clouds.mask_of(number) for number in range(len(self.all))]
        others = *masks, self.reading.valid_mask, None if self.aoi is None else self.aoi.path
        return [*(date.given for date in self.all), *(path for path in others if path)]

    @cached_property
    def pixels(self) -> int:
        """Of the grid, or of it within the area of interest."""
        if self.aoi is None:
            return self.grid.shape[0] * self.grid.shape[1]
        return sum(int(self.aoi.mask(strip).sum()) for strip in _strips(self.aoi.window))

    def reading_of(self, date: Date) -> SceneOptions:
        """What its files do not say, with its mask."""
        return self.reading if date.mask is None else replace(self.reading, valid_mask=str(date.mask))

    def on_grid(self, folder: Path, roles: Sequence[str]) -> Dates:
        """All on the grid, by small files in a folder where need be; shifts of scenes estimated.

        Args:
            folder: of those files.
            roles: what the dates are called in it.

        Raises:
            InputError: class maps are to be moved or put in another light: only pictures tell how.
            GeosegError: a file could not be read or written.
        """
        if self.are_maps and self.options.coregister:
            raise InputError("Class maps do not tell a shift well; give the scenes, or leave --coregister out.")
        if self.are_maps and self.options.radiometry != "none":
            raise InputError("Class maps have no light to be matched; give the scenes, or leave --radiometry out.")
        placed = []
        for number, (date, role) in enumerate(zip(self.all, roles, strict=True)):
            mask = write_valid_mask(date.given, number, self.options.clouds, self.grid, folder / f"{role}-mask.tif")
            vrt = folder / f"{role}.vrt"
            there = date.on(self.grid, vrt, classes=self.are_maps, exact=self.aoi is not None)
            placed.append(replace(there, mask=mask))
        found = replace(self, all=tuple(placed))
        if self.are_maps:
            return found
        others = zip(found.all[1:], roles[1:], strict=True)
        return replace(found, all=(found.before, *(found._towards_first(date, folder, role) for date, role in others)))

    def within(self, folder: Path, roles: Sequence[str]) -> Dates:
        """On the pixels that hold the area of interest, by small files in a folder; outside it all is hidden by masks.

        Dates on their grid without an area stay as they are. Scenes are segmented before: a network looks beyond it.

        Args:
            folder: of those files.
            roles: what the dates are called in it.

        Raises:
            InputError: no pixel has its center in the area.
            GeosegError: a file could not be read or written.
        """
        if self.aoi is None:
            return self
        if not self.pixels:
            raise InputError(f"No pixel has its center in the area of interest {self.aoi.path}; draw a larger one.")
        grid, placed = cut(self.grid, self.aoi.window), []
        with disk_errors("cutting dates to an area of interest", folder.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for date, role in zip(self.all, roles, strict=True):
            path = resampled(date.path, grid, folder / f"{role}-aoi.vrt", classes=self.are_maps)
            mask = write_mask_within(self.aoi, date.mask, grid, folder / f"{role}-aoi-mask.tif")
            placed.append(replace(date, path=str(path), mask=mask))
        return replace(self, all=tuple(placed), grid=grid, reading=replace(self.reading, valid_mask=None))

    def _towards_first(self, date: Date, folder: Path, role: str) -> Date:
        """A scene with its shift against the first, moved and in the first's light if that is asked for."""
        reads = [open_named_reader(one.path, self.reading_of(one)).read for one in (self.before, date)]
        shift = estimate_shift(reads[0], reads[1], self.grid.shape)
        if shift is None:
            level = logging.WARNING if self.options.coregister else logging.INFO
            told = "Nothing in %s tells for sure how far it is shifted against %s; it stays where it is."
            log.log(level, told, date.name, self.before.name)
        elif self.options.coregister:
            moved = date.on(self.grid, folder / f"{role}.vrt", classes=False, shift_px=(shift.rows, shift.cols))
            date = replace(moved, shift=shift, is_corrected=True)
        else:
            date = replace(date, shift=shift)
            if max(abs(shift.rows), abs(shift.cols)) > max(NOTED_PX, shift.spread):
                far = (shift.rows**2 + shift.cols**2) ** 0.5
                told = "%s seems to lie %.1f px beside the first date; --coregister moves it."
                log.warning(told, date.name, far)
        if self.options.radiometry == "none":
            return date
        readings = self.reading_of(self.before), self.reading_of(date)
        vrt = folder / f"{role}-matched.vrt"
        path, found = match_light(self.before.path, date.path, vrt, readings, self.options.radiometry)
        return replace(date, path=str(path), radiometry=found)

    def check_seen_together(self) -> None:
        """Raise an InputError where no pixel is known on both of two dates; most often the first strip tells."""
        reads = [self._known_of(date) for date in (self.before, self.after)]
        seen = [0, 0]
        for strip in _strips(Window(0, 0, *self.grid.shape)):
            known = [read(strip) for read in reads]
            if (known[0] & known[1]).any():
                return
            seen = [total + int(part.sum()) for total, part in zip(seen, known, strict=True)]
        where = "on the common grid" if self.aoi is None else f"within {self.aoi.path}"
        raise InputError(
            f"No pixel is known on both dates: of {self.pixels:,} {where}, {self.before.name} shows {seen[0]:,} and "
            f"{self.after.name} {seen[1]:,}. Give dates with less cloud, or other masks."
        )

    def _known_of(self, date: Date) -> Callable[[Window], NDArray[np.bool_]]:
        if self.legend is None:
            reader = open_named_reader(date.path, self.reading_of(date))
            return lambda window: reader.read(window).valid
        legend = self.legend
        return lambda window: map_indices(Path(date.path), date.mask, legend, window) >= 0

    def stacked(self, bands: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Files of both scenes, and in which of them the bands of each date lie.

        Raises:
            InputError: a date lacks a band.
        """
        found: dict[str, str] = {}
        for role, date in ((BEFORE, self.before), (AFTER, self.after)):
            reader = open_named_reader(date.path, self.reading)
            layers = {layer.name: layer for layer in reader.layers}
            if missing := [name for name in bands if name not in layers]:
                raise InputError(
                    f"The model needs band {', '.join(missing)} of both dates; {date.name} has {', '.join(layers)}. "
                    "Say which band is which with --bands."
                )
            for name in bands:
                found[role + name] = f"{reader.files[layers[name].file].path}:{layers[name].number}"
        return [self.before.path, self.after.path], found

    def job(
        self,
        options: ChangeOptions,
        *,
        posteriors: tuple[Path, Path] | None = None,
        pairs: tuple[tuple[int, int], ...] | None = None,
        legend: Legend | None = None,
        made_from: dict[str, str] | None = None,
    ) -> ChangeJob:
        """What is to be compared: the class maps, or the posteriors of both dates or of pairs of classes."""
        known = legend or self.legend
        assert known is not None
        before, after = posteriors or (Path(self.before.path), Path(self.after.path))
        names = {"before": self.before.name, "after": self.after.name}
        times = {f"{role}_time": date.time for role, date in zip(names, self.all, strict=True) if date.time}
        masks = self.before.mask, self.after.mask
        told = {**(made_from or {}), **names, **times}
        return ChangeJob(before, after, self.grid, known, options, posteriors is not None, pairs, masks, told)


def open_dates(
    paths: Sequence[str | os.PathLike[str]],
    options: DateOptions | None = None,
    reading: SceneOptions | None = None,
    aoi: str | Path | None = None,
) -> Dates:
    """Look at dates and settle their grid; `aoi` is a file of polygons, as for `read_aoi`.

    Raises:
        InputError: they cannot be opened, are in the wrong order or of two kinds, have different legends, or do not
            overlap; or their masks or the area of interest do not fit.
    """
    options, reading = options or DateOptions(), reading or SceneOptions()
    given = [os.fspath(path) for path in paths]
    options.clouds.check(len(given))
    if reading.valid_mask is not None and options.clouds.tells:
        raise InputError("Masks of each date take the place of --valid-mask; give one or the other.")
    times = times_of(given, options.times) or (None,) * len(given)
    found = tuple(Date(path, path, georef_of(path), time) for path, time in zip(given, times, strict=True))
    legend = shared_legend(found, options.kind)
    named = [Dated(date.name, date.georef) for date in found]
    grid = common_grid(named, extent=options.extent, resolution=options.resolution)
    area = None if aoi is None else read_aoi(aoi, shape=grid.shape, transform=grid.transform, crs=grid.crs)
    return Dates(found, grid, legend, options, reading, area)


def shared_legend(dates: Sequence[Date], kind: Kind) -> Legend | None:
    """The legend of class maps; None for scenes.

    Raises:
        InputError: some are scenes and some maps, or the legends differ.
    """
    if not _are_maps([date.given for date in dates], kind):
        return None
    legends = [read_legend(date.given) for date in dates]
    for date, legend in zip(dates, legends, strict=True):
        if _told(legend) != _told(legends[0]):
            names = [", ".join(one.names) for one in (legends[0], legend)]
            raise InputError(f"The legends differ: {dates[0].name} has {names[0]}, {date.name} has {names[1]}.")
    return legends[0]


def _are_maps(paths: list[str], kind: Kind) -> bool:
    if kind != "auto":
        return kind == "maps"
    known = [_has_legend(path) for path in paths]
    if any(known) and not all(known):
        one, other = paths[known.index(True)], paths[known.index(False)]
        raise InputError(
            f"{one} is a class map with a legend and {other} is not; give two scenes or two maps, or say --maps."
        )
    return all(known)


def _has_legend(path: str) -> bool:
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as raster:
            return "GEOSEG_LEGEND" in raster.tags()
    except RasterioError as error:
        raise InputError(f"Cannot open {path}: {error}") from error


def _strips(window: Window) -> Iterator[Window]:
    """A window in whole rows, few enough to be looked at at once."""
    rows = max(1, STRIP // max(1, window.width))
    for row in range(window.row, window.row_stop, rows):
        yield Window(row, window.col, min(rows, window.row_stop - row), window.width)


def _told(legend: Legend) -> dict[int, str]:
    return dict(zip(legend.ids, legend.names, strict=True))
