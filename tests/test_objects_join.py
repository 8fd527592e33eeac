"""Objects joined across chips are those of the whole scene: an oracle shows each chip what of them lies in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import spiral
from scipy import ndimage

from geoseg.grid import ChipGrid, Window
from geoseg.legend import LANDCOVER
from geoseg.objects.join import Found, Piece, apart, cropped, join_pieces
from geoseg.objects.paint import MaskPainter, Objects

Ids = NDArray[np.int64]


def shown(ids: Ids, grid: ChipGrid, *, least: int = 1) -> Iterator[Piece]:
    """What a network that errs in nothing sees: in each chip the parts of objects, but for those of few pixels."""
    for row, col in grid.cores(Window(0, 0, *grid.shape)):
        window = grid.chip_window((row, col)).clipped(grid.shape)
        seen = ids[window.slices]
        for number in np.unique(seen[seen > 0]):
            parts, count = ndimage.label(seen == number)
            for part in range(1, count + 1):
                mask = parts == part
                if mask.sum() >= least:
                    piece = Piece.of((row, col), window, mask, class_id=1, score=0.9, confidence=0.8)
                    assert piece is not None
                    yield piece


def painted(found: list[Found], shape: tuple[int, int]) -> Ids:
    return MaskPainter(found)(Window(0, 0, *shape)).astype(np.int64)


def numbered(ids: Ids) -> Ids:
    """The same objects, by their first pixels."""
    values, first = np.unique(ids, return_index=True)
    order = [value for _, value in sorted(zip(first.tolist(), values.tolist(), strict=True)) if value > 0]
    table = np.zeros(int(ids.max()) + 1, np.int64)
    table[order] = np.arange(1, len(order) + 1)
    return table[ids]


def check(ids: Ids, grid: ChipGrid, pieces: Iterable[Piece] | None = None) -> None:
    found = join_pieces(shown(ids, grid) if pieces is None else pieces, grid)
    assert np.array_equal(painted(found, grid.shape), numbered(ids))


def rectangles(shape: tuple[int, int], count: int, seed: int) -> Ids:
    """Rectangles that may touch but do not overlap: each as one part."""
    rng = np.random.default_rng(seed)
    ids = np.zeros(shape, np.int64)
    for number in range(1, count + 1):
        height, width = rng.integers(1, 30, 2)
        row, col = (int(rng.integers(0, length)) for length in shape)
        part = ids[row : row + height, col : col + width]
        if not part.any():
            part[:] = number
    return ids


@settings(max_examples=20)
@given(
    st.tuples(st.integers(20, 90), st.integers(20, 90)),
    st.integers(4, 30),
    st.integers(1, 20),
    st.integers(0, 10**6),
)
def test_any_objects_on_any_grid(shape: tuple[int, int], core: int, halo: int, seed: int) -> None:
    check(rectangles(shape, 25, seed), ChipGrid(shape, core, halo))


def test_an_object_on_every_seam_and_corner() -> None:
    grid = ChipGrid((128, 160), 32, 8)
    ids = np.zeros(grid.shape, np.int64)
    number = 0
    for row in range(0, 128, 16):
        for col in range(0, 160, 16):
            number += 1
            ids[max(0, row - 3) : row + 3, max(0, col - 3) : col + 3] = number
    check(ids, grid)
    assert len(join_pieces(shown(ids, grid), grid)) == number


@pytest.mark.parametrize("core", [8, 16, 40])
def test_what_is_longer_than_many_chips_is_one(core: int) -> None:
    """A path of one pixel that winds inwards: each chip sees many pieces of it, with its other turns beside them."""
    ids = spiral(61).astype(np.int64)
    check(ids, ChipGrid(ids.shape, core, 4))
    stripes = np.zeros((61, 200), np.int64)
    stripes[::3] = np.arange(1, 22)[:, None]
    check(stripes, ChipGrid(stripes.shape, core, 2))


def test_a_u_is_one_though_some_chips_see_two_arms() -> None:
    ids = np.zeros((90, 60), np.int64)
    ids[5:80, 10:15] = ids[5:80, 35:40] = ids[75:80, 10:40] = 1
    check(ids, ChipGrid(ids.shape, 20, 6))


def test_the_order_of_pieces_does_not_matter() -> None:
    grid = ChipGrid((80, 80), 20, 8)
    ids = rectangles(grid.shape, 30, 5)
    pieces = list(shown(ids, grid))
    for seed in range(3):
        np.random.default_rng(seed).shuffle(pieces)  # type: ignore[arg-type]
        check(ids, grid, pieces)


def test_what_a_chip_overlooks_at_its_rim_the_others_have_seen() -> None:
    grid = ChipGrid((120, 120), 40, 16)
    ids = np.zeros(grid.shape, np.int64)
    for number, (row, col) in enumerate(np.ndindex(8, 8), 1):
        ids[row * 15 + 2 : row * 15 + 11, col * 15 + 3 : col * 15 + 12] = number
    check(ids, grid, shown(ids, grid, least=60))  # of 81 pixels: parts of objects are not seen


def test_shreds_that_only_a_halo_shows_are_none() -> None:
    grid = ChipGrid((40, 80), 40, 10)
    ids = np.zeros(grid.shape, np.int64)
    ids[10:20, 5:25] = 1
    ghost = Piece.of((0, 0), Window(5, 42, 6, 6), np.ones((6, 6), bool), class_id=1, score=1.0, confidence=1.0)
    assert ghost is not None  # in the core of the other chip, which does not see it
    check(ids, grid, [*shown(ids, grid), ghost])


def test_noise_at_outlines_joins_nothing_wrongly() -> None:
    """Each chip errs on its own: objects stay one and keep to the truth but for the noise."""
    grid = ChipGrid((120, 120), 40, 12)
    ids = np.zeros(grid.shape, np.int64)
    for number, (row, col) in enumerate(np.ndindex(6, 6), 1):
        ids[row * 20 + 2 : row * 20 + 16, col * 20 + 2 : col * 20 + 16] = number
    rng = np.random.default_rng(0)
    noisy = []
    for piece in shown(ids, grid):
        window = piece.window.padded(1).clipped(grid.shape)
        mask = piece.within(window)
        rim = ndimage.binary_dilation(mask) & ~ndimage.binary_erosion(mask)
        changed = Piece.of(
            piece.chip, window, mask ^ (rim & (rng.random(mask.shape) < 0.2)), class_id=1, score=0.5, confidence=0.5
        )
        assert changed is not None
        noisy.append(changed)
    found = painted(join_pieces(noisy, grid), grid.shape)
    for number in range(1, 37):
        inside = ids == number
        same = np.bincount(found[inside]).argmax()
        assert same > 0
        assert ((found == same) & inside).sum() / ((found == same) | inside).sum() > 0.75
    assert found.max() == 36


def test_a_block_of_houses_that_some_chips_see_as_one_does_not_join_the_houses() -> None:
    """Each chip shows two houses, and, less surely, both as one, which shares more than half with the larger."""
    grid = ChipGrid((40, 120), 40, 20)
    ids = np.zeros(grid.shape, np.int64)
    for number, col in enumerate(range(2, 120, 20), 1):
        ids[10:30, col : col + (16 if number % 2 else 6)] = number
    pieces = list(shown(ids, grid))
    for index in grid.cores(Window(0, 0, *grid.shape)):
        window = grid.chip_window(index).clipped(grid.shape)
        for first in (1, 3, 5):
            both = ndimage.binary_closing((ids == first) | (ids == first + 1), np.ones((1, 7)))
            block = Piece.of(index, window, both[window.slices], class_id=1, score=0.4, confidence=0.4)
            pieces += [] if block is None else [block]
    check(ids, grid, pieces)


def test_without_a_halo_nothing_can_be_joined() -> None:
    ids = np.zeros((20, 40), np.int64)
    ids[5:10, 10:30] = 1
    grid = ChipGrid(ids.shape, 20, 0)
    assert len(join_pieces(shown(ids, grid), grid)) == 2


def found_of(window: Window, score: float, class_id: int = 1) -> Found:
    cut = cropped(window, np.ones(window.shape, bool))
    assert cut is not None
    return Found(*cut, class_id, score, score)


def test_duplicates_go_once_and_the_better_one_keeps_shared_pixels() -> None:
    best, double = found_of(Window(10, 10, 20, 20), 0.9), found_of(Window(12, 12, 20, 20), 0.5)
    beside = found_of(Window(10, 28, 20, 20), 0.6)
    kept = apart([double, beside, best], 100)
    assert [one.score for one in kept] == [0.9, 0.6]
    ids = painted(sorted(kept, key=lambda one: one.first(100)), (60, 100))
    assert (ids[10:30, 10:30] == 1).all()
    assert (ids[10:30, 30:48] == 2).all()
    assert (ids > 0).sum() == 400 + 360
    assert len(apart([double, beside], 100)) == 2  # what lay under the best one is there where that is not


def test_painters_do_not_depend_on_the_window() -> None:
    grid = ChipGrid((70, 90), 30, 10)
    ids = rectangles(grid.shape, 30, 3)
    objects = Objects.of_masks(join_pieces(shown(ids, grid), grid), LANDCOVER.select(["building"]))
    whole = objects.paint(Window(0, 0, 70, 90))
    for window in (Window(3, 5, 40, 50), Window(60, 80, 10, 10), Window(0, 0, 1, 1)):
        assert np.array_equal(objects.paint(window), whole[window.slices])
    odd = objects.only(np.arange(len(objects.table)) % 2 == 0)
    assert np.array_equal(odd.paint(Window(0, 0, 70, 90)), np.where(whole % 2 == 1, whole // 2 + 1, 0))
    assert odd.table["id"].tolist() == list(range(1, len(odd.table) + 1))
