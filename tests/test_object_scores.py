"""PQ and mask AP against torchmetrics and pycocotools, streamed."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import PanopticQuality

from geoseg.objects.scores import (
    THRESHOLDS,
    UNLABELLED,
    Overlaps,
    Pairs,
    Segments,
    average_precision,
    mean_quality,
    panoptic_quality,
)

THINGS, STUFF = (1, 2), (3, 4)
SIDE = 96
OBJECTS = 16


def scene(seed: int) -> tuple[NDArray[np.int64], Segments]:
    """Rectangles of two classes over stripes of two others, numbered from 1."""
    rng = np.random.default_rng(seed)
    ids = np.where(np.arange(SIDE)[:, None] // 30 % 2 == 0, 1, 2) * np.ones((1, SIDE), np.int64)
    classes = [*STUFF]
    for _ in range(OBJECTS - len(STUFF)):
        row, col, height, width = rng.integers(0, SIDE - 20, 2).tolist() + rng.integers(6, 20, 2).tolist()
        classes.append(int(rng.integers(1, 3)))
        ids[row : row + height, col : col + width] = len(classes)
    return ids, Segments(np.array(classes), rng.random(len(classes)))


def wobbled(ids: NDArray[np.int64], truth: Segments, seed: int) -> tuple[NDArray[np.int64], Segments]:
    """The same a pixel or two off, some gone, some of another class; scores drawn."""
    rng = np.random.default_rng(seed)
    moved = np.roll(ids, tuple(rng.integers(-2, 3, 2)), (0, 1))
    moved[np.isin(moved, [5, 9])] = 1
    classes = truth.class_id.copy()
    classes[7] = 3 - classes[7] if classes[7] < 3 else classes[7]
    return moved, Segments(classes, rng.random(len(classes)).round(2))


def counted(predicted: NDArray[np.int64], reference: NDArray[np.int64], side: int = 17) -> Pairs:
    overlaps = Overlaps(OBJECTS if predicted.any() else 0, OBJECTS)
    for row in range(0, SIDE, side):
        for col in range(0, SIDE, side):
            part = np.s_[row : row + side, col : col + side]
            overlaps.add(predicted[part], reference[part])
    return overlaps.pairs()


def as_panoptic(ids: NDArray[np.int64], segments: Segments) -> torch.Tensor:
    """(1, height, width, 2) class and number, as torchmetrics takes it."""
    classes = np.append(0, segments.class_id)[np.maximum(ids, 0)]
    number = np.where(np.isin(classes, THINGS), ids, 0)
    return torch.from_numpy(np.stack([np.where(ids == UNLABELLED, 9, classes), number], -1)[None])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("unknown", [False, True])
def test_panoptic_quality_is_that_of_torchmetrics(seed: int, unknown: bool) -> None:
    reference, truth = scene(seed)
    predicted, said = wobbled(reference, truth, seed + 100)
    if unknown:
        reference = reference.copy()
        reference[40:70, 20:80] = UNLABELLED
    found = panoptic_quality(counted(predicted, reference), said, truth)
    oracle = PanopticQuality(set(THINGS), set(STUFF), allow_unknown_preds_category=True, return_sq_and_rq=True)
    expected = oracle(as_panoptic(predicted, said), as_panoptic(reference, truth))
    assert np.allclose(mean_quality(found), expected.tolist(), atol=1e-6)


def coco_precision(
    predicted: NDArray[np.int64], said: Segments, reference: NDArray[np.int64], truth: Segments, class_id: int
) -> list[float]:
    """AP by threshold of pycocotools, with as many detections as there are."""

    def encoded(mask: NDArray[np.bool_]) -> dict[str, object]:
        return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))

    own = [number for number in np.unique(reference) if number > 0 and truth.class_id[number - 1] == class_id]
    told = [number for number in np.unique(predicted) if number > 0 and said.class_id[number - 1] == class_id]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": 1, "height": SIDE, "width": SIDE}],
            "categories": [{"id": class_id}],
            "annotations": [
                {
                    "id": int(number),
                    "image_id": 1,
                    "category_id": class_id,
                    "iscrowd": 0,
                    "area": int((reference == number).sum()),
                    "bbox": [0, 0, 1, 1],
                    "segmentation": encoded(reference == number),
                }
                for number in own
            ],
        }
        coco.createIndex()
        results = coco.loadRes(
            [
                {
                    "image_id": 1,
                    "category_id": class_id,
                    "segmentation": encoded(predicted == number),
                    "score": float(said.score[number - 1]),
                }
                for number in told
            ]
        )
        run = COCOeval(coco, results, "segm")
        run.params.maxDets = [10_000]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][:, :, 0, 0, 0].mean(1).tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("class_id", THINGS)
def test_average_precision_is_that_of_pycocotools(seed: int, class_id: int) -> None:
    reference, truth = scene(seed)
    predicted, said = wobbled(reference, truth, seed + 200)
    found = average_precision(counted(predicted, reference), said, truth, class_id)
    expected = coco_precision(predicted, said, reference, truth, class_id)
    assert list(found) == list(THRESHOLDS)
    assert np.allclose(list(found.values()), expected, atol=1e-9)


def test_the_windows_do_not_matter() -> None:
    reference, truth = scene(1)
    predicted, _ = wobbled(reference, truth, 7)
    one, other = counted(predicted, reference, 96), counted(predicted, reference, 13)
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_what_is_perfect_and_what_is_missing() -> None:
    reference, truth = scene(2)
    perfect = counted(reference, reference)
    assert mean_quality(panoptic_quality(perfect, truth, truth)) == (1, 1, 1)
    assert set(average_precision(perfect, truth, truth, 1).values()) == {1.0}
    nothing = counted(np.zeros_like(reference), reference)
    empty = Segments(np.empty(0, np.int64), np.empty(0))
    assert mean_quality(panoptic_quality(nothing, empty, truth)) == (0, 0, 0)
    assert set(average_precision(nothing, empty, truth, 1).values()) == {0.0}
    assert np.isnan(average_precision(perfect, truth, truth, 77)[0.5])
