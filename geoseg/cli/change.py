"""geoseg change: two dates, or several pairs of them, to maps of what became what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options
from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.change.dates import DateOptions
    from geoseg.change.run import ChangeSummary
    from geoseg.inference.plan import RunOptions
    from geoseg.raster.reader import SceneOptions

MOST_LINES = 12


@options.reads_and_runs
@options.puts_dates_together
def change(
    dates: Annotated[list[str], typer.Argument(help="Scenes or class maps, the earliest first.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="GeoTIFF of transitions; of more than two dates, a folder of them.")
    ],
    model: Annotated[str, typer.Option(help="Bundle that segments scenes.")] = "landcover-rgb",
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Dates are pairs, before after before after; else each goes with the next.")
    ] = False,
    probability: Annotated[Path | None, typer.Option(help="Also write the probability of change, 0..200.")] = None,
    polygons: Annotated[
        Path | None, typer.Option(help="Also write polygons of change; of more than two dates, their suffix: .gpkg.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a report: HTML, and its figures as JSON.")] = None,
    reference: Annotated[
        list[str] | None, typer.Option(help="Labelled points of a pair, for areas with confidence intervals.")
    ] = None,
    prior: Annotated[float, typer.Option(help="Share of pixels that are expected to change.")] = 0.2,
    threshold: Annotated[float, typer.Option(help="Probability from which on a pixel counts as changed.")] = 0.5,
    min_area: Annotated[float, typer.Option(help="Smaller changes do not count, in square metres.")] = 0.0,
    min_width: Annotated[float, typer.Option(help="Narrower changes do not count, in metres.")] = 0.0,
    overwrite: options.Overwrite = False,
    *,
    together: DateOptions,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Compare two dates: a raster of transitions, polygons with from and to, and a transition matrix.

    With --aoi only what lies within its polygons counts, and rasters are cut to them. OUTPUT-dates beside the output
    keeps both dates on one grid, and of scenes their land cover and probabilities, so that a next run finds them.
    """
    from geoseg.change.detect import ChangeOptions
    from geoseg.over_time import change_files, change_pairs

    numbers = couples_of(len(dates), pairs=pairs)
    couples = [(dates[before], dates[after]) for before, after in numbers]
    own = [together.of_some(couple, len(dates)) for couple in numbers]
    points = reference or []
    counts = ChangeOptions(prior, threshold, min_area, min_width)
    with options.progress_bar() as progress:
        if len(couples) == 1:
            if len(points) > 1:
                raise InputError(f"There is 1 pair of dates and {len(points)} files of points; give one.")
            summaries = [
                change_files(
                    *couples[0],
                    output,
                    model=model,
                    probability=probability,
                    polygons=polygons,
                    report=report,
                    reference=points[0] if points else None,
                    dates=own[0],
                    options=counts,
                    reading=reading,
                    run=run,
                    overwrite=overwrite,
                    progress=progress,
                )
            ]
        else:
            if probability is not None:
                raise InputError("--probability is of one pair; of several, leave it out.")
            summaries = change_pairs(
                couples,
                output,
                model=model,
                polygons=None if polygons is None else str(polygons),
                report=report,
                references=points,
                dates=own,
                options=counts,
                reading=reading,
                run=run,
                overwrite=overwrite,
                progress=progress,
            )
    typer.echo("\n\n".join(_text(summary) for summary in summaries))


def couples_of(dates: int, *, pairs: bool) -> list[tuple[int, int]]:
    """Which date is compared with which, by their numbers."""
    if dates < 2 or (pairs and dates % 2):
        wanted = "an even number of dates" if pairs else "two dates or more"
        raise InputError(f"Change needs {wanted}, not {dates}.")
    return [(first, first + 1) for first in range(0, dates - 1, 2 if pairs else 1)]


def _text(summary: ChangeSummary) -> str:
    height, width = summary.shape
    lines = [f"grid   {width} x {height} px, {summary.crs or 'no CRS'}, transform {tuple(summary.transform[:6])}"]
    if (shift := summary.shift) is not None:
        state = "corrected" if summary.is_corrected else "not corrected"
        told = (
            f"{shift.rows:+.2f} rows, {shift.cols:+.2f} columns, spread {shift.spread:.2f} px, {shift.windows} windows"
        )
        lines.append(f"shift  {told}; {state}")
    if summary.radiometry is not None:
        lines.append(f"light  {summary.radiometry.told()}")
    matrix, (unit, scale, digits) = summary.matrix, ("ha", 1e4, 4) if summary.crs is not None else ("px", 1.0, 0)
    changes = [
        (matrix.m2[i, j] / scale, f"{one} to {other}")
        for i, one in enumerate(matrix.names)
        for j, other in enumerate(matrix.names)
        if i != j and matrix.pixels[i, j]
    ]
    lines += [f"{area:12.{digits}f} {unit}  {name}" for area, name in sorted(changes, reverse=True)[:MOST_LINES]]
    changed, of_all = sum(area for area, _ in changes), matrix.m2.sum() / scale
    lines.append(f"{changed:12.{digits}f} {unit}  changed, of {of_all:.{digits}f} {unit}")
    if summary.areas is not None:
        from geoseg.cli.area import text_of

        lines.append(text_of(summary.areas, 0.95))
    if summary.folder is not None:
        lines.append(f"kept   {summary.folder}: both dates on one grid, from which the same command goes on")
    state = " (up to date)" if summary.up_to_date else ""
    return "\n".join([*lines, f"{', '.join(map(str, summary.outputs))}{state}"])
