"""Two dates as they are given: scenes or class maps, put on one grid, and the shift between them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import rasterio
from rasterio.errors import RasterioError

from geoseg.catalog import open_named_reader
from geoseg.change.align import Dated, Extent, common_grid, georef_of, is_on, resampled
from geoseg.change.detect import ChangeJob, ChangeOptions
from geoseg.change.matched import write_matched
from geoseg.change.radiometry import METHODS, Method, Radiometry, find_radiometry
from geoseg.change.shift import Shift, estimate_shift
from geoseg.errors import InputError
from geoseg.legend import Legend
from geoseg.models.pairs import AFTER, BEFORE
from geoseg.raster.disk import disk_errors
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import read_legend
from geoseg.raster.reader import SceneOptions

log = logging.getLogger(__name__)
Kind = Literal["auto", "scenes", "maps"]
NOTED_PX = 0.5  # shifts beyond this and beyond their spread are worth a warning


@dataclass(frozen=True, slots=True)
class Date:
    """One date.

    Attributes:
        given: the path as given.
        path: the same on the common grid.
        georef: where what is given lies.
    """

    given: str
    path: str
    georef: Georef

    @property
    def name(self) -> str:
        return Path(self.given).name

    def on(self, grid: Georef, vrt: Path, *, classes: bool, shift_px: tuple[float, float] = (0.0, 0.0)) -> Date:
        """On a grid, by a VRT file where need be; `shift_px` are rows and columns by which it is moved."""
        if is_on(self.georef, grid) and shift_px == (0.0, 0.0):
            return self
        with disk_errors("putting dates on one grid", vrt.parent.parent):
            vrt.parent.mkdir(parents=True, exist_ok=True)
        return replace(self, path=str(resampled(self.given, grid, vrt, classes=classes, shift_px=shift_px)))


@dataclass(frozen=True)
class Dates:
    """Two dates and their grid.

    Attributes:
        before: the first.
        after: the second.
        grid: of both.
        legend: of class maps; None for scenes.
        reading: what the scenes' files do not say.
        shift: of the second scene against the first; None before it is estimated, and where nothing tells.
        is_corrected: whether the second scene was moved by it.
        radiometry: how the second scene was put in the light of the first; None where it was not.
    """

    before: Date
    after: Date
    grid: Georef
    legend: Legend | None
    reading: SceneOptions = field(default_factory=SceneOptions)
    shift: Shift | None = None
    is_corrected: bool = False
    radiometry: Radiometry | None = None

    @property
    def are_maps(self) -> bool:
        return self.legend is not None

    def on_grid(self, folder: Path, *, coregister: bool = False, radiometry: Method = "none") -> Dates:
        """Both on the grid, by small VRT files in a folder where need be; the shift of scenes estimated.

        Args:
            folder: of those files.
            coregister: move the second scene by the shift.
            radiometry: how it gets the light of the first.

        Raises:
            InputError: class maps are to be moved or put in another light: only pictures tell how.
            GeosegError: a file could not be read or written.
        """
        if radiometry not in METHODS:
            raise InputError(f"The radiometry of a date is {', '.join(METHODS)}, not {radiometry!r}.")
        if coregister and self.are_maps:
            raise InputError("Class maps do not tell a shift well; give the scenes, or leave --coregister out.")
        if radiometry != "none" and self.are_maps:
            raise InputError("Class maps have no light to be matched; give the scenes, or leave --radiometry out.")
        found = self._aligned(folder, coregister)
        return found if radiometry == "none" else found.in_one_light(folder, radiometry)

    def _aligned(self, folder: Path, coregister: bool) -> Dates:
        before, after = self._placed(self.before, folder, "before"), self._placed(self.after, folder, "after")
        found = replace(self, before=before, after=after)
        if self.are_maps:
            return found
        reads = [open_named_reader(date.path, self.reading).read for date in (before, after)]
        shift = estimate_shift(reads[0], reads[1], self.grid.shape)
        if shift is None:
            log.warning("No part of the dates tells how far they are shifted against each other.")
            return found
        if coregister:
            moved = self._placed(self.after, folder, "after", shift_px=(shift.rows, shift.cols))
            return replace(found, after=moved, shift=shift, is_corrected=True)
        if max(abs(shift.rows), abs(shift.cols)) > max(NOTED_PX, shift.spread):
            log.warning(
                "The second date seems to lie %.1f px beside the first; --coregister moves it.",
                (shift.rows**2 + shift.cols**2) ** 0.5,
            )
        return replace(found, shift=shift)

    def in_one_light(self, folder: Path, method: Method) -> Dates:
        """The second scene as if taken in the light of the first, by a VRT file in a folder.

        Raises:
            InputError: the dates store numbers of two kinds, share no band, or too few pixels are alike.
        """
        vrt, readings = folder / "after-matched.vrt", (self.reading, self.reading)
        found = match_light(self.before.path, self.after.path, vrt, readings, method)
        return replace(self, after=replace(self.after, path=str(found[0])), radiometry=found[1])

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
        told = {**(made_from or {}), "before": self.before.name, "after": self.after.name}
        return ChangeJob(before, after, self.grid, known, options, posteriors is not None, pairs, told)

    def _placed(self, date: Date, folder: Path, role: str, shift_px: tuple[float, float] = (0.0, 0.0)) -> Date:
        return date.on(self.grid, folder / f"{role}.vrt", classes=self.are_maps, shift_px=shift_px)


def match_light(
    reference: str, path: str, vrt: Path, readings: tuple[SceneOptions, SceneOptions], method: Method
) -> tuple[Path, Radiometry]:
    """A VRT of a scene in the light of another on the same grid; `readings` say what the files of both do not.

    Raises:
        InputError: they store numbers of two kinds, share no band, or too few pixels are alike.
    """
    pairs = zip((reference, path), readings, strict=True)
    wanted, given = (open_named_reader(one, reading) for one, reading in pairs)
    names = tuple(name for name in given.bands if name in wanted.bands)
    kinds = [{layer.dtype for layer in reader.layers if layer.name in names} for reader in (wanted, given)]
    if not names or kinds[0] != kinds[1]:
        told = [f"{', '.join(reader.bands)} ({reader.dtype})" for reader in (wanted, given)]
        raise InputError(f"Radiometry needs the same bands, stored alike, on both dates: {told[0]} and {told[1]}.")
    found = find_radiometry(
        wanted.select(names).read, given.select(names).read, wanted.shape, bands=names, method=method
    )
    layers = {layer.name: layer for layer in given.layers}
    curves = {layers[name].number: curve for name, curve in zip(names, found.curves, strict=True)}
    first = wanted.select(names).layers[0]
    with disk_errors("putting dates in one light", vrt.parent.parent):
        vrt.parent.mkdir(parents=True, exist_ok=True)
        return write_matched(path, vrt, curves, (first.scale, first.offset)), found


def open_dates(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    *,
    kind: Kind = "auto",
    extent: Extent = "intersection",
    resolution: float | None = None,
    reading: SceneOptions | None = None,
) -> Dates:
    """Look at two dates and settle their grid.

    Raises:
        InputError: they cannot be opened, are of two kinds, have different legends, or do not overlap.
    """
    found = [Date(path, path, georef_of(path)) for path in (os.fspath(before), os.fspath(after))]
    legend = shared_legend(found, kind)
    grid = common_grid([Dated(date.name, date.georef) for date in found], extent=extent, resolution=resolution)
    return Dates(found[0], found[1], grid, legend, reading or SceneOptions())


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


def _told(legend: Legend) -> dict[int, str]:
    return dict(zip(legend.ids, legend.names, strict=True))
