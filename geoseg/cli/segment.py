"""geoseg segment: scene to land-cover GeoTIFF."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from geoseg.cli import options
from geoseg.errors import InputError


def segment(
    scenes: options.Scenes,
    output: Annotated[Path, typer.Option("--output", "-o", help="Land-cover GeoTIFF to write.")],
    model: Annotated[str, typer.Option(help="Name (see `geoseg models`) or path of a model bundle.")] = "landcover-rgb",
    confidence: Annotated[Path | None, typer.Option(help="Also write the probability of each pixel's class.")] = None,
    probabilities: Annotated[Path | None, typer.Option(help="Also write those of all classes.")] = None,
    aoi: Annotated[Path | None, typer.Option(help="Polygons; only what lies within is segmented.")] = None,
    bands: options.Bands = None,
    nodata: options.Nodata = None,
    valid_mask: options.ValidMask = None,
    scale: options.Scale = None,
    offset: options.Offset = None,
    gsd: options.Gsd = None,
    resample: Annotated[bool, typer.Option("--resample", help="Work at the model's resolution if need be.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    chip: Annotated[int | None, typer.Option(help="Side of a chip in pixels.")] = None,
    halo: Annotated[str | None, typer.Option(help="Pixels of context around a core, or 'exact'.")] = None,
    block: Annotated[int | None, typer.Option(help="Side of a block in pixels; rounded down to whole cores.")] = None,
    workers: Annotated[int, typer.Option(help="Processes.")] = 1,
    overwrite: options.Overwrite = False,
) -> None:
    """Segment a scene into a land-cover GeoTIFF. An interrupted run goes on where it stopped."""
    from geoseg.inference.plan import RunOptions
    from geoseg.pipeline import segment_file

    reading = options.scene_options(bands, nodata, valid_mask, scale, offset, gsd)
    run = RunOptions(aoi, resample, device, precision, chip, _halo(halo), block, workers)
    with options.progress_bar() as progress:
        summary = segment_file(
            options.one_or_many(scenes),
            output,
            model=model,
            confidence=confidence,
            probabilities=probabilities,
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    names = ", ".join(str(path) for path in reversed(summary.outputs))
    if summary.up_to_date:
        typer.echo(f"{names}: up to date")
        return
    took = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in summary.seconds.items())
    typer.echo(f"{names}: {summary.pixels / 1e6:.1f} Mpx ({took})")


def _halo(text: str | None) -> int | Literal["exact"] | None:
    if text is None:
        return None
    if text == "exact":
        return "exact"
    try:
        return int(text)
    except ValueError:
        raise InputError(f"--halo is a number of pixels or 'exact', not {text!r}.") from None
