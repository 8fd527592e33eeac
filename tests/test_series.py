"""Stacks of files: class maps on one grid, history and areas by date, clouds by date, up to date on a second run."""

from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from builders import read_band, tiny_model, write_rgb
from numpy.typing import NDArray
from scene_files import write
from test_change import UTM, class_map, scenes
from test_vectorize import write_raster

import geoseg
from geoseg.change import series
from geoseg.change.clouds import CloudOptions
from geoseg.change.times import times_of
from geoseg.cli import main
from geoseg.errors import InputError
from geoseg.legend import LANDCOVER
from geoseg.raster.landcover import read_legend

SHAPE = (90, 120)
IDS = list(LANDCOVER.ids)


def dates(folder: Path, count: int = 4) -> tuple[list[Path], NDArray[np.uint8]]:
    """Class maps of some years, and what is in them."""
    values = np.stack([class_map(seed, SHAPE, 3) for seed in range(count)])
    values[1, :20] = 255
    values[:, 30:33, 30:33] = 255
    return [write_raster(folder / f"lc_{2000 + 5 * k}.tif", v, UTM) for k, v in enumerate(values)], values


def expected(values: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Pixel by pixel."""
    out = {name: np.full(values.shape[1:], 255, np.uint8) for name in series.LAYERS}
    for row, col in np.ndindex(values.shape[1:]):
        seen = [(number, int(v)) for number, v in enumerate(values[:, row, col], 1) if v != 255]
        if seen:
            moved = [now for (_, old), (now, new) in pairwise(seen) if old != new]
            ids = [v for _, v in seen]
            told = (len(moved), min(moved, default=0), max(moved, default=0), min(IDS, key=lambda i: -ids.count(i)))
            for name, number in zip(series.LAYERS, told, strict=True):
                out[name][row, col] = number
    return out


def test_rasters_and_areas_are_those_of_each_pixel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, values = dates(tmp_path)
    found = geoseg.stack_files(paths, tmp_path / "out")
    for name, layer in expected(values).items():
        assert np.array_equal(read_band(tmp_path / "out" / f"{name}.tif"), layer), name
    counts = np.array([[(date == entry).sum() for entry in IDS] for date in values])
    assert np.array_equal(found.series.pixels, counts)
    np.testing.assert_allclose(found.series.m2, counts * 4.0)
    np.testing.assert_allclose(found.series.known, (values != 255).mean((1, 2)))
    rows = list(csv.DictReader((tmp_path / "out" / "areas.csv").read_text().splitlines()))
    assert [int(row["pixels"]) for row in rows] == counts.ravel().tolist()
    assert [row["time"] for row in rows[::6]] == ["2000", "2005", "2010", "2015"]
    assert json.loads((tmp_path / "out" / "areas.json").read_text())["pixels"] == counts.tolist()
    assert read_legend(tmp_path / "out" / "first_change.tif").names == ("never", "2000", "2005", "2010", "2015")
    assert read_legend(tmp_path / "out" / "most_frequent.tif") == LANDCOVER
    again = geoseg.stack_files(paths, tmp_path / "out")
    assert again.up_to_date
    assert np.array_equal(again.series.m2, found.series.m2)
    monkeypatch.setattr(series, "BLOCK", 32)
    geoseg.stack_files(paths, tmp_path / "blocks")
    for name in (*(f"{layer}.tif" for layer in series.LAYERS), "areas.csv"):
        assert (tmp_path / "blocks" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()


def test_the_lazy_stack_is_the_same(tmp_path: Path) -> None:
    import xarray as xr

    paths, values = dates(tmp_path)
    geoseg.stack_files(paths, tmp_path / "out")
    lazy = xr.DataArray(values, dims=("time", "y", "x"), attrs={"legend": LANDCOVER.to_json()})
    told = geoseg.stack_history(lazy)
    for name in series.LAYERS:
        assert np.array_equal(told[name], read_band(tmp_path / "out" / f"{name}.tif"))


def test_many_dates_have_wider_numbers() -> None:
    """Of 300 dates the last one changes; of more than 2,000 nothing is told."""
    import xarray as xr

    values = np.full((300, 2, 3), 1, np.uint8)
    values[-1, 0, 0], values[:, 1, 1] = 2, 255
    lazy = xr.DataArray(values, dims=("time", "y", "x"), attrs={"legend": LANDCOVER.to_json()})
    found = geoseg.stack_history(lazy)
    assert (found.last_change.dtype, found.most_frequent.dtype) == (np.uint16, np.uint8)
    assert found.last_change.to_numpy().tolist() == [[300, 0, 0], [0, 65535, 0]]
    assert int(found.most_frequent[1, 1]) == 255
    with pytest.raises(InputError, match="1 to 2000 dates"):
        geoseg.stack_history(lazy[[0] * 2001])


def test_clouds_never_count_as_change(tmp_path: Path) -> None:
    """A mask on a coarser grid that begins elsewhere, and one for each date or none."""
    paths, values = dates(tmp_path, 3)
    mask = np.ones((30, 40), np.uint8)
    mask[5:12, 8:20] = 0
    coarse = write_raster(tmp_path / "m.tif", mask, Affine(6, 0, 400_000, 0, -6, 5_000_000))
    clouds = CloudOptions(masks=("-", str(coarse), "-"))
    found = geoseg.stack_files(paths, tmp_path / "out", options=geoseg.DateOptions(clouds=clouds))
    seen = values.copy()
    seen[1][np.kron(mask, np.ones((3, 3), np.uint8)) == 0] = 255
    for name, layer in expected(seen).items():
        assert np.array_equal(read_band(tmp_path / "out" / f"{name}.tif"), layer), name
    assert found.series.known[1] == pytest.approx((seen[1] != 255).mean())


def flagged(folder: Path, flags: NDArray[np.uint8], name: str) -> Path:
    """A scene with a QA band."""
    pixels = np.concatenate([np.random.default_rng(1).integers(20, 230, (3, 60, 64), np.uint8), flags[None]])
    return write(folder / name, pixels, descriptions=("red", "green", "blue", "qa"), crs="EPSG:32631", transform=UTM)


@pytest.mark.parametrize("how", ["bits", "values"])
def test_quality_flags_hide_the_ground(tmp_path: Path, how: str) -> None:
    """The same scene twice, of which the second is cloudy in part: nothing changes, and the cloud has no class."""
    flags = np.zeros((60, 64), np.uint8)
    flags[:10] = 0b0001 if how == "bits" else 4  # says something else
    flags[:, 40:] = 0b1000 if how == "bits" else 9
    paths = [flagged(tmp_path, np.zeros_like(flags), "1.tif"), flagged(tmp_path, flags, "2.tif")]
    told = {"qa_bits": (1, 3)} if how == "bits" else {"qa_values": (8, 9)}
    options = geoseg.DateOptions(clouds=CloudOptions(qa_band=4, **told))
    card = tiny_model().card.model_copy(update={"gsd_m": 2.0, "gsd_range_m": (1.0, 4.0)})
    model = geoseg.Model(tiny_model().network, card)
    found = geoseg.stack_files(paths, tmp_path / "out", model=model, options=options)
    second = read_band(tmp_path / "out" / "2.tif")
    assert (second[:, 40:] == 255).all()
    assert (second[:, :40] != 255).all()
    assert found.series.known.tolist() == [1.0, pytest.approx(40 / 64)]
    halo = read_band(tmp_path / "out" / "changes.tif")[:, :8]  # far from the cloud, which the network sees as the mean
    assert (halo == 0).all()
    assert geoseg.stack_files(paths, tmp_path / "out", model=model, options=options).up_to_date


def test_scenes_are_segmented_as_alone(tmp_path: Path) -> None:
    paths = [write_rgb(tmp_path / f"s_{2000 + seed}.tif", (60, 70), seed=seed) for seed in range(2)]
    found = geoseg.stack_files(paths, tmp_path / "out", model=tiny_model())
    for path in paths:
        geoseg.segment_file(path, tmp_path / "alone.tif", model=tiny_model(), overwrite=True)
        year = path.stem[2:]
        assert np.array_equal(read_band(tmp_path / "out" / f"{year}.tif"), read_band(tmp_path / "alone.tif"))
    assert [path.name for path in found.outputs[:2]] == ["2000.tif", "2001.tif"]


def test_scenes_are_moved_onto_the_first(tmp_path: Path) -> None:
    one, two = (tmp_path / f"{year}.tif" for year in (2001, 2002))
    for path, other in zip(scenes(tmp_path, (3.0, -2.0)), (one, two), strict=True):
        path.rename(other)
    found = series.open_stack((one, two), tmp_path / "out", geoseg.DateOptions(coregister=True), geoseg.SceneOptions())
    after = found.dates.after
    assert after.is_corrected
    assert after.shift is not None
    assert (after.shift.rows, after.shift.cols) == pytest.approx((-3, 2), abs=0.2)
    inside = np.s_[20:-20, 20:-20]
    first, own, back = (read_band(Path(path))[inside].astype(float) for path in (one, two, after.path))
    assert np.abs(back - first).mean() < 0.2 * np.abs(own - first).mean()


@pytest.mark.parametrize(
    ("names", "stated", "times"),
    [
        (["a_2016.tif", "b_2018.tif"], None, ("2016", "2018")),
        (["20160102.tif", "2016-03-04_x.tif"], None, ("2016-01-02", "2016-03-04")),
        (["a.tif", "b_2018.tif"], None, None),
        (["site_2016_2018.tif", "site_2016_2020.tif"], None, None),
        (["1985.tif", "other_1985.tif"], None, None),
        (["m_1234567_2020.tif", "m_99999999_2021.tif"], None, ("2020", "2021")),
        (["b_2018.tif", "a_2016.tif"], ["1", "2.5"], ("1", "2.5")),
        (["x", "y"], ["20200131", "2020-02"], ("2020-01-31", "2020-02")),
    ],
)
def test_times_are_stated_or_told_by_names(names: list[str], stated: list[str] | None, times: object) -> None:
    assert times_of(names, stated) == times


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paths, values = dates(tmp_path, 3)
    values[2] = 255
    write_raster(paths[2], values[2], UTM)
    given = ["geoseg", "stack", *paths, "-o", tmp_path / "out", "--times", "1,2,3", "--maps"]
    monkeypatch.setattr("sys.argv", list(map(str, given)))
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"{(values[0] == 1).sum() * 4 / 1e4:,.2f}" in told
    assert [line.split()[1] for line in told.splitlines() if line[:1].isdigit()][-1] == "0.0%"
    with rasterio.open(tmp_path / "out" / "changes.tif") as raster:
        assert raster.colormap(1)[0][:3] == (222, 222, 222)
