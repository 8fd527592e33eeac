from __future__ import annotations

import numpy as np
import pytest
import torch

from geoseg.errors import InputError
from geoseg.training.augment import Augmentation
from geoseg.training.losses import IGNORE
from geoseg.training.samples import ArrayScene, Samples, Source


def scene(shape: tuple[int, int] = (200, 260), *, seed: int = 0) -> ArrayScene:
    rng = np.random.default_rng(seed)
    labels = np.kron(rng.integers(0, 4, (shape[0] // 20 + 1, shape[1] // 20 + 1)), np.ones((20, 20), int))
    labels = labels[: shape[0], : shape[1]].astype(np.uint8)
    return ArrayScene(rng.integers(0, 256, (3, *shape), dtype=np.uint8), labels, 0.5)


def samples(**changes: object) -> Samples:
    sources = [Source([scene(), scene(seed=1)], 2.0, (0.3, 1.0)), Source([scene((90, 70), seed=2)], 1.0, (0.5, 0.5))]
    fields = {"sources": sources, "size": 48, "count": 12, "seed": 5, "augmentation": Augmentation()}
    return Samples(**{**fields, **changes})


def same(a: tuple[torch.Tensor, torch.Tensor], b: tuple[torch.Tensor, torch.Tensor]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_a_sample_is_a_function_of_seed_and_index() -> None:
    first, again = samples(), samples()
    forward = [first[index] for index in range(12)]
    backward = [again[index] for index in reversed(range(12))]
    assert all(same(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    assert not same(forward[0], forward[1])
    assert not same(forward[0], samples(seed=6)[0])


def test_a_run_that_goes_on_sees_the_same() -> None:
    assert same(samples(first=7)[2], samples()[9])


def test_form_and_range() -> None:
    for index in range(12):
        pixels, labels = samples()[index]
        assert (pixels.shape, pixels.dtype) == ((3, 48, 48), torch.float32)
        assert (labels.shape, labels.dtype) == ((48, 48), torch.uint8)
        assert 0 <= pixels.min() <= pixels.max() <= 1
        assert set(labels.unique().tolist()) <= {0, 1, 2, 3, IGNORE}


def test_beyond_the_scene_there_is_no_label() -> None:
    """A chip larger than its scene: pixels are mirrored, labels are not."""
    tiny = ArrayScene(np.full((3, 20, 20), 128, np.uint8), np.ones((20, 20), np.uint8), 0.5)
    still = Augmentation(free_rotation=0, brightness=0, contrast=0, gamma=0, band_gain=0, haze=0, blur=0, noise=0)
    _, labels = samples(sources=[Source([tiny], 1.0, (0.5, 0.5))], augmentation=still, balance=0)[0]
    assert (labels == 1).sum() == 400
    assert (labels == IGNORE).sum() == 48 * 48 - 400


def test_balance_draws_rare_classes() -> None:
    labels = np.zeros((640, 640), np.uint8)
    labels[320:384, 320:384] = 1  # 1 % of the scene
    rare = Source([ArrayScene(np.zeros((3, 640, 640), np.uint8), labels, 0.5)], 1.0, (0.5, 0.5))
    hits = [
        sum(bool((samples(sources=[rare], balance=share)[index][1] == 1).any()) for index in range(30))
        for share in (0.0, 1.0)
    ]
    assert hits[0] < 6 < 10 < hits[1]


def test_a_heavier_scene_is_drawn_more_often() -> None:
    one, other = scene(), scene(seed=1)
    found = samples(sources=[Source([one, other], 1.0, (0.5, 0.5), weights=[3.0, 1.0])], count=400)
    share = sum(found.draw(index)[0].scene is one for index in range(400)) / 400
    assert 0.68 < share < 0.82


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(4, 5\) and labels \(4, 6\)"):
        ArrayScene(np.zeros((3, 4, 5), np.uint8), np.zeros((4, 6), np.uint8), 0.5)
