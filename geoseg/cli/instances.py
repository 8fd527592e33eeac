"""geoseg instances: scene to objects, one polygon each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.objects.files import InstancesSummary
    from geoseg.raster.reader import SceneOptions


@options.reads_and_runs
def instances(
    scenes: options.Scenes,
    output: Annotated[Path, typer.Option("--output", "-o", help="Polygons: .gpkg, .parquet, .fgb or .geojson.")],
    model: options.ModelNames = ["landcover-rgb"],  # noqa: B006
    views: options.Views = 1,
    classes: Annotated[
        str | None, typer.Option(help="Classes whose objects are wanted; default: building, or all of a detector.")
    ] = None,
    raster: Annotated[
        Path | None, typer.Option(help="Also write a GeoTIFF of ids, and their table beside it as .parquet.")
    ] = None,
    min_area: Annotated[float, typer.Option(help="Leave out objects smaller than this, in square metres.")] = 0.0,
    simplify: Annotated[float, typer.Option(metavar="M", help="Simplify outlines by a tolerance in metres.")] = 0.0,
    regularize: Annotated[bool, typer.Option("--regularize", help="Straight walls and right angles.")] = False,
    least_score: Annotated[float, typer.Option(help="Leave out a detector's objects below this score.")] = 0.5,
    overwrite: options.Overwrite = False,
    *,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Find objects, such as buildings, each a polygon of its own. An interrupted run goes on where it stopped."""
    from geoseg.objects.files import instances_file
    from geoseg.objects.outline import OutlineOptions

    with options.progress_bar() as progress:
        summary = instances_file(
            options.one_or_many(scenes),
            output,
            model=options.model_of(model, views),
            classes=options.listed(classes),
            raster=raster,
            shape=OutlineOptions(min_area, simplify, regularize),
            least_score=least_score,
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(summary))


def _text(summary: InstancesSummary) -> str:
    names = ", ".join(str(path) for path in reversed(summary.outputs))
    if summary.up_to_date:
        return f"{names}: up to date"
    told = f"{names}: {', '.join(f'{count} {name}' for name, count in summary.counts.items())}"
    if not summary.fallbacks:
        return told
    return f"{told}\n{summary.fallbacks} of {summary.regularized} fitted no straight walls and were simplified only"
