"""geoseg sample: random pixels of a class map, to be labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli import options
from geoseg.errors import InputError


def sample(
    class_map: Annotated[Path, typer.Argument(help="Land cover or change, as a class raster.")],
    output: Annotated[Path, typer.Option("--output", "--out", "-o", help="Points to write: .gpkg.")],
    n: Annotated[int | None, typer.Option("--n", help="Number of points.")] = None,
    standard_error: Annotated[
        float | None, typer.Option(help="Instead of --n: of overall accuracy that is wanted, as in 0.01.")
    ] = None,
    expected: Annotated[
        str | None, typer.Option(help="With it: user's accuracy that is expected, as in water=0.9,building=0.6.")
    ] = None,
    least: Annotated[int, typer.Option(help="Points of a class that is rare.")] = 50,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Draw pixels at random, stratified by class, as points whose column `reference` is to be filled in a GIS."""
    from geoseg.change.reference import draw_sample

    given = draw_sample(
        class_map,
        output,
        n=n,
        standard_error=standard_error,
        expected=parse_expected(expected),
        least=least,
        seed=seed,
        overwrite=overwrite,
    )
    counted = ", ".join(f"{count} {name}" for name, count in given.items())
    typer.echo(f"{output}: {sum(given.values())} points ({counted}); fill in the column 'reference'")


def parse_expected(text: str | None) -> dict[str, float] | None:
    """`water=0.9,building=0.6` as a mapping."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in text.split(",")]
    try:
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise InputError(f"--expected takes class=accuracy, as in water=0.9,building=0.6, not {text!r}.") from None
