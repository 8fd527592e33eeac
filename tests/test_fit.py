from __future__ import annotations

import pytest
from builders import small_card

from geoseg.errors import InputError
from geoseg.inference.fit import check_gsd, normalization_for, used_bands
from geoseg.models import CardBand


def test_bands_come_in_the_cards_order() -> None:
    assert used_bands(small_card(), ["nir", "blue", "green", "red"]) == ("red", "green", "blue")


def test_an_optional_band_may_be_missing() -> None:
    card = small_card(bands=(CardBand(name="red"), CardBand(name="swir16", optional=True)))
    assert used_bands(card, ["red"]) == ("red",)
    assert used_bands(card, ["swir16", "red"]) == ("red", "swir16")
    assert normalization_for(card, ["red"], "uint8").present == (True, False)


def test_a_missing_band_is_refused_with_what_is_there() -> None:
    with pytest.raises(
        InputError, match=r"needs band blue; the scene has red, green, x\..*--bands red=1,green=2,blue=3"
    ):
        used_bands(small_card(), ["red", "green", "x"])
    with pytest.raises(
        InputError, match=r"needs band blue; the scene has red, green\..*blue=N, N being its number, or its file"
    ):
        used_bands(small_card(), ["red", "green"])
    bands = ("coastal", "red", "green")
    card = small_card(bands=tuple(CardBand(name=name, mean=0.5, std=0.2) for name in bands))
    with pytest.raises(InputError, match=r"--bands coastal=N,red=N,green=N"):
        used_bands(card, ["red", "green", "x"])


def test_the_scale_is_the_cards_unless_the_scene_says_its_own() -> None:
    bands = ["red", "green", "blue"]
    assert normalization_for(small_card(), bands, "uint8").scale == 1 / 255
    own = normalization_for(small_card(), bands, "uint16", scale=0.5, offset=-0.1)
    assert (own.scale, own.offset) == (0.5, -0.1)
    card = small_card(scales={"uint16": 1e-4}, offsets={"uint16": -0.1})
    found = [normalization_for(card, bands, "uint16", scale=scale) for scale in (None, 0.5)]
    assert [(one.scale, one.offset) for one in found] == [(1e-4, -0.1), (0.5, 0.0)]


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(InputError, match=r"uint16; model small knows uint8 x 0\.00392157.*--scale"):
        normalization_for(small_card(), ["red", "green", "blue"], "uint16")


@pytest.mark.parametrize("gsd_m", [0.2, 0.5, 1.0, 0.198, 1.015])
def test_a_resolution_in_range_is_taken(gsd_m: float) -> None:
    check_gsd(small_card(), gsd_m)


@pytest.mark.parametrize("gsd_m", [0.19, 1.03, 10.0])
def test_a_resolution_out_of_range_is_refused(gsd_m: float) -> None:
    with pytest.raises(InputError, match=rf"{gsd_m:g} m; .* 0\.2 to 1 m\. Give --resample to work at 0\.5 m"):
        check_gsd(small_card(), gsd_m)


def test_an_unknown_resolution_is_said(caplog: pytest.LogCaptureFixture) -> None:
    check_gsd(small_card(), None)
    assert "assumes 0.5 m" in caplog.text
