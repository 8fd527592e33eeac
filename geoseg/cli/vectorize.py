"""geoseg vectorize: land-cover GeoTIFF to polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli import options


def vectorize(
    landcover: Annotated[str, typer.Argument(help="Class raster, as written by `geoseg segment`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Polygons: .gpkg, .parquet, .fgb or .geojson.")],
    classes: Annotated[str | None, typer.Option(help="Classes or groups, as in building,water,vegetation.")] = None,
    confidence: Annotated[Path | None, typer.Option(help="Confidence raster, for the mean of each polygon.")] = None,
    min_area: Annotated[float, typer.Option(help="Leave out polygons smaller than this, in square metres.")] = 0.0,
    fill_holes: Annotated[
        float, typer.Option(help="Give parts smaller than this, in square metres, to the neighbour they touch most.")
    ] = 0.0,
    simplify: Annotated[
        float,
        typer.Option(metavar="M", help="Simplify borders by a tolerance in metres; neighbours keep sharing them."),
    ] = 0.0,
    smooth: Annotated[str | None, typer.Option(help="Classes to smooth, as in water,vegetation.")] = None,
    regularize: Annotated[
        str | None, typer.Option(help="Classes that get straight walls and right angles, as in building.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Classes whose touching objects become polygons of their own, as in building.")
    ] = None,
    single_layer: Annotated[bool, typer.Option("--single-layer", help="One layer for all classes.")] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Trace the classes of a land-cover GeoTIFF as polygons."""
    from geoseg.pipeline import vectorize_file

    with options.progress_bar() as progress:
        summary = vectorize_file(
            landcover,
            output,
            classes=options.listed(classes),
            confidence=confidence,
            min_area_m2=min_area,
            fill_holes_m2=fill_holes,
            simplify_m=simplify,
            smooth=options.listed(smooth) or (),
            regularize=options.listed(regularize) or (),
            split=options.listed(split) or (),
            single_layer=single_layer,
            overwrite=overwrite,
            progress=progress,
        )
    counted = ", ".join(f"{count} {name}" for name, count in summary.counts.items())
    typer.echo(f"{output}: {counted or 'no polygon'}")
    if summary.regularized:
        typer.echo(
            f"{summary.fallbacks} of {summary.regularized} polygons fitted no straight walls and were simplified only"
        )
