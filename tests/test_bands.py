from __future__ import annotations

import pytest

from geoseg.raster.bands import band_names, common_names, name_in_file_name


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["B02", "B03", "B04", "B08", "B8A"], ["blue", "green", "red", "nir", "nir08"]),
        (["B2", "B3", "B4", "B8", "B8A", "B11", "B12"], ["blue", "green", "red", "nir", "nir08", "swir16", "swir22"]),
        (["B2", "B3", "B4", "B5"], ["B2", "B3", "B4", "B5"]),  # Sentinel-2 or Landsat? not clear
        (["B4, central wavelength 665 nm", "B8, central wavelength 842 nm"], ["red", "nir"]),
        (["B05", "B06", "B07", "SCL"], ["rededge071", "rededge075", "rededge078", "SCL"]),
        (["SR_B2", "SR_B5", "SR_B6", "SR_B7"], ["blue", "nir", "swir16", "swir22"]),
        (["SR_B1", "SR_B4", "SR_B5", "SR_B7"], ["blue", "nir", "swir16", "swir22"]),
        (["SR_B2", "SR_B3"], ["SR_B2", "SR_B3"]),
        (["Red", "NIR", "SWIR1", "swir 2", "near-infrared"], ["red", "nir", "swir16", "swir22", "nir"]),
        (["red", "nir08"], ["red", "nir"]),
        (["nir", "nir08"], ["nir", "nir08"]),
        (["Band 1", "QA"], ["Band 1", "QA"]),
        ([""], [""]),
    ],
)
def test_names_are_translated_only_where_the_set_is_clear(given: list[str], expected: list[str]) -> None:
    assert common_names(given) == expected


def test_names_differ_and_descriptions_come_before_colours() -> None:
    colors = ["red", "green", "blue", "undefined"]
    assert band_names([None] * 4, colors, range(1, 5)) == ["red", "green", "blue", "band_4"]
    assert band_names(["nir", None, "green", ""], colors, range(1, 5)) == ["nir", "band_2", "green", "band_4"]
    assert band_names(["red", "red"], ["gray", "gray"], [1, 2]) == ["red", "red_2"]
    assert band_names([None] * 2, ["red", "red"], [1, 2]) == ["band_1", "band_2"]
    assert band_names([None] * 2, ["red", "green"], [1, 2], taken=["red"]) == ["band_1", "green"]


def test_file_names_tell_sentinel_2_bands_only_in_full() -> None:
    assert name_in_file_name("T33UUP_20200601T101031_B04_10m") == "B04"
    assert name_in_file_name("B8A") == "B8A"
    assert name_in_file_name("zone_B_rgb") is None
    assert name_in_file_name("LC08_B4") is None
