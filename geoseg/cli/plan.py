"""geoseg plan: what a run will cost, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.pipeline import Forecast
    from geoseg.raster.reader import SceneOptions
    from geoseg.vector.options import VectorOptions


@options.reads_and_runs
@options.draws
def plan(
    scenes: options.Scenes,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="As for segment: its folder must have space for the run.")
    ] = None,
    model: options.ModelNames = ["landcover-rgb"],  # noqa: B006
    views: options.Views = 1,
    confidence: Annotated[Path | None, typer.Option(help="As for segment; nothing is written there.")] = None,
    probabilities: Annotated[Path | None, typer.Option(help="As for segment; nothing is written there.")] = None,
    polygons: Annotated[Path | None, typer.Option(help="As for segment; polygons are not in the forecast.")] = None,
    staging: Annotated[str | None, typer.Option(help="As for segment; it changes nothing here.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="As for segment; it changes nothing here.")] = False,
    *,
    drawing: VectorOptions,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Say what `geoseg segment` would do with the same options: chips, memory, time, size. Nothing is written."""
    from geoseg.pipeline import plan_file

    if polygons is None:
        options.check_undrawn(drawing)
    forecast = plan_file(
        options.one_or_many(scenes),
        model=options.model_of(model, views),
        output=output,
        confidence=confidence is not None,
        probabilities=probabilities is not None,
        reading=reading,
        run=run,
    )
    typer.echo(_text(forecast))


def _text(forecast: Forecast) -> str:
    grid, backend = forecast.plan.grid, forecast.plan.backend
    time = "not known, as other machines compute" if forecast.seconds is None else _duration(forecast.seconds)
    means = f"; the model sees means of {forecast.pool} x {forecast.pool} px" if forecast.pool > 1 else ""
    return "\n".join(
        [
            f"output   {forecast.shape[1]} x {forecast.shape[0]} px, {forecast.output_bytes / 1e6:.1f} MB at most",
            f"chips    {forecast.chips} of {grid.chip} px: cores of {grid.core} px, halo {grid.halo} px, "
            f"ramp {grid.ramp} px; {100 * forecast.extra_pixels:.0f} % more pixels than the scene has{means}",
            f"blocks   {forecast.blocks} of {grid.block_side} px",
            f"backend  {backend.engine} on {backend.device}, {backend.precision}",
            f"memory   {forecast.memory_bytes / 1e9:.2f} GB at most, with {forecast.plan.workers} worker(s)",
            f"time     {time}",
        ]
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
