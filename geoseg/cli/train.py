"""geoseg train: labelled scenes to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoseg.cli import options
from geoseg.errors import InputError

if TYPE_CHECKING:
    from geoseg.training.train import Trained


def train(
    config: Annotated[Path | None, typer.Argument(help="YAML file; --example prints one.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the training; default: its name.")] = None,
    steps: Annotated[int | None, typer.Option(help="In place of the config's.", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in the folder.")] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a config with all keys, and stop.")] = False,
) -> None:
    """Train a network on your labels: scenes and class rasters or polygons in, a bundle for `geoseg segment` out."""
    from geoseg.training.config import EXAMPLE, load_config

    if example:
        typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        return
    if config is None:
        raise InputError("Give a config, as in geoseg train config.yaml; geoseg train --example prints one.")
    stated = load_config(config)
    from geoseg.view.training import train as run  # torch takes seconds: what is wrong with the config shows before

    with options.progress_bar() as progress:
        trained = run(stated, out or Path(stated.name), steps=steps, resume=resume, progress=progress)
    typer.echo(_text(trained))


def _text(trained: Trained) -> str:
    best = trained.history.rows[trained.history.best]
    width = max(map(len, trained.scores), default=0)
    lines = [f"{name:<{width}}  IoU {value:.3f}" for name, value in trained.scores.items()]
    means = f"overall accuracy {best['overall_accuracy']:.3f}, mean IoU {best['mean_iou']:.3f}"
    kept = f"on held-out chips at step {int(best['step'])}, which was kept"
    where = f"{trained.folder}: the bundle; config, history and pictures are beside it"
    return "\n".join([*lines, f"{means}, {kept}", where])
