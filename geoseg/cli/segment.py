"""geoseg segment: scene to land-cover GeoTIFF."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.pipeline import RunSummary
    from geoseg.raster.reader import SceneOptions
    from geoseg.vector.options import VectorOptions


@options.reads_and_runs
@options.draws
def segment(
    scenes: options.Scenes,
    output: Annotated[Path, typer.Option("--output", "-o", help="Land-cover GeoTIFF to write.")],
    model: options.ModelNames = ["landcover-rgb"],  # noqa: B006
    views: options.Views = 1,
    confidence: Annotated[Path | None, typer.Option(help="Also write the probability of each pixel's class.")] = None,
    probabilities: Annotated[Path | None, typer.Option(help="Also write those of all classes.")] = None,
    polygons: Annotated[
        Path | None, typer.Option(help="Also write polygons: .gpkg, .parquet, .fgb or .geojson.")
    ] = None,
    staging: Annotated[
        str | None, typer.Option(help="Folder or URL (s3://...) that keeps finished blocks; default: beside OUTPUT.")
    ] = None,
    overwrite: options.Overwrite = False,
    *,
    drawing: VectorOptions,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Segment a scene into a land-cover GeoTIFF. An interrupted run goes on where it stopped."""
    from geoseg.pipeline import segment_file

    if polygons is None:
        options.check_undrawn(drawing)
    with options.progress_bar() as progress:
        summary = segment_file(
            options.one_or_many(scenes),
            output,
            model=options.model_of(model, views),
            confidence=confidence,
            probabilities=probabilities,
            polygons=polygons,
            drawing=drawing,
            reading=reading,
            run=replace(run, staging=staging),
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(summary))


def _text(summary: RunSummary) -> str:
    names = ", ".join(str(path) for path in reversed(summary.outputs))
    if summary.up_to_date:
        return f"{names}: up to date"
    took = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in summary.seconds.items())
    told = f"{names}: {summary.pixels / 1e6:.1f} Mpx ({took})"
    seams = summary.seams
    if seams is None or not seams.pixels:
        return told
    return (
        f"{told}\nseams: {100 * seams.disagreement:.2f} % of {seams.pixels} pixels sampled beside them differ "
        f"in class, probabilities by up to {seams.largest_difference:.3f}"
    )
