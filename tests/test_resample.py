from __future__ import annotations

import numpy as np
import pytest

from geoseg.raster.resample import Axis, gather


def resample(values: np.ndarray, rows: Axis, cols: Axis, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    valid = np.isfinite(values).all(axis=0)
    return gather(values, valid, (rows.taps(0, shape[0]), cols.taps(0, shape[1])))


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.7, 10.0])
def test_average_weights_add_to_the_shared_length(scale: float) -> None:
    index, weight = Axis(scale, 0.0, 1000, "average").taps(3, 40)
    np.testing.assert_allclose(weight.sum(axis=1), scale)
    assert (weight >= 0).all()
    assert index.min() == int(3 * scale)


def test_bilinear_keeps_a_ramp() -> None:
    axis = Axis(0.25, 0.1, 10, "bilinear")
    index, weight = axis.taps(4, 30)
    center = (np.arange(4, 30) + 0.5) * 0.25 + 0.1 - 0.5
    np.testing.assert_allclose((index * weight).sum(axis=1), center)


def test_span_is_clipped_to_the_source() -> None:
    axis = Axis(2.0, -3.0, 10, "nearest")
    assert axis.span(0, 4) == (0, 5)
    assert axis.span(5, 20) == (8, 9)
    assert axis.span(0, 1) == (0, 0)
    assert not axis.covers(4)
    assert Axis(0.5, 0, 10, "nearest").covers(20)


def test_integers_are_rounded_and_kept_in_range() -> None:
    values = np.array([[[0, 255], [255, 255]]], np.uint8)
    axis = Axis(2.0, 0.0, 2, "average")
    found, valid = resample(values, axis, axis, (1, 1))
    assert found.dtype == np.uint8
    assert found[0, 0, 0] == 191
    assert valid.all()


def test_what_is_not_measured_carries_no_weight() -> None:
    values = np.array([[[1.0, np.nan], [3.0, 5.0]]])
    axis = Axis(2.0, 0.0, 2, "average")
    found, valid = resample(values, axis, axis, (1, 1))
    assert found[0, 0, 0] == 3.0
    assert valid.all()
