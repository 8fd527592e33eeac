"""A model on the labelled parts of a scene: a class map on disk, and how far its probabilities can be believed.

Chips that see no label are not computed. Blocks are staged as those of `geoseg segment` are, so that a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Block, Window
from geoseg.inference.job import Job
from geoseg.inference.plan import RunOptions
from geoseg.inference.remaining import compute_remaining
from geoseg.inference.segment import Segmenter
from geoseg.raster.cog import write_cog
from geoseg.raster.labels import UNLABELLED
from geoseg.raster.landcover import landcover_layer
from geoseg.raster.reader import SceneReader
from geoseg.raster.staging import BlockWriter, Staging
from geoseg.training.calibrate import Reliability, Sample
from geoseg.training.compare import AreaLabels, Cells

SAMPLE = 100_000  # pixels that a temperature is fitted to, about


class Believed(NamedTuple):
    """What is known of a model's probabilities: over all labelled pixels, and a sample of them."""

    reliability: Reliability
    sample: Sample


@dataclass(frozen=True)
class PredictBlock:
    """One block from the scene's file to the staging folder, with a note of its probabilities.

    Attributes:
        reader: of the scene's bands that the model wants.
        segmenter: keeps the probabilities of all classes.
        writer: stages the block.
        labels: the reference.
        parts: (channel,) what labels tell apart, see `geoseg.training.calibrate.parts_of`.
        share: of the labelled pixels that are sampled.
    """

    reader: SceneReader
    segmenter: Segmenter
    writer: BlockWriter
    labels: AreaLabels
    parts: NDArray[np.intp]
    share: float

    def __call__(self, block: Block) -> int:
        """Compute and stage a block; returns the process id."""
        window = block.window
        labels = self.labels(window)
        members = self.labels.labels.codes.members
        wanted = labels < len(members)
        cover = self.segmenter(window, self.reader.read, wanted)
        note = None
        if cover.probabilities is not None and wanted.any():
            reference = np.full(256, UNLABELLED, np.uint8)
            reference[: len(members)] = [self.parts[own[0]] for own in members]
            note = _note(window, reference[labels], cover.probabilities, self)
        self.writer.write((block.row, block.col), {"landcover": cover.class_map}, note)
        return os.getpid()


@dataclass(frozen=True, slots=True)
class Orders:
    """How a class map is to be made.

    Attributes:
        output: the class map.
        parts: everything that its pixels and notes depend on.
        run: workers and so on.
        labelled: number of labelled pixels.
        cell_px: side of the cells that halves of the sample are made of.
        told_apart: (channel,) what labels tell apart, see `geoseg.training.calibrate.parts_of`.
        overwrite: throw staged blocks of another run away.
    """

    output: Path
    parts: Mapping[str, Any]
    run: RunOptions
    labelled: int
    cell_px: int
    told_apart: NDArray[np.intp]
    overwrite: bool


@contextmanager
def predicted(job: Job, labels: AreaLabels, orders: Orders, progress: Callable[[int, int], None]) -> Iterator[Believed]:
    """Write the class map of the labelled part; what was staged goes when the caller is done.

    Args:
        job: of the labelled part, with probabilities.
        labels: the reference.
        orders: how.
        progress: called with pixels done and pixels in all.

    Yields:
        What is known of the probabilities.

    Raises:
        GeosegError: reading, computing or writing failed; finished blocks are kept.
    """
    layout = replace(job.layout, layers={"landcover": 1})
    run = orders.run
    with Staging.open(
        orders.output, orders.parts, layout, machine=job.machine, overwrite=orders.overwrite, store=run.staging
    ) as staging:
        share = min(1.0, SAMPLE / max(1, orders.labelled))
        task = PredictBlock(job.reader, job.segmenter, staging.writer(), labels, orders.told_apart, share)
        compute_remaining(job, staging, task, run, progress)
        layer = landcover_layer(orders.output, job.model.card.legend, job.tags)
        write_cog(staging, layer, job.georef, threads=os.cpu_count() or 1)
        yield _believed(staging.notes(), job, Cells(labels.extent, orders.cell_px), orders.told_apart)
        staging.discard()


def _note(
    window: Window, reference: NDArray[np.uint8], probabilities: NDArray[np.float32], task: PredictBlock
) -> dict[str, Any]:
    """How often each confidence is right on labelled pixels, and a sample of them.

    Args:
        window: of the scene.
        reference: (height, width) the part that is right, UNLABELLED where unknown.
        probabilities: (class, height, width), NaN where there is no prediction.
        task: that the note is for.
    """
    rows, cols = np.nonzero((reference != UNLABELLED) & np.isfinite(probabilities[0]))
    spread, right = probabilities[:, rows, cols].T, reference[rows, cols]
    found = Sample(spread, right, np.zeros(len(right), np.int64), task.parts).reliability()
    places = (rows + window.row) * task.reader.shape[1] + cols + window.col
    drawn = _drawn(places, task.share)
    columns = (places[drawn].astype("<i8"), right[drawn], spread[drawn].astype("<f4"))
    texts = [base64.b64encode(np.ascontiguousarray(column).tobytes()).decode() for column in columns]
    return {"reliability": found.counts.tolist(), "sample": texts}


def _drawn(places: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """A draw that depends on nothing but the place (splitmix64, Steele et al. 2014)."""
    mixed = places.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    drawn: NDArray[np.bool_] = (mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53
    return drawn


def _believed(
    notes: Mapping[tuple[int, int], Mapping[str, Any]], job: Job, cells: Cells, parts: NDArray[np.intp]
) -> Believed:
    """The notes of all blocks as one, in the order of the pixels, so that blocks leave no trace."""
    classes, width = len(job.model.card.legend.classes), job.reader.shape[1]
    reliability = Reliability()
    columns: list[list[NDArray[Any]]] = [[np.empty(0, "<i8")], [np.empty(0, np.uint8)], [np.empty((0, classes), "<f4")]]
    for note in notes.values():
        reliability += Reliability(np.array(note["reliability"], np.int64))
        for column, text, dtype in zip(columns, note["sample"], ("<i8", "u1", "<f4"), strict=True):
            values = np.frombuffer(base64.b64decode(text), dtype)
            column.append(values.reshape(-1, classes) if dtype == "<f4" else values)
    places, reference, spread = (np.concatenate(column) for column in columns)
    order = np.argsort(places)
    numbers = cells.numbers(*np.divmod(places[order], width))
    return Believed(reliability, Sample(spread[order], reference[order], numbers, parts))
