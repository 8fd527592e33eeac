"""Two dates, as maps and as scenes, to transitions: aligned, counted, written, resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
from affine import Affine
from builders import save_tiny, tiny_model, write_rgb
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.warp import reproject
from scipy.ndimage import fourier_shift, gaussian_filter
from test_vectorize import write_raster

import geoseg
from geoseg.change.align import Dated, common_grid, resampled
from geoseg.change.detect import ChangeOptions, read_matrix
from geoseg.change.shift import estimate_shift
from geoseg.cli import main
from geoseg.errors import InputError
from geoseg.legend import LANDCOVER
from geoseg.models import Model
from geoseg.over_time import change_files
from geoseg.raster.georeference import Georef
from geoseg.raster.landcover import read_legend
from geoseg.raster.reader import Pixels

UTM = Affine(2, 0, 400_000, 0, -2, 5_000_000)
CRS31 = CRS.from_epsg(32631)


def class_map(seed: int, shape: tuple[int, int] = (90, 120), coarse: int = 6) -> NDArray[np.uint8]:
    values = np.random.default_rng(seed).integers(1, 7, (-(-shape[0] // coarse), -(-shape[1] // coarse)))
    return np.kron(values, np.ones((coarse, coarse), int))[: shape[0], : shape[1]].astype(np.uint8)


def read(path: Path) -> NDArray[Any]:
    with rasterio.open(path) as raster:
        values: NDArray[Any] = raster.read(1)
    return values


def expected_codes(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> NDArray[np.uint8]:
    codes = np.where(before == after, 0, 1 + 15 * (before.astype(int) - 1) + after - 1)
    return np.where((before == 255) | (after == 255), 255, codes).astype(np.uint8)


def test_maps_on_one_grid_give_the_crosstab(tmp_path: Path) -> None:
    one, two = class_map(1), class_map(2)
    one[:10, :10], two[50:, 100:] = 255, 255
    paths = [write_raster(tmp_path / f"{i}.tif", values, UTM) for i, values in enumerate((one, two))]
    found = change_files(*paths, tmp_path / "change.tif", polygons=tmp_path / "change.gpkg")
    assert np.array_equal(read(tmp_path / "change.tif"), expected_codes(one, two))
    known = (one != 255) & (two != 255)
    table = pd.crosstab(one[known], two[known])
    assert np.array_equal(found.matrix.pixels, table.to_numpy())
    np.testing.assert_allclose(found.matrix.m2, table.to_numpy() * 4.0, rtol=1e-9)
    assert np.array_equal(read_matrix(tmp_path / "change.tif").pixels, table.to_numpy())
    assert read_legend(tmp_path / "change.tif").names[0] == "unchanged"
    polygons = gpd.read_file(tmp_path / "change.gpkg", layer="polygons")
    assert polygons.area_m2.sum() == pytest.approx(4.0 * (table.to_numpy().sum() - np.trace(table.to_numpy())))
    assert set(polygons.before) == {"0.tif"}
    pairs = polygons.groupby(["from_class", "to_class"]).area_m2.sum()
    for (old, new), area in pairs.items():
        assert area == found.matrix.m2[found.matrix.names.index(old), found.matrix.names.index(new)]
    again = change_files(*paths, tmp_path / "change.tif", polygons=tmp_path / "change.gpkg")
    assert again.up_to_date
    assert np.array_equal(again.matrix.pixels, found.matrix.pixels)


def test_other_extents_and_resolutions_meet_on_the_finer_grid(tmp_path: Path) -> None:
    """The second date is coarser, begins elsewhere and reaches beyond; outside both is nodata in a union."""
    one, two = class_map(1), class_map(2, (40, 50), 2)
    coarse = Affine(4, 0, 400_000 + 40, 0, -4, 5_000_000 - 24)
    paths = [write_raster(tmp_path / "1.tif", one, UTM), write_raster(tmp_path / "2.tif", two, coarse)]
    found = change_files(*paths, tmp_path / "change.tif")
    fine = np.kron(two, np.ones((2, 2), np.uint8))
    assert np.array_equal(read(tmp_path / "change.tif"), expected_codes(one[12:90, 20:120], fine[:78, :100]))
    assert found.transform == UTM @ Affine.translation(20, 12)
    whole = change_files(*paths, tmp_path / "union.tif", dates=geoseg.DateOptions(extent="union"))
    assert whole.shape == (92, 120)
    codes = read(tmp_path / "union.tif")
    assert (codes[:12] == 255).all()
    assert (codes[90:] == 255).all()
    assert np.array_equal(codes[12:90, 20:], read(tmp_path / "change.tif"))


def test_another_crs_is_warped_as_gdal_does(tmp_path: Path) -> None:
    one, two = class_map(1), class_map(2, (150, 150))
    there = Affine(2.9, 0, 190_870, 0, -2.9, 5_640_330)
    two_path = write_raster(tmp_path / "2.tif", two, there, "EPSG:3857")
    with rasterio.open(two_path) as raster:
        x, y = raster.transform @ (75, 75)
    lon = x / 6378137 * 180 / np.pi
    assert 1 < lon < 3
    from pyproj import Transformer

    east, north = Transformer.from_crs(3857, 32631, always_xy=True).transform(x, y)
    grid = Affine(2, 0, round(east) - 100, 0, -2, round(north) + 80)
    one_path = write_raster(tmp_path / "1.tif", one, grid)
    found = change_files(one_path, two_path, tmp_path / "change.tif")
    warped = np.full(found.shape, 255, np.uint8)
    reproject(
        two,
        warped,
        src_transform=there,
        src_crs="EPSG:3857",
        dst_transform=found.transform,
        dst_crs=found.crs,
        src_nodata=255,
        dst_nodata=255,
        resampling=Resampling.nearest,
    )
    rows, cols = (round(v) for v in (~grid @ (found.transform.c, found.transform.f))[::-1])
    own = one[rows : rows + found.shape[0], cols : cols + found.shape[1]]
    same = read(tmp_path / "change.tif") == expected_codes(own, warped)
    assert found.shape[0] > 60
    assert same.mean() > 0.99  # GDAL's approximation of a transform depends on the window


def test_areas_are_of_the_ground_in_degrees(tmp_path: Path) -> None:
    degrees = Affine(1e-5, 0, 3, 0, -1e-5, 60)
    one, two = class_map(1), class_map(2)
    paths = [write_raster(tmp_path / f"{i}.tif", v, degrees, "EPSG:4326") for i, v in enumerate((one, two))]
    found = change_files(*paths, tmp_path / "change.tif")
    assert found.matrix.m2.sum() == pytest.approx(one.size * 111_412 * 1e-5 * 55_800 * 1e-5, rel=2e-3)


@pytest.mark.parametrize(("min_area", "min_width"), [(200.0, 0.0), (0.0, 10.0), (100.0, 6.0)])
def test_small_changes_do_not_count(tmp_path: Path, min_area: float, min_width: float) -> None:
    before = np.full((1100, 1300), 5, np.uint8)  # several blocks
    after = before.copy()
    after[1020:1030, 1020:1030] = 1  # 400 m², across a corner of four blocks
    after[500, 400:900] = 3  # a sliver
    after[100:103, 100:103] = 6
    paths = [write_raster(tmp_path / f"{i}.tif", v, UTM) for i, v in enumerate((before, after))]
    options = ChangeOptions(min_area_m2=min_area, min_width_m=min_width)
    found = change_files(*paths, tmp_path / "change.tif", options=options)
    codes = read(tmp_path / "change.tif")
    assert (codes[1020:1030, 1020:1030] == 1 + 15 * 4).all()
    assert (codes[100:103, 100:103] == 0).all()
    assert (codes[500] == 0).all() == bool(min_width)
    assert found.matrix.pixels[4, 0] == 100


def texture(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Edges like those of fields and roofs."""
    rng = np.random.default_rng(seed)
    noise = gaussian_filter(rng.normal(size=shape), 3)
    return np.where(noise > 0, 180.0, 60.0) + gaussian_filter(rng.normal(size=shape), 1) * 40


def shifted(picture: NDArray[np.float64], rows: float, cols: float) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = np.fft.ifft2(fourier_shift(np.fft.fft2(picture), (rows, cols))).real
    return moved


@pytest.mark.parametrize("by", [(0.1, 0.0), (0.5, -0.3), (-2.0, 1.7), (4.4, -6.1), (8.0, 8.0), (0.0, 0.0)])
def test_shifts_are_found_to_a_fifth_of_a_pixel(by: tuple[float, float]) -> None:
    """Shifted by SciPy's Fourier shift; brightness and noise differ between the dates."""
    first = gaussian_filter(texture((600, 700)), 0.8)
    second = 0.7 * shifted(first, *by) + 30 + np.random.default_rng(1).normal(0, 4, first.shape)

    def reads(values: NDArray[np.float64]) -> Any:
        return lambda window: Pixels(values[None][:, *window.slices], np.ones(window.shape, np.bool_))

    found = estimate_shift(reads(first), reads(second), first.shape)
    assert found is not None
    assert abs(found.rows + by[0]) < 0.2
    assert abs(found.cols + by[1]) < 0.2
    assert found.windows >= 3


def test_nothing_tells_no_shift() -> None:
    flat = Pixels(np.full((1, 64, 64), 7.0), np.ones((64, 64), np.bool_))
    assert estimate_shift(lambda _: flat, lambda _: flat, (64, 64)) is None
    clouded = Pixels(flat.values, np.zeros((64, 64), np.bool_))
    assert estimate_shift(lambda _: flat, lambda _: clouded, (64, 64)) is None


def scenes(folder: Path, by: tuple[float, float] = (0, 0)) -> list[Path]:
    picture = gaussian_filter(texture((320, 330)), 0.8)
    moved = shifted(picture, *by)
    values = [np.stack([p, 0.9 * p, 0.8 * p]).clip(0, 255).astype(np.uint8) for p in (picture, moved)]
    return [write_rgb(folder / f"{i}.tif", values=v, crs="EPSG:32631") for i, v in enumerate(values)]


def test_a_scene_compared_with_itself_has_not_changed(tmp_path: Path) -> None:
    bundle = save_tiny(tmp_path / "tiny")
    one = scenes(tmp_path)[0]
    found = change_files(one, one, tmp_path / "c.tif", model=bundle, probability=tmp_path / "p.tif")
    assert np.trace(found.matrix.pixels) == found.matrix.pixels.sum() == 320 * 330
    assert found.shift is not None
    assert (found.shift.rows, found.shift.cols) == (0, 0)
    assert read(tmp_path / "p.tif").max() < 200
    assert (tmp_path / "c-dates" / "before.tif").is_file()
    assert change_files(one, one, tmp_path / "c.tif", model=bundle, probability=tmp_path / "p.tif").up_to_date


def test_coregistration_takes_false_change_away(tmp_path: Path) -> None:
    """A scene and the same moved by two pixels: what changes falls to about nothing once it is moved back."""
    sure = Model(tiny_model().network, tiny_model().card.model_copy(update={"temperature": 0.05}))
    one, two = scenes(tmp_path, (2.0, -1.0))
    changed = []
    for name, coregister in (("as-is", False), ("moved", True)):
        dates = geoseg.DateOptions(coregister=coregister)
        found = change_files(one, two, tmp_path / f"{name}.tif", model=sure, dates=dates)
        assert found.shift is not None
        assert found.shift.rows == pytest.approx(-2, abs=0.2)
        assert found.shift.cols == pytest.approx(1, abs=0.2)
        pixels = found.matrix.pixels
        changed.append(1 - np.trace(pixels) / pixels.sum())
    assert changed[1] < 0.35 * changed[0]


def test_scenes_on_other_grids_keep_their_band_names(tmp_path: Path) -> None:
    scene = write_rgb(tmp_path / "scene.tif", (64, 64), crs="EPSG:32631")
    grid = Georef((30, 40), Affine(1, 0, 500_002, 0, -1, 4_999_998), CRS31)
    vrt = resampled(scene, grid, tmp_path / "there.vrt", classes=False)
    with rasterio.open(vrt) as raster, rasterio.open(scene) as own:
        assert raster.descriptions[:3] == own.descriptions
        assert raster.transform == grid.transform
        means = own.read()[:, 4:32, 4:64].reshape(3, 14, 2, 30, 2).mean((2, 4))
        np.testing.assert_allclose(raster.read()[:3, :14, :30], means, atol=1)
        assert (raster.dataset_mask()[:14, :30] == 255).all()
        assert (raster.dataset_mask()[14:16, 30:] == 0).all() or raster.count == 4


def test_the_common_grid_is_the_finest_dates() -> None:
    finer = Affine(1, 0, 400_050.3, 0, -1, 4_999_900)
    dates = [Dated("a", Georef((100, 100), UTM, CRS31)), Dated("b", Georef((500, 500), finer, CRS31))]
    grid = common_grid(dates)
    assert grid.transform == dates[1].georef.transform
    assert grid.shape == (100, 149)
    coarser = common_grid(dates, resolution=10)
    assert coarser.transform.a == 10
    assert common_grid(dates[:1] * 2) == dates[0].georef


def refused(tmp_path: Path, transform: Affine = UTM, crs: str | None = "EPSG:32631", values: Any = None) -> Path:
    return write_raster(tmp_path / "other.tif", class_map(2) if values is None else values, transform, crs)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", class_map(1), UTM)
    with pytest.raises(InputError, match=r"do not overlap.*x 400000.*x 900000"):
        change_files(one, refused(tmp_path, Affine(2, 0, 900_000, 0, -2, 5_000_000)), tmp_path / "c.tif")
    with pytest.raises(InputError, match=r"other.tif has no CRS"):
        change_files(one, refused(tmp_path, crs=None), tmp_path / "c.tif")
    with pytest.raises(InputError, match="class map with a legend"):
        change_files(one, write_rgb(tmp_path / "scene.tif", crs="EPSG:32631"), tmp_path / "c.tif")
    other = refused(tmp_path)
    with rasterio.open(other, "r+") as raster:
        raster.update_tags(GEOSEG_LEGEND=LANDCOVER.to_json().replace('"water"', '"lake"'))
    with pytest.raises(InputError, match=r"legends differ.*lake"):
        change_files(one, other, tmp_path / "c.tif")
    with pytest.raises(InputError, match="tell a shift"):
        change_files(one, one, tmp_path / "c.tif", dates=geoseg.DateOptions(coregister=True))
    with pytest.raises(InputError, match=r"missing.tif"):
        change_files(one, tmp_path / "missing.tif", tmp_path / "c.tif")
    assert not (tmp_path / "c.tif").exists()
    change_files(one, one, tmp_path / "c.tif")
    with pytest.raises(InputError, match="--overwrite"):
        change_files(one, one, tmp_path / "c.tif", options=ChangeOptions(min_area_m2=50))


@pytest.mark.parametrize("options", [{"prior": 0}, {"threshold": 1}, {"min_area_m2": -1}, {"min_width_m": np.inf}])
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="not"):
        ChangeOptions(**options)


def test_metres_need_a_crs(tmp_path: Path) -> None:
    one = write_raster(tmp_path / "one.tif", class_map(1), UTM, None)
    with pytest.raises(InputError, match="no CRS"):
        change_files(one, one, tmp_path / "c.tif", options=ChangeOptions(min_area_m2=5))
    assert change_files(one, one, tmp_path / "c.tif").matrix.m2.sum() == 90 * 120


@pytest.mark.parametrize(("transform", "crs"), [(UTM, "EPSG:32631"), (Affine(1e-5, 0, 3, 0, -1e-5, 60), "EPSG:4326")])
def test_dates_without_a_change_have_no_polygons(tmp_path: Path, transform: Affine, crs: str) -> None:
    one = write_raster(tmp_path / "one.tif", class_map(1), transform, crs)
    found = change_files(one, one, tmp_path / "c.tif", polygons=tmp_path / "c.gpkg")
    assert np.trace(found.matrix.pixels) == found.matrix.pixels.sum() == 90 * 120
    assert len(gpd.read_file(tmp_path / "c.gpkg", layer="polygons")) == 0


def test_clouds_of_either_date_are_no_change(tmp_path: Path) -> None:
    """By masks of both dates, of maps and of scenes; the matrix does not count what they hide."""
    masks = [np.ones((90, 120), np.uint8), np.ones((90, 120), np.uint8)]
    masks[0][:30], masks[1][:, 100:] = 0, 0
    paths = [str(write_raster(tmp_path / f"m{i}.tif", mask, UTM)) for i, mask in enumerate(masks)]
    dates = geoseg.DateOptions(clouds=geoseg.CloudOptions(masks=tuple(paths)))
    shown = (masks[0] & masks[1]).astype(bool)
    one, two = class_map(1), class_map(2)
    maps = [write_raster(tmp_path / f"{i}.tif", values, UTM) for i, values in enumerate((one, two))]
    found = change_files(*maps, tmp_path / "c.tif", dates=dates)
    expected = np.where(shown, expected_codes(one, two), 255)
    assert np.array_equal(read(tmp_path / "c.tif"), expected)
    assert found.matrix.pixels.sum() == shown.sum()
    bands = [np.repeat(values[None] * 40, 3, 0).astype(np.uint8) for values in (one, two)]
    places = {"transform": UTM, "crs": "EPSG:32631"}
    seen = [write_rgb(tmp_path / f"s{i}.tif", values=values, **places) for i, values in enumerate(bands)]
    card = tiny_model().card.model_copy(update={"gsd_m": 2.0, "gsd_range_m": (1.0, 4.0)})
    change_files(*seen, tmp_path / "s.tif", model=Model(tiny_model().network, card), dates=dates)
    assert np.array_equal(read(tmp_path / "s.tif") != 255, shown)


def test_all_cloud_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """On one date, or where each date shows what the other hides; a single pixel suffices."""
    one = class_map(1)
    one[:50], hidden = 255, np.full_like(one, 255)
    first = write_raster(tmp_path / "one.tif", one, UTM)
    for two, seen in ((hidden, "0"), (np.where(one == 255, np.uint8(1), np.uint8(255)), "6,000")):
        second = write_raster(tmp_path / "two.tif", two, UTM)
        with pytest.raises(InputError, match=rf"of 10,800 .* one.tif shows 4,800 and two.tif {seen}"):
            change_files(first, second, tmp_path / "c.tif")
        assert not (tmp_path / "c.tif").exists()
    hidden[89, 119] = 1
    found = change_files(first, write_raster(tmp_path / "two.tif", hidden, UTM), tmp_path / "c.tif")
    assert found.matrix.pixels.sum() == 1


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write_raster(tmp_path / f"{i}.tif", class_map(i), UTM) for i in range(2)]
    given = ["geoseg", "change", *paths, "-o", tmp_path / "c.tif", "--polygons", tmp_path / "c.gpkg"]
    monkeypatch.setattr(sys, "argv", list(map(str, given)))
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    told = capsys.readouterr().out
    assert "building to water" in told
    assert "120 x 90 px, EPSG:32631" in told
    assert "kept" not in told
    assert geoseg.change_files is change_files


def test_the_command_line_tells_what_is_kept_and_whole_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dates on two grids leave a folder; without a CRS areas are counted pixels."""
    places = (UTM, UTM @ Affine.translation(2, 0))
    paths = [write_raster(tmp_path / f"{i}.tif", class_map(i), place, None) for i, place in enumerate(places)]
    monkeypatch.setattr(sys, "argv", ["geoseg", "change", *map(str, paths), "-o", str(tmp_path / "c.tif")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    told = capsys.readouterr().out
    assert "px  changed, of 10620 px" in told
    assert f"kept   {tmp_path / 'c-dates'}: " in told
    assert (tmp_path / "c-dates" / "after.vrt").is_file()
