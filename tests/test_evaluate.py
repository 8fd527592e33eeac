from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from geoseg.errors import InputError
from geoseg.training.evaluate import Confusion


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 4, (40, 50)), rng.integers(0, 4, (40, 50))


def test_scores_are_those_of_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    matrix = Confusion(("a", "b", "c", "d"))
    matrix.add(*pair)
    reference, predicted = (torch.from_numpy(array) for array in pair)
    jaccard = MulticlassJaccardIndex(4, average="none")(predicted, reference)
    accuracy = MulticlassAccuracy(4, average="micro")(predicted, reference)
    np.testing.assert_allclose(list(matrix.iou().values()), jaccard, rtol=1e-6)
    np.testing.assert_allclose(matrix.overall_accuracy(), accuracy, rtol=1e-6)


def test_counts_add_up_over_parts(pair: tuple[np.ndarray, np.ndarray]) -> None:
    whole, parts = Confusion(("a", "b", "c", "d")), Confusion(("a", "b", "c", "d"))
    whole.add(*pair)
    for rows in (slice(7, 40), slice(0, 7)):
        parts.add(pair[0][rows], pair[1][rows])
    assert (whole.counts == parts.counts).all()


def test_unknown_pixels_are_left_out() -> None:
    matrix = Confusion(("a", "b"))
    matrix.add(np.array([0, 1, -1, 1, 7]), np.array([0, 1, 1, -1, 0]))
    assert matrix.counts.tolist() == [[1, 0], [0, 1]]


def test_a_class_nobody_has_is_nan() -> None:
    matrix = Confusion(("a", "b"))
    matrix.add([0, 0], [0, 0])
    assert matrix.iou()["a"] == 1
    assert np.isnan(matrix.iou()["b"])


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(2,\) .* \(3,\)"):
        Confusion(("a",)).add(np.zeros(2, int), np.zeros(3, int))
