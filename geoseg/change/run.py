"""Two dates to the outputs of change: put together, segmented by the caller where need be, compared, written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from affine import Affine

from geoseg.change.dates import ROLES, DateOptions, Dates, open_dates
from geoseg.change.detect import ChangeJob, ChangeOptions, Matrix, is_done, read_matrix, write_change
from geoseg.change.polygons import write_change_polygons
from geoseg.change.radiometry import Radiometry
from geoseg.change.reference import AreaSummary, estimate_from_points
from geoseg.change.shift import Shift
from geoseg.errors import InputError
from geoseg.raster.disk import check_output, gone_if_refused
from geoseg.raster.reader import SceneOptions
from geoseg.vector.export import check_vector_output

Progress = Callable[[str, int, int], None]  # step, pixels done, pixels in all
Given = str | os.PathLike[str]


@dataclass
class ChangeSummary:
    """What a comparison gave.

    Attributes:
        outputs: the files, finished.
        matrix: transitions between classes, in pixels and square metres.
        shape: rows and columns of the common grid, or of the part that holds the area of interest.
        transform: of the same.
        crs: of the same, as text.
        shift: of the second date against the first, as estimated; None for class maps, or where nothing tells.
        is_corrected: whether the second date was moved by it.
        radiometry: how the second date was put in the light of the first; None where it was not.
        areas: by reference points, where they were given.
        up_to_date: the transitions were there already, made of the same dates with the same options.
        folder: beside the output, of what is kept of both dates for the next run: how they lie on one grid, and of
            scenes the land cover and probabilities; None where nothing is.
    """

    outputs: list[Path]
    matrix: Matrix
    shape: tuple[int, int]
    transform: Affine
    crs: str | None
    shift: Shift | None = None
    is_corrected: bool = False
    radiometry: Radiometry | None = None
    areas: AreaSummary | None = None
    up_to_date: bool = False
    folder: Path | None = None


@dataclass(frozen=True, slots=True)
class ChangeOutputs:
    """Where the outputs of one comparison go.

    Attributes:
        change: raster of transitions.
        probability: of change; None where it is not wanted.
        polygons: likewise.
        report: likewise.
    """

    change: Path
    probability: Path | None = None
    polygons: Path | None = None
    report: Path | None = None

    @classmethod
    def of(cls, change: Given, *others: Given | None) -> ChangeOutputs:
        """From paths of any kind, in the order of the fields."""
        return cls(Path(change), *(None if path is None else Path(path) for path in others))

    @property
    def folder(self) -> Path:
        """Of what is kept of both dates."""
        return self.change.with_name(f"{self.change.stem}-dates")

    @property
    def rasters(self) -> list[Path]:
        """The transitions last: where they are, all is there."""
        return [*([] if self.probability is None else [self.probability]), self.change]

    def check(self, inputs: Sequence[str | Path], *, overwrite: bool) -> None:
        """Raise an InputError where a file could not be written, before anything is computed."""
        for path in self.rasters:
            check_output(path, overwrite=overwrite, inputs=inputs)
        if self.polygons is not None:
            check_vector_output(self.polygons, overwrite=True, inputs=[*inputs, *self.rasters])
        if self.report is not None:
            check_report(self.report, [*inputs, *self.rasters])


def check_report(path: Path, inputs: Sequence[str | Path]) -> None:
    """Raise an InputError where a report, or its figures, could not be written or would replace an input."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"A report is an HTML file; {path.name} does not end in .html.")
    if not path.parent.is_dir():
        raise InputError(f"The folder {path.parent} of the report does not exist; make it first.")
    for file in (path, path.with_suffix(".json")):
        check_output(file, overwrite=True, inputs=inputs, suffixes=(".html", ".htm", ".json"))


class SegmentDates(Protocol):
    """Segments both dates on the common grid into a folder, and says what is to be compared."""

    def __call__(self, dates: Dates, folder: Path, options: ChangeOptions) -> ChangeJob: ...


@dataclass(frozen=True)
class Compared:
    """Two dates, compared.

    Attributes:
        dates: both, on the grid of the outputs.
        job: what was compared.
        matrix: transitions between classes.
        outputs: where everything is.
        areas: by reference points, where they were given.
        up_to_date: the transitions were there already.
    """

    dates: Dates
    job: ChangeJob
    matrix: Matrix
    outputs: ChangeOutputs
    areas: AreaSummary | None = None
    up_to_date: bool = False

    def with_areas(self, points: Given) -> Compared:
        """With accuracies and areas from labelled points on the raster of transitions.

        Raises:
            InputError: the points cannot be used.
        """
        return replace(self, areas=estimate_from_points(self.outputs.change, os.fspath(points)))

    @property
    def summary(self) -> ChangeSummary:
        grid, after = self.dates.grid, self.dates.after
        polygons = [] if self.outputs.polygons is None else [self.outputs.polygons]
        return ChangeSummary(
            [*reversed(self.outputs.rasters), *polygons],
            self.matrix,
            grid.shape,
            grid.transform,
            grid.crs.to_string() if grid.crs else None,
            after.shift,
            after.is_corrected,
            after.radiometry,
            self.areas,
            self.up_to_date,
            self.outputs.folder if self.outputs.folder.is_dir() else None,
        )


@dataclass(frozen=True, slots=True)
class Told:
    """What a comparison is told.

    Attributes:
        dates: how they come together.
        change: what counts as change.
        reading: what the scenes' files do not say.
        overwrite: replace outputs that exist.
        aoi: file of polygons, outside of which nothing counts; None where all does.
    """

    dates: DateOptions
    change: ChangeOptions
    reading: SceneOptions
    overwrite: bool = False
    aoi: str | Path | None = None

    def open(self, pair: tuple[Given, Given]) -> Dates:
        """See `open_dates`."""
        return open_dates(pair, self.dates, self.reading, self.aoi)


def compare_dates(
    pair: tuple[Given, Given], outputs: ChangeOutputs, told: Told, segment: SegmentDates, progress: Progress
) -> Compared:
    """Compare two dates and write what is wanted; what is there already stays.

    With an area of interest, outputs are on the part of the common grid that holds it, and nodata outside. A part of
    change that its border cuts counts by what lies within.

    Args:
        pair: the dates, the earlier first.
        outputs: what to write.
        told: how.
        segment: for scenes.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the dates, an option or an output cannot be used.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    given = told.open(pair)
    outputs.check(given.inputs, overwrite=True)
    with gone_if_refused(outputs.folder):
        whole = given.on_grid(outputs.folder, ROLES)
        dates = whole.within(outputs.folder, ROLES)
        dates.check_seen_together()
    job = dates.job(told.change) if dates.are_maps else segment(whole, outputs.folder, told.change)
    kept = outputs  # polygons of posteriors tell how probable they are
    if outputs.polygons is not None and outputs.probability is None and job.is_posterior:
        kept = replace(outputs, probability=outputs.folder / "probability.tif")
    if up_to_date := is_done(job, kept.rasters):
        matrix = read_matrix(outputs.change)
    else:
        outputs.check(given.inputs, overwrite=told.overwrite)
        matrix = write_change(
            job,
            kept.change,
            kept.probability,
            overwrite=told.overwrite,
            progress=lambda done, total: progress("compare", done, total),
        )
    if outputs.polygons is not None and not (up_to_date and _is_newer(outputs.polygons, outputs.change)):
        write_change_polygons(
            job,
            kept.rasters,
            outputs.polygons,
            overwrite=told.overwrite,
            progress=lambda done, total: progress("vectorize", done, total),
        )
    return Compared(dates, job, matrix, outputs, up_to_date=up_to_date)


def _is_newer(polygons: Path, change: Path) -> bool:
    """Whether polygons were drawn from this raster: they are written last, and whole or not at all."""
    return polygons.is_file() and polygons.stat().st_mtime_ns >= change.stat().st_mtime_ns


def pair_name(before: Given, after: Given) -> str:
    """What the outputs of a pair are called, one of several in a folder."""
    return f"{Path(before).stem}_to_{Path(after).stem}"
