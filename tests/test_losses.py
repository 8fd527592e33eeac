from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cross_entropy

from geoseg.training.losses import IGNORE, PartialCrossEntropy, SoftDice

MEMBERS = [(0,), (1,), (2,), (1, 2)]


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_full_labels_are_plain_cross_entropy(logits: torch.Tensor) -> None:
    labels = torch.randint(0, 3, (2, 5, 7), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(PartialCrossEntropy(MEMBERS, 3)(logits, labels), cross_entropy(logits, labels))


def test_weights_are_those_of_torch(logits: torch.Tensor) -> None:
    labels = torch.randint(0, 3, (2, 5, 7), generator=torch.Generator().manual_seed(1))
    weights = [0.5, 2.0, 3.0]
    ours = PartialCrossEntropy(MEMBERS[:3], 3, weights)(logits, labels)
    torch.testing.assert_close(ours, cross_entropy(logits, labels, weight=torch.tensor(weights)))


def test_a_group_is_minus_the_log_of_its_summed_probability(logits: torch.Tensor) -> None:
    labels = torch.full((2, 5, 7), 3)
    expected = -logits.softmax(1)[:, 1:].sum(1).log().mean()
    torch.testing.assert_close(PartialCrossEntropy(MEMBERS, 3)(logits, labels), expected)


def test_ignored_pixels_have_no_gradient(logits: torch.Tensor) -> None:
    labels = torch.full((2, 5, 7), IGNORE)
    labels[0, 0, 0], labels[0, 0, 1] = 0, 3
    PartialCrossEntropy(MEMBERS, 3)(logits, labels).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    touched = (logits.grad != 0).any(1)
    assert touched.sum() == 2
    assert touched[0, 0, :2].all()


@pytest.mark.parametrize("loss", [PartialCrossEntropy(MEMBERS, 3), SoftDice(3)])
def test_nothing_labelled_is_zero(loss: torch.nn.Module, logits: torch.Tensor) -> None:
    value = loss(logits, torch.full((2, 5, 7), IGNORE))
    value.backward()
    assert value == 0


def test_dice_is_zero_for_a_sure_and_right_answer() -> None:
    labels = torch.randint(0, 3, (1, 6, 6), generator=torch.Generator().manual_seed(0))
    right = 50.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)
    assert SoftDice(3)(right, labels) < 1e-6
    assert SoftDice(3)(-right, labels) > 0.9


def test_dice_leaves_groups_out() -> None:
    logits = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    partly = labels.clone()
    partly[0, 2:] = 3
    torch.testing.assert_close(SoftDice(3)(logits, partly), SoftDice(3)(logits[:, :, :2], labels[:, :2]))
