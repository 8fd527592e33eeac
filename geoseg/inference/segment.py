"""Windows of a scene to classes: cut chips, run the network, join.

Each window is computed on its own from the pixels around it, so that blocks need nothing of their neighbours and the
answer at a pixel does not depend on the block it lies in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geoseg.grid import ChipGrid, Window, add_chip, needed, reflect
from geoseg.inference.predictor import Predictor, Reduced
from geoseg.inference.seams import Seams, half_of, places_of
from geoseg.raster.normalize import Normalization
from geoseg.raster.reader import Pixels

Read = Callable[[Window], Pixels]


class Cover(NamedTuple):
    """Land cover of a window.

    Attributes:
        class_map: (height, width) uint8 class ids; the legend's nodata where the scene has none.
        confidence: (height, width) float32, NaN where nodata; None unless asked for.
        probabilities: (class, height, width) float32, NaN where nodata; None unless asked for.
    """

    class_map: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None


@dataclass(frozen=True)
class Segmenter:
    """All that turns pixels into land cover; picklable, and the same for every block of a run.

    Attributes:
        grid: where chips lie.
        normalization: of the scene's bands.
        predictor: the network on its device.
        confidence: whether to keep the probability of each pixel's class.
        probabilities: whether to keep those of all classes.
    """

    grid: ChipGrid
    normalization: Normalization
    predictor: Predictor
    confidence: bool = True
    probabilities: bool = False

    def __call__(self, window: Window, read: Read, keep: NDArray[np.bool_] | None = None) -> Cover:
        """Land cover of one window.

        Args:
            window: pixels of the scene.
            read: gives pixels and validity of any window inside the scene.
            keep: (height, width) of the window; False becomes nodata, though the network still sees it.
        """
        return self.with_seams(window, read, keep)[0]

    def with_seams(self, window: Window, read: Read, keep: NDArray[np.bool_] | None = None) -> tuple[Cover, Seams]:
        """Land cover of one window, and how far the chips in it agree beside their seams."""
        source = SceneChips.read(self.grid, window, read)
        valid = source.pixels(window).valid
        wanted = valid if keep is None else valid & keep
        canvas = _Canvas.of(window, self._classes, self.confidence, self.probabilities)
        seams = Seams()
        if wanted.any():
            run = self._cropped if self.grid.ramp == 0 else self._feathered
            run(window, source, wanted, canvas, seams)
        return self._finished(canvas, wanted), seams

    @property
    def _classes(self) -> int:
        return len(self.predictor.model.card.legend.classes)

    def _cropped(
        self, window: Window, source: SceneChips, wanted: NDArray[np.bool_], canvas: _Canvas, seams: Seams
    ) -> None:
        """Each core from its own chip; chips without a wanted pixel are not computed."""
        for index, logits in self._chips(self._wanted(window, wanted), source):
            self._sample(index, logits, source, seams)
            core = self.grid.core_window(index).intersection(window)
            rows, cols = core.relative_to(self._kept(index)).slices
            canvas.put(core.relative_to(window), self._reduced(logits[:, rows, cols]))

    def _feathered(
        self, window: Window, source: SceneChips, wanted: NDArray[np.bool_], canvas: _Canvas, seams: Seams
    ) -> None:
        """Weighted sum of the logits of all chips that reach the window."""
        total = np.zeros((self._classes, *window.shape), np.float32)
        inside = set(self._wanted(window, wanted))
        for index, logits in self._chips(self.grid.cores(window), source):
            if index in inside:
                self._sample(index, logits, source, seams)
            add_chip(total, window, self.grid, index, logits.cpu().numpy())
        canvas.put(Window(0, 0, *window.shape), self._reduced(torch.from_numpy(total)))

    def _wanted(self, window: Window, wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
        """The cores that hold a wanted pixel, row-major."""
        found = []
        for index in self.grid.cores(window):
            core = self.grid.core_window(index).intersection(window).relative_to(window)
            if wanted[core.slices].any():
                found.append(index)
        return found

    @property
    def _margin(self) -> int:
        """What is cut from the logits of a chip; a line of pixels beyond each seam stays, to be compared."""
        return 0 if self.grid.ramp else max(0, self.grid.halo - 1)

    def _kept(self, index: tuple[int, int]) -> Window:
        return self.grid.chip_window(index).padded(-self._margin)

    def _chips(self, cores: list[tuple[int, int]], source: SceneChips) -> Iterator[tuple[tuple[int, int], Tensor]]:
        """Index and logits (class, height, width) of each core's chip, as many at once as the device takes."""
        at_once = self.predictor.batch(self.grid.chip)
        waiting = iter(cores)
        while indices := list(islice(waiting, at_once)):
            chips = [source.pixels(self.grid.chip_window(index)) for index in indices]
            yield from zip(indices, self.predictor.predict(chips, self.normalization, margin=self._margin), strict=True)

    def _sample(self, index: tuple[int, int], logits: Tensor, source: SceneChips, seams: Seams) -> None:
        """What this chip says beside its seams."""
        kept, temperature = self._kept(index), self.predictor.model.card.temperature
        for places in places_of(self.grid, index):
            rows, cols = places.relative_to(kept)
            sampled = logits[:, torch.from_numpy(rows), torch.from_numpy(cols)] / temperature
            rows, cols = places.relative_to(source.window)
            seams.add(places.key, half_of(sampled.softmax(0).T.cpu().numpy(), source.valid[rows, cols]))

    def _reduced(self, logits: Tensor) -> Reduced:
        return self.predictor.reduce(logits, confidence=self.confidence, probabilities=self.probabilities)

    def _finished(self, canvas: _Canvas, wanted: NDArray[np.bool_]) -> Cover:
        legend = self.predictor.model.card.legend
        ids = np.array(legend.ids, np.uint8)
        class_map = np.where(wanted, ids[canvas.channel], np.uint8(legend.nodata))
        if canvas.confidence is not None:
            canvas.confidence[~wanted] = np.nan
        if canvas.probabilities is not None:
            canvas.probabilities[:, ~wanted] = np.nan
        return Cover(class_map, canvas.confidence, canvas.probabilities)


@dataclass(frozen=True, slots=True)
class SceneChips:
    """Pixels that the chips of a window see, mirrored where these overhang the scene.

    Attributes:
        window: of the scene; may overhang it.
        values: (band, height, width) as stored.
        valid: (height, width).
    """

    window: Window
    values: NDArray[np.generic]
    valid: NDArray[np.bool_]

    @classmethod
    def read(cls, grid: ChipGrid, window: Window, read: Read) -> SceneChips:
        """In one read, mirrored in scene coordinates."""
        footprint = grid.footprint(window)
        inside = needed(footprint, grid.shape)
        values, valid = read(inside)
        if inside != footprint:
            rows = reflect(footprint.row, footprint.row_stop, grid.shape[0])[:, None] - inside.row
            cols = reflect(footprint.col, footprint.col_stop, grid.shape[1]) - inside.col
            values, valid = values[:, rows, cols], valid[rows, cols]
        return cls(footprint, values, valid)

    def pixels(self, window: Window) -> Pixels:
        rows, cols = window.relative_to(self.window).slices
        return Pixels(self.values[:, rows, cols], self.valid[rows, cols])


@dataclass(frozen=True, slots=True)
class _Canvas:
    """Reduced logits of a window, filled core by core."""

    channel: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None
    probabilities: NDArray[np.float32] | None

    @classmethod
    def of(cls, window: Window, classes: int, confidence: bool, probabilities: bool) -> _Canvas:
        return cls(
            np.zeros(window.shape, np.uint8),
            np.zeros(window.shape, np.float32) if confidence else None,
            np.zeros((classes, *window.shape), np.float32) if probabilities else None,
        )

    def put(self, target: Window, reduced: Reduced) -> None:
        rows, cols = target.slices
        self.channel[rows, cols] = reduced.channel
        if self.confidence is not None:
            self.confidence[rows, cols] = reduced.confidence
        if self.probabilities is not None:
            self.probabilities[:, rows, cols] = reduced.probabilities
