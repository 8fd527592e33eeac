"""Everything on a scene, chip by chip: objects are those of the whole scene, wherever chips lie and in any order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from geopandas.testing import assert_geodataframe_equal
from prompt_networks import SameColor, prompt_card
from scene_files import write
from scipy import ndimage
from test_prompts import BLUE, GROUND, NORTH_UP, RED, TURNED, UTM, on_grid, opened, paint

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.prompts.chips import ChipAt, Lattice, LevelChips
from geoseg.prompts.files import prompt_file
from geoseg.prompts.networks import ChipPrompts, Embedded, Found
from geoseg.raster.reader import Pixels, SceneReader

SHAPE = (150, 230)
# Chips of 64 pixels begin at multiples of 32, and what they speak for meets at 48, 80, 112 and so on.
OBJECTS = {
    "on a seam": (slice(4, 24), slice(36, 60), BLUE),
    "on a corner": (slice(68, 92), slice(100, 124), BLUE),
    "longer than a chip": (slice(36, 48), slice(12, 220), RED),
    "at the edge": (slice(120, 150), slice(200, 230), RED),
}


def scene(path: Path, *, transform: Affine = NORTH_UP) -> Path:
    pixels = np.empty((3, *SHAPE), np.uint8)
    pixels[:] = np.array(GROUND)[:, None, None]
    for rows, cols, color in OBJECTS.values():
        paint(pixels, color, rows, cols)
    write(path, pixels, descriptions=("red", "green", "blue"), transform=transform, crs=UTM)
    return path


def truth() -> np.ndarray:
    """Numbers of the objects in the order of OBJECTS; 0 is the ground, which is an object too."""
    ids = np.zeros(SHAPE, np.int64)
    for number, (rows, cols, _) in enumerate(OBJECTS.values(), 1):
        ids[rows, cols] = number
    return ids


class Unsteady(SameColor):
    """Errs at outlines, and is less sure of some: differently on each chip, but each time alike."""

    def decode(self, embedded: Embedded, prompts: ChipPrompts) -> Found:
        found = super().decode(embedded, prompts)
        rng = np.random.default_rng(int(np.abs(embedded["colors"]).sum()))
        for logits in found.logits[:, 0]:
            rim = ndimage.binary_dilation(logits > 0) & ~ndimage.binary_erosion(logits > 0)
            logits[rim & (rng.random(rim.shape) < 0.3)] *= -1
        return found._replace(scores=found.scores - rng.random((len(found.scores), 1), np.float32) / 2)


def reordered(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chips_of: Callable[[Lattice, int], list[ChipAt]] = Lattice.all_of

    def shuffled(lattice: Lattice, level: int) -> list[ChipAt]:
        chips = chips_of(lattice, level)
        return [chips[i] for i in np.random.default_rng(seed).permutation(len(chips))]

    monkeypatch.setattr(Lattice, "all_of", shuffled)


@pytest.mark.parametrize("transform", [NORTH_UP, TURNED], ids=["north up", "turned"])
def test_objects_across_chips_are_whole_and_once(tmp_path: Path, transform: Affine) -> None:
    network = SameColor()
    found = opened(scene(tmp_path / "s.tif", transform=transform), network).everything(spacing=8)
    ids = truth()
    masks = [on_grid(polygon, transform, SHAPE) for polygon in found.geometry]
    assert sorted(np.unique(ids[mask]).tolist() for mask in masks) == [[0], [1], [2], [3], [4]]
    for mask in masks:
        assert np.array_equal(mask, ids == ids[mask][0])
    assert found["id"].tolist() == [1, 2, 3, 4, 5]
    assert found["whole"].all()
    assert network.largest_batch <= 16


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_chips_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    path = scene(tmp_path / "s.tif")
    steady, unsteady = opened(path).everything(), opened(path, Unsteady(), cache_gb=0).everything(spacing=8)
    reordered(monkeypatch, seed)
    assert len(steady) == 5
    assert unsteady["score"].nunique() == 5
    assert_geodataframe_equal(opened(path).everything(), steady)
    assert_geodataframe_equal(opened(path, Unsteady(), cache_gb=0).everything(spacing=8), unsteady)


def test_what_is_read_and_asked_at_once_is_bounded_by_the_chip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read = SceneReader.read

    def noted(reader: SceneReader, window: Window) -> Pixels:
        sizes.append(window.area)
        return read(reader, window)

    monkeypatch.setattr(SceneReader, "read", noted)
    pixels = np.full((3, 64, 1000), 0, np.uint8)
    for col in range(10, 1000, 50):
        paint(pixels, RED, slice(10, 40), slice(col, col + 30))
    names = ("red", "green", "blue")
    write(tmp_path / "s.tif", pixels, descriptions=names, transform=NORTH_UP, crs=UTM, nodata=0)
    network = SameColor()
    found = opened(tmp_path / "s.tif", network).everything(spacing=4)
    assert found["area_m2"].tolist() == [225] * 20
    assert found.centroid.x.is_monotonic_increasing  # equals come by first pixel
    assert max(sizes) == 64 * 64
    assert network.largest_batch == 16


def test_what_no_other_chip_goes_on_with_is_not_whole(tmp_path: Path) -> None:
    found = opened(scene(tmp_path / "s.tif")).everything(spacing=84)  # points at row 42, columns 42, 126 and 210
    bars = found[found.bounds.maxy == 5_000_000 - 36 * 0.5]
    assert len(bars) == 3
    assert not bars["whole"].any()


def test_from_afar_objects_are_where_they_are(tmp_path: Path) -> None:
    network = SameColor(chip=64)
    network.card = prompt_card(64, gsd_m=1.0, pool_to_m=0.5)
    found = opened(scene(tmp_path / "s.tif"), network).everything(spacing=4)
    ids = truth()
    for number in range(1, 5):
        overlaps = [
            (mask & (ids == number)).sum() / (mask | (ids == number)).sum()
            for mask in (on_grid(polygon, NORTH_UP, SHAPE) for polygon in found.geometry)
        ]
        assert max(overlaps) > 0.95  # corners are rounded, at two pixels of the scene in one


def test_scores_and_spacings_that_cannot_be(tmp_path: Path) -> None:
    segmenter = opened(scene(tmp_path / "s.tif"))
    assert len(segmenter.everything(least_score=0.95)) == 0
    with pytest.raises(InputError, match="1 pixel apart"):
        segmenter.everything(spacing=0)
    with pytest.raises(InputError, match="0 to 1, not 30"):
        segmenter.everything(least_score=30)


@pytest.mark.parametrize("shape", [(1, 1), (63, 64), (65, 200), (500, 129)])
@pytest.mark.parametrize("level", [0, 1])
def test_each_pixel_is_of_the_chip_that_is_asked_about_it(shape: tuple[int, int], level: int) -> None:
    lattice = Lattice(shape, 64)
    chips, seen = LevelChips(lattice, level), np.zeros(shape, np.int64)
    for at in lattice.all_of(level):
        core, chip = chips.core_window(at[1:]), chips.chip_window(at[1:])
        assert core.intersection(chip.clipped(shape)) == core
        seen[core.slices] += 1
        middle: Any = (core.row + core.row_stop) / 2, (core.col + core.col_stop) / 2
        for row, col in (middle, (core.row + 0.5, core.col + 0.5), (core.row_stop - 0.5, core.col_stop - 0.5)):
            assert lattice.around(level, row, col) == at
    assert (seen == 1).all()


def test_a_least_score_from_file_to_file(tmp_path: Path) -> None:
    path, output = scene(tmp_path / "s.tif"), tmp_path / "out.gpkg"
    assert prompt_file(path, output, everything=True, least_score=0.95, model=SameColor()).objects == 0
    assert prompt_file(path, output, everything=True, least_score=0.8, model=SameColor(), overwrite=True).objects == 5
