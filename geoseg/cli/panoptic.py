"""geoseg panoptic: scene to a class for every pixel and an object for those of things."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.objects.files import PanopticSummary
    from geoseg.raster.reader import SceneOptions


@options.reads_and_runs
def panoptic(
    scenes: options.Scenes,
    output: Annotated[Path, typer.Option("--output", "-o", help="GeoTIFF of ids; their table is beside it.")],
    model: options.ModelNames = ["panoptic-rgb"],  # noqa: B006
    views: options.Views = 1,
    things: Annotated[
        str | None, typer.Option(help="Classes that have objects; default: building, or all of a panoptic-fpn.")
    ] = None,
    polygons: Annotated[
        Path | None, typer.Option(help="Also write polygons without overlaps: .gpkg, .parquet, .fgb or .geojson.")
    ] = None,
    simplify: Annotated[float, typer.Option(metavar="M", help="Simplify borders by a tolerance in metres.")] = 0.0,
    regularize: Annotated[bool, typer.Option("--regularize", help="Things get straight walls.")] = False,
    least_score: Annotated[float, typer.Option(help="Leave out a detector's objects below this score.")] = 0.5,
    overwrite: options.Overwrite = False,
    *,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Give every pixel a class, and those of things, such as buildings, an object. An interrupted run goes on."""
    from geoseg.objects.files import panoptic_file
    from geoseg.objects.outline import OutlineOptions

    with options.progress_bar() as progress:
        summary = panoptic_file(
            options.one_or_many(scenes),
            output,
            model=options.model_of(model, views),
            things=options.listed(things),
            polygons=polygons,
            shape=OutlineOptions(simplify_m=simplify, regularize=regularize),
            least_score=least_score,
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(summary))


def _text(summary: PanopticSummary) -> str:
    names = ", ".join(str(path) for path in reversed(summary.outputs))
    if summary.up_to_date:
        return f"{names}: up to date"
    total = sum(summary.pixels.values()) or 1
    shares = ", ".join(f"{name} {100 * pixels / total:.1f} %" for name, pixels in summary.pixels.items())
    objects = ", ".join(f"{count} {name}" for name, count in summary.counts.items()) or "none"
    return f"{names}: objects: {objects}; pixels: {shares}"
