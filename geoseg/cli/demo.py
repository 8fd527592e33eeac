"""geoseg demo: the main job on a scene that comes with the package."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli import options


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for the outputs; made if missing.")] = Path("demo"),
    small: Annotated[bool, typer.Option("--small", help="A scene of 512 x 512 px in place of 4096 x 4096.")] = False,
) -> None:
    """Make the demo scene, segment it, trace its polygons and draw a picture; print where they are."""
    from geoseg.demo import run_demo

    started = time.perf_counter()
    with options.progress_bar() as progress:
        steps = run_demo(folder, small=small, progress=progress)
    for step in steps:
        typer.echo(f"{step.seconds:7.1f} s  {step.name:<10} {step.output}")
    typer.echo(f"{time.perf_counter() - started:7.1f} s  in all")
