"""Labelled parts to learn from: connected parts of classes, and chips in which some of them are to be found.

A part is what one label touches of itself (4-connected): a building, a pond, a group of trees, a field. Chips are drawn
so that the part that they are drawn for is small or large in them, whatever its size on the ground; a part that does
not fit is seen in part, as when a window still follows an object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from geoseg.grid import Window
from geoseg.training.augment import Augmentation

LEVELS = 4  # means of 1, 2, 4 and 8 pixels a side, so that wide chips are read quickly
CODES = 254  # parts of one chip that are told apart
LEAST = 24  # pixels of a chip that a part has at least
SIZES = (10.0, 240.0)  # pixels of a chip that the longer side of a part takes
COARSEST_M = 6.4

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class PartScene:
    """A scene and its parts.

    Attributes:
        pixels: (band, height, width), and means of 2, 4, 8 pixels a side.
        numbers: (height, width) of parts, 0 where there is none, in the same sizes.
        boxes: (part, 4) top, left, bottom, right in pixels; of part number 1 first.
        kinds: (part,) class of each.
        gsd_m: metres per pixel.
    """

    pixels: tuple[Bytes, ...]
    numbers: tuple[Ints, ...]
    boxes: Ints
    kinds: Bytes
    gsd_m: float

    @classmethod
    def of(cls, pixels: Bytes, labels: Bytes, classes: Sequence[int], gsd_m: float) -> Self:
        """Find the parts of `classes` in labels (height, width) of pixels (band, height, width)."""
        numbers = np.zeros(labels.shape, np.int32)
        kinds: list[int] = []
        boxes: list[tuple[int, ...]] = []
        for kind in classes:
            found, count = ndimage.label(labels == kind)
            numbers[found > 0] = found[found > 0] + len(kinds)
            kinds += [kind] * count
            boxes += [(r.start, c.start, r.stop, c.stop) for r, c in ndimage.find_objects(found)]
        return cls(
            tuple(_halved(pixels, level) for level in range(LEVELS)),
            tuple(_thinned(numbers, level) for level in range(LEVELS)),
            np.array(boxes, np.int32).reshape(-1, 4),
            np.array(kinds, np.uint8),
            gsd_m,
        )

    def read(self, window: Window, zoom: float) -> tuple[Floats, Ints]:
        """Pixels in 0..1, NaN beyond the scene, and numbers of a window, at a level not coarser than `zoom`."""
        level = int(np.clip(np.floor(np.log2(max(zoom, 1))), 0, LEVELS - 1))
        step, pixels, numbers = 2**level, self.pixels[level], self.numbers[level]
        wanted = Window(window.row // step, window.col // step, window.height // step, window.width // step)
        inside = wanted.clipped(numbers.shape)
        local = inside.relative_to(wanted)
        margins = ((local.row, wanted.height - local.row_stop), (local.col, wanted.width - local.col_stop))
        rows, cols = inside.slices
        values = np.multiply(pixels[:, rows, cols], 1 / 255, dtype=np.float32)
        return np.pad(values, ((0, 0), *margins), constant_values=np.nan), np.pad(numbers[rows, cols], margins)


@dataclass(frozen=True, slots=True)
class PartSource:
    """Scenes that are drawn from alike.

    Attributes:
        scenes: with parts.
        weight: share of the chips.
        kinds: share of each class among the parts that chips are drawn for.
    """

    scenes: Sequence[PartScene]
    weight: float
    kinds: Mapping[int, float]


@dataclass
class PartChips(Dataset[tuple[Tensor, Tensor]]):
    """Random chips with some of their parts, addressed by index; a function of seed and index alone.

    Attributes:
        sources: what to draw from.
        count: of chips.
        size: rows and columns of a chip.
        each: parts of a chip.
        seed: of all draws.
        augmentation: of pixels and parts together.
        first: chips to pass over, for a run that goes on.
    """

    sources: Sequence[PartSource]
    count: int
    size: int
    each: int
    seed: int
    augmentation: Augmentation
    first: int = 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (band, size, size) in 0..1, NaN beyond the scene; parts (each, size, size), the one drawn first."""
        rng = np.random.default_rng((self.seed, self.first + index))
        while True:
            chip, codes = self._drawn(rng)
            parts = _chosen(codes.numpy(), self.each, rng)
            if parts is not None:
                return chip, torch.from_numpy(parts)

    def _drawn(self, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A chip, and (size, size) codes of its parts, 1 for the one that it was drawn for."""
        weights = np.array([source.weight for source in self.sources])
        source = self.sources[rng.choice(len(self.sources), p=weights / weights.sum())]
        scene, part = _part(source, rng)
        top, left, bottom, right = scene.boxes[part]
        low, high = 0.75, max(1.0, min(COARSEST_M / scene.gsd_m, max(scene.numbers[0].shape) / self.size))
        zoom = float(np.clip(max(bottom - top, right - left) / np.exp(rng.uniform(*np.log(SIZES))), low, high))
        angle = self.augmentation.draw_angle(rng)
        reach = self.size * (abs(np.cos(angle)) + abs(np.sin(angle)))
        side = max(8, round(reach * zoom))
        row, col = (_start(a, b, side, rng) for a, b in ((top, bottom), (left, right)))
        pixels, numbers = scene.read(Window(row, col, side, side), zoom)
        return self.augmentation(
            torch.from_numpy(pixels),
            torch.from_numpy(_coded(numbers, part + 1)),
            size=self.size,
            reach=round(reach),
            angle=angle,
            rng=rng,
        )


def _part(source: PartSource, rng: np.random.Generator) -> tuple[PartScene, int]:
    """A part of a class drawn by its share, of any of the scenes."""
    present = {k: w for k, w in source.kinds.items() if any((scene.kinds == k).any() for scene in source.scenes)}
    shares = np.array(list(present.values()))
    kind = rng.choice(list(present), p=shares / shares.sum())
    counts = np.array([(scene.kinds == kind).sum() for scene in source.scenes])
    scene = source.scenes[rng.choice(len(counts), p=counts / counts.sum())]
    return scene, int(rng.choice(np.flatnonzero(scene.kinds == kind)))


def _start(start: int, stop: int, side: int, rng: np.random.Generator) -> int:
    """Where a window of `side` begins, somewhere over or around start to stop."""
    center = rng.uniform(start, stop) if stop - start > side else (start + stop) / 2
    slack = max(side - (stop - start), side // 3) / 2
    return int(center - side / 2 + rng.uniform(-slack, slack))


def _coded(numbers: Ints, wanted: int) -> Bytes:
    """The parts of a window as small codes: 0 for none, from 1 the wanted one, if there, and then the largest."""
    found, counts = np.unique(numbers, return_counts=True)
    counts = np.where(found == wanted, np.iinfo(np.int64).max, counts)
    ranked = found[(found > 0)][np.argsort(-counts[found > 0], kind="stable")][:CODES]
    table = np.zeros(len(found), np.uint8)
    table[np.searchsorted(found, ranked)] = np.arange(1, len(ranked) + 1)
    codes: Bytes = table[np.searchsorted(found, numbers)]
    return codes


def _chosen(codes: Bytes, each: int, rng: np.random.Generator) -> Bools | None:
    """(each, height, width): connected pieces of parts, of code 1 and then of others; None where there are none."""
    codes = np.where(codes > CODES, 0, codes)
    pieces: list[Bools] = []
    others = rng.permutation([code for code in np.unique(codes) if code > 1])
    for code in (1, *others):
        labelled, count = ndimage.label(codes == code)
        areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
        large = np.flatnonzero(areas >= LEAST)
        if len(large) and len(pieces) < each:
            pieces.append(labelled == 1 + rng.choice(large))
    if not pieces:
        return None
    return np.stack([pieces[i % len(pieces)] for i in range(each)])


def _thinned(numbers: Ints, level: int) -> Ints:
    """One pixel of 2**level a side: the one in their middle."""
    step = 2**level
    return np.ascontiguousarray(numbers[step // 2 :: step, step // 2 :: step])


def _halved(pixels: Bytes, level: int) -> Bytes:
    """Means of 2**level pixels a side; what is left over is dropped."""
    step = 2**level
    if step == 1:
        return pixels
    rows, cols = (length // step for length in pixels.shape[1:])
    cells = pixels[:, : rows * step, : cols * step].reshape(len(pixels), rows, step, cols, step)
    means: Bytes = cells.mean((2, 4), dtype=np.float32).round().astype(np.uint8)
    return means
