"""Pseudo-labels: a model's own land cover as labels, where it is sure of it (Lee 2013)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from geoseg.errors import GeosegError, InputError
from geoseg.grid import Block, Window
from geoseg.inference.run import run_blocks
from geoseg.legend import NODATA, Legend
from geoseg.raster.blocks import BlockLayout
from geoseg.raster.cog import Layer, write_cog
from geoseg.raster.georeference import Georef, ignore_not_georeferenced
from geoseg.raster.landcover import CONFIDENCE_ONE
from geoseg.raster.staging import BlockWriter, Staging

BLOCK = 1024
TAG = "GEOSEG_KEPT"


@dataclass(frozen=True, slots=True)
class Kept:
    """Pixels by class.

    Attributes:
        names: of the classes.
        predicted: of the land cover.
        kept: of these, those that are sure enough.
    """

    names: tuple[str, ...]
    predicted: tuple[int, ...]
    kept: tuple[int, ...]

    def to_json(self) -> str:
        return json.dumps({"classes": self.names, "predicted": self.predicted, "kept": self.kept})

    @classmethod
    def of_notes(cls, names: tuple[str, ...], notes: Iterable[Mapping[str, Any]]) -> Kept:
        found = list(notes)
        predicted, kept = (
            tuple(int(sum(counts)) for counts in zip(*(note[name] for note in found), strict=True))
            for name in ("predicted", "kept")
        )
        return cls(names, predicted, kept)


def least_confidence(legend: Legend, threshold: float, by_class: Mapping[str, float]) -> dict[int, float]:
    """Class id to the least probability of a label.

    Args:
        legend: of the land cover.
        threshold: of classes that are not named.
        by_class: of classes and groups by name.

    Raises:
        InputError: a name is not in the legend, or comes twice through its group, or a threshold is not within 0..1.
    """
    for name, value in {"all classes": threshold, **by_class}.items():
        if not 0 <= value <= 1:
            raise InputError(f"The threshold of {name} is a probability, 0 to 1, not {value:g}.")
    least = dict.fromkeys(legend.ids, threshold)
    for selection in legend.select(by_class) if by_class else ():
        least |= dict.fromkeys(selection.ids, by_class[selection.name])
    return least


@dataclass(frozen=True)
class KeepBlock:
    """One block of land cover and confidence to the staging folder, with a note of the pixels that are kept.

    Attributes:
        landcover: class map.
        confidence: of it, 0..200.
        least: (256,) by class id, the stored confidence that is sure enough.
        ids: of the classes.
        writer: of the run.
    """

    landcover: Path
    confidence: Path
    least: NDArray[np.uint8]
    ids: tuple[int, ...]
    writer: BlockWriter

    def __call__(self, block: Block) -> int:
        """Keep what is sure; returns the process id."""
        classes, confidence = (_read(path, block.window) for path in (self.landcover, self.confidence))
        sure = (confidence >= self.least[classes]) & (confidence != NODATA)
        labels = np.where(sure, classes, np.uint8(NODATA))
        predicted, kept = (np.bincount(values.ravel(), minlength=256)[list(self.ids)] for values in (classes, labels))
        note = {"predicted": predicted.tolist(), "kept": kept.tolist()}
        self.writer.write((block.row, block.col), {"labels": labels}, note)
        return os.getpid()


def write_pseudo_labels(
    landcover: Path,
    confidence: Path,
    layer: Layer,
    *,
    georef: Georef,
    least: Mapping[int, float],
    parts: Mapping[str, Any],
    overwrite: bool = False,
    progress: Callable[[int, int], None],
) -> Kept:
    """Write the land cover where it is sure, nodata elsewhere.

    Args:
        landcover: class map, on the grid.
        confidence: of it, as `segment_file` writes it.
        layer: what to write, and where; it has the legend.
        georef: of all of them.
        least: class id to the least probability; confidences are known to within 0.0025.
        parts: what the result depends on.
        overwrite: throw staged blocks of another run away.
        progress: called with pixels done and pixels in all.

    Raises:
        GeosegError: reading or writing failed; finished blocks are kept.
    """
    assert layer.legend is not None
    stored = np.full(256, CONFIDENCE_ONE, np.uint8)
    for class_id, value in least.items():
        stored[class_id] = math.ceil(value * CONFIDENCE_ONE - 1e-9)
    layout = BlockLayout(georef.shape, (BLOCK, BLOCK), {layer.name: 1})
    with Staging.open(layer.path, dict(parts), layout, overwrite=overwrite) as staging:
        task = KeepBlock(landcover, confidence, stored, layer.legend.ids, staging.writer())
        finished_before = staging.done()
        remaining = [Block(*index, layout.window(index)) for index in layout.blocks if index not in finished_before]
        total = layout.shape[0] * layout.shape[1]
        done = total - sum(block.window.area for block in remaining)

        def finished(block: Block, process: int) -> None:
            nonlocal done
            done += block.window.area
            progress(done, total)

        if remaining:
            run_blocks(task, remaining, workers=1, finished=finished)
        kept = Kept.of_notes(layer.legend.names, staging.notes().values())
        tagged = Layer(layer.name, layer.path, layer.bands, layer.legend, tags={**layer.tags, TAG: kept.to_json()})
        write_cog(staging, tagged, georef, threads=os.cpu_count() or 1)
        staging.discard()
    return kept


def read_kept(path: Path) -> Kept:
    """What the tags of pseudo-labels say was kept.

    Raises:
        InputError: the file cannot be opened, or holds no pseudo-labels.
    """
    with suppress(RasterioError, ValueError, KeyError), ignore_not_georeferenced(), rasterio.open(path) as raster:
        told = json.loads(raster.tags()[TAG])
        return Kept(*(tuple(told[name]) for name in ("classes", "predicted", "kept")))
    raise InputError(f"{path} holds no pseudo-labels; give the output of geoseg pseudo-label.")


def _read(path: Path, window: Window) -> NDArray[np.uint8]:
    inside = RasterioWindow(window.col, window.row, window.width, window.height)
    try:
        with ignore_not_georeferenced(), rasterio.open(path) as raster:
            values: NDArray[np.uint8] = raster.read(1, window=inside)
    except RasterioError as error:
        raise GeosegError(f"{path} could not be read at {window}: {error}") from error
    return values
