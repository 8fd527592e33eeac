"""geoseg prompt: points, boxes or words to polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli import options


def prompt(
    scenes: options.Scenes,
    output: Annotated[Path, typer.Option("--output", "-o", help="Polygons: .gpkg, .parquet, .fgb or .geojson.")],
    points: Annotated[
        Path | None,
        typer.Option(help="Points; columns id (the same for one object), label (1 on it, 0 beside it), class_name."),
    ] = None,
    boxes: Annotated[Path | None, typer.Option(help="Polygons whose bounds are boxes; columns id, class_name.")] = None,
    text: Annotated[str | None, typer.Option(help="What to find, as in 'swimming pool'; for SAM 3.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="All that a lattice of points finds.")] = False,
    least_score: Annotated[float, typer.Option(help="With --everything, leave out objects below this score.")] = 0.3,
    model: Annotated[
        str, typer.Option(help="Bundle that takes prompts; folder or hf:org/name of a SAM, SAM 2 or SAM 3 model.")
    ] = "prompt-rgb",
    views: Annotated[
        int | None,
        typer.Option(help="Average 4 (flips) or 8 (and quarter turns) views; default: 4, 1 of everything or of a SAM."),
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Names that class_name may hold, as in building,water.")] = None,
    bands: options.Bands = None,
    nodata: options.Nodata = None,
    valid_mask: options.ValidMask = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    gsd: options.Gsd = None,
    cache: Annotated[float, typer.Option(help="What embeddings may take on disk, in GB; 0 keeps none.")] = 2.0,
    overwrite: options.Overwrite = False,
) -> None:
    """Outline the objects that points, boxes or words stand for."""
    from geoseg.prompts import prompt_file

    with options.progress_bar(of_pixels=False) as progress:
        summary = prompt_file(
            options.one_or_many(scenes),
            output,
            points=points,
            boxes=boxes,
            text=text,
            everything=everything,
            least_score=least_score,
            model=model,
            classes=options.listed(classes),
            reading=options.scene_options(bands, nodata, valid_mask, scale, offset, gsd),
            cache_gb=cache,
            views=views,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(f"{output}: {summary.objects} objects")
    if summary.empty:
        typer.echo(f"nothing was found for {summary.empty} objects that were asked for")
    if summary.cut:
        typer.echo(f"{summary.cut} go on beyond what was looked at (column whole)")
