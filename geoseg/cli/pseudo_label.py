"""geoseg pseudo-label: a model's sure answers on a scene, as labels to train on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options
from geoseg.errors import InputError

ALL = "all classes"

if TYPE_CHECKING:
    from geoseg.inference.plan import RunOptions
    from geoseg.pipeline import PseudoLabels
    from geoseg.raster.reader import SceneOptions


@options.reads_and_runs
def pseudo_label(
    model: Annotated[str, typer.Argument(help="Name (see `geoseg models`) or path of a bundle.")],
    scenes: options.Scenes,
    output: Annotated[Path, typer.Option("--output", "-o", help="Class raster to write; nodata where not sure.")],
    threshold: Annotated[
        list[str],
        typer.Option(help="Least probability of a label, as in 0.9 or building=0.8; may be given several times."),
    ] = ["0.9"],  # noqa: B006
    overwrite: options.Overwrite = False,
    *,
    reading: SceneOptions,
    run: RunOptions,
) -> None:
    """Label a scene with a model where the model is sure: labels for `geoseg train`, ignored everywhere else."""
    from geoseg.pipeline import pseudo_label as work

    of_all, by_class = parse_thresholds(threshold)
    with options.progress_bar() as progress:
        made = work(
            options.one_or_many(scenes),
            output,
            model=model,
            threshold=of_all,
            thresholds=by_class,
            reading=reading,
            run=run,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(_text(made))


def parse_thresholds(texts: list[str]) -> tuple[float, dict[str, float]]:
    """`0.9` is of all classes, `building=0.8` of one.

    Raises:
        InputError: a text is neither, or two are of the same.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, is_named, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError:
            raise InputError(f"--threshold is a probability such as 0.9 or building=0.8, not {text!r}.") from None
        name = name.strip() if is_named else ALL
        if name in found:
            raise InputError(f"--threshold is given twice for {name}, {found[name]:g} and {value:g}; give one.")
        found[name] = value
    return found.pop(ALL, 0.9), found


def _text(made: PseudoLabels) -> str:
    if made.up_to_date:
        return f"{made.output}: up to date"
    width = max(len(name) for name in made.kept.names)
    rows = zip(made.kept.names, made.kept.kept, made.kept.predicted, strict=True)
    lines = [f"{name:<{width}}  kept {kept:,} of {all_:,} px{_share(kept, all_)}" for name, kept, all_ in rows]
    return "\n".join([*lines, f"{made.output}: labels for geoseg train"])


def _share(kept: int, predicted: int) -> str:
    return f" ({100 * kept / predicted:.1f} %)" if predicted else ""
