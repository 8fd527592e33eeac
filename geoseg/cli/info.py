"""geoseg info: what a scene is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from geoseg.cli import options


def info(
    scenes: options.Scenes,
    bands: options.Bands = None,
    nodata: options.Nodata = None,
    valid_mask: options.ValidMask = None,
    gsd: options.Gsd = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print size, georeference, resolution and bands of a scene, and the models that fit it."""
    from geoseg.catalog import open_named_reader
    from geoseg.inference.fit import fitting_models
    from geoseg.raster.scene import scene_info

    reading = options.scene_options(bands, nodata, valid_mask, None, None, gsd)
    reader = open_named_reader(options.one_or_many(scenes), reading)
    facts = scene_info(reader) | {"models": fitting_models(reader)}
    typer.echo(json.dumps(facts, indent=1) if as_json else _text(facts))


def _text(facts: dict[str, Any]) -> str:
    gsd = "unknown" if facts["gsd_m"] is None else f"{facts['gsd_m']:.3g} m"
    named = ", ".join(f"{i} {band['name']}" for i, band in enumerate(facts["bands"], 1))
    fits = [f"  {name}: {reason or 'fits'}" for name, reason in facts["models"].items()]
    return "\n".join(
        [
            *facts["files"],
            f"{facts['columns']} x {facts['rows']} px, {facts['dtype']}, pixels of {gsd}, blocks of {facts['block']}",
            f"CRS: {facts['crs'] or 'none'}; bounds {', '.join(f'{v:.10g}' for v in facts['bounds'])}",
            f"bands: {named}; {'with' if facts['has_mask'] else 'without'} nodata or mask",
            "models:",
            *fits,
        ]
    )
