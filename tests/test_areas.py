"""Worked tables of the papers, to the digits that they print, and what must hold for any sample."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg.change import AreaReport, StratifiedSample, allocate, estimate_areas, sample_size
from geoseg.errors import InputError


def values(estimates: tuple, digits: int) -> list[float]:
    return [round(one.value, digits) for one in estimates]


def half_widths(estimates: tuple, digits: int) -> list[float]:
    return [round(one.half_width(), digits) for one in estimates]


@pytest.fixture(scope="module")
def deforestation() -> AreaReport:
    """Olofsson et al. 2013, example 1: areas in hectares."""
    counts = [[97, 0, 3], [3, 279, 18], [2, 1, 97]]
    names = ("deforestation", "forest", "non-forest")
    return estimate_areas(StratifiedSample.of_matrix(counts, names, [22_353, 1_122_543, 610_228]), names)


def test_olofsson_2013_areas(deforestation: AreaReport) -> None:
    first = deforestation.areas()[0]
    assert round(deforestation.shares[0].value, 3) == 0.026  # equation 9
    assert round(first.value) == 45_112  # equation 10
    within_two = first.value - 2 * first.standard_error, first.value + 2 * first.standard_error
    assert within_two == pytest.approx(
        (23_609.59, 66_615.21), abs=0.01
    )  # as albhasan/mapAccuracy, an R package, has it


def test_olofsson_2013_accuracies(deforestation: AreaReport) -> None:
    assert round(deforestation.overall.value, 3) == 0.944
    assert values(deforestation.users, 2) == [0.97, 0.93, 0.97]
    assert values(deforestation.producers, 2) == [0.48, 0.99, 0.90]
    rounded = deforestation.matrix.round(3).tolist()
    assert rounded == [[0.012, 0.0, 0.0], [0.006, 0.595, 0.038], [0.007, 0.003, 0.337]]


@pytest.fixture(scope="module")
def forest_change() -> AreaReport:
    """Olofsson et al. 2014, tables 8 and 9: mapped pixels of 30 m."""
    counts = [[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]]
    names = ("deforestation", "forest gain", "stable forest", "stable non-forest")
    sizes = [200_000, 150_000, 3_200_000, 6_450_000]
    return estimate_areas(StratifiedSample.of_matrix(counts, names, sizes), names)


def test_olofsson_2014_accuracies(forest_change: AreaReport) -> None:
    assert round(forest_change.overall.value, 2) == 0.95
    assert round(forest_change.overall.half_width(), 2) == 0.02
    assert values(forest_change.users, 2) == [0.88, 0.73, 0.93, 0.96]
    assert half_widths(forest_change.users, 2) == [0.07, 0.10, 0.04, 0.02]
    assert values(forest_change.producers, 2) == [0.75, 0.85, 0.93, 0.96]
    # Printed are 0.21, 0.23, 0.03 and 0.01; the second and the fourth contradict the paper's own equation 7.
    assert half_widths(forest_change.producers, 2) == [0.21, 0.25, 0.03, 0.02]


def test_producers_accuracy_varies_by_equation_7(forest_change: AreaReport) -> None:
    sizes, counts = np.array([200_000, 150_000, 3_200_000, 6_450_000]), forest_change.counts
    drawn = counts.sum(1)
    shares = counts / drawn[:, None]
    users = np.diag(shares)
    truly = (sizes[:, None] * shares).sum(0)
    for j, found in enumerate(forest_change.producers):
        p = sizes[j] * users[j] / truly[j]
        own = sizes[j] ** 2 * (1 - p) ** 2 * users[j] * (1 - users[j]) / (drawn[j] - 1)
        others = [i for i in range(4) if i != j]
        missed = sum(sizes[i] ** 2 * shares[i, j] * (1 - shares[i, j]) / (drawn[i] - 1) for i in others)
        assert found.value == pytest.approx(p)
        assert found.standard_error == pytest.approx(np.sqrt(own + p**2 * missed) / truly[j])


def test_olofsson_2014_areas_in_hectares(forest_change: AreaReport) -> None:
    areas = forest_change.areas(unit=0.09)
    assert [round(area.value) for area in areas] == [21_158, 11_686, 285_770, 581_386]
    found = [area.half_width() for area in areas]
    np.testing.assert_allclose(found, [6_158, 3_756, 15_510, 16_282], rtol=2e-4)
    assert round(forest_change.shares[0].standard_error, 4) == 0.0035


def test_olofsson_2014_sample_size_and_allocation() -> None:
    """Section 5.1.1: 641 pixels for a standard error of 0.01."""
    sizes = {"deforestation": 200_000, "gain": 150_000, "forest": 3_200_000, "other": 6_450_000}
    users = {"deforestation": 0.7, "gain": 0.6, "forest": 0.9, "other": 0.95}
    assert sample_size(sizes, users, 0.01) == 641
    given_75 = allocate(sizes, 641, least=75)
    assert sum(given_75.values()) == 641
    assert given_75["deforestation"] == given_75["gain"] == 75
    assert given_75["forest"] == pytest.approx(163, abs=2)  # the paper rounds to 165 and 325
    assert given_75["other"] == pytest.approx(328, abs=4)


def test_stehman_2014_strata_that_are_no_map_classes() -> None:
    """Table 2 of the paper and the numbers of its pages 4932 to 4936."""
    strata = "A" * 10 + "B" * 10 + "C" * 10 + "D" * 10
    mapped = "A" * 7 + "B" * 3 + "A" + "B" * 11 + "C" * 6 + "BB" + "D" * 10
    reference = "AAAAACBABC" + "A" + "BBBBB" + "AABB" + "CCCCC" + "DDBBA" + "DDDDDDD" + "CCB"
    sizes = {"A": 40_000, "B": 30_000, "C": 20_000, "D": 10_000}
    report = estimate_areas(StratifiedSample([*strata], [*mapped], [*reference], sizes))
    assert round(report.shares[0].value, 2) == 0.35
    assert round(report.shares[2].value, 2) == 0.20
    assert round(report.overall.value, 2) == 0.63
    assert round(report.users[1].value, 3) == 0.574
    assert round(report.producers[1].value, 3) == 0.794
    assert round(report.matrix[1, 2], 2) == 0.08
    assert round(report.shares[0].standard_error, 3) == 0.082
    assert round(report.shares[2].standard_error, 3) == 0.064
    assert round(report.overall.standard_error, 3) == 0.085
    assert round(report.users[1].standard_error, 3) == 0.125
    assert round(report.producers[1].standard_error, 3) == 0.117


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_shares_add_to_one_and_the_matrix_to_both(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 9, (classes, classes)) + 2 * np.eye(classes, dtype=int)
    names = [f"c{i}" for i in range(classes)]
    sizes = rng.integers(1, 10**6, classes)
    report = estimate_areas(StratifiedSample.of_matrix(counts, names, sizes), names)
    assert report.matrix.sum() == pytest.approx(1)
    np.testing.assert_allclose(report.matrix.sum(0), [share.value for share in report.shares], atol=1e-12)
    np.testing.assert_allclose(report.matrix.sum(1), sizes / sizes.sum(), atol=1e-12)  # the map's own shares
    assert np.trace(report.matrix) == pytest.approx(report.overall.value)
    assert np.array_equal(report.counts, counts)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """A thousand samples of a known population."""
    rng = np.random.default_rng(0)
    mapped = rng.random(100_000) < 0.1
    truth = np.where(rng.random(mapped.size) < 0.06, ~mapped, mapped)
    members = [np.flatnonzero(mapped), np.flatnonzero(~mapped)]
    covered = 0
    for _ in range(1000):
        drawn = np.concatenate([rng.choice(own, 100, replace=False) for own in members])
        names = np.array(["stable", "change"])
        sample = StratifiedSample(
            names[mapped[drawn].astype(int)].tolist(),
            names[mapped[drawn].astype(int)].tolist(),
            names[truth[drawn].astype(int)].tolist(),
            {"change": float(mapped.sum()), "stable": float((~mapped).sum())},
        )
        low, high = estimate_areas(sample).shares[0].interval()
        covered += low <= truth.mean() <= high
    assert 0.92 <= covered / 1000 <= 0.97


def test_intervals_stay_within_what_can_be() -> None:
    """Accuracies and shares from 0 to 1, areas from 0 to all; half widths stay as computed."""
    report = estimate_areas(StratifiedSample.of_matrix([[9, 1], [1, 9]], ["a", "b"], [50, 950]), ["a", "b"])
    users, (rare, most) = report.users[0], report.areas(2.0)
    assert users.value + users.half_width() > 1
    assert users.interval() == (pytest.approx(users.value - users.half_width()), 1.0)
    assert rare.value - rare.half_width() < 0
    assert rare.interval() == (0.0, pytest.approx(rare.value + rare.half_width()))
    assert most.interval() == (pytest.approx(most.value - most.half_width()), 2000.0)
    unknown = estimate_areas(StratifiedSample.of_matrix([[2]], ["a"], [9]), ["a", "b"]).users[1]
    assert np.isnan(unknown.interval()).all()


def test_a_class_that_is_never_mapped_has_no_users_accuracy() -> None:
    report = estimate_areas(StratifiedSample.of_matrix([[5, 1], [0, 4]], ["a", "b"], [10, 20]), ["a", "b", "c"])
    assert np.isnan(report.users[2].value)
    assert report.shares[2].value == 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(2, 10**7), min_size=1, max_size=8), st.integers(16, 3000), st.integers(2, 200))
def test_allocation_leaves_no_stratum_out(sizes: list[int], n: int, least: int) -> None:
    named = {f"s{i}": size for i, size in enumerate(sizes)}
    given_each = allocate(named, n, least=least)
    assert sum(given_each.values()) <= n
    assert all(2 <= given_each[name] <= size for name, size in named.items())
    if sum(given_each.values()) < n:
        assert any(given_each[name] == size for name, size in named.items())


@pytest.mark.parametrize(
    ("strata", "sizes", "said"),
    [
        (["a", "a", "b"], {"a": 5, "b": 7}, "'b' has 7 of 12 in size and 1 sampled"),
        (["a", "a", "x"], {"a": 5}, "'x', whose size is not given"),
        (["a", "a"], {"a": 5}, "2, 3"),
    ],
)
def test_samples_that_tell_nothing_are_refused(strata: list[str], sizes: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        StratifiedSample(strata, ["a", "a", "b"], ["a", "b", "b"], sizes)


@pytest.mark.parametrize("error", [0, 1.5, float("nan")])
def test_impossible_standard_errors_are_refused(error: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        sample_size({"a": 1}, {"a": 0.5}, error)


def test_too_few_points_are_refused() -> None:
    with pytest.raises(InputError, match="3 points are too few for 2 strata"):
        allocate({"a": 10, "b": 10}, 3)
