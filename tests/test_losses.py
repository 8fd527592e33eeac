from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from geoseg.training.losses import IGNORE, FocalLoss, LovaszSoftmax, PartialCrossEntropy, SoftDice

FULL = [[0], [1], [2], [3]]
GROUPED = [*FULL, [2, 3]]  # code 4: class 2 or 3


@pytest.fixture
def logits() -> torch.Tensor:
    return (3 * torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(0))).requires_grad_()


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(0, 4, (2, 5, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 4.0]])
def test_full_labels_give_torchs_cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, weights: list[float] | None
) -> None:
    labels[0, :2] = IGNORE
    expected = cross_entropy(
        logits, labels.long(), ignore_index=IGNORE, weight=None if weights is None else torch.tensor(weights)
    )
    torch.testing.assert_close(PartialCrossEntropy(FULL, 4, weights)(logits, labels), expected)


def test_a_group_is_the_log_of_its_summed_probability(logits: torch.Tensor) -> None:
    labels = torch.full((2, 5, 6), 4, dtype=torch.uint8)
    expected = -logits.softmax(1)[:, 2:].sum(1).log().mean()
    torch.testing.assert_close(PartialCrossEntropy(GROUPED, 4)(logits, labels), expected)


def test_a_group_of_all_classes_teaches_nothing(logits: torch.Tensor) -> None:
    loss = PartialCrossEntropy([[0, 1, 2, 3]], 4)(logits, torch.zeros(2, 5, 6, dtype=torch.uint8))
    loss.backward()
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
def test_gradients_are_finite(size: float, labels: torch.Tensor) -> None:
    labels[1] = 4
    logits = (size * torch.randn(2, 4, 5, 6, generator=torch.Generator().manual_seed(2))).requires_grad_()
    for loss in (PartialCrossEntropy(GROUPED, 4), SoftDice(4)):
        [gradient] = torch.autograd.grad(loss(logits, labels), logits)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("loss", [PartialCrossEntropy(GROUPED, 4), SoftDice(4)], ids=["cross-entropy", "dice"])
def test_ignored_pixels_have_no_say(loss: torch.nn.Module, logits: torch.Tensor, labels: torch.Tensor) -> None:
    labels[:, :, 3:] = IGNORE
    value = loss(logits, labels)
    [gradient] = torch.autograd.grad(value, logits)
    assert (gradient[..., 3:] == 0).all()
    assert (gradient[..., :3] != 0).any()
    torch.testing.assert_close(value, loss(logits[..., :3], labels[..., :3]))


@pytest.mark.parametrize("loss", [PartialCrossEntropy(GROUPED, 4), SoftDice(4)], ids=["cross-entropy", "dice"])
def test_nothing_labelled_is_zero_and_can_be_differentiated(loss: torch.nn.Module, logits: torch.Tensor) -> None:
    value = loss(logits, torch.full((2, 5, 6), IGNORE, dtype=torch.uint8))
    value.backward()
    assert value == 0
    assert (logits.grad == 0).all()


def test_dice_of_certainty_is_zero_or_one(labels: torch.Tensor) -> None:
    right = 50.0 * torch.nn.functional.one_hot(labels.long(), 4).movedim(-1, 1)
    assert SoftDice(4)(right, labels) == pytest.approx(0, abs=1e-6)
    assert SoftDice(4)(right, (labels + 1) % 4) == pytest.approx(1, abs=1e-6)


def test_dice_leaves_groups_out(logits: torch.Tensor, labels: torch.Tensor) -> None:
    grouped, ignored = labels.clone(), labels.clone()
    grouped[0], ignored[0] = 4, IGNORE
    torch.testing.assert_close(SoftDice(4)(logits, grouped), SoftDice(4)(logits, ignored))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 5.0])
def test_focal_loss_is_the_papers(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> None:
    """Lin et al. 2017, equation 5 with weights, by numpy."""
    labels[1, 3] = IGNORE
    weights = np.array([0.5, 1.0, 2.0, 4.0])
    known = (labels != IGNORE).numpy()
    codes = labels.numpy()[known]
    spread = logits.detach().numpy().transpose(0, 2, 3, 1)[known].astype(float)
    spread = np.exp(spread) / np.exp(spread).sum(1, keepdims=True)
    right = spread[np.arange(len(codes)), codes]
    expected = (-weights[codes] * (1 - right) ** gamma * np.log(right)).sum() / weights[codes].sum()
    found = FocalLoss(FULL, 4, gamma=gamma, weights=weights.tolist())(logits, labels)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_focal_loss_of_a_sure_pixel_has_a_gradient() -> None:
    sure = torch.full((1, 4, 2, 2), -50.0)
    sure[:, 1] = 50.0
    sure.requires_grad_()
    FocalLoss(FULL, 4, gamma=0.5)(sure, torch.ones((1, 2, 2), dtype=torch.uint8)).backward()
    assert sure.grad is not None
    assert sure.grad.isfinite().all()


def lovasz_of_a_class(errors: np.ndarray, truth: np.ndarray) -> float:
    """Berman et al. 2018, equation 8: the interpolation of one minus Jaccard over the sets of the largest errors."""
    order = np.argsort(-errors, kind="stable")
    total, before = 0.0, 0.0
    for rank in range(1, len(order) + 1):
        wrong = np.zeros(len(errors), bool)
        wrong[order[:rank]] = True
        loss = 1 - (truth & ~wrong).sum() / (truth | wrong).sum()
        total += errors[order[rank - 1]] * (loss - before)
        before = loss
    return total


def test_lovasz_is_the_papers(logits: torch.Tensor, labels: torch.Tensor) -> None:
    labels[labels == 3] = IGNORE  # a class that is not present
    known = (labels != IGNORE).numpy()
    spread = logits.detach().softmax(1).numpy().transpose(0, 2, 3, 1)[known].astype(float)
    codes = labels.numpy()[known]
    each = [lovasz_of_a_class(np.abs((codes == c) - spread[:, c]), codes == c) for c in range(3)]
    assert float(LovaszSoftmax(4)(logits, labels).detach()) == pytest.approx(np.mean(each), rel=1e-4)


def test_lovasz_of_what_is_right_and_sure_is_nothing(labels: torch.Tensor) -> None:
    right = 100.0 * torch.nn.functional.one_hot(labels.long(), 4).movedim(-1, 1)
    assert float(LovaszSoftmax(4)(right, labels)) == pytest.approx(0, abs=1e-6)
    assert float(LovaszSoftmax(4)(-right, labels)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("loss", [FocalLoss(FULL, 4), LovaszSoftmax(4), SoftDice(4), PartialCrossEntropy(FULL, 4)])
def test_nothing_labelled_teaches_nothing(loss: torch.nn.Module, logits: torch.Tensor) -> None:
    found = loss(logits, torch.full((2, 5, 6), IGNORE, dtype=torch.uint8))
    found.backward()
    assert float(found.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()
