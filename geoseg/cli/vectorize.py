"""geoseg vectorize: land-cover GeoTIFF to polygons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.vector import VectorOptions, VectorSummary


@options.draws
def vectorize(
    landcover: Annotated[str, typer.Argument(help="Class raster, as written by `geoseg segment`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Polygons: .gpkg, .parquet, .fgb or .geojson.")],
    confidence: Annotated[
        Path | None, typer.Option(help="Confidence raster, for the mean and the tenth percentile of each polygon.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Blocks traced at once.")] = None,
    overwrite: options.Overwrite = False,
    *,
    drawing: VectorOptions,
) -> None:
    """Trace the classes of a land-cover GeoTIFF as polygons. An interrupted run goes on where it stopped."""
    from geoseg.pipeline import vectorize_file

    wanted = replace(drawing, confidence=confidence, workers=workers)
    with options.progress_bar() as progress:
        summary = vectorize_file(landcover, output, wanted, overwrite=overwrite, progress=progress)
    typer.echo(_text(summary))


def _text(summary: VectorSummary) -> str:
    if summary.up_to_date:
        return f"{summary.path}: up to date"
    counted = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
    told = f"{summary.path}: {counted or 'no polygon'}"
    if not summary.fallbacks:
        return told
    poor = f"{summary.fallbacks} of {summary.regularized}"
    return f"{told}\n{poor} polygons fitted no straight walls and were simplified only"
