"""File to file, over time: two dates to a map of change, many to a stack. Read `pipeline` first.

Nothing is computed here: scenes are segmented by `segment_file`, and `change` does the rest.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from geoseg.errors import InputError
from geoseg.pipeline import Progress, check_scene, segment_file
from geoseg.raster.disk import TIFF_SUFFIXES, check_writable, disk_errors, gone_if_refused
from geoseg.raster.reader import SceneOptions

if TYPE_CHECKING:  # torch and numba load where they are needed
    from geoseg.change.dates import DateOptions, Dates
    from geoseg.change.detect import ChangeJob, ChangeOptions
    from geoseg.change.run import ChangeSummary, Told
    from geoseg.change.series import StackSummary
    from geoseg.inference.plan import RunOptions
    from geoseg.models import Model


def change_files(
    before: str | os.PathLike[str],
    after: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    probability: str | os.PathLike[str] | None = None,
    polygons: str | os.PathLike[str] | None = None,
    report: str | os.PathLike[str] | None = None,
    reference: str | os.PathLike[str] | None = None,
    dates: DateOptions | None = None,
    options: ChangeOptions | None = None,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ChangeSummary:
    """Change between two dates as a raster of transitions; an interrupted run goes on where it stopped.

    Both dates are put on one grid. Scenes are segmented there, into a folder beside the output, and compared by their
    probabilities; class maps are compared as they are. That folder stays, so that the same command finds all there.
    With `run.aoi` only what lies within its polygons counts: rasters are cut to them, and nodata outside.

    Args:
        before: scene or class map of the first date.
        after: scene or class map of the second date.
        output: GeoTIFF (COG) of transitions; its tags hold their legend and the transition matrix.
        model: name or path of a bundle, or a loaded one; for scenes. One that sees two dates at once needs no prior.
        probability: also write the probability of change there, 0..200 = 0..1.
        polygons: also write polygons of change there, with from_class, to_class, probability, before and after.
        report: also write a report there, one HTML file with maps, matrix and alignment; its figures are beside it as
            .json.
        reference: labelled points, as from `geoseg sample`, for areas with confidence intervals.
        dates: how they are read and come together: grid, shift, light, clouds, times.
        options: what counts as change.
        reading: what the scenes' files do not say.
        run: as for `segment_file`.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the dates, the model, an option or an output cannot be used.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    from geoseg.change.run import ChangeOutputs, compare_dates

    outputs = ChangeOutputs.of(output, probability, polygons, report)
    told = _told(dates, options, reading, run, overwrite)
    segment = partial(_segmented_dates, model=model, run=run, overwrite=overwrite, progress=progress or _silent)
    found = compare_dates((before, after), outputs, told, segment, progress or _silent)
    if reference is not None:
        found = found.with_areas(reference)
    summary = found.summary
    if outputs.report is not None:
        from geoseg.view.change_report import write_report

        summary.outputs += write_report([found], outputs.report)
    return summary


def change_pairs(
    pairs: Sequence[tuple[str | os.PathLike[str], str | os.PathLike[str]]],
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    polygons: str | None = None,
    report: str | os.PathLike[str] | None = None,
    references: Sequence[str | os.PathLike[str]] = (),
    dates: DateOptions | Sequence[DateOptions] | None = None,
    options: ChangeOptions | None = None,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[ChangeSummary]:
    """Change of several pairs of dates, of one place or of many: `BEFORE_to_AFTER.tif` in a folder for each.

    Args:
        pairs: scenes or class maps of the first and of the second date; each pair has its own grid.
        folder: of the outputs; made where missing.
        model: as for `change_files`.
        polygons: also write polygons of each pair: the suffix of their files, such as .gpkg.
        report: also write one report of all pairs there; it is among the outputs of the last one's summary.
        references: labelled points of each pair.
        dates: as for `change_files`, of all pairs or of each.
        options: what counts as change.
        reading: what the scenes' files do not say.
        run: as for `segment_file`.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: there is no pair, or a pair, the model, an option or an output cannot be used.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    from geoseg.change.run import ChangeOutputs, check_report, compare_dates, pair_name
    from geoseg.models import load_model

    folder = Path(folder)
    each = list(dates) if isinstance(dates, Sequence) else [dates] * len(pairs)
    told = [_told(own, options, reading, run, overwrite) for own in each]
    names = [pair_name(*pair) for pair in pairs]
    if not pairs or len(set(names)) < len(names):
        raise InputError(f"Pairs are one or more, with names of their own, not {', '.join(names) or 'none'}.")
    if references and len(references) != len(pairs):
        raise InputError(f"There are {len(pairs)} pairs and {len(references)} files of points; give one for each.")
    if polygons is not None and (not polygons.startswith(".") or Path(polygons).name != polygons):
        raise InputError(f"Of {len(pairs)} pairs --polygons is the suffix of the files, as in .gpkg, not {polygons}.")
    outputs = [
        ChangeOutputs(folder / f"{name}.tif", None, None if polygons is None else folder / f"{name}{polygons}")
        for name in names
    ]
    with gone_if_refused(folder):
        _make(folder)
        for pair, own, how in zip(pairs, outputs, told, strict=True):  # what does not fit is told before all computing
            inputs = how.open(pair).inputs
            own.check(inputs, overwrite=True)
            if report is not None:
                check_report(Path(report), inputs)
    segment = partial(_segmented_dates, model=load_model(model), run=run, overwrite=overwrite)
    found = []
    for number, (pair, own) in enumerate(zip(pairs, outputs, strict=True)):
        shown = partial(_of_pair, names[number], progress or _silent)
        one = compare_dates(pair, own, told[number], partial(segment, progress=shown), shown)
        found.append(one.with_areas(references[number]) if references else one)
    summaries = [one.summary for one in found]
    if report is not None:
        from geoseg.view.change_report import write_report

        summaries[-1].outputs += write_report(found, Path(report))
    return summaries


def _told(
    dates: DateOptions | None,
    options: ChangeOptions | None,
    reading: SceneOptions | None,
    run: RunOptions | None,
    overwrite: bool,
) -> Told:
    from geoseg.change.dates import DateOptions
    from geoseg.change.detect import ChangeOptions
    from geoseg.change.run import Told

    aoi = None if run is None else run.aoi
    return Told(dates or DateOptions(), options or ChangeOptions(), reading or SceneOptions(), overwrite, aoi)


def _of_pair(name: str, progress: Progress, step: str, done: int, total: int) -> None:
    progress(f"{step} {name}", done, total)


def _segmented_dates(
    dates: Dates,
    folder: Path,
    options: ChangeOptions,
    *,
    model: str | os.PathLike[str] | Model,
    run: RunOptions | None,
    overwrite: bool,
    progress: Progress,
) -> ChangeJob:
    """Segment both dates with the probabilities of all classes, or both at once with those of pairs of classes.

    What is compared lies on the part of the grid that holds the area of interest, as what segmenting writes does.
    """
    from geoseg.change.dates import ROLES
    from geoseg.models import load_model
    from geoseg.models.pairs import PairClasses

    loaded = load_model(model)
    pair = PairClasses.of(loaded.card)
    made_from = {"model": loaded.card.name, "digest": loaded.digest}
    with disk_errors("keeping the land cover of both dates", folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
    if pair is not None:
        joint = folder / "pairs-probabilities.tif"
        scenes, bands = dates.stacked(pair.bands)
        segment_file(
            scenes,
            folder / "pairs.tif",
            model=loaded,
            probabilities=joint,
            reading=replace(dates.reading, bands=bands),
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
        compared = dates.within(folder, ROLES)
        both = joint, joint
        return compared.job(options, posteriors=both, pairs=pair.pairs, legend=pair.legend, made_from=made_from)
    spread = []
    for name, scene in zip(ROLES, (dates.before, dates.after), strict=True):
        spread.append(folder / f"{name}-probabilities.tif")
        segment_file(
            scene.path,
            folder / f"{name}.tif",
            model=loaded,
            probabilities=spread[-1],
            reading=dates.reading_of(scene),
            run=run,
            overwrite=overwrite,
            progress=lambda step, done, total, name=name: progress(f"{step} {name}", done, total),  # type: ignore[misc]
        )
    compared = dates.within(folder, ROLES)
    return compared.job(options, posteriors=(spread[0], spread[1]), legend=loaded.card.legend, made_from=made_from)


def stack_files(
    dates: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | Model = "landcover-rgb",
    options: DateOptions | None = None,
    reading: SceneOptions | None = None,
    run: RunOptions | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> StackSummary:
    """Many dates of one place: class maps on one grid, when and how often they changed, and areas by date.

    The folder gets `TIME.tif` for each scene, `changes.tif`, `first_change.tif`, `last_change.tif` (numbers of dates,
    named in their legend), `most_frequent.tif`, `areas.csv` and `areas.json`. An interrupted run goes on where it
    stopped. With `run.aoi` only what lies within its polygons counts: rasters are cut to them, and nodata outside.

    Args:
        dates: scenes or class maps, the earliest first, on any grids.
        folder: of the outputs; made where missing.
        model: name or path of a bundle, or a loaded one; for scenes.
        options: times, grid, shift, light, and what hides the ground on each date.
        reading: what the scenes' files do not say.
        run: as for `segment_file`.
        overwrite: replace outputs that exist.
        progress: called with step, pixels done and pixels in all.

    Raises:
        InputError: the dates, the model, an option or the folder cannot be used.
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    from geoseg.change.dates import DateOptions
    from geoseg.change.series import open_stack, write_stack

    folder, told = Path(folder), progress or _silent
    with gone_if_refused(folder):
        _make(folder)
        aoi = None if run is None else run.aoi
        stack = open_stack(dates, folder, options or DateOptions(), reading or SceneOptions(), aoi)
        stack.check_outputs()
        compared = stack.within()
        if stack.dates.are_maps:
            return write_stack(compared.job(), folder, overwrite=overwrite, progress=partial(told, "compare"))
        from geoseg.models import load_model

        loaded = load_model(model)
        for date in stack.dates.all:  # what does not fit is told before the first is computed
            check_scene(date.path, model=loaded, reading=stack.dates.reading_of(date), run=run)
    for number, (date, time_of_date) in enumerate(zip(stack.dates.all, stack.times, strict=True)):
        segment_file(
            date.path,
            stack.map_path(number),
            model=loaded,
            reading=stack.dates.reading_of(date),
            run=run,
            overwrite=overwrite,
            progress=lambda step, done, total, when=time_of_date: told(f"{step} {when}", done, total),  # type: ignore[misc]
        )
    job = compared.job(legend=loaded.card.legend, made_from={"model": loaded.card.name, "digest": loaded.digest})
    summary = write_stack(job, folder, overwrite=overwrite, progress=partial(told, "compare"))
    summary.outputs = [*job.maps, *summary.outputs]
    return summary


def _make(folder: Path) -> None:
    """Make the folder of several outputs.

    Raises:
        InputError: it is a file, is named like one raster, or cannot be made or written.
    """
    try:
        if not folder.is_dir() and (folder.exists() or folder.suffix.lower() in TIFF_SUFFIXES):
            what = "is a file" if folder.exists() else "is named like a file"
            raise InputError(f"The output {folder} {what}; several files are written, so give the name of a folder.")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InputError(f"The output folder {folder} cannot be made ({reason}); choose another.") from None
    check_writable(folder, "output folder")


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
