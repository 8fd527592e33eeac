"""Losses that know three kinds of label: a class, a group of classes, and nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

IGNORE = 255


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
        known = labels != IGNORE
        codes = labels[known].long()
        if codes.numel() == 0:
            return logits.sum() * 0.0
        log_probability = logits.float().movedim(1, -1)[known].log_softmax(-1)  # (pixel, class)
        loss = -(log_probability + self.allowed[codes]).logsumexp(-1)
        weight = self.weights[codes]
        return (loss * weight).sum() / weight.sum()


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
