from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import torch
from builders import HALF_METRE, small_card, tiny_model, write_rgb
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.inference import Plan, Predictor, RunOptions, Segmenter
from geoseg.inference.segment import Cover, Read
from geoseg.pipeline import plan_file
from geoseg.raster.reader import Pixels

CPU = {"device": "cpu", "precision": "float32"}


def plan(shape: tuple[int, int] = (5000, 7000), **options: object) -> Plan:
    return Plan.of(shape, small_card(), RunOptions(**{**CPU, **options}))


def test_the_card_decides_what_is_not_said() -> None:
    grid = plan((192 * 26, 192 * 36)).grid
    assert (grid.halo, grid.ramp) == (32, 0)
    assert 192 / 1.25 <= grid.core <= 192 * 1.25
    assert grid.block_side == 2048 // grid.core * grid.core


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_cores_fit_the_scene_at_least_as_well_as_the_cards(rows: int, cols: int) -> None:
    fitted = plan((rows, cols))
    assert fitted.grid.output_stride == small_card().output_stride
    assert fitted.computed_pixels <= plan((rows, cols), chip=256).computed_pixels
    assert fitted.grid.chip <= 256 * 1.25


def test_exact_is_the_whole_receptive_field() -> None:
    grid = plan(halo="exact").grid
    assert grid.halo == 64
    assert 256 < grid.chip < 1.2 * grid.core  # a larger halo than the card's wants a larger chip


def test_a_small_scene_takes_one_small_chip() -> None:
    grid = plan((1, 1)).grid
    assert (grid.core, grid.core_counts) == (8, (1, 1))
    assert plan((100, 61)).grid.core_counts == (1, 1)


def test_chips_do_not_grow_without_end() -> None:
    assert plan(halo=400).grid.chip <= 800 + 1.25 * 1248
    assert 1200 / 1.25 <= plan(halo=1200).grid.core <= 1500


@pytest.mark.parametrize(("block", "side"), [(1, 192), (192, 192), (400, 384), (10**6, 999_936)])
def test_blocks_are_whole_cores(block: int, side: int) -> None:
    assert plan(chip=256, block=block).grid.block_side == side


def test_a_ramp_fits_core_and_halo() -> None:
    card = small_card("deeplabv3plus", ramp_px=48, halo_px=32)
    for chip, ramp in ((256, 48), (96, 32), (80, 16)):
        assert Plan.of((900, 900), card, RunOptions(**CPU, chip=chip)).grid.ramp == ramp


def test_options_name_no_block_worker_or_path_and_never_auto() -> None:
    told = {**Plan.of((900, 900), small_card(), RunOptions(block=64, workers=7)).options}
    assert "auto" not in map(str, told.values())
    assert not {"block", "workers"} & told.keys()
    assert told == {**Plan.of((900, 900), small_card(), RunOptions()).options}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"chip": 100}, "Chip 100 .* stride 8; use 104"),
        ({"chip": 64}, "Chip 64 leaves a core of 0 .* at least 72"),
        ({"halo": 12}, "Halo 12 .* stride 8; use 16"),
        ({"halo": 12, "chip": 128}, "Halo 12 .* stride 8; use 16"),
    ],
)
def test_what_leaves_no_core_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        plan(**options)


@pytest.mark.parametrize("name", ["chip", "block", "workers"])
@pytest.mark.parametrize("value", [0, -3])
def test_counts_are_one_or_more(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"--{name} is 1 or more, not {value}"):
        RunOptions(**{name: value})


@pytest.mark.parametrize("halo", [-1, "wide"])
def test_a_halo_is_a_number_or_exact(halo: object) -> None:
    with pytest.raises(InputError, match="--halo is"):
        RunOptions(halo=halo)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[Window | int]:
    """What is segmented, and after each window how many of its chips go through the network."""
    seen: list[Window | int] = []
    segment, predict = Segmenter.__call__, Predictor.predict

    def segments(self: Segmenter, window: Window, read: Read) -> Cover:
        seen.append(window)
        return segment(self, window, read)

    def predicts(self: Predictor, chips: Sequence[Pixels], *given: Any, **named: Any) -> torch.Tensor:
        seen.append(len(chips))
        return predict(self, chips, *given, **named)

    monkeypatch.setattr(Segmenter, "__call__", segments)
    monkeypatch.setattr(Predictor, "predict", predicts)
    return seen


def test_time_is_that_of_a_chip_that_is_computed(tmp_path: Path, timed: list[Window | int]) -> None:
    """Though nothing is measured where it lies."""
    scene = write_rgb(tmp_path / "scene.tif", values=np.zeros((3, 131, 149), np.uint8), nodata=0)
    assert plan_file(scene, model=tiny_model(), run=RunOptions(**CPU, chip=96)).seconds > 0
    grid = Plan.of((131, 149), tiny_model().card, RunOptions(**CPU, chip=96)).grid
    middle = grid.core_window((65 // grid.core, 74 // grid.core)).clipped(grid.shape)
    assert timed == [middle, 1] * 2


def test_time_is_that_of_a_chip_within_the_area_of_interest(tmp_path: Path, timed: list[Window | int]) -> None:
    scene = write_rgb(tmp_path / "scene.tif", crs="EPSG:32631")
    west, south, east, north = *(HALF_METRE @ (100, 30)), *(HALF_METRE @ (120, 10))
    gpd.GeoDataFrame(geometry=[box(west, south, east, north)], crs="EPSG:32631").to_file(tmp_path / "aoi.gpkg")
    plan_file(scene, model=tiny_model(), run=RunOptions(**CPU, chip=96, aoi=tmp_path / "aoi.gpkg"))
    window, chips, *again = timed
    assert isinstance(window, Window)
    assert window.row <= 20 < window.row_stop
    assert window.col <= 110 < window.col_stop
    assert [window, 1] == [window, chips] == again
