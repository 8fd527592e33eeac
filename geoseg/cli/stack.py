"""geoseg stack: many dates of one place to class maps on one grid, areas by date, and when each pixel changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.change.dates import DateOptions
    from geoseg.change.series import StackSummary
    from geoseg.inference.plan import RunOptions
    from geoseg.raster.reader import SceneOptions


@options.reads_and_runs
@options.puts_dates_together
def stack(
    dates: Annotated[list[str], typer.Argument(help="Scenes or class maps, the earliest first.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of what is written.")],
    model: Annotated[str, typer.Option(help="Bundle that segments scenes.")] = "landcover-rgb",
    overwrite: options.Overwrite = False,
    *,
    together: DateOptions,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Class maps of many dates on one grid, areas by date, first and last change, changes, most frequent class.

    With --aoi only what lies within its polygons counts, and rasters are cut to them.
    """
    from geoseg.over_time import stack_files

    with options.progress_bar() as progress:
        summary = stack_files(
            dates,
            output,
            model=model,
            options=together,
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(summary))


def _text(summary: StackSummary) -> str:
    series, (height, width) = summary.series, summary.grid.shape
    unit, size, digits = ("ha", 1e4, 2) if summary.grid.crs is not None else ("px", 1.0, 0)
    lines = [f"grid   {width} x {height} px, {summary.grid.crs or 'no CRS'}"]
    wide = max(len(time) for time in series.times)
    lines.append(f"{'':<{wide}}  {'known':>6}" + "".join(f"  {name:>14}" for name in series.names) + f"  {unit}")
    for time, known, areas in zip(series.times, series.known, series.m2, strict=True):
        lines.append(f"{time:<{wide}}  {known:>6.1%}" + "".join(f"  {area / size:>14,.{digits}f}" for area in areas))
    state = " (up to date)" if summary.up_to_date else ""
    return "\n".join([*lines, f"{', '.join(map(str, summary.outputs))}{state}"])
