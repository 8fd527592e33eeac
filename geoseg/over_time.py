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
from geoseg.raster.disk import disk_errors, gone_if_refused
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
    probabilities; class maps are compared as they are.

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

    outputs, told = ChangeOutputs.of(output, probability, polygons, report), _told(dates, options, reading, overwrite)
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
        folder: of the outputs.
        model: as for `change_files`.
        polygons: also write polygons of each pair: the suffix of their files, such as .gpkg.
        report: also write one report of all pairs there.
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
    from geoseg.change.dates import open_dates
    from geoseg.change.run import ChangeOutputs, check_report, compare_dates, pair_name
    from geoseg.models import load_model

    folder = Path(folder)
    each = list(dates) if isinstance(dates, Sequence) else [dates] * len(pairs)
    told = [_told(own, options, reading, overwrite) for own in each]
    names = [pair_name(*pair) for pair in pairs]
    if not pairs or len(set(names)) < len(names):
        raise InputError(f"Pairs are one or more, with names of their own, not {', '.join(names) or 'none'}.")
    if references and len(references) != len(pairs):
        raise InputError(f"There are {len(pairs)} pairs and {len(references)} files of points; give one for each.")
    if report is not None:
        check_report(Path(report))
    outputs = [
        ChangeOutputs(folder / f"{name}.tif", None, None if polygons is None else folder / f"{name}{polygons}")
        for name in names
    ]
    with gone_if_refused(folder):
        _make(folder)
        for pair, own, how in zip(pairs, outputs, told, strict=True):  # what does not fit is told before all computing
            own.check([Path(path) for path in pair], overwrite=True)
            open_dates(pair, how.dates, how.reading)
    segment = partial(_segmented_dates, model=load_model(model), run=run, overwrite=overwrite)
    found = []
    for number, (pair, own) in enumerate(zip(pairs, outputs, strict=True)):
        shown = partial(_of_pair, names[number], progress or _silent)
        one = compare_dates(pair, own, told[number], partial(segment, progress=shown), shown)
        found.append(one.with_areas(references[number]) if references else one)
    if report is not None:
        from geoseg.view.change_report import write_report

        write_report(found, Path(report))
    return [one.summary for one in found]


def _told(
    dates: DateOptions | None, options: ChangeOptions | None, reading: SceneOptions | None, overwrite: bool
) -> Told:
    from geoseg.change.dates import DateOptions
    from geoseg.change.detect import ChangeOptions
    from geoseg.change.run import Told

    return Told(dates or DateOptions(), options or ChangeOptions(), reading or SceneOptions(), overwrite)


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
    """Segment both dates with the probabilities of all classes, or both at once with those of pairs of classes."""
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
        return dates.job(options, posteriors=(joint, joint), pairs=pair.pairs, legend=pair.legend, made_from=made_from)
    spread = []
    for name, scene in (("before", dates.before), ("after", dates.after)):
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
    return dates.job(options, posteriors=(spread[0], spread[1]), legend=loaded.card.legend, made_from=made_from)


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
    stopped.

    Args:
        dates: scenes or class maps, the earliest first, on any grids.
        folder: of the outputs.
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
        stack = open_stack(dates, folder, options or DateOptions(), reading or SceneOptions())
        if stack.dates.are_maps:
            return write_stack(stack.job(), folder, overwrite=overwrite, progress=partial(told, "compare"))
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
    job = stack.job(legend=loaded.card.legend, made_from={"model": loaded.card.name, "digest": loaded.digest})
    summary = write_stack(job, folder, overwrite=overwrite, progress=partial(told, "compare"))
    summary.outputs = [*job.maps, *summary.outputs]
    return summary


def _make(folder: Path) -> None:
    with disk_errors("making the folder of the outputs", folder.parent):
        folder.mkdir(parents=True, exist_ok=True)


def _silent(step: str, done: int, total: int) -> None:
    """No progress is shown."""
