from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from affine import Affine
from scene_files import AT, ramp, write

from geoseg.errors import InputError
from geoseg.grid.window import Window, windows_of
from geoseg.raster.scene import Pixels, SceneOptions, SceneReader, open_reader


def whole(reader: SceneReader) -> Pixels:
    return reader.read(Window(0, 0, *reader.shape))


def coarser(factor: int) -> Affine:
    return AT @ Affine.scale(factor)


def repeated(values: np.ndarray, factor: int) -> np.ndarray:
    return values.repeat(factor, axis=1).repeat(factor, axis=2)


def test_files_on_one_grid_are_one_scene(tmp_path: Path) -> None:
    rgb, nir = ramp(3), ramp(1) + 1
    files = [write(tmp_path / "rgb.tif", rgb, photometric="RGB"), write(tmp_path / "nir.tif", nir)]
    reader = open_reader(files)
    assert reader.bands == ("red", "green", "blue", "band_4")
    assert not reader.has_mask
    np.testing.assert_array_equal(whole(reader).values, np.concatenate([rgb, nir]))
    for bands in ({"nir": "4"}, {"nir": "nir.tif"}, {"nir": str(files[1])}, {"nir": "nir.tif:1"}):
        assert open_reader(files, SceneOptions(bands=bands)).bands == ("red", "green", "blue", "nir")
        assert bands == {"nir": "4"} or open_reader(files[0], SceneOptions(bands=bands)).bands[3] == "nir"


@pytest.mark.parametrize("suffix", ["tif", "jp2"])
def test_band_files_of_three_resolutions_nest_exactly(tmp_path: Path, suffix: str) -> None:
    """Sentinel-2: 10, 20 and 60 m on one extent."""
    driver: dict[str, Any] = {"driver": "JP2OpenJPEG", "QUALITY": 100, "REVERSIBLE": "YES"} if suffix == "jp2" else {}
    stored = {}
    for name, factor in (("B01", 6), ("B04", 1), ("B11", 2)):
        stored[name] = ramp(1, 60 // factor, 120 // factor, "uint16") + factor
        write(tmp_path / f"T31_{name}.{suffix}", stored[name], transform=coarser(factor), **driver)
    bands = {"swir16": f"T31_B11.{suffix}", "red": f"T31_B04.{suffix}", "coastal": f"T31_B01.{suffix}"}
    reader = open_reader(tmp_path, SceneOptions(bands=bands))
    assert reader.bands == ("swir16", "red", "coastal")
    assert reader.shape == (60, 120)
    assert reader.transform == AT
    assert not reader.has_mask
    expected = np.concatenate([repeated(stored["B11"], 2), stored["B04"], repeated(stored["B01"], 6)])
    np.testing.assert_array_equal(whole(reader).values, expected)
    for window in windows_of(reader.shape, 17):
        np.testing.assert_array_equal(reader.read(window).values, expected[(slice(None), *window.slices)])


def test_names_of_band_files_tell_sentinel_2_bands(tmp_path: Path) -> None:
    names = ["T33UUP_20200601T101031_B02_10m", "T33UUP_20200601T101031_B08_10m"]
    files = [write(tmp_path / f"{name}.tif", ramp(1)) for name in names]
    assert open_reader(files).bands == ("blue", "nir")


def test_a_coarse_file_keeps_its_own_nodata(tmp_path: Path) -> None:
    fine, coarse = ramp(1, 8, 8), ramp(1, 4, 4)
    coarse[0, 1, 2] = 0
    files = [write(tmp_path / "a.tif", fine), write(tmp_path / "b.tif", coarse, transform=coarser(2), nodata=0)]
    reader = open_reader(files)
    np.testing.assert_array_equal(whole(reader).valid, repeated(coarse, 2)[0] != 0)
    assert whole(reader.select(["band_1"])).valid.all()


def test_a_larger_file_is_read_where_the_scene_lies(tmp_path: Path) -> None:
    small, large = ramp(1, 10, 12), ramp(1, 30, 40)
    files = [
        write(tmp_path / "a.tif", small, transform=AT @ Affine.translation(7, 5)),
        write(tmp_path / "b.tif", large),
    ]
    np.testing.assert_array_equal(whole(open_reader(files)).values[1], large[0, 5:15, 7:19])


def test_a_file_that_stops_one_pixel_short_is_not_measured_there(tmp_path: Path) -> None:
    files = [write(tmp_path / "a.tif", ramp(1, 11, 11)), write(tmp_path / "b.tif", ramp(1, 5, 5), transform=coarser(2))]
    reader = open_reader(files)
    assert reader.has_mask
    valid = whole(reader).valid
    assert valid[:10, :10].all()
    assert not valid[10].any()
    assert not valid[:, 10].any()
    assert not reader.read(Window(10, 0, 1, 11)).valid.any()


def test_another_phase_is_interpolated_and_windows_agree(tmp_path: Path) -> None:
    """Landsat: the 30 m bands lie half a 15 m pixel beside the panchromatic one."""
    rows, cols = np.mgrid[0:30, 0:40]
    coarse = (3 * rows + 5 * cols)[None].astype("float64")
    fine = np.zeros((1, 60, 80), "uint8")
    files = [
        write(tmp_path / "pan.tif", fine),
        write(tmp_path / "ms.tif", coarse, transform=AT @ Affine.translation(-0.5, -0.5) @ Affine.scale(2)),
    ]
    reader = open_reader(files)
    pixels = whole(reader)
    fine_rows, fine_cols = np.mgrid[0:60, 0:80]
    expected = 3 * ((fine_rows + 1) / 2 - 0.5) + 5 * ((fine_cols + 1) / 2 - 0.5)  # a plane stays a plane
    np.testing.assert_allclose(pixels.values[1, :58, :78], expected[:58, :78], atol=1e-9)
    for window in windows_of(reader.shape, 13):
        np.testing.assert_array_equal(reader.read(window).values[1], pixels.values[1][window.slices])


def test_files_that_do_not_cover_each_other_are_refused_with_both_extents(tmp_path: Path) -> None:
    one = write(tmp_path / "a.tif", ramp(1))
    two = write(tmp_path / "b.tif", ramp(1), transform=AT @ Affine.translation(20, 0))
    with pytest.raises(
        InputError, match=r"extent is \(500200, .*is \(500000, .* gdalwarp -t_srs EPSG:32631 -te 500000 "
    ):
        open_reader([one, two])


def test_files_in_two_crs_are_refused_with_the_gdalwarp_line(tmp_path: Path) -> None:
    one = write(tmp_path / "a.tif", ramp(1))
    two = write(tmp_path / "b.tif", ramp(1), crs="EPSG:32632")
    with pytest.raises(
        InputError, match=r"EPSG:32632, but .* EPSG:32631.*gdalwarp -t_srs EPSG:32631 .* 'b.tif' warped"
    ):
        open_reader([one, two])
    three = write(tmp_path / "c.png", ramp(1), driver="PNG", crs=None, transform=None)
    with pytest.raises(InputError, match=r"c\.png is in no CRS"):
        open_reader([one, three])


@pytest.mark.parametrize("transform", [Affine(10, 2, 5e5, 2, -10, 5e6), Affine(10, 0, 5e5, 0, 10, 5e6 - 370)])
def test_turned_or_mirrored_files_are_refused(tmp_path: Path, transform: Affine) -> None:
    one, two = write(tmp_path / "a.tif", ramp(1)), write(tmp_path / "b.tif", ramp(1), transform=transform)
    with pytest.raises(InputError, match="different directions"):
        open_reader([one, two])


def test_two_turned_files_on_one_grid_are_one_scene(tmp_path: Path) -> None:
    turned = Affine(0.3, 0.1, 4e5 + 1 / 7, 0.1, -0.3, 5e6)
    files = [write(tmp_path / f"{name}.tif", ramp(1), transform=turned) for name in "ab"]
    assert open_reader(files).transform == turned


def test_plain_images_of_one_size_are_one_scene(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.png", ramp(1), driver="PNG", crs=None, transform=None) for n in "ab"]
    assert open_reader(files).bands == ("band_1", "band_2")
    files[1] = write(tmp_path / "c.png", ramp(1, 20, 20), driver="PNG", crs=None, transform=None)
    with pytest.raises(InputError, match="does not cover"):
        open_reader(files)


def test_stated_bands_name_numbers_files_and_bands_of_files(tmp_path: Path) -> None:
    scene, other = ramp(3), ramp(3) + 1
    write(tmp_path / "a.tif", scene)
    write(tmp_path / "b c.tif", other)
    bands = {"nir": "1", "red": "2", "swir16": "b c.tif:3"}
    reader = open_reader(tmp_path / "a.tif", SceneOptions(bands=bands))
    assert reader.bands == ("nir", "red", "blue", "swir16")
    np.testing.assert_array_equal(whole(reader).values, np.concatenate([scene, other[2:]]))


def test_a_stated_name_is_taken_from_the_band_that_had_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", ramp(3), descriptions=["red", "green", "blue"])
    assert open_reader(path, SceneOptions(bands={"red": "3"})).bands == ("band_1", "green", "red")


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ({"nir": "9"}, "asks for band 9, but the scene has bands 1 to 3"),
        ({"nir": "0"}, "asks for band 0"),
        ({"nir": "a.tif:7"}, r"asks for band 7 of .*a\.tif, which has 1 to 3"),
        ({"nir": "gone.tif"}, "gone.tif does not exist"),
        ({"nir": "1", "red": "1"}, "one band two names: nir and red"),
        ({"nir": ""}, "name=number or name=file"),
    ],
    ids=str,
)
def test_stated_bands_that_are_not_there_are_refused(tmp_path: Path, bands: dict[str, str], message: str) -> None:
    path = write(tmp_path / "a.tif", ramp(3))
    with pytest.raises(InputError, match=message):
        open_reader(path, SceneOptions(bands=bands))
