"""Many dates of one place from files: class maps on one grid, when and how often they changed, and areas by date."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geoseg.catalog import open_named_reader
from geoseg.change.dates import DateOptions, Dates, open_dates
from geoseg.change.detect import compute_blocks, ground_of, map_indices, row_areas
from geoseg.change.history import MOST_DATES, MOST_IN_A_BYTE, NEVER, history
from geoseg.errors import InputError
from geoseg.grid import Block, Window
from geoseg.legend import NODATA, Legend, LegendClass
from geoseg.raster.blocks import BlockLayout
from geoseg.raster.cog import Layer, is_current, write_cog
from geoseg.raster.disk import check_output, disk_errors, publish_bytes
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import run_tags
from geoseg.raster.reader import SceneOptions
from geoseg.raster.staging import BlockWriter, Staging, digest_of
from geoseg.vector.measure import Ground

log = logging.getLogger(__name__)
BLOCK = 1024
LAYERS = ("changes", "first_change", "last_change", "most_frequent")
TABLES = ("areas.csv", "areas.json")
SERIES = "GEOSEG_SERIES"
EARLY, MIDDLE, LATE = (68, 1, 84), (33, 145, 140), (253, 231, 37)  # colours of first, middle and last date
GRAY = "#dedede"


@dataclass(frozen=True)
class Stack:
    """Dates on one grid, and the folder of what is made of them.

    Attributes:
        dates: each with a time.
        folder: of the outputs.
    """

    dates: Dates
    folder: Path

    def check_outputs(self) -> None:
        """Raise an InputError where a file that is written could not be, or would replace one that is read."""
        maps = [] if self.dates.are_maps else [self.map_path(number) for number in range(len(self.dates.all))]
        for path in (*maps, *(self.folder / name for name in (*(f"{layer}.tif" for layer in LAYERS), *TABLES))):
            check_output(path, overwrite=True, inputs=self.dates.inputs, suffixes=(".tif", ".csv", ".json"))

    @property
    def times(self) -> tuple[str, ...]:
        return tuple(date.time or str(number) for number, date in enumerate(self.dates.all, 1))

    def map_path(self, number: int) -> Path:
        """Where the class map of the date with that 0-based number is, or will be."""
        date = self.dates.all[number]
        return Path(date.path) if self.dates.are_maps else self.folder / f"{self.times[number]}.tif"

    def job(self, *, legend: Legend | None = None, made_from: Mapping[str, str] | None = None) -> StackJob:
        """What is to be looked at, once there is a class map of each date."""
        known = legend or self.dates.legend
        assert known is not None
        maps = tuple(self.map_path(number) for number in range(len(self.dates.all)))
        masks = tuple(date.mask for date in self.dates.all)
        return StackJob(maps, masks, self.times, self.dates.grid, known, dict(made_from or {}), self.dates.pixels)

    def within(self) -> Stack:
        """On the pixels that hold the area of interest, see `Dates.within`."""
        return replace(self, dates=self.dates.within(self.folder / "dates", self.times))


def open_stack(
    paths: Sequence[str | os.PathLike[str]],
    folder: Path,
    options: DateOptions,
    reading: SceneOptions,
    aoi: str | Path | None = None,
) -> Stack:
    """Put dates on one grid, by small files in a folder where need be.

    Raises:
        InputError: there are too few or too many dates, or they do not go together.
        GeosegError: reading or writing failed.
    """
    if not 2 <= len(paths) <= MOST_IN_A_BYTE:
        raise InputError(
            f"A stack of files has 2 to {MOST_IN_A_BYTE} dates, not {len(paths)}; take fewer, or geoseg.segment_stack "
            f"and geoseg.stack_history, which go to {MOST_DATES}."
        )
    stack = Stack(open_dates(paths, options, reading, aoi), folder)
    return replace(stack, dates=stack.dates.on_grid(folder / "dates", stack.times))


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
        pixels: of the grid, or of it within the area of interest, outside of which masks hide all.
    """

    maps: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    times: tuple[str, ...]
    grid: Georef
    legend: Legend
    made_from: Mapping[str, str]
    pixels: int

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
            yield map_indices(path, mask, self.legend, window)


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
        total: pixels of the grid, or of it within the area of interest.
    """

    times: tuple[str, ...]
    names: tuple[str, ...]
    pixels: NDArray[np.int64]
    m2: NDArray[np.float64]
    total: int

    @property
    def known(self) -> NDArray[np.float64]:
        """(date,) share of them that was seen."""
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
        """A row for each date and class; `known` is the share of `total` that was seen on that date."""
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
        grid: of the rasters.
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
    tables = [folder / name for name in TABLES]
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
        series = Series(job.times, job.legend.names, pixels.astype(np.int64), m2, job.pixels)
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
