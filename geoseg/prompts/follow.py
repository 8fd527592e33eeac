"""Ask a network about objects of a scene: chip by chip, and from farther away where an object reaches the rim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from geoseg.grid import Window
from geoseg.prompts.asked import Asked
from geoseg.prompts.cache import EmbeddingCache
from geoseg.prompts.chips import ChipAt, Lattice, read_chip
from geoseg.prompts.networks import ChipPrompts, Embedded, Found, Network
from geoseg.raster.normalize import Normalization
from geoseg.raster.window_reader import WindowReader

BATCH = 16  # prompts that are answered at once; what they hold in memory does not grow with their number
MARGIN = 3  # pixels of the logits around what is enlarged

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]


class Reply(NamedTuple):
    """What the network says of one object.

    Attributes:
        at: the chip that was looked at.
        logits: (candidate, side, side) of it.
        scores: (candidate,) IoU that the network expects.
        is_whole: False where the object goes on beyond the farthest view.
    """

    at: ChipAt
    logits: Floats
    scores: Floats
    is_whole: bool = True

    @property
    def best(self) -> int:
        return int(self.scores.argmax())


class Mask(NamedTuple):
    """Pixels of the scene: those of the window (height, width) that are True."""

    window: Window
    pixels: Bools


@dataclass(frozen=True)
class Follower:
    """A scene, a network, and what it needs to bring them together.

    Attributes:
        reader: of the bands that the network sees.
        network: that answers.
        lattice: of its chips.
        normalization: of its bands.
        cache: of its embeddings.
    """

    reader: WindowReader
    network: Network
    lattice: Lattice
    normalization: Normalization
    cache: EmbeddingCache

    def embedded(self, at: ChipAt) -> Embedded:
        """The embedding of a chip."""

        def compute() -> Embedded:
            return self.network.embed(read_chip(self.reader, self.lattice, at, self.normalization).pixels)

        return self.cache.get(at, compute)

    def ask(self, objects: Sequence[Asked], *, start: int = 0) -> Iterator[tuple[int, Reply]]:
        """Each object's number and reply, as they come; chips are embedded once for all objects on them.

        Args:
            objects: what is asked.
            start: the finest level that is looked at.
        """
        waiting = [(number, self._first_chip(one, start)) for number, one in enumerate(objects)]
        while waiting:
            farther: list[tuple[int, ChipAt]] = []
            for at, numbers in _by_chip(waiting):
                embedded = self.embedded(at)
                for batch in (numbers[i : i + BATCH] for i in range(0, len(numbers), BATCH)):
                    asked = [objects[number] for number in batch]
                    found = self.network.decode(embedded, on_chip(asked, self.lattice, at))
                    for i, number in enumerate(batch):
                        reply = Reply(at, found.logits[i], found.scores[i])
                        above = self.beyond(reply, objects[number].bounds)
                        if isinstance(above, ChipAt):
                            farther.append((number, above))
                        else:
                            yield number, reply._replace(is_whole=above)
            waiting = farther

    def again(self, asked: Asked, earlier: Reply, candidate: int) -> Reply:
        """The reply to an object with one more point, mending a candidate; from farther away if need be."""
        logits = earlier.logits[candidate][None]
        prompts = on_chip([asked], self.lattice, earlier.at)
        if (prompts.labels[0] == -1).any():  # the point lies beyond the chip
            return next(reply for _, reply in self.ask([asked], start=earlier.at.level))
        found = self.network.decode(self.embedded(earlier.at), prompts._replace(earlier=logits))
        reply = Reply(earlier.at, found.logits[0], found.scores[0])
        above = self.beyond(reply, asked.bounds)
        if isinstance(above, ChipAt):
            return next(reply for _, reply in self.ask([asked], start=above.level))
        return reply._replace(is_whole=above)

    def beyond(self, reply: Reply, bounds: NDArray[np.float64]) -> ChipAt | bool:
        """The chip of the next level to look at; else whether the object ends within this one."""
        at, lattice = reply.at, self.lattice
        seen = _enlarged(reply.logits[reply.best], lattice.side) > 0
        if not lattice.reaches_rim(at, seen):
            return True
        if at.level >= lattice.top_level:
            return False
        rows, cols = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
        zoom, window = lattice.zoom(at.level), lattice.window(at)
        top, bottom = (window.row + zoom * int(row) for row in (rows[0], rows[-1] + 1))
        left, right = (window.col + zoom * int(col) for col in (cols[0], cols[-1] + 1))
        low, high = np.minimum(bounds[:2], [top, left]), np.maximum(bounds[2:], [bottom, right])
        middle = (low + high) / 2
        return lattice.around(at.level + 1, float(middle[0]), float(middle[1]))

    def mask(self, reply: Reply, candidate: int) -> Mask:
        """A candidate in pixels of the scene; what was not measured is not part of it."""
        found = enlarged_mask(reply.logits[candidate], self.lattice.window(reply.at))
        inside = found.window.clipped(self.reader.shape)
        pixels = found.pixels[inside.relative_to(found.window).slices]
        if self.reader.has_mask and not inside.is_empty:
            pixels = pixels & self.reader.read(inside).valid
        return Mask(inside, pixels)

    def _first_chip(self, asked: Asked, start: int) -> ChipAt:
        top, left, bottom, right = asked.bounds
        least = start if asked.box is not None else max(start, self.lattice.point_level)
        level = max(least, self.lattice.level_for(bottom - top, right - left))
        return self.lattice.around(level, (top + bottom) / 2, (left + right) / 2)


def on_chip(objects: Sequence[Asked], lattice: Lattice, at: ChipAt) -> ChipPrompts:
    """Prompts of objects in pixels of a chip; points that lie beyond it are left out."""
    window, zoom = lattice.window(at), lattice.zoom(at.level)
    origin = np.array([window.row, window.col])
    count = max(1, *(len(one.points) for one in objects))
    points = np.zeros((len(objects), count, 2), np.float32)
    labels = np.full((len(objects), count), -1, np.int64)
    boxes = np.full((len(objects), 4), np.nan, np.float32)
    for i, one in enumerate(objects):
        places = (one.points - origin) / zoom
        within = ((places >= 0) & (places < lattice.side)).all(1)
        points[i, : len(places)] = np.where(within[:, None], places, 0)
        labels[i, : len(places)] = np.where(within, one.labels, -1)
        if one.box is not None:
            boxes[i] = ((one.box.reshape(2, 2) - origin) / zoom).clip(0, lattice.side).ravel()
    return ChipPrompts(points, labels, boxes)


def overlap(mask: Mask, other: Mask) -> float:
    """IoU of two masks of one scene."""
    both = mask.window.intersection(other.window)
    total = int(mask.pixels.sum()) + int(other.pixels.sum())
    if both.is_empty:
        return 0.0
    own, there = (part.pixels[both.relative_to(part.window).slices] for part in (mask, other))
    shared = int((own & there).sum())
    return shared / (total - shared)


def enlarged_mask(logits: Floats, window: Window) -> Mask:
    """Where logits (side, side) of a window of the scene are above 0, in its pixels; around that, nothing is kept."""
    rows, cols = (np.flatnonzero((logits > 0).any(axis)) for axis in (1, 0))
    if not len(rows):
        return Mask(Window(window.row, window.col, 0, 0), np.zeros((0, 0), np.bool_))
    if window.height % logits.shape[0]:  # as of SAM 3: no whole number of pixels in one
        whole = _enlarged(logits, window.height, window.width) > 0
        return Mask(window, whole)
    side, factor = logits.shape[0], window.height // logits.shape[0]
    top, left = max(0, int(rows[0]) - MARGIN), max(0, int(cols[0]) - MARGIN)
    bottom, right = min(side, int(rows[-1]) + 1 + MARGIN), min(side, int(cols[-1]) + 1 + MARGIN)
    part = _enlarged(logits[top:bottom, left:right], factor * (bottom - top), factor * (right - left)) > 0
    return Mask(Window(window.row + factor * top, window.col + factor * left, *part.shape), part)


def _enlarged(logits: Floats, height: int, width: int | None = None) -> Floats:
    """Logits (height, width) of another size, linearly."""
    size = (height, width or height)
    if logits.shape == size:
        return logits
    wide = interpolate(torch.from_numpy(logits)[None, None], size=size, mode="bilinear", align_corners=False)
    enlarged: Floats = wide[0, 0].numpy()
    return enlarged


def _by_chip(waiting: Sequence[tuple[int, ChipAt]]) -> Iterator[tuple[ChipAt, list[int]]]:
    """Numbers of objects by chip, row by row."""
    groups: dict[ChipAt, list[int]] = {}
    for number, at in waiting:
        groups.setdefault(at, []).append(number)
    for at in sorted(groups):
        yield at, groups[at]


__all__ = ["BATCH", "Follower", "Found", "Mask", "Reply", "enlarged_mask", "on_chip", "overlap"]
