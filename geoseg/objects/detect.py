"""A detector on the chips of a scene: each block gives the pieces that its chips show, and maybe the land between."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.grid import Block, ChipGrid, Window
from geoseg.inference.predictor import Predictor
from geoseg.inference.segment import Read, SceneChips
from geoseg.legend import NODATA
from geoseg.models.detector import Detections
from geoseg.models.pasting import paste
from geoseg.objects.join import Piece
from geoseg.raster.aoi import AreaOfInterest
from geoseg.raster.landcover import encode_confidence
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import SceneReader
from geoseg.raster.staging import BlockWriter

LEAST_PX = 4  # smaller masks are none


class Looked(NamedTuple):
    """What a detector sees in a window.

    Attributes:
        pieces: of all chips whose cores are in it.
        stuff: (height, width) uint8 class ids, of the classes that are no things; None where not asked for.
        confidence: (height, width) float32 of `stuff`, NaN where nodata; None likewise.
    """

    pieces: list[Piece]
    stuff: NDArray[np.uint8] | None = None
    confidence: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Looker:
    """All that turns pixels into pieces of objects; picklable, and the same for every block of a run.

    Attributes:
        grid: where chips lie.
        normalization: of the scene's bands.
        predictor: the detector on its device.
        things: channels that objects are of.
        least_score: objects below it are left out.
        with_stuff: whether the other classes are wanted for every pixel, too.
    """

    grid: ChipGrid
    normalization: Normalization
    predictor: Predictor
    things: tuple[int, ...]
    least_score: float
    with_stuff: bool = False

    def __call__(self, window: Window, read: Read, aoi: AreaOfInterest | None = None) -> Looked:
        """Look at the chips of a window; what lies outside the area of interest, or is nodata, is of no object."""
        source = SceneChips.read(self.grid, window, read)
        found = Looked([])
        if self.with_stuff:
            blank = np.full(window.shape, NODATA, np.uint8), np.full(window.shape, np.nan, np.float32)
            found = Looked([], *blank)
        for index in self.grid.cores(window):
            chip = self.grid.chip_window(index)
            pixels = source.pixels(chip)
            wanted = self._wanted(chip, pixels.valid, aoi)
            core = self.grid.core_window(index).intersection(window)
            if not wanted[core.relative_to(chip).slices].any():
                continue
            seen = self.predictor.see(pixels, self.normalization, self.least_score, with_logits=self.with_stuff)
            found.pieces.extend(self._pieces(index, seen.objects[0], wanted))
            if found.stuff is not None and found.confidence is not None and seen.logits is not None:
                part = core.relative_to(chip).slices
                classes, sure = self._stuff(seen.logits[0][:, part[0], part[1]])
                inside = wanted[part]
                found.stuff[core.relative_to(window).slices] = np.where(inside, classes, NODATA)
                found.confidence[core.relative_to(window).slices] = np.where(inside, sure, np.nan)
        return found

    def _wanted(self, chip: Window, valid: NDArray[np.bool_], aoi: AreaOfInterest | None) -> NDArray[np.bool_]:
        """(height, width) of a chip: pixels on the scene that may be of an object."""
        inside = chip.clipped(self.grid.shape)
        wanted = np.zeros(chip.shape, np.bool_)
        part = inside.relative_to(chip).slices
        wanted[part] = valid[part] if aoi is None else valid[part] & aoi.mask(inside)
        return wanted

    def _pieces(self, index: tuple[int, int], seen: Detections, wanted: NDArray[np.bool_]) -> Iterator[Piece]:
        chip, ids = self.grid.chip_window(index), self.predictor.model.card.legend.ids
        height, width = chip.shape
        for box, channel, score, mask in zip(*seen, strict=True):
            if int(channel) not in self.things or float(score) < self.least_score:
                continue
            pasted = paste(mask, box, (height, width))
            probability = pasted.probabilities.numpy()
            rows, cols = pasted.rows, pasted.cols
            inside = (probability > 0.5) & wanted[rows, cols]
            if inside.sum() >= LEAST_PX:
                place = Window(rows.start, cols.start, *inside.shape).shifted(chip.row, chip.col)
                sure = float(probability[inside].mean(dtype=np.float64))
                piece = Piece.of(index, place, inside, class_id=ids[int(channel)], score=float(score), confidence=sure)
                assert piece is not None
                yield piece

    def _stuff(self, logits: torch.Tensor) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The likeliest class that is no thing, and its probability among all, of each pixel."""
        legend = self.predictor.model.card.legend
        others = [channel for channel in range(len(legend.ids)) if channel not in self.things]
        spread = (logits / self.predictor.model.card.temperature).softmax(0)[others]
        best, channel = spread.max(0)
        ids = np.array([legend.ids[channel] for channel in others], np.uint8)
        return ids[channel.numpy()], best.numpy()


@dataclass(frozen=True)
class DetectBlock:
    """One block from the scene's file to the staging folder; holds paths and numbers, never pixels."""

    reader: SceneReader
    looker: Looker
    writer: BlockWriter
    aoi: AreaOfInterest | None

    def __call__(self, block: Block) -> int:
        """Look at a block and stage what is seen; returns the process id."""
        looked = self.looker(block.window, self.reader.read, self.aoi)
        layers: dict[str, NDArray[np.uint8]] = {}
        if looked.stuff is not None and looked.confidence is not None:
            layers = {"landcover": looked.stuff, "confidence": encode_confidence(looked.confidence)}
        self.writer.write((block.row, block.col), layers, {"pieces": [to_note(piece) for piece in looked.pieces]})
        return os.getpid()


def to_note(piece: Piece) -> list[Any]:
    """A piece as JSON."""
    window = piece.window
    numbers = [*piece.chip, window.row, window.col, window.height, window.width, piece.class_id]
    return [*numbers, piece.score, piece.confidence, base64.b64encode(piece.bits).decode()]


def from_note(told: Sequence[Any]) -> Piece:
    """The inverse of `to_note`."""
    chip, window = (int(told[0]), int(told[1])), Window(*(int(number) for number in told[2:6]))
    return Piece(window, base64.b64decode(told[9]), int(told[6]), float(told[7]), float(told[8]), chip)


def pieces_of(notes: Iterable[Mapping[str, Any]]) -> list[Piece]:
    """The pieces of all blocks."""
    return [from_note(told) for note in notes for told in note.get("pieces", ())]
