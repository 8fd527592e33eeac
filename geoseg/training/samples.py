"""Samples: a chip with its label, cut from whole scenes at a random place, scale and angle.

A sample is a function of (seed, index) alone, so that any number of loader processes, and a resumed run, see the same
ones. Scenes are held in memory at their own resolution; the window is read at the size that fills one chip at the
ground sample distance drawn for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.training.augment import Augmentation
from geoseg.training.losses import IGNORE

CELL = 64  # pixels; the places of a class are indexed by squares of this size


class LabelledScene(Protocol):
    """What samples are cut from: any window of pixels and label codes, whole or partly outside the scene."""

    shape: tuple[int, int]
    gsd_m: float

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Pixels (band, height, width) and label codes (height, width) of a window inside the scene."""


@dataclass(frozen=True, slots=True)
class ArrayScene:
    """A labelled scene in memory.

    Attributes:
        pixels: (band, height, width).
        labels: (height, width) of label codes, IGNORE where unknown.
        gsd_m: metres per pixel.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    gsd_m: float

    def __post_init__(self) -> None:
        if self.pixels.shape[1:] != self.labels.shape:
            raise InputError(f"Pixels are {self.pixels.shape[1:]} and labels {self.labels.shape}; they must agree.")

    @property
    def shape(self) -> tuple[int, int]:
        return self.labels.shape[0], self.labels.shape[1]

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        rows, cols = window.slices
        return self.pixels[:, rows, cols], self.labels[rows, cols]


@dataclass(frozen=True, slots=True)
class Source:
    """Scenes that are drawn from alike.

    Attributes:
        scenes: the scenes; a place is drawn in proportion to area.
        weight: share of the samples that come from here, before normalizing over sources.
        gsd_range_m: samples are resampled to a log-uniform draw from this range.
    """

    scenes: Sequence[ArrayScene]
    weight: float
    gsd_range_m: tuple[float, float]


@dataclass
class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Random samples without end, addressed by index.

    Attributes:
        sources: what to draw from.
        size: rows and columns of a chip.
        count: number of samples.
        seed: of all draws.
        augmentation: applied to pixels and label together.
        balance: share of samples centered on a class drawn uniformly among those of the source.
        first: samples to pass over, for a run that goes on.
    """

    sources: Sequence[Source]
    size: int
    count: int
    seed: int
    augmentation: Augmentation
    balance: float = 0.6
    first: int = 0
    _places: list[list[dict[int, NDArray[np.int32]]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = [[_places(scene.labels) for scene in source.scenes] for source in self.sources]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (band, size, size) float32 in 0..1 and label codes (size, size) uint8."""
        rng = np.random.default_rng((self.seed, self.first + index))
        weights = np.array([source.weight for source in self.sources])
        which = int(rng.choice(len(self.sources), p=weights / weights.sum()))
        source = self.sources[which]
        scene, center = self._draw(which, rng)
        low, high = np.log(source.gsd_range_m)
        zoom = float(np.exp(rng.uniform(low, high))) / scene.gsd_m
        angle = self.augmentation.draw_angle(rng)
        reach = self.size * (abs(np.cos(angle)) + abs(np.sin(angle)))  # side of the square that the turned chip needs
        pixels, labels = _read_square(scene, center, max(2, round(reach * zoom)), rng)
        return self.augmentation(pixels, labels, size=self.size, reach=round(reach), angle=angle, rng=rng)

    def _draw(self, which: int, rng: np.random.Generator) -> tuple[ArrayScene, tuple[int, int] | None]:
        """A scene, and where in it a drawn class is found; None for anywhere."""
        scenes = self.sources[which].scenes
        if rng.random() < self.balance:
            codes = sorted({code for places in self._places[which] for code in places})
            code = int(rng.choice(codes))
            sizes = np.array([len(places.get(code, ())) for places in self._places[which]], dtype=float)
            chosen = int(rng.choice(len(scenes), p=sizes / sizes.sum()))
            row, col = rng.choice(self._places[which][chosen][code]) * CELL + rng.integers(0, CELL, 2)
            return scenes[chosen], (int(row), int(col))
        areas = np.array([scene.shape[0] * scene.shape[1] for scene in scenes], dtype=float)
        return scenes[int(rng.choice(len(scenes), p=areas / areas.sum()))], None


def _places(labels: NDArray[np.uint8]) -> dict[int, NDArray[np.int32]]:
    """For each label code, the cells (row, column in units of CELL) of which it covers at least a fiftieth."""
    rows, cols = labels.shape[0] // CELL, labels.shape[1] // CELL
    cells = labels[: rows * CELL, : cols * CELL].reshape(rows, CELL, cols, CELL)
    found = {}
    for code in np.unique(labels):
        where = np.argwhere((cells == code).mean(axis=(1, 3)) > 0.02).astype(np.int32)
        if code != IGNORE and len(where):
            found[int(code)] = where
    return found


def _read_square(
    scene: ArrayScene, center: tuple[int, int] | None, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A square of `side` pixels around `center`, or anywhere; reflected, its label ignored, beyond the scene."""
    starts = [
        _start(length, side, None if center is None else center[axis], rng) for axis, length in enumerate(scene.shape)
    ]
    window = Window(starts[0], starts[1], side, side)
    inside = window.clipped(scene.shape)
    pixels, labels = scene.read(inside)
    local = inside.relative_to(window)
    margins = ((local.row, side - local.row_stop), (local.col, side - local.col_stop))
    if any(m for pair in margins for m in pair):
        pixels = np.pad(pixels, ((0, 0), *margins), mode="symmetric")
        labels = np.pad(labels, margins, constant_values=IGNORE)
    return torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(np.ascontiguousarray(labels))


def _start(length: int, side: int, center: int | None, rng: np.random.Generator) -> int:
    if side >= length:
        return (length - side) // 2
    if center is None:
        return int(rng.integers(0, length - side + 1))
    jitter = int(rng.integers(-side // 3, side // 3 + 1))
    return int(np.clip(center + jitter - side // 2, 0, length - side))
