"""Everything on a scene: a lattice of points is asked chip by chip, and what chips show of one object is joined.

Each chip is asked about the points in its core, and what they find there is joined with what the other chips find as
`geoseg instances` joins it: an object on a seam is one, and one that is longer than a chip is as fine as any other. The
result is a function of scene, model, spacing and least score. Memory: a chip's pixels, and the masks, packed to bits.
Objects may lie within one another, as a car on a street: those that are nearly the same are one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.objects.join import Joined, Piece, joined
from geoseg.prompts.asked import Asked
from geoseg.prompts.chips import ChipAt, LevelChips
from geoseg.prompts.follow import BATCH, Follower, Mask, Reply, on_chip, overlap
from geoseg.prompts.outline import one_part
from geoseg.prompts.words import SAME, Make, T, without_repeats
from geoseg.raster.window_reader import WindowReader

SPACING = 16  # pixels of a chip between points
LEAST_SCORE = 0.3  # prompt-rgb expects little of a click: about half of the buildings that it finds are above it
RIM = 2  # pixels of a chip within which a mask reaches its rim
Progress = Callable[[str, int, int], None]


def find_everything(
    follower: Follower,
    make: Make[T],
    *,
    spacing: int = SPACING,
    least_score: float = LEAST_SCORE,
    progress: Progress | None = None,
) -> list[T]:
    """All objects on which a point of a lattice falls, the surest first.

    Args:
        follower: scene and network.
        make: from mask, score and whether it is whole to what is returned; it has `polygon` and `score`.
        spacing: pixels of a chip between points: smaller objects may be missed.
        least_score: of what counts as found, 0 to 1.
        progress: called with step, chips done and chips in all.

    Raises:
        InputError: the spacing is not positive, or the least score is none.
    """
    if spacing < 1:
        raise InputError(f"Points lie 1 pixel apart or more, not {spacing}.")
    if not 0 <= least_score <= 1:
        raise InputError(f"The least score of an object is 0 to 1, not {least_score:g}.")
    lattice = follower.lattice
    chips = LevelChips(lattice, lattice.point_level)
    step, order = spacing * lattice.zoom(chips.level), lattice.all_of(chips.level)
    pieces: list[Piece] = []
    for done, at in enumerate(order, 1):
        points = lattice_points(follower.reader, chips.core_window(at[1:]), step)
        pieces.extend(_pieces(at, _distinct(_masks(follower, at, points, least_score))))
        if progress is not None:
            progress("prompt", done, len(order))
    objects = sorted(joined(pieces, chips), key=lambda one: one.found.first(chips.shape[1]))
    return without_repeats([_made(one, chips, make) for one in objects])


def lattice_points(reader: WindowReader, window: Window, step: int) -> NDArray[np.float64]:
    """(point, 2) row and column of the points `step` pixels apart in a window, where the scene was measured."""
    rows, cols = (
        np.arange(-(-(start - step // 2) // step), -(-(stop - step // 2) // step)) * step + step // 2
        for start, stop in ((window.row, window.row_stop), (window.col, window.col_stop))
    )
    places = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
    if reader.has_mask and len(places):
        places = places[reader.read(window).valid[places[:, 0] - window.row, places[:, 1] - window.col]]
    return places.astype(np.float64) + 0.5


def _masks(
    follower: Follower, at: ChipAt, points: NDArray[np.float64], least_score: float
) -> Iterator[tuple[Mask, float]]:
    """What a chip shows at each of some points: mask and score."""
    objects = [Asked(point[None], np.ones(1, np.int64)) for point in points]
    for batch in (objects[i : i + BATCH] for i in range(0, len(objects), BATCH)):
        found = follower.network.decode(follower.embedded(at), on_chip(batch, follower.lattice, at))
        for asked, logits, scores in zip(batch, found.logits, found.scores, strict=True):
            reply = Reply(at, logits, scores)
            if float(scores[reply.best]) >= least_score:
                yield one_part(follower.mask(reply, reply.best), asked), float(scores[reply.best])


def _distinct(found: Iterator[tuple[Mask, float]]) -> list[tuple[Mask, float]]:
    """The surest of those that are nearly the same; of equals the first."""
    kept: list[tuple[Mask, float]] = []
    for mask, score in sorted(found, key=lambda one: -one[1]):
        if all(overlap(mask, other) <= SAME for other, _ in kept):
            kept.append((mask, score))
    return kept


def _pieces(at: ChipAt, found: Sequence[tuple[Mask, float]]) -> Iterator[Piece]:
    for mask, score in found:
        piece = Piece.of((at.row, at.col), *mask, class_id=0, score=score, confidence=score)
        if piece is not None:
            yield piece


def _made(one: Joined, chips: LevelChips, make: Make[T]) -> T:
    return make(Mask(one.found.window, one.found.mask), one.found.score, _is_whole(one, chips))


def _is_whole(one: Joined, chips: LevelChips) -> bool:
    """Whether an object ends within the chips that show it."""
    near = RIM * chips.lattice.zoom(chips.level)
    window = one.found.window.padded(near).clipped(chips.shape)
    unseen = np.ones(window.shape, np.bool_)
    for chip in {piece.chip for piece in one.pieces}:
        part = chips.chip_window(chip).intersection(window)
        if not part.is_empty:
            unseen[part.relative_to(window).slices] = False
    if not unseen.any():
        return True
    rim = ndimage.binary_dilation(unseen, np.ones((3, 3)), iterations=near)
    return not (one.found.within(window) & rim).any()
