from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.errors import InputError
from geoseg.grid import ChipGrid, Window, add_chip, chip_weights, reflect, windows_of


@st.composite
def grids(draw: st.DrawFn) -> ChipGrid:
    stride = draw(st.sampled_from([1, 2, 4]))
    core = stride * draw(st.integers(1, 8))
    halo = stride * draw(st.integers(0, 5))
    ramp = 2 * draw(st.integers(0, min(2 * halo, core) // 2))
    shape = (draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    return ChipGrid(shape, core, halo, stride, ramp, core * draw(st.integers(1, 4)))


@given(grids())
def test_blocks_cover_every_pixel_once(grid: ChipGrid) -> None:
    count = np.zeros(grid.shape, int)
    for block in grid.blocks():
        count[block.window.slices] += 1
    assert (count == 1).all()


@given(grids())
def test_weights_sum_to_one_at_every_pixel(grid: ChipGrid) -> None:
    total = np.zeros((1, *grid.shape), np.float32)
    scene = Window(0, 0, *grid.shape)
    for index in grid.cores(scene):
        add_chip(total, scene, grid, index, np.ones((1, grid.chip, grid.chip), np.float32))
    if grid.ramp == 0:
        assert (total == 1).all()
    np.testing.assert_allclose(total, 1, atol=1e-6)


@given(grids(), st.integers(0, 2**31))
@settings(max_examples=60)
def test_stitched_identity_is_the_scene_for_any_block(grid: ChipGrid, seed: int) -> None:
    scene = np.random.default_rng(seed).normal(size=(2, *grid.shape)).astype(np.float32)
    whole = Window(0, 0, *grid.shape)
    once = _stitch(scene, grid, whole)
    np.testing.assert_allclose(once, scene, rtol=1e-5, atol=1e-6)
    for block in grid.blocks():
        rows, cols = block.window.slices
        assert (_stitch(scene, grid, block.window) == once[:, rows, cols]).all()


def _stitch(scene: np.ndarray, grid: ChipGrid, window: Window) -> np.ndarray:
    total = np.zeros((len(scene), *window.shape), np.float32)
    for index in grid.cores(window):
        chip = grid.chip_window(index)
        rows = reflect(chip.row, chip.row_stop, grid.shape[0])
        cols = reflect(chip.col, chip.col_stop, grid.shape[1])
        add_chip(total, window, grid, index, scene[:, rows[:, None], cols])
    return total


@given(grids())
def test_chip_origins_are_multiples_of_the_stride(grid: ChipGrid) -> None:
    for index in grid.cores(Window(0, 0, *grid.shape)):
        chip = grid.chip_window(index)
        assert chip.shape == (grid.chip, grid.chip)
        assert chip.row % grid.output_stride == chip.col % grid.output_stride == 0


@given(grids())
def test_footprint_holds_every_chip(grid: ChipGrid) -> None:
    for block in grid.blocks():
        footprint = grid.footprint(block.window)
        for index in grid.cores(block.window):
            assert footprint.intersection(grid.chip_window(index)) == grid.chip_window(index)


@given(st.integers(1, 12), st.integers(0, 40), st.integers(0, 40))
def test_reflection_is_numpys(length: int, before: int, after: int) -> None:
    line = np.arange(length)
    expected = np.pad(line, (before, after), mode="reflect")
    assert (line[reflect(-before, length + after, length)] == expected).all()


def test_weights_of_a_crop_are_zero_or_one() -> None:
    weights = chip_weights(ChipGrid((100, 100), 16, 8, 8), (0, 1))
    assert set(np.unique(weights)) == {0.0, 1.0}
    assert weights.sum() == 16 * 16


def test_block_is_rounded_down_to_whole_cores_at_least_one() -> None:
    assert ChipGrid.of((1000, 1000), chip=128, halo=16, output_stride=16, block=300).block == 288
    assert ChipGrid.of((1000, 1000), chip=128, halo=16, output_stride=16, block=5).block == 96


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"core": 20, "halo": 16, "output_stride": 16}, "Core 20 .* stride 16; use 16"),
        ({"core": 16, "halo": 20, "output_stride": 16}, "Halo 20 .* stride 16; use 16"),
        ({"core": 16, "halo": 4, "ramp": 10}, "at most 8 .* not 10"),
        ({"core": 0, "halo": 4}, "not 0 and 4"),
    ],
)
def test_nonsense_is_refused_with_both_numbers(arguments: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        ChipGrid((100, 100), **arguments)


def test_a_chip_without_core_is_refused() -> None:
    with pytest.raises(InputError, match="at least 304"):
        ChipGrid.of((100, 100), chip=256, halo=144, output_stride=16)


def test_an_empty_scene_is_refused() -> None:
    with pytest.raises(InputError, match="0 x 5"):
        ChipGrid((0, 5), 16, 0)


@given(st.tuples(st.integers(0, 30), st.integers(0, 30)), st.integers(1, 12))
def test_windows_of_cover_once(shape: tuple[int, int], block: int) -> None:
    count = np.zeros(shape, int)
    for window in windows_of(shape, block):
        count[window.slices] += 1
    assert (count == 1).all()


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(0, 9), st.integers(0, 9))
def test_intersection_is_what_both_cover(row: int, col: int, height: int, width: int) -> None:
    window, other = Window(row, col, height, width), Window(0, 0, 4, 5)
    pixels = {(r, c) for r in range(row, row + height) for c in range(col, col + width)}
    both = {(r, c) for r, c in pixels if 0 <= r < 4 and 0 <= c < 5}
    shared = window.intersection(other)
    assert {(r, c) for r in range(shared.row, shared.row_stop) for c in range(shared.col, shared.col_stop)} == both


def test_a_negative_window_is_refused() -> None:
    with pytest.raises(InputError, match="-1 x 3"):
        Window(0, 0, -1, 3)
