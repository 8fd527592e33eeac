"""Calibration against torchmetrics, SciPy, and a network whose temperature is known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torchmetrics.classification import MulticlassCalibrationError

from geoseg.errors import InputError
from geoseg.training.calibrate import Reliability, Sample, calibrate, heated, parts_of, summed


def sample_of(pixels: int = 4000, *, heat: float = 1.0, seed: int = 0) -> Sample:
    """Pixels whose probabilities are right where heat is 1; a heat of 2 makes them overconfident by as much."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (pixels, 5))
    truth = softmax(logits)
    reference = (truth.cumsum(1) < rng.random(pixels)[:, None]).sum(1).astype(np.uint8)
    return Sample(softmax(logits * heat).astype(np.float32), reference, rng.integers(0, 30, pixels), np.arange(5))


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    power = np.exp(logits)
    spread: NDArray[np.float64] = power / power.sum(1, keepdims=True)
    return spread


def test_the_error_is_that_of_torchmetrics() -> None:
    sample = sample_of(heat=2)
    error = MulticlassCalibrationError(5, n_bins=15, norm="l1")
    expected = error(torch.from_numpy(sample.probabilities), torch.from_numpy(sample.reference).long())
    assert sample.reliability().ece == pytest.approx(float(expected), abs=1e-4)


@given(st.lists(st.integers(0, 200), max_size=4))
@settings(max_examples=20)
def test_parts_in_any_order_add_up_to_the_same_counts(cuts: list[int]) -> None:
    rng = np.random.default_rng(0)
    confidence, right = rng.random(200).astype(np.float32), rng.random(200) < 0.5
    whole = Reliability()
    whole.add(confidence, right)
    total = Reliability()
    edges = [0, *sorted(cuts), 200]
    for start, stop in reversed(list(pairwise(edges))):
        part = Reliability()
        part.add(confidence[start:stop], right[start:stop])
        total = total + part
    assert np.array_equal(total.counts, whole.counts)


def test_confidences_at_the_edges_are_counted() -> None:
    found = Reliability()
    found.add([0.0, 1.0, 1 / 15, 0.5], [False, True, True, False])
    assert found.pixels.sum() == 4
    assert found.pixels[0] == 2
    assert found.pixels[-1] == 1
    assert np.isnan(found.accuracy[3])
    assert np.isnan(Reliability().ece)


@pytest.mark.parametrize("heat", [0.5, 1.0, 2.0, 4.0])
def test_a_known_temperature_is_found(heat: float) -> None:
    sample = sample_of(20_000, heat=heat)
    assert sample.temperature() == pytest.approx(heat, rel=0.05)


def test_it_is_the_temperature_of_least_cross_entropy() -> None:
    sample = sample_of(heat=2)
    index = np.arange(len(sample))

    def entropy(log_temperature: float) -> float:
        spread = heated(sample.probabilities, float(np.exp(log_temperature)))
        return float(-np.log(spread[index, sample.reference]).mean())

    best = np.exp(minimize_scalar(entropy, bounds=(-3, 3), method="bounded", options={"xatol": 1e-8}).x)
    assert sample.temperature() == pytest.approx(best, rel=1e-4)


def test_calibration_lowers_the_error_on_cells_it_was_not_fitted_to() -> None:
    found = calibrate(sample_of(20_000, heat=2))
    assert found is not None
    assert found.held_out
    assert found.ece_before > 0.1
    assert found.ece_after < 0.03
    assert found.to_card()["temperature"] == pytest.approx(2, rel=0.05)


def test_one_cell_holds_nothing_out_and_no_pixel_gives_nothing() -> None:
    sample = sample_of(500)
    alone = calibrate(Sample(sample.probabilities, sample.reference, np.zeros(500, np.int64), sample.parts))
    assert alone is not None
    assert not alone.held_out
    assert calibrate(sample.where(np.zeros(500, np.bool_))) is None


def test_a_network_that_is_always_right_gets_a_finite_temperature() -> None:
    certain = np.eye(3, dtype=np.float32)
    sample = Sample(certain, np.array([0, 1, 2], np.uint8), np.zeros(3, np.int64), np.arange(3))
    assert 0.05 <= sample.temperature() <= 1
    assert np.isfinite(heated(certain, 0.05)).all()


def test_channels_that_labels_do_not_tell_apart_are_one_part() -> None:
    assert parts_of([(0,), (2, 3), (5,)], 6).tolist() == [0, 1, 2, 2, 3, 4]
    assert parts_of([(0, 1), (3,), (1, 3)], 4).tolist() == [0, 0, 1, 0]
    assert parts_of([], 3).tolist() == [0, 1, 2]
    assert summed([[0.1, 0.2, 0.7]], np.array([0, 1, 0])) == pytest.approx(np.array([[0.8, 0.2]]))


def test_grouped_labels_find_the_same_temperature() -> None:
    full = sample_of(40_000, heat=2)
    parts = parts_of([(0,), (1, 2)], 5)
    grouped = Sample(full.probabilities, parts[full.reference].astype(np.uint8), full.cells, parts)
    assert grouped.temperature() == pytest.approx(2, rel=0.07)
    assert grouped.reliability(2).ece < 0.02 < grouped.reliability().ece


def test_other_lengths_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[2, 3\]"):
        Sample(np.zeros((3, 2), np.float32), np.zeros(2, np.uint8), np.zeros(3, np.int64), np.arange(2))
