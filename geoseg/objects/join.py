"""Join what overlapping chips show of one object; pure geometry, NumPy and SciPy only.

A network sees a scene chip by chip, and an object may lie in several chips or be larger than any. Each chip gives
pieces: masks that are clipped to none but the chip itself. Where two chips overlap, two pieces are of one object if a
part of the one there and a part of the other are the same, by the IoU of their pixels, and neither has a better match
there. Objects are the connected sets of that graph: one that is larger than a chip is a chain of pieces.

A chip speaks for its core, and beyond it only of objects that begin there or that it shares:

- a piece without a pixel in its chip's core that matches nothing is dropped, as the chip that sees that place best does
  not confirm it;
- a pixel of an object is settled by the piece of the chip in whose core it lies, if that chip has one; else any piece
  that has it counts.

Objects that then share pixels are ranked by score. One that lies for more than half in better ones is a duplicate and
goes; others lose the shared pixels to the better one (as in Kirillov et al. 2019, arXiv:1801.00868). Last, an object is
one 4-connected part, its largest, and ids are given by first pixels in row-major order.

Chips lie where the grid puts them, so that all this is a function of the set of pieces: blocks, workers and the order
in which pieces come play no part. Memory: the masks, packed to bits, never the pixels of the scene.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from geoseg.grid import Window

SAME = 0.5  # parts in an overlap are one where their IoU is larger
COVERED = 0.5  # an object with a larger share in better ones is a duplicate
CELL = 128  # pixels; objects that may share pixels are looked for by squares of this size

Mask = NDArray[np.bool_]


class Chips(Protocol):
    """Where chips lie: one for each index, at the same distance along both axes, as of `geoseg.grid.ChipGrid`."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the scene."""

    @property
    def chip(self) -> int:
        """Side of a chip."""

    @property
    def core(self) -> int:
        """Distance between chips."""

    def chip_window(self, index: tuple[int, int], /) -> Window:
        """What a chip shows; may overhang."""

    def core_window(self, index: tuple[int, int], /) -> Window:
        """What it speaks for: each pixel of the scene is in one core."""


@dataclass(frozen=True, slots=True)
class Masked:
    """A mask somewhere on a scene, packed to bits.

    Attributes:
        window: the smallest around the mask.
        bits: of the mask in row-major order.
        class_id: of the legend.
        score: 0 to 1, how sure it is that there is such an object.
        confidence: 0 to 1, mean probability of its pixels.
    """

    window: Window
    bits: bytes
    class_id: int
    score: float
    confidence: float

    @property
    def mask(self) -> Mask:
        """(height, width) of the window."""
        flat = np.unpackbits(np.frombuffer(self.bits, np.uint8), count=self.window.area)
        return flat.reshape(self.window.shape).astype(np.bool_)

    @property
    def pixels(self) -> int:
        return int(np.bitwise_count(np.frombuffer(self.bits, np.uint8)).sum())

    def within(self, window: Window) -> Mask:
        """(height, width) of any window; False beyond the mask's own."""
        found = np.zeros(window.shape, np.bool_)
        shared = self.window.intersection(window)
        if not shared.is_empty:
            found[shared.relative_to(window).slices] = self.mask[shared.relative_to(self.window).slices]
        return found


@dataclass(frozen=True, slots=True)
class Piece(Masked):
    """What one chip shows of an object.

    Attributes:
        chip: row and column of the chip in the grid.
    """

    chip: tuple[int, int]

    @classmethod
    def of(
        cls, chip: tuple[int, int], window: Window, mask: Mask, *, class_id: int, score: float, confidence: float
    ) -> Piece | None:
        """Cut to the mask's pixels; None where it has none."""
        cut = cropped(window, mask)
        return None if cut is None else cls(*cut, class_id, score, confidence, chip)


@dataclass(frozen=True, slots=True)
class Found(Masked):
    """An object; its first pixel in row-major order is the first of the mask."""

    def first(self, width: int) -> int:
        """Number of its first pixel on a scene of so many columns."""
        return self.window.row * width + self.window.col + int(np.argmax(self.mask[0]))


class Joined(NamedTuple):
    """An object and the pieces that it was joined from."""

    found: Found
    pieces: list[Piece]


def cropped(window: Window, mask: Mask) -> tuple[Window, bytes] | None:
    """The smallest window around the pixels of a mask, and its bits; None where there are no pixels."""
    rows, cols = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    if not rows.size:
        return None
    part = Window(int(rows[0]), int(cols[0]), int(rows[-1] - rows[0]) + 1, int(cols[-1] - cols[0]) + 1)
    return part.shifted(window.row, window.col), np.packbits(mask[part.slices]).tobytes()


def join_pieces(pieces: Iterable[Piece], grid: Chips, *, same: float = SAME) -> list[Found]:
    """The objects of a scene, in the order of their first pixels; they share no pixel.

    Args:
        pieces: of all chips, in any order; those of one chip may overlap.
        grid: where the chips lie.
        same: IoU from which on parts in the overlap of two chips are of one object.
    """
    width = grid.shape[1]
    objects = [one.found for one in joined(pieces, grid, same=same)]
    return sorted(apart(objects, width), key=lambda found: found.first(width))


def joined(pieces: Iterable[Piece], grid: Chips, *, same: float = SAME) -> list[Joined]:
    """Objects that may share pixels, in an order that is theirs alone; see `join_pieces`."""
    ordered = sorted(pieces, key=lambda piece: (piece.chip, piece.window, piece.class_id, -piece.score, piece.bits))
    sets = _sets(ordered, grid, same)
    return [Joined(found, members) for members in sets if (found := _united(members, grid)) is not None]


def apart(objects: Iterable[Found], width: int) -> list[Found]:
    """Objects that share no pixel: the better one keeps it, and duplicates go.

    Args:
        objects: they may overlap.
        width: columns of the scene, to rank equals by first pixel.
    """
    ranked = sorted(objects, key=lambda found: (-found.score, -found.pixels, found.first(width), found.class_id))
    kept: list[Found] = []
    cells: dict[tuple[int, int], list[int]] = {}
    for found in ranked:
        here = list(_cells(found.window))
        near = sorted({number for cell in here for number in cells.get(cell, ())})
        left = _less(found, [kept[number] for number in near])
        if left is not None:
            for cell in _cells(left.window):
                cells.setdefault(cell, []).append(len(kept))
            kept.append(left)
    return kept


def _less(found: Found, better: Sequence[Found]) -> Found | None:
    """The object without what better ones have, as one part; None where that is most of it."""
    touching = [other for other in better if not other.window.intersection(found.window).is_empty]
    mask = free = found.mask
    for other in touching:
        free = free & ~other.within(found.window)
    if mask.sum() - free.sum() > COVERED * mask.sum():
        return None
    cut = cropped(found.window, largest_part(free))
    return None if cut is None else replace(found, window=cut[0], bits=cut[1])


def largest_part(mask: Mask) -> Mask:
    """The largest 4-connected part; of equal ones the first in row-major order."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())[1:]
    return np.asarray(labels == int(np.argmax(sizes)) + 1)


def _sets(pieces: Sequence[Piece], grid: Chips, same: float) -> Iterator[list[Piece]]:
    """Pieces of one object together; what no chip speaks for is left out."""
    pairs = np.array(list(_links(pieces, grid, same)), np.int64).reshape(-1, 2)
    ones = np.ones(len(pairs), np.bool_)
    graph = coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(len(pieces), len(pieces)))
    count, labels = connected_components(graph, directed=False)
    sets: list[list[Piece]] = [[] for _ in range(count)]
    for piece, label in zip(pieces, labels.tolist(), strict=True):
        sets[label].append(piece)
    return (members for members in sets if len(members) > 1 or _begins_in_core(members[0], grid))


def _begins_in_core(piece: Piece, grid: Chips) -> bool:
    return bool(piece.within(grid.core_window(piece.chip)).any())


def _links(pieces: Sequence[Piece], grid: Chips, same: float) -> Iterator[tuple[int, int]]:
    """Pairs of pieces of two chips that are of one object."""
    of_chip: dict[tuple[int, int], list[int]] = {}
    for number, piece in enumerate(pieces):
        of_chip.setdefault(piece.chip, []).append(number)
    reach = -(-grid.chip // grid.core) - 1  # chips so many cores apart still overlap
    ahead = [step for step in product(range(reach + 1), range(-reach, reach + 1)) if step > (0, 0)]
    for (row, col), own in of_chip.items():
        for down, right in ahead:
            other = (row + down, col + right)
            if other in of_chip:
                shared = grid.chip_window((row, col)).intersection(grid.chip_window(other))
                yield from _matches(pieces, own, of_chip[other], shared, same)


def _matches(
    pieces: Sequence[Piece], own: Sequence[int], others: Sequence[int], shared: Window, same: float
) -> Iterator[tuple[int, int]]:
    """Pairs with the same part in the overlap of their chips, where neither part has a better match there.

    The best alone: a chip may show a house, and a block of houses that is half of it, and so may its neighbour.
    """
    mine, theirs = ([_Parts.of(number, pieces[number], shared) for number in side] for side in (own, others))
    found: list[tuple[float, tuple[int, int], tuple[int, int]]] = []
    for one, other in _near([parts for parts in mine if parts], [parts for parts in theirs if parts]):
        if one.class_id == other.class_id:
            alike = one.alike(other)
            found += [(iou, (one.number, part), (other.number, its)) for part, its, iou in alike if iou > same]
    best: dict[tuple[bool, int, int], float] = {}
    for iou, first, second in found:
        for key in ((True, *first), (False, *second)):
            best[key] = max(iou, best.get(key, 0.0))
    for iou, first, second in found:
        if iou == best[True, *first] == best[False, *second]:
            yield first[0], second[0]


@dataclass(frozen=True, slots=True)
class _Parts:
    """The connected parts of a piece within an overlap.

    Parts, not wholes: of an object in the shape of a U one chip may see two arms where another sees the bend.

    Attributes:
        number: of the piece.
        class_id: of the piece.
        window: of the piece within the overlap.
        labels: (height, width) number of the part, 0 for none.
        sizes: pixels of each part, and of none.
    """

    number: int
    class_id: int
    window: Window
    labels: NDArray[np.int32]
    sizes: NDArray[np.intp]

    @classmethod
    def of(cls, number: int, piece: Piece, shared: Window) -> _Parts | None:
        """None where the piece has no pixel in the overlap."""
        window = piece.window.intersection(shared)
        if window.is_empty:
            return None
        labels, count = ndimage.label(piece.within(window))
        return cls(number, piece.class_id, window, labels, np.bincount(labels.ravel())) if count else None

    def alike(self, other: _Parts) -> list[tuple[int, int, float]]:
        """Numbers of own parts and of the other's that share pixels, and their IoU."""
        window = self.window.intersection(other.window)
        first = self.labels[window.relative_to(self.window).slices]
        second = other.labels[window.relative_to(other.window).slices]
        both = (first > 0) & (second > 0)
        values, shared = np.unique(first[both] * np.int64(other.sizes.size) + second[both], return_counts=True)
        mine, its = values // other.sizes.size, values % other.sizes.size
        union = self.sizes[mine] + other.sizes[its] - shared
        return list(zip(mine.tolist(), its.tolist(), (shared / union).tolist(), strict=True))


def _near(mine: Sequence[_Parts], theirs: Sequence[_Parts]) -> Iterator[tuple[_Parts, _Parts]]:
    """Pairs whose windows share pixels."""
    if not mine or not theirs:
        return
    first, second = (np.array([_bounds(parts.window) for parts in side]) for side in (mine, theirs))
    meets = np.maximum(first[:, None, :2], second[:, :2]) < np.minimum(first[:, None, 2:], second[:, 2:])
    for one, other in np.argwhere(meets.all(-1)).tolist():
        yield mine[one], theirs[other]


def _bounds(window: Window) -> tuple[int, int, int, int]:
    return window.row, window.col, window.row_stop, window.col_stop


def hull(one: Window, other: Window) -> Window:
    """The smallest window around two."""
    row, col = min(one.row, other.row), min(one.col, other.col)
    return Window(row, col, max(one.row_stop, other.row_stop) - row, max(one.col_stop, other.col_stop) - col)


def _united(pieces: Sequence[Piece], grid: Chips) -> Found | None:
    """The object that some pieces are of; None where they settle that no pixel is."""
    window = pieces[0].window
    for piece in pieces:
        window = hull(window, piece.window)
    window = window.clipped(grid.shape)
    mask = np.zeros(window.shape, np.bool_)
    for piece in pieces:
        mask |= piece.within(window)
    for chip in sorted({piece.chip for piece in pieces}):
        core = grid.core_window(chip).intersection(window)
        if not core.is_empty:
            own = [piece.within(core) for piece in pieces if piece.chip == chip]
            mask[core.relative_to(window).slices] = np.logical_or.reduce(own)
    cut = cropped(window, largest_part(mask))
    if cut is None:
        return None
    weights = np.array([piece.pixels for piece in pieces], float)
    confidence = float(np.average([piece.confidence for piece in pieces], weights=weights))
    return Found(*cut, pieces[0].class_id, max(piece.score for piece in pieces), confidence)


def _cells(window: Window) -> Iterator[tuple[int, int]]:
    rows = range(window.row // CELL, (window.row_stop - 1) // CELL + 1)
    cols = range(window.col // CELL, (window.col_stop - 1) // CELL + 1)
    return product(rows, cols)
