"""geoseg evaluate-objects: objects against a reference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options
from geoseg.cli.evaluate import parse_map

if TYPE_CHECKING:
    from geoseg.objects.evaluate import ObjectScores


def evaluate_objects(
    predicted: Annotated[str, typer.Argument(help="Raster of ids, from panoptic or from instances --raster.")],
    reference: Annotated[str, typer.Argument(help="Polygons, a class raster, or another raster of ids.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also write the scores: .json.")] = None,
    column: Annotated[str | None, typer.Option(help="Column of the class; else class_name or class_id.")] = None,
    meanings: Annotated[
        str | None,
        typer.Option("--map", help="What reference values mean, as in yes=building,0=other (none of them)."),
    ] = None,
    ignore: Annotated[str | None, typer.Option(help="Reference values to leave out, as in 0,unknown.")] = None,
    aoi: Annotated[str | None, typer.Option(help="Polygons; only what lies within counts.")] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Compare objects with a reference: panoptic quality (PQ, SQ, RQ) and average precision of masks, by class."""
    from geoseg.objects.evaluate import evaluate_objects as work
    from geoseg.raster.labels import LabelOptions

    ignored = tuple(options.listed(ignore) or ())
    with options.progress_bar() as progress:
        scores = work(
            predicted,
            reference,
            output=output,
            options=LabelOptions(column, parse_map(meanings), ignored),
            aoi=aoi,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(scores))


def _text(scores: ObjectScores) -> str:
    width = max(len(name) for name in (*scores.by_class, "all"))
    rows = [_row(f"{name:<{width}}", row) for name, row in {**scores.by_class, "all": scores.overall}.items()]
    return "\n".join(rows)


def _row(name: str, row: dict[str, float]) -> str:
    told = [f"{key.upper()} {row[key]:.3f}" for key in ("pq", "sq", "rq", "ap", "ap50", "ap75") if key in row]
    counts = "".join(f"  {key} {row[key]:.0f}" for key in ("matched", "unmatched", "missed") if key in row)
    return f"{name}  {'  '.join(told)}{counts}"
