"""Losses that know three kinds of label: a class, a group of classes, and nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IGNORE = 255
SURE = 1e-7  # a loss below it is taken for it, so that powers of what is unsure have gradients


class PartialCrossEntropy(nn.Module):
    """Cross-entropy where a label may name a set of classes: minus the log of the set's summed probability.

    Args:
        members: for each label code, the channels it allows; code k of a full label allows (k,) alone.
        weights: one per code.
    """

    allowed: Tensor
    weights: Tensor

    def __init__(self, members: Sequence[Sequence[int]], classes: int, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        allowed = torch.full((len(members), classes), -torch.inf)
        for code, channels in enumerate(members):
            allowed[code, list(channels)] = 0.0
        self.register_buffer("allowed", allowed)
        self.register_buffer("weights", torch.ones(len(members)) if weights is None else torch.tensor(weights))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean over labelled pixels.

        Args:
            logits: (sample, class, height, width).
            labels: (sample, height, width) of codes; IGNORE is left out.
        """
        loss, weight = self.of_pixels(logits, labels)
        return (loss * weight).sum() / weight.sum() if loss.numel() else logits.sum() * 0.0

    def of_pixels(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and weight of each labelled pixel, (pixel,)."""
        known = labels != IGNORE
        codes = labels[known].long()
        log_probability = logits.float().movedim(1, -1)[known].log_softmax(-1)  # (pixel, class)
        return -(log_probability + self.allowed[codes]).logsumexp(-1), self.weights[codes]


class SoftDice(nn.Module):
    """One minus the Dice coefficient of each class present in the batch (Milletari et al. 2016), mean over classes.

    Pixels labelled with a group, or not at all, are left out.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        known = labels < self.classes
        if not known.any():
            return logits.sum() * 0.0
        probability = logits.float().movedim(1, -1)[known].softmax(-1)  # (pixel, class)
        truth = nn.functional.one_hot(labels[known].long(), self.classes)
        overlap = (probability * truth).sum(0)
        total = probability.sum(0) + truth.sum(0)
        present = truth.any(0)
        return 1 - (2 * overlap[present] / total[present]).mean()


class FocalLoss(nn.Module):
    """Cross-entropy that counts a pixel less the surer it is (Lin et al. 2017, arXiv:1708.02002).

    A label that names a group counts by the summed probability of its classes, as in `PartialCrossEntropy`.

    Args:
        members: for each label code, the channels it allows.
        classes: number of channels.
        gamma: 0 is cross-entropy.
        weights: one per code.
    """

    def __init__(
        self,
        members: Sequence[Sequence[int]],
        classes: int,
        *,
        gamma: float = 2.0,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.entropy = PartialCrossEntropy(members, classes, weights)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted mean over labelled pixels; see `PartialCrossEntropy.forward`."""
        loss, weight = self.entropy.of_pixels(logits, labels)
        if loss.numel() == 0:
            return logits.sum() * 0.0
        unsure = -torch.expm1(-loss.clamp(min=SURE))  # one minus the probability of what the label allows
        return (unsure**self.gamma * loss * weight).sum() / weight.sum()


class LovaszSoftmax(nn.Module):
    """The Lovász extension of one minus the Jaccard index (Berman et al. 2018, arXiv:1705.08790).

    Mean over the classes present in the batch; pixels labelled with a group, or not at all, are left out.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """As the other losses."""
        known = labels < self.classes
        if not known.any():
            return logits.sum() * 0.0
        probability = logits.float().movedim(1, -1)[known].softmax(-1)  # (pixel, class)
        truth = nn.functional.one_hot(labels[known].long(), self.classes).float()
        present = truth.any(0)
        errors, order = (truth - probability).abs()[:, present].sort(0, descending=True)
        sorted_truth = truth[:, present].gather(0, order)
        total = sorted_truth.sum(0)
        jaccard = 1 - (total - sorted_truth.cumsum(0)) / (total + (1 - sorted_truth).cumsum(0))
        gradient = torch.diff(jaccard, dim=0, prepend=torch.zeros_like(jaccard[:1]))
        return (errors * gradient).sum(0).mean()
