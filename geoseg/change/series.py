"""Many dates of one place from files: class maps on one grid, when and how often they changed, and areas by date."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.catalog import open_named_reader
from geoseg.change.align import Dated, Extent, common_grid, georef_of
from geoseg.change.clouds import CloudOptions, write_valid_mask
from geoseg.change.dates import Date, Kind, match_light, shared_legend
from geoseg.change.detect import compute_blocks, ground_of, read_pixels, row_areas
from geoseg.change.history import MOST_IN_A_BYTE, NEVER, history
from geoseg.change.radiometry import METHODS, Method
from geoseg.change.times import times_of
from geoseg.change.transitions import indices_of
from geoseg.errors import InputError
from geoseg.grid import Block, Window
from geoseg.legend import NODATA, Legend, LegendClass
from geoseg.raster.blocks import BlockLayout
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.disk import disk_errors, publish_bytes
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import run_tags
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import BlockWriter, Staging, digest_of
from geoseg.vector.measure import Ground

log = logging.getLogger(__name__)
BLOCK = 1024
LAYERS = ("changes", "first_change", "last_change", "most_frequent")
SERIES = "GEOSEG_SERIES"
EARLY, MIDDLE, LATE = (68, 1, 84), (33, 145, 140), (253, 231, 37)  # colours of first, middle and last date
GRAY = "#dedede"


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How dates become a stack.

    Attributes:
        times: of each date: years, months, days or numbers; None takes them from the names of the files, else 1, 2, 3.
        kind: what the dates are; auto takes rasters with a legend in their tags for class maps.
        extent: what all dates cover, or what any of them does.
        resolution: side of a pixel of the grid, in units of its CRS; else that of the finest date.
        radiometry: how scenes get the light of the first.
        clouds: what hides the ground.
    """

    times: tuple[str, ...] | None = None
    kind: Kind = "auto"
    extent: Extent = "intersection"
    resolution: float | None = None
    radiometry: Method = "none"
    clouds: CloudOptions = field(default_factory=CloudOptions)


@dataclass(frozen=True)
class Stack:
    """Dates on one grid.

    Attributes:
        dates: in the order of time.
        times: of each, as text.
        grid: of all.
        legend: of class maps; None for scenes.
        masks: of each date, 0 where the ground is hidden; None where nothing tells.
        folder: of the outputs.
        reading: what the scenes' files do not say.
    """

    dates: tuple[Date, ...]
    times: tuple[str, ...]
    grid: Georef
    legend: Legend | None
    masks: tuple[Path | None, ...]
    folder: Path
    reading: SceneOptions

    def reading_of(self, number: int) -> SceneOptions:
        """Of the date with that 0-based number."""
        mask = self.masks[number]
        return self.reading if mask is None else replace(self.reading, valid_mask=str(mask))

    def map_path(self, number: int) -> Path:
        """Where the class map of that date is, or will be."""
        return Path(self.dates[number].path) if self.legend is not None else self.folder / f"{self.times[number]}.tif"

    def job(self, *, legend: Legend | None = None, made_from: Mapping[str, str] | None = None) -> StackJob:
        """What is to be looked at, once there is a class map of each date."""
        known = legend or self.legend
        assert known is not None
        maps = tuple(self.map_path(number) for number in range(len(self.dates)))
        masks = self.masks if self.legend is not None else (None,) * len(maps)  # scenes are hidden already
        return StackJob(maps, masks, self.times, self.grid, known, dict(made_from or {}))


def open_stack(
    paths: Sequence[str | os.PathLike[str]], folder: Path, options: StackOptions, reading: SceneOptions
) -> Stack:
    """Put dates on one grid, by small files in a folder where need be.

    Raises:
        InputError: there are too few or too many dates, they cannot be opened, are of two kinds, in the wrong order, do
            not overlap, or their masks do not fit.
        GeosegError: reading or writing failed.
    """
    given = [os.fspath(path) for path in paths]
    _check(len(given), options, reading)
    times = times_of(given, options.times) or tuple(str(number) for number in range(1, len(given) + 1))
    dates = [Date(path, path, georef_of(path)) for path in given]
    legend = shared_legend(dates, options.kind)
    if legend is not None and options.radiometry != "none":
        raise InputError("Class maps have no light to be matched; give the scenes, or leave --radiometry out.")
    named = [Dated(date.name, date.georef) for date in dates]
    grid = common_grid(named, extent=options.extent, resolution=options.resolution)
    work = folder / "dates"
    masks = tuple(
        write_valid_mask(path, number, options.clouds, grid, work / f"{time}-mask.tif")
        for number, (path, time) in enumerate(zip(given, times, strict=True))
    )
    pairs = zip(dates, times, strict=True)
    placed = [date.on(grid, work / f"{time}.vrt", classes=legend is not None) for date, time in pairs]
    stack = Stack(tuple(placed), times, grid, legend, masks, folder, reading)
    return stack if options.radiometry == "none" else _in_one_light(stack, work, options.radiometry)


def _check(dates: int, options: StackOptions, reading: SceneOptions) -> None:
    if not 2 <= dates <= MOST_IN_A_BYTE:
        raise InputError(
            f"A stack of files has 2 to {MOST_IN_A_BYTE} dates, not {dates}; take fewer, or geoseg.segment_stack and "
            "geoseg.stack_history, which go to 2000."
        )
    if options.radiometry not in METHODS:
        raise InputError(f"The radiometry of a date is {', '.join(METHODS)}, not {options.radiometry!r}.")
    options.clouds.check(dates)
    if reading.valid_mask is not None:
        raise InputError("A stack has a mask for each date; give --masks in place of --valid-mask.")


def _in_one_light(stack: Stack, work: Path, method: Method) -> Stack:
    """Each date is looked at where its own mask and that of the first show the ground."""
    placed = [stack.dates[0]]
    for number, date in enumerate(stack.dates[1:], 1):
        vrt = work / f"{stack.times[number]}-matched.vrt"
        readings = stack.reading_of(0), stack.reading_of(number)
        path, found = match_light(stack.dates[0].path, date.path, vrt, readings, method)
        log.info("%s: %s", stack.times[number], found.told())
        placed.append(replace(date, path=str(path)))
    return replace(stack, dates=tuple(placed))


@dataclass(frozen=True)
class StackJob:
    """All that the rasters of a stack depend on.

    Attributes:
        maps: class maps of each date, on the grid.
        masks: of each date, 0 = hidden; None where nothing is.
        times: of each date.
        grid: of all.
        legend: of all.
        made_from: names and digests of what the maps come from.
    """

    maps: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    times: tuple[str, ...]
    grid: Georef
    legend: Legend
    made_from: Mapping[str, str]

    @property
    def ground(self) -> Ground:
        return ground_of(self.grid)

    @property
    def tags(self) -> dict[str, str]:
        model, digest = (self.made_from.get(name, "") for name in ("model", "digest"))
        return run_tags(model=model, model_digest=digest, scene=" ".join(self.times), options={})

    @property
    def parts(self) -> dict[str, Any]:
        files = [path for path in (*self.maps, *self.masks) if path is not None]
        return {
            "files": [open_named_reader(str(path), SceneOptions()).fingerprint() for path in files],
            "times": list(self.times),
            "grid": [*self.grid.shape, *self.grid.transform[:6], str(self.grid.crs)],
            "version": self.tags["GEOSEG_VERSION"],
        }

    def layers(self, folder: Path) -> list[Layer]:
        """The rasters that are written, the most frequent class last."""
        legends = {
            "changes": _counts(len(self.times)),
            "first_change": _dates(self.times),
            "last_change": _dates(self.times),
            "most_frequent": self.legend,
        }
        return [
            Layer(name, folder / f"{name}.tif", (name.replace("_", " "),), legend=legends[name], tags=self.tags)
            for name in LAYERS
        ]

    def iter_indices(self, window: Window) -> Iterator[NDArray[np.int16]]:
        """Indices of classes of each date, -1 where unknown."""
        for path, mask in zip(self.maps, self.masks, strict=True):
            indices = indices_of(read_pixels(path, window, all_bands=False)[0], self.legend)
            if mask is not None:
                indices[read_pixels(mask, window, all_bands=False)[0] == 0] = -1
            yield indices


@dataclass(frozen=True)
class StackBlock:
    """One block of all dates to the staging folder, with a note of the areas on each."""

    job: StackJob
    writer: BlockWriter

    def __call__(self, block: Block) -> int:
        """Compute and stage a block; returns the process id."""
        classes = len(self.job.legend.classes)
        areas = np.broadcast_to(row_areas(self.job.ground, block.window)[:, None], block.window.shape)
        pixels: list[list[int]] = []
        m2: list[list[float]] = []

        def counted() -> Iterator[NDArray[np.int16]]:
            for indices in self.job.iter_indices(block.window):
                known = indices >= 0
                pixels.append(np.bincount(indices[known], None, classes).tolist())
                m2.append(np.bincount(indices[known], areas[known], classes).tolist())
                yield indices

        found = history(counted(), classes, len(self.job.times))
        ids = np.append(np.array(self.job.legend.ids, np.uint8), np.uint8(NODATA))
        layers = dict(zip(LAYERS, (found.changes, found.first, found.last, ids[found.most]), strict=True))
        stored = {name: values.astype(np.uint8) for name, values in layers.items()}
        self.writer.write((block.row, block.col), stored, {"pixels": pixels, "m2": m2})
        return os.getpid()


@dataclass(frozen=True, slots=True)
class Series:
    """How large each class was on each date.

    Attributes:
        times: of the dates.
        names: of the classes.
        pixels: (date, class).
        m2: (date, class) square metres; pixels where there is no CRS.
        total: pixels of the grid.
    """

    times: tuple[str, ...]
    names: tuple[str, ...]
    pixels: NDArray[np.int64]
    m2: NDArray[np.float64]
    total: int

    @property
    def known(self) -> NDArray[np.float64]:
        """(date,) share of the grid that was seen."""
        return np.asarray(self.pixels.sum(1) / self.total)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "times": list(self.times),
            "classes": list(self.names),
            "pixels": self.pixels.tolist(),
            "area_m2": self.m2.round(3).tolist(),
            "known": self.known.round(6).tolist(),
            "total_pixels": self.total,
        }

    @classmethod
    def from_json(cls, text: str) -> Series:
        told = json.loads(text)
        pixels, m2 = np.array(told["pixels"], np.int64), np.array(told["area_m2"])
        return cls(tuple(told["times"]), tuple(told["classes"]), pixels, m2, told["total_pixels"])

    def to_csv(self) -> str:
        """A row for each date and class; `known` is the share of the grid that was seen on that date."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("time", "class", "pixels", "area_m2", "known"))
        for time, pixels, m2, known in zip(self.times, self.pixels, self.m2, self.known, strict=True):
            for name, count, area in zip(self.names, pixels, m2, strict=True):
                rows.writerow((time, name, int(count), f"{area:.2f}", f"{known:.4f}"))
        return text.getvalue()


@dataclass
class StackSummary:
    """What `stack_files` did.

    Attributes:
        outputs: the files, finished.
        series: areas by date and class.
        grid: of all dates.
        up_to_date: the rasters were there already, made of the same dates.
    """

    outputs: list[Path]
    series: Series
    grid: Georef
    up_to_date: bool = False


def write_stack(
    job: StackJob, folder: Path, *, workers: int = 1, overwrite: bool = False, progress: Callable[[int, int], None]
) -> StackSummary:
    """Write the rasters of a stack, and the areas as CSV and JSON.

    Raises:
        InputError: outputs of another stack are there.
        GeosegError: reading or writing failed; finished blocks are kept.
    """
    layers = job.layers(folder)
    outputs = [layer.path for layer in layers]
    digest = digest_of(job.parts)
    if up_to_date := all(is_current(path, digest) for path in outputs):
        series = _read_series(outputs[-1])
    else:
        _check_outputs(outputs, overwrite)
        series = _computed(job, layers, workers, overwrite, progress)
    tables = [folder / "areas.csv", folder / "areas.json"]
    with disk_errors("writing the areas", folder):
        publish_bytes(tables[0], series.to_csv().encode())
        publish_bytes(tables[1], (json.dumps(series.to_dict(), indent=1) + "\n").encode())
    for time, seen in zip(series.times, series.pixels.sum(1), strict=True):
        if not seen:
            log.warning("Date %s shows 0 of %d pixels, and tells nothing.", time, series.total)
    return StackSummary([*outputs, *tables], series, job.grid, up_to_date)


def _computed(
    job: StackJob, layers: list[Layer], workers: int, overwrite: bool, progress: Callable[[int, int], None]
) -> Series:
    layout = BlockLayout(job.grid.shape, (BLOCK, BLOCK), dict.fromkeys(LAYERS, 1))
    with Staging.open(layers[-1].path, job.parts, layout, overwrite=overwrite) as staging:
        compute_blocks(staging, StackBlock(job, staging.writer()), workers=workers, progress=progress)
        notes = list(staging.notes().values())
        pixels, m2 = (np.sum([note[name] for note in notes], axis=0) for name in ("pixels", "m2"))
        total = job.grid.shape[0] * job.grid.shape[1]
        series = Series(job.times, job.legend.names, pixels.astype(np.int64), m2, total)
        told = {SERIES: json.dumps(series.to_dict())}
        for layer in layers:
            write_cog(staging, replace(layer, tags={**layer.tags, **told}), job.grid, threads=os.cpu_count() or 1)
        staging.discard()
    return series


def _read_series(path: Path) -> Series:
    with ignore_not_georeferenced(), rasterio.open(path) as raster:
        return Series.from_json(raster.tags()[SERIES])


def _check_outputs(outputs: Sequence[Path], overwrite: bool) -> None:
    there = [path for path in outputs if path.exists()]
    if there and not overwrite:
        raise InputError(f"The output {there[0]} exists; give --overwrite to replace it, or another folder.")


def _dates(times: Sequence[str]) -> Legend:
    """Numbers of dates by what they stand for."""
    never = LegendClass(id=NEVER, name="never", color=GRAY)
    shown = [LegendClass(id=n, name=time, color=_between(n / len(times))) for n, time in enumerate(times, 1)]
    return Legend(classes=(never, *shown))


def _counts(dates: int) -> Legend:
    """Of how often the class changed."""
    none = LegendClass(id=0, name="0", color=GRAY)
    return Legend(classes=(none, *(LegendClass(id=n, name=str(n), color=_between(n / dates)) for n in range(1, dates))))


def _between(share: float) -> str:
    start, stop, part = (EARLY, MIDDLE, 2 * share) if share < 0.5 else (MIDDLE, LATE, 2 * share - 1)
    red, green, blue = (round(a + part * (b - a)) for a, b in zip(start, stop, strict=True))
    return f"#{red:02x}{green:02x}{blue:02x}"
