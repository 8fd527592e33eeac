"""The training step, its schedule, and the averaged weights that are kept (Lightning runs the loop)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from geoseg.errors import GeosegError
from geoseg.training.finetune import Fitted

FAR = 1e6  # standard deviations from the mean where no measurement lies


@dataclass(frozen=True, slots=True)
class Schedule:
    """Warm-up, a long constant stretch, cosine decay to zero: the end may be moved while the run is in the middle.

    Attributes:
        steps: number of optimizer steps.
        warmup: steps of linear rise.
        decay: share of the steps spent in the final decay.
        learning_rate: the constant one.
    """

    steps: int
    warmup: int = 100
    decay: float = 0.35
    learning_rate: float = 1e-3

    def factor(self, step: int) -> float:
        """Learning rate at a step, as a share of the constant one."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return float(0.5 - 0.5 * torch.cos(torch.tensor(torch.pi * min(1.0, max(0.0, left)))))


class NotFinite(GeosegError):
    """The loss or its gradient is no number, or would soon be; the weights are still those of the step before."""


class SegmentationTask(LightningModule):
    """Fits a network to samples of (pixels, label codes) and keeps an exponential average of its weights.

    Args:
        network: chips (sample, band, height, width) to logits (sample, class, height, width).
        losses: summed with the given weights.
        schedule: of the learning rate.
        mean: one per band, of pixels; what a pixel becomes that is not measured.
        std: one per band.
        fitted: which weights are fitted, and how fast.
        average: share of the average that each step keeps; less in the first steps.
        mix: share of chips with a rectangle of another chip in them.
        seed: of what the network draws (dropout), step by step.
        told: what sample of the training a number stands for.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        losses: list[tuple[float, nn.Module]],
        schedule: Schedule,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        fitted: Fitted | None = None,
        average: float = 0.995,
        mix: float = 0.0,
        seed: int = 0,
        told: Callable[[int], str] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.average = AveragedModel(network, multi_avg_fn=_average(average), use_buffers=True)
        self.losses = nn.ModuleList([loss for _, loss in losses])
        self.loss_weights = [weight for weight, _ in losses]
        self.schedule, self.fitted, self.mix, self.seed = schedule, fitted or Fitted(), mix, seed
        self.told = told or (lambda number: f"sample {number}")
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def normalized(self, pixels: Tensor) -> Tensor:
        """What the network is given; 0, which is the mean, where not measured."""
        return ((pixels - self.mean) / self.std).nan_to_num(0.0)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum."""
        terms = [w * loss(logits, labels) for w, loss in zip(self.loss_weights, self.losses, strict=True)]
        return torch.stack(terms).sum()

    def on_train_start(self) -> None:
        self.fitted.hold_still(self.network)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        pixels, labels = batch
        self.begin_step(pixels)
        pixels, labels = mixed(self.mix, pixels, labels)
        total = self.checked(self.network(self.normalized(pixels)), labels)
        self.log("loss", total, prog_bar=True)
        return total

    def begin_step(self, pixels: Tensor) -> None:
        """Before anything is drawn for a step of these labelled samples.

        Raises:
            NotFinite: one of them is far out of range, which normalizations hide and spread over the batch.
        """
        torch.manual_seed(self.seed + self.global_step)  # so that a resumed run draws the same
        self._batch = len(pixels)
        largest = self.normalized(pixels).abs().amax((1, 2, 3))
        if float(largest.max()) > FAR:
            worst = int(largest.argmax())
            value = float(pixels[worst].nan_to_num().abs().max())
            raise NotFinite(
                f"A pixel of {value:g} is {float(largest.max()):.0e} standard deviations from the mean at "
                f"{self.told(self.global_step * self._batch + worst)}: nodata that the scene does not declare? State "
                "nodata or valid_mask beside the scene."
            )

    def checked(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a step.

        Raises:
            NotFinite: it is no number.
        """
        total = self.loss(logits, labels)
        if not torch.isfinite(total):
            bad = [i for i in range(len(labels)) if not torch.isfinite(self.loss(logits[i : i + 1], labels[i : i + 1]))]
            raise self._not_finite("loss", total, bad)
        return total

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """By norm; a gradient that is no number stops the training before it reaches the weights."""
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, gradient_clip_val or float("inf"))
        if not torch.isfinite(norm):
            raise self._not_finite("gradient", norm, [])

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        groups = self.fitted.groups(self.network, self.schedule.learning_rate)
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.learning_rate)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _not_finite(self, what: str, value: Tensor, bad: list[int]) -> NotFinite:
        first = self.global_step * self._batch
        alone = 0 < len(bad) < self._batch
        if alone:
            where = f"at {self.told(first + bad[0])}; look there for pixels far out of range, and leave them out"
        else:
            where = f"for the samples {first} to {first + self._batch - 1} together; try a lower learning rate"
        return NotFinite(f"The {what} is {value.item()} at step {self.global_step}, {where}.")


def mixed(share: float, chips: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """Some chips with a rectangle of the chip before them, in pixels and in maps (CutMix; Yun et al. 2019).

    Args:
        share: of the chips.
        chips: (sample, band, height, width).
        maps: each (sample, height, width).
    """
    if not share:
        return chips, *maps
    count, (height, width) = len(chips), chips.shape[-2:]
    some, area, row, col = torch.rand(4, count, 1, 1)
    side = (1 - area).sqrt()
    rows, cols = torch.arange(height)[:, None] / height, torch.arange(width) / width
    top, left = row * (1 - side), col * (1 - side)
    inside = (rows >= top) & (rows < top + side) & (cols >= left) & (cols < left + side)
    foreign = (inside & (some < share)).to(chips.device)
    return (
        torch.where(foreign[:, None], chips.roll(1, 0), chips),
        *(torch.where(foreign, one.roll(1, 0), one) for one in maps),
    )


def _average(share: float) -> Callable[[Any, Any, Any], None]:
    """Exponential, but over few steps at first, so that short trainings do not keep what they started from."""

    def update(averaged: Any, current: Any, steps: Any) -> None:
        done = float(steps)
        get_ema_multi_avg_fn(min(share, (1 + done) / (10 + done)))(averaged, current, steps)

    return update
