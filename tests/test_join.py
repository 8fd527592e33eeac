"""Joining: what comes out is the same, bit for bit, however the raster was cut."""

from __future__ import annotations

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import CASES, class_maps, coverage_of
from scipy import ndimage
from shapely import to_wkb

from geoseg.errors import BlockError, InputError
from geoseg.grid import Window
from geoseg.vector.blocks import BlockPixels, Blocks, trace_blocks
from geoseg.vector.join import Coverage, join
from geoseg.vector.rings import build_polygons


def content(coverage: Coverage) -> list[bytes]:
    arrays = [*coverage.components, *coverage.arcs]
    return [*(array.tobytes() for array in arrays), *to_wkb(build_polygons(coverage, Affine.identity())).tolist()]


@st.composite
def cuts(draw: st.DrawFn) -> tuple[NDArray[np.uint8], Blocks]:
    class_map = draw(class_maps)
    edges = [sorted({0, size, *draw(st.sets(st.integers(1, max(size - 1, 1))))}) for size in class_map.shape]
    rows, cols = (tuple(e for e in part if e <= size) for part, size in zip(edges, class_map.shape, strict=True))
    return class_map, Blocks(rows, cols)


@settings(max_examples=60, deadline=None)
@given(cuts())
def test_numbers_order_and_bits_do_not_depend_on_the_blocks(cut: tuple[NDArray[np.uint8], Blocks]) -> None:
    class_map, blocks = cut
    whole = coverage_of(class_map, Blocks.regular(class_map.shape, 100))
    assert content(coverage_of(class_map, blocks)) == content(whole)


@pytest.mark.parametrize("name", CASES)
def test_hard_shapes_do_not_depend_on_the_blocks(name: str) -> None:
    class_map = np.ascontiguousarray(CASES[name])
    whole = content(coverage_of(class_map, Blocks.regular(class_map.shape, 100)))
    for block in (1, 2, 3, 5):
        assert content(coverage_of(class_map, Blocks.regular(class_map.shape, block))) == whole


def test_blocks_may_be_joined_in_any_order() -> None:
    class_map = np.random.default_rng(3).integers(0, 3, (12, 12)).astype(np.int32)
    traces = list(trace_blocks(lambda w: BlockPixels(class_map[w.slices]), Blocks.regular((12, 12), 5)))
    assert content(join(traces[::-1])) == content(join(traces))


def test_components_are_those_of_scipy_numbered_by_first_pixel() -> None:
    class_map = np.random.default_rng(5).integers(0, 2, (20, 23)).astype(np.uint8)
    components = coverage_of(class_map, Blocks.regular(class_map.shape, 6)).components
    firsts, counts = [], []
    for value in (0, 1):
        labels, number = ndimage.label(class_map == value)
        firsts += [int(np.flatnonzero(labels == i)[0]) for i in range(1, number + 1)]
        counts += [int((labels == i).sum()) for i in range(1, number + 1)]
    order = np.argsort(firsts)
    assert components.first.tolist() == np.array(firsts)[order].tolist()
    assert components.pixels.tolist() == np.array(counts)[order].tolist()


def test_arcs_end_at_junctions_only() -> None:
    class_map = np.array([[1, 1, 2, 2], [1, 1, 2, 2]], np.uint8)
    arcs = coverage_of(class_map, Blocks.regular((2, 4), 1)).arcs
    assert arcs.offsets.size - 1 == 3  # the border between, and each polygon's outside
    assert {tuple(p) for i in arcs.offsets[:-1] for p in [arcs.points[i]]} <= {(0, 2), (2, 2)}


def test_each_pixel_is_read_once() -> None:
    seen = np.zeros((7, 9), int)

    def read(window: Window) -> BlockPixels:
        seen[window.slices] += 1
        return BlockPixels(np.zeros(window.shape, np.int32))

    done: list[tuple[int, int]] = []
    join(trace_blocks(read, Blocks.regular((7, 9), 4), lambda *at: done.append(at)))
    assert (seen == 1).all()
    assert done[-1] == (63, 63)


def test_a_block_that_fails_is_named() -> None:
    def read(window: Window) -> BlockPixels:
        raise OSError("disk gone")

    with pytest.raises(BlockError, match=r"rows 0:4, columns 0:4.*disk gone"):
        list(trace_blocks(read, Blocks.regular((7, 9), 4)))


def test_chunks_are_kept_whole_and_grouped() -> None:
    blocks = Blocks.from_chunks(((2, 2, 2, 1), (10, 3)), 4)
    assert blocks.rows == (0, 4, 7)
    assert blocks.cols == (0, 10, 13)


def test_a_block_of_no_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="not 0"):
        Blocks.regular((3, 3), 0)


def test_confidence_sums_are_exact_in_any_blocks() -> None:
    generator = np.random.default_rng(0)
    class_map = generator.integers(0, 2, (9, 11)).astype(np.int32)
    units = generator.integers(-1, 201, (9, 11)).astype(np.int32)
    for block in (2, 100):
        blocks = Blocks.regular((9, 11), block)
        components = join(trace_blocks(lambda w: BlockPixels(class_map[w.slices], units[w.slices]), blocks)).components
        assert components.confidence_sum.sum() == units[units >= 0].sum()
        assert components.confidence_count.sum() == (units >= 0).sum()
