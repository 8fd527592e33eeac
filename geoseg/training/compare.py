"""Labels beside predictions, block by block: counts that add up to the same whatever the blocks are."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geoseg.grid import Window, windows_of
from geoseg.raster.aoi import AreaOfInterest
from geoseg.raster.labels import UNLABELLED, LabelReader
from geoseg.training.boundary import COUNTS, Targets, find_boundaries, halo
from geoseg.vector.threads import in_threads

BLOCK = 1024  # pixels a side
CELLS = 32  # along the longer side of what is evaluated, at most
CELL_PX = 256  # side of a cell, at least
MAP_PX = 512  # longer side of the map of errors, at most
THREADS = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Cells:
    """Squares that stand for independent draws when confidence intervals are worked out.

    Attributes:
        extent: pixels of the scene that are cut.
        side: of a square in pixels.
    """

    extent: Window
    side: int

    @classmethod
    def of(cls, extent: Window, side: int | None = None) -> Cells:
        return cls(extent, side or max(CELL_PX, math.ceil(max(extent.shape) / CELLS)))

    @property
    def across(self) -> int:
        return -(-self.extent.width // self.side)

    def parts(self, window: Window) -> Iterator[tuple[int, Window]]:
        """The number of each cell that a window touches, and the pixels that they share."""
        local = window.relative_to(self.extent)
        for row in range(local.row // self.side, -(-local.row_stop // self.side)):
            for col in range(local.col // self.side, -(-local.col_stop // self.side)):
                cell = Window(row * self.side, col * self.side, self.side, self.side)
                yield row * self.across + col, cell.intersection(local).shifted(self.extent.row, self.extent.col)

    def numbers(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cells of single pixels of the scene."""
        return (rows - self.extent.row) // self.side * self.across + (cols - self.extent.col) // self.side


@dataclass(frozen=True, slots=True)
class AreaLabels:
    """Labels within an area of interest; none beyond it."""

    labels: LabelReader
    aoi: AreaOfInterest | None

    @property
    def extent(self) -> Window:
        """Pixels of the scene that may be labelled; perhaps none."""
        return self.labels.extent if self.aoi is None else self.labels.extent.intersection(self.aoi.window)

    def __call__(self, window: Window) -> NDArray[np.uint8]:
        codes = self.labels(window)
        if self.aoi is not None:
            codes[~self.aoi.mask(window)] = UNLABELLED
        return codes


class Survey(NamedTuple):
    """What labels hold.

    Attributes:
        pixels: (code,) pixels with each.
        digest: of all labels in their places.
    """

    pixels: NDArray[np.int64]
    digest: str


def survey(labels: AreaLabels) -> Survey:
    """Read all labels once, so that what is wrong with them shows before anything is computed.

    Raises:
        InputError: a label value is not known.
    """
    names = labels.labels.codes.names
    whole = hashlib.sha256(str(labels.extent).encode())
    pixels = np.zeros(256, np.int64)

    def look(window: Window) -> tuple[NDArray[np.int64], bytes]:
        codes = labels(window)
        return np.bincount(codes.ravel(), minlength=256), hashlib.sha256(codes.tobytes()).digest()

    for found, digest in in_threads(look, blocks_of(labels.extent), THREADS):
        pixels += found
        whole.update(digest)
    return Survey(pixels[: len(names)], whole.hexdigest())


@dataclass
class Tally:
    """What is counted.

    Attributes:
        counts: by cell, (code, channel) pixels.
        edges: by cell, (target, 6) pixels, see `Boundaries.counts`.
        unpredicted: labelled pixels without a prediction.
        right: (height, width) of the map of errors: pixels that are right.
        wrong: likewise, those that are not.
    """

    counts: dict[int, NDArray[np.int64]]
    edges: dict[int, NDArray[np.int64]]
    unpredicted: int
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @property
    def cells(self) -> list[int]:
        """The cells with a pixel that has both a label and a prediction."""
        return sorted(number for number, counts in self.counts.items() if counts.any())

    def stacked(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts (cell, code, channel) and edges (cell, target, 6)."""
        cells = self.cells
        return np.stack([self.counts[cell] for cell in cells]), np.stack([self.edges[cell] for cell in cells])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Counts one block.

    Attributes:
        labels: the reference.
        predicted: what is judged, as labels of the same legend.
        targets: classes and groups.
        distance: of boundaries, in pixels.
        cells: into which counts are sorted.
    """

    labels: AreaLabels
    predicted: LabelReader
    targets: Targets
    distance: float
    cells: Cells

    @property
    def step(self) -> int:
        """Pixels along the side of a pixel of the map of errors."""
        return max(1, math.ceil(max(self.cells.extent.shape) / MAP_PX))

    def whole(self, block: int = BLOCK, progress: Callable[[int], None] | None = None) -> Tally:
        """Count everything.

        Args:
            block: side of the windows that are counted at once.
            progress: called with the number of pixels done.
        """
        shape = [-(-length // self.step) for length in self.cells.extent.shape]
        total = Tally({}, {}, 0, np.zeros(shape, np.int64), np.zeros(shape, np.int64))
        done = 0
        for window, part in in_threads(self._counted, blocks_of(self.cells.extent, block), THREADS):
            _add(total, part)
            done += window.area
            if progress is not None:
                progress(done)
        return total

    def _counted(self, window: Window) -> tuple[Window, _Part]:
        return window, self(window)

    def __call__(self, window: Window) -> _Part:
        """Count one window; what lies around it is read too."""
        around = window.padded(halo(self.distance))
        reference, predicted = self.labels(around), self.predicted(around)
        codes, channels = len(self.targets.members), self.targets.channels
        predicted[predicted >= channels] = UNLABELLED
        lines = find_boundaries(reference, predicted, self.targets, self.distance)
        inner = window.relative_to(around).slices
        labelled = reference[inner] < codes
        known = labelled & (predicted[inner] < channels)
        counts, edges = {}, {}
        for number, shared in self.cells.parts(window):
            rows, cols = shared.relative_to(around).slices
            both = known[shared.relative_to(window).slices]
            pairs = reference[rows, cols][both].astype(np.intp) * channels + predicted[rows, cols][both]
            counts[number] = np.bincount(pairs, minlength=codes * channels).reshape(codes, channels)
            edges[number] = lines.counts((rows, cols))
        corner, right, wrong = self._mapped(window, reference[inner], predicted[inner], known)
        return _Part(counts, edges, int(labelled.sum() - known.sum()), corner, right, wrong)

    def _mapped(
        self, window: Window, reference: NDArray[np.uint8], predicted: NDArray[np.uint8], known: NDArray[np.bool_]
    ) -> tuple[tuple[int, int], NDArray[np.int64], NDArray[np.int64]]:
        """Right and wrong pixels on the map of errors, and where on it they begin."""
        local = window.relative_to(self.cells.extent)
        row, col = local.row // self.step, local.col // self.step
        height, width = -(-local.row_stop // self.step) - row, -(-local.col_stop // self.step) - col
        rows = np.arange(local.row, local.row_stop) // self.step - row
        cols = np.arange(local.col, local.col_stop) // self.step - col
        place = (rows[:, None] * width + cols)[known]
        is_right = self.targets.has[reference[known], predicted[known]]
        right, wrong = (
            np.bincount(place[which], minlength=height * width).reshape(height, width)
            for which in (is_right, ~is_right)
        )
        return (row, col), right, wrong


class _Part(NamedTuple):
    """What one block adds to a `Tally`; its maps begin at a corner."""

    counts: dict[int, NDArray[np.int64]]
    edges: dict[int, NDArray[np.int64]]
    unpredicted: int
    corner: tuple[int, int]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]


def _add(total: Tally, part: _Part) -> None:
    for number, counts in part.counts.items():
        total.counts[number] = total.counts.get(number, 0) + counts
        total.edges[number] = total.edges.get(number, np.zeros((1, COUNTS), np.int64)) + part.edges[number]
    total.unpredicted += part.unpredicted
    (row, col), (height, width) = part.corner, part.right.shape
    total.right[row : row + height, col : col + width] += part.right
    total.wrong[row : row + height, col : col + width] += part.wrong


def blocks_of(extent: Window, block: int = BLOCK) -> Iterator[Window]:
    """Row-major windows that cover an extent of the scene."""
    return (window.shifted(extent.row, extent.col) for window in windows_of(extent.shape, block))
