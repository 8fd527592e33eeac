"""geoseg change: two dates to a map of what became what."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.pipeline import ChangeSummary
    from geoseg.raster.reader import SceneOptions

MOST_LINES = 12


@options.reads_and_runs
def change(
    before: Annotated[str, typer.Argument(help="Scene or class map of the first date.")],
    after: Annotated[str, typer.Argument(help="Scene or class map of the second date.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoTIFF of transitions.")],
    model: Annotated[str, typer.Option(help="Bundle that segments scenes.")] = "landcover-rgb",
    scenes: Annotated[bool, typer.Option("--scenes", help="Both dates are scenes, whatever their tags.")] = False,
    maps: Annotated[bool, typer.Option("--maps", help="Both dates are class maps, whatever their tags.")] = False,
    probability: Annotated[Path | None, typer.Option(help="Also write the probability of change, 0..200.")] = None,
    polygons: Annotated[Path | None, typer.Option(help="Also write polygons of change.")] = None,
    report: Annotated[Path | None, typer.Option(help="Also write a report: HTML, and its figures as JSON.")] = None,
    extent: Annotated[str, typer.Option(help="intersection or union of the dates.")] = "intersection",
    resolution: Annotated[float | None, typer.Option(help="Of the common grid, in units of its CRS.")] = None,
    coregister: Annotated[bool, typer.Option("--coregister", help="Move the second scene onto the first.")] = False,
    radiometry: Annotated[
        str, typer.Option(help="Put the second scene in the light of the first: none, mad or histogram.")
    ] = "none",
    prior: Annotated[float, typer.Option(help="Share of pixels that are expected to change.")] = 0.2,
    threshold: Annotated[float, typer.Option(help="Probability from which on a pixel counts as changed.")] = 0.5,
    min_area: Annotated[float, typer.Option(help="Smaller changes do not count, in square metres.")] = 0.0,
    min_width: Annotated[float, typer.Option(help="Narrower changes do not count, in metres.")] = 0.0,
    overwrite: options.Overwrite = False,
    *,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Compare two dates: a raster of transitions, polygons with from and to, and a transition matrix."""
    from geoseg.change.detect import ChangeOptions
    from geoseg.pipeline import change_files

    with options.progress_bar() as progress:
        summary = change_files(
            before,
            after,
            output,
            model=model,
            kind=options.kind_of(scenes, maps),
            probability=probability,
            polygons=polygons,
            report=report,
            extent=options.extent_of(extent),
            resolution=resolution,
            coregister=coregister,
            radiometry=radiometry,  # type: ignore[arg-type]  # checked there
            options=ChangeOptions(prior, threshold, min_area, min_width),
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(summary))


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
    matrix, unit = summary.matrix, "ha" if summary.crs is not None else "px"
    scale = 1e4 if summary.crs is not None else 1.0
    changes = [
        (matrix.m2[i, j] / scale, f"{one} to {other}")
        for i, one in enumerate(matrix.names)
        for j, other in enumerate(matrix.names)
        if i != j and matrix.pixels[i, j]
    ]
    lines += [f"{area:12.4f} {unit}  {name}" for area, name in sorted(changes, reverse=True)[:MOST_LINES]]
    lines.append(f"{sum(area for area, _ in changes):12.4f} {unit}  changed, of {matrix.m2.sum() / scale:.4f} {unit}")
    state = " (up to date)" if summary.up_to_date else ""
    return "\n".join([*lines, f"{', '.join(map(str, summary.outputs))}{state}"])
