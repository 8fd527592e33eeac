from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg.raster.normalize import Normalization

THREE = Normalization(0.1, -1.0, (1.0, 2.0, 3.0), (0.5, 1.0, 2.0), (True, True, True))


def test_by_hand() -> None:
    pixels = np.array([[[20.0]], [[40.0]], [[80.0]]])
    assert THREE(pixels, np.ones((1, 1), np.bool_)).ravel().tolist() == [0.0, 1.0, 2.0]


@given(st.integers(0, 255), st.integers(0, 255))
def test_a_pixel_does_not_depend_on_its_neighbours(value: int, other: int) -> None:
    valid = np.ones((1, 2), np.bool_)
    pair = THREE(np.full((3, 1, 2), [value, other], np.uint8), valid)
    alone = THREE(np.full((3, 1, 1), value, np.uint8), valid[:, :1])
    assert np.array_equal(pair[:, :, :1], alone)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_measured_becomes_the_mean(bad: float) -> None:
    pixels = np.full((3, 1, 3), 7.0, np.float32)
    pixels[1, 0, 0] = bad
    chip = THREE(pixels, np.array([[True, False, True]]))
    assert chip[1, 0, 0] == 0
    assert (chip[:, 0, 1] == 0).all()
    assert np.isfinite(chip).all()


def test_an_optional_band_that_is_missing_is_nan() -> None:
    some = Normalization(1.0, 0.0, (0.0, 5.0, 0.0), (1.0, 1.0, 1.0), (True, False, True))
    chip = some(np.arange(8, dtype=np.uint16).reshape(2, 2, 2), np.ones((2, 2), np.bool_))
    assert np.isnan(chip[1]).all()
    assert np.array_equal(chip[[0, 2]], np.arange(8).reshape(2, 2, 2))
    assert chip.dtype == np.float32


def test_another_number_of_bands_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        THREE(np.zeros((2, 1, 1)), np.ones((1, 1), np.bool_))


def test_large_integers_do_not_overflow() -> None:
    chip = Normalization(1.0, 0.0, (0.0,), (1.0,), (True,))(np.full((1, 1, 1), 65535, np.uint16), np.ones((1, 1), bool))
    assert chip[0, 0, 0] == 65535
