"""Each run measures how far chips disagree beside their seams, and says so."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from builders import RGB, pixels_of, tiny_model, write_rgb
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from geoseg.grid import ChipGrid, Window
from geoseg.inference import Backend, Predictor, RunOptions, Segmenter
from geoseg.inference.seams import ONE, Seams, places_of
from geoseg.pipeline import segment_file
from geoseg.raster.reader import Pixels

CPU = {"device": "cpu", "precision": "float32", "engine": "torch"}
SHAPE = (96, 80)


def seams_of(pixels: NDArray[np.uint8], grid: ChipGrid, valid: NDArray[np.bool_] | None = None) -> Seams:
    segmenter = Segmenter(grid, RGB, Predictor(tiny_model(), Backend("cpu", "float32")))
    valid = np.ones(pixels.shape[1:], np.bool_) if valid is None else valid

    def read(window: Window) -> Pixels:
        rows, cols = window.slices
        return Pixels(pixels[:, rows, cols], valid[rows, cols])

    notes = [segmenter.with_seams(block.window, read)[1].to_note() for block in grid.blocks()]
    return Seams.of_notes(json.loads(json.dumps(notes)))


def grid_of(halo: int, *, core: int = 32, block: int = 0) -> ChipGrid:
    return ChipGrid.of(SHAPE, chip=core + 2 * halo, halo=halo, output_stride=4, block=block)


def compared_by_hand(pixels: NDArray[np.uint8], grid: ChipGrid) -> tuple[int, int, float]:
    """Pixels compared, those that disagree, and the largest difference: both chips of each seam run anew."""
    predictor = Predictor(tiny_model(), Backend("cpu", "float32"))
    margin = grid.chip
    padded = np.pad(RGB(pixels, np.ones(SHAPE, np.bool_)), ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    total = different = 0
    largest = 0.0
    rows, cols = grid.core_counts
    for axis, (i, j) in [("row", (i, j)) for i in range(rows - 1) for j in range(cols)] + [
        ("col", (i, j)) for i in range(rows) for j in range(cols - 1)
    ]:
        sides = []
        for index in ((i, j), (i + 1, j) if axis == "row" else (i, j + 1)):
            chip = grid.chip_window(index)
            r, c = (slice(start + margin, start + margin + grid.chip) for start in (chip.row, chip.col))
            spread = predictor.logits(np.ascontiguousarray(padded[:, r, c])).softmax(0).numpy()
            [places] = [p for p in places_of(grid, index) if p.key == (axis, i, j)]
            sides.append(spread[:, places.rows - chip.row, places.cols - chip.col])
        total += sides[0].shape[1]
        different += int((sides[0].argmax(0) != sides[1].argmax(0)).sum())
        largest = max(largest, float(np.abs(sides[0] - sides[1]).max()))
    return total, different, largest


def test_it_is_what_the_chips_of_both_sides_say() -> None:
    pixels = pixels_of(SHAPE, seed=2)
    found = seams_of(pixels, grid_of(4))
    total, different, largest = compared_by_hand(pixels, grid_of(4))
    assert found.pixels == total
    assert different > 0
    assert found.disagreeing == pytest.approx(different, abs=1)  # stored probabilities are rounded
    assert found.largest_difference == pytest.approx(largest, abs=2 / ONE)


@pytest.mark.parametrize("block", [32, 64, 1000])
def test_it_does_not_depend_on_blocks(block: int) -> None:
    pixels = pixels_of(SHAPE, seed=2)
    found = seams_of(pixels, grid_of(8, block=block))
    assert found == seams_of(pixels, grid_of(8))
    assert not found.halves


def test_where_the_halo_is_exact_nothing_differs() -> None:
    found = seams_of(pixels_of(SHAPE), grid_of(tiny_model().card.exact_halo_px))
    assert found.pixels > 100
    assert (found.disagreeing, found.largest) == (0, 0)


def test_a_ramp_does_not_hide_what_its_sides_say() -> None:
    pixels = pixels_of(SHAPE, seed=2)
    feathered = ChipGrid.of(SHAPE, chip=48, halo=8, output_stride=4, ramp=8, block=32)
    assert seams_of(pixels, feathered) == seams_of(pixels, grid_of(8))


def test_pixels_that_are_not_measured_are_not_compared() -> None:
    valid = np.zeros(SHAPE, np.bool_)
    valid[:, :40] = True
    grid = grid_of(8)
    found = seams_of(pixels_of(SHAPE, seed=2), grid, valid)
    along = [p for index in np.ndindex(*grid.core_counts) for p in places_of(grid, index)]
    both = {p.key: int(valid[p.rows, p.cols].sum()) for p in along if p.key[2] * 32 < 40}
    assert 0 < found.pixels <= sum(both.values())
    assert found.pixels < seams_of(pixels_of(SHAPE, seed=2), grid).pixels


def test_without_a_halo_nothing_can_be_compared() -> None:
    assert places_of(grid_of(0), (0, 0)) == []


HALVES = arrays(np.uint16, st.tuples(st.integers(1, 5), st.just(3)), elements=st.integers(0, ONE))


@given(st.lists(HALVES, min_size=1, max_size=6), st.randoms())
def test_the_order_of_notes_does_not_matter(halves: list[NDArray[np.uint16]], random: Any) -> None:
    notes = []
    for number, half in enumerate(halves):
        for values in (half, half[:, ::-1]):
            one = Seams()
            one.add(("row", number, 0), values)
            notes.append(one.to_note())
    expected = Seams.of_notes(notes)
    random.shuffle(notes)
    assert Seams.of_notes(notes) == expected
    assert not expected.halves


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_rgb(tmp_path / "scene.tif", SHAPE, seed=2)


def seam_tag(path: Path) -> dict[str, float]:
    with rasterio.open(path) as file:
        found: dict[str, float] = json.loads(file.tags()["GEOSEG_SEAMS"])
    return found


def test_the_output_says_it_and_the_run_returns_it(scene: Path, tmp_path: Path) -> None:
    outputs = []
    for block in (32, 1000):
        outputs.append(tmp_path / f"cover{block}.tif")
        run = RunOptions(**CPU, chip=40, halo=4, block=block)
        summary = segment_file(scene, outputs[-1], model=tiny_model(), run=run)
        assert summary.seams is not None
        assert seam_tag(outputs[-1])["class_disagreement"] == round(summary.seams.disagreement, 6) > 0
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_much_disagreement_is_warned_of_with_the_halo_that_helps(
    scene: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    helps = tiny_model().card.exact_halo_px
    with caplog.at_level(logging.WARNING, logger="geoseg.inference.seams"):
        segment_file(scene, tmp_path / "exact.tif", model=tiny_model(), run=RunOptions(**CPU, halo="exact", chip=80))
        assert not [record for record in caplog.records if record.name.startswith("geoseg")]
        segment_file(scene, tmp_path / "short.tif", model=tiny_model(), run=RunOptions(**CPU, halo=4, chip=24))
    assert f"--halo {helps} would help" in caplog.text
