"""geoseg stack: many dates of one place to class maps on one grid, areas by date, and when each pixel changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options
from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.change.series import StackSummary
    from geoseg.inference.plan import RunOptions
    from geoseg.raster.reader import SceneOptions


@options.reads_and_runs
def stack(
    dates: Annotated[list[str], typer.Argument(help="Scenes or class maps, the earliest first.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of what is written.")],
    model: Annotated[str, typer.Option(help="Bundle that segments scenes.")] = "landcover-rgb",
    times: Annotated[
        str | None, typer.Option(help="Of the dates, as in 2016,2018-06,2020-06-01; else from the files' names.")
    ] = None,
    scenes: Annotated[bool, typer.Option("--scenes", help="All dates are scenes, whatever their tags.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="All dates are class maps, whatever their tags.")] = False,
    masks: Annotated[
        str | None, typer.Option(help="A raster for each date, 0 where the ground is hidden: a.tif,-,c.tif.")
    ] = None,
    qa_band: Annotated[int | None, typer.Option(help="Number of the band of quality flags in each file.")] = None,
    qa_bits: Annotated[str | None, typer.Option(help="Bits of it that hide the ground, as in 1,2,3.")] = None,
    qa_values: Annotated[str | None, typer.Option(help="Values of it that hide the ground, as in 3,8,9,10.")] = None,
    extent: Annotated[str, typer.Option(help="intersection or union of the dates.")] = "intersection",
    resolution: Annotated[float | None, typer.Option(help="Of the common grid, in units of its CRS.")] = None,
    radiometry: Annotated[
        str, typer.Option(help="Put scenes in the light of the first: none, mad or histogram.")
    ] = "none",
    overwrite: options.Overwrite = False,
    *,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Class maps of many dates on one grid, areas by date, first and last change, changes, most frequent class."""
    from geoseg.change.clouds import CloudOptions
    from geoseg.change.series import StackOptions
    from geoseg.pipeline import stack_files

    given = options.listed(times)
    stated = StackOptions(
        times=None if given is None else tuple(given),
        kind=options.kind_of(scenes, maps),
        extent=options.extent_of(extent),
        resolution=resolution,
        radiometry=radiometry,  # type: ignore[arg-type]  # checked there
        clouds=CloudOptions(
            masks=tuple(options.listed(masks) or ()),
            qa_band=qa_band,
            qa_bits=_numbers("--qa-bits", qa_bits),
            qa_values=_numbers("--qa-values", qa_values),
        ),
    )
    with options.progress_bar() as progress:
        summary = stack_files(
            dates, output, model=model, options=stated, reading=reading, run=run, overwrite=overwrite, progress=progress
        )
    typer.echo(_text(summary))


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in options.listed(text) or ())
    except ValueError:
        raise InputError(f"{option} takes whole numbers, as in 1,2,3, not {text!r}.") from None


def _text(summary: StackSummary) -> str:
    series, (height, width) = summary.series, summary.grid.shape
    unit, size = ("ha", 1e4) if summary.grid.crs is not None else ("px", 1.0)
    lines = [f"grid   {width} x {height} px, {summary.grid.crs or 'no CRS'}"]
    wide = max(len(time) for time in series.times)
    lines.append(f"{'':<{wide}}  {'known':>6}" + "".join(f"  {name:>14}" for name in series.names) + f"  {unit}")
    for time, known, areas in zip(series.times, series.known, series.m2, strict=True):
        lines.append(f"{time:<{wide}}  {known:>6.1%}" + "".join(f"  {area / size:>14,.2f}" for area in areas))
    state = " (up to date)" if summary.up_to_date else ""
    return "\n".join([*lines, f"{', '.join(map(str, summary.outputs))}{state}"])
