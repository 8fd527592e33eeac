"""The main job on a scene that is made, so that it can be seen without any data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geoseg.errors import InputError
from geoseg.pipeline import Progress, segment_file, vectorize_file
from geoseg.raster.disk import check_writable


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the demo: its name, what it wrote, and how long it took."""

    name: str
    output: Path
    seconds: float


def run_demo(folder: str | os.PathLike[str], *, small: bool = False, progress: Progress | None = None) -> list[Step]:
    """The main job on the catalogue's demo scene: land cover, confidence, polygons and a picture in a folder.

    Outputs of an earlier demo in that folder are replaced.

    Raises:
        InputError: the folder cannot be made or written.
    """
    from geoseg.catalog import default_catalog, open_named_reader
    from geoseg.vector import VectorOptions
    from geoseg.view import draw_side_by_side

    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = os.strerror(error.errno or 0).lower()
        raise InputError(f"The folder {folder} cannot be made ({reason}); choose another.") from None
    check_writable(folder, "folder")
    landcover, confidence = folder / "landcover.tif", folder / "confidence.tif"
    polygons, picture = folder / "polygons.gpkg", folder / "demo.png"
    steps: list[Step] = []

    def timed(name: str, output: Path, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        steps.append(Step(name, output, time.perf_counter() - started))
        return result

    scene = f"{default_catalog()}#{'demo_small' if small else 'demo'}"
    reader = timed("scene", folder, lambda: open_named_reader(scene))
    steps[0] = replace(steps[0], output=Path(reader.files[0].path))
    timed(
        "segment",
        landcover,
        lambda: segment_file(scene, landcover, confidence=confidence, overwrite=True, progress=progress),
    )
    timed(
        "vectorize",
        polygons,
        lambda: vectorize_file(
            landcover,
            polygons,
            VectorOptions(classes=["building", "water", "vegetation"], confidence=confidence),
            overwrite=True,
            progress=progress,
        ),
    )
    timed("picture", picture, lambda: draw_side_by_side(reader, landcover, polygons, picture))
    return steps
