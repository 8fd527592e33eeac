"""Two posteriors to a transition, by brute force over all pairs; small parts taken out, whatever the window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from geoseg.change.transitions import (
    MOST_CLASSES,
    Transitions,
    compare_classes,
    compare_posteriors,
    indices_of,
    reach_px,
    too_small,
    transition_legend,
)
from geoseg.errors import InputError
from geoseg.legend import LANDCOVER, Legend, LegendClass


def posteriors(classes: int, seed: int, shape: tuple[int, int] = (9, 11)) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).gamma(0.3, size=(classes, *shape)) + 1e-4
    return (values / values.sum(0)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("prior", [0.01, 0.3, 0.9])
def test_the_most_probable_pair_by_brute_force(classes: int, prior: float) -> None:
    p, q = posteriors(classes, 1), posteriors(classes, 2)
    joint = np.einsum("ihw,jhw->ijhw", p.astype(float), q.astype(float))
    diagonal = np.eye(classes, dtype=bool)
    weights = np.where(diagonal, (1 - prior) / classes, prior / (classes * (classes - 1)))
    joint *= weights[:, :, None, None]
    joint /= joint.sum((0, 1))
    change = joint[~diagonal].sum(0)
    found = compare_posteriors(p, q, prior=prior)
    np.testing.assert_allclose(found.probability, change, rtol=1e-4, atol=1e-6)
    assert found.changed.any() or prior == 0.01
    for row, col in np.ndindex(change.shape):
        allowed = np.where(diagonal != (change[row, col] > 0.5), joint[:, :, row, col], -1)
        best = np.unravel_index(allowed.argmax(), allowed.shape)
        assert (found.before[row, col], found.after[row, col]) == best


def test_uncertain_pixels_do_not_flicker() -> None:
    """At a border both dates are unsure and lean to different sides by a little."""
    p = np.array([0.55, 0.45], np.float32)[:, None, None]
    q = np.array([0.45, 0.55], np.float32)[:, None, None]
    assert not compare_posteriors(p, q, prior=0.05).changed.any()
    sure = np.array([0.999, 0.001], np.float32)[:, None, None]
    assert compare_posteriors(sure, 1 - sure, prior=0.05).changed.all()


def test_what_is_unknown_on_either_date_is_nodata() -> None:
    p, q = posteriors(3, 1), posteriors(3, 2)
    p[:, 2, 3] = np.nan
    q[1, 4, 5] = np.nan
    found = compare_posteriors(p, q, prior=0.5)
    unknown = np.zeros((9, 11), bool)
    unknown[[2, 4], [3, 5]] = True
    assert ((found.codes() == 255) == unknown).all()
    assert (np.isnan(found.probability) == unknown).all()
    of_maps = compare_classes(np.array([[0, -1, 2]], np.int16), np.array([[1, 1, -1]], np.int16))
    assert of_maps.codes().tolist() == [[1 + 1, 255, 255]]


def test_codes_are_named_by_the_legend() -> None:
    legend = transition_legend(LANDCOVER)
    names = dict(zip(legend.ids, legend.names, strict=True))
    before, after = (indices_of(np.array([[ids]]), LANDCOVER) for ids in (LANDCOVER.ids[0], LANDCOVER.ids[5]))
    assert names[int(compare_classes(before, after).codes()[0, 0])] == "building to water"
    assert names[int(compare_classes(before, before).codes()[0, 0])] == "unchanged"
    assert len(names) == 31
    many = Legend(classes=tuple(LegendClass(id=i, name=f"c{i}", color="#000000") for i in range(MOST_CLASSES + 1)))
    with pytest.raises(InputError, match="15 classes at most"):
        transition_legend(many)
    full = transition_legend(Legend(classes=many.classes[:MOST_CLASSES]))
    assert len(set(full.ids)) == 15 * 14 + 1
    assert max(full.ids) < 255


def test_ids_that_the_legend_lacks_are_unknown() -> None:
    assert indices_of(np.array([0, 1, 255, 99, 300, -4]), LANDCOVER).tolist() == [-1, 0, -1, -1, -1, -1]


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(20, 40), st.integers(20, 40)), elements=st.booleans()),
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(0, 12),
    st.integers(0, 12),
)
def test_what_is_too_small_does_not_depend_on_the_window(
    changed: NDArray[np.bool_], least: int, width: int, row: int, col: int
) -> None:
    changed = np.repeat(np.repeat(changed, 2, 0), 2, 1)  # parts of all sizes
    whole = too_small(changed, least_px=least, width_px=width)
    reach = reach_px(least_px=least, width_px=width)
    top, left = max(0, row - reach), max(0, col - reach)
    part = changed[top : row + 9 + reach, left : col + 7 + reach]
    found = too_small(part, least_px=least, width_px=width)[row - top :, col - left :][:9, :7]
    assert np.array_equal(found, whole[row : row + 9, col : col + 7])


def test_slivers_and_specks_do_not_count() -> None:
    changed = np.zeros((40, 40), bool)
    changed[3, :] = True  # a sliver
    changed[10:12, 10:12] = True  # a speck
    changed[20:28, 20:28] = True
    kept = changed & ~too_small(changed, least_px=10, width_px=2)
    expected = np.zeros_like(changed)
    expected[20:28, 20:28] = True
    assert np.array_equal(kept, expected)


def test_pixels_that_do_not_count_keep_their_class() -> None:
    found = Transitions(np.array([[0, 1]], np.int16), np.array([[2, 2]], np.int16), np.ones((1, 2), np.float32))
    assert found.without(np.array([[True, False]])).codes().tolist() == [[0, 1 + 15 + 2]]


@pytest.mark.parametrize("options", [{"prior": 0.0}, {"prior": 1.0}, {"prior": 0.5, "threshold": float("nan")}])
def test_a_prior_lies_between_nothing_and_all(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        compare_posteriors(posteriors(2, 0), posteriors(2, 1), **options)
