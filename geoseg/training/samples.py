"""Samples: a chip with its label, cut from whole scenes at a random place, scale and angle.

A sample is a function of (seed, index) alone, so that any number of loader processes, and a resumed run, see the same
ones. Scenes stay where they are, in memory or in files, at their own resolution; the window is read at the size that
fills one chip at the ground sample distance drawn for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.training.augment import Augmentation
from geoseg.training.losses import IGNORE
from geoseg.training.scenes import CELL, ArrayScene, LabelCells, LabelledScene, survey

__all__ = ["ArrayScene", "LabelledScene", "Samples", "Source", "read_reflected"]


@dataclass(frozen=True, slots=True)
class Source:
    """Scenes that are drawn from alike.

    Attributes:
        scenes: the scenes; a place is drawn in proportion to the labelled area, times its scene's weight.
        weight: share of the samples that come from here, before normalizing over sources.
        gsd_range_m: samples are resampled to a log-uniform draw from this range.
        cells: of each scene, where it is labelled; looked for where None.
        weights: of each scene; None for all alike.
    """

    scenes: Sequence[LabelledScene]
    weight: float
    gsd_range_m: tuple[float, float]
    cells: Sequence[LabelCells] | None = None
    weights: Sequence[float] | None = None


@dataclass(frozen=True, slots=True)
class Draw:
    """One sample, drawn and not read yet.

    Attributes:
        scene: what it is cut from.
        window: of the scene; it may overhang.
        reach: side of the square in pixels of the chip, before it is turned.
        angle: radians.
    """

    scene: LabelledScene
    window: Window
    reach: int
    angle: float


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
    _places: list[dict[int | None, list[NDArray[np.int32]]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._places = [_places(source) for source in self.sources]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (band, size, size) float32, NaN where not measured, and label codes (size, size) uint8."""
        draw, rng = self.draw(index)
        pixels, labels = (torch.from_numpy(part) for part in read_reflected(draw.scene, draw.window))
        return self.augmentation(pixels, labels, size=self.size, reach=draw.reach, angle=draw.angle, rng=rng)

    def told(self, number: int) -> str:
        """Which sample that is, for people; counted from the first of the training."""
        draw, _ = self.draw(number - self.first)
        return f"sample {number} ({draw.window} of {draw.scene.name})"

    def draw(self, index: int) -> tuple[Draw, np.random.Generator]:
        """What to read, and the source of the draws that follow."""
        rng = np.random.default_rng((self.seed, self.first + index))
        weights = np.array([source.weight for source in self.sources])
        which = int(rng.choice(len(self.sources), p=weights / weights.sum()))
        scene, center = self._place(which, rng)
        low, high = np.log(self.sources[which].gsd_range_m)
        zoom = float(np.exp(rng.uniform(low, high))) / scene.gsd_m
        angle = self.augmentation.draw_angle(rng)
        reach = self.size * (abs(np.cos(angle)) + abs(np.sin(angle)))  # side of the square that the turned chip needs
        side = max(2, round(reach * zoom))
        row, col = (_start(length, side, at, rng) for length, at in zip(scene.shape, center, strict=True))
        return Draw(scene, Window(row, col, side, side), round(reach), angle), rng

    def _place(self, which: int, rng: np.random.Generator) -> tuple[LabelledScene, tuple[int, int]]:
        """A scene, and a pixel in a cell of a drawn class, or of any."""
        known = self._places[which]
        code = sorted(code for code in known if code is not None)[rng.integers(len(known) - 1)]
        cells = known[code if rng.random() < self.balance else None]
        sizes = np.array([len(own) for own in cells], dtype=float) * (self.sources[which].weights or 1.0)
        chosen = int(rng.choice(len(cells), p=sizes / sizes.sum()))
        row, col = rng.choice(cells[chosen]) * CELL + rng.integers(0, CELL, 2)
        return self.sources[which].scenes[chosen], (int(row), int(col))


def read_reflected(scene: LabelledScene, window: Window) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Pixels and label codes of any window; reflected, their label ignored, beyond the scene."""
    inside = window.clipped(scene.shape)
    pixels, labels = scene.read(inside)
    local = inside.relative_to(window)
    margins = ((local.row, window.height - local.row_stop), (local.col, window.width - local.col_stop))
    if any(m for pair in margins for m in pair):
        pixels = np.pad(pixels, ((0, 0), *margins), mode="symmetric")
        labels = np.pad(labels, margins, constant_values=IGNORE)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(labels)


def _places(source: Source) -> dict[int | None, list[NDArray[np.int32]]]:
    """For each label code, and for any (None), the cells of each scene.

    Raises:
        InputError: no scene has a cell with labels.
    """
    cells = source.cells or [survey(scene) for scene in source.scenes]
    found: dict[int | None, list[NDArray[np.int32]]] = {None: [own.places() for own in cells]}
    for code in np.flatnonzero(sum(own.totals for own in cells)):
        found[int(code)] = [own.places(int(code)) for own in cells]
    kept = {code: own for code, own in found.items() if any(len(where) for where in own)}
    if len(kept) < 2:
        names = ", ".join(scene.name for scene in source.scenes)
        raise InputError(f"There is hardly a labelled pixel on {names}: samples have no place to come from.")
    return kept


def _start(length: int, side: int, center: int, rng: np.random.Generator) -> int:
    jitter = int(rng.integers(-side // 3, side // 3 + 1))
    if side >= length:
        return (length - side) // 2
    return int(np.clip(center + jitter - side // 2, 0, length - side))
