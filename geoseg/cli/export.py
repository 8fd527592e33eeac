"""geoseg export: a model in the formats of others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from geoseg.cli import options


class Format(StrEnum):
    """Formats of `geoseg.models.export_model`."""

    ONNX = "onnx"
    DEEPNESS = "deepness"
    OPENVINO = "openvino"
    TORCH_EXPORT = "torch-export"
    BUNDLE = "bundle"


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name or path of a bundle (see geoseg models).")],
    to: Annotated[
        Format, typer.Option("--to", help="deepness: ONNX for that plugin of QGIS; bundle: a copy with a STAC item.")
    ] = Format.ONNX,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder; default: the model's name and the format.")
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a model as ONNX, OpenVINO or torch.export, with a STAC item; compared with torch before it is there."""
    from geoseg.models import export_model, load_model

    loaded = load_model(model)
    folder = output or Path(f"{loaded.card.name}-{to.value}")
    typer.echo(export_model(loaded, folder, to=to.value, overwrite=overwrite))
