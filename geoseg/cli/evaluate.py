"""geoseg evaluate: a model, or a land cover, against labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options
from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.raster.reader import SceneOptions
    from geoseg.view.evaluation import EvaluateSummary


@options.reads_and_runs
def evaluate(
    scenes: Annotated[
        list[str],
        typer.Argument(metavar="SCENE... LABELS", help="Scene (or land cover), then class raster or polygons."),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for reports and pictures; default: SCENE-evaluation.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Bundle to judge; without it, SCENE is a land-cover GeoTIFF.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column of the class; else class_name or class_id.")] = None,
    meanings: Annotated[
        str | None, typer.Option("--map", help="What label values mean, as in 5=water,13=water,lake=water.")
    ] = None,
    ignore: Annotated[str | None, typer.Option(help="Label values to leave out, as in 0,unknown.")] = None,
    elsewhere: Annotated[
        str | None, typer.Option(help="What no polygon covers: a class, or 'other' for none of those labelled.")
    ] = None,
    distance: Annotated[float, typer.Option(help="Pixels within which boundaries agree.")] = 2.0,
    distance_m: Annotated[float | None, typer.Option("--distance-m", help="The same in metres.")] = None,
    cell: Annotated[int | None, typer.Option(help="Side in pixels of the cells that intervals come from.")] = None,
    seed: Annotated[int, typer.Option(help="Of the intervals.")] = 0,
    overwrite: options.Overwrite = False,
    *,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Compare a model on a scene, or a land cover, with labels: scores with confidence intervals, and pictures."""
    from geoseg.raster.labels import LabelOptions
    from geoseg.training.evaluate import EvaluateOptions
    from geoseg.view.evaluation import evaluate_file

    if len(scenes) < 2:
        raise InputError(
            f"Give a scene and its labels, as in geoseg evaluate scene.tif labels.gpkg; not only {scenes[0]}."
        )
    with options.progress_bar() as progress:
        summary = evaluate_file(
            options.one_or_many(scenes[:-1]),
            scenes[-1],
            output or Path(f"{Path(scenes[0]).stem}-evaluation"),
            model=model,
            options=EvaluateOptions(
                labels=LabelOptions(column, parse_map(meanings), tuple(options.listed(ignore) or ()), elsewhere),
                aoi=run.aoi,
                distance_px=distance,
                distance_m=distance_m,
                cell_px=cell,
                seed=seed,
            ),
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(summary))


def parse_map(text: str | None) -> dict[str, str] | None:
    """`5=water,lake=water` as a mapping."""
    if text is None:
        return None
    pairs = [part.rpartition("=") for part in options.listed(text) or ()]
    wrong = next(("".join(pair) for pair in pairs if not all(pair)), None)
    if wrong is not None or not pairs:
        raise InputError(f"--map takes value=class with commas between, as in 5=water,13=water, not {wrong or text}.")
    return {value.strip(): name.strip() for value, _, name in pairs}


def _text(summary: EvaluateSummary) -> str:
    if summary.evaluation is None:
        return f"{summary.folder}: up to date"
    found = summary.evaluation
    width = max(len(name) for name in found.by_class)
    lines = [f"{name:<{width}}  IoU {scores['iou']}" for name, scores in found.by_class.items()]
    overall = found.overall
    means = f"overall accuracy {overall['overall_accuracy']}, mean IoU {overall['mean_iou']}"
    return "\n".join([*lines, means, *found.told, f"{summary.folder}: report.json, report.md and pictures"])
