"""Windows of a scene to classes: cut chips, run the network, join.

Each window is computed on its own from the pixels around it, so that blocks need nothing of their neighbours and the
answer at a pixel does not depend on the block it lies in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from geoseg.grid import ChipGrid, Window, add_chip, needed, reflect
from geoseg.inference.predictor import Predictor, Reduced
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import Pixels

Read = Callable[[Window], Pixels]


class Cover(NamedTuple):
    """Land cover of a window.

    Attributes:
        class_map: (height, width) uint8 class ids; the legend's nodata where the scene has none.
        confidence: (height, width) float32; NaN where nodata.
        probabilities: (class, height, width) float32, NaN where nodata; None unless asked for.
    """

    class_map: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None


@dataclass(frozen=True)
class Segmenter:
    """All that turns pixels into land cover; picklable, and the same for every block of a run.

    Attributes:
        grid: where chips lie.
        normalization: of the scene's bands.
        predictor: the network on its device.
        probabilities: whether to keep those of all classes.
    """

    grid: ChipGrid
    normalization: Normalization
    predictor: Predictor
    probabilities: bool = False

    def __call__(self, window: Window, read: Read, keep: NDArray[np.bool_] | None = None) -> Cover:
        """Land cover of one window.

        Args:
            window: pixels of the scene.
            read: gives pixels and validity of any window inside the scene.
            keep: (height, width) of the window; False becomes nodata, though the network still sees it.
        """
        footprint = self.grid.footprint(window)
        pixels, valid = _read_reflected(footprint, read, self.grid.shape)
        here = window.relative_to(footprint)
        wanted = valid[here.slices] if keep is None else valid[here.slices] & keep
        reduced = _Canvas.of(window, len(self.predictor.model.card.legend.classes), self.probabilities)
        if wanted.any():
            run = self._cropped if self.grid.ramp == 0 else self._feathered
            run(window, footprint, pixels, valid, wanted, reduced)
        return self._finished(reduced, wanted)

    def _cropped(
        self,
        window: Window,
        footprint: Window,
        pixels: NDArray[np.generic],
        valid: NDArray[np.bool_],
        wanted: NDArray[np.bool_],
        canvas: _Canvas,
    ) -> None:
        """Each core from its own chip; chips without a wanted pixel are not computed."""
        for index in self.grid.cores(window):
            core = self.grid.core_window(index).intersection(window)
            target = core.relative_to(window)
            if wanted[target.slices].any():
                chip = self.grid.chip_window(index)
                logits = self._logits(chip.relative_to(footprint), pixels, valid)
                rows, cols = core.relative_to(chip).slices
                canvas.put(target, self.predictor.reduce(logits[:, rows, cols], probabilities=self.probabilities))

    def _feathered(
        self,
        window: Window,
        footprint: Window,
        pixels: NDArray[np.generic],
        valid: NDArray[np.bool_],
        wanted: NDArray[np.bool_],
        canvas: _Canvas,
    ) -> None:
        """Weighted sum of the logits of all chips that reach the window."""
        total = np.zeros((len(self.predictor.model.card.legend.classes), *window.shape), np.float32)
        for index in self.grid.cores(window):
            local = self.grid.chip_window(index).relative_to(footprint)
            add_chip(total, window, self.grid, index, self._logits(local, pixels, valid).cpu().numpy())
        whole = Window(0, 0, *window.shape)
        canvas.put(whole, self.predictor.reduce(torch.from_numpy(total), probabilities=self.probabilities))

    def _logits(self, chip: Window, pixels: NDArray[np.generic], valid: NDArray[np.bool_]) -> torch.Tensor:
        rows, cols = chip.slices
        return self.predictor.logits(self.normalization(pixels[:, rows, cols], valid[rows, cols]))

    def _finished(self, canvas: _Canvas, wanted: NDArray[np.bool_]) -> Cover:
        legend = self.predictor.model.card.legend
        ids = np.array(legend.ids, np.uint8)
        class_map = np.where(wanted, ids[canvas.channel], np.uint8(legend.nodata))
        canvas.confidence[~wanted] = np.nan
        if canvas.probabilities is not None:
            canvas.probabilities[:, ~wanted] = np.nan
        return Cover(class_map, canvas.confidence, canvas.probabilities)


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Reduced logits of a window, filled core by core."""

    channel: NDArray[np.uint8]
    confidence: NDArray[np.float32]
    probabilities: NDArray[np.float32] | None

    @classmethod
    def of(cls, window: Window, classes: int, probabilities: bool) -> _Canvas:
        spread = np.zeros((classes, *window.shape), np.float32) if probabilities else None
        return cls(np.zeros(window.shape, np.uint8), np.zeros(window.shape, np.float32), spread)

    def put(self, target: Window, reduced: Reduced) -> None:
        self.channel[target.slices] = reduced.channel
        self.confidence[target.slices] = reduced.confidence
        if self.probabilities is not None:
            rows, cols = target.slices
            self.probabilities[:, rows, cols] = reduced.probabilities


def _read_reflected(
    footprint: Window, read: Read, shape: tuple[int, int]
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Pixels and validity of a footprint that may overhang the scene; one read, mirrored in scene coordinates."""
    inside = needed(footprint, shape)
    pixels, valid = read(inside)
    if inside == footprint:
        return pixels, valid
    rows = reflect(footprint.row, footprint.row_stop, shape[0])[:, None] - inside.row
    cols = reflect(footprint.col, footprint.col_stop, shape[1]) - inside.col
    return pixels[:, rows, cols], valid[rows, cols]
