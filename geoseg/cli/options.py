"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.pipeline import Progress
    from geoseg.raster.reader import SceneOptions

Bands = Annotated[
    str | None,
    typer.Option(help="Which band is which: red=1,green=2,blue=3,nir=4, or a file each: red=B04.jp2,nir=B08.jp2."),
]
Nodata = Annotated[float | None, typer.Option(help="Stored value that means 'not measured'.")]
ValidMask = Annotated[Path | None, typer.Option(help="Raster on the same grid; 0 is 'not measured'.")]
Scale = Annotated[float | None, typer.Option(help="Real value = pixel * SCALE + OFFSET.")]
Offset = Annotated[float | None, typer.Option(help="See --scale.")]
Gsd = Annotated[
    float | None, typer.Option("--gsd", help="Pixel size on the ground in metres, if the file does not tell.")
]
Scenes = Annotated[list[str], typer.Argument(help="File, VRT, URL, catalog.yaml#name, or several files on one grid.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace outputs that exist.")]


def scene_options(
    bands: str | None,
    nodata: float | None,
    valid_mask: Path | None,
    scale: float | None,
    offset: float | None,
    gsd: float | None,
) -> SceneOptions:
    """What the user states about a scene, as one value."""
    from geoseg.raster.reader import SceneOptions

    mask = None if valid_mask is None else str(valid_mask)
    return SceneOptions(parse_bands(bands), nodata, mask, scale, offset, gsd)


def parse_bands(text: str | None) -> dict[str, str] | None:
    """`red=1,nir=B08.jp2` as a mapping; a comma within a file name is kept."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in re.split(r",(?=[A-Za-z0-9_]+=)", text)]
    wrong = next(("".join(pair) for pair in pairs if not all(pair)), None)
    if wrong is not None:
        raise InputError(f"--bands takes name=number or name=file, separated by commas; {wrong!r} is neither.")
    return {name.strip(): value.strip() for name, _, value in pairs}


def one_or_many(scenes: list[str]) -> str | list[str]:
    return scenes[0] if len(scenes) == 1 else scenes


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on stderr with pixels per second and time left; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f}%  {task.fields[speed]}"),
        TimeRemainingColumn(compact=True),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks: dict[str, TaskID] = {}

        def report(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total, completed=done, speed="")
            task = bar.tasks[tasks[step]]
            speed = f"{task.speed / 1e6:.2f} Mpx/s" if task.speed else ""
            bar.update(tasks[step], completed=done, speed=speed)

        yield report
