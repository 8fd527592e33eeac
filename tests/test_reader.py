from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.shutil import copy as copy_raster
from scene_files import AT, UTM, ramp, write

from geoseg.errors import GeosegError, InputError
from geoseg.grid.window import Window, windows_of
from geoseg.raster.scene import Pixels, SceneOptions, SceneReader, open_reader

DTYPES = ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"tiled": True, "blockxsize": 16, "blockysize": 16},
    {"interleave": "band"},
    {"interleave": "pixel", "compress": "deflate", "predictor": 2},
    {"BIGTIFF": "YES", "ENDIANNESS": "BIG"},
]


def whole(reader: SceneReader) -> Pixels:
    return reader.read(Window(0, 0, *reader.shape))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bands", [1, 3, 7])
def test_every_dtype_and_band_count_reads_as_stored(tmp_path: Path, dtype: str, bands: int) -> None:
    values = ramp(bands, dtype=dtype)
    reader = open_reader(write(tmp_path / "a.tif", values))
    assert reader.dtype == dtype
    assert len(reader.bands) == bands
    pixels = whole(reader)
    assert pixels.values.dtype == dtype
    np.testing.assert_array_equal(pixels.values, values)
    assert pixels.valid.all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_layout_gives_the_same_windows(tmp_path: Path, layout: dict[str, Any]) -> None:
    values = ramp(dtype="uint16")
    reader = open_reader(write(tmp_path / "a.tif", values, **layout))
    for window in windows_of(reader.shape, 19):
        np.testing.assert_array_equal(reader.read(window).values, values[(slice(None), *window.slices)])


@pytest.mark.parametrize(
    "transform",
    [
        Affine(0.1, 0, 1 / 3, 0, -0.1, 50.1),
        Affine(0.1, 0, 1 / 3, 0, 0.1, 50.1),
        Affine(0.3, 0.1, 4e5 + 1 / 7, 0.1, -0.3, 5e6),
        Affine(2.5, 0, 4e5, 0, -10.1, 5e6),
    ],
    ids=["north_up", "south_up", "rotated", "not_square"],
)
def test_transforms_are_kept_bit_for_bit(tmp_path: Path, transform: Affine) -> None:
    reader = open_reader(write(tmp_path / "a.tif", ramp(), transform=transform))
    assert reader.transform == transform
    assert reader.geobox.affine == transform
    assert reader.crs == rasterio.CRS.from_epsg(32631)


def test_a_window_over_the_edge_is_refused(tmp_path: Path) -> None:
    reader = open_reader(write(tmp_path / "a.tif", ramp()))
    with pytest.raises(InputError, match=r"rows 30:40, columns 0:10 reaches over the scene's 37 rows x 53 columns"):
        reader.read(Window(30, 0, 10, 10))
    empty = reader.read(Window(3, 4, 0, 5))
    assert empty.values.shape == (3, 0, 5)
    assert empty.valid.shape == (0, 5)


# --- what counts as measured ---------------------------------------------------------------------------------------


def test_nodata_in_any_used_band_is_not_measured(tmp_path: Path) -> None:
    values = ramp()
    values[0, 1, 1] = values[2, 5, 6] = 0
    reader = open_reader(write(tmp_path / "a.tif", values, nodata=0))
    assert reader.has_mask
    expected = (values != 0).all(axis=0)
    np.testing.assert_array_equal(whole(reader).valid, expected)
    only_red = reader.select([reader.bands[0]])
    np.testing.assert_array_equal(whole(only_red).valid, values[0] != 0)


def test_nan_and_infinity_are_not_measured(tmp_path: Path) -> None:
    values = ramp(2, dtype="float32")
    values[0, 1, 1], values[1, 2, 2], values[1, 3, 3] = np.nan, np.inf, -9999
    for name, nodata in (("a.tif", None), ("b.tif", np.nan), ("c.tif", -9999.0)):
        reader = open_reader(write(tmp_path / name, values, nodata=nodata))
        expected = np.isfinite(values).all(axis=0) & ((values != -9999).all(axis=0) | (nodata != -9999))
        np.testing.assert_array_equal(whole(reader).valid, expected)


def test_least_float32_written_with_few_digits_is_nodata(tmp_path: Path) -> None:
    values = ramp(1, dtype="float32")
    values[0, 2, 3] = np.finfo("float32").min
    write(tmp_path / "a.tif", values)
    reader = open_reader(tmp_path / "a.tif", SceneOptions(nodata=-3.40283e38))
    assert not whole(reader).valid[2, 3]
    assert whole(reader).valid.sum() == values.size - 1


def test_nodata_may_differ_per_band(tmp_path: Path) -> None:
    values = ramp(2)
    values[0, 1, 1] = values[1, 1, 2] = 0
    values[0, 2, 1] = values[1, 2, 2] = 255
    write(tmp_path / "a.tif", values)
    vrt = tmp_path / "a.vrt"
    copy_raster(str(tmp_path / "a.tif"), str(vrt), driver="VRT")
    text = vrt.read_text()
    for number, nodata in ((1, 0), (2, 255)):
        band = f'band="{number}"'
        start = text.index(band)
        end = text.index(">", start) + 1
        text = text[:end] + f"<NoDataValue>{nodata}</NoDataValue>" + text[end:]
    vrt.write_text(text)
    reader = open_reader(vrt)
    assert [band.nodata for band in reader.layers] == [0, 255]
    np.testing.assert_array_equal(whole(reader).valid, (values[0] != 0) & (values[1] != 255))


def test_nodata_that_no_pixel_can_be_masks_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", ramp())
    vrt = tmp_path / "a.vrt"
    copy_raster(str(tmp_path / "a.tif"), str(vrt), driver="VRT")
    vrt.write_text(vrt.read_text().replace('band="1">', 'band="1"><NoDataValue>-9999</NoDataValue>'))
    assert whole(open_reader(vrt)).valid.all()
    with pytest.raises(InputError, match="No pixel of dtype uint8 can be the nodata value -9999"):
        open_reader(tmp_path / "a.tif", SceneOptions(nodata=-9999))


def test_stated_nodata_stands_in_place_of_the_files(tmp_path: Path) -> None:
    values = ramp()
    values[:, 1, 1], values[:, 2, 2] = 0, 255
    write(tmp_path / "a.tif", values, nodata=0)
    valid = whole(open_reader(tmp_path / "a.tif", SceneOptions(nodata=255))).valid
    assert valid[1, 1]
    assert not valid[2, 2]


@pytest.mark.parametrize("internal", ["YES", "NO"])
def test_masks_inside_and_beside_the_file_count(tmp_path: Path, internal: str) -> None:
    values = ramp()
    mask = np.full(values.shape[1:], 255, np.uint8)
    mask[3:9, 4:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        write(tmp_path / "a.tif", values, mask=mask)
    assert (tmp_path / "a.tif.msk").exists() == (internal == "NO")
    reader = open_reader(tmp_path / "a.tif")
    assert reader.has_mask
    window = Window(2, 3, 11, 12)
    np.testing.assert_array_equal(reader.read(window).valid, mask[window.slices] != 0)


def test_internal_mask_and_nodata_both_count(tmp_path: Path) -> None:
    values = ramp()
    values[0, 20, 20] = 0
    mask = np.full(values.shape[1:], 255, np.uint8)
    mask[3:9, 4:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"):
        write(tmp_path / "a.tif", values, mask=mask, nodata=0)
    np.testing.assert_array_equal(whole(open_reader(tmp_path / "a.tif")).valid, (mask != 0) & (values[0] != 0))


def rgba(path: Path, values: np.ndarray, **profile: Any) -> Path:
    colors = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return write(path, values, colors=colors, photometric="RGB", **profile)


def test_alpha_masks_and_is_no_band(tmp_path: Path) -> None:
    values = ramp(4)
    values[3] = 255
    values[3, :5], values[3, 5] = 0, 100
    reader = open_reader(rgba(tmp_path / "a.tif", values))
    assert reader.bands == ("red", "green", "blue")
    np.testing.assert_array_equal(whole(reader).valid, values[3] != 0)
    np.testing.assert_array_equal(whole(reader).values, values[:3])


def test_a_band_that_is_only_called_alpha_can_be_named(tmp_path: Path) -> None:
    values = ramp(4)
    values[3, 0, 0] = 0
    reader = open_reader(rgba(tmp_path / "a.tif", values), SceneOptions(bands={"nir": "4"}))
    assert reader.bands == ("red", "green", "blue", "nir")
    assert whole(reader).valid.all()
    with_nodata = open_reader(rgba(tmp_path / "b.tif", values, nodata=0))  # then GDAL's mask is nodata, not alpha
    assert with_nodata.bands == ("red", "green", "blue", "band_4")


def test_a_description_counts_more_than_the_colour_alpha(tmp_path: Path) -> None:
    values = ramp(4)
    values[3, 0, 0] = 0
    names = ["red", "green", "blue", "nir"]
    reader = open_reader(rgba(tmp_path / "a.tif", values, descriptions=names))
    assert reader.bands == tuple(names)
    assert not reader.has_mask
    assert whole(reader).valid.all()
    assert open_reader(rgba(tmp_path / "b.tif", values, descriptions=[*names[:3], "Alpha"])).bands == tuple(names[:3])


def test_valid_mask_is_read_on_the_same_grid(tmp_path: Path) -> None:
    values = ramp()
    mask = np.ones((1, *values.shape[1:]), np.uint8)
    mask[:, 10:20, 5:9] = 0
    scene, beside = write(tmp_path / "a.tif", values), write(tmp_path / "m.tif", mask)
    reader = open_reader(scene, SceneOptions(valid_mask=str(beside)))
    assert reader.has_mask
    np.testing.assert_array_equal(whole(reader).valid, mask[0] != 0)
    other = write(tmp_path / "n.tif", mask[:, :30])
    with pytest.raises(InputError, match=r"has 30 rows x 53 columns, the scene has 37 x 53"):
        open_reader(scene, SceneOptions(valid_mask=str(other)))
    shifted = write(tmp_path / "s.tif", mask, transform=AT @ Affine.translation(1, 0))
    with pytest.raises(InputError, match=r"covers \(500010, .* the scene covers \(500000, "):
        open_reader(scene, SceneOptions(valid_mask=str(shifted)))


# --- windows only --------------------------------------------------------------------------------------------------


def test_a_million_by_a_million_pixels_are_read_by_window(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    side = 1_000_000
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 1, "dtype": "uint8", "crs": UTM}
    layout = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "SPARSE_OK": True, "compress": "zstd"}
    with rasterio.open(path, "w", transform=AT, BIGTIFF="YES", **profile, **layout) as file:
        at = rasterio.windows.Window(700_000, 900_000, 64, 64)
        file.write(np.full((1, 64, 64), 7, np.uint8), window=at)
    reader = open_reader(path)
    assert reader.shape == (side, side)
    pixels = reader.read(Window(899_990, 700_000, 20, 20))
    assert pixels.values[0, :10].max() == 0
    assert pixels.values[0, 10:].min() == 7
    lazy = reader.to_xarray()
    assert int(lazy.isel(y=slice(900_000, 900_010), x=slice(700_000, 700_010)).sum().compute()) == 700


def test_overviews_are_not_read_at_full_resolution(tmp_path: Path) -> None:
    values = ramp(1, 256, 256)
    path = write(tmp_path / "a.tif", values, tiled=True, blockxsize=64, blockysize=64)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    np.testing.assert_array_equal(whole(open_reader(path)).values, values)


# --- bands ---------------------------------------------------------------------------------------------------------


def test_select_orders_bands_and_names_what_is_missing(tmp_path: Path) -> None:
    values = ramp(4)
    path = write(tmp_path / "a.tif", values, descriptions=["blue", "green", "red", "nir"])
    reader = open_reader(path).select(["nir", "red"])
    assert reader.bands == ("nir", "red")
    np.testing.assert_array_equal(whole(reader).values, values[[3, 2]])
    with pytest.raises(InputError, match=r"no band swir16, ndvi; it has nir, red\. .*--bands swir16="):
        reader.select(["red", "swir16", "ndvi"])
    with pytest.raises(InputError, match="each once"):
        reader.select(["red", "red"])
    with pytest.raises(InputError, match="at least one"):
        reader.select([])


def test_bands_of_different_dtype_read_in_a_common_one(tmp_path: Path) -> None:
    first, second = ramp(1, dtype="uint8"), ramp(1, dtype="int16") - 300
    one, two = write(tmp_path / "a.tif", first), write(tmp_path / "b.tif", second)
    reader = open_reader([one, two])
    assert reader.dtype == "int16"
    np.testing.assert_array_equal(whole(reader).values, np.concatenate([first, second]))
    assert reader.select(reader.bands[:1]).dtype == "uint8"


def test_scale_and_offset_come_from_the_file_unless_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(2))
    assert (open_reader(path).scale, open_reader(path).offset) == (None, None)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (0.5, 0.5), (-1.0, -1.0)
    assert (open_reader(path).scale, open_reader(path).offset) == (0.5, -1.0)
    stated = open_reader(path, SceneOptions(scale=0.1))
    assert (stated.scale, stated.offset) == (0.1, 0.0)
    with rasterio.open(path, "r+") as file:
        file.scales = (0.5, 0.25)
    reader = open_reader(path)
    assert reader.select(["band_2"]).scale == 0.25
    with pytest.raises(InputError, match=r"band_1 0\.5 and -1, band_2 0\.25 and -1"):
        _ = reader.scale
    assert open_reader(path, SceneOptions(scale=2.0, offset=1.0)).offset == 1.0


@pytest.mark.parametrize(
    ("field", "value"), [("gsd_m", 0.0), ("gsd_m", float("nan")), ("scale", 0.0), ("offset", float("inf"))]
)
def test_nonsense_options_are_refused(field: str, value: float) -> None:
    with pytest.raises(InputError, match=str(value)):
        SceneOptions(**{field: value})


# --- threads and processes -----------------------------------------------------------------------------------------


def total(reader: SceneReader, window: Window) -> tuple[int, int]:
    return os.getpid(), int(reader.read(window).values.sum())


def test_a_reader_is_a_value_that_can_be_pickled(tmp_path: Path) -> None:
    reader = open_reader(write(tmp_path / "a.tif", ramp()), SceneOptions(bands={"nir": "1"}))
    whole(reader)
    copy = pickle.loads(pickle.dumps(reader))
    assert copy == reader
    assert hash(copy) == hash(reader)
    assert len(pickle.dumps(reader)) < 4000
    np.testing.assert_array_equal(whole(copy).values, whole(reader).values)


def test_many_threads_read_the_same_pixels(tmp_path: Path) -> None:
    values = ramp(3, 200, 300)
    reader = open_reader(
        write(tmp_path / "a.tif", values, tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    )
    windows = list(windows_of(reader.shape, 32)) * 4
    with ThreadPoolExecutor(8) as pool:
        for window, pixels in zip(windows, pool.map(reader.read, windows), strict=True):
            np.testing.assert_array_equal(pixels.values, values[(slice(None), *window.slices)])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_other_processes_read_with_handles_of_their_own(tmp_path: Path, method: str) -> None:
    values = ramp(3, 200, 300)
    reader = open_reader(write(tmp_path / "a.tif", values, tiled=True, blockxsize=16, blockysize=16))
    windows = list(windows_of(reader.shape, 100))
    expected = [total(reader, window)[1] for window in windows]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
        found = list(pool.map(total, [reader] * len(windows), windows))
    assert [one for _, one in found] == expected
    assert os.getpid() not in {pid for pid, _ in found}


def test_a_read_that_fails_says_window_file_and_cause(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(1, 64, 64), tiled=True, blockxsize=16, blockysize=16, compress="deflate")
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_1_2", "TIFF", bidx=1))
    data = bytearray(path.read_bytes())
    data[offset : offset + 8] = b"garbage!"
    path.write_bytes(data)
    reader = open_reader(path)
    reader.read(Window(0, 0, 16, 16))
    with pytest.raises(GeosegError, match=r"Reading rows 32:48, columns 16:32 of .*a\.tif failed: .+") as caught:
        reader.read(Window(32, 16, 16, 16))
    assert not isinstance(caught.value, InputError)
    path.unlink()
    with pytest.raises(GeosegError, match="failed"):
        reader.read(Window(0, 0, 16, 16))


# --- fingerprint ---------------------------------------------------------------------------------------------------


def test_fingerprint_changes_with_the_file_and_with_what_is_stated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    reader = open_reader(path)
    first = reader.fingerprint()
    assert json.loads(json.dumps(first)) == first == open_reader(path).fingerprint()
    assert reader.select(["red"]).fingerprint() != first
    for options in (SceneOptions(nodata=3), SceneOptions(gsd_m=2.0), SceneOptions(scale=2.0), SceneOptions(offset=1.0)):
        assert open_reader(path, options).fingerprint() != first
    assert reader.resampled(20).fingerprint() != first
    os.utime(path, ns=(1, 1))
    assert reader.fingerprint() != first


def test_fingerprint_of_a_vrt_covers_its_sources_and_not_overviews(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(1, 256, 256))
    copy_raster(str(path), str(tmp_path / "b.vrt"), driver="VRT")
    copy_raster(str(tmp_path / "b.vrt"), str(tmp_path / "c.vrt"), driver="VRT")
    reader = open_reader(tmp_path / "c.vrt")
    first = reader.fingerprint()
    assert str(path) in first["source 0"]
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    assert reader.fingerprint() == first
    os.utime(path, ns=(1, 1))
    assert reader.fingerprint() != first


# --- resampling ----------------------------------------------------------------------------------------------------


def test_shrinking_averages_whole_pixels(tmp_path: Path) -> None:
    values = ramp(2, 40, 60, dtype="float32")
    reader = open_reader(write(tmp_path / "a.tif", values)).resampled(20)
    assert reader.shape == (20, 30)
    assert reader.transform == Affine(20, 0, 500_000, 0, -20, 5_000_000)
    assert reader.gsd_m == 20
    expected = values.reshape(2, 20, 2, 30, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(whole(reader).values, expected, rtol=1e-6)


def test_resampling_ignores_what_is_not_measured(tmp_path: Path) -> None:
    values = np.full((1, 4, 8), 100, np.uint8)
    values[0, 0, 0] = 0  # a quarter of its pixel
    values[0, 2:, 3:6] = 0  # half of one pixel, and all of the next
    reader = open_reader(write(tmp_path / "a.tif", values, nodata=0)).resampled(20)
    pixels = whole(reader)
    np.testing.assert_array_equal(pixels.valid, [[True, True, True, True], [True, True, False, True]])
    assert (pixels.values[0][pixels.valid] == 100).all()


def test_the_last_pixel_may_reach_over_the_edge(tmp_path: Path) -> None:
    reader = open_reader(write(tmp_path / "a.tif", np.full((1, 7, 10), 9, np.uint8))).resampled(30)
    assert reader.shape == (3, 4)
    pixels = whole(reader)
    assert pixels.valid.all()
    assert (pixels.values == 9).all()


def test_a_resolution_equal_to_the_last_digits_reads_the_file_itself(tmp_path: Path) -> None:
    values = ramp()
    reader = open_reader(write(tmp_path / "a.tif", values)).resampled(10 * (1 + 1e-12))
    assert reader == open_reader(tmp_path / "a.tif")


def test_resampling_needs_a_known_resolution(tmp_path: Path) -> None:
    reader = open_reader(write(tmp_path / "a.png", ramp(), driver="PNG", crs=None, transform=None))
    with pytest.raises(InputError, match="--gsd"):
        reader.resampled(1)
    with pytest.raises(InputError, match="positive number of metres, not -1"):
        open_reader(write(tmp_path / "a.tif", ramp())).resampled(-1)


@given(data=st.data(), zoom=st.floats(0.2, 6))
@settings(max_examples=40, deadline=None)
def test_resampled_windows_agree_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, zoom: float
) -> None:
    path = tmp_path_factory.getbasetemp() / "resampled.tif"
    if not path.exists():
        values = ramp(2, 61, 83, dtype="float32") / 3
        values[:, 10:20, 30:33] = np.nan
        write(path, values)
    reader = open_reader(path).resampled(10 * zoom)
    rows, cols = reader.shape
    everything = whole(reader)
    row, col = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    window = Window(row, col, data.draw(st.integers(1, rows - row)), data.draw(st.integers(1, cols - col)))
    part = reader.read(window)
    np.testing.assert_array_equal(part.valid, everything.valid[window.slices])
    np.testing.assert_array_equal(part.values, everything.values[(slice(None), *window.slices)])


def test_a_strong_reduction_reads_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = ramp(1, 200, 200, dtype="float64")
    reader = open_reader(write(tmp_path / "a.tif", values)).resampled(200)
    at_once = whole(reader).values
    monkeypatch.setattr("geoseg.raster.window_reader.RESAMPLING_PIXELS", 3000)
    np.testing.assert_array_equal(whole(reader).values, at_once)
    np.testing.assert_allclose(at_once, values.reshape(1, 10, 20, 10, 20).mean(axis=(2, 4)))


def test_a_moved_file_is_found_by_its_new_path_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp())
    open_reader(path)
    shutil.move(path, tmp_path / "b.tif")
    with pytest.raises(InputError, match="does not exist"):
        open_reader(path)


def test_a_missing_band_may_be_the_one_called_alpha(tmp_path: Path) -> None:
    reader = open_reader(rgba(tmp_path / "a.tif", ramp(4)))
    with pytest.raises(
        InputError, match=r"red, green, blue, and one called alpha that counts as mask\. .* --bands nir=4\."
    ):
        reader.select(["red", "nir"])
