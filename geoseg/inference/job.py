"""One run of segmenting: all that its pixels depend on, what it reads and writes, and the task for one block."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geoseg.catalog import open_named_reader
from geoseg.grid import Block, Window
from geoseg.inference.fit import check_gsd, normalization_for, used_bands
from geoseg.inference.machine import Machine
from geoseg.inference.plan import Load, Plan, RunOptions
from geoseg.inference.predictor import Predictor
from geoseg.inference.segment import Segmenter
from geoseg.models import Model
from geoseg.models.pooled import pool_factor, pooled
from geoseg.raster.acquired import acquisition_date
from geoseg.raster.aoi import AreaOfInterest, read_aoi
from geoseg.raster.cog import Layer
from geoseg.raster.georeference import Georef
from geoseg.raster.landcover import (
    confidence_layer,
    encode_confidence,
    landcover_layer,
    probabilities_layer,
    run_tags,
)
from geoseg.raster.layers import Source
from geoseg.raster.reader import Pixels, SceneOptions, SceneReader
from geoseg.raster.remote import plain_name
from geoseg.raster.staging import BlockLayout, BlockWriter, digest_of

Scene = Source | Sequence[Source]


@dataclass(frozen=True)
class Job:
    """All that the pixels of a run depend on, and its digest.

    Attributes:
        reader: of the scene's bands that the model wants.
        model: the bundle, on means of `pool` x `pool` pixels.
        plan: chips, blocks and backend.
        extent: pixels of the scene that are written.
        aoi: area of interest.
        machine: kind of machine that computes; another one rounds otherwise.
        kept: whether confidence, and whether the probabilities of all classes, are written too.
        pool: side in pixels of the squares whose means the model sees; 1 for the pixels themselves.
    """

    reader: SceneReader
    model: Model
    plan: Plan
    extent: Window
    aoi: AreaOfInterest | None
    machine: str
    kept: tuple[bool, bool] = (False, False)
    pool: int = 1

    @classmethod
    def of(cls, scene: Scene, model: Model, reading: SceneOptions, run: RunOptions, *, kept: tuple[bool, bool]) -> Job:
        """Open the scene, and settle what is to be done."""
        reader = _open(scene, reading, model, resample=run.resample)
        pool = run.pool or pool_factor(model.card, reader.gsd_m)
        model = pooled(model, pool)
        backend = machine = None
        if run.scheduler is not None:
            from geoseg.inference.cluster import backend_on  # distributed takes a second to import

            backend, machine = backend_on(run.scheduler, run.device, run.precision, run.engine, model.card)
        aoi = None
        if run.aoi is not None:
            aoi = read_aoi(run.aoi, shape=reader.shape, transform=reader.transform, crs=reader.crs)
        extent = Window(0, 0, *reader.shape) if aoi is None else aoi.window
        plan = Plan.of(reader.shape, model.card, run, backend=backend)
        machine = machine or Machine.here(plan.backend.device, plan.backend.engine)
        job = cls(reader, model, plan, extent, aoi, str(machine), kept, pool)
        return replace(job, plan=plan.within(run, model, job.load))

    @property
    def load(self) -> Load:
        """What is read and written for each pixel."""
        confidence, spread = self.kept
        classes = len(self.model.card.legend.classes)
        stored = len(self.reader.bands) * np.dtype(self.reader.dtype).itemsize
        return Load(stored, 1 + confidence + classes * spread, confidence + classes * spread)

    @property
    def inputs(self) -> list[str | Path]:
        """Files that are read, which no output may replace."""
        others = self.reader.stated.valid_mask, None if self.aoi is None else self.aoi.path
        return [*(file.path for file in self.reader.files), *(path for path in others if path)]

    @property
    def layout(self) -> BlockLayout:
        """How the output is cut in blocks, and the bands of each of its layers."""
        wanted = True, *self.kept
        bands = {"landcover": 1, "confidence": 1, "probabilities": len(self.model.card.legend.classes)}
        layers = dict(compress(bands.items(), wanted))
        side = self.plan.grid.block_side
        return BlockLayout(self.extent.shape, (side, side), layers, (self.extent.row % side, self.extent.col % side))

    def remaining(self, done: set[tuple[int, int]]) -> Iterator[Block]:
        """The blocks that are not done, row-major, in pixels of the scene."""
        layout = self.layout
        for row, col in layout.blocks:
            if (row, col) not in done:
                yield Block(row, col, layout.window((row, col)).shifted(self.extent.row, self.extent.col))

    def seconds_of_a_chip(self) -> float:
        """From reading to classes, in the middle of the extent; the first time, which compiles, is left out.

        Its pixels count as measured, whatever they are: a chip of nodata only does not go through the network.
        """
        grid, extent, segmenter = self.plan.grid, self.extent, self.segmenter
        index = (extent.row + extent.height // 2) // grid.core, (extent.col + extent.width // 2) // grid.core
        middle = grid.core_window(index).clipped(grid.shape)

        def read(window: Window) -> Pixels:
            values, valid = self.reader.read(window)
            return Pixels(values, np.ones_like(valid))

        started = 0.0
        for _ in range(2):
            started = time.perf_counter()
            segmenter(middle, read)
        return time.perf_counter() - started

    @property
    def segmenter(self) -> Segmenter:
        reader, card = self.reader, self.model.card
        normalization = normalization_for(card, reader.bands, reader.dtype, scale=reader.scale, offset=reader.offset)
        return Segmenter(self.plan.grid, normalization, Predictor(self.model, self.plan.backend), *self.kept)

    @property
    def stated(self) -> dict[str, Any]:
        """What the user said of the scene and the area."""
        given = {name: value for name, value in _plain(self.reader.stated).items() if value is not None}
        if "valid_mask" in given:
            given["valid_mask"] = Path(given["valid_mask"]).name  # its pixels are in the scene's fingerprint
        return {**given, **({} if self.aoi is None else {"aoi": self.aoi.digest})}

    @property
    def _pooling(self) -> dict[str, int]:
        return {"pool": self.pool} if self.pool > 1 else {}

    @cached_property
    def parts(self) -> dict[str, Any]:
        tags = self.tags
        return {
            "model": {"name": self.model.card.name, "digest": self.model.digest},
            "scene": self.reader.fingerprint(),
            "options": {**self.plan.options, **self._pooling, **self.stated},
            "versions": {"geoseg": tags["GEOSEG_VERSION"]},
        }

    @cached_property
    def digest(self) -> str:
        return digest_of(self.parts)

    @property
    def tags(self) -> dict[str, str]:
        names = sorted({Path(plain_name(file.path)).name for file in self.reader.files})
        tags = run_tags(
            model=self.model.card.name,
            model_digest=self.model.digest,
            scene=", ".join(names),
            options={**self.plan.told, **self._pooling, **self.stated},
        )
        date = acquisition_date(file.path for file in self.reader.files)
        return tags if date is None else {**tags, "GEOSEG_DATE": date}

    @property
    def georef(self) -> Georef:
        """The output's; the scene's own transform, bit for bit, unless an area of interest cuts it."""
        moved = self.reader.transform
        if (self.extent.row, self.extent.col) != (0, 0):
            moved = moved @ Affine.translation(self.extent.col, self.extent.row)
        return Georef(self.extent.shape, moved, self.reader.crs)

    def layers(
        self, output: Path, confidence: str | os.PathLike[str] | None, probabilities: str | os.PathLike[str] | None
    ) -> list[Layer]:
        """The files to write; the land cover last, so that it says that all are there."""
        legend = self.model.card.legend
        layers = []
        if confidence is not None:
            layers.append(confidence_layer(Path(confidence), self.tags))
        if probabilities is not None:
            layers.append(probabilities_layer(Path(probabilities), legend, self.tags))
        return [*layers, landcover_layer(output, legend, self.tags)]


class BlockSink(Protocol):
    """Takes what was computed of a block, in the process that did; picklable, and safe in several threads."""

    def __call__(
        self, block: tuple[int, int], class_map: NDArray[np.uint8], confidence: NDArray[np.uint8] | None
    ) -> None: ...


@dataclass(frozen=True)
class SegmentBlock:
    """One block from the scene's file to the staging folder; holds paths and numbers, never pixels."""

    reader: SceneReader
    segmenter: Segmenter
    writer: BlockWriter
    aoi: AreaOfInterest | None
    also: BlockSink | None = None

    def __call__(self, block: Block) -> int:
        """Compute and stage a block; returns the process id."""
        keep = None if self.aoi is None else self.aoi.mask(block.window)
        cover, seams = self.segmenter.with_seams(block.window, self.reader.read, keep)
        layers = {"landcover": cover.class_map}
        if cover.confidence is not None:
            layers["confidence"] = encode_confidence(cover.confidence)
        if cover.probabilities is not None:
            layers["probabilities"] = encode_confidence(cover.probabilities)
        if self.also is not None:  # first: a block that is marked as finished has been there
            self.also((block.row, block.col), layers["landcover"], layers.get("confidence"))
        self.writer.write((block.row, block.col), layers, seams.to_note())
        return os.getpid()


def _open(scene: Scene, reading: SceneOptions, model: Model, *, resample: bool) -> SceneReader:
    """The scene as the model wants it: its bands in order, its resolution within range."""
    reader = open_named_reader(scene, reading)
    reader = reader.select(used_bands(model.card, reader.bands))
    low, high = model.card.gsd_range_m
    if resample and reader.gsd_m is not None and not low <= reader.gsd_m <= high:
        reader = reader.resampled(model.card.gsd_m)
    check_gsd(model.card, reader.gsd_m)
    return reader


def _plain(options: SceneOptions) -> dict[str, Any]:
    names = ("bands", "nodata", "valid_mask", "scale", "offset", "gsd_m")
    return {name: getattr(options, name) for name in names}
