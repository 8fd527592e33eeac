"""Scores and boundaries against torchmetrics, scikit-learn and SciPy on the same arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score, precision_recall_fscore_support
from torchmetrics.classification import MulticlassF1Score, MulticlassJaccardIndex

from geoseg.errors import InputError
from geoseg.grid import windows_of
from geoseg.legend import LANDCOVER
from geoseg.raster.labels import UNLABELLED, LabelCodes
from geoseg.training.boundary import Targets, find_boundaries, halo, scores
from geoseg.training.metrics import averaged, bootstrap, hits, mean, overall_accuracy

PLAIN = Targets(((0,), (1,), (2,), (3,)), 4)
CODES = LabelCodes.of(LANDCOVER)
GROUPED = Targets(CODES.members, 6)
VEGETATION, TREE, LOW, WATER = (CODES.code(name) for name in ("vegetation", "tree", "low_vegetation", "water"))


def pair(shape: tuple[int, int] = (40, 50), classes: int = 4, *, seed: int = 0) -> tuple[NDArray[np.uint8], ...]:
    """Reference and prediction, alike in most pixels."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, classes, (shape[0] // 8 + 1, shape[1] // 8 + 1)).repeat(8, 0).repeat(8, 1)
    reference = reference[: shape[0], : shape[1]].astype(np.uint8)
    shifted = np.roll(reference, (1, 2), (0, 1))
    noise = rng.integers(0, classes, shape)
    return reference, np.where(rng.random(shape) < 0.2, noise, shifted).astype(np.uint8)


def counted(reference: NDArray[np.uint8], predicted: NDArray[np.uint8], targets: Targets) -> NDArray[np.int64]:
    counts = np.zeros((len(targets.members), targets.channels), np.int64)
    known = (reference < len(targets.members)) & (predicted < targets.channels)
    np.add.at(counts, (reference[known], predicted[known]), 1)
    return counts


def test_scores_are_those_of_scikit_learn_and_torchmetrics() -> None:
    reference, predicted = pair()
    counts = counted(reference, predicted, PLAIN)
    flat = reference.ravel(), predicted.ravel()
    assert np.array_equal(counts, confusion_matrix(*flat, labels=range(4)))
    found = hits(counts, PLAIN)
    precision, recall, f1, _ = precision_recall_fscore_support(*flat, labels=range(4))
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.f1, f1)
    np.testing.assert_allclose(found.iou, jaccard_score(*flat, average=None))
    np.testing.assert_allclose(overall_accuracy(counts, PLAIN), accuracy_score(*flat))
    tensors = torch.from_numpy(predicted).long(), torch.from_numpy(reference).long()
    np.testing.assert_allclose(found.iou, MulticlassJaccardIndex(4, average="none")(*tensors), rtol=1e-6)
    np.testing.assert_allclose(found.f1, MulticlassF1Score(4, average="none")(*tensors), rtol=1e-6)
    macro = MulticlassJaccardIndex(4, average="macro")(*tensors)
    np.testing.assert_allclose(mean(found.iou, averaged(counts, PLAIN)), macro, rtol=1e-6)


def test_a_group_label_is_right_for_any_member_and_wrong_for_others() -> None:
    counts = np.zeros((7, 6), np.int64)
    counts[VEGETATION, [TREE, LOW, WATER]] = 3, 4, 5
    counts[TREE, TREE] = 2
    found = hits(counts, GROUPED)
    assert overall_accuracy(counts, GROUPED) == pytest.approx((3 + 4 + 2) / 14)
    assert (found.found[VEGETATION], found.wrong[VEGETATION], found.missed[VEGETATION]) == (9, 0, 5)
    assert (found.found[TREE], found.wrong[TREE], found.missed[TREE]) == (2, 0, 0)  # which of the two is unknown
    assert (found.found[WATER], found.wrong[WATER], found.missed[WATER]) == (0, 5, 0)
    assert averaged(counts, GROUPED).nonzero()[0].tolist() == [TREE]
    counts[TREE] = 0
    assert averaged(counts, GROUPED).nonzero()[0].tolist() == [VEGETATION]


def test_a_target_that_nobody_has_is_nan_and_left_out_of_means() -> None:
    counts = np.diag([5, 3, 0, 0])
    found = hits(counts, PLAIN)
    assert np.isnan(found.iou[2:]).all()
    assert mean(found.iou, averaged(counts, PLAIN)) == 1
    assert np.isnan(mean(found.iou, np.zeros(4, np.bool_)))
    assert np.isnan(overall_accuracy(np.zeros((4, 4)), PLAIN))


def test_scores_of_many_matrices_are_those_of_each() -> None:
    stack = np.random.default_rng(0).integers(0, 9, (5, 7, 6))
    for number, counts in enumerate(stack):
        np.testing.assert_array_equal(hits(stack, GROUPED).iou[number], hits(counts, GROUPED).iou)


def oracle(
    reference: NDArray[np.uint8], predicted: NDArray[np.uint8], targets: Targets, distance: float
) -> NDArray[np.int64]:
    """The six counts of each target from Euclidean distances over the whole array."""
    rows = []
    for members in targets.members:
        inside = np.isin(reference, [k for k, own in enumerate(targets.members) if set(own) <= set(members)])
        apart = np.isin(reference, [k for k, own in enumerate(targets.members) if not set(own) & set(members)])
        known = np.pad((inside | apart) & (predicted < targets.channels), 1)  # beyond the frame nothing is known
        counted_px = (distance_transform_edt(known) > distance + 1)[1:-1, 1:-1]
        lines, strips = [], []
        for mask in (np.isin(predicted, members), inside):
            away = distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
            lines.append(mask & (away <= 1) & ~mask.all())
            strips.append(mask & (away <= distance) & ~mask.all())
        near = [distance_transform_edt(~line) <= distance if line.any() else np.zeros_like(line) for line in lines]
        kinds = (
            lines[0],
            lines[0] & near[1],
            lines[1],
            lines[1] & near[0],
            strips[0] & strips[1],
            strips[0] | strips[1],
        )
        rows.append([int((kind & counted_px).sum()) for kind in kinds])
    return np.array(rows)


@pytest.mark.parametrize("distance", [1, 2, 3.5, 7])
@pytest.mark.parametrize("targets", [PLAIN, GROUPED, Targets(tuple((i,) for i in range(11)), 11)])
def test_boundaries_are_those_of_distance_transforms(targets: Targets, distance: float) -> None:
    reference, predicted = pair((60, 70), len(targets.members))
    predicted = np.minimum(predicted, targets.channels - 1)
    reference[40:44, 20:60] = UNLABELLED
    predicted[:3, 40:] = UNLABELLED
    found = whole(reference, predicted, targets, distance)
    assert np.array_equal(found, oracle(reference, predicted, targets, distance))
    assert distance > 3 or (found > 0).any(1).all()


def whole(
    reference: NDArray[np.uint8], predicted: NDArray[np.uint8], targets: Targets, distance: float
) -> NDArray[np.int64]:
    margin = halo(distance)
    padded = [np.pad(array, margin, constant_values=UNLABELLED) for array in (reference, predicted)]
    return find_boundaries(*padded, targets, distance).counts((slice(margin, -margin),) * 2)


@given(st.integers(1, 40), st.floats(1, 5), st.integers(0, 99))
@settings(max_examples=15)
def test_boundary_counts_do_not_depend_on_blocks(block: int, distance: float, seed: int) -> None:
    reference, predicted = pair((45, 52), 4, seed=seed)
    reference[20:26, 20:30] = UNLABELLED
    margin = halo(distance)
    padded = [np.pad(array, margin, constant_values=UNLABELLED) for array in (reference, predicted)]
    expected = whole(reference, predicted, PLAIN, distance)
    total = np.zeros_like(expected)
    for window in windows_of(reference.shape, block):
        around = window.padded(margin).shifted(margin, margin)
        parts = [array[around.slices] for array in padded]
        inner = window.relative_to(window.padded(margin)).slices
        total += find_boundaries(*parts, PLAIN, distance).counts(inner)
    assert np.array_equal(total, expected)


def test_equal_maps_have_perfect_boundaries_and_a_shift_beyond_the_distance_has_none() -> None:
    reference = np.zeros((60, 60), np.uint8)
    reference[:, 30:] = 1
    for shift, expected in ((0, (1, 1)), (2, (1, None)), (9, (0, 0))):
        found = find_boundaries(reference, np.roll(reference, shift, 1), Targets(((0,), (1,)), 2), 2).counts(
            (slice(None), slice(15, 45))
        )
        f_score, iou = scores(found)
        assert f_score[1] == expected[0]
        assert expected[1] is None or iou[1] == expected[1]
    nothing = find_boundaries(reference * 0, reference * 0, PLAIN, 2).counts((slice(None), slice(None)))
    assert np.isnan(scores(nothing)).all()


def test_a_distance_that_says_nothing_is_refused() -> None:
    with pytest.raises(InputError, match=r"1 to 1000 pixels, not 0\.5"):
        find_boundaries(np.zeros((3, 3), np.uint8), np.zeros((3, 3), np.uint8), PLAIN, 0.5)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(60):
        shares = rng.normal(0.7, 0.1, 80).clip(0, 1)  # each cell has its own accuracy
        right = rng.binomial(200, shares)
        low, high = bootstrap(
            np.stack([right, 200 - right], 1), lambda summed: summed[:, :1] / summed.sum(1, keepdims=True)
        )
        held += bool(low[0] <= 0.7 <= high[0])
    assert 50 <= held <= 60


def test_intervals_are_the_same_each_time_and_unknown_for_one_cell() -> None:
    cells = np.random.default_rng(0).integers(0, 9, (10, 2))

    def share(summed: NDArray[np.float64]) -> NDArray[np.float64]:
        return summed[:, :1] / summed.sum(1, keepdims=True)

    assert bootstrap(cells, share) == bootstrap(cells, share)
    assert np.isnan(bootstrap(cells[:1], share)).all()
