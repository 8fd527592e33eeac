"""The light of one date on another: known gains and offsets are found though much has changed, never chip by chip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from builders import tiny_model, write_rgb
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.exposure import match_histograms

import geoseg
from geoseg.catalog import open_named_reader
from geoseg.change import radiometry
from geoseg.change.dates import open_dates
from geoseg.change.matched import match_light
from geoseg.change.radiometry import find_radiometry, fit_radiometry, no_change_probability
from geoseg.errors import InputError
from geoseg.grid import Window
from geoseg.models import Model
from geoseg.raster.reader import Pixels, SceneOptions

GAINS, OFFSETS = np.array([1.3, 0.8, 1.1]), np.array([-20.0, 30.0, 8.0])
MAD = geoseg.DateOptions(radiometry="mad")
NAMES = ("red", "green", "blue")


def ground(shape: tuple[int, int] = (200, 220), seed: int = 0) -> NDArray[np.float64]:
    """(3, height, width) of fields and trees, whose bands go together, each with some of its own."""
    rng = np.random.default_rng(seed)
    common = gaussian_filter(rng.normal(size=shape), 4) * 200
    own = [gaussian_filter(rng.normal(size=shape), 2) * 60 for _ in NAMES]
    return np.stack([100 + common + one for one in own]).clip(30, 180)


def two_dates(share: float = 0.2) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """A place twice, in another light; a share of it became something bright. Also what changed."""
    rng = np.random.default_rng(1)
    first = ground()
    changed = np.zeros(first.shape[1:], bool)
    changed[: round(share * changed.shape[0])] = True
    now = first.copy()
    now[:, changed] = np.array([200.0, 90, 60])[:, None] + rng.normal(0, 15, (3, int(changed.sum())))
    second = now * GAINS[:, None, None] + OFFSETS[:, None, None] + rng.normal(0, 1.5, now.shape)
    return first + rng.normal(0, 1.5, first.shape), second, changed


def reads(values: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> Any:
    known = np.ones(values.shape[1:], bool) if valid is None else valid
    return lambda window: Pixels(values[:, *window.slices], known[window.slices])


def test_gains_and_offsets_are_found_though_a_fifth_has_changed() -> None:
    first, second, changed = two_dates()
    found = find_radiometry(reads(first), reads(second), first.shape[1:], bands=NAMES, method="mad")
    for curve, gain, offset in zip(found.curves, GAINS, OFFSETS, strict=True):
        assert curve.gain == pytest.approx(1 / gain, rel=0.02)
        assert curve.offset == pytest.approx(-offset / gain, abs=2)
    assert found.unchanged < found.pixels == changed.size
    naive = [np.polyfit(b.ravel(), a.ravel(), 1)[0] for a, b in zip(first, second, strict=True)]
    assert abs(naive[0] * GAINS[0] - 1) > 0.1  # least squares over all pixels is misled


def test_what_changed_does_not_pass_for_unchanged() -> None:
    first, second, changed = two_dates()
    chance = no_change_probability(first.reshape(3, -1).T, second.reshape(3, -1).T)
    assert (chance[changed.ravel()] > 0.5).mean() < 0.01
    assert (chance[~changed.ravel()] > 0.5).mean() > 0.4


def test_gains_do_not_matter_to_what_changed() -> None:
    """Alteration detection is invariant under linear transforms of either date (Nielsen et al. 1998)."""
    first, second, _ = two_dates()
    one, two = first.reshape(3, -1).T, second.reshape(3, -1).T
    mixed = two @ np.array([[2.0, 0.3, 0], [0, 0.5, 0.1], [0.2, 0, 1.5]]) + 7
    np.testing.assert_allclose(no_change_probability(one, two), no_change_probability(one, mixed), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_histograms_match_as_those_of_scikit_image(dtype: type) -> None:
    first, second, _ = two_dates()
    one, two = (values.clip(0, 255).astype(dtype) for values in (first, second))
    found = find_radiometry(reads(one), reads(two), one.shape[1:], bands=NAMES, method="histogram")
    expected = match_histograms(two.astype(np.float64), one.astype(np.float64), channel_axis=0)
    off = np.abs(found.apply(two) - expected)
    if dtype is np.float32:  # 1024 knots stand for 44,000 numbers
        assert np.quantile(off, 0.99) < 0.2
    else:
        assert off.max() < 0.51


def test_one_band_and_equal_bands_are_fitted_too() -> None:
    first, second, _ = two_dates(0.05)
    for bands in ([0], [1, 1]):
        one, two = first[bands].reshape(len(bands), -1).T, second[bands].reshape(len(bands), -1).T
        found = fit_radiometry(one, two, bands=NAMES[: len(bands)], method="mad")
        assert found.curves[0].gain == pytest.approx(1 / GAINS[bands[0]], rel=0.1)


def test_pixels_come_from_the_whole_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of any height give the same; where there are many pixels, some are taken everywhere."""
    first, second, _ = two_dates()
    whole = find_radiometry(reads(first), reads(second), first.shape[1:], bands=NAMES, method="mad")
    monkeypatch.setattr(radiometry, "STRIP", 17 * 220)
    again = find_radiometry(reads(first), reads(second), first.shape[1:], bands=NAMES, method="mad")
    assert np.allclose([c.gain for c in again.curves], [c.gain for c in whole.curves])
    monkeypatch.setattr(radiometry, "MOST_PIXELS", 6000)
    fewer = find_radiometry(reads(first), reads(second), first.shape[1:], bands=NAMES, method="mad")
    assert 4000 < fewer.pixels <= 6000
    assert np.allclose([c.gain for c in fewer.curves], 1 / GAINS, rtol=0.05)


def test_clouds_are_not_looked_at() -> None:
    first, second, changed = two_dates()
    second[:, :60] = 250
    valid = np.ones(changed.shape, bool)
    valid[:60] = False
    found = find_radiometry(reads(first), reads(second, valid), changed.shape, bands=NAMES, method="histogram")
    assert found.pixels == valid.sum()
    with pytest.raises(InputError, match="needs 100 pixels that are known on both dates; there are 0"):
        find_radiometry(reads(first), reads(second, ~valid & False), changed.shape, bands=NAMES, method="mad")


def test_dates_that_have_nothing_in_common_are_refused() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(2, 300, 3))
    with pytest.raises(InputError, match=r"of 300 pixels are alike|No band of one date grows"):
        fit_radiometry(one, -one + 0.1 * two, bands=NAMES, method="mad")


def test_a_band_that_went_the_other_way_stays(caplog: pytest.LogCaptureFixture) -> None:
    """Such as near infrared in another season."""
    first, second, _ = two_dates()
    one, two = first.reshape(3, -1).T, second.reshape(3, -1).T.copy()
    two[:, 2] = 300 - two[:, 2]
    found = fit_radiometry(one, two, bands=NAMES, method="mad")
    assert [curve.gain for curve in found.curves] == pytest.approx([1 / GAINS[0], 1 / GAINS[1], 1], rel=0.02)
    assert "Band blue does not grow" in caplog.text


def as_files(folder: Path, every: int = 1) -> tuple[Path, Path]:
    first, second = (values[:, ::every, ::every] for values in two_dates()[:2])
    paths = []
    for name, values in (("first", first), ("second", second)):
        stored = values.round().clip(1, 255).astype(np.uint8)
        stored[:, 40:50, 40:50] = 0
        paths.append(write_rgb(folder / f"{name}.tif", values=stored, crs="EPSG:32631", nodata=0))
    return paths[0], paths[1]


@pytest.mark.parametrize("method", ["mad", "histogram"])
def test_the_file_holds_what_the_arrays_do(tmp_path: Path, method: Any) -> None:
    first, second = as_files(tmp_path)
    vrt, found = match_light(
        str(first), str(second), tmp_path / "d" / "m.vrt", (SceneOptions(), SceneOptions()), method
    )
    with rasterio.open(vrt) as matched, rasterio.open(second) as own:
        assert (matched.transform, matched.crs, matched.nodata) == (own.transform, own.crs, 0)
        assert matched.descriptions == own.descriptions
        assert np.array_equal(matched.read(), found.apply(own.read(), 0))
        assert ((matched.read() == 0) == (own.read() == 0)).all()
    written = vrt.stat().st_mtime_ns
    match_light(str(first), str(second), vrt, (SceneOptions(), SceneOptions()), method)
    assert vrt.stat().st_mtime_ns == written


def test_nodata_that_only_the_user_states_stays_nodata(tmp_path: Path) -> None:
    first, second = as_files(tmp_path)
    for path in (first, second):
        with rasterio.open(path, "r+") as raster:
            raster.nodata = None
    stated = SceneOptions(nodata=0)
    vrt, _ = match_light(str(first), str(second), tmp_path / "m.vrt", (stated, stated), "mad")
    whole = Window(0, 0, 200, 220)
    own, matched = (open_named_reader(str(path), stated).read(whole) for path in (second, vrt))
    assert np.array_equal(own.valid, matched.valid)
    assert not own.valid.all()


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_other_numbers_and_masks_are_kept(tmp_path: Path, dtype: str) -> None:
    first, second = two_dates()[:2]
    paths = []
    for name, values in (("first", first), ("second", second)):
        path = tmp_path / f"{name}.tif"
        profile = {"driver": "GTiff", "dtype": dtype, "count": 3, "height": 200, "width": 220}
        with rasterio.open(path, "w", **profile, transform=Affine(2, 0, 0, 0, -2, 0), crs="EPSG:32631") as raster:
            raster.write((values * 20).astype(dtype))
            raster.write_mask(np.tile(np.arange(220) < 200, (200, 1)))
        paths.append(str(path))
    bands = {name: str(number) for number, name in enumerate(NAMES, 1)}
    vrt, found = match_light(*paths, tmp_path / "m.vrt", (SceneOptions(bands=bands),) * 2, "mad")
    pixels = open_named_reader(str(vrt), SceneOptions(bands=bands)).read(Window(0, 0, 200, 220))
    assert np.array_equal(pixels.valid, np.tile(np.arange(220) < 200, (200, 1)))
    own = open_named_reader(paths[1], SceneOptions(bands=bands)).read(Window(0, 0, 200, 220))
    expected = found.apply(own.values)
    assert np.abs(pixels.values.astype(float) - expected.astype(float)).max() <= (1e-2 if dtype == "float32" else 1)


def test_lazy_dates_are_matched_as_files_are(tmp_path: Path) -> None:
    """Change in one light, from files and as xarray; whole scenes are looked at, only when something is asked for."""
    first, second = as_files(tmp_path, 3)
    run = geoseg.RunOptions(chip=192, block=128)
    sure = Model(tiny_model().network, tiny_model().card.model_copy(update={"temperature": 0.05}))
    found = geoseg.change_files(first, second, tmp_path / "c.tif", model=sure, dates=MAD, run=run)
    assert found.radiometry is not None
    scenes = [geoseg.open_scene(path) for path in (first, second)]
    change = geoseg.detect_change(*scenes, sure, radiometry="mad", run=run)
    with rasterio.open(tmp_path / "c.tif") as raster:
        stored = raster.read(1)
    assert (change.transition.to_numpy() == stored).mean() > 0.99
    plain = geoseg.detect_change(*scenes, sure, run=run)
    assert (plain.transition.to_numpy() != stored).mean() > 0.02
    stack = geoseg.segment_stack(scenes, sure, radiometry="mad", run=run)
    alone = geoseg.segment(geoseg.open_scene(tmp_path / "c-dates" / "after-matched.vrt"), sure, run=run)
    assert np.array_equal(stack.class_map[1], alone.class_map)


def test_class_maps_have_no_light(tmp_path: Path) -> None:
    first, _ = as_files(tmp_path)
    cover = tmp_path / "cover.tif"
    geoseg.segment_file(first, cover, model=tiny_model())
    with pytest.raises(InputError, match="no light to be matched"):
        geoseg.change_files(cover, cover, tmp_path / "c.tif", dates=MAD)
    with pytest.raises(InputError, match="none, mad, histogram, not 'sift'"):
        geoseg.DateOptions(radiometry="sift")  # type: ignore[arg-type]
    maps = [xr.DataArray(np.ones((3, 3)))] * 2
    with pytest.raises(InputError, match="no light to be matched"):
        geoseg.detect_change(*maps, radiometry="histogram")


def test_scenes_stored_in_two_ways_are_refused(tmp_path: Path) -> None:
    first, second = as_files(tmp_path)
    deep = write_rgb(tmp_path / "deep.tif", values=np.full((3, 200, 220), 900, np.uint16), crs="EPSG:32631")
    with pytest.raises(InputError, match=r"stored alike.*uint8.*uint16"):
        open_dates((first, deep), MAD).on_grid(tmp_path / "d", "ab")
    assert open_dates((first, second), MAD).on_grid(tmp_path / "d", "ab").after.radiometry is not None
